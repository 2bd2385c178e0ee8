"""Two witnesses behind one key on one PostgreSQL: forks submitted to both, and all of it killed amid them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import postgres
from contest import Contest, size_held
from forked_log import Branch
from gradseal.errors import StoreError
from gradseal.witness.mark import Mark
from gradseal.witness.postgres import PostgresStorage
from gradseal.witness.state import Latest
from gradseal.witness.storage import RolledBack
from witness_server import Server

pytestmark = pytest.mark.skipif(bool(postgres.missing()), reason=postgres.missing() or "it is there")


@pytest.fixture(scope="module")
def cluster() -> Iterator[postgres.Cluster]:
    with postgres.cluster() as running:
        yield running


@pytest.fixture
def servers(cluster: postgres.Cluster, tmp_path: Path) -> Iterator[list[Server]]:
    running = [start(cluster, tmp_path, number) for number in (0, 1)]
    yield running
    for server in running:
        if server.process.poll() is None:
            server.stop()


def start(cluster: postgres.Cluster, directory: Path, number: int) -> Server:
    own = directory / f"instance-{number}"
    own.mkdir(exist_ok=True)
    return Server.start(own, cluster.address)


def check_held(contest: Contest, servers: list[Server]) -> None:
    for log in contest.branches:
        held = {size_held(server.url, log[0]) for server in servers}
        assert len(held) == 1
        assert held.pop() >= contest.largest(log)


def test_of_forks_submitted_to_both_one_branch_is_cosigned(servers: list[Server]) -> None:
    contest = Contest.make(lambda: [server.url for server in servers], logs=4, forks=3, first=100)
    contest.run(40)
    contest.check()
    check_held(contest, servers)


def test_instances_killed_again_and_again_lose_nothing_and_never_fork(
    servers: list[Server], cluster: postgres.Cluster, tmp_path: Path
) -> None:
    contest = Contest.make(lambda: [server.url for server in servers], logs=3, forks=2, first=200)

    def kill_often() -> None:
        for turn in range(4):
            contest.wait_for(15)
            servers[turn % 2].kill()
            servers[turn % 2] = start(cluster, tmp_path, turn % 2)

    contest.run(120, kill_often)
    contest.check()
    check_held(contest, servers)


def test_the_database_killed_again_and_again_loses_nothing_and_never_forks(
    servers: list[Server], cluster: postgres.Cluster
) -> None:
    contest = Contest.make(lambda: [server.url for server in servers], logs=3, forks=2, first=300)

    def kill_often() -> None:
        for _ in range(3):
            contest.wait_for(15)
            cluster.kill()

    contest.run(200, kill_often)
    contest.check()
    check_held(contest, servers)


FIRST = Latest(size=3, root=b"\x03" * 32, timestamp=100)
SECOND = Latest(size=2**63 - 1, root=b"\x05" * 32, timestamp=2**63 - 1)


@pytest.fixture
def fresh(cluster: postgres.Cluster) -> Iterator[str]:
    """A database of its own."""
    with psycopg.connect(cluster.address, autocommit=True) as connection:
        connection.execute("CREATE DATABASE fresh")
        yield cluster.address.replace("/postgres", "/fresh")
        connection.execute("DROP DATABASE fresh WITH (FORCE)")


def test_what_was_written_is_there_for_every_instance(fresh: str, tmp_path: Path) -> None:
    one, two = PostgresStorage(fresh), PostgresStorage(fresh)
    origins = [Branch("a", 1).origin, "\N{SNOWMAN} \x7f%s"]
    one.advance(origins, lambda _: dict.fromkeys(origins, FIRST))
    two.advance(
        origins, lambda before: {origins[0]: SECOND} if before == dict.fromkeys(origins, FIRST) else {}
    )
    assert (one.identity, one.counter, two.counter) == (two.identity, 1, 2)
    assert one.newest(1).logs == ((origins[0], SECOND),)
    assert one.newest(5).total == 2
    Mark(tmp_path / "mark").write(two)
    Mark(tmp_path / "mark").check(two)
    one.close()
    two.close()


def test_what_was_decided_on_something_else_is_not_written(fresh: str) -> None:
    storage = PostgresStorage(fresh)
    storage.advance(["a"], lambda _: {"a": FIRST})

    def meddle(_: object) -> dict[str, Latest]:
        with psycopg.connect(fresh, autocommit=True) as other:
            other.execute("UPDATE gradseal_witness_log SET size = 9")
        return {"a": SECOND}

    with pytest.raises(StoreError, match="no longer stands"):
        storage.advance(["a"], meddle)
    assert storage.newest(5).logs[0][1].size == 9
    storage.close()


@pytest.mark.parametrize(
    ("meddling", "error"),
    [
        ("UPDATE gradseal_witness SET counter = 0", RolledBack),
        ("UPDATE gradseal_witness SET identity = 'another'", RolledBack),
        ("DELETE FROM gradseal_witness", RolledBack),
        ("UPDATE gradseal_witness SET schema = 2", StoreError),
        ("DROP TABLE gradseal_witness_log", StoreError),
    ],
)
def test_a_database_that_is_not_what_it_was_is_noticed(
    fresh: str, meddling: str, error: type[StoreError]
) -> None:
    storage = PostgresStorage(fresh)
    storage.advance(["a"], lambda _: {"a": FIRST})
    with psycopg.connect(fresh, autocommit=True) as other:
        other.execute(meddling)
    with pytest.raises(error):
        storage.advance(["a"], lambda _: {"a": SECOND})
    storage.close()


def test_tables_of_a_later_version_are_refused(fresh: str) -> None:
    PostgresStorage(fresh).close()
    with psycopg.connect(fresh, autocommit=True) as later:
        later.execute("UPDATE gradseal_witness SET schema = 2")
    with pytest.raises(StoreError, match="schema 2"):
        PostgresStorage(fresh)


def test_a_password_is_in_no_message(cluster: postgres.Cluster) -> None:
    wrong = cluster.address.replace("witness@", "nobody:sesame@")
    with pytest.raises(StoreError) as caught:
        PostgresStorage(wrong)
    assert "sesame" not in caught.value.diagnostics()


def test_commits_are_durable_whatever_the_server_is_set_to(fresh: str) -> None:
    with psycopg.connect(fresh, autocommit=True) as connection:
        connection.execute("ALTER DATABASE fresh SET synchronous_commit = off")
    storage = PostgresStorage(fresh)
    assert storage._connection is not None
    assert storage._connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
    storage.close()


def test_a_server_without_fsync_is_refused() -> None:
    with postgres.cluster() as careless:
        careless.set("fsync = off")
        careless.kill()
        with pytest.raises(StoreError, match="fsync"):
            PostgresStorage(careless.address)
