"""What is said of the permutation test's error rates in the endpoint part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from gradseal.study.endpoint.told import part_of
from gradseal.study.proportions import proportion_bounds
from gradseal.study.section import Section, Table
from gradseal.verify.pull import PERMUTATIONS

LEVELS = (0.005, 0.05)
TESTS = ("endpoint test honest", "endpoint test pulled", "endpoint test related")
"""The names of the jobs."""


def errors_told(results: Mapping[str, Any]) -> list[Section]:
    """How often the test flagged which runs; empty if none was measured."""
    rows = [*_honest_rows(results), *_pulled_rows(results), *_related_rows(results)]
    if not rows:
        return []
    said: list[str] = []
    figures: dict[str, float | str | None] = {}
    if (own := results.get(TESTS[0])) is not None:
        p = [one[2] for one in own["tests"]]
        apart = [one[2] for one in own["tests"] if one[0] % 2 == 0 and one[1] == one[0] + 1]
        counts = [sum(value <= level for value in p) for level in LEVELS]
        high = proportion_bounds(sum(value <= LEVELS[1] for value in apart), len(apart))[1]
        said.append(
            f"The permutation test raised {counts[0]} false alarms at p ≤ {LEVELS[0]:g} and {counts[1]} at "
            f"p ≤ {LEVELS[1]:g} in {len(p)} tests of {own['runs']} honest runs. By the {len(apart)} pairs "
            f"alone that share no run, the rate at {LEVELS[1]:g} is at most {high:.2g} (where the interval "
            "at 95 % ends)."
        )
        figures["endpoint_false_alarms"] = counts[1] / len(p)
    if pulled := results.get(TESTS[1]):
        figures |= {f"endpoint_detected_{one['pull']:g}": _rate(one["p"], LEVELS[0]) for one in pulled}
        told = "; ".join(f"{_share(one['p'], LEVELS[0])} at c = {one['pull']:g}" for one in pulled)
        said.append(
            f"Of runs with a declared pull it flags, at p ≤ {LEVELS[0]:g}, with the interval at 95 %: {told}."
        )
    if one := results.get(TESTS[2]):
        evaded = one["p"]["these weights distilled"]
        said.append(
            f"Of {len(evaded)} students distilled from the weights it flags, at p ≤ {LEVELS[1]:g}, "
            f"{sum(value <= LEVELS[1] for value in evaded)}: {_share(evaded, LEVELS[1])}."
        )
    return [part_of(said, [_error_table(rows)], figures)]


def _error_table(rows: Sequence[tuple[str, ...]]) -> Table:
    return Table(
        title="The permutation test: how often it flags a run",
        headings=("run and weights", "tests", *(f"flagged at p ≤ {level:g}" for level in LEVELS), "median p"),
        rows=tuple(rows),
        note=f"{PERMUTATIONS} permutations; short runs of digits; Clopper-Pearson intervals at 95 %. Tests "
        "of pairs that share a run depend on each other, so the first row's intervals are too narrow; the "
        "second row's tests share none.",
    )


def _honest_rows(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    own = results.get(TESTS[0])
    if own is None:
        return []
    apart = [p for i, j, p in own["tests"] if i % 2 == 0 and j == i + 1]
    return [
        _row("honest, no relation", [p for _, _, p in own["tests"]]),
        _row("honest, pairs that share no run", apart),
    ]


def _pulled_rows(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        _row(f"pulled, c = {one['pull']:g}; {median(one['left']):.2g} of the way left", one["p"])
        for one in results.get(TESTS[1], ())
    ]


def _related_rows(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    own = results.get(TESTS[2])
    return [] if own is None else [_row(how, p) for how, p in own["p"].items()]


def _row(what: str, p: Sequence[float]) -> tuple[str, ...]:
    cells = []
    for level in LEVELS:
        hits = sum(value <= level for value in p)
        low, high = proportion_bounds(hits, len(p))
        cells.append(f"{hits} ({low:.2g} to {high:.2g})")
    return (what, str(len(p)), *cells, f"{median(p):.3g}")


def _share(p: Sequence[float], level: float) -> str:
    """The rate with its interval at 95 %."""
    low, high = proportion_bounds(sum(value <= level for value in p), len(p))
    return f"{_rate(p, level):.0%} ({low:.0%}–{high:.0%})"


def _rate(p: Sequence[float], level: float) -> float:
    return sum(value <= level for value in p) / len(p)
