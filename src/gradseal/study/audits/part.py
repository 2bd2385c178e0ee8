"""The study's part on audits: how often which audit sees a prover, at what cost, and whether its bounds hold.

Each kind of audit stands against the prover's best response to it (`response`), on the lengths of a real run
of digits and on those of a made-up long run; then simulated provers against the bounds (`provers`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gradseal.study.audits.jobs import (
    DETECTION,
    LONG_DISPLACEMENT,
    SHARES,
    measure_digits,
    measure_long,
    simulate_digits,
    simulate_law,
)
from gradseal.study.audits.mixes import KINDS
from gradseal.study.audits.provers import LAWS, SIGNIFICANCE, TRIALS
from gradseal.study.jobs import Job
from gradseal.study.part import Effort, Part
from gradseal.study.section import Plot, Section, Series, Table

_POLICIES = ((0.95, 0.05, 0.1, 10), (0.99, 0.2, 0.3, 0), (0.9, 0.02, 0.05, 5))
"""Confidence, tolerated share of segments, of length, and the longest that are always replayed."""


def _plan(effort: Effort) -> list[Job]:
    run: dict[str, Any] = {"seed": effort.seed, "steps": 1000 if effort.full else 300}
    jobs = [
        Job(name="audits digits", function=measure_digits, arguments=run, group="audits digits"),
        Job(name="audits long", function=measure_long, arguments={}),
    ]
    for number, policy in enumerate(_POLICIES):
        own = {**run, "policy": list(policy)}
        name = f"audits simulated digits {number}"
        jobs.append(Job(name=name, function=simulate_digits, arguments=own, group="audits digits"))
        for law in LAWS:
            # The verification's own draws where there are few segments, as each takes a hash a segment.
            sizes = [(60, True)] if number == 0 and (effort.full or law == "exponential") else []
            sizes += [(1000, False), *([(10_000, False)] if effort.full or law == "heavy-tailed" else [])]
            jobs += [_simulation(effort, law, segments, number, hashed=hashed) for segments, hashed in sizes]
    return jobs


def _simulation(effort: Effort, law: str, segments: int, number: int, *, hashed: bool) -> Job:
    arguments: dict[str, Any] = {"law": law, "segments": segments, "policy": list(_POLICIES[number])}
    # Not the same draws for all: else one unlucky row is many.
    seed = 1000 * effort.seed + 100 * number + 10 * list(LAWS).index(law) + len(str(segments))
    return Job(
        name=f"audits simulated {law} {segments} {number}",
        function=simulate_law,
        arguments={**arguments, "seed": seed, "hashed": hashed},
    )


def _tell(effort: Effort, results: Mapping[str, Any]) -> Section:
    runs = {"digits": results.get("audits digits"), "long": results.get("audits long")}
    said: list[str] = []
    tables: list[Table] = []
    plots: list[Plot] = []
    figures: dict[str, float | str | None] = {}
    for name, measured in runs.items():
        if measured is not None:
            said += _said(name, measured)
            tables += [_costs(name, measured), _mixes(name, measured)]
            plots.append(_plot(name, measured, "as they are"))
            figures |= _figures(name, measured)
    if runs["long"] is not None:
        plots.append(_plot("long", runs["long"], "without limit"))
    rows = [row for name, own in results.items() if name.startswith("audits simulated") for row in own]
    if rows:
        tables.append(_simulations(rows))
        failed = sum(row["p"] < SIGNIFICANCE for row in rows)
        said.append(
            f"Simulated provers: {len(rows)} combinations of population, lengths, bound and prover, "
            f"{TRIALS:,} trials each; {failed} contradict the error that the verifier states (one-sided "
            f"exact binomial test at {SIGNIFICANCE:g}; were the error just that in all, chance would make "
            f"{SIGNIFICANCE * len(rows):.2g} of them contradict it, expected)."
        )
        figures |= {"simulations": float(len(rows)), "simulations that contradict": float(failed)}
    return Section(
        part="audits",
        title=PART.title,
        said=tuple(said),
        tables=tuple(tables),
        plots=tuple(plots),
        figures=figures,
        notes=_NOTES,
    )


_NAMES = {"digits": "a run of digits, a segment a step", "long": "a made-up long run"}
_NOTES = (
    "The prover forges m segments of equal length in a straight line, for the m that the audit sees least "
    "often, and puts them in the place of the shortest true ones. He never forges the first or the last.",
    "A forged segment that moves no parameter, by a momentum say that a true one carries on, has no length: "
    "only uniform draws see it. It is not modelled.",
    "The long run's lengths are made up, and so is the way that its prover must go, "
    f"{LONG_DISPLACEMENT:g} of the path.",
    "Mixed is a third of the cost for each kind. The cheapest mixes are those of the ones tried.",
)


def _said(name: str, measured: Mapping[str, Any]) -> list[str]:
    best, worst = (measured["cheapest"][one] for one in ("as they are", "without limit"))
    return [
        f"{_NAMES[name].capitalize()}, {measured['segments']:,} segments: against a prover who must cover "
        f"{measured['displacement']:.2g} of the path and leaves true segments as long as they are, the "
        f"cheapest mix that sees him with {DETECTION:.0%} replays {best['share']:.2%} of the segments: "
        f"{_mix(best)}. If he may make true segments as long as he likes, he forges one, only uniform draws "
        f"see him, and it takes {worst['share']:.0%} of the segments."
    ]


def _needed(measured: Mapping[str, Any], inflation: str, kind: str) -> str:
    """The least of the costs measured at which a kind of audit sees the prover often enough."""
    curve = measured["curves"][inflation][kind]
    costs = [cost for cost, detection, _ in curve if detection >= DETECTION]
    return f"{min(costs):.0%}" if costs else "never so often"


def _mix(mix: Mapping[str, float]) -> str:
    parts = (
        ("longest", "the {} longest"),
        ("uniform", "{} uniform draws"),
        ("by length", "{} draws by length"),
    )
    return ", ".join(text.format(int(mix[key])) for key, text in parts if mix[key]) or "none but the ends"


def _costs(name: str, measured: Mapping[str, Any]) -> Table:
    wanted = (0.01, 0.03, 0.1, 0.3)
    places = [min(range(len(SHARES)), key=lambda i: abs(math.log(SHARES[i] / one))) for one in wanted]
    rows = []
    for inflation in ("as they are", "without limit"):
        for kind in KINDS:
            curve = measured["curves"][inflation][kind]
            points = [curve[place] for place in places]
            cells = (f"{d:.1%} at {c:.1%}, m = {int(m)}" for c, d, m in points)
            rows.append((inflation, kind, *cells))
    return Table(
        title=f"How often the best response is seen, at what cost: {_NAMES[name]}",
        headings=("true segments may be", "audit", *(f"about {one:.0%}" for one in wanted)),
        rows=tuple(rows),
        note="In each cell the probability, the share of segments replayed, and how many the prover forges.",
    )


def _mixes(name: str, measured: Mapping[str, Any]) -> Table:
    return Table(
        title=f"The cheapest mix that sees the best response with {DETECTION:.0%}: {_NAMES[name]}",
        headings=("true segments may be", "longest", "uniform", "by length", "share replayed"),
        rows=tuple(
            (
                inflation,
                *(f"{int(mix[key]):,}" for key in ("longest", "uniform", "by length")),
                f"{mix['share']:.2%}",
            )
            for inflation, mix in measured["cheapest"].items()
        ),
    )


def _figures(name: str, measured: Mapping[str, Any]) -> dict[str, float | str | None]:
    best, worst = (measured["cheapest"][one] for one in ("as they are", "without limit"))
    return {
        f"cheapest mix, {name}": _mix(best),
        f"its share, {name}": best["share"],
        f"share without limit of lengths, {name}": worst["share"],
    }


def _plot(name: str, measured: Mapping[str, Any], inflation: str) -> Plot:
    curves = measured["curves"][inflation]
    words = {"as they are": "lengths as they are", "without limit": "lengths made long"}[inflation]
    spoken = "; ".join(f"{kind}: {_needed(measured, inflation, kind)}" for kind in KINDS)
    return Plot(
        name=f"audits-{name}-{inflation.replace(' ', '-')}",
        title=f"Detection against cost: {_NAMES[name]}, {words}",
        description=f"What share of segments must be replayed to see the best response with {DETECTION:.0%}, "
        f"of the costs measured: {spoken}.",
        x="share of segments replayed",
        y="probability that the best response is seen",
        series=tuple(
            Series(name=kind, x=tuple(p[0] for p in _ascending(own)), y=tuple(p[1] for p in _ascending(own)))
            for kind, own in curves.items()
        ),
        log_x=True,
    )


def _ascending(points: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    """Points by cost, of equal ones the first: an audit by length cannot cost as much as one likes."""
    kept: dict[float, Sequence[float]] = {}
    for point in sorted(points, key=lambda one: one[0]):
        kept.setdefault(point[0], point)
    return list(kept.values())


def _simulations(rows: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        title="Simulated provers: how often a verifier states what is false",
        headings=(
            "lengths",
            "others",
            "confidence",
            "breaks",
            "seen by",
            "forged",
            "false",
            "theory",
            "allowed",
            "p",
        ),
        rows=tuple(
            (
                row["lengths"] + (", own draws" if row["hashed"] else ""),
                f"{row['population']:,}",
                f"{row['confidence']:.0%}",
                row["breaks"],
                row["draws"],
                f"{row['forged']:,}, {row['share']:.1%} of length",
                f"{row['false']:,}",
                f"{row['expected'] * row['trials']:.1f}",
                f"{row['allowed'] * row['trials']:.0f}",
                f"{row['p']:.2g}",
            )
            for row in rows
        ),
        note=f"Of {TRIALS:,} trials each. p: how probable as many false statements are at the error allowed.",
    )


PART = Part(
    name="audits",
    title="Audits: detection against cost",
    question="Which segments should be replayed, how many, and what does it prove against the best response?",
    plan=_plan,
    tell=_tell,
)
