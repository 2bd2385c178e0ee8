"""Beacon chains: parameters, rounds, signatures, and the value that a slot makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet
from hypothesis import given, settings
from hypothesis import strategies as st
from py_arkworks_bls12381 import G1Point

from gradseal.errors import MalformedBundle, UnknownKind
from gradseal.precede.chain import (
    MAX_GENESIS_UNIX_SECONDS,
    MAX_PERIOD_SECONDS,
    QUICKNET,
    Chain,
)
from gradseal.precede.rounds import BeaconRound, combine
from gradseal.proof.canonical import decode, encode
from gradseal.proof.fields import Fields
from gradseal.proof.manifest import MAX_CHAINS, MAX_ROUND
from vectors import make_beacon
from vectors.make_beacon import LOCAL, local_round

Case = dict[str, Any]
VECTORS: Case = json.loads((Path(make_beacon.__file__).parent / "beacon.json").read_text(encoding="utf-8"))
CHAINS = {chain.hash: chain for chain in (QUICKNET, LOCAL.chain)}
SIGNED = {number: local_round(number).signature for number in range(1, 9)}


def cases(items: list[Case]) -> list[ParameterSet]:
    return [pytest.param(item, id=item.get("reason", str(number))) for number, item in enumerate(items)]


def chain_of(text: str) -> Chain:
    return Chain.from_fields(Fields(decode(text.encode(), where="trust", max_bytes=4096), "trust"))


def round_of(case: Case) -> BeaconRound:
    return BeaconRound.from_fields(Fields({n: case[n] for n in ("chain", "round", "signature")}, "r"), CHAINS)


def changed(chain: Chain, **parameters: Any) -> Chain:
    names = ("public_key", "period_seconds", "genesis_unix_seconds", "group_hash", "beacon_id")
    return Chain(**{**{name: getattr(chain, name) for name in names}, **parameters})


@st.composite
def timed_chains(draw: st.DrawFn) -> Chain:
    return changed(
        QUICKNET,
        period_seconds=draw(st.integers(1, MAX_PERIOD_SECONDS)),
        genesis_unix_seconds=draw(st.integers(0, MAX_GENESIS_UNIX_SECONDS)),
    )


def test_quicknet_is_what_drand_publishes() -> None:
    assert QUICKNET.hash.hex() == "52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971"
    assert (QUICKNET.genesis_unix_seconds, QUICKNET.period_seconds) == (1692803367, 3)
    assert QUICKNET.scheme == "bls-unchained-g1-rfc9380"


@pytest.mark.parametrize("case", cases(VECTORS["hash_to_curve"]))
def test_messages_hash_to_the_points_of_the_rfc(case: Case) -> None:
    point = G1Point.hash_to_curve(case["message"].encode(), case["dst"].encode())
    assert point.to_xy_bytes_be().hex() == case["x"] + case["y"]


@pytest.mark.parametrize("case", cases(VECTORS["chains"]))
def test_chains_come_back_from_their_json_and_from_a_relays(case: Case) -> None:
    chain = chain_of(case["text"])
    assert encode(chain.to_json()).decode() == case["text"]
    assert chain.hash.hex() == case["hash"]
    assert Chain.from_info(case["info"].encode(), where="relay") == chain


@pytest.mark.parametrize("case", cases(VECTORS["invalid"]["chains"]))
def test_chains_that_are_none(case: Case) -> None:
    with pytest.raises((MalformedBundle, UnknownKind)) as caught:
        chain_of(case["text"])
    assert caught.value.where.startswith("trust")


@pytest.mark.parametrize("case", cases(VECTORS["invalid"]["infos"]))
def test_answers_that_are_no_chain(case: Case) -> None:
    with pytest.raises((MalformedBundle, UnknownKind)) as caught:
        Chain.from_info(case["text"].encode(), where="relay")
    assert caught.value.where.startswith("relay")


@given(
    st.binary(max_size=200)
    | st.text().map(str.encode)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_answer_is_a_chain_or_refused(data: bytes) -> None:
    with pytest.raises(MalformedBundle):
        Chain.from_info(data, where="relay")


@pytest.mark.parametrize(
    "parameters",
    [
        {"period_seconds": 4},
        {"genesis_unix_seconds": 1692803366},
        {"public_key": LOCAL.chain.public_key},
        {"group_hash": bytes(32)},
        {"beacon_id": "quicknet-t"},
        {"beacon_id": "default"},
    ],
    ids=str,
)
def test_every_parameter_is_in_the_hash(parameters: Any) -> None:
    assert changed(QUICKNET, **parameters).hash != QUICKNET.hash


def test_a_scheme_that_is_not_known_is_not_a_chain() -> None:
    with pytest.raises(MalformedBundle):
        changed(QUICKNET, scheme="bls-unchained-on-g1")


@given(timed_chains(), st.integers(1, MAX_ROUND), st.data())
def test_a_round_is_the_last_one_due_from_then_until_the_next(
    chain: Chain, number: int, data: st.DataObject
) -> None:
    due = chain.round_due(number)
    assert chain.round_due(number + 1) == due + chain.period_seconds
    assert chain.round_at(due + data.draw(st.integers(0, chain.period_seconds - 1))) == number
    assert chain.round_at(due - 1) == number - 1


@given(timed_chains(), st.floats(0, 1e12))
def test_between_seconds_no_round_is_due_early(chain: Chain, now: float) -> None:
    number = chain.round_at(now)
    assert number == 0 or chain.round_due(number) <= now
    assert chain.round_due(number + 1) > now


@pytest.mark.parametrize("case", cases(VECTORS["rounds"]))
def test_rounds_verify(case: Case) -> None:
    one = round_of(case)
    assert one.verify()
    assert one.randomness.hex() == case["randomness"]
    assert one.chain.round_due(one.number) == case["due"]
    assert one.to_json() == {name: case[name] for name in ("chain", "round", "signature")}


@pytest.mark.parametrize("case", cases(VECTORS["invalid"]["signatures"]))
def test_signatures_that_do_not_verify(case: Case) -> None:
    chain, data = CHAINS[bytes.fromhex(case["chain"])], bytes.fromhex(case["signature"])
    assert not chain.verify(case["round"], data)
    assert chain.wrong_rounds({case["round"]: data}) == (case["round"],)
    assert chain.wrong_rounds({**SIGNED, case["round"]: data}) == (case["round"],)


@pytest.mark.parametrize("number", [657412, 657414, 0, -1, MAX_ROUND + 1, 1 << 64, 1 << 80])
def test_a_signature_is_of_one_round_only(number: int) -> None:
    signature = bytes.fromhex(VECTORS["rounds"][1]["signature"])
    assert QUICKNET.verify(657413, signature)
    assert not QUICKNET.verify(number, signature)
    assert QUICKNET.wrong_rounds({number: signature}) == (number,)


def test_a_signature_is_of_one_key_only() -> None:
    quicknet = round_of(VECTORS["rounds"][0])
    rekeyed = changed(QUICKNET, public_key=LOCAL.chain.public_key)
    assert quicknet.verify()
    assert not rekeyed.verify(quicknet.number, quicknet.signature)
    assert not QUICKNET.verify(1, SIGNED[1])


def test_no_bit_of_a_signature_can_be_flipped() -> None:
    right = SIGNED[1]
    for bit in range(8 * len(right)):
        flipped = bytearray(right)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not LOCAL.chain.verify(1, bytes(flipped)), bit


def test_many_rounds_at_once() -> None:
    assert LOCAL.chain.wrong_rounds(SIGNED) == ()
    assert LOCAL.chain.wrong_rounds({}) == ()
    swapped = {**SIGNED, 2: SIGNED[3], 3: SIGNED[2]}
    assert LOCAL.chain.wrong_rounds(swapped) == (2, 3)


@settings(max_examples=10)
@given(st.integers(1, 8), st.integers(1, 8), st.binary(max_size=8))
def test_wrong_signatures_do_not_cancel_out(first: int, second: int, salt: bytes) -> None:
    """Their plain sum is that of the right ones."""
    if first == second:
        return
    shift = G1Point.hash_to_curve(salt, b"shift")
    forged = dict(SIGNED)
    forged[first] = (G1Point.from_compressed_bytes(SIGNED[first]) + shift).to_compressed_bytes()
    forged[second] = (G1Point.from_compressed_bytes(SIGNED[second]) - shift).to_compressed_bytes()
    assert LOCAL.chain.wrong_rounds(forged) == tuple(sorted((first, second)))


@pytest.mark.parametrize(
    "fields",
    [
        {"chain": bytes(32).hex()},
        {"round": 0},
        {"round": True},
        {"round": MAX_ROUND + 1},
        {"signature": SIGNED[1].hex().upper()},
        {"signature": SIGNED[1].hex()[2:]},
        {"more": 1},
    ],
    ids=str,
)
def test_rounds_that_are_none(fields: Any) -> None:
    good = local_round(1).to_json()
    assert BeaconRound.from_fields(Fields(good, "r"), CHAINS) == local_round(1)
    with pytest.raises(MalformedBundle):
        BeaconRound.from_fields(Fields({**good, **fields}, "r"), CHAINS)


@pytest.mark.parametrize("case", cases(VECTORS["combinations"]))
def test_combinations(case: Case) -> None:
    assert combine([round_of(one) for one in case["rounds"]]).hex() == case["value"]


@pytest.mark.parametrize("case", cases(VECTORS["invalid"]["combinations"]))
def test_combinations_that_are_none(case: Case) -> None:
    with pytest.raises(MalformedBundle):
        combine([round_of(one) for one in case["rounds"]])


def test_a_combination_depends_on_all_of_it() -> None:
    local, quicknet = local_round(1), round_of(VECTORS["rounds"][0])
    values = [
        combine(rounds)
        for rounds in (
            [local],
            [quicknet],
            [local, quicknet],
            [quicknet, local],
            [local_round(2), quicknet],
            [BeaconRound(chain=local.chain, number=2, signature=local.signature), quicknet],
            [BeaconRound(chain=changed(local.chain, beacon_id="b"), number=1, signature=local.signature)],
        )
    ]
    assert len(set(values)) == len(values)


def test_chains_of_a_combination_are_bounded() -> None:
    rounds = [
        BeaconRound(chain=changed(QUICKNET, beacon_id=f"c{i}"), number=1, signature=SIGNED[1])
        for i in range(MAX_CHAINS + 1)
    ]
    assert len(combine(rounds[:MAX_CHAINS])) == 32
    with pytest.raises(MalformedBundle):
        combine(rounds)
