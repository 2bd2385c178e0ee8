"""Entries, seals and losses: they come back as they were, and hostile ones are refused by name."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradseal.errors import MalformedBundle, UnknownKind
from gradseal.proof.canonical import encode
from gradseal.proof.entries import (
    GAP_CAUSES,
    MAX_LOSSES_BYTES,
    Amendment,
    Close,
    Entry,
    Gap,
    Initial,
    Segment,
    Slot,
    decode_losses,
    encode_losses,
    entry_from_bytes,
    seal_of,
    state_root,
)
from gradseal.proof.manifest import MAX_CHAINS, MAX_SEGMENT_STEPS, MAX_SEGMENTS, MAX_SLOTS, MAX_STEPS
from gradseal.proof.merkle import EMPTY_ROOT, leaf_hash, node_hash
from gradseal.proof.note import SigningKey

DIGEST = st.binary(min_size=32, max_size=32)
KEYS = [SigningKey(name="example.com/owner", seed=bytes([i]) * 32).verification_key for i in range(2)]
ENTRIES = st.one_of(
    st.builds(Initial, seal=DIGEST),
    st.builds(
        Segment,
        index=st.integers(0, MAX_SEGMENTS - 1),
        first_step=st.integers(0, MAX_STEPS),
        steps=st.integers(1, MAX_SEGMENT_STEPS),
        seal=DIGEST,
        losses=DIGEST,
    ),
    st.builds(Close, segments=st.integers(0, MAX_SEGMENTS), weights=DIGEST),
    st.builds(
        Slot,
        index=st.integers(0, MAX_SLOTS - 1),
        signatures=st.lists(st.binary(min_size=48, max_size=48), min_size=1, max_size=MAX_CHAINS).map(tuple),
    ),
    st.builds(
        lambda cause, slots: Gap(cause=cause, first_slot=min(slots), last_slot=max(slots)),
        st.sampled_from(GAP_CAUSES),
        st.lists(st.integers(0, MAX_SLOTS - 1), min_size=1, max_size=2),
    ),
    st.builds(Amendment, slot=st.integers(1, MAX_SLOTS - 1), program=DIGEST),
)

INITIAL: dict[str, Any] = {"kind": "initial", "seal": "00" * 32}
SEGMENT: dict[str, Any] = {
    "kind": "segment",
    "index": 0,
    "first_step": 0,
    "steps": 1,
    "seal": "00" * 32,
    "losses": "00" * 32,
}
CLOSE: dict[str, Any] = {"kind": "close", "segments": 1, "weights": "00" * 32}
SLOT: dict[str, Any] = {"kind": "slot", "index": 0, "signatures": ["ab" * 48]}
GAP: dict[str, Any] = {"kind": "gap", "cause": "beacon", "first_slot": 3, "last_slot": 3}
AMENDMENT: dict[str, Any] = {"kind": "amendment", "slot": 1, "program": "00" * 32}


@given(ENTRIES)
def test_an_entry_comes_back_as_it_was(entry: Entry) -> None:
    assert entry_from_bytes(entry.encode(), where="entry 1") == entry


def refusal(value: Any) -> MalformedBundle:
    with pytest.raises(MalformedBundle) as caught:
        entry_from_bytes(value if isinstance(value, bytes) else encode(value), where="entry 5")
    return caught.value


@pytest.mark.parametrize("entry", [INITIAL, SEGMENT, CLOSE, SLOT, GAP, AMENDMENT])
def test_missing_and_wrong_fields_are_named(entry: dict[str, Any]) -> None:
    for name in entry:
        assert refusal({k: v for k, v in entry.items() if k != name}).where == f"entry 5: {name}"
        wrong: tuple[Any, ...] = (None, [], {}, True)
        for value in wrong:
            assert refusal({**entry, name: value}).where == f"entry 5: {name}"
    error = refusal({**entry, "more": 1})
    assert (error.where, "'more'" in error.message) == ("entry 5", True)


@pytest.mark.parametrize(
    ("entry", "name", "value"),
    [
        (INITIAL, "seal", "0" * 63),
        (INITIAL, "seal", "G" * 64),
        (SEGMENT, "index", -1),
        (SEGMENT, "index", MAX_SEGMENTS),
        (SEGMENT, "first_step", MAX_STEPS + 1),
        (SEGMENT, "steps", 0),
        (SEGMENT, "steps", MAX_SEGMENT_STEPS + 1),
        (CLOSE, "segments", MAX_SEGMENTS + 1),
        (CLOSE, "weights", "x" * 2000),
        (SLOT, "index", -1),
        (SLOT, "index", MAX_SLOTS),
        (SLOT, "signatures", ["ab" * 48] * (MAX_CHAINS + 1)),
        (GAP, "first_slot", -1),
        (GAP, "first_slot", MAX_SLOTS),
        (GAP, "last_slot", 2),
        (GAP, "last_slot", MAX_SLOTS),
        (AMENDMENT, "slot", 0),
        (AMENDMENT, "slot", MAX_SLOTS),
        (AMENDMENT, "program", "0" * 63),
    ],
)
def test_fields_out_of_bounds_are_named(entry: dict[str, Any], name: str, value: object) -> None:
    assert refusal({**entry, name: value}).where == f"entry 5: {name}"


@pytest.mark.parametrize(
    "data",
    [b"", b"1", b"\xff", b"{" * 99, b'{"kind":NaN}', b'{"kind":"close","segments":1e9}', b" " * 65_536],
)
def test_bytes_that_are_no_entry(data: bytes) -> None:
    assert refusal(data).where.startswith("entry 5")


def test_a_kind_that_is_not_known_is_no_malformed_entry() -> None:
    with pytest.raises(UnknownKind) as caught:
        entry_from_bytes(encode({"kind": "dispute", "reason": 1}), where="entry 5")
    assert caught.value.where == "entry 5: kind"


def test_a_cause_that_is_not_known_is_no_malformed_gap() -> None:
    with pytest.raises(UnknownKind) as caught:
        entry_from_bytes(encode({**GAP, "cause": "weather"}), where="entry 5")
    assert caught.value.where == "entry 5: cause"


@pytest.mark.parametrize(
    "signature", ["ab" * 47, "ab" * 49, "AB" * 48, "ab" * 47 + "a\n", "", None, 1, ["ab"]]
)
def test_a_signature_that_is_none_is_named(signature: Any) -> None:
    assert refusal({**SLOT, "signatures": ["ab" * 48, signature]}).where == "entry 5: signatures[1]"


def test_a_second_manifest_is_refused() -> None:
    assert refusal({"kind": "manifest"}).where == "entry 5: kind"


def test_the_state_root_is_a_tree_of_digests() -> None:
    digests = [bytes([i]) * 32 for i in range(3)]
    leaves = [leaf_hash(d) for d in digests]
    assert state_root(digests) == node_hash(node_hash(leaves[0], leaves[1]), leaves[2])
    assert state_root([]) == EMPTY_ROOT


@given(st.lists(DIGEST, max_size=6), st.lists(DIGEST, max_size=6))
def test_a_seal_is_of_one_state_and_one_key(first: list[bytes], second: list[bytes]) -> None:
    seals = {seal_of(key, state_root(digests)) for key in KEYS for digests in (first, second)}
    assert len(seals) == (2 if first == second else 4)
    root = state_root(first)
    expected = hashlib.sha256(b"gradseal/seal-v1\n" + KEYS[0].public + root).digest()
    assert seal_of(KEYS[0], root) == expected


@given(st.lists(st.floats(), max_size=20))
def test_losses_come_back_to_the_bit(losses: list[float]) -> None:
    read = decode_losses(encode_losses(losses), len(losses), where="losses")
    assert [struct.pack(">d", x) for x in read] == [struct.pack(">d", x) for x in losses]


def test_the_longest_losses_can_be_read() -> None:
    data = b'["0000000000000000"' + b',"0000000000000000"' * (MAX_SEGMENT_STEPS - 1) + b"]"
    assert len(data) == MAX_LOSSES_BYTES


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({}, "losses"),
        (None, "losses"),
        (["3ff0000000000000"], "losses"),
        (["3ff0000000000000"] * 3, "losses"),
        (["3ff0000000000000", 1], "losses: [1]"),
        (["3ff0000000000000", None], "losses: [1]"),
        (["3FF0000000000000", "3ff0000000000000"], "losses: [0]"),
        (["3ff0000000000000", "nan"], "losses: [1]"),
    ],
)
def test_losses_that_are_none(value: Any, where: str) -> None:
    with pytest.raises(MalformedBundle) as caught:
        decode_losses(encode(value), 2, where="losses")
    assert caught.value.where == where
