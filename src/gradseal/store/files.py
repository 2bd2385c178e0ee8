"""A bundle's files wherever fsspec reaches: a local directory, memory, an object store.

A local write is staged beside its target, flushed to the disk, and renamed into place; the directory is
flushed last, so a file that is seen is whole and stays. What a crash leaves staged has a name that no reader
asks for. Other file systems publish a put object whole by themselves. Reading is bounded, follows links, and
takes regular files only: a pipe in the place of a file would stop a reader for ever.
Format: docs/spec/bundle.md, section 1.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from gradseal.errors import Error, MalformedBundle, MissingFile, StoreError

_CHUNK_BYTES = 1 << 20


class FsspecFiles:
    """Files below a root, on any fsspec file system.

    Args:
        url: A path, or a URL that fsspec knows (`memory://…`, `s3://…`).

    Raises:
        StoreError: No file system is known for the URL.
    """

    def __init__(self, url: str) -> None:
        try:
            self._fs, self.root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError, OSError) as e:
            raise StoreError(
                f"no storage for this: {e}",
                where=url,
                advice="a package of fsspec's for such URLs is missing",
            ) from e
        self._local = isinstance(self._fs, LocalFileSystem)
        self._made: set[Path] = set()

    def read(self, path: str, max_bytes: int) -> bytes:
        """See `proof.files.Files`."""
        return b"".join(self.pieces(path, max_bytes))

    def digest(self, path: str, max_bytes: int) -> tuple[bytes, int]:
        """See `proof.files.Files`."""
        hashed, size_bytes = hashlib.sha256(), 0
        for piece in self.pieces(path, max_bytes):
            hashed.update(piece)
            size_bytes += len(piece)
        return hashed.digest(), size_bytes

    def write(self, path: str, data: bytes | memoryview) -> None:
        """See `proof.files.Files`."""
        with self._errors(path):
            if self._local:
                self._write_durably(Path(self._at(path)), data)
            else:
                self._fs.pipe_file(self._at(path), bytes(data))

    def exists(self, path: str) -> bool:
        """See `proof.files.Files`."""
        try:
            with self._errors(path):
                self._fs.info(self._at(path))
        except MissingFile:
            return False
        return True

    def delete(self, path: str) -> None:
        """See `proof.files.Files`."""
        try:
            with self._errors(path):
                self._fs.rm_file(self._at(path))
        except MissingFile:
            return

    def is_empty(self) -> bool:
        """Whether there is no file below the root, nor in its place; empty directories do not count.

        Raises:
            StoreError: It could not be looked at.
        """
        return next(self.paths(), None) is None

    def paths(self) -> Iterator[str]:
        """The paths of all files below the root, staged ones too; an empty one for a file in its place.

        Raises:
            StoreError: A directory could not be listed, which fsspec's `exists` and `walk` would pass over.
        """
        directories = [self.root]
        with self._errors(""):
            while directories:
                directory = directories.pop()
                try:
                    listing = self._fs.ls(directory, detail=True)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                for found in listing:
                    path = found["name"].rstrip("/")
                    if found["type"] != "directory":
                        yield path.removeprefix(self.root).lstrip("/")
                    elif path != directory:
                        directories.append(path)

    def _at(self, path: str) -> str:
        return f"{self.root}/{path}"

    def pieces(self, path: str, max_bytes: int) -> Iterator[bytes]:
        """See `proof.files.Files`; `read(n)` would first make room for n bytes, and a limit is far larger."""
        left = max_bytes + 1
        with self._errors(path), self._open(path) as file:
            # First what the file says of itself: a sparse one takes no room on a disk, but much time to read.
            if self._local and os.fstat(file.fileno()).st_size > max_bytes:
                left = 0
            while left and (piece := file.read(min(left, _CHUNK_BYTES))):
                left -= len(piece)
                if left:
                    yield piece
        if not left:
            raise MalformedBundle(f"longer than {max_bytes} bytes", where=path)

    def _open(self, path: str) -> BinaryIO:
        if not self._local:
            opened: BinaryIO = self._fs.open(self._at(path), "rb")
            return opened
        # Without O_NONBLOCK, opening a pipe waits for a writer.
        descriptor = os.open(self._at(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise StoreError("is not a regular file", where=path)
        return os.fdopen(descriptor, "rb")

    def _write_durably(self, target: Path, data: bytes | memoryview) -> None:
        self._make_directory(target.parent)
        staged = target.parent / f".{target.name}.{secrets.token_hex(4)}"
        try:
            with open(staged, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(staged, target)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        _flush_directory(target.parent)

    def _make_directory(self, directory: Path) -> None:
        """Makes a directory whose name is durable, and those above it."""
        if directory in self._made or directory.is_dir():
            return
        self._make_directory(directory.parent)
        directory.mkdir(exist_ok=True)
        _flush_directory(directory.parent)
        self._made.add(directory)

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        where = path or self.root
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as e:
            # fsspec says so, too, of a server that cannot be reached or that fails.
            if _is_absence(e.__cause__):
                raise MissingFile("is not there", where=where) from e
            raise _failed(e.__cause__ or e, where) from e
        except Error:
            raise
        except (OSError, ValueError) as e:
            raise _failed(e, where) from e
        except Exception as e:
            # What a remote file system's own library raises, fsspec hands on.
            if self._local:
                raise
            raise _failed(e, where) from e


def _is_absence(cause: BaseException | None) -> bool:
    """Whether what is behind a missing file says no more than that."""
    if cause is None or isinstance(cause, FileNotFoundError | LookupError):
        return True
    return getattr(cause, "status", None) in (404, 410)


def _failed(error: BaseException, where: str) -> StoreError:
    return StoreError(f"could not be read or written: {type(error).__name__}: {error}", where=where)


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
