"""Part 4 of the study, precedence: what a thief who holds W_T can do as each part of the plan is taken away.

A run is presented by a plan without the part, and judged by a verifier who does without it
(`removals`). Rows are what the thief tries (`attacks`), columns the parts. Each cell is a
verdict of `gradseal.verify`. The claim is that of docs/theory/precedence.md: by the whole plan, nothing made
after the theft is dated before it. That hardness of spoofing cannot give this, in a way that anybody could
prove, is what Fang et al. 2023, "Proof-of-Learning is Currently More Broken Than You Think", say.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from gradseal.study.jobs import Job
from gradseal.study.matrix.remembering import Remembering
from gradseal.study.part import Effort
from gradseal.study.part import Part as StudyPart
from gradseal.study.precedence.attacks import TRIES, Told
from gradseal.study.precedence.cells import Cell, judge
from gradseal.study.precedence.removals import IN_BUNDLES, Part
from gradseal.study.precedence.told import told
from gradseal.study.precedence.world import World
from gradseal.study.section import Section


def plan(effort: Effort) -> list[Job]:
    """A job for each row and victim."""
    jobs = []
    for seed in range(effort.seed, effort.seed + (effort.seeds if effort.full else 1)):
        for number, tried in enumerate(TRIES):
            arguments = {"name": tried.name, "seed": seed}
            group = f"precedence {seed} {number % 2}"  # two processes, of which each makes a world once
            jobs.append(Job(name=_name(tried.name, seed), function=row, arguments=arguments, group=group))
    return jobs


def row(*, name: str, seed: int) -> list[dict[str, Any]]:
    """One attempt against every verifier, as JSON.

    Args:
        name: Of the attempt.
        seed: The victim's, and the thief's.
    """
    tried = next(one for one in TRIES if one.name == name)
    world = _world(seed)
    world.turn(name)
    made: dict[Part, tuple[Told, Remembering]] = {}
    cells: list[Cell] = []
    for removed in Part:
        if removed in tried.needs:
            continue
        shape = removed if removed in IN_BUNDLES | tried.changed else Part.NOTHING
        if shape not in made:
            made[shape] = tried.forge(world, shape), Remembering()
        cells.append(judge(world, name, made[shape][0], removed, made[shape][1]))
    return [cell.to_json() for cell in cells]


def tell(effort: Effort, results: Mapping[str, Any]) -> Section:
    """What the cells say."""
    found = []
    for seed in range(effort.seed, effort.seed + (effort.seeds if effort.full else 1)):
        rows = [results.get(_name(tried.name, seed), ()) for tried in TRIES]
        found.append([Cell.from_json(value) for own in rows for value in own])
    return told(PART.name, PART.title, found)


def _name(tried: str, seed: int) -> str:
    return f"precedence {tried} {seed}"


@lru_cache(1)
def _world(seed: int) -> World:
    return World(seed)


PART = StudyPart(
    name="precedence",
    title="Precedence: what each part of the plan is for",
    question="What can a thief who holds the weights still do as each part of the sealed plan is taken away?",
    plan=plan,
    tell=tell,
)
