"""New directories for the verbs that make one."""

from __future__ import annotations

import os
from pathlib import Path

from gradseal.errors import StoreError


def make_new_directory(path: str | Path) -> None:
    """Makes a directory, or takes one that is empty; leaves a URL to whoever writes there.

    Raises:
        StoreError: It has something in it, or nothing can be written there.
    """
    if "://" in str(path):
        return
    directory = Path(path)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        used = any(directory.iterdir())
    except OSError as e:
        raise StoreError(f"no directory can be made there: {e.strerror}", where=str(path)) from e
    if used:
        raise StoreError(
            "already exists and is not empty", where=str(path), advice="name another directory, or remove it"
        )
    if not os.access(directory, os.W_OK | os.X_OK):
        raise StoreError("the directory cannot be written to", where=str(path))
