"""Asking witnesses and authorities at once: real ones, and ones that are away, slow or hostile."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from forged_tokens import OTHER_ROOT, ROOT, SIGNER
from forked_log import Branch
from gradseal.errors import AnchorError, MalformedBundle
from gradseal.precede.authorities import Authority
from gradseal.precede.bounds import bound_of, digest_of
from gradseal.precede.hosts import Hosts
from gradseal.precede.timestamps import PinnedAuthority, TimeStamper
from gradseal.precede.trust import Trust
from gradseal.precede.witnesses import WitnessAddress
from gradseal.proof.anchors import AnchorStore, read_receipt, read_token, receipt_of
from gradseal.proof.cosignature import CosigningKey
from gradseal.proof.note import Note
from gradseal.proof.quorum import parse_policy
from gradseal.proof.submission import parse_submission
from memory_files import MemoryFiles
from time_stamp_authority import OpensslAuthority, answering, send, serve
from witness_server import WITNESS, Server

A = Branch("a", 40)
KEY = str(WITNESS.verification_key)
OTHER_WITNESS = CosigningKey(name="other.example.org", seed=b"\x41" * 32)
PATIENT_SECONDS = 60.0
IMPATIENT_SECONDS = 1.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("witness")
    running = Server.start(directory, f"sqlite:{directory}/w.db")
    yield running
    running.stop()


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[Authority]:
    openssl = OpensslAuthority(directory=tmp_path, signer=SIGNER)
    with serve(answering(openssl.reply)) as url:
        yield Authority(name="openssl", url=url, roots=openssl.roots, timeout_seconds=PATIENT_SECONDS)


class Stamper:
    """A `TimeStamper` that does what a test wants."""

    def __init__(self, name: str, act: Callable[[bytes], bytes]) -> None:
        self.name = name
        self.stamp = act


def address(url: str, key: CosigningKey = WITNESS) -> WitnessAddress:
    return WitnessAddress(key=key.verification_key, url=url)


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def silent() -> Iterator[str]:
    """A host that takes a connection and says nothing until the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def cosigning(answer: Callable[[int, str], str | None]) -> Callable[[BaseHTTPRequestHandler, bytes], None]:
    """A witness of our own, which gives what `answer` makes of a submission's size and text; else 503."""

    def respond(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        submission = parse_submission(body)
        line = answer(submission.checkpoint.size, submission.note.text)
        send(handler, (line or "later").encode(), status=200 if line else 503, kind="text/plain")

    return respond


def honest(_: int, text: str) -> str:
    return WITNESS.cosign(text, int(time.time())).line()


def test_nobody_gives_nothing() -> None:
    found = Hosts().obtain(A.note(3), A.tree.consistency_proof)
    assert (found.note, found.tokens, found.faults, found.asked) == (A.note(3), (), (), 0)


def test_a_checkpoint_is_cosigned_stamped_kept_and_shown(server: Server, authority: Authority) -> None:
    """From the hosts through the files of a bundle to what a verifier sees."""
    policy = f"witness w {KEY} {server.url}\nquorum w\n".encode()
    trust = Trust(
        policy=parse_policy(policy, where="policy"),
        authorities=(PinnedAuthority(name="openssl", roots=(ROOT.der,)),),
        timestamp_urls={"openssl": authority.url},
        combine="all",
    )
    hosts = Hosts(trust.witness_addresses(), trust.timestampers(timeout_seconds=PATIENT_SECONDS))
    files = MemoryFiles()
    store = AnchorStore(files)
    before = time.time()
    for size in (3, 17, 40):
        found = hosts.obtain(A.note(size), A.tree.consistency_proof, timeout_seconds=PATIENT_SECONDS)
        assert (found.faults, found.asked) == ((), 2)
        store.add(receipt_of(found.note, A.tree), found.tokens)
    assert hosts.known_sizes == {KEY: 40}
    for anchored in store.anchored:
        note = read_receipt(files, anchored.size).note
        tokens = [read_token(files, anchored.size, i) for i in range(anchored.timestamps)]
        shown = bound_of(note, tokens, trust, now=datetime.now(UTC))
        assert (shown.by, shown.faults) == (("w", "openssl"), ())
        assert shown.not_after is not None
        assert before - 1 < shown.not_after <= time.time() + 2 + trust.skew_seconds


def test_a_known_size_of_before_is_remembered_and_a_wrong_one_corrected(server: Server) -> None:
    branch = Branch("c", 30, origin=f"{A.key.name}/{7:032x}")
    first = Hosts([address(server.url)])
    first.obtain(branch.note(5), branch.tree.consistency_proof, timeout_seconds=PATIENT_SECONDS)
    assert first.known_sizes == {KEY: 5}
    forgetful = Hosts([address(server.url)])
    found = forgetful.obtain(branch.note(9), branch.tree.consistency_proof, timeout_seconds=PATIENT_SECONDS)
    assert WITNESS.verification_key.cosigned_at(found.note)
    # Another recorder went on meanwhile; what is remembered of before is then too small, and does no harm.
    resumed = Hosts([address(server.url)], known_sizes=first.known_sizes)
    found = resumed.obtain(branch.note(30), branch.tree.consistency_proof, timeout_seconds=PATIENT_SECONDS)
    assert (found.faults, resumed.known_sizes) == ((), {KEY: 30})
    # And that one is now behind.
    found = forgetful.obtain(branch.note(20), branch.tree.consistency_proof, timeout_seconds=PATIENT_SECONDS)
    assert "more than the 20 submitted" in found.faults[0]
    assert found.note == branch.note(20)


def test_a_fork_is_told_and_raises_nothing(server: Server) -> None:
    origin = f"{A.key.name}/{8:032x}"
    one, two = Branch("d", 9, origin=origin), Branch("e", 9, origin=origin)
    hosts = Hosts([address(server.url)])
    assert not hosts.obtain(one.note(9), one.tree.consistency_proof, timeout_seconds=PATIENT_SECONDS).faults
    (fault,) = hosts.obtain(two.note(9), two.tree.consistency_proof, timeout_seconds=PATIENT_SECONDS).faults
    assert fault.startswith(f"witness {WITNESS.name}: {server.url}/add-checkpoint: ")
    assert "forked" in fault


def test_less_than_was_cosigned_is_not_sent() -> None:
    hosts = Hosts([address(closed_port())], known_sizes={KEY: 20})
    found = hosts.obtain(A.note(19), A.tree.consistency_proof)
    assert (found.asked, found.note) == (0, A.note(19))
    assert "not asked for size 19, since it cosigned 20" in found.faults[0]


def test_those_who_are_away_or_hostile_are_told_and_the_others_count(authority: Authority) -> None:
    def wrong(_: bytes) -> bytes:
        raise AnchorError("an answer\nthat is\x1b[2J hostile " + "x" * 1000, where="host")

    def broken(_: bytes) -> bytes:
        raise ValueError

    lies = WITNESS.cosign(A.note(4).text, 5).line()
    stampers: list[TimeStamper] = [Stamper("wrong", wrong), authority, Stamper("broken", broken)]
    with serve(cosigning(lambda *_: lies)) as liar:
        hosts = Hosts([address(liar), address(closed_port(), OTHER_WITNESS)], stampers)
        found = hosts.obtain(A.note(9), A.tree.consistency_proof, timeout_seconds=PATIENT_SECONDS)
    assert (found.asked, len(found.tokens), found.note, hosts.known_sizes) == (5, 1, A.note(9), {})
    lied, away, hostile, none = found.faults
    assert "no cosignature that verifies under the pinned key" in lied
    assert f"witness {OTHER_WITNESS.name}" in away
    assert "cannot be reached" in away
    assert hostile.isprintable()
    assert len(hostile) < 500
    assert none == "time-stamp authority broken: ValueError"


def test_an_authority_with_another_root_gives_nothing(authority: Authority) -> None:
    other = Authority(
        name="other", url=authority.url, roots=(OTHER_ROOT.der,), timeout_seconds=PATIENT_SECONDS
    )
    found = Hosts([], [other]).obtain(A.note(9), A.tree.consistency_proof, timeout_seconds=PATIENT_SECONDS)
    assert found.tokens == ()
    assert "leads to no pinned root" in found.faults[0]


def test_a_host_that_failed_is_asked_again_with_the_newest() -> None:
    sizes: list[int] = []

    def answer(size: int, text: str) -> str | None:
        sizes.append(size)
        return None if size < 20 else honest(size, text)

    with serve(cosigning(answer)) as url:
        hosts = Hosts([address(url)])
        for size in (5, 10, 20, 30):
            found = hosts.obtain(A.note(size), A.tree.consistency_proof, timeout_seconds=PATIENT_SECONDS)
            assert (len(found.faults), hosts.known_sizes.get(KEY, 0)) == ((1, 0) if size < 20 else (0, size))
    assert sizes == [5, 10, 20, 30]


@pytest.mark.timeout(60)
def test_the_silent_are_not_waited_for_nor_asked_twice() -> None:
    def token(digest: bytes) -> bytes:
        return b"token of " + digest

    released = threading.Event()

    def held(_: bytes) -> bytes:
        released.wait()
        return b"too late"

    with silent() as url:
        hosts = Hosts([address(url)], [Stamper("prompt", token), Stamper("held", held)])
        found = hosts.obtain(A.note(9), A.tree.consistency_proof, timeout_seconds=IMPATIENT_SECONDS)
        assert found.tokens == (b"token of " + digest_of(A.note(9)),)
        assert (found.note, found.asked) == (A.note(9), 3)
        assert "time-stamp authority held: no answer within 1 seconds" in found.faults
        again = hosts.obtain(A.note(10), A.tree.consistency_proof, timeout_seconds=IMPATIENT_SECONDS)
        assert "time-stamp authority held: not asked, since it still holds the request before" in again.faults
        assert list(again.tokens) == [b"token of " + digest_of(A.note(10))]
        released.set()
        tokens = again.tokens
        while len(tokens) < 2:
            tokens = hosts.obtain(
                A.note(11), A.tree.consistency_proof, timeout_seconds=IMPATIENT_SECONDS
            ).tokens
        assert tokens == (b"token of " + digest_of(A.note(11)), b"too late")


@pytest.mark.timeout(60)
def test_what_a_witness_cosigned_too_late_is_known_all_the_same() -> None:
    released = threading.Event()

    def slow(size: int, text: str) -> str:
        released.wait()
        return honest(size, text)

    with serve(cosigning(slow)) as url:
        hosts = Hosts([address(url)])
        # The request itself has time; whoever asks does not wait for it.
        asking = hosts._cosigning(address(url), A.note(9), 9, A.tree.consistency_proof, PATIENT_SECONDS)
        assert not isinstance(asking, str)
        found = hosts.obtain(A.note(10), A.tree.consistency_proof, timeout_seconds=IMPATIENT_SECONDS)
        assert found.asked == 0
        released.set()
        asking.thread.join()
        assert hosts.known_sizes == {KEY: 9}
        found = hosts.obtain(A.note(10), A.tree.consistency_proof, timeout_seconds=PATIENT_SECONDS)
        assert (found.faults, hosts.known_sizes) == ((), {KEY: 10})


@pytest.mark.timeout(60)
def test_hosts_are_asked_at_the_same_time() -> None:
    meeting = threading.Barrier(4)

    def meet(_: bytes) -> bytes:
        meeting.wait(30)
        return b"met"

    def cosign(size: int, text: str) -> str:
        meeting.wait(30)
        return honest(size, text)

    with serve(cosigning(cosign)) as url:
        hosts = Hosts([address(url)], [Stamper(str(i), meet) for i in range(3)])
        found = hosts.obtain(A.note(9), A.tree.consistency_proof, timeout_seconds=PATIENT_SECONDS)
    assert (found.faults, found.tokens) == ((), (b"met",) * 3)


@pytest.mark.timeout(60)
def test_calls_from_two_threads_do_not_overtake_each_other() -> None:
    sizes: list[int] = []
    entered, released = threading.Event(), threading.Event()

    def answer(size: int, text: str) -> str:
        sizes.append(size)
        entered.set()
        if size == 5:
            released.wait(30)
        return honest(size, text)

    def obtain(size: int) -> None:
        hosts.obtain(A.note(size), A.tree.consistency_proof, timeout_seconds=PATIENT_SECONDS)

    with serve(cosigning(answer)) as url:
        hosts = Hosts([address(url)])
        threads = [threading.Thread(target=obtain, args=[size]) for size in (5, 9)]
        threads[0].start()
        assert entered.wait(30)
        threads[1].start()
        time.sleep(0.2)
        assert sizes == [5]
        released.set()
        for thread in threads:
            thread.join()
    assert (sizes, hosts.known_sizes) == ([5, 9], {KEY: 9})


def test_more_hosts_than_there_is_room_for_are_refused() -> None:
    def key(i: int) -> CosigningKey:
        return CosigningKey(name=f"w{i}", seed=bytes([i]) * 32)

    witnesses = [address("http://w", key(i)) for i in range(64)]
    stampers = [Stamper(str(i), bytes) for i in range(17)]
    Hosts(witnesses[:63], stampers[:16])
    for asked, stamping in ((witnesses, stampers[:1]), (witnesses[:1], stampers)):
        with pytest.raises(AnchorError, match="more than 63 witnesses or 16"):
            Hosts(asked, stamping)
    for asked, stamping in ((witnesses[:1] * 2, stampers[:1]), (witnesses[:1], stampers[:1] * 2)):
        with pytest.raises(AnchorError, match="stands twice"):
            Hosts(asked, stamping)


def test_what_is_no_checkpoint_is_not_sent() -> None:
    with pytest.raises(MalformedBundle):
        Hosts().obtain(Note(text="a\n", signatures=()), A.tree.consistency_proof)
