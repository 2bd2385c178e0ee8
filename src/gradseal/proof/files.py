"""Where a bundle's files are, seen from the format: a folder of named byte strings.

The seam between the format and storage: `store` has the real ones. Also the paths that a bundle has, and
reading a blob by its digest. Format: docs/spec/bundle.md, section 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Protocol

from gradseal.errors import CorruptBlob, MalformedBundle

CHECKPOINT = "checkpoint"
WEIGHTS = "weights.safetensors"


class Files(Protocol):
    """A folder of files, on a disk, in an object store or in memory.

    `write` is durable once it returns, and a reader sees the old file or the new one, whole.
    """

    def read(self, path: str, max_bytes: int) -> bytes:
        """The file's bytes.

        Raises:
            MissingFile: There is none.
            MalformedBundle: It is longer than `max_bytes`.
            StoreError: It could not be read.
        """
        ...

    def digest(self, path: str, max_bytes: int) -> tuple[bytes, int]:
        """The SHA-256 and the size of a file that is not kept in memory; raises as `read` does."""
        ...

    def pieces(self, path: str, max_bytes: int) -> Iterator[bytes]:
        """The file's bytes in pieces, so that it is never in memory whole; raises as `read` does."""
        ...

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Makes or replaces a file.

        Raises:
            StoreError: It could not be written.
        """
        ...

    def exists(self, path: str) -> bool:
        """Whether there is such a file.

        Raises:
            StoreError: It could not be looked for.
        """
        ...

    def delete(self, path: str) -> None:
        """Removes a file; it is no error if there is none."""
        ...


def blob_path(digest: bytes) -> str:
    """The path of the blob with this SHA-256."""
    name = digest.hex()
    return f"blobs/{name[:2]}/{name}"


def opening_path(seal: bytes) -> str:
    """The path of the tensor digests that a seal stands for."""
    return f"openings/{seal.hex()}"


def read_blob(files: Files, digest: bytes, max_bytes: int) -> bytes:
    """The blob with this SHA-256, hashed again as it is read.

    Raises:
        MissingFile: It is not there.
        CorruptBlob: What is there has another hash.
        MalformedBundle: It is longer than `max_bytes`.
    """
    data = files.read(blob_path(digest), max_bytes)
    if hashlib.sha256(data).digest() != digest:
        raise CorruptBlob("its bytes do not hash to its name", where=blob_path(digest))
    return data


def check_blob(files: Files, digest: bytes, max_bytes: int) -> int:
    """The size of the blob with this SHA-256, hashed without being kept; raises as `read_blob` does."""
    found, size_bytes = files.digest(blob_path(digest), max_bytes)
    if found != digest:
        raise CorruptBlob("its bytes do not hash to its name", where=blob_path(digest))
    return size_bytes


def read_opening(files: Files, seal: bytes, tensors: int) -> tuple[bytes, ...]:
    """The digests of a state's tensors, in the layout's order; not yet checked against the seal.

    Raises:
        MissingFile: The state was not opened.
        CorruptBlob: Not `tensors` digests.
    """
    data = read_sized(files, opening_path(seal), 32 * tensors)
    return tuple(data[i : i + 32] for i in range(0, len(data), 32))


def read_sized(files: Files, path: str, size_bytes: int) -> bytes:
    """A file whose size follows from what is already known.

    Raises:
        MissingFile: It is not there.
        CorruptBlob: It is shorter or longer: altered, rather than over a limit.
    """
    try:
        data = files.read(path, size_bytes)
    except MalformedBundle as e:
        raise CorruptBlob(f"longer than its {size_bytes} bytes", where=path) from e
    if len(data) != size_bytes:
        raise CorruptBlob(f"{len(data)} bytes, not {size_bytes}", where=path)
    return data
