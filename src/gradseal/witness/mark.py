"""How far a witness's database had come, kept outside of it, so that a restart notices one that went back.

A file of one line with the database's identity and its counter. It is written after the database, so it
never claims more than that holds; it may be behind by a second. It notices a database that was restored from
a backup, lost or exchanged, as long as the file was not restored with it: keep it out of the backup.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from gradseal.errors import StoreError
from gradseal.witness.storage import RolledBack, Storage, check_counter

_LINE = re.compile(r"([0-9a-f]{32}) (0|[1-9][0-9]{0,18})\n")
_EVERY_SECONDS = 1.0


class Mark:
    """The file.

    Args:
        path: Made by the first `write`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = -1.0

    def check(self, storage: Storage) -> None:
        """Refuse a database that is not at least as far as the mark.

        Raises:
            RolledBack: It is behind, or another one.
            StoreError: The file cannot be read or is not a mark.
        """
        where = str(self._path)
        try:
            text = self._path.read_bytes()[:100].decode("ascii", "replace")
        except FileNotFoundError:
            return
        except OSError as e:
            raise StoreError(f"the mark cannot be read: {e.strerror}", where=where) from e
        match = _LINE.fullmatch(text)
        if not match:
            raise StoreError("not a mark: an identity, a counter", where=where)
        if match[1] != storage.identity:
            raise RolledBack(
                "the mark of another database; this one knows nothing of what was cosigned",
                where=where,
                advice="bring that database back, or retire this witness's keys and start with new ones",
            )
        check_counter(storage.counter, int(match[2]), where)

    def write(self, storage: Storage, *, now: bool = False) -> None:
        """Note how far the database is, at most once a second.

        Args:
            storage: What is durable there.
            now: Whether to write in any case.

        Raises:
            StoreError: It cannot be written.
        """
        moment = time.monotonic()
        if not now and moment - self._written < _EVERY_SECONDS:
            return
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            with beside.open("w", encoding="ascii") as file:
                file.write(f"{storage.identity} {storage.counter}\n")
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
        except OSError as e:
            raise StoreError(f"the mark cannot be written: {e.strerror}", where=str(self._path)) from e
        self._written = moment
