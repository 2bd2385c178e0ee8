"""The matrix of attacks and policies as a page, as Markdown tables, and as text.

The same cells everywhere: how many seeds passed of how many, and what decided where none did. Nothing is
judged here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version

from gradseal.attacks.attack import Attack
from gradseal.attacks.catalogue import load_attack
from gradseal.report.template import template
from gradseal.study.matrix.cases import Case
from gradseal.study.matrix.part import COST_HEADINGS, cell_text, costs
from gradseal.study.matrix.table import Cell, Matrix, Row

PASSED = "passed"
CAUGHT = "caught"
MIXED = "mixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Square:
    """One cell, as it is shown: its kind, its text, and what hovering tells."""

    kind: str
    text: str
    title: str


def square(cell: Cell) -> Square:
    """How a cell is shown."""
    kind = PASSED if cell.passed == cell.of else CAUGHT if not cell.passed else MIXED
    said = f"passed {cell.passed} of {cell.of}, 95 % interval {cell.low:.2f} to {cell.high:.2f}; "
    said += f"{cell.replayed:g} segments replayed"
    if cell.passed < cell.of:
        said += f"; {cell.said}"
    return Square(kind=kind, text=cell_text(cell), title=said)


def matrix_page(matrix: Matrix, *, repeat: str, made: datetime) -> str:
    """One HTML page that needs nothing else.

    Args:
        matrix: What it shows.
        repeat: The command that makes it again.
        made: When it was made, with its time zone.
    """
    return template("matrix.html").render(
        matrix=matrix,
        policies=matrix.plan.policies,
        rows=[(row, load_attack(row.attack), _squares(matrix, row), costs(row)) for row in matrix.rows],
        cost_headings=COST_HEADINGS,
        repeat=repeat,
        made=made.strftime("%Y-%m-%d %H:%M:%S %Z"),
        version=version("gradseal"),
    )


def matrix_markdown(matrix: Matrix) -> str:
    """Two tables for the docs: who passes whom, and what it costs."""
    policies = matrix.plan.policies
    text = _table(
        ["attack", "arithmetic", *(f"`{policy}`" for policy in policies)],
        [
            [row.attack, row.arithmetic, *(_marked(square(row.cells[p])) for p in policies)]
            for row in matrix.rows
        ],
    )
    text += "\n" + _table(
        ["attack", "arithmetic", *COST_HEADINGS],
        [[row.attack, row.arithmetic, *costs(row)] for row in matrix.rows],
    )
    if matrix.failed:
        text += "\nThese cases failed, and are missing above:\n\n"
        text += "".join(f"- {' '.join(line.split())}\n" for line in matrix.failed)
    return text


def page_table(row: Row, policies: Sequence[str]) -> str:
    """One attack in one arithmetic as a table of its own, for its page."""
    cost = dict(zip(COST_HEADINGS, costs(row), strict=True))
    text = _table(["policy", "passed", "decided by"], [_told(p, row.cells[p]) for p in policies])
    text += "\n" + "; ".join(f"{name} {value}" for name, value in cost.items()) + f"; {row.accuracy}."
    if row.notes:
        text += "\nCounted by the attack: " + "; ".join(f"{n} {v:.3g}" for n, v in row.notes.items()) + "."
    return text + "\n"


def case_lines(attack: Attack, case: Case) -> list[str]:
    """One attack on one victim, for a terminal."""
    share = case.cost.gradients / case.claimed.gradients if case.claimed.gradients else 0.0
    lines = [
        f"{attack.name}: {attack.idea}",
        f"  source    {attack.source}",
        f"  claims    {case.steps} steps in {case.segments} segments, {case.arithmetic} arithmetic",
        f"  cost      {share:.1%} of the gradients that this takes; {case.cost.seconds:.1f} s, where the "
        f"victim took {case.victim.seconds:.1f} s",
    ]
    lines.append(
        f"  d_ref     {case.reference:.6g}, between two independent models: what -normalised is a share of"
    )
    if case.distance is not None:
        lines.append(
            f"  distance  {case.distance:.3g} of d_ref, from the released weights to the stolen ones"
        )
    lines.append(f"  weights   {case.accuracy}")
    lines += [f"  counted   {name}: {value:.4g}" for name, value in case.notes.items()]
    lines.append("")
    width = max(len(one.policy) for one in case.judged)
    for one in case.judged:
        said = (
            "passed" if one.passed else f"{one.outcome}, {one.check or one.claim + ' not shown'}: {one.said}"
        )
        lines.append(f"  {one.policy:<{width}}  {said}")
    return lines


def _squares(matrix: Matrix, row: Row) -> list[Square]:
    return [square(row.cells[policy]) for policy in matrix.plan.policies]


def _told(policy: str, cell: Cell) -> list[str]:
    decided = "" if cell.passed == cell.of else f"`{cell.check}`"
    return [f"`{policy}`", f"{cell.passed} of {cell.of} ({cell.low:.2f}–{cell.high:.2f})", decided]


def _marked(one: Square) -> str:
    return f"**{one.text}**" if one.kind != CAUGHT else one.text


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
