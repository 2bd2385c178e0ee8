"""What a witness cosigned, in PostgreSQL: several instances behind one key.

Every change first takes the lock of the one row that holds the counter, so that changes come one after
another, whichever instance makes them; each row is then exchanged only for the one that was decided on
(compare and swap). A commit is durable once it returns: `synchronous_commit` is set for every connection,
and a server that runs without `fsync` is refused. An instance that hangs with the lock loses it after a few
seconds.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg

from gradseal.errors import StoreError
from gradseal.witness.state import Latest
from gradseal.witness.storage import SCHEMA, Decide, Listing, check_schema, check_written, counter_of

_TIMEOUT_SECONDS = 5
_ADVISORY_LOCK = 0x6772_6164_7365_616C
_Connection = psycopg.Connection[tuple[Any, ...]]

_TABLES = """
CREATE TABLE IF NOT EXISTS gradseal_witness (
    one integer PRIMARY KEY CHECK (one = 1), schema integer NOT NULL, identity text NOT NULL,
    counter bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS gradseal_witness_log (
    origin bytea PRIMARY KEY, size bigint NOT NULL, root bytea NOT NULL, timestamp bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS gradseal_witness_log_by_timestamp ON gradseal_witness_log (timestamp);
"""
_FIRST = "INSERT INTO gradseal_witness VALUES (1, %s, %s, 0) ON CONFLICT DO NOTHING"
_META = "SELECT schema, identity, counter FROM gradseal_witness"
_SELECT = "SELECT origin, size, root, timestamp FROM gradseal_witness_log WHERE origin = ANY(%s)"
_WRITE = """WITH swapped AS (
        UPDATE gradseal_witness_log AS log
        SET size = new.size, root = new.root, timestamp = new.timestamp
        FROM unnest(%s::bytea[], %s::bigint[], %s::bytea[], %s::bigint[],
                    %s::bigint[], %s::bytea[], %s::bigint[])
            AS new (origin, size, root, timestamp, old_size, old_root, old_timestamp)
        WHERE log.origin = new.origin AND log.size = new.old_size AND log.root = new.old_root
            AND log.timestamp = new.old_timestamp
        RETURNING 1
    ), made AS (
        INSERT INTO gradseal_witness_log
        SELECT * FROM unnest(%s::bytea[], %s::bigint[], %s::bytea[], %s::bigint[])
        ON CONFLICT DO NOTHING
        RETURNING 1
    ), counted AS (
        UPDATE gradseal_witness SET counter = counter + 1 RETURNING counter
    )
    SELECT (SELECT count(*) FROM swapped) + (SELECT count(*) FROM made), (SELECT counter FROM counted)"""
_NEWEST = """SELECT origin, size, root, timestamp FROM gradseal_witness_log
    ORDER BY timestamp DESC, origin LIMIT %s"""


class PostgresStorage:
    """A database on a server, for any number of instances.

    Args:
        address: A connection URI, `postgresql://…`.

    Raises:
        StoreError: It cannot be reached, runs without fsync, or its tables are of another version.
    """

    def __init__(self, address: str) -> None:
        # Without the password that the address may hold.
        self._where = "the PostgreSQL database"
        self._address = address
        self._connection: _Connection | None = None
        self._identity, self._counter = "", 0  # read from its first row below
        try:
            with self._transaction() as connection:
                self._set_up(connection)
        except BaseException:
            self.close()
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
        names = [origin.encode() for origin in set(origins)]
        with self._transaction() as connection:
            # One way to the server and back for these; the lock is there before the rows are looked at.
            with connection.pipeline():
                meta = connection.execute(f"{_META} FOR UPDATE")
                rows = connection.execute(_SELECT, (names,))
                counter = counter_of(meta.fetchone(), self._identity, self._counter, self._where)
                before = _latest(rows)
            changed = decide(before)
            if changed:
                counter = self._write(connection, before, changed)
        # Only now is it durable: leaving the block committed it.
        self._counter = counter

    def newest(self, limit: int) -> Listing:
        """As `Storage.newest` says."""
        with self._transaction() as connection:
            row = connection.execute("SELECT count(*) FROM gradseal_witness_log").fetchone()
            logs = _latest(connection.execute(_NEWEST, (limit,)))
        return Listing(total=int(row[0]) if row else 0, logs=tuple(logs.items()))

    def close(self) -> None:
        """Let go of the database."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _set_up(self, connection: _Connection) -> None:
        if connection.execute("SHOW fsync").fetchone() != ("on",):
            raise StoreError("a server without fsync, which may lose what it says it kept", where=self._where)
        # Instances that start together make the tables one after another.
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_ADVISORY_LOCK,))
        connection.execute(_TABLES)
        connection.execute(_FIRST, (SCHEMA, secrets.token_hex(16)))
        found = connection.execute(_META).fetchone()
        if found is None:
            raise StoreError("a witness's database without its first row", where=self._where)
        check_schema(found[0], self._where)
        self._identity, self._counter = str(found[1]), int(found[2])

    def _write(
        self, connection: _Connection, before: Mapping[str, Latest], changed: Mapping[str, Latest]
    ) -> int:
        """The counter after the changes."""
        known = {origin: new for origin, new in changed.items() if origin in before}
        fresh = {origin: new for origin, new in changed.items() if origin not in before}
        old = _values([before[origin] for origin in known])
        found = connection.execute(_WRITE, (*_columns(known), *old, *_columns(fresh))).fetchone()
        written, counter = found or (0, 0)
        check_written(written, changed, self._where)
        return int(counter)

    @contextmanager
    def _transaction(self) -> Iterator[_Connection]:
        """A transaction that is committed at the end; after any error the connection is given up."""
        try:
            connection = self._begin()
            yield connection
            if connection.execute("COMMIT").statusmessage != "COMMIT":
                raise StoreError("the database gave the transaction up", where=self._where)
        except BaseException as e:
            self.close()
            if isinstance(e, psycopg.Error):
                said = " ".join(str(e).split())[:300]
                raise StoreError(f"the witness's database: {said}", where=self._where) from e
            raise

    def _begin(self) -> _Connection:
        """The connection, made anew if it was lost while it was idle, with a transaction begun."""
        if self._connection is not None:
            try:
                self._connection.execute("BEGIN")
                return self._connection
            except psycopg.OperationalError:
                self.close()
        self._connection = psycopg.connect(
            self._address, autocommit=True, connect_timeout=_TIMEOUT_SECONDS, tcp_user_timeout=5000
        )
        _configure(self._connection)
        self._connection.execute("BEGIN")
        return self._connection


def _configure(connection: _Connection) -> None:
    milliseconds = 1000 * _TIMEOUT_SECONDS
    for setting, value in (
        ("synchronous_commit", "on"),
        ("statement_timeout", milliseconds),
        ("lock_timeout", milliseconds),
        ("idle_in_transaction_session_timeout", milliseconds),
        ("default_transaction_isolation", "read committed"),
    ):
        connection.execute("SELECT set_config(%s, %s, false)", (setting, str(value)))


def _columns(logs: Mapping[str, Latest]) -> tuple[list[Any], ...]:
    return ([origin.encode() for origin in logs], *_values(list(logs.values())))


def _values(latest: list[Latest]) -> tuple[list[Any], ...]:
    return [one.size for one in latest], [one.root for one in latest], [one.timestamp for one in latest]


def _latest(rows: psycopg.Cursor[tuple[Any, ...]]) -> dict[str, Latest]:
    return {
        bytes(origin).decode(): Latest(size=size, root=bytes(root), timestamp=timestamp)
        for origin, size, root, timestamp in rows
    }
