"""A calibration for a person to read on a terminal, and as JSON: its variants, and what it states."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from gradseal.program.native import differences
from gradseal.report.words import printable
from gradseal.study.calibrating import Calibrated
from gradseal.study.tolerance_bound import Bound

_THIRDS = ("first", "middle", "last")
_HEADINGS = ("variant", "median", "largest", *(f"{third} third" for third in _THIRDS), "rest", "in")


def calibration_lines(made: Calibrated) -> list[str]:
    """All of it, as lines."""
    own = made.calibration
    lines = [
        "relative error at a segment's end, its median by third of the run, and the largest",
        "of the rest of the state, with its group:",
        "",
    ]
    lines += _table([_HEADINGS, *(_cells(row) for row in variants(made))])
    lines += ["", f"tau        {own.tau:.6g}: {own.margin:g} times the {_ordinal(made.bound)}"]
    lines += _rest(made)
    rate = f"at most {own.false_rejection:.3g} of honest segments lie beyond"
    lines.append(f"rate       with {own.confidence:.0%} confidence {rate}")
    if own.state_tau:
        lines.append("           of each by itself; beyond one of the two at most twice as many")
    if own.false_rejection > made.asked_rate:
        said = f"more than the {made.asked_rate:g} asked for: {own.segments} segments are too few"
        lines.append(f"           {said}")
    lines.append(f"lengths    from {own.floor:.3g} to {own.ceiling:.3g}: other updates are no evidence")
    if own.coefficient:
        law = f"{own.coefficient:.3g} * j^{own.exponent:.3g}"
        lines.append(f"growth     after j steps the median error is about {law}")
    lines += [f"left out   {name}: {printable(why)}" for name, why in left_out(made).items()]
    if made.still:
        lines.append(f"left out   {made.still} segments that moved nothing")
    return lines + [f"baseline   {said}" for said in baseline(made)]


def _rest(made: Calibrated) -> list[str]:
    own = made.calibration
    if not own.state_tau:
        return ["state tau  0: nothing else in a state differed, and nothing may"]
    lines = [f"state tau  {own.state_tau:.6g}: {own.margin:g} times the {_ordinal(made.state_bound)}"]
    unbounded = {one.segment: one.state_group for one, _ in made.ends() if one.state == math.inf}
    if unbounded:
        said = f"in {len(unbounded)} segments nothing bounds {', '.join(sorted(set(unbounded.values())))}"
        lines.append(f"           {printable(said)}: an honest run has such segments beyond")
    return lines


def calibration_json(made: Calibrated) -> dict[str, Any]:
    """All of it, as JSON values; whoever prints them has to replace what is no number."""
    return {
        "calibration": made.calibration.to_json(),
        "bound": _bound_json(made.bound),
        "state_bound": _bound_json(made.state_bound),
        "asked_rate": made.asked_rate,
        "variants": variants(made),
        "left_out": left_out(made),
        "still": made.still,
        "equal": sum(m.equal for m in made.measurements),
        "baseline": baseline(made),
        "segments": [
            {"bundle": source.url, "numbers": sorted({segment for segment, _ in measurement.updates})}
            for source, measurement in zip(made.sources, made.measurements, strict=True)
        ],
    }


def _bound_json(bound: Bound) -> dict[str, Any]:
    return {"value": bound.value, "rank": bound.rank, "scores": bound.scores}


def variants(made: Calibrated) -> list[dict[str, Any]]:
    """For each variant its relative errors at the segments' ends: median, largest, and median by third.

    And the largest of the rest of the state, with its group.
    """
    ends, rows = made.ends(), []
    for name in made.calibration.variants:
        own = [(one.relative, place) for one, place in ends if one.variant == name]
        rest = max((one for one, _ in ends if one.variant == name), key=lambda one: one.state or 0.0)
        thirds = [[error for error, place in own if int(3 * place) == third] for third in range(3)]
        rows.append(
            {
                "variant": name,
                "median": median(error for error, _ in own),
                "largest": max(error for error, _ in own),
                "thirds": [median(third) if third else None for third in thirds],
                "state": rest.state or 0.0,
                "state_group": rest.state_group,
            }
        )
    return rows


def left_out(made: Calibrated) -> dict[str, str]:
    """The variants of which nothing was used, and why."""
    reasons = {name: why for m in made.measurements for name, why in m.left_out.items()}
    return {name: why for name, why in reasons.items() if name not in made.calibration.variants}


def baseline(made: Calibrated) -> list[str]:
    """How many baseline replays had the sealed bits, and what it means if not all had."""
    equal, count = (sum(getattr(m, name) for m in made.measurements) for name in ("equal", "of"))
    said = [f"{equal} of {count} replays had the sealed bits"]
    apart = differences(made.sources[0].recorded, made.measurements[0].base)
    if apart:
        named = "; ".join(f"{name} {a!r}, here {b!r}" for name, (a, b) in apart.items())
        said.append(f"the recorded environment cannot be had: {printable(named)}")
    if equal < count:
        where = "in another environment" if apart else "in the recorded environment"
        said.append(
            f"replays {where} do not give the sealed states: errors are against our own replay, not these"
        )
    return said


def _ordinal(bound: Bound) -> str:
    if bound.rank == bound.scores:
        return f"largest score of {bound.scores} segments, {bound.value:.6g}"
    return f"score that is number {bound.rank} of {bound.scores} segments', {bound.value:.6g}"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    numbers = [row["median"], row["largest"], *row["thirds"], row["state"]]
    cells = ("-" if number is None else f"{number:.3g}" for number in numbers)
    return (row["variant"], *cells, printable(row["state_group"]) or "-")


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
