"""A bundle's files in memory, which can fail at a chosen act.

Keeps the contract of `gradseal.proof.files.Files`. A failure comes before an act takes hold or after it, as a
crash between a write and its acknowledgement would; the files are then what a reader would find.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from gradseal.errors import MalformedBundle, MissingFile, StoreError


class MemoryFiles:
    """Files as a dictionary, with a journal of what was written and deleted, in order.

    Args:
        fail_at: The number of the write or deletion that fails, from 0; None for none.
        after: Whether that one takes hold all the same.
        once: Whether later ones succeed; else all of them fail too, as after a crash.
    """

    def __init__(self, fail_at: int | None = None, *, after: bool = False, once: bool = False) -> None:
        self.content: dict[str, bytes] = {}
        self.journal: list[tuple[str, str]] = []
        self._fail_at = fail_at
        self._after = after
        self._once = once

    def read(self, path: str, max_bytes: int) -> bytes:
        if path not in self.content:
            raise MissingFile("is not there", where=path)
        if len(self.content[path]) > max_bytes:
            raise MalformedBundle(f"longer than {max_bytes} bytes", where=path)
        return self.content[path]

    def digest(self, path: str, max_bytes: int) -> tuple[bytes, int]:
        data = self.read(path, max_bytes)
        return hashlib.sha256(data).digest(), len(data)

    def pieces(self, path: str, max_bytes: int) -> Iterator[bytes]:
        data = self.read(path, max_bytes)
        yield from (data[i : i + 1000] for i in range(0, len(data), 1000))

    def write(self, path: str, data: bytes | memoryview) -> None:
        fails = self._fails("write", path)
        if not fails or self._after:
            self.content[path] = bytes(data)
        if fails:
            raise StoreError("the test's failure", where=path)

    def exists(self, path: str) -> bool:
        return path in self.content

    def delete(self, path: str) -> None:
        fails = self._fails("delete", path)
        if not fails or self._after:
            self.content.pop(path, None)
        if fails:
            raise StoreError("the test's failure", where=path)

    def _fails(self, act: str, path: str) -> bool:
        number = len(self.journal)
        self.journal.append((act, path))
        if self._fail_at is None:
            return False
        if not self._once and number > self._fail_at:
            raise StoreError("nothing more after the crash", where=path)
        return number == self._fail_at
