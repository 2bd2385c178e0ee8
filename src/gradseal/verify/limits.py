"""What a worker's process may use at most."""

from __future__ import annotations

import contextlib


def limit_memory(size_bytes: int) -> None:
    """Bounds this process's address space, where the system can; and leaves no core file."""
    try:
        import resource
    except ImportError:  # not on this system; the verifier's time limits still hold
        return
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (size_bytes, size_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
