"""The part of the study on attacks and policies: which matrix it makes, and what that says."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gradseal.attacks.catalogue import attack_names, load_attack
from gradseal.study.jobs import Job
from gradseal.study.matrix.columns import POLICIES
from gradseal.study.matrix.table import Cell, Plan, Row, tabled
from gradseal.study.part import Effort, Part
from gradseal.study.section import Section, Table

FIRST_ATTACKS = ("honest", "infinitesimal update", "blindfold top-Q")
"""The control and the two attacks of the seed paper, which a short study has in exact arithmetic too."""

COST_HEADINGS = (
    "seeds",
    "claimed steps",
    "gradients / claimed",
    "gradients / victim's",
    "flops / claimed",
    "time / victim's",
    "distance / d_ref",
)
_TITLE = "Attacks and policies"


def planned(effort: Effort) -> Plan:
    """The matrix of a study: all attacks natively, and in exact arithmetic all or the first ones."""
    return Plan(
        attacks=tuple(name for name in attack_names() if effort.full or not load_attack(name).slow),
        seeds=effort.seeds,
        setting=effort.setting,
        first_seed=effort.seed,
        exact_attacks=None if effort.full else FIRST_ATTACKS,
        exact_seeds=None if effort.full else 1,
    )


def plan(effort: Effort) -> list[Job]:
    """Its jobs."""
    return planned(effort).jobs()


def tell(effort: Effort, results: Mapping[str, Any]) -> Section:
    """What the matrix says."""
    rows = tabled(planned(effort), results).rows
    size = effort.setting
    note = (
        f"In how many victims a policy accepted the bundle, or what decided against it. {size.steps} steps "
        f"of {size.batch_size} samples, k = {size.every}, Q = {size.top}, delta = {size.delta} of d_ref."
    )
    return Section(
        part="matrix",
        title=_TITLE,
        said=tuple(_said(rows)),
        tables=(
            Table(
                title="Who passes whom",
                headings=("attack", "arithmetic", *POLICIES),
                rows=tuple(
                    (r.attack, r.arithmetic, *(cell_text(r.cells[p]) for p in POLICIES)) for r in rows
                ),
                note=note,
            ),
            Table(
                title="What it costs, and how near it comes",
                headings=("attack", "arithmetic", *COST_HEADINGS),
                rows=tuple((r.attack, r.arithmetic, *costs(r)) for r in rows),
                note="Medians over victims. The distance is from the released parameters to the stolen ones; "
                "1 is that of two independently trained models.",
            ),
        ),
        figures=dict(_figures(rows)),
    )


def cell_text(cell: Cell) -> str:
    """A cell in a few words: how many passed, and what decided where not all did."""
    if cell.passed == cell.of:
        return f"passed {cell.passed}/{cell.of}"
    return f"passed {cell.passed}/{cell.of}, else {cell.check}" if cell.passed else cell.check


def costs(row: Row) -> list[str]:
    """What an attack took and how near it came, as text under `COST_HEADINGS`."""
    return [
        str(row.seeds),
        f"{row.steps:g}",
        _number(row.gradients, ".1%"),
        _number(row.gradients_victim, ".1%"),
        _number(row.flops, ".2%"),
        _number(row.seconds_victim, ".2g"),
        "–" if row.distance is None else _number(row.distance, ".2g"),
    ]


def _number(value: float | None, form: str) -> str:
    """A number, or that it is not known: JSON has null for what is none."""
    return "not known" if value is None or not math.isfinite(value) else format(value, form)


def _said(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        if row.attack in FIRST_ATTACKS:
            passed = [p for p, cell in row.cells.items() if cell.passed == cell.of]
            some = [p for p, cell in row.cells.items() if 0 < cell.passed < cell.of]
            yield (
                f"{row.attack}, {row.arithmetic}: accepted by {', '.join(passed) or 'no policy'}"
                + (f"; now and then by {', '.join(some)}" if some else "")
                + f", at {_number(row.gradients, '.1%')} of the gradients of the run that it claims."
            )
    through = [r.attack for r in rows if r.arithmetic == "native" and _passes(r, "full") and _attacks(r)]
    if rows:
        yield (
            f"The policy full accepts {len(through)} of {sum(r.arithmetic == 'native' for r in rows)} rows' "
            f"bundles that are no control, each of them a true run: {', '.join(through) or 'none'}."
        )


def _figures(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """For documents: for each row and policy what its cell says."""
    for row in rows:
        for policy, cell in row.cells.items():
            yield f"{row.attack}, {row.arithmetic}, {policy}", cell_text(cell)


def _passes(row: Row, policy: str) -> bool:
    return row.cells[policy].passed > 0


def _attacks(row: Row) -> bool:
    return not row.attack.startswith("honest")


PART = Part(
    name="matrix",
    title=_TITLE,
    question="Which verifier accepts which published attack, what does the attack cost, and how near does it "
    "come to the stolen weights?",
    plan=plan,
    tell=tell,
)
