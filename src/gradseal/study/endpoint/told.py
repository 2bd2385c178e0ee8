"""What is said of victims' jobs in the endpoint part: sentences, tables and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import Any

from gradseal.study.section import Plot, Section, Series, Table

Curve = Sequence[Mapping[str, float]]


class Found:
    """Results of the victims' jobs, by what they are."""

    def __init__(self, asked: Mapping[str, Mapping[str, Any]], results: Mapping[str, Any]) -> None:
        self._rows = [(name.split()[1], asked[name], results[name]) for name in asked if name in results]

    def of(self, what: str) -> list[tuple[Mapping[str, Any], Any]]:
        """Arguments and result of each job of a kind."""
        return [(arguments, result) for kind, arguments, result in self._rows if kind == what]

    def by(self, what: str, argument: str) -> dict[float, list[Any]]:
        """The results of a kind by one of the arguments."""
        grouped: dict[float, list[Any]] = {}
        for arguments, result in self.of(what):
            grouped.setdefault(arguments[argument], []).append(result)
        return dict(sorted(grouped.items()))


def victims_told(found: Found) -> list[Section]:
    """What each way to W_T gave."""
    told = [_retraining(found), _declared(found), _undeclared(found), _distilled(found)]
    return [one for one in told if one is not None]


def part_of(
    said: Sequence[str] = (),
    tables: Sequence[Table] = (),
    figures: Mapping[str, float | str | None] | None = None,
) -> Section:
    """A piece of the section."""
    return Section(part="", title="", said=tuple(said), tables=tuple(tables), figures=figures or {})


def _retraining(found: Found) -> Section | None:
    curves: list[Curve] = [result["curve"] for _, result in found.of("retraining")]
    if not curves:
        return None
    rows, ends = [], []
    for point in range(len(curves[0])):
        here = [curve[point] for curve in curves]
        away, matched = median(p["away"] for p in here), median(p["matched"] for p in here)
        rows.append((f"{here[0]['cost']:.2g}×", f"{away:.3g}", f"{matched:.3g}"))
        ends.append((here[0]["cost"], away, matched))
    cost, away, matched = ends[-1]
    nearest = min(ends, key=lambda end: end[2])
    return part_of(
        [
            f"Honest retraining by another seed is {away:.3g} d_ref from W_T after {cost:.2g}× the victim's "
            f"cost, {matched:.3g} once hidden units are matched; nearest (matched) was {nearest[2]:.3g}, at "
            f"{nearest[0]:.2g}×."
        ],
        [
            Table(
                title="Honest retraining: distance to W_T, of d_ref",
                headings=("cost", "distance", "with hidden units matched"),
                rows=tuple(rows),
                note=f"median of {len(curves)} runs; at cost 0 the distance is that of an initialisation",
            )
        ],
        {"endpoint_honest_distance": away, "endpoint_honest_matched": matched},
    )


def _declared(found: Found) -> Section | None:
    by_pull = found.by("declared", "pull")
    if not by_pull:
        return None
    rows = []
    for pull, results in by_pull.items():
        ends = [result["curve"][-1]["away"] for result in results]
        rows.append(
            (
                f"{pull:g}",
                f"{median(ends):.3g}",
                _cost_to(results, 0.5),
                _cost_to(results, 0.1),
                results[0]["weights"],
            )
        )
    nearest = min(median(r["curve"][-1]["away"] for r in results) for results in by_pull.values())
    said = [
        f"A pull c·‖W − W_T‖² declared in the loss ends {nearest:.2g} d_ref away at the victim's cost, with "
        "the best c tried; every segment of such a run is true."
    ]
    tables = [
        Table(
            title="A declared pull: distance to W_T, of d_ref",
            headings=("c", "at the victim's cost", "cost to 0.5", "cost to 0.1", "weights"),
            rows=tuple(rows),
        )
    ]
    figures: dict[str, float | str | None] = {"endpoint_declared_distance": nearest}
    checked = found.of("verified")
    for arguments, result in checked[:1]:
        said.append(
            f"Verified whole (c = {arguments['pull']:g}, {result['cost']:.2g}× the victim's cost, "
            f"{result['away']:.2g} d_ref away): {result['replayed']} of {result['segments']} segments replay "
            f"bit for bit; {result['usual']} by policy full, which allows {result['allowed']} free bytes and "
            f"counts {result['free_bytes']:.0f} (the parameters have {result['parameter_bytes']}); "
            f"{result['ample']} without that cap. The permutation test gives p = {_p_said(result['p'])}."
        )
        figures["endpoint_free_bytes"] = result["free_bytes"]
        figures["endpoint_declared_outcome"] = result["usual"]
    return part_of(said, tables, figures)


def _cost_to(results: Sequence[Mapping[str, Any]], away: float) -> str:
    """The least cost told at which all runs are as near."""
    costs = [next((p["cost"] for p in r["curve"] if p["away"] <= away), None) for r in results]
    known = [cost for cost in costs if cost is not None]
    return f"{max(known):.2g}×" if known and len(known) == len(costs) else "not reached"


def _undeclared(found: Found) -> Section | None:
    by_tolerance = found.by("undeclared", "tolerance")
    if not by_tolerance:
        return None
    rows, ends = [], {}
    for tolerance, results in by_tolerance.items():
        ends[tolerance] = median(result["curve"][-1]["away"] for result in results)
        largest = max(result["error"] for result in results)
        rows.append((f"{tolerance:g}", f"{largest:.3g}", f"{ends[tolerance]:.3g}", results[0]["weights"]))
    told = "; ".join(f"{end:.3g} at τ = {tolerance:g}" for tolerance, end in ends.items())
    return part_of(
        [f"An undeclared pull ends, at the victim's cost, {told} (d_ref away{_honest_end(found)})."],
        [
            Table(
                title="An undeclared pull: distance to W_T by the relative tolerance",
                headings=("τ", "largest replay error", "distance, of d_ref", "weights"),
                rows=tuple(rows),
                note="errors are of a segment's sealed update; at the victim's cost",
            )
        ],
        {f"endpoint_undeclared_{tolerance:g}": end for tolerance, end in ends.items()},
    )


def _honest_end(found: Found) -> str:
    """Where honest retraining ends, to compare with; empty if it was not measured."""
    ends = [result["curve"][-1] for _, result in found.of("retraining")]
    if not ends:
        return ""
    cost = median(end["cost"] for end in ends)
    return f"; honest retraining {median(end['away'] for end in ends):.3g}, at {cost:.2g}× the cost"


def _distilled(found: Found) -> Section | None:
    results = [result for _, result in found.of("distilled")]
    if not results:
        return None
    away, matched = (median(r[name] for r in results) for name in ("away", "matched"))
    same = mean(r["same class as the stolen model"] for r in results)
    return part_of(
        [
            f"Distillation: of samples left out the student names {same:.1%} as the victim does, and ends "
            f"{away:.3g} d_ref away ({matched:.3g} matched), at {results[0]['cost']:.2g}× the victim's cost."
        ],
        figures={"endpoint_distilled_distance": away, "endpoint_distilled_agreement": same},
    )


def _p_said(p: float | None) -> str:
    return "none" if p is None else f"{p:.3g}"


def plots(found: Found) -> tuple[Plot, ...]:
    """Distance against cost, and against the tolerance."""
    curves = [
        *(_series("honest retraining", results) for results in [[r for _, r in found.of("retraining")]]),
        *(
            _series(f"declared pull, c = {pull:g}", results)
            for pull, results in found.by("declared", "pull").items()
        ),
        *(
            _series(f"undeclared pull, τ = {tolerance:g}", results)
            for tolerance, results in found.by("undeclared", "tolerance").items()
        ),
    ]
    by_tolerance = found.by("undeclared", "tolerance")
    ends = [[r["curve"][-1]["away"] for r in results] for results in by_tolerance.values()]
    shown = []
    if drawn := tuple(one for one in curves if one is not None):
        shown.append(
            Plot(
                name="endpoint-cost",
                title="Distance to W_T against training cost",
                description="; ".join(f"{one.name}: {one.y[-1]:.3g} at {one.x[-1]:.2g}" for one in drawn),
                x="gradients, of the victim's",
                y="distance to W_T, of d_ref",
                series=drawn,
            )
        )
    if ends:
        shown.append(
            Plot(
                name="endpoint-tolerance",
                title="An undeclared pull: distance to W_T against the tolerance",
                description="; ".join(
                    f"{median(away):.3g} at {tolerance:g}"
                    for tolerance, away in zip(by_tolerance, ends, strict=True)
                ),
                x="relative error that replays may have, τ",
                y="distance to W_T, of d_ref",
                series=(
                    Series(
                        name="at the victim's cost",
                        x=tuple(by_tolerance),
                        y=tuple(median(away) for away in ends),
                        low=tuple(map(min, ends)),
                        high=tuple(map(max, ends)),
                    ),
                ),
                log_x=True,
            )
        )
    return tuple(shown)


def _series(name: str, results: Sequence[Mapping[str, Any]]) -> Series | None:
    """The median curve, with the band from the nearest to the farthest."""
    if not results:
        return None
    points = list(zip(*(result["curve"] for result in results), strict=True))
    away = [[one["away"] for one in point] for point in points]
    return Series(
        name=name,
        x=tuple(point[0]["cost"] for point in points),
        y=tuple(map(median, away)),
        low=tuple(map(min, away)),
        high=tuple(map(max, away)),
    )
