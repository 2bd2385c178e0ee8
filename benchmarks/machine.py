"""The facts of a machine and a moment, without which a measured time says little."""

from __future__ import annotations

import os
import platform
import resource
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gradseal.program.native import current_environment


def facts() -> dict[str, Any]:
    """Processor, cores, versions and threads."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        **asdict(current_environment()),
    }


def load() -> float:
    """How many processes wanted to run, on average over the last minute."""
    return os.getloadavg()[0]


def peak_bytes() -> int:
    """The most memory that this process ever had resident.

    On Linux by /proc: there, `getrusage` also counts what the parent had when it started this process.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if platform.system() == "Darwin" else 1024 * used
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
