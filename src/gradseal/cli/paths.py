"""What a user names as a bundle or a new directory; URLs are left to the storage that knows them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gradseal.errors import Error, MissingFile, StoreError


@contextmanager
def reading(bundle: str, *, besides: Sequence[Path | None] = ()) -> Iterator[None]:
    """Names the bundle in an error from inside, whose place is only a file in it.

    Args:
        bundle: What the user named.
        besides: Files that are read too and are no part of it, which errors name by their whole path.

    Raises:
        MissingFile: There is no such directory.
    """
    if "://" not in bundle and not Path(bundle).exists():
        raise MissingFile("there is no such bundle", where=bundle)
    if "://" not in bundle and Path(bundle).is_file():
        raise MissingFile("is a file, and a bundle is a directory", where=bundle)
    try:
        yield
    except Error as e:
        if any(path and f"{e.where}: ".startswith(f"{path.absolute()}: ") for path in besides):
            raise
        raise type(e)(e.message, where=f"{bundle}: {e.where}" if e.where else bundle, advice=e.advice) from e


def make_new_directory(path: str | Path, *, advice: str = "name another directory, or remove it") -> None:
    """Makes a directory, or takes one that is empty.

    Args:
        path: Where.
        advice: What to do about one that has something in it.

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
        raise StoreError("already exists and is not empty", where=str(path), advice=advice)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise StoreError("the directory cannot be written to", where=str(path))
