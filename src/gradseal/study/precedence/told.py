"""How the cells of precedence are told: outcomes, the most that each part's absence gives, and sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from gradseal.study.precedence.attacks import OWNER, TRIED, TRIES
from gradseal.study.precedence.cells import Cell
from gradseal.study.precedence.removals import Part
from gradseal.study.section import Section, Table
from gradseal.verify.precedence_claim import BARE, MANIFEST_LATE, NO_CLOSE

_SHORT: Mapping[str, str] = {
    MANIFEST_LATE: "manifest late",
    NO_CLOSE: "no date",
    BARE: "no date",
    "nothing that is pinned says by when": "no date",
    "off the plan's cadence": "cadence",
    "bits to choose": "cadence",
    "whatever the seed": "dependence",
    "depends on its seed": "dependence",
    "no chain of the plan's": "chain",
    "the seed is the owner's own choice": "declared seed",
    "free bytes": "free bytes",
    "state zero is not what": "initialisation",
    "the log's seal stands for": "seals",
}
"""What refuses, in a word or two, by a piece of what the verdict says."""

_NOTES = (
    "A cell is the verdict of a real verification, with all segments replayed; pins and policy are those of "
    "a verifier who does without the part. Where precedence would lack just what the part gives, that is "
    "passed over; whatever else is lacking refuses.",
    f"A thief chooses among {TRIED} runs, where he can. That is how many were computed here, not how many he "
    "could: without a beacon, or with a manifest sealed after its seed, nothing bounds it (argued from "
    "docs/theory/precedence.md, P3 and P4, not measured).",
    "Seals without the owner's key are made by giving the thief the owner's secret under another name, so "
    "that one seal serves both logs. That such seals cannot be opened otherwise is P6, and argued.",
    "Parallel manifests are as if all eight were stamped before slot 0: signing is deterministic, so the one "
    "that is shown has the stamp that it would have had.",
    "Hosts and beacon are honest, but for those that are the thief's own: that nobody gets a stamp of "
    "yesterday or a round of tomorrow from them is assumed here (P1, BEACON); attacks on time try it.",
    "Not taken away: the manifest's digest in each seed, unique signatures, bit-equal replay, witnesses "
    "against forks. Times are those of a plan of four slots of thirty seconds, on a made-up clock.",
)


def told(part: str, title: str, victims: Sequence[Sequence[Cell]]) -> Section:
    """The section.

    Args:
        part: Its name in the study.
        title: Its heading.
        victims: The cells, by victim; tables and sentences are of the first.
    """
    cells = victims[0] if victims else ()
    if not cells:
        return Section(part=part, title=title, notes=_NOTES)
    return Section(
        part=part,
        title=title,
        said=(*_said(cells), *_agreement(victims)),
        tables=(_outcomes(cells), _gains(cells), _tried()),
        figures=_figures(cells),
        notes=_NOTES,
    )


def accepted(cells: Sequence[Cell], removed: Part) -> list[Cell]:
    """What a thief has accepted by a verifier who does without a part."""
    return [c for c in cells if c.accepted and c.removed == removed and c.tried != OWNER]


def gained(cell: Cell) -> tuple[str, ...]:
    """What an accepted run gets that is not true, or that nothing says; empty if it is just later."""
    own = []
    if cell.dated_back:
        own.append(
            "no date" if math.isinf(cell.dated_back) else f"dated {_span(cell.dated_back)} before the theft"
        )
    if cell.began_back:
        early = math.isinf(cell.began_back)
        own.append("no not before" if early else f"seeds of {_span(cell.began_back)} before it")
    if cell.known_before:
        own.append(f"its end known {_span(cell.known_before)} before its not before")
    if cell.runs > 1:
        own.append(f"best of {cell.runs}")
    return tuple(own)


def _outcomes(cells: Sequence[Cell]) -> Table:
    by = {(cell.tried, cell.removed): cell for cell in cells}
    rows = tuple((t.name, *(_cell(by.get((t.name, removed.value))) for removed in Part)) for t in TRIES)
    return Table(
        title="What comes of each attempt, by the part that is taken away",
        headings=("attempt", *(_heading(removed) for removed in Part)),
        rows=rows,
        note="In brackets: refused, and by what. Otherwise accepted, and what was gained: dated before the "
        "theft, without any date or any not before, with an end that was known before the verdict says that "
        "it was fixed, or chosen from several. Later: true, and dated after the theft. –: nothing to try.",
    )


def _heading(removed: Part) -> str:
    return "by the whole plan" if removed is Part.NOTHING else f"without {removed.value}"


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    if not cell.accepted:
        return f"({refused_by(cell)})"
    if cell.tried == OWNER:
        return "accepted"
    return ", ".join(gained(cell)) or "later"


def refused_by(cell: Cell) -> str:
    """What refused, in a word or two."""
    found = (short for said, short in _SHORT.items() if said in cell.against)
    return next(found, cell.against[:40])


def _gains(cells: Sequence[Cell]) -> Table:
    return Table(
        title="The most that a thief gets, by the part that is taken away",
        headings=(
            "plan and verifier",
            "accepted",
            "earliest not after",
            "earliest not before",
            "known before its not before",
            "choice, bits",
        ),
        rows=tuple((_heading(removed), *_most(cells, removed)) for removed in Part),
        note="Of his accepted runs. Times are from the theft on: −1 h is an hour before it. The choice is "
        f"what was tried here, {math.log2(TRIED):g} bits at most. An end that is known is so from the theft "
        "on, and a verdict's last not before is as much later as the run is long: here four slots.",
    )


def _most(cells: Sequence[Cell], removed: Part) -> tuple[str, ...]:
    own = accepted(cells, removed)
    tried = sum(c.removed == removed and c.tried != OWNER for c in cells)
    known = max((c.known_before for c in own), default=0.0)
    return (
        f"{len(own)} of {tried}",
        _earliest([c.not_after for c in own]),
        _earliest([c.first_not_before for c in own]),
        _span(known) if known else "–",
        f"{max((c.bits for c in own), default=0.0):g}",
    )


def _earliest(times: Sequence[float | None]) -> str:
    if not times:
        return "–"
    known = [time for time in times if time is not None]
    return "none" if len(known) < len(times) else _at(min(known))


def _tried() -> Table:
    return Table(
        title="What is tried",
        headings=("attempt", "what it does"),
        rows=tuple((tried.name, tried.said) for tried in TRIES),
    )


def _said(cells: Sequence[Cell]) -> list[str]:
    return [_whole(cells), *(_without(cells, part) for part in Part if part is not Part.NOTHING)]


def _whole(cells: Sequence[Cell]) -> str:
    own = accepted(cells, Part.NOTHING)
    early = [c for c in own if c.dated_back or c.began_back or c.known_before]
    if not own:
        return "By the whole plan nothing that a thief tries is accepted."
    if early:
        verb = "is" if len(early) == 1 else "are"
        return f"By the whole plan {_list(early)} {verb} accepted, and a verdict says too early a time."
    bounds = [c.not_after for c in own if c.not_after is not None]
    seeds = [c.first_not_before for c in own if c.first_not_before is not None]
    choices = [
        f"{c.tried} {c.bits:g} bits of choice ("
        + (f"the verdict tells {c.passed_over} empty slots)" if c.passed_over else "no verdict tells)")
        for c in own
        if c.runs > 1
    ]
    return (
        f"By the whole plan a thief has nothing dated before the theft: {_list(own)} are accepted, their "
        f"last states sealed by {_at(min(bounds))} at the earliest, with seeds of {_at(min(seeds))} at the "
        "earliest" + (f"; left are {' and '.join(choices)}" if choices else "") + "."
    )


def _without(cells: Sequence[Cell], removed: Part) -> str:
    whole = {c.tried: c for c in cells if c.removed == Part.NOTHING}
    new = [
        (cell, more)
        for cell in accepted(cells, removed)
        if (more := [one for one in gained(cell) if one not in _had(whole.get(cell.tried))])
        or not _was_accepted(whole.get(cell.tried))
    ]
    if new:
        each = "; ".join(f"{cell.tried}: {', '.join(more) or 'later'}{_counted(cell)}" for cell, more in new)
        return f"Without {removed.value} he gets: {each}."
    changed = [
        f"{c.tried} is refused by {refused_by(c)}, no longer by {refused_by(whole[c.tried])}{_dated(c)}"
        for c in cells
        if c.removed == removed
        and not c.accepted
        and c.tried in whole
        and not whole[c.tried].accepted
        and refused_by(c) != refused_by(whole[c.tried])
    ]
    rest = f"; {'; '.join(changed)}" if changed else ""
    return f"Without {removed.value} alone nothing more is accepted{rest}."


def _counted(cell: Cell) -> str:
    """Of a chosen run: what the verdict says of choices."""
    return (
        f" ({cell.said_bits:.1f} bits in gaps, the verdict tells)" if cell.runs > 1 and cell.said_bits else ""
    )


def _dated(cell: Cell) -> str:
    """Of a refused run: whether its end has a date before the theft."""
    early = 0.0 if math.isinf(cell.dated_back) else cell.dated_back
    return f", though its last seal is dated {_span(early)} before the theft" if early else ""


def _had(cell: Cell | None) -> tuple[str, ...]:
    return gained(cell) if cell is not None and cell.accepted else ()


def _was_accepted(cell: Cell | None) -> bool:
    return cell is not None and cell.accepted


def _agreement(victims: Sequence[Sequence[Cell]]) -> list[str]:
    if len(victims) < 2:
        return []
    first = {(c.tried, c.removed): c.accepted for c in victims[0]}
    other = sum(first.get((c.tried, c.removed)) != c.accepted for own in victims[1:] for c in own)
    return [f"Of {len(victims)} victims, {other} cells of the others come out differently from the first's."]


def _figures(cells: Sequence[Cell]) -> dict[str, float | str | None]:
    own = accepted(cells, Part.NOTHING)
    back = [c.dated_back for c in accepted(cells, Part.HOST_PINS)]
    bounds = [c.not_after for c in own if c.not_after is not None]
    return {
        "whole plan: accepted": float(len(own)),
        "whole plan: earliest not after, seconds after the theft": min(bounds, default=None),
        "without pinned hosts: hours before the theft": max(back, default=0.0) / 3600,
    }


def _list(cells: Sequence[Cell]) -> str:
    names = [cell.tried for cell in cells]
    return names[0] if len(names) == 1 else f"{'; '.join(names[:-1])} and {names[-1]}"


def _at(seconds: float) -> str:
    return f"{'−' if seconds < 0 else '+'}{_span(abs(seconds))}"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
