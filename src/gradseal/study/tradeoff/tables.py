"""The trade-off's tables and curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import numpy as np

from gradseal.study.section import Plot, Series, Table
from gradseal.study.tradeoff.data import SCALES, Forged, Measured, separated, tuning
from gradseal.study.tradeoff.rates import Picked, least_threshold
from gradseal.verify.classical import TAU, Scale

GRID = 6
"""Thresholds of a curve in a power of ten."""

PLOTTED = (
    ("infinitesimal update", Picked.TOP),
    ("blindfold top-Q", Picked.TOP),
    ("blindfold top-Q", Picked.UNIFORM),
    ("drift within tolerance", Picked.TOP),
    ("directed retraining", Picked.TOP),
    ("jump in mid-run", Picked.UNIFORM),
)


def distributions(measured: Measured) -> Table:
    """How far honest replays end away, by variant."""
    rows = []
    for name in dict.fromkeys(one.variant for one in measured.honest):
        own = [one for one in measured.honest if one.variant == name]
        cells = [name, "less precision" if own[0].reduced else "order", str(len(own))]
        for scale in SCALES:
            scores = [score for one in own for score in one.scored[scale].every]
            largest = median(one.scored[scale].every[-1] for one in own)
            cells += [
                f"{np.quantile(scores, 0.5):.2g}",
                f"{np.quantile(scores, 0.95):.2g}",
                f"{largest:.2g}",
            ]
        rows.append(tuple(cells))
    return Table(
        title="How far honest replays end away, by the numerics of the replay",
        headings=(
            "numerics",
            "differ in",
            "runs",
            "δ: median",
            "95 %",
            "largest of a run",
            "τ: median",
            "95 %",
            "largest of a run",
        ),
        rows=tuple(rows),
        note="Of segments, l2: δ as a share of d_ref, τ as a share of the segment's update. Median and 95 % "
        "are over all segments, the last column of each is the median over runs of the largest segment.",
    )


def thresholds(measured: Measured, scale: Scale) -> Table:
    """For each attack where it begins to pass, and what becomes of honest runs there."""
    rows = []
    for name in measured.attacks:
        own = measured.cases[name]
        cells = [name, str(len(own))]
        bundles = [one.scored[scale] for one in own]
        for picked in Picked:
            passes = least_threshold(bundles, picked, 0.5)
            cells += [_number(passes), _rejected_at(measured, scale, picked, passes)]
        for reduced in measured.precisions():
            by = [p.value for p in Picked if separated(measured, name, scale, p, reduced=reduced)]
            cells.append(", ".join(by) or "none")
        rows.append(tuple(cells))
    symbol = symbol_of(scale)
    headings = [
        h for picked in Picked for h in (f"{picked.value}: passes from {symbol}", "honest rejected there")
    ]
    split = {False: "split by, single precision", True: "split by, all numerics"}
    return Table(
        title=f"Where each attack begins to pass, {kind_of(scale)}",
        headings=("attack", "victims", *headings, *(split[reduced] for reduced in measured.precisions())),
        rows=tuple(rows),
        note="The least threshold at which the bundles of the matrix, made for δ = "
        f"{measured.effort.setting.delta:g} and τ = {TAU:g}, are accepted in half of the verifications; 0 is "
        "a bundle whose replayed segments are all true, which no threshold stops." + _replayed_how(measured),
    )


def _replayed_how(measured: Measured) -> str:
    """What the columns on honest runs are of; empty if none was replayed."""
    if not measured.honest:
        return ""
    single = measured.numerics(reduced=False)
    rejected = (
        f" An honest run is rejected there if its replay under some of these is: {single} (on this machine, "
        "each where it gave other bits); in brackets the 95 % interval, of runs, where it is a count."
        if single
        else ""
    )
    return (
        f"{rejected} The last columns have the selections for which some threshold, chosen after the fact, "
        "splits the honest replays measured from these bundles, with at most 5 % of either on the wrong "
        f"side{_all_numerics(measured)}. No error rate for other runs follows, and an attacker who knows the "
        "threshold makes another bundle."
    )


def _all_numerics(measured: Measured) -> str:
    less = dict.fromkeys(one.variant for one in measured.honest if one.reduced)
    return f" (all numerics: {', '.join(less)} too)" if less else ""


def _rejected_at(measured: Measured, scale: Scale, picked: Picked, threshold: float) -> str:
    rate, low, high = measured.rejected(scale, picked, threshold, reduced=False)
    if math.isnan(rate) or math.isinf(threshold):
        return "–"
    return f"{rate:.0%}" + ("" if math.isnan(low) else f" ({low:.0%}–{high:.0%})")


def adaptive(measured: Measured) -> Table:
    """Attacks made for a threshold, at that threshold."""
    rows = []
    for one in sorted(measured.anew, key=lambda one: (one.case.attack, tuning(one), one.case.seed)):
        scale, threshold = tuning(one)
        within = [f"{one.scored[scale].acceptance(picked, threshold):.2g}" for picked in Picked]
        rates = [measured.rejected(scale, Picked.ALL, threshold, reduced=r)[0] for r in (False, True)]
        case = one.case
        rows.append(
            (
                case.attack,
                f"{symbol_of(scale)} = {threshold:g}",
                *within,
                " / ".join("–" if math.isnan(rate) else f"{rate:.0%}" for rate in rates),
                str(case.steps),
                f"{case.cost.gradients / case.claimed.gradients:.0%}" if case.claimed.gradients else "–",
                f"{case.cost.flops:.2g}",
                "–" if case.distance is None else f"{case.distance:.2g}",
            )
        )
    return Table(
        title="Attacks made for the threshold that they are measured at",
        headings=(
            "attack",
            "made for",
            *(f"accepted: {picked.value}" for picked in Picked),
            "honest rejected",
            "claimed steps",
            "gradients / claimed",
            "flops",
            "distance / d_ref",
        ),
        rows=tuple(rows),
        note=_rejected_how(measured) + "An independent run ends about 1 d_ref from the stolen weights.",
    )


def _rejected_how(measured: Measured) -> str:
    if not measured.honest:
        return ""
    single = measured.numerics(reduced=False) or "none measured"
    return (
        "Honest rejected, all segments replayed, under other numerics on this machine, each where it gave "
        f"other bits: {single} / {measured.numerics(reduced=True)}. "
    )


def curves(measured: Measured, scale: Scale, description: str) -> Plot:
    """Both errors against the threshold, as top-Q has them but where it is said; described in these words."""
    grid = [10 ** (i / GRID) for i in range(-8 * GRID, GRID + 1)]
    series = []
    for reduced, name in ((False, "single precision"), (True, "any precision")):
        if measured.runs(reduced=reduced):
            rates = [measured.rejected(scale, Picked.TOP, x, reduced=reduced) for x in grid]
            series.append(_band(f"honest rejected: {name}", grid, rates))
    for attack, picked in PLOTTED:
        if own := [one.scored[scale] for one in measured.cases.get(attack, ())]:
            found = [[one.acceptance(picked, x) for one in own] for x in grid]
            rates = [(sum(a) / len(a), min(a), max(a)) for a in found]
            series.append(_band(f"accepted: {attack}, {picked.value}", grid, rates))
    for attack in dict.fromkeys(one.case.attack for one in measured.anew):
        made = [one for one in measured.anew if one.case.attack == attack and tuning(one)[0] is scale]
        if made:
            series.append(_marks(f"accepted: {attack}, made for the threshold", scale, made))
    return Plot(
        name=f"tradeoff-{'absolute' if scale is Scale.NORMALISED else 'relative'}",
        title=f"Both errors against the threshold, {kind_of(scale)}",
        description=description,
        x=f"{symbol_of(scale)}, share of {'d_ref' if scale is Scale.NORMALISED else 'the update'}",
        y="rate",
        series=tuple(series),
        log_x=True,
    )


def _marks(name: str, scale: Scale, own: Sequence[Forged]) -> Series:
    """The acceptance of an attack at each threshold that it was made for, all segments replayed."""
    made: dict[float, list[float]] = {}
    for one in own:
        threshold = tuning(one)[1]
        made.setdefault(threshold, []).append(one.scored[scale].acceptance(Picked.ALL, threshold))
    x = tuple(sorted(made))
    return Series(name=name, x=x, y=tuple(sum(made[t]) / len(made[t]) for t in x), points=True)


def _band(name: str, grid: Sequence[float], rates: Sequence[tuple[float, float, float]]) -> Series:
    y, low, high = (tuple(values) for values in zip(*rates, strict=True))
    return Series(name=name, x=tuple(grid), y=y, low=low, high=high)


def _number(threshold: float) -> str:
    return f"{threshold:.2g}" if math.isfinite(threshold) else "never"


def kind_of(scale: Scale) -> str:
    """The scale in words."""
    return "absolute limits" if scale is Scale.NORMALISED else "limits relative to the update"


def symbol_of(scale: Scale) -> str:
    """What a threshold on this scale is called."""
    return "δ" if scale is Scale.NORMALISED else "τ"
