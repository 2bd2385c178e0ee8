"""What a thief gets as parts of the sealed plan are taken away: the key facts, by real verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest

from gradseal.study.matrix.remembering import Remembering
from gradseal.study.part import Effort
from gradseal.study.precedence.attacks import OWNER, TRIES, Told
from gradseal.study.precedence.cells import Cell, judge
from gradseal.study.precedence.part import PART
from gradseal.study.precedence.removals import ABLATIONS, IN_BUNDLES, Part
from gradseal.study.precedence.told import accepted, refused_by
from gradseal.study.precedence.world import World, world
from gradseal.verify.precedence_claim import MANIFEST_LATE
from gradseal.verify.verdict import Claim, Status

DECISIVE: dict[str, Part] = {
    "own witness and authority": Part.HOST_PINS,
    "own chain": Part.CHAIN_PIN,
    "manifest after its seed": Part.MANIFEST,
    "slots chosen late": Part.CADENCE,
    "declared seeds": Part.BEACON,
    "known endpoint": Part.DEPENDENCE,
    "head start": Part.INITIALISATION,
    "backdating": Part.ALL_BUT_END,
}
"""For each attempt a part without which it is accepted, and with which it is not."""


class Judge:
    """Makes each bundle once, and has it judged.

    Args:
        own: The world.
    """

    def __init__(self, own: World) -> None:
        self._world = own
        self._made: dict[tuple[str, Part], tuple[Told, Remembering]] = {}

    def __call__(self, name: str, removed: Part) -> Cell:
        tried = next(one for one in TRIES if one.name == name)
        shape = removed if removed in IN_BUNDLES | tried.changed else Part.NOTHING
        if (name, shape) not in self._made:
            self._made[name, shape] = tried.forge(self._world, shape), Remembering()
        told, executor = self._made[name, shape]
        return judge(self._world, name, told, removed, executor)


@pytest.fixture(scope="module")
def cell() -> Iterator[Judge]:
    with world(101) as own:
        yield Judge(own)


@pytest.mark.parametrize("name", [one.name for one in TRIES if one.name != OWNER])
def test_by_the_whole_plan_nothing_is_dated_before_the_theft(cell: Judge, name: str) -> None:
    found = cell(name, Part.NOTHING)
    assert found.accepted == (name in ("a true run, later", "slots passed over", "parallel manifests"))
    if found.accepted:
        assert found.not_after is not None and found.not_after > 0
        assert found.first_not_before is not None and found.first_not_before > 0
        assert found.known_before == 0


@pytest.mark.parametrize(("name", "removed"), DECISIVE.items())
def test_without_a_part_an_attempt_is_accepted(cell: Judge, name: str, removed: Part) -> None:
    found = cell(name, removed)
    assert found.accepted, found.against
    assert found.dated_back or found.began_back or found.known_before or found.runs > 1


def test_what_each_part_lets_through(cell: Judge) -> None:
    hosts = cell("own witness and authority", Part.HOST_PINS)
    assert 23.5 * 3600 < hosts.dated_back < 24 * 3600
    assert math.isinf(cell("a true run, later", Part.ANCHORS).dated_back)
    assert cell("backdating", Part.ALL_BUT_END).began_back > 23.5 * 3600
    assert refused_by(cell("backdating", Part.MANIFEST)) == "cadence"


def test_a_copied_seal_opens_without_the_owners_key_and_is_refused_all_the_same(cell: Judge) -> None:
    kept, removed = (cell("live log mirrored", part) for part in (Part.NOTHING, Part.SEAL_KEY))
    assert (refused_by(kept), refused_by(removed)) == ("seals", "initialisation")
    assert removed.not_after is not None and removed.not_after < 0


@pytest.mark.parametrize("removed", [Part.NOTHING, Part.BEACON, Part.ANCHORS, Part.HOST_PINS])
def test_the_owner_is_accepted_whatever_is_taken_away(cell: Judge, removed: Part) -> None:
    found = cell(OWNER, removed)
    assert found.accepted, found.against


def test_only_what_the_part_gives_is_passed_over() -> None:
    late = Claim(status=Status.NOT_SHOWN, evidence=(MANIFEST_LATE,))
    more = replace(late, evidence=(MANIFEST_LATE, "something else"))
    assert ABLATIONS[Part.NOTHING].lacking(late) == (MANIFEST_LATE,)
    assert ABLATIONS[Part.MANIFEST].lacking(late) == ()
    assert ABLATIONS[Part.MANIFEST].lacking(more) == ("something else",)
    refuted = Claim(status=Status.REFUTED, evidence=(MANIFEST_LATE,))
    assert ABLATIONS[Part.MANIFEST].lacking(refuted)


def test_what_is_told_follows_from_the_cells() -> None:
    base = {"against": "", "first_not_before": 60.0, "last_not_before": 90.0, "not_after": 95.0, "runs": 1}
    base |= {"said_bits": 0.0, "passed_over": 0, "away": 0.0, "known": None, "accepted": True}
    good = {"tried": "backdating", "removed": Part.NOTHING.value, **base}
    bad = {**good, "removed": Part.HOST_PINS.value, "not_after": -7200.0}
    section = PART.tell(Effort(), {"precedence backdating 101": [good, bad]})
    assert "nothing dated before the theft" in section.said[0]
    assert any("dated 2.0 h before the theft" in said for said in section.said)
    assert len(accepted([Cell.from_json(bad)], Part.HOST_PINS)) == 1
    early = PART.tell(Effort(), {"precedence backdating 101": [{**good, "not_after": -1.0}]})
    assert "too early a time" in early.said[0]


def test_a_row_is_the_same_whatever_was_tried_before() -> None:
    with world(101) as own:
        ends = []
        for name in ("one", "another", "one"):
            own.turn(name)
            run = own.run(Part.BEACON, own.at(own.theft))
            ends.append(run.peek(()))
    assert own.between(ends[0], ends[2]) == 0 < own.between(ends[0], ends[1])


def test_a_part_has_a_job_for_each_attempt() -> None:
    jobs = PART.plan(Effort())
    assert len({job.name for job in jobs}) == len(jobs) == len(TRIES)
    assert not PART.tell(Effort(), {}).said
