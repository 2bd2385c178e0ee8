"""A run's log: what may stand where, which fault is named where, and what follows from entries' places.

tests/vectors/slots.json has whole logs, good and refused; here are the names of faults, and every place.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradseal.errors import MalformedBundle, UnknownKind
from gradseal.precede.log import Log, read_log
from gradseal.proof.canonical import encode
from gradseal.proof.entries import Amendment, Close, Entry, Gap, Initial, Segment, Slot
from gradseal.proof.manifest import Manifest
from unit.test_manifest import example
from vectors.make_slots import ONE

DECLARED = example()
BEACON = replace(DECLARED, plan=replace(DECLARED.plan, seed=ONE.to_seed()))
START, END = Initial(seal=b"\x10" * 32), Close(segments=3, weights=b"\x11" * 32)


def segment(index: int) -> Segment:
    steps = DECLARED.plan.steps_of(index)
    return Segment(
        index=index, first_step=steps.start, steps=len(steps), seal=bytes([index]) * 32, losses=bytes(32)
    )


def slot(index: int) -> Slot:
    return Slot(index=index, signatures=(bytes(48),))


def gap(cause: str, first: int, last: int) -> Gap:
    return Gap(cause=cause, first_slot=first, last_slot=last)


def amended(index: int, program: int = 1) -> Amendment:
    return Amendment(slot=index, program=bytes([program]) * 32)


def read(*entries: Entry, manifest: Manifest = BEACON) -> Log:
    return read_log(manifest, [manifest.encode(), *(entry.encode() for entry in entries)])


def refusal(*entries: Entry, manifest: Manifest = BEACON) -> MalformedBundle:
    read(*entries[:-1], manifest=manifest)  # the last one is at fault
    with pytest.raises(MalformedBundle) as caught:
        read(*entries, manifest=manifest)
    return caught.value


A, B, C = (segment(index) for index in range(3))
WHOLE = (slot(0), START, A, slot(1), gap("anchor", 0, 0), B, amended(2), C, slot(2), END)


def test_a_whole_log() -> None:
    log = read(*WHOLE)
    assert (log.initial, log.segments, log.close, log.size) == (START, (A, B, C), END, 11)
    assert log.places == (3, 6, 8)
    assert log.seals == (START.seal, A.seal, B.seal, C.seal)
    assert [(one.entry.index, one.index, one.segment) for one in log.slots] == [
        (0, 1, 0),
        (1, 4, 1),
        (2, 9, 3),
    ]
    assert [(one.index, one.segment) for one in log.gaps] == [(5, 1)]
    assert [(one.index, one.segment) for one in log.amendments] == [(7, 2)]
    assert log.slots_by_segment() == [0, 1, 1]
    assert log.slot_plan == ONE


def test_a_declared_seed_has_no_slots() -> None:
    log = read(START, A, B, C, END, manifest=DECLARED)
    assert (log.slots_by_segment(), log.slot_plan, log.programs()) == (
        [None] * 3,
        None,
        [(0, DECLARED.program)],
    )


@pytest.mark.parametrize("size", range(len(WHOLE)))
def test_every_beginning_is_the_log_of_a_run_that_was_stopped(size: int) -> None:
    log = read(*WHOLE[:size])
    assert log.close is None
    assert log.size == size + 1
    assert (log.seeds() is None) is (size == 0)
    assert len(log.slots_by_segment()) == len(log.segments) == len(log.places)


# What may stand next, after each beginning of a log.
NEXT: dict[str, Entry] = {
    "initial": START,
    "slot": slot(3),
    "segment": B,
    "gap": gap("beacon", 5, 5),
    "amendment": amended(9),
    "close": END,
}


@pytest.mark.parametrize(
    ("before", "allowed"),
    [
        ((), {"gap"}),
        ((slot(0),), {"initial", "gap"}),
        ((slot(0), START), {"slot", "gap", "amendment"}),
        ((slot(0), START, slot(1)), {"gap", "amendment"}),
        ((slot(0), START, A), {"slot", "segment", "gap", "amendment"}),
        ((slot(0), START, A, gap("anchor", 0, 0)), {"slot", "segment", "gap", "amendment"}),
        ((slot(0), START, A, amended(2)), {"slot", "segment", "gap", "amendment"}),
        ((slot(0), START, A, slot(1)), {"segment", "gap", "amendment"}),
        ((slot(0), START, A, slot(1), gap("anchor", 0, 0)), {"segment", "gap", "amendment"}),
        ((slot(0), START, A, slot(1), amended(2)), {"segment", "gap", "amendment"}),
        ((slot(0), START, A, slot(1), amended(2), gap("anchor", 0, 0)), {"segment", "gap", "amendment"}),
        ((slot(0), START, A, B), {"slot", "gap", "amendment"}),
        ((slot(0), START, A, B, C), {"slot", "gap", "amendment", "close"}),
        ((slot(0), START, A, B, C, slot(1)), {"gap", "amendment", "close"}),
        ((slot(0), START, A, B, C, END), set()),
    ],
)
def test_what_may_stand_next(before: tuple[Entry, ...], allowed: set[str]) -> None:
    for kind, entry in NEXT.items():
        if kind in allowed:
            read(*before, entry)
        else:
            assert refusal(*before, entry).where.startswith(f"entry {len(before) + 1}"), kind


@pytest.mark.parametrize(
    ("before", "allowed"),
    [((), {"initial"}), ((START,), set()), ((START, A), {"segment"}), ((START, A, B, C), {"close"})],
)
def test_what_may_stand_next_with_a_declared_seed(before: tuple[Entry, ...], allowed: set[str]) -> None:
    for kind, entry in NEXT.items():
        if kind in allowed:
            read(*before, entry, manifest=DECLARED)
        else:
            refusal(*before, entry, manifest=DECLARED)


@pytest.mark.parametrize(
    ("entries", "where", "said"),
    [
        ((slot(1),), "entry 1: index", "before slot 0"),
        ((slot(0), START, A, slot(3), B, slot(3)), "entry 6: index", "slot 3 after slot 3"),
        ((Slot(index=0, signatures=(bytes(48),) * 2),), "entry 1: signatures", "2 signatures"),
        (
            (gap("anchor", 1, 4), gap("anchor", 4, 5)),
            "entry 2: first_slot",
            "is a gap of cause 'anchor' already",
        ),
        ((slot(0), START, slot(2), amended(2)), "entry 4: slot", "not later than slot 2"),
        ((slot(0), START, amended(3), amended(2)), "entry 4: slot", "before the amendment above it"),
        ((slot(0), START, B), "entry 3", "the plan has segment 0, steps 0 + 3 here"),
        ((slot(0), START, replace(A, steps=2)), "entry 3", "says segment 0, steps 0 + 2"),
        ((slot(0), START, A, B, C, replace(C, index=3, first_step=9)), "entry 6", "steps 9 + 0 here"),
        ((slot(0), START, A, B, C, replace(END, segments=4)), "entry 6", "cannot stand here"),
    ],
)
def test_a_fault_is_named(entries: tuple[Entry, ...], where: str, said: str) -> None:
    error = refusal(*entries)
    assert error.where == where
    assert said in error.message


def test_gaps_of_two_causes_are_apart() -> None:
    log = read(gap("anchor", 5, 9), gap("beacon", 0, 2), slot(0), gap("beacon", 3, 3), gap("anchor", 10, 10))
    assert [one.entry.cause for one in log.gaps] == ["anchor", "beacon", "beacon", "anchor"]


def test_a_kind_that_is_not_known_is_no_malformed_log() -> None:
    with pytest.raises(UnknownKind) as caught:
        read_log(BEACON, [BEACON.encode(), slot(0).encode(), encode({"kind": "later"})])
    assert caught.value.where == "entry 2: kind"


P, Q = bytes([1]) * 32, bytes([2]) * 32


@pytest.mark.parametrize(
    ("entries", "programs"),
    [
        ((A, amended(2), slot(1), B, slot(2), C), [(2, P)]),
        ((A, amended(1), slot(4), B, C), [(1, P)]),
        ((amended(1), slot(1), A, B, C), [(0, P)]),
        ((amended(1), A, slot(1), amended(2, 2), B, slot(2), C), [(1, P), (2, Q)]),
        ((amended(1), amended(1, 2), A, slot(1), B, C), [(1, Q)]),
        ((amended(1), amended(2, 2), A, slot(2), B, C), [(1, Q)]),
        ((A, amended(1), B, C), [(3, P)]),
        ((amended(3), amended(4, 2), A, slot(1), B, C), [(3, Q)]),
        ((amended(1), amended(9, 2), slot(1), A, B, C), [(0, P), (3, Q)]),
    ],
)
def test_which_program_is_in_force(entries: tuple[Entry, ...], programs: list[tuple[int, bytes]]) -> None:
    assert read(slot(0), START, *entries).programs() == [(0, BEACON.program), *programs]


KINDS = st.lists(st.sampled_from(sorted(NEXT)), max_size=12)


def entry_of(kind: str, number: int, segments: int) -> Entry:
    made: dict[str, Entry] = {
        "slot": slot(number),
        "segment": segment(min(segments, 2)),
        "gap": gap("anchor", number, number),
        "amendment": amended(number + 1),
    }
    return made.get(kind, NEXT[kind])


@given(KINDS, st.data())
def test_each_segment_of_a_log_has_one_slot_and_program(kinds: list[str], data: st.DataObject) -> None:
    made = [
        entry_of(kind, data.draw(st.integers(0, 6)), kinds[:number].count("segment"))
        for number, kind in enumerate(kinds)
    ]
    kept: list[Entry] = [slot(0), START]
    for entry in made:  # whatever may stand next
        try:
            read(*kept, entry)
        except MalformedBundle:
            continue
        kept.append(entry)
    log = read(*kept)
    drawn = [one for one in log.slots_by_segment() if one is not None]
    assert len(drawn) == len(log.segments) and drawn == sorted(drawn)
    begins = [first for first, _ in log.programs()]
    assert begins[0] == 0 and begins[1:] == sorted(set(begins[1:]))
    for index, own in enumerate(drawn):
        place = log.places[index]
        above = [one.entry for one in log.amendments if one.index < place and one.entry.slot <= own]
        wanted = above[-1].program if above else BEACON.program
        assert [digest for first, digest in log.programs() if first <= index][-1] == wanted
