"""Runs with slots as tests/vectors/slots.json has them: plans, manifests, entries, whole logs."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gradseal.errors import CorruptBlob, MalformedBundle, UnknownKind
from gradseal.precede.chain import Chain
from gradseal.precede.log import Log, read_log
from gradseal.precede.slots import SlotPlan, check_signatures
from gradseal.program.order import Order
from gradseal.program.randomness import slot_seed
from gradseal.program.seeds import Seeds, Stretch
from gradseal.proof.canonical import encode
from gradseal.proof.entries import Slot, entry_from_bytes
from gradseal.proof.fields import Fields
from gradseal.proof.manifest import BeaconSeed, Manifest, SlotChain

Case = dict[str, Any]
DIRECTORY = Path(__file__).parents[1] / "vectors"


def vectors(name: str) -> Any:
    return json.loads((DIRECTORY / f"{name}.json").read_text("utf-8"))


SLOTS = vectors("slots")


def cases(found: list[Case]) -> list[Any]:
    return [
        pytest.param(case, id=case.get("reason", case.get("name", str(i)))) for i, case in enumerate(found)
    ]


def plan_of(case: Case) -> SlotPlan:
    """The plan, by a way that refuses nothing that `SlotPlan` does."""
    chains = tuple(
        (Chain.from_fields(Fields(one["chain"], "v")), int(one["first_round"])) for one in case["chains"]
    )
    return SlotPlan(chains=chains, cadence_seconds=case["cadence_seconds"])


def log_of(case: Case) -> Log:
    manifest = bytes.fromhex(SLOTS["log_manifests"][case["manifest"]])
    return read_log(Manifest.decode(manifest), [manifest, *map(bytes.fromhex, case["entries"])])


@pytest.mark.parametrize("case", cases(SLOTS["plans"]))
def test_a_plan_has_its_rounds_and_times(case: Case) -> None:
    plan = plan_of(case)
    for slot in case["slots"]:
        assert [number for _, number in plan.rounds(slot["slot"])] == slot["rounds"]
        assert plan.begins(slot["slot"]) == slot["begins"]
    for time in case["times"]:
        assert plan.slot_at(time["unix_seconds"]) == (-1 if time["slot"] is None else time["slot"])


@pytest.mark.parametrize("case", cases(SLOTS["invalid"]["plans"]))
def test_plans_that_are_none(case: Case) -> None:
    seed = BeaconSeed(
        cadence_seconds=case["cadence_seconds"],
        chains=tuple(SlotChain(chain=one["chain"], first_round=one["first_round"]) for one in case["chains"]),
    )
    manifest: Any = json.loads(bytes.fromhex(SLOTS["manifests"][0]["bytes"]))
    manifest["plan"]["seed"] = seed.to_json()
    with pytest.raises(MalformedBundle) as caught:
        SlotPlan.of(Manifest.decode(encode(manifest)).plan.seed)  # type: ignore[arg-type]  # a beacon's
    assert caught.value.where.startswith("entry 0: plan.seed")


@pytest.mark.parametrize("case", cases(SLOTS["manifests"]))
def test_a_manifest_with_a_beacons_seed(case: Case) -> None:
    data = bytes.fromhex(case["bytes"])
    made = Manifest.decode(data)
    assert (made.encode(), made.digest().hex(), encode(case["json"])) == (data, case["digest"], data)
    assert made.digest() == sha256(b"\0" + data).digest()
    assert isinstance(made.plan.seed, BeaconSeed)
    assert SlotPlan.of(made.plan.seed).to_seed() == made.plan.seed


@pytest.mark.parametrize("case", cases(SLOTS["invalid"]["manifests"]))
def test_manifests_that_are_none(case: Case) -> None:
    data = bytes.fromhex(case["bytes"])
    with pytest.raises((MalformedBundle, UnknownKind)):
        read_log(Manifest.decode(data), [data])


@pytest.mark.parametrize("case", cases(SLOTS["entries"]))
def test_an_entry(case: Case) -> None:
    data = bytes.fromhex(case["bytes"])
    assert entry_from_bytes(data, where="v").encode() == data == encode(case["json"])


@pytest.mark.parametrize("case", cases(SLOTS["invalid"]["entries"]))
def test_entries_that_are_none(case: Case) -> None:
    with pytest.raises((MalformedBundle, UnknownKind)):
        entry_from_bytes(bytes.fromhex(case["bytes"]), where="v")


@pytest.mark.parametrize("case", cases(SLOTS["logs"]))
def test_a_log_gives_each_segment_its_slot_seed_and_program(case: Case) -> None:
    log = log_of(case)
    seeds = log.seeds()
    assert (seeds.initial.hex() if seeds else None) == case["first_seed"]
    assert log.slots_by_segment() == [one["slot"] for one in case["segments"]]
    assert [seeds.of_segment(i).hex() for i in range(len(log.segments)) if seeds] == [
        one["seed"] for one in case["segments"]
    ]
    programs = log.programs()
    assert [[d.hex() for first, d in programs if first <= i][-1] for i in range(len(log.segments))] == [
        one["program"] for one in case["segments"]
    ]
    assert (log.close is not None) is case["close"]
    if log.slot_plan is not None:
        check_signatures(log.slot_plan, [slot.entry for slot in log.slots])


@pytest.mark.parametrize("case", cases(SLOTS["invalid"]["logs"]))
def test_logs_that_are_none_are_so_by_their_last_entry(case: Case) -> None:
    log_of({**case, "entries": case["entries"][:-1]})
    with pytest.raises(MalformedBundle) as caught:
        log_of(case)
    assert caught.value.where.partition(":")[0] == f"entry {len(case['entries'])}"


def test_a_signature_of_another_round_is_found() -> None:
    (case,) = (case for case in SLOTS["logs"] if case["name"] == "two chains")
    log = log_of(case)
    plan, (first, second) = log.slot_plan, (slot.entry for slot in log.slots)
    assert plan is not None
    swapped = Slot(index=second.index, signatures=(second.signatures[0], first.signatures[1]))
    with pytest.raises(CorruptBlob) as caught:
        check_signatures(plan, [first, swapped])
    assert caught.value.where == "slot 2"
    assert [(slot, chain.beacon_id) for slot, chain, _ in plan.wrong([first, swapped])] == [(2, "vectors")]


def test_slots_have_their_seeds() -> None:
    for case in vectors("randomness")["slot_seed"]:
        digest = bytes.fromhex(case["manifest_digest"])
        assert slot_seed(bytes.fromhex(case["value"]), case["slot"], digest).hex() == case["seed"]


@pytest.mark.parametrize("case", cases(vectors("program")["orders_of_seeds"]))
def test_an_order_of_several_seeds(case: Case) -> None:
    stretches = [
        Stretch(first_segment=one["first_segment"], seed=bytes.fromhex(one["seed"])) for one in case["seeds"]
    ]
    order = Order(
        rule=case["rule"],
        samples=case["samples"],
        batch_size=case["batch_size"],
        drop_last=case["drop_last"],
        seeds=Seeds(every=case["every"], accumulate=case["accumulate"], stretches=stretches),
    )
    assert [order.indices(number).tolist() for number in range(len(case["batches"]))] == case["batches"]
