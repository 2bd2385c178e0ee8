"""SQLite under a witness: what is kept, what is refused, and what is noticed."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import pytest

from forked_log import Branch
from gradseal.errors import StoreError
from gradseal.witness.mark import Mark
from gradseal.witness.state import Latest
from gradseal.witness.storage import RolledBack, SqliteStorage

FIRST = Latest(size=3, root=b"\x03" * 32, timestamp=100)
SECOND = Latest(size=2**63 - 1, root=b"\x05" * 32, timestamp=2**63 - 1)
ORIGIN = Branch("a", 1).origin


def advance(storage: SqliteStorage, **changes: Latest) -> None:
    storage.advance(changes, lambda _: changes)


def latest(storage: SqliteStorage, *origins: str) -> dict[str, Latest]:
    found: dict[str, Latest] = {}

    def look(before: Mapping[str, Latest]) -> Mapping[str, Latest]:
        found.update(before)
        return {}

    storage.advance(origins, look)
    return found


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "w.db"
    storage = SqliteStorage(path)
    identity = storage.identity
    advance(storage, a=FIRST, b=FIRST)
    advance(storage, a=SECOND)
    assert latest(storage, "a", "b", "c") == {"a": SECOND, "b": FIRST}
    storage.close()
    storage = SqliteStorage(path)
    assert (storage.identity, storage.counter) == (identity, 2)
    assert latest(storage, "a", "b", "c") == {"a": SECOND, "b": FIRST}
    listing = storage.newest(1)
    assert (listing.total, listing.logs) == (2, (("a", SECOND),))
    storage.close()


def test_a_commit_is_synced(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path / "w.db")
    read = storage._connection.execute
    assert read("PRAGMA synchronous").fetchone() == (2,)
    assert read("PRAGMA journal_mode").fetchone() == ("wal",)
    storage.close()


def test_nothing_is_written_if_the_decision_fails(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path / "w.db")
    advance(storage, a=FIRST)

    def fail(_: Mapping[str, Latest]) -> Mapping[str, Latest]:
        raise StoreError("no")

    with pytest.raises(StoreError):
        storage.advance(["a"], fail)
    assert (latest(storage, "a"), storage.counter) == ({"a": FIRST}, 1)
    storage.close()


def test_what_was_decided_on_something_else_is_not_written(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path / "w.db")
    advance(storage, a=FIRST)

    def meddle(_: Mapping[str, Latest]) -> Mapping[str, Latest]:
        storage._connection.execute("UPDATE log SET size = 9")
        return {"a": SECOND}

    with pytest.raises(StoreError, match="no longer stands"):
        storage.advance(["a"], meddle)
    assert latest(storage, "a") == {"a": FIRST}
    storage.close()


def test_processes_take_turns_on_one_file(tmp_path: Path) -> None:
    one, two = SqliteStorage(tmp_path / "w.db"), SqliteStorage(tmp_path / "w.db")
    advance(one, a=FIRST)
    assert latest(two, "a") == {"a": FIRST}
    advance(two, a=SECOND)
    assert latest(one, "a") == {"a": SECOND}
    assert one.counter == two.counter == 2
    one.close()
    two.close()


def test_a_database_that_goes_back_under_a_running_witness_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "w.db"
    storage = SqliteStorage(path)
    advance(storage, a=FIRST)
    with sqlite3.connect(path) as other:
        other.execute("UPDATE meta SET counter = 0")
    other.close()
    with pytest.raises(RolledBack):
        advance(storage, a=SECOND)
    storage.close()


def test_another_database_in_its_place_is_noticed(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path / "w.db")
    with sqlite3.connect(tmp_path / "w.db") as other:
        other.execute("UPDATE meta SET identity = 'another'")
    other.close()
    with pytest.raises(RolledBack):
        advance(storage, a=FIRST)
    storage.close()


def test_tables_of_a_later_version_are_refused(tmp_path: Path) -> None:
    SqliteStorage(tmp_path / "w.db").close()
    with sqlite3.connect(tmp_path / "w.db") as later:
        later.execute("UPDATE meta SET schema = 2")
    later.close()
    with pytest.raises(StoreError, match="schema 2") as caught:
        SqliteStorage(tmp_path / "w.db")
    assert caught.value.advice


@pytest.mark.parametrize("content", ["other database", "not a database", "directory", "no directory"])
def test_what_is_not_a_witnesses_database_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "w.db"
    if content == "other database":
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE t (x)")
        other.close()
    elif content == "not a database":
        path.write_bytes(b"x" * 10_000)
    elif content == "directory":
        path.mkdir()
    else:
        path = tmp_path / "nowhere" / "w.db"
    with pytest.raises(StoreError):
        SqliteStorage(path)


def test_after_a_restart_a_restored_backup_is_noticed_by_the_mark(tmp_path: Path) -> None:
    path, mark = tmp_path / "w.db", Mark(tmp_path / "w.db.mark")
    storage = SqliteStorage(path)
    mark.check(storage)
    advance(storage, a=FIRST)
    storage.close()
    shutil.copy(path, tmp_path / "backup.db")
    storage = SqliteStorage(path)
    advance(storage, a=SECOND)
    mark.write(storage)
    mark.check(storage)
    storage.close()
    shutil.copy(tmp_path / "backup.db", path)
    restored = SqliteStorage(path)
    with pytest.raises(RolledBack) as caught:
        mark.check(restored)
    assert "new ones" in caught.value.advice
    restored.close()


def test_a_new_database_beside_an_old_mark_is_noticed(tmp_path: Path) -> None:
    mark = Mark(tmp_path / "mark")
    storage = SqliteStorage(tmp_path / "w.db")
    mark.write(storage)
    storage.close()
    (tmp_path / "w.db").unlink()
    fresh = SqliteStorage(tmp_path / "w.db")
    with pytest.raises(RolledBack):
        mark.check(fresh)
    fresh.close()


def test_a_mark_is_written_at_most_once_a_second_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "mark"
    mark, storage = Mark(path), SqliteStorage(tmp_path / "w.db")
    mark.write(storage)
    before = path.read_text()
    advance(storage, a=FIRST)
    mark.write(storage, now=True)
    assert path.read_text() == before.replace(" 0\n", " 1\n")
    storage.close()


@pytest.mark.parametrize("text", ["", "x", "0" * 32 + " 1", "0" * 32 + " 01\n", "0" * 32 + " -1\n"])
def test_what_is_not_a_mark_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "mark").write_text(text)
    storage = SqliteStorage(tmp_path / "w.db")
    with pytest.raises(StoreError, match="not a mark"):
        Mark(tmp_path / "mark").check(storage)
    storage.close()
