"""The plan of slots: which rounds, when, which seeds; and what is no plan."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradseal.errors import CorruptBlob, MalformedBundle, UnknownKind
from gradseal.precede.chain import QUICKNET, Chain
from gradseal.precede.rounds import BeaconRound, combine
from gradseal.precede.slots import SlotPlan, check_signatures, one_seed, seeds_of
from gradseal.program.randomness import run_seed, slot_seed
from gradseal.proof.entries import Slot
from gradseal.proof.manifest import MAX_SLOTS, BeaconSeed, DeclaredSeed, Manifest, SlotChain
from unit.test_manifest import example
from vectors.make_beacon import LOCAL
from vectors.make_slots import ONE, OTHER, TWO, slot_of


def chain(period_seconds: int, genesis_unix_seconds: int, beacon_id: str = "one") -> Chain:
    return replace(
        LOCAL.chain,
        period_seconds=period_seconds,
        genesis_unix_seconds=genesis_unix_seconds,
        beacon_id=beacon_id,
    )


def with_seed(seed: BeaconSeed | DeclaredSeed) -> Manifest:
    return replace(example(), plan=replace(example().plan, seed=seed))


@given(
    periods=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    geneses=st.lists(st.integers(0, 100), min_size=3, max_size=3),
    times=st.integers(1, 5),
    now=st.floats(200, 1e6),
    slot=st.integers(0, MAX_SLOTS - 1),
)
def test_a_plan_that_begins_after_a_time(
    periods: list[int], geneses: list[int], times: int, now: float, slot: int
) -> None:
    chains = [
        chain(period, genesis, f"chain-{number}")
        for number, (period, genesis) in enumerate(zip(periods, geneses, strict=False))
    ]
    cadence = times * 2520  # which every period to 9 divides
    plan = SlotPlan.beginning_after(chains, cadence, now)
    assert now < plan.begins(0) <= now + max(periods)
    assert plan.begins(slot) == plan.begins(0) + slot * cadence
    assert all(one.round_due(number) <= plan.begins(slot) for one, number in plan.rounds(slot))
    assert plan.slot_at(plan.begins(slot)) == slot == plan.slot_at(plan.begins(slot + 1) - 1)
    assert plan.slot_at(now) == -1
    assert SlotPlan.of(plan.to_seed()) == plan


def test_a_slot_has_not_begun_a_moment_before() -> None:
    begins = ONE.begins(1_000_000)
    assert ONE.slot_at(begins - 1e-6) == 999_999
    assert ONE.slot_at(begins + 0.5) == 1_000_000
    assert ONE.slot_at(float("1e-300")) == -1


@pytest.mark.parametrize(
    ("chains", "cadence", "said"),
    [
        ([], 30, "0 chains"),
        ([(chain(10, 0, f"c-{i}"), 1) for i in range(9)], 30, "9 chains"),
        ([(chain(10, 0), 1), (chain(10, 0), 2)], 30, "one chain twice"),
        ([(chain(10, 0), 1)], 35, "no multiple"),
        ([(chain(10, 0), 1), (chain(7, 0, "two"), 1)], 30, "no multiple"),
        ([(chain(10, 0), 1), (chain(30, 31, "two"), 1)], 30, "further apart"),
        ([(chain(10, 0), 5), (chain(30, 0, "two"), 5)], 30, "further apart"),
    ],
)
def test_what_is_no_plan(chains: list[tuple[Chain, int]], cadence: int, said: str) -> None:
    with pytest.raises(MalformedBundle, match=said) as caught:
        SlotPlan(chains=tuple(chains), cadence_seconds=cadence)
    assert caught.value.where == "entry 0: plan.seed"


def test_rounds_of_slot_0_may_be_as_far_apart_as_the_longest_period() -> None:
    plan = SlotPlan(chains=((chain(10, 0), 1), (chain(30, 30, "two"), 1)), cadence_seconds=30)
    assert (plan.begins(0), plan.begins(1)) == (30, 60)


def test_a_manifest_whose_chain_is_none_is_named_by_chain() -> None:
    wrong = SlotChain(chain={**LOCAL.chain.to_json(), "period_seconds": 15}, first_round=1)
    seed = replace(ONE.to_seed(), chains=(*ONE.to_seed().chains, wrong))
    with pytest.raises(MalformedBundle) as caught:
        SlotPlan.of(seed)
    assert caught.value.where == "entry 0: plan.seed.chains[1].chain.hash"
    later = SlotChain(chain={**LOCAL.chain.to_json(), "scheme": "later"}, first_round=1)
    with pytest.raises(UnknownKind):
        SlotPlan.of(replace(seed, chains=(later,)))


def test_seeds_are_bound_to_slot_rounds_and_manifest() -> None:
    manifest = with_seed(TWO.to_seed())
    first, second = slot_of(TWO, 0), slot_of(TWO, 2)
    seeds = seeds_of(manifest, [(0, first), (1, second)])
    assert seeds is not None
    rounds = [
        BeaconRound(chain=one, number=number, signature=signature)
        for (one, number), signature in zip(TWO.rounds(2), second.signatures, strict=True)
    ]
    assert all(one.verify() for one in rounds)
    assert seeds.of_segment(1) == slot_seed(combine(rounds), 2, manifest.digest())
    assert seeds.initial == seeds.of_segment(0) == slot_seed(TWO.value(first), 0, manifest.digest())
    other = seeds_of(replace(manifest, release=bytes(32)), [(0, first)])
    swapped = SlotPlan(chains=TWO.chains[::-1], cadence_seconds=60)
    assert other is not None and other.initial != seeds.initial
    assert swapped.value(Slot(index=0, signatures=first.signatures[::-1])) != TWO.value(first)
    assert len({slot_seed(TWO.value(first), slot, manifest.digest()) for slot in range(3)}) == 3


def test_seeds_before_any_slot_and_of_a_declared_seed() -> None:
    assert seeds_of(with_seed(ONE.to_seed()), []) is None
    manifest = with_seed(DeclaredSeed(value=b"\1" * 32))
    seeds = seeds_of(manifest, [])
    assert seeds is not None
    assert seeds.initial == seeds.of_segment(99) == run_seed(b"\1" * 32, manifest.digest())
    assert one_seed(manifest.plan, b"\2" * 32).of_step(5) == b"\2" * 32


@pytest.mark.parametrize("signatures", [(), (bytes(48),), (bytes(48),) * 3])
def test_a_slot_of_more_or_fewer_signatures_has_no_value(signatures: tuple[bytes, ...]) -> None:
    with pytest.raises(MalformedBundle) as caught:
        TWO.value(Slot(index=4, signatures=signatures))
    assert caught.value.where == "slot 4: signatures"


def test_signatures_of_other_rounds_or_chains_are_told_apart() -> None:
    good = [slot_of(TWO, index) for index in (0, 1, 5)]
    check_signatures(TWO, good)
    flipped = bytes([good[2].signatures[0][0], good[2].signatures[0][1] ^ 1, *good[2].signatures[0][2:]])
    wrong = [
        Slot(index=0, signatures=good[0].signatures[::-1]),
        Slot(index=1, signatures=(good[1].signatures[0], good[0].signatures[1])),
        Slot(index=5, signatures=(flipped, good[2].signatures[1])),
    ]
    rounds = {slot: [number for _, number in TWO.rounds(slot)] for slot in (0, 1, 5)}
    assert [(slot, one.hash, number) for slot, one, number in TWO.wrong([*wrong, slot_of(TWO, 7)])] == [
        (0, OTHER.chain.hash, rounds[0][0]),
        (0, LOCAL.chain.hash, rounds[0][1]),
        (1, LOCAL.chain.hash, rounds[1][1]),
        (5, OTHER.chain.hash, rounds[5][0]),
    ]
    with pytest.raises(CorruptBlob) as caught:
        check_signatures(TWO, wrong[1:])
    assert caught.value.where == "slot 1"


def test_a_slot_whose_round_no_chain_has_is_wrong() -> None:
    plan = SlotPlan(chains=((QUICKNET, 1 << 40),), cadence_seconds=86_400)
    assert [slot for slot, _, _ in plan.wrong([Slot(index=9, signatures=(bytes(48),))])] == [9]
