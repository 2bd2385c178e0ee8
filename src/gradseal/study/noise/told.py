"""What the measurements of *noise* say: growth by source and phase, and tolerances on held-out segments.

A segment's score is its largest relative error over the variants; the tolerance is the tolerance bound of
the calibration segments' scores (`tolerance_bound`). On held-out segments each variant rejects where its own
error is beyond; a second column tells how often, had the variant not been there to calibrate on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from gradseal.study.noise.run import SEGMENTS
from gradseal.study.proportions import proportion_bounds
from gradseal.study.section import Plot, Section, Series, Table
from gradseal.study.tolerance_bound import growth, tolerance_bound

FALSE_REJECTION = 0.05
CONFIDENCE = 0.95
PHASES = {"fresh": "fresh", "warmed": "warmed up"}
_NAMES = {"sgd": "SGD", "adamw": "AdamW"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A run that is measured.

    Args:
        recipe: What is trained.
        optimizer: `sgd` or `adamw`.
        sizes: Of the run and of what is replayed: arguments of `noise_run.run_noise`.
    """

    recipe: str
    optimizer: str
    sizes: Mapping[str, int] = field(compare=False)

    @property
    def name(self) -> str:
        """Its job's name."""
        return f"noise {self.recipe} {self.optimizer}"

    @property
    def said(self) -> str:
        """Its name in tables."""
        return f"{self.recipe}, {_NAMES[self.optimizer]}"


class Noise:
    """One run's measurements, looked up.

    Args:
        result: What `noise_run.run_noise` gave.
    """

    def __init__(self, result: Mapping[str, Any]) -> None:
        self.result = result
        self.every: int = result["every"]
        self.variants: Mapping[str, bool] = result["variants"]
        self._errors = {
            (segment, variant, step): math.inf if error is None else float(error)
            for segment, variant, step, error in result["rows"]
        }

    def of_family(self, *, reduced: bool) -> list[str]:
        """The variants of float32, or with `reduced` all."""
        return [name for name, is_reduced in self.variants.items() if reduced or not is_reduced]

    def scores(self, segments: Iterable[int], variants: Sequence[str]) -> list[float]:
        """The largest error of these variants at each segment's end; 0 of one that gave the base's bits."""
        return [
            max((self._errors.get((segment, variant, self.every), 0.0) for variant in variants), default=0.0)
            for segment in segments
        ]

    def curve(self, variant: str, phase: str) -> list[tuple[int, float]]:
        """By mark the median error of the segments of a phase."""
        own: dict[int, list[float]] = {}
        for (segment, name, step), error in self._errors.items():
            if name == variant and segment in self.result[phase]:
                own.setdefault(step, []).append(error)
        return [(step, median(errors)) for step, errors in sorted(own.items())]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """How a tolerance did on held-out segments.

    Args:
        variant: What replayed them; all of a family together if empty.
        tau: The tolerance.
        rate: The false-rejection rate that is stated of it.
        rejected: How many held-out segments were beyond.
        of: How many there were.
        unseen: How many were, under a tolerance of the other variants; None for all together.
    """

    variant: str
    tau: float
    rate: float
    rejected: int
    of: int
    unseen: int | None = None

    @property
    def bounds(self) -> tuple[float, float]:
        """The 95 % interval of the rate that was seen."""
        return proportion_bounds(self.rejected, self.of)

    @property
    def within(self) -> bool:
        """Whether what was seen is compatible with the stated rate."""
        return self.bounds[0] <= self.rate


def try_tolerance(noise: Noise, *, reduced: bool) -> list[Held]:
    """The tolerance of a family, and what it does on held-out segments: all variants together, then each."""
    names = noise.of_family(reduced=reduced)
    if not names:
        return []
    calibration, held_out = noise.result["calibration"], noise.result["held_out"]
    bound = tolerance_bound(noise.scores(calibration, names), FALSE_REJECTION, CONFIDENCE)

    def beyond(variants: Sequence[str], tau: float) -> int:
        return sum(score > tau for score in noise.scores(held_out, variants))

    def held(variant: str, variants: Sequence[str], unseen: int | None) -> Held:
        return Held(
            variant=variant,
            tau=bound.value,
            rate=bound.rate,
            rejected=beyond(variants, bound.value),
            of=len(held_out),
            unseen=unseen,
        )

    rows = [held("", names, None)]
    for name in names:
        others = [other for other in names if other != name]
        without = tolerance_bound(noise.scores(calibration, others), FALSE_REJECTION, CONFIDENCE).value
        rows.append(held(name, [name], beyond([name], without) if others else None))
    return rows


def tell_cases(
    part: str, title: str, results: Mapping[Case, Mapping[str, Any]], notes: Sequence[str]
) -> Section:
    """The section of all runs that were measured."""
    measured = {case: Noise(result) for case, result in results.items()}
    tried = {
        (case, reduced): try_tolerance(noise, reduced=reduced)
        for case, noise in measured.items()
        for reduced in (False, True)
        if not reduced or any(noise.variants.values())
    }
    tried = {key: rows for key, rows in tried.items() if rows}
    left_out = dict.fromkeys(
        f"Left out with {case.said}: {name}: {reason}."
        for case, noise in measured.items()
        for name, reason in noise.result["left_out"].items()
    )
    return Section(
        part=part,
        title=title,
        said=tuple(_said(measured, tried)),
        tables=(_growth_table(measured), _tolerance_table(tried)) if measured else (),
        plots=tuple(_plot(case, noise, phase) for case, noise in measured.items() for phase in PHASES),
        figures=_figures(measured, tried),
        notes=(*notes, *left_out),
    )


Tried = Mapping[tuple[Case, bool], Sequence[Held]]


def _said(measured: Mapping[Case, Noise], tried: Tried) -> list[str]:
    said = []
    if whole := [all_of_them for all_of_them, *_ in tried.values()]:
        beyond, of = sum(one.rejected for one in whole), sum(one.of for one in whole)
        within = sum(one.within for one in whole)
        said.append(
            f"{len(whole)} tolerances of {len(measured)} runs, each of {SEGMENTS} segments for a rate of "
            f"{whole[0].rate:.1%}: of {of} segments of other runs {beyond} are beyond theirs under some "
            f"numerics, {beyond / of:.1%}; {within} of {len(whole)} intervals reach down to the stated rate."
        )
    for (case, reduced), (all_of_them, *each) in tried.items():
        low, high = all_of_them.bounds
        worst = max((one.unseen or 0 for one in each), default=0)
        said.append(
            f"{case.said}, {_family(reduced=reduced)}: τ is {all_of_them.tau:.2g} of the update; "
            f"{all_of_them.rejected} of {all_of_them.of} held-out segments are beyond it under some variant "
            f"({low:.1%} to {high:.1%}). A variant that was not calibrated on has up to {worst} beyond."
        )
    for case, noise in measured.items():
        equal, of = noise.result["equal"], noise.result["of"]
        said.append(f"{case.said}: the baseline gave the sealed bits in {equal} of {of} segments.")
        ends = [(noise.curve(name, phase)[-1], name, phase) for name in noise.variants for phase in PHASES]
        if ends:
            (step, error), name, phase = max(ends, key=lambda end: end[0][1])
            said.append(
                f"{case.said}: the farthest is {name!r}, {PHASES[phase]}: {error:.2g} of the update after "
                f"{step} steps, the median of {len(noise.result[phase])} segments."
            )
    return said


def _family(*, reduced: bool) -> str:
    return "with reduced precision" if reduced else "float32"


def _growth_table(measured: Mapping[Case, Noise]) -> Table:
    rows = []
    for case, noise in measured.items():
        for name in noise.variants:
            for phase, said in PHASES.items():
                curve = noise.curve(name, phase)
                fitted, at = growth(curve), dict(curve)
                ends = (1, noise.every, max(at, default=0))
                rows.append(
                    (
                        case.said,
                        name,
                        said,
                        *(f"{at[step]:.2g} ({step})" if step in at else "" for step in ends),
                        f"{fitted.exponent:.2f}" if fitted else "",
                    )
                )
    return Table(
        title="Relative error by source of noise",
        headings=("run", "numerics", "phase", "after 1 step", "after k", "farthest", "grows as k to the"),
        rows=tuple(rows),
        note="Medians of ‖W′ − W‖ / ‖W − W₀‖ over the segments followed, against a baseline replay from the "
        "same sealed state; in brackets the steps.",
    )


def _tolerance_table(tried: Tried) -> Table:
    rows = [
        (
            case.said,
            one.variant or f"any of them, {_family(reduced=reduced)}",
            f"{one.tau:.2g}",
            f"{one.rate:.1%}",
            f"{one.rejected} of {one.of}",
            "{:.1%} to {:.1%}".format(*one.bounds),
            "yes" if one.within else "no",
            "" if one.unseen is None else f"{one.unseen} of {one.of}",
        )
        for (case, reduced), held in tried.items()
        for one in held
    ]
    return Table(
        title="Calibrated tolerances on held-out segments",
        headings=("run", "numerics", "τ", "stated rate", "rejected", "95 % interval", "within", "if unseen"),
        rows=tuple(rows),
        note="τ is a tolerance bound of the calibration segments' largest errors, stated with 95 % "
        "confidence; held out are segments of another run, of another seed. The interval is Clopper and "
        "Pearson's; *within*: it reaches down to the stated rate, as with so few segments it often would at "
        "twice that rate. *if unseen*: beyond a τ of the other variants.",
    )


def _plot(case: Case, noise: Noise, phase: str) -> Plot:
    curves = {name: noise.curve(name, phase) for name in noise.variants}
    kept = {n: [(x, y) for x, y in c if 0 < y < math.inf] for n, c in curves.items()}
    ends = "; ".join(f"{name} {curve[-1][1]:.2g}" for name, curve in kept.items() if curve)
    return Plot(
        name=f"noise-{case.recipe}-{case.optimizer}-{phase}",
        title=f"Error against steps: {case.said}, {PHASES[phase]}",
        description=f"Relative error by numerics as steps go on; at the end: {ends}.",
        x="steps",
        y="error / update",
        series=tuple(
            Series(name=name, x=tuple(float(x) for x, _ in curve), y=tuple(y for _, y in curve))
            for name, curve in kept.items()
            if curve
        ),
        log_x=True,
        log_y=True,
    )


def _figures(measured: Mapping[Case, Noise], tried: Tried) -> dict[str, float | str | None]:
    figures: dict[str, float | str | None] = {}
    for case, noise in measured.items():
        key = f"{case.recipe}_{case.optimizer}"
        figures[f"{key}_equal"] = noise.result["equal"]
        figures[f"{key}_replayed"] = noise.result["of"]
    for (case, reduced), (all_of_them, *_) in tried.items():
        key = f"{case.recipe}_{case.optimizer}" + ("_reduced" if reduced else "")
        figures[f"{key}_tau"] = all_of_them.tau if math.isfinite(all_of_them.tau) else None
        figures[f"{key}_rejected"] = all_of_them.rejected
        figures[f"{key}_held_out"] = all_of_them.of
    whole = [all_of_them for all_of_them, *_ in tried.values()]
    figures["within"] = f"{sum(one.within for one in whole)} of {len(whole)}" if whole else None
    return figures
