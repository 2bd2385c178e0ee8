"""A real witness over HTTP, on SQLite: its answers, its keys, its end, and its death amid requests."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from contest import Contest, size_held
from forked_log import OWNER, Branch, origin_of
from gradseal.precede.witnesses import WitnessAddress, cosign
from gradseal.proof.cosignature import CosigningKey
from gradseal.proof.note import SigningKey, open_note
from gradseal.proof.submission import MAX_SUBMISSION_BYTES, SIZE_TYPE, Submission
from witness_server import WITNESS, Server

A = Branch("a", 20)
B = Branch("b", 20, shared=5)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server.start(tmp_path, f"sqlite:{tmp_path}/w.db")
    yield running
    if running.process.poll() is None:
        running.stop()


def post(url: str, submission: Submission | bytes) -> httpx.Response:
    body = submission if isinstance(submission, bytes) else submission.encode()
    return httpx.post(f"{url}/add-checkpoint", content=body, trust_env=False, timeout=20)


def cosigned_at(answer: httpx.Response, submission: Submission, key: CosigningKey = WITNESS) -> int | None:
    note = open_note(submission.note.text.encode() + b"\n" + answer.content, where="answer")
    return key.verification_key.cosigned_at(note)


def test_it_answers_as_the_standard_says(server: Server) -> None:
    first = A.submission(0, 5)
    answer = post(server.url, first)
    time = cosigned_at(answer, first)
    assert (answer.status_code, answer.text.count("\n")) == (200, 1)
    assert time is not None
    stranger = SigningKey(name="elsewhere.example", seed=bytes(32))
    thief = SigningKey(name=OWNER.name, seed=bytes(32))
    for submission, status in (
        (Branch("a", 20, key=stranger).submission(0, 5), 404),
        (Branch("a", 20, key=thief).submission(5, 9), 403),
        (A.submission(9, 5), 400),
        (b"old 5\n\nnot a checkpoint\n", 400),
        (b"", 400),
        (Branch("b", 20, shared=4).submission(5, 9), 422),
        (b"x" * (MAX_SUBMISSION_BYTES + 1), 413),
    ):
        assert post(server.url, submission).status_code == status
    for conflicting in (
        A.submission(0, 9),
        A.submission(4, 9),
        A.submission(6, 9),
        Branch("b", 9).submission(5, 5),
    ):
        conflict = post(server.url, conflicting)
        assert (conflict.status_code, conflict.text, conflict.headers["content-type"]) == (
            409,
            "5\n",
            SIZE_TYPE,
        )
    assert httpx.get(f"{server.url}/add-checkpoint", trust_env=False).status_code == 405
    again = post(server.url, A.submission(5, 5))
    assert (cosigned_at(again, first) or 0) >= time
    grown = A.submission(5, 9)
    assert (cosigned_at(post(server.url, grown), grown) or 0) >= time


def test_the_client_learns_the_size_and_gets_its_cosignature(server: Server) -> None:
    witness = WitnessAddress(key=WITNESS.verification_key, url=server.url)
    assert post(server.url, A.submission(0, 5)).status_code == 200
    found = cosign(witness, A.note(12), known_size=0, prove=A.tree.consistency_proof)
    again = cosign(witness, A.note(12), known_size=12, prove=A.tree.consistency_proof)
    assert again.timestamp >= found.timestamp


def test_page_and_metrics_show_what_happened(server: Server) -> None:
    assert post(server.url, A.submission(0, 5)).status_code == 200
    assert post(server.url, Branch("b", 9).submission(5, 5)).status_code == 409
    page = httpx.get(server.url, trust_env=False)
    assert A.origin in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    metrics = httpx.get(f"{server.url}/metrics", trust_env=False).text
    for line in (
        'gradseal_witness_answers_total{status="200"} 1.0',
        'gradseal_witness_answers_total{status="409"} 1.0',
        "gradseal_witness_forks_total 1.0",
        "gradseal_witness_changes 1.0",
    ):
        assert line in metrics


def test_while_keys_are_rotated_all_sign(tmp_path: Path) -> None:
    newer = CosigningKey(name=WITNESS.name, seed=b"\x99" * 32)
    running = Server.start(tmp_path, f"sqlite:{tmp_path}/w.db", keys=(WITNESS, newer))
    assert running.printed_keys == [str(key.verification_key) for key in (WITNESS, newer)]
    first = A.submission(0, 5)
    answer = post(running.url, first)
    assert cosigned_at(answer, first) == cosigned_at(answer, first, newer) is not None
    assert running.stop() == 0
    alone = Server.start(tmp_path, f"sqlite:{tmp_path}/w.db", keys=(newer,))
    grown = A.submission(5, 9)
    answer = post(alone.url, grown)
    assert cosigned_at(answer, grown, newer)
    assert cosigned_at(answer, grown) is None
    alone.stop()


def test_told_to_stop_it_answers_what_it_took(server: Server, tmp_path: Path) -> None:
    contest = Contest.make(lambda: [server.url], logs=3, forks=2)

    def stop() -> None:
        contest.wait_for(20)
        assert server.stop() == 0

    contest.run(30, stop)
    contest.check()
    counter = int((tmp_path / "w.db.mark").read_text().split()[1])
    assert counter >= 1
    again = Server.start(tmp_path, f"sqlite:{tmp_path}/w.db")
    for log in contest.branches:
        assert size_held(again.url, log[0]) == contest.largest(log)
    again.stop()


def test_killed_again_and_again_it_loses_nothing_and_never_forks(tmp_path: Path) -> None:
    servers = [Server.start(tmp_path, f"sqlite:{tmp_path}/w.db")]
    contest = Contest.make(lambda: [servers[0].url], logs=3, forks=2)

    def kill_often() -> None:
        for _ in range(4):
            contest.wait_for(15)
            servers[0].kill()
            servers[0] = Server.start(tmp_path, f"sqlite:{tmp_path}/w.db")

    try:
        contest.run(150, kill_often)
        contest.check()
        for log in contest.branches:
            assert size_held(servers[0].url, log[0]) >= contest.largest(log)
    finally:
        servers[0].stop()


def test_a_restored_backup_is_refused_at_the_start(tmp_path: Path) -> None:
    database = f"sqlite:{tmp_path}/w.db"
    running = Server.start(tmp_path, database)
    assert post(running.url, A.submission(0, 5)).status_code == 200
    running.stop()
    shutil.copy(tmp_path / "w.db", tmp_path / "backup")
    running = Server.start(tmp_path, database)
    assert post(running.url, A.submission(5, 9)).status_code == 200
    running.stop()
    shutil.copy(tmp_path / "backup", tmp_path / "w.db")
    with pytest.raises(RuntimeError, match="went back"):
        Server.start(tmp_path, database)


def test_a_database_that_goes_back_while_it_runs_stops_it(server: Server, tmp_path: Path) -> None:
    assert post(server.url, A.submission(0, 5)).status_code == 200
    subprocess.run(
        [
            "python3",
            "-c",
            f"import sqlite3; c = sqlite3.connect({str(tmp_path / 'w.db')!r});"
            "c.execute('UPDATE meta SET counter = 0'); c.commit()",
        ],
        check=True,
    )
    for submission in (
        A.submission(5, 9),
        A.submission(5, 5),
        Branch("c", 3, origin=origin_of(9)).submission(0, 3),
    ):
        assert post(server.url, submission).status_code == 503
    assert httpx.get(server.url, trust_env=False).status_code == 503
