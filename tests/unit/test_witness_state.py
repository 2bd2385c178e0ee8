"""The witness's state machine, as a table, and requests that another implementation published."""

from __future__ import annotations

from pathlib import Path

import pytest

from forked_log import OWNER, Branch, origin_of
from gradseal.errors import KeyFileError
from gradseal.proof.checkpoint import Checkpoint
from gradseal.proof.merkle import EMPTY_ROOT, leaf_hash
from gradseal.proof.note import SigningKey, VerificationKey, open_note, sign_note
from gradseal.proof.submission import Submission, parse_submission
from gradseal.witness.logs import MAX_ORIGIN_LENGTH, Logs, load_logs
from gradseal.witness.state import MAX_CLOCK_STEP_SECONDS, NOTHING, Latest, Refused, decide, decide_all

NOW = 1_800_000_000
A = Branch("a", 12, shared=4)
B = Branch("b", 12, shared=4)


def at(branch: Branch, size: int, timestamp: int = NOW - 5) -> Latest:
    return Latest(size=size, root=branch.tree.root(size), timestamp=timestamp)


def submitted(size: int, root: bytes, *, old: int = 0, proof: tuple[bytes, ...] = ()) -> Submission:
    checkpoint = Checkpoint(origin=A.origin, size=size, root=root)
    note = open_note(sign_note(checkpoint.text(), [OWNER]), where="note")
    return Submission(old=old, proof=proof, note=note, checkpoint=checkpoint)


LEAF = leaf_hash(b"leaf")


@pytest.mark.parametrize(
    ("latest", "submission", "status"),
    [
        (NOTHING, A.submission(0, 7), 200),
        (NOTHING, A.submission(0, 0), 200),
        (NOTHING, A.submission(3, 7), 409),
        (at(A, 5), A.submission(5, 7), 200),
        (at(A, 5), A.submission(5, 5), 200),
        (at(A, 0), A.submission(0, 7), 200),
        (at(A, 4), B.submission(4, 7), 200),
        (at(A, 5), A.submission(0, 7), 409),
        (at(A, 5), A.submission(4, 7), 409),
        (at(A, 5), A.submission(6, 7), 409),
        (at(A, 5), A.submission(3, 4), 409),
        (at(A, 5), A.submission(4, 4), 409),
        (at(A, 5), A.submission(5, 4), 400),
        (NOTHING, A.submission(5, 4), 400),
        (at(A, 5), B.submission(5, 5), 409),
        (at(A, 5), B.submission(5, 7), 422),
        (at(A, 5), submitted(7, A.tree.root(7), old=5), 422),
        (at(A, 5), submitted(5, A.tree.root(5), old=5, proof=(LEAF,)), 422),
        (NOTHING, submitted(1, LEAF, proof=(LEAF,)), 422),
        # What torchwood's witness answers for trees of size zero.
        (NOTHING, submitted(0, EMPTY_ROOT), 200),
        (NOTHING, submitted(0, LEAF), 422),
        (NOTHING, submitted(0, bytes(32)), 422),
        (NOTHING, submitted(0, EMPTY_ROOT, proof=(LEAF,)), 422),
        (Latest(size=1, root=LEAF, timestamp=0), submitted(1, LEAF, proof=(LEAF,)), 409),
        (Latest(size=1, root=LEAF, timestamp=0), submitted(0, EMPTY_ROOT, old=1), 400),
        (at(A, 5, NOW + MAX_CLOCK_STEP_SECONDS), A.submission(5, 7), 200),
        (at(A, 5, NOW + MAX_CLOCK_STEP_SECONDS + 1), A.submission(5, 7), 503),
        (at(A, 5, NOW + MAX_CLOCK_STEP_SECONDS + 1), A.submission(5, 5), 503),
    ],
)
def test_what_is_cosigned(latest: Latest, submission: Submission, status: int) -> None:
    outcome = decide(latest, submission, NOW)
    if isinstance(outcome, Refused):
        assert outcome.status == status
        assert outcome.size == (latest.size if status == 409 else None)
    else:
        checkpoint = submission.checkpoint
        assert (outcome.size, outcome.root, status) == (checkpoint.size, checkpoint.root, 200)
        assert outcome.timestamp == max(NOW, latest.timestamp)


def test_two_roots_of_one_size_are_called_a_fork() -> None:
    forked, stale = decide(at(A, 5), B.submission(5, 5), NOW), decide(at(A, 5), B.submission(3, 5), NOW)
    assert isinstance(forked, Refused)
    assert isinstance(stale, Refused)
    assert (forked.is_fork, stale.is_fork) == (True, False)


def test_of_several_submissions_each_sees_what_those_before_it_changed() -> None:
    other = Branch("c", 5, origin=origin_of(2))
    submissions = [
        A.submission(4, 6),
        B.submission(4, 6),
        A.submission(6, 8),
        other.submission(0, 5),
        A.submission(8, 8),
    ]
    outcomes, changed = decide_all({A.origin: at(A, 4)}, submissions, NOW)
    assert [o.status if isinstance(o, Refused) else o.size for o in outcomes] == [6, 409, 8, 5, 8]
    assert changed == {A.origin: at(A, 8, NOW), other.origin: at(other, 5, NOW)}
    assert decide_all({A.origin: at(A, 9)}, [A.submission(4, 6)], NOW)[1] == {}


ORIGIN = "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562"
LOG = VerificationKey(
    name=ORIGIN, public=bytes.fromhex("ffdc2d4d98e4124d3feaf788c0c2f9abfd796083d1f0495437f302ec79cf100f")
)
# From the tests of filippo.io/torchwood's witness: a log of Sigsum's at sizes 1, 3 and 5.
PUBLISHED = {
    1: f"""old 0

{ORIGIN}
1
KgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

— {ORIGIN} UgIom7fPZTqpxWWhyjWduBvTvGVqsokMbqTArsQilegKoFBJQjUFAmQ0+YeSPM3wfUQMFSzVnnNuWRTYrajXpNUbIQY=
""",
    3: f"""old 1
KgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
KgIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

{ORIGIN}
3
RcCI1Nk56ZcSmIEfIn0SleqtV7uvrlXNccFx595Iwl0=

— {ORIGIN} UgIom2VbtIcdFbwFAy1n7s6IkAxIY6J/GQOTuZF2ORV39d75cbAj2aQYwyJre36kezNobZs4SUUdrcawfAB8WVrx6go=
""",
    5: f"""old 1
KgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
+fUDV+k970B4I3uKrqJM4aP1lloPZP8mvr2Z4wRw2LI=
KgQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

{ORIGIN}
5
QrtXrQZCCvpIgsSmOsah7HdICzMLLyDfxToMql9WTjY=

— {ORIGIN} UgIomw/EOJmWi0i1FQsOj+etB7F8IccFam/jgd6wzRns4QPVmyEZtdvl1U2KEmLOZ/ASRcWJi0tW90dJWAShei7sDww=
""",
}


@pytest.mark.parametrize("second", [3, 5])
def test_published_requests_are_cosigned_in_either_order_but_not_both(second: int) -> None:
    requests = {size: parse_submission(text.encode()) for size, text in PUBLISHED.items()}
    logs = Logs([LOG])
    assert all(logs.have_signed(request) for request in requests.values())
    outcomes, changed = decide_all({}, [requests[1], requests[second], requests[8 - second]], NOW)
    assert [o.status if isinstance(o, Refused) else 200 for o in outcomes] == [200, 200, 409]
    assert changed[ORIGIN].size == second


def test_a_key_speaks_for_its_name_and_below_unless_another_is_nearer() -> None:
    upper = SigningKey(name="example.org", seed=b"\x41" * 32)
    logs = Logs([upper.verification_key, OWNER.verification_key])
    assert list(logs.keys_for("example.org")) == [upper.verification_key]
    assert list(logs.keys_for("example.org/data/5")) == [upper.verification_key]
    assert list(logs.keys_for(A.origin)) == [OWNER.verification_key]
    for unknown in ("example.orgs", "example", "other.org/models/1", "", "/"):
        assert not logs.keys_for(unknown)
    assert not logs.keys_for(f"example.org/{'x' * MAX_ORIGIN_LENGTH}")
    assert logs.have_signed(A.submission(0, 5))
    assert not logs.have_signed(Branch("a", 5, origin=A.origin, key=upper).submission(0, 5))


def test_while_a_log_rotates_its_key_either_may_sign() -> None:
    newer = SigningKey(name=OWNER.name, seed=b"\x42" * 32)
    logs = Logs([OWNER.verification_key, newer.verification_key])
    assert all(logs.have_signed(Branch("a", 5, key=key).submission(0, 5)) for key in (OWNER, newer))


def test_the_file_of_logs(tmp_path: Path) -> None:
    path = tmp_path / "logs.txt"
    path.write_text(f"# owners\n\n  {OWNER.verification_key}  \n{LOG}\n", encoding="utf-8")
    logs = load_logs(path)
    assert (len(logs.keys_for(A.origin)), len(logs.keys_for(ORIGIN))) == (1, 1)


@pytest.mark.parametrize("text", ["", "# none\n", f"{LOG}\n{LOG}\n", f"{LOG} x\n", "key\n", "\udcff\n"])
def test_files_of_logs_that_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "logs.txt"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(KeyFileError):
        load_logs(path)
    with pytest.raises(KeyFileError):
        load_logs(tmp_path / "nowhere")
