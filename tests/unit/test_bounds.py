"""What one anchored checkpoint shows, and whose word counts for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forged_tokens import NOW, OTHER, OTHER_ROOT, ROOT, SIGNER, forge, make_info, rejection
from forked_log import OWNER, Branch
from gradseal.precede import bounds
from gradseal.precede.bounds import Bound, bound_of, digest_of
from gradseal.precede.timestamps import PinnedAuthority
from gradseal.precede.trust import Trust
from gradseal.proof.cosignature import MAX_TIMESTAMP, CosigningKey
from gradseal.proof.note import Note, NoteSignature
from gradseal.proof.quorum import parse_policy
from time_stamp_authority import Identity, make_identity

KEYS = {name: CosigningKey(name=f"{name}.example", seed=name.encode() * 32) for name in "abcd"}
BRANCH = Branch("log", 12)
NOTE = BRANCH.note(12)
DIGEST = digest_of(NOTE)
UNIX = int(NOW.timestamp())
THIRD_ROOT = make_identity("third root")
THIRD = make_identity("third signer", THIRD_ROOT)
STRANGER = make_identity("signer", make_identity("a stranger's root"))
FIRST_PIN = PinnedAuthority(name="first", roots=(ROOT.der,))
SECOND_PIN = PinnedAuthority(name="second", roots=(OTHER_ROOT.der,))
THIRD_PIN = PinnedAuthority(name="third", roots=(THIRD_ROOT.der,))


def witnessed(quorum: str, **options: object) -> Trust:
    lines = [f"witness {name} {key.verification_key}" for name, key in KEYS.items() if name != "d"]
    text = "\n".join([*lines, *quorum.split("; ")]) + "\n"
    trust = Trust(policy=parse_policy(text.encode(), where="policy"), skew_seconds=10)
    return replace(trust, **options)  # type: ignore[arg-type]


def stamped(needed: int, *pins: PinnedAuthority, **options: object) -> Trust:
    trust = Trust(authorities=pins, timestamps_needed=needed, skew_seconds=10)
    return replace(trust, **options)  # type: ignore[arg-type]


TWO_OF_THREE = witnessed("group g 2 a b c; quorum g")


def cosigned(times: dict[str, int], note: Note = NOTE) -> Note:
    lines = [KEYS[name].cosign(note.text, time) for name, time in times.items()]
    return replace(note, signatures=(*note.signatures, *lines))


def token(signer: Identity = SIGNER, at: datetime = NOW, digest: bytes = DIGEST, **fields: object) -> bytes:
    return forge(signer, make_info(digest, gen_time=at, **fields).dump())


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def shown(note: Note, tokens: Sequence[bytes], trust: Trust) -> Bound:
    return bound_of(note, tokens, trust, now=later(3600))


def test_the_digest_is_that_of_the_text_alone() -> None:
    assert sha256(BRANCH.checkpoint(12).text().encode()).digest() == DIGEST
    assert digest_of(cosigned({"a": 1})) == DIGEST


@pytest.mark.parametrize(
    ("quorum", "times", "expected", "by"),
    [
        ("quorum a", {"a": 100}, 100, ("a",)),
        ("quorum a", {"a": 100, "b": 50}, 100, ("a",)),
        ("group g 2 a b c; quorum g", {"a": 100, "b": 50}, 100, ("a", "b")),
        ("group g 2 a b c; quorum g", {"a": 100, "b": 50, "c": 70}, 70, ("b", "c")),
        ("group g any a b c; quorum g", {"a": 100, "b": 50}, 50, ("b",)),
        ("group g all a b; group h any c g; quorum h", {"a": 100, "b": 50, "c": 120}, 100, ("a", "b")),
        ("group g all a b; quorum g", {"a": 100, "b": 50, "c": 10}, 100, ("a", "b")),
    ],
)
def test_a_quorum_shows_the_time_by_which_it_had_cosigned(
    quorum: str, times: dict[str, int], expected: int, by: tuple[str, ...]
) -> None:
    found = shown(cosigned(times), [], witnessed(quorum))
    # A second that witnesses cut off, and ten that clocks may be off.
    assert found == Bound(not_after=expected + 1 + 10, by=by)


def test_without_pins_nothing_is_shown() -> None:
    assert shown(cosigned({"a": 100}), [token()], Trust()) == Bound()


def test_fewer_than_the_quorum_show_nothing() -> None:
    found = shown(cosigned({"b": 50}), [], TWO_OF_THREE)
    assert found == Bound(faults=("the quorum g of the witnesses is not reached",))


def test_a_time_in_the_future_does_not_count() -> None:
    times = {"a": UNIX + 11, "b": UNIX + 10}
    found = bound_of(cosigned(times), [], TWO_OF_THREE, now=NOW)
    assert found.not_after is None
    assert "witness a: its cosignature states a time in the future" in found.faults[0]
    assert bound_of(cosigned(times), [], TWO_OF_THREE, now=later(1)).not_after == UNIX + 11 + 11
    assert bound_of(cosigned(times), [], TWO_OF_THREE, now=None).not_after == UNIX + 11 + 11


@pytest.mark.parametrize("time", [2**40, MAX_TIMESTAMP])
def test_no_time_is_too_far_to_be_told(time: int) -> None:
    found = shown(cosigned({"a": time, "b": 5, "c": 6}), [], TWO_OF_THREE)
    assert (found.not_after, found.by) == (6 + 11, ("b", "c"))
    assert len(found.faults) == 1
    assert bound_of(cosigned({"a": time, "b": time}), [], TWO_OF_THREE, now=None).not_after == time + 11.0


def test_a_cosignature_that_does_not_verify_spoils_the_note_for_its_key() -> None:
    good = cosigned({"a": 100, "b": 100})
    other = KEYS["a"].cosign(BRANCH.note(11).text, 100)
    found = shown(replace(good, signatures=(*good.signatures, other)), [], TWO_OF_THREE)
    assert found.not_after is None
    assert found.faults[0] == "witness a: its cosignature does not verify under the pinned key"


def test_strangers_are_told_and_the_owner_is_none() -> None:
    found = shown(cosigned({"a": 100, "b": 90, "d": 10}), [], TWO_OF_THREE)
    assert found == Bound(
        not_after=111, by=("a", "b"), faults=("cosignature of d.example: no witness of this key is pinned",)
    )
    evil = NoteSignature(name="\x9b2J" + "x" * 200, key_id=b"1234", signature=bytes(72))
    (fault, _) = shown(replace(NOTE, signatures=(evil,)), [], TWO_OF_THREE).faults
    assert fault.isprintable()
    assert len(fault) < 150


def test_a_time_stamp_shows_its_upper_bound() -> None:
    found = shown(NOTE, [token(accuracy={"seconds": 2})], stamped(1, FIRST_PIN))
    assert found == Bound(not_after=UNIX + 1 + 2 + 10, by=("first",))
    assumed = replace(FIRST_PIN, assumed_accuracy_seconds=30)
    assert shown(NOTE, [token(accuracy=None)], stamped(1, assumed)).not_after == UNIX + 1 + 30 + 10


@pytest.mark.parametrize(
    ("needed", "after", "by"),
    [(1, 2, ("second",)), (2, 5, ("second", "third")), (3, 9, ("first", "second", "third"))],
)
def test_as_many_authorities_must_agree_as_are_needed(needed: int, after: int, by: tuple[str, ...]) -> None:
    tokens = [token(SIGNER, later(7)), token(OTHER, NOW), token(THIRD, later(3)), token(OTHER, later(1))]
    found = shown(NOTE, tokens, stamped(needed, FIRST_PIN, SECOND_PIN, THIRD_PIN))
    assert found == Bound(not_after=UNIX + after + 10, by=by)


def test_one_authority_counts_once() -> None:
    found = shown(NOTE, [token(), token(at=later(1))], stamped(2, FIRST_PIN, SECOND_PIN))
    assert found.not_after is None
    assert found.faults == ("of 2 time-stamp authorities that must agree, 1 count",)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"", "time-stamp 0: time-stamp of first"),
        (b"junk", "time-stamp 0: time-stamp of first"),
        (rejection(), "the authority did not grant it"),
        (token(digest=sha256(b"another").digest()), "stamps another digest"),
        (token(at=later(3700)), "is in the future"),
        (token(STRANGER), "time-stamp 0: of no pinned authority"),
        (token(policy="1.2.3.4.9"), "time-stamp of first: tstInfo.policy"),
        (forge(SIGNER, make_info(DIGEST).dump(), swap_signature=lambda s: s[::-1]), "signerInfo.signature"),
    ],
)
def test_a_time_stamp_that_does_not_count_says_why(given: bytes, said: str) -> None:
    picky = replace(FIRST_PIN, policies=frozenset({"1.2.3.4.1"}))
    for pins in ([picky], [picky, THIRD_PIN], [THIRD_PIN, picky]):
        found = shown(NOTE, [given], stamped(1, *pins))
        assert (found.not_after, found.by) == (None, ())
        fault, too_few = found.faults
        assert (
            said.replace("of first", f"of {pins[0].name}" if given in (b"", b"junk") else "of first") in fault
        )
        assert too_few == "of 1 time-stamp authorities that must agree, 0 count"


def test_anothers_policy_is_not_the_reason_that_is_told() -> None:
    picky = replace(THIRD_PIN, policies=frozenset({"1.2.3.4.9"}))
    (fault, _) = shown(NOTE, [token(STRANGER)], stamped(1, picky, FIRST_PIN)).faults
    assert bounds.NO_PATH in fault


def test_a_root_of_the_same_name_does_not_hide_the_right_one() -> None:
    assert ROOT.certificate.subject == OTHER_ROOT.certificate.subject
    for pins in ([FIRST_PIN, SECOND_PIN], [SECOND_PIN, FIRST_PIN]):
        found = shown(NOTE, [token(OTHER)], stamped(1, *pins))
        assert (found.by, found.faults) == (("second",), ())


def test_a_bad_time_stamp_does_not_spoil_a_good_one() -> None:
    found = shown(NOTE, [b"junk", token(), token(STRANGER)], stamped(1, FIRST_PIN))
    assert (found.not_after, found.by, len(found.faults)) == (UNIX + 12, ("first",), 2)


def test_more_time_stamps_than_the_format_has_are_not_looked_at() -> None:
    found = shown(NOTE, [b"junk"] * 16 + [token()], stamped(1, FIRST_PIN))
    assert found.not_after is None
    assert "17 time-stamps, of which only 16 are looked at" in found.faults


@pytest.mark.parametrize(
    ("combine", "witness_at", "cosigns", "stamps", "expected", "by"),
    [
        ("any", 5, True, True, 12, ("first",)),
        ("any", -5, True, True, 6, ("a",)),
        ("any", 5, True, False, 16, ("a",)),
        ("any", 5, False, True, 12, ("first",)),
        ("any", 5, False, False, None, ()),
        ("all", 5, True, True, 16, ("a", "first")),
        ("all", -5, True, True, 12, ("a", "first")),
        ("all", 5, True, False, None, ()),
        ("all", 5, False, True, None, ()),
    ],
)
def test_either_bound_counts_or_both_are_needed(
    combine: str, witness_at: int, cosigns: bool, stamps: bool, expected: int | None, by: tuple[str, ...]
) -> None:
    trust = witnessed("quorum a", authorities=(FIRST_PIN,), combine=combine)
    note = cosigned({"a": UNIX + witness_at} if cosigns else {})
    found = shown(note, [token()] if stamps else [], trust)
    assert (found.not_after, found.by) == (None if expected is None else UNIX + expected, by)
    assert len(found.faults) == (not cosigns) + (not stamps)


def test_with_one_sort_pinned_both_are_not_needed() -> None:
    assert shown(NOTE, [token()], stamped(1, FIRST_PIN, combine="all")).by == ("first",)
    assert shown(cosigned({"a": 5}), [], witnessed("quorum a", combine="all")).by == ("a",)


GOOD = token()
TRUST = witnessed("quorum a", authorities=(FIRST_PIN, SECOND_PIN))
COSIGNED = cosigned({"a": UNIX})


@given(st.lists(st.binary(max_size=60), max_size=20), st.sampled_from([None, NOW]))
def test_nothing_in_a_token_is_an_error(tokens: list[bytes], now: datetime | None) -> None:
    found = bound_of(NOTE, tokens, TRUST, now=now)
    assert found.not_after is None
    assert len(found.faults) >= min(len(tokens), 16)


@given(st.integers(0, len(GOOD) * 8 - 1))
def test_any_flipped_bit_of_a_token_leaves_its_bound_or_none(bit: int) -> None:
    changed = bytearray(GOOD)
    changed[bit // 8] ^= 1 << bit % 8
    found = shown(NOTE, [bytes(changed)], stamped(1, FIRST_PIN))
    assert found.not_after in (None, UNIX + 12)


@given(st.integers(0, 72 * 8 - 1))
def test_any_flipped_bit_of_a_cosignature_is_noticed(bit: int) -> None:
    owners, line = COSIGNED.signatures
    changed = bytearray(line.signature)
    changed[bit // 8] ^= 1 << bit % 8
    note = replace(COSIGNED, signatures=(owners, replace(line, signature=bytes(changed))))
    assert shown(note, [], witnessed("quorum a")).not_after is None


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50), st.binary(min_size=4, max_size=100))
def test_nothing_in_a_note_is_an_error(text: str, signature: bytes) -> None:
    key = KEYS["a"].verification_key
    lines = (
        NoteSignature(name=key.name, key_id=key.id, signature=signature),
        NoteSignature(name=OWNER.name, key_id=signature[:4], signature=signature),
    )
    assert shown(Note(text=text, signatures=lines), [GOOD], TRUST).not_after is None
