"""Vectors of runs whose seeds are a beacon's, docs/spec/beacon.md and bundle.md: `slots.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from gradseal.precede.chain import QUICKNET, Chain
from gradseal.precede.local_chain import LocalChain
from gradseal.precede.log import read_log
from gradseal.precede.slots import SlotPlan
from gradseal.proof.canonical import encode
from gradseal.proof.entries import Amendment, Close, Entry, Gap, Initial, Segment, Slot
from gradseal.proof.manifest import Data, DeclaredSeed, Manifest, Plan
from gradseal.proof.note import SigningKey
from vectors.make_beacon import LOCAL

Vectors = dict[str, Any]

OTHER = LocalChain(
    secret=sha256(b"another of gradseal's test vectors; never use this key").digest()[1:].rjust(32, b"\0"),
    beacon_id="other-vectors",
    period_seconds=15,
    genesis_unix_seconds=1_699_999_996,
)
ONE = SlotPlan(chains=((LOCAL.chain, 1000),), cadence_seconds=30)
TWO = SlotPlan(chains=((OTHER.chain, 668), (LOCAL.chain, 1001)), cadence_seconds=60)
_FAR = SlotPlan(chains=((OTHER.chain, 667), (LOCAL.chain, 1001)), cadence_seconds=30)
_QUICK = SlotPlan(chains=((QUICKNET, 1),), cadence_seconds=600)
_KEYS = {key.chain.hash: key for key in (LOCAL, OTHER)}
_OWNER = SigningKey(name="example.com/owner", seed=bytes(32)).verification_key
_DIGITS = "0" * 64


def slots() -> Vectors:
    """docs/spec/beacon.md, section 3; bundle.md, sections 3 and 4."""
    return {
        "about": (
            "plans: chains with their rounds of slot 0 and a cadence, the rounds and beginnings of slots, "
            "and the slot at times (null before the first). manifests: entry 0. entries: further entries, as "
            "bytes and as JSON. logs: what follows entry 0, which `log_manifests` has by name; the first "
            "seed (null if there is none yet), and of each segment the slot (null if the seed is declared), "
            "the seed, and the digest of the program in force; `close` says whether the log has one. "
            "Signatures are real. invalid: `plans`, and `manifests` as entry 0, must be refused, `entries` "
            "as any later entry, and of `logs` the last entry, all before it being good."
        ),
        "plans": [_plan(plan) for plan in (ONE, TWO, _FAR, _QUICK)],
        "manifests": [
            {"bytes": made.encode().hex(), "json": json.loads(made.encode()), "digest": made.digest().hex()}
            for made in (_manifest(ONE), _manifest(TWO))
        ],
        "entries": [
            {"bytes": entry.encode().hex(), "json": json.loads(entry.encode())}
            for entry in (
                slot_of(ONE, 0),
                slot_of(TWO, 3),
                Slot(index=(1 << 24) - 1, signatures=(b"\x01" * 48,) * 8),
                Gap(cause="beacon", first_slot=0, last_slot=0),
                Gap(cause="anchor", first_slot=2, last_slot=(1 << 24) - 1),
                Amendment(slot=1, program=b"\x01" * 32),
            )
        ],
        "log_manifests": {name: manifest.encode().hex() for name, manifest in _MANIFESTS.items()},
        "logs": [_log(*case) for case in (*_good_logs(), *_open_logs())],
        "invalid": {
            "plans": [{"reason": reason, **plan} for reason, plan in _bad_plans()],
            "manifests": [{"reason": reason, "bytes": data.hex()} for reason, data in _bad_manifests()],
            "entries": [{"reason": reason, "bytes": encode(data).hex()} for reason, data in _bad_entries()],
            "logs": [
                {
                    "reason": reason,
                    "manifest": manifest,
                    "entries": [entry.encode().hex() for entry in entries],
                }
                for reason, manifest, entries in _bad_logs()
            ],
        },
    }


def slot_of(plan: SlotPlan, index: int) -> Slot:
    """The entry of a slot, signed by the vectors' keys."""
    return Slot(
        index=index,
        signatures=tuple(
            _KEYS[chain.hash].sign(number, now_unix_seconds=chain.round_due(number)).signature
            for chain, number in plan.rounds(index)
        ),
    )


def _said(plan: SlotPlan) -> Vectors:
    chains = [{"chain": chain.to_json(), "first_round": first} for chain, first in plan.chains]
    return {"cadence_seconds": plan.cadence_seconds, "chains": chains}


def _plan(plan: SlotPlan) -> Vectors:
    begins = plan.begins(0)
    times = (
        0,
        begins - 1,
        begins,
        begins + 1,
        plan.begins(1) - 1,
        plan.begins(1),
        plan.begins(1_000_000) + 7,
    )
    return {
        **_said(plan),
        "slots": [
            {"slot": slot, "rounds": [number for _, number in plan.rounds(slot)], "begins": plan.begins(slot)}
            for slot in (0, 1, 2, (1 << 24) - 1)
        ],
        "times": [
            {"unix_seconds": time, "slot": None if plan.slot_at(time) < 0 else plan.slot_at(time)}
            for time in times
        ],
    }


def _manifest(plan: SlotPlan | None, steps: int = 6) -> Manifest:
    """Three segments of two steps."""
    return Manifest(
        owner=_OWNER,
        program=b"\x01" * 32,
        initialisation=b"\x02" * 32,
        data=Data(
            root=b"\x03" * 32,
            samples=10,
            schema=b"\x04" * 32,
            leaves=b"\x05" * 32,
            shards=b"\x06" * 32,
            shard_samples=4,
        ),
        plan=Plan(
            steps=steps,
            every=2,
            batch_size=4,
            accumulate=1,
            drop_last=False,
            order="shuffled-v1",
            collation="stack-v1",
            seed=DeclaredSeed(value=b"\x07" * 32) if plan is None else plan.to_seed(),
        ),
        arithmetic={"kind": "native"},
        release=b"\x08" * 32,
    )


_MANIFESTS = {"declared": _manifest(None), "one chain": _manifest(ONE), "two chains": _manifest(TWO)}
_DECLARED, _BEACON, _TWO = _MANIFESTS
_START = Initial(seal=b"\x10" * 32)
_END = Close(segments=3, weights=b"\x11" * 32)


def _segment(index: int) -> Segment:
    return Segment(
        index=index, first_step=2 * index, steps=2, seal=bytes([0x20 + index]) * 32, losses=b"\x12" * 32
    )


_A, _B, _C = map(_segment, range(3))
_SLOTS = tuple(slot_of(ONE, index) for index in range(6))


def _missed(cause: str, first: int, last: int) -> Gap:
    return Gap(cause=cause, first_slot=first, last_slot=last)


def _amended(slot: int, program: int) -> Amendment:
    return Amendment(slot=slot, program=bytes([program]) * 32)


Case = tuple[str, str, Sequence[Entry]]


def _good_logs() -> list[Case]:
    s = _SLOTS
    return [
        ("a declared seed", _DECLARED, (_START, _A, _B, _C, _END)),
        ("one slot for all", _BEACON, (s[0], _START, _A, _B, _C, _END)),
        ("a slot for each segment", _BEACON, (s[0], _START, _A, s[1], _B, s[2], _C, _END)),
        ("slots left out", _BEACON, (s[0], _START, _A, s[3], _B, s[5], _C, _END)),
        ("segment 0 in a later slot than state zero", _BEACON, (s[0], _START, s[2], _A, _B, _C, _END)),
        (
            "two chains",
            _TWO,
            (slot_of(TWO, 0), _START, _A, _B, slot_of(TWO, 2), _C, _END),
        ),
        (
            "gaps anywhere, of two causes",
            _BEACON,
            (
                _missed("anchor", 0, 0),
                s[0],
                _missed("beacon", 0, 1),
                _START,
                _missed("anchor", 1, 1),
                _missed("anchor", 3, 5),
                _A,
                s[4],
                _missed("beacon", 2, 3),
                _B,
                _C,
                _missed("anchor", 6, 6),
                _END,
            ),
        ),
        (
            "an amendment",
            _BEACON,
            (s[0], _START, _amended(2, 0x31), _A, s[1], _B, s[2], _C, _END),
        ),
        (
            "an amendment in force in a later slot than it says, and another behind it",
            _BEACON,
            (s[0], _START, _amended(1, 0x31), _A, s[3], _amended(4, 0x32), _B, s[4], _C, _END),
        ),
        (
            "an amendment from segment 0 on",
            _BEACON,
            (s[0], _START, _amended(1, 0x31), s[1], _A, _B, _C, _END),
        ),
        (
            "two amendments that one slot puts in force",
            _BEACON,
            (s[0], _START, _amended(1, 0x31), _amended(2, 0x32), _A, s[2], _B, _C, _END),
        ),
        (
            "two amendments for the same slot",
            _BEACON,
            (s[0], _START, _amended(2, 0x31), _amended(2, 0x32), _A, s[2], _B, _C, _END),
        ),
        (
            "an amendment that no slot puts in force",
            _BEACON,
            (s[0], _START, _A, _B, _amended(9, 0x31), s[5], _C, _END),
        ),
        ("a slot from which nothing draws", _BEACON, (s[0], _START, _A, _B, _C, s[1], _END)),
    ]


def _open_logs() -> list[Case]:
    s = _SLOTS
    return [
        ("a manifest alone", _BEACON, ()),
        ("before state zero", _BEACON, (s[0],)),
        ("before segment 0", _BEACON, (s[0], _START)),
        ("after a slot", _BEACON, (s[0], _START, _A, s[1])),
        ("before the last segment", _BEACON, (s[0], _START, _A, _B)),
        ("before the close", _BEACON, (s[0], _START, _A, _B, _C)),
    ]


def _log(name: str, manifest: str, entries: Sequence[Entry]) -> Vectors:
    raw = [_MANIFESTS[manifest].encode(), *(entry.encode() for entry in entries)]
    log = read_log(_MANIFESTS[manifest], raw)
    seeds, programs = log.seeds(), log.programs()
    segments = [
        {
            "slot": slot,
            "seed": seeds.of_segment(index).hex() if seeds else None,
            "program": [digest for first, digest in programs if first <= index][-1].hex(),
        }
        for index, slot in enumerate(log.slots_by_segment())
    ]
    return {
        "name": name,
        "manifest": manifest,
        "entries": [data.hex() for data in raw[1:]],
        "first_seed": seeds.initial.hex() if seeds else None,
        "segments": segments,
        "close": log.close is not None,
    }


def _bad_logs() -> list[Case]:
    s, begun = _SLOTS, (_SLOTS[0], _START)
    return [
        ("a slot with a declared seed", _DECLARED, (s[0],)),
        ("a gap with a declared seed", _DECLARED, (_START, _missed("anchor", 0, 0))),
        ("an amendment with a declared seed", _DECLARED, (_START, _A, _amended(1, 1))),
        ("state zero without a slot", _BEACON, (_START,)),
        ("state zero twice", _BEACON, (*begun, _START)),
        ("a segment before state zero", _BEACON, (s[0], _A)),
        ("an amendment before state zero", _BEACON, (s[0], _amended(1, 1))),
        ("a close before state zero", _BEACON, (s[0], _END)),
        ("a first slot that is not slot 0", _BEACON, (s[1],)),
        ("a signature too many", _BEACON, (slot_of(TWO, 0),)),
        ("a signature too few", _TWO, (s[0],)),
        ("two slots one after another", _BEACON, (*begun, _A, s[1], s[2])),
        ("two slots and only a gap between", _BEACON, (*begun, s[1], _missed("beacon", 0, 0), s[2])),
        ("two slots and only an amendment between", _BEACON, (*begun, s[1], _amended(2, 1), s[2])),
        ("two slots before state zero", _BEACON, (s[0], s[1])),
        ("a slot twice", _BEACON, (*begun, _A, s[1], _B, s[1])),
        ("a slot that goes back", _BEACON, (*begun, _A, s[3], _B, s[2])),
        ("slot 0 again", _BEACON, (*begun, _A, s[0])),
        ("a segment twice", _BEACON, (*begun, _A, _A)),
        ("a segment left out", _BEACON, (*begun, _A, _C)),
        ("another first step", _BEACON, (*begun, replace(_A, first_step=1))),
        ("another number of steps", _BEACON, (*begun, replace(_A, steps=1))),
        ("a segment more than planned", _BEACON, (*begun, _A, _B, _C, _segment(3))),
        ("a gap of the same slot again", _BEACON, (_missed("anchor", 0, 2), _missed("anchor", 2, 3))),
        ("a gap that goes back", _BEACON, (*begun, _missed("beacon", 4, 4), _A, _missed("beacon", 1, 1))),
        ("an amendment for the slot in force", _BEACON, (*begun, _amended(1, 1), s[1], _A, _amended(1, 2))),
        ("an amendment for a slot left out", _BEACON, (*begun, _A, s[3], _amended(2, 1))),
        ("an amendment before the one above", _BEACON, (*begun, _amended(3, 1), _amended(2, 1))),
        ("a close too early", _BEACON, (*begun, _A, _B, _END)),
        ("a close of another number", _BEACON, (*begun, _A, _B, _C, replace(_END, segments=2))),
        ("a close twice", _BEACON, (*begun, _A, _B, _C, _END, _END)),
        ("a gap after the close", _BEACON, (*begun, _A, _B, _C, _END, _missed("anchor", 0, 0))),
        ("a slot after the close", _BEACON, (*begun, _A, _B, _C, _END, s[1])),
    ]


def _bad_plans() -> list[tuple[str, Vectors]]:
    def plan(cadence: int, *chains: tuple[Chain, int]) -> Vectors:
        said = [{"chain": chain.to_json(), "first_round": first} for chain, first in chains]
        return {"cadence_seconds": cadence, "chains": said}

    one, other = LOCAL.chain, OTHER.chain
    many = [replace(one, beacon_id=f"vectors-{number}") for number in range(9)]
    return [
        ("no chain", plan(30)),
        ("nine chains", plan(30, *((chain, 1) for chain in many))),
        ("one chain twice", plan(30, (one, 1000), (one, 1001))),
        ("a cadence that is no multiple of the period", plan(35, (one, 1000))),
        ("a cadence below the period", plan(5, (one, 1000))),
        ("a cadence that is a multiple of one period only", plan(45, (other, 668), (one, 1001))),
        ("rounds of slot 0 that are due 16 seconds apart", plan(30, (other, 669), (one, 1001))),
        ("rounds of slot 0 that are far apart", plan(30, (other, 668), (one, 1))),
        ("a cadence of 0", plan(0, (one, 1000))),
        ("a cadence above a day", plan(86_410, (one, 1000))),
        ("round 0", plan(30, (one, 0))),
        ("a round over the limit", plan(30, (one, (1 << 40) + 1))),
    ]


def _bad_manifests() -> list[tuple[str, bytes]]:
    def changed(change: Callable[[Any], None]) -> bytes:
        value: Any = json.loads(_MANIFESTS[_BEACON].encode())
        change(value["plan"]["seed"])
        return encode(value)

    def of_chain(**fields: object) -> bytes:
        return changed(lambda seed: seed["chains"][0]["chain"].update(fields))

    changes: list[tuple[str, Callable[[Any], None]]] = [
        ("a value beside a beacon's chains", lambda seed: seed.update(value=_DIGITS)),
        ("no cadence", lambda seed: seed.pop("cadence_seconds")),
        ("no chains", lambda seed: seed.pop("chains")),
        ("a source of a later version", lambda seed: seed.update(source="moon")),
        ("chains that are an object", lambda seed: seed.update(chains={})),
        ("a chain that is a text", lambda seed: seed.update(chains=["quicknet"])),
        ("a chain's hash in place of the chain", lambda seed: seed["chains"][0].update(chain=_DIGITS)),
        ("a first round as a text", lambda seed: seed["chains"][0].update(first_round="1000")),
        ("a first round that is true", lambda seed: seed["chains"][0].update(first_round=True)),
        ("no first round", lambda seed: seed["chains"][0].pop("first_round")),
        ("a field too many", lambda seed: seed["chains"][0].update(last_round=2000)),
    ]
    cases = [(reason, changed(change)) for reason, change in changes]
    cases += [
        (reason, encode({**json.loads(_MANIFESTS[_BEACON].encode()), "plan": _with_seed(plan)}))
        for reason, plan in _bad_plans()
    ]
    return [
        *cases,
        ("a chain of a later scheme", of_chain(scheme="bls-of-tomorrow")),
        ("a chain of another hash", of_chain(hash=_DIGITS)),
        ("a chain of another period than its hash", of_chain(period_seconds=15)),
        ("a chain of another genesis than its hash", of_chain(genesis_unix_seconds=0)),
        ("a chain of another name than its hash", of_chain(beacon_id="default")),
        ("a chain with a field too many", of_chain(more=1)),
    ]


def _with_seed(plan: Vectors) -> Vectors:
    said: Vectors = json.loads(_MANIFESTS[_BEACON].encode())["plan"]
    return {**said, "seed": {"source": "beacon", **plan}}


def _bad_entries() -> list[tuple[str, Any]]:
    signature = "ab" * 48
    slot = {"kind": "slot", "index": 0, "signatures": [signature]}
    gap = {"kind": "gap", "cause": "anchor", "first_slot": 1, "last_slot": 2}
    amendment = {"kind": "amendment", "slot": 1, "program": _DIGITS}
    return [
        ("a slot without index", {"kind": "slot", "signatures": [signature]}),
        ("a slot over the limit", {**slot, "index": 1 << 24}),
        ("a slot below 0", {**slot, "index": -1}),
        ("a slot that is a text", {**slot, "index": "0"}),
        ("a slot without signature", {**slot, "signatures": []}),
        ("nine signatures", {**slot, "signatures": [signature] * 9}),
        ("a signature alone", {**slot, "signatures": signature}),
        ("a short signature", {**slot, "signatures": [signature[2:]]}),
        ("a long signature", {**slot, "signatures": [signature + "ab"]}),
        ("a signature in upper case", {**slot, "signatures": [signature.upper()]}),
        ("a signature that is null", {**slot, "signatures": [None]}),
        ("a slot with its rounds", {**slot, "rounds": [1000]}),
        ("a gap of a later cause", {**gap, "cause": "weather"}),
        ("a gap without cause", {"kind": "gap", "first_slot": 1, "last_slot": 2}),
        ("a gap that ends before it begins", {**gap, "last_slot": 0}),
        ("a gap over the limit", {**gap, "last_slot": 1 << 24}),
        ("a gap of a boolean", {**gap, "first_slot": True}),
        ("a gap that says more", {**gap, "reason": "rain"}),
        ("an amendment for slot 0", {**amendment, "slot": 0}),
        ("an amendment over the limit", {**amendment, "slot": 1 << 24}),
        ("an amendment without program", {"kind": "amendment", "slot": 1}),
        ("an amendment of a short digest", {**amendment, "program": _DIGITS[2:]}),
        ("an amendment of other things", {**amendment, "plan": _DIGITS}),
    ]
