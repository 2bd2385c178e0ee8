"""The manifest: it comes back as it was, and every hostile variant is refused by file and field."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradseal.errors import MalformedBundle, UnknownKind
from gradseal.proof.canonical import decode, encode
from gradseal.proof.manifest import (
    COLLATIONS,
    MAX_CADENCE_SECONDS,
    MAX_CHAINS,
    MAX_ROUND,
    MAX_SAMPLES,
    MAX_SEGMENT_STEPS,
    MAX_SEGMENTS,
    MAX_STEPS,
    ORDERS,
    BeaconSeed,
    Data,
    DeclaredSeed,
    Manifest,
    Plan,
    SlotChain,
)
from gradseal.proof.merkle import leaf_hash
from gradseal.proof.note import SigningKey

KEY = SigningKey(name="example.com/owner", seed=bytes(32))
DIGEST = st.binary(min_size=32, max_size=32)
NAMES = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=40)


# What a chain is, the manifest's reader leaves to that of chains.
PARAMETERS = st.dictionaries(NAMES, st.integers(0, 9) | NAMES, max_size=3)
SEEDS = st.builds(DeclaredSeed, value=DIGEST) | st.builds(
    BeaconSeed,
    cadence_seconds=st.integers(1, MAX_CADENCE_SECONDS),
    chains=st.lists(
        st.builds(SlotChain, chain=PARAMETERS, first_round=st.integers(1, MAX_ROUND)),
        min_size=1,
        max_size=MAX_CHAINS,
    ).map(tuple),
)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    samples = draw(st.integers(1, MAX_SAMPLES))
    every = draw(st.integers(1, MAX_SEGMENT_STEPS))
    return Manifest(
        owner=SigningKey(name=draw(NAMES), seed=draw(DIGEST)).verification_key,
        program=draw(DIGEST),
        initialisation=draw(DIGEST),
        data=Data(
            root=draw(DIGEST),
            samples=samples,
            schema=draw(DIGEST),
            leaves=draw(DIGEST),
            shards=draw(DIGEST),
            shard_samples=draw(st.integers(1, MAX_SAMPLES)),
        ),
        plan=Plan(
            steps=draw(st.integers(1, min(MAX_STEPS, every * MAX_SEGMENTS))),
            every=every,
            batch_size=draw(st.integers(1, samples)),
            accumulate=draw(st.integers(1, 65_536)),
            drop_last=draw(st.booleans()),
            order=draw(st.sampled_from(ORDERS)),
            collation=draw(st.sampled_from(COLLATIONS)),
            seed=draw(SEEDS),
        ),
        arithmetic=draw(st.dictionaries(NAMES, st.integers(0, 9) | NAMES | st.booleans(), max_size=4)),
        release=draw(DIGEST),
    )


def example() -> Manifest:
    return Manifest(
        owner=KEY.verification_key,
        program=b"\1" * 32,
        initialisation=b"\2" * 32,
        data=Data(
            root=b"\3" * 32,
            samples=10,
            schema=b"\4" * 32,
            leaves=b"\5" * 32,
            shards=b"\6" * 32,
            shard_samples=4,
        ),
        plan=Plan(
            steps=7,
            every=3,
            batch_size=4,
            accumulate=1,
            drop_last=False,
            order="shuffled-v1",
            collation="stack-v1",
            seed=DeclaredSeed(value=b"\7" * 32),
        ),
        arithmetic={"kind": "native"},
        release=b"\10" * 32,
    )


@given(manifests())
def test_a_manifest_comes_back_as_it_was(manifest: Manifest) -> None:
    assert Manifest.decode(manifest.encode()) == manifest


@given(manifests(), st.data())
def test_any_flipped_bit_is_refused_or_another_manifest(manifest: Manifest, data: st.DataObject) -> None:
    changed = bytearray(manifest.encode())
    position = data.draw(st.integers(0, len(changed) - 1))
    changed[position] ^= 1 << data.draw(st.integers(0, 7))
    try:
        other = Manifest.decode(bytes(changed))
    except (MalformedBundle, UnknownKind):
        return
    assert other.digest() != manifest.digest()


def test_the_origin_is_the_owners_name_and_half_the_digest() -> None:
    manifest = example()
    assert manifest.digest() == leaf_hash(manifest.encode())
    assert manifest.origin == f"example.com/owner/{manifest.digest().hex()[:32]}"
    assert replace(manifest, release=bytes(32)).origin != manifest.origin


@given(st.integers(1, 500), st.integers(1, 50))
def test_segments_are_the_steps_cut_up(steps: int, every: int) -> None:
    plan = replace(example().plan, steps=steps, every=every)
    cut = [step for segment in range(plan.segments) for step in plan.steps_of(segment)]
    assert cut == list(range(steps))
    assert all(len(plan.steps_of(segment)) == every for segment in range(plan.segments - 1))
    assert not plan.steps_of(plan.segments)


_ABSENT = object()

FIELDS = [
    "kind", "format", "owner", "program", "initialisation", "data", "plan", "arithmetic", "release",
    "data.root", "data.samples", "data.schema", "data.leaves", "data.shards", "data.shard_samples",
    "plan.steps", "plan.every", "plan.batch_size", "plan.accumulate", "plan.drop_last", "plan.order",
    "plan.collation",
    "plan.seed", "plan.seed.source", "plan.seed.value",
]  # fmt: skip


def with_field(path: str, value: object) -> bytes:
    whole: Any = deepcopy(decode(example().encode(), where="example", max_bytes=1 << 16))
    *parents, name = path.split(".")
    place = whole
    for parent in parents:
        place = place[parent]
    if value is _ABSENT:
        del place[name]
    else:
        place[name] = value
    return encode(whole)


BEACON: dict[str, Any] = {
    "source": "beacon",
    "cadence_seconds": 30,
    "chains": [{"chain": {}, "first_round": 1}, {"chain": {}, "first_round": 2}],
}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"cadence_seconds": _ABSENT}, "cadence_seconds"),
        ({"cadence_seconds": 0}, "cadence_seconds"),
        ({"cadence_seconds": MAX_CADENCE_SECONDS + 1}, "cadence_seconds"),
        ({"cadence_seconds": "30"}, "cadence_seconds"),
        ({"cadence_seconds": True}, "cadence_seconds"),
        ({"chains": _ABSENT}, "chains"),
        ({"chains": []}, "chains"),
        ({"chains": {}}, "chains"),
        ({"chains": BEACON["chains"] * 5}, "chains"),
        ({"chains": [*BEACON["chains"], None]}, "chains[2]"),
        ({"chains": [{"chain": {}}]}, "chains[0].first_round"),
        ({"chains": [{"first_round": 1}]}, "chains[0].chain"),
        ({"chains": [{"chain": "quicknet", "first_round": 1}]}, "chains[0].chain"),
        ({"chains": [{"chain": {}, "first_round": 0}]}, "chains[0].first_round"),
        ({"chains": [{"chain": {}, "first_round": MAX_ROUND + 1}]}, "chains[0].first_round"),
        ({"chains": [{"chain": {}, "first_round": None}]}, "chains[0].first_round"),
        ({"chains": [{"chain": {}, "first_round": 1, "more": 1}]}, "chains[0]"),
        ({"value": "00" * 32}, ""),
        ({"source": "declared"}, "value"),
        ({"source": ["beacon"]}, "source"),
    ],
)
def test_each_wrong_field_of_a_beacons_seed_is_named(change: dict[str, Any], where: str) -> None:
    seed = {name: value for name, value in {**BEACON, **change}.items() if value is not _ABSENT}
    assert isinstance(Manifest.decode(with_field("plan.seed", BEACON)).plan.seed, BeaconSeed)
    error = refusal(with_field("plan.seed", seed))
    assert isinstance(error, MalformedBundle)
    assert error.where == f"entry 0: plan.seed.{where}".rstrip(".")


def refusal(data: bytes) -> MalformedBundle | UnknownKind:
    with pytest.raises((MalformedBundle, UnknownKind)) as caught:
        Manifest.decode(data, where="entry 0")
    error = caught.value
    assert isinstance(error, MalformedBundle | UnknownKind)
    return error


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_is_named(field: str) -> None:
    assert refusal(with_field(field, _ABSENT)).where == f"entry 0: {field}"


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [None, [], "x", -1])
def test_a_wrongly_typed_or_wrong_field_is_named(field: str, value: object) -> None:
    assert refusal(with_field(field, value)).where == f"entry 0: {field}"


@pytest.mark.parametrize("field", ["more", "data.more", "plan.more", "plan.seed.more"])
def test_an_unknown_field_is_named(field: str) -> None:
    error = refusal(with_field(field, 1))
    assert error.where == f"entry 0: {field.removesuffix('more').rstrip('.')}".removesuffix(": ")
    assert "'more'" in error.message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data.samples", 0),
        ("data.samples", MAX_SAMPLES + 1),
        ("data.samples", True),
        ("data.shard_samples", 0),
        ("plan.steps", 0),
        ("plan.steps", MAX_STEPS + 1),
        ("plan.steps", 2**53 - 1),
        ("plan.every", MAX_SEGMENT_STEPS + 1),
        ("plan.batch_size", 11),
        ("plan.accumulate", 0),
        ("plan.accumulate", 65_537),
        ("plan.drop_last", 1),
        ("program", "0" * 63),
        ("program", "A" * 64),
        ("program", "0" * 100_00),
        ("owner", "x" * 1025),
        ("owner", str(KEY.verification_key)[:-1]),
        ("owner", str(KEY.verification_key).replace("example", "exomple")),
        ("owner", KEY.encode()),
        ("kind", "segment"),
    ],
)
def test_a_field_out_of_bounds_is_named(field: str, value: object) -> None:
    error = refusal(with_field(field, value))
    assert isinstance(error, MalformedBundle)
    assert error.where == f"entry 0: {field}"


@pytest.mark.parametrize("field", ["format", "plan.order", "plan.collation", "plan.seed.source"])
def test_what_a_later_version_may_know_is_unknown_rather_than_malformed(field: str) -> None:
    error = refusal(with_field(field, "shuffled-v2"))
    assert isinstance(error, UnknownKind)
    assert error.where == f"entry 0: {field}"


def test_more_segments_than_a_log_holds_are_refused() -> None:
    data = replace(example(), plan=replace(example().plan, steps=MAX_SEGMENTS + 1, every=1)).encode()
    assert refusal(data).where == "entry 0: plan"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b"{" * 1000,
        b'{"kind":"manifest"}\n',
        b'{"plan":NaN}',
        b'{"plan":1e400}',
        b'{"plan":' + b"9" * 400 + b"}",
        b" " * 65_536,
        example().encode()[:-1],
        example().encode() + b" ",
        example().encode().replace(b'"every":3', b'"every":3.0'),
        example().encode().replace(b'"every":3', b'"every":3,"every":3'),
    ],
)
def test_bytes_that_are_no_manifest(data: bytes) -> None:
    assert refusal(data).where.startswith("entry 0")
