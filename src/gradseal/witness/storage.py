"""Where a witness keeps what it cosigned: SQLite here, PostgreSQL in `postgres`.

Guarantees that a change is durable once `advance` returns, that all changes come one after another, whoever
makes them, and that each is made only if what it was decided on still stands. A counter grows with every
change, so that a database that went back is noticed by whoever saw it (`RolledBack`; see `mark` for after a
restart).

Formats of a later version are refused. Knows no logs and no keys.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gradseal.errors import StoreError
from gradseal.witness.state import Latest

SCHEMA = 1
"""The version of the tables."""

Decide = Callable[[Mapping[str, Latest]], Mapping[str, Latest]]
"""From what was cosigned last of some origins to what changes; may be called more than once."""


class RolledBack(StoreError):
    """A database that holds less than it did: a restored backup, or a replica that was behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Some logs for people: how many there are, and the latest by origin, the newest first."""

    total: int
    logs: tuple[tuple[str, Latest], ...]


class Storage(Protocol):
    """What a witness needs of a database. A thread at a time may use it."""

    @property
    def identity(self) -> str:
        """A random name that the database got when it was made."""
        ...

    @property
    def counter(self) -> int:
        """How many changes it had when this process last looked."""
        ...

    def advance(self, origins: Collection[str], decide: Decide) -> None:
        """Read, decide and write as one; durable once it returns.

        Args:
            origins: What `decide` is to be told about.
            decide: Its changes are written, or nothing is.

        Raises:
            RolledBack: The database has fewer changes than this process saw; it is not used any more.
            StoreError: It could not be done. Whether it was is then not known, and nobody may be told.
        """
        ...

    def newest(self, limit: int) -> Listing:
        """The logs that were cosigned last.

        Raises:
            StoreError: They cannot be read.
        """
        ...

    def close(self) -> None:
        """Let go of the database."""
        ...


def counter_of(row: Sequence[Any] | None, identity: str, seen: int, where: str) -> int:
    """The counter in a database's first row, if it is still the database that it was.

    Args:
        row: Schema, identity and counter; None if the row is gone.
        identity: Of the database that was opened.
        seen: How many changes this process saw in it.
        where: The database, for error messages.

    Raises:
        RolledBack: Another database, or one with fewer changes.
        StoreError: The tables are of another version.
    """
    if row is None or row[1] != identity:
        raise RolledBack("another database has taken its place", where=where)
    check_schema(row[0], where)
    check_counter(row[2], seen, where)
    return int(row[2])


def check_written(written: int, changed: Mapping[str, Latest], where: str) -> None:
    """Refuse a change of which not every row was exchanged for what was decided on.

    Raises:
        StoreError: Somebody else changed one in between.
    """
    if written != len(changed):
        raise StoreError("what was decided on no longer stands", where=where)


def check_schema(found: int, where: str) -> None:
    """Refuse the tables of another version.

    Raises:
        StoreError: They are.
    """
    if found != SCHEMA:
        raise StoreError(
            f"a witness's database of schema {found}, and this version knows {SCHEMA}",
            where=where,
            advice="run the version of Gradseal that wrote it, or a later one",
        )


def check_counter(found: int, seen: int, where: str) -> None:
    """Refuse a database that went back.

    Raises:
        RolledBack: It has fewer changes than were seen.
    """
    if found < seen:
        raise RolledBack(
            f"the database went back: {found} changes, and it had {seen}",
            where=where,
            advice="what was cosigned since is forgotten: retire this witness's keys and start with new ones",
        )


_TABLES = """
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1), schema INTEGER NOT NULL, identity TEXT NOT NULL,
    counter INTEGER NOT NULL
) STRICT;
CREATE TABLE log (
    origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, timestamp INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX log_by_timestamp ON log (timestamp);
"""
_META = "SELECT schema, identity, counter FROM meta"
_SELECT = """SELECT origin, size, root, timestamp FROM log
             WHERE origin IN (SELECT value FROM json_each(?))"""
_INSERT = "INSERT INTO log VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_SWAP = """UPDATE log SET size = ?, root = ?, timestamp = ?
           WHERE origin = ? AND size = ? AND root = ? AND timestamp = ?"""
_NEWEST = "SELECT origin, size, root, timestamp FROM log ORDER BY timestamp DESC, origin LIMIT ?"


class SqliteStorage:
    """A database in one file, with a write-ahead log that is synced at every commit.

    Several processes may use one file: each change is one immediate transaction.

    Args:
        path: The file; made if it is not there.

    Raises:
        StoreError: It cannot be opened, is not a witness's database, or is of another version.
    """

    def __init__(self, path: Path) -> None:
        self._where = str(path)
        self._identity, self._counter = "", 0  # read from its first row below
        with self._translated():
            self._connection = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
            try:
                self._set_up()
                self._sync_directory(path)
            except BaseException:
                self._connection.close()
                raise

    @property
    def identity(self) -> str:
        """A random name that the database got when it was made."""
        return self._identity

    @property
    def counter(self) -> int:
        """How many changes it had when this process last looked."""
        return self._counter

    def advance(self, origins: Collection[str], decide: Decide) -> None:
        """As `Storage.advance` says."""
        with self._translated(), self._transaction():
            row = self._connection.execute(_META).fetchone()
            counter = counter_of(row, self._identity, self._counter, self._where)
            before = _latest(self._connection.execute(_SELECT, (json.dumps(list(origins)),)))
            changed = decide(before)
            if changed:
                self._swap(before, changed)
                counter += 1
                self._connection.execute("UPDATE meta SET counter = ?", (counter,))
        # Only now is it durable.
        self._counter = counter

    def newest(self, limit: int) -> Listing:
        """As `Storage.newest` says."""
        with self._translated():
            (total,) = self._connection.execute("SELECT count(*) FROM log").fetchone()
            logs = _latest(self._connection.execute(_NEWEST, (limit,)))
        return Listing(total=total, logs=tuple(logs.items()))

    def close(self) -> None:
        """Let go of the database."""
        with self._translated():
            self._connection.close()

    def _set_up(self) -> None:
        (mode,) = self._connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError("its file system cannot hold a write-ahead log", where=self._where)
        self._connection.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            tables = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_schema")}
            if not tables:
                self._make_tables()
            elif "meta" not in tables:
                raise StoreError("a database, but not a witness's", where=self._where)
            found = self._connection.execute(_META).fetchone()
            check_schema(found[0], self._where)
            self._identity, self._counter = str(found[1]), int(found[2])

    def _make_tables(self) -> None:
        for statement in _TABLES.split(";"):
            self._connection.execute(statement)
        self._connection.execute("INSERT INTO meta VALUES (1, ?, ?, 0)", (SCHEMA, secrets.token_hex(16)))

    def _sync_directory(self, path: Path) -> None:
        descriptor = os.open(path.resolve().parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _swap(self, before: Mapping[str, Latest], changed: Mapping[str, Latest]) -> None:
        swapped = [
            (new.size, new.root, new.timestamp, origin, old.size, old.root, old.timestamp)
            for origin, new in changed.items()
            if (old := before.get(origin))
        ]
        made = [(o, new.size, new.root, new.timestamp) for o, new in changed.items() if o not in before]
        written = 0
        for statement, rows in ((_SWAP, swapped), (_INSERT, made)):
            if rows:
                written += self._connection.executemany(statement, rows).rowcount
        check_written(written, changed, self._where)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as e:
            raise StoreError(f"the witness's database: {e}", where=self._where) from e


def _latest(rows: sqlite3.Cursor) -> dict[str, Latest]:
    return {
        origin: Latest(size=size, root=bytes(root), timestamp=timestamp)
        for origin, size, root, timestamp in rows
    }
