"""What the trade-off's measurements say, in sentences with their numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradseal.study.cases import Case
from gradseal.study.rates import Picked
from gradseal.study.section import Section
from gradseal.study.tradeoff_data import ERROR, HONEST, SCALES, Forged, Measured, separated, tuning
from gradseal.study.tradeoff_tables import (
    PLOTTED,
    adaptive,
    curves,
    distributions,
    kind_of,
    symbol_of,
    thresholds,
)
from gradseal.verify.classical import Scale

NOTES = (
    "Acceptance is that of the comparison alone; tests of state zero, bounds of learning rates and dates are "
    "in the matrix.",
    "Replays of one honest run under several numerics are not independent, so intervals of honest rates are "
    "too narrow for what another run would do.",
    "Attacks are replayed where they were made, without noise: a verifier elsewhere sees that besides. The "
    "blindfold attack does not depend on a threshold, and is not made anew.",
)


def told(
    measured: Measured, exact: Sequence[Case], *, part: str, title: str, missing: Sequence[str]
) -> Section:
    """All of it.

    Args:
        measured: What was measured in native arithmetic.
        exact: The matrix's cases in exact arithmetic.
        part: The part's name.
        title: Its heading.
        missing: Names of jobs without a result.
    """
    tables = [distributions(measured)] if measured.honest else []
    if measured.cases:
        tables += [thresholds(measured, scale) for scale in SCALES]
    if measured.anew:
        tables.append(adaptive(measured))
    said = [sentence for scale in SCALES for sentence in _found(measured, scale)]
    return Section(
        part=part,
        title=title,
        said=(*said, *_in_exact(exact)),
        tables=tuple(tables),
        plots=tuple(curves(measured, scale, " ".join(_found(measured, scale))) for scale in SCALES),
        figures=_figures(measured),
        notes=(*NOTES, *([f"Not measured: {', '.join(missing)}."] if missing else [])),
    )


def _found(measured: Measured, scale: Scale) -> list[str]:
    """What was found on one scale."""
    said, symbol, usual = [], symbol_of(scale), measured.usual(scale)
    if measured.honest:
        said.append(_honest_said(measured, scale))
    attacks = measured.attacks
    if attacks:
        passing = {
            picked: sum(measured.accepted(name, scale, picked, usual) >= 0.5 for name in attacks)
            for picked in Picked
        }
        counts = ", ".join(f"{count} by {picked.value}" for picked, count in passing.items())
        said.append(
            f"At {symbol} = {usual:g} the comparison accepts, of {len(attacks)} attacks, in half of the "
            f"verifications or more: {counts}."
        )
    for reduced, name in ((False, "single precision"), (True, "any precision")):
        if attacks and measured.runs(reduced=reduced):
            said.append(_separation_said(measured, scale, name, reduced=reduced))
    return [*said, *_adaptive_said(measured, scale)]


def _separation_said(measured: Measured, scale: Scale, name: str, *, reduced: bool) -> str:
    """How many of the matrix's bundles some threshold tells from honest runs."""
    attacks = measured.attacks
    never = [
        own
        for own in attacks
        if not any(separated(measured, own, scale, picked, reduced=reduced) for picked in Picked)
    ]
    return (
        f"With replays in {name}, some {symbol_of(scale)} tells the bundles of {len(attacks) - len(never)} "
        f"of {len(attacks)} attacks from honest runs, by one of the selections, with at most {ERROR:.0%} "
        f"error either way; none does for: {', '.join(never) or 'no attack'}."
    )


def _honest_said(measured: Measured, scale: Scale) -> str:
    """How far honest replays end away, and how many runs are rejected for it."""
    symbol, usual, parts = symbol_of(scale), measured.usual(scale), []
    for reduced, name in (
        (False, "in single precision elsewhere"),
        (True, "with TF32 and bfloat16 among them"),
    ):
        own = measured.runs(reduced=reduced)
        largest = max((one.scored[scale].every[-1] for one in own), default=math.nan)
        rate, low, high = measured.rejected(scale, Picked.ALL, usual, reduced=reduced)
        parts.append(
            f"{name} the largest segment is {largest:.2g} away, and {symbol} = {usual:g} rejects {rate:.0%} "
            f"of {len(own)} replayed runs ({low:.0%}–{high:.0%})"
        )
    return f"Honest runs, all segments replayed, {kind_of(scale)}: {'; '.join(parts)}."


def _adaptive_said(measured: Measured, scale: Scale) -> list[str]:
    """What becomes of attacks that are made for the threshold."""
    said = []
    for attack in dict.fromkeys(one.case.attack for one in measured.anew):
        own = [one for one in measured.anew if one.case.attack == attack and tuning(one)[0] is scale]
        if not own:
            continue
        own.sort(key=lambda one: tuning(one)[1])
        least, most = own[0], own[-1]
        share = min(one.scored[scale].acceptance(Picked.ALL, tuning(one)[1]) for one in own)
        rate = measured.rejected(scale, Picked.ALL, tuning(least)[1], reduced=True)[0]
        rejected = (
            "" if math.isnan(rate) else f"; {rate:.0%} of honest runs, of any precision, are rejected there"
        )
        said.append(
            f"{attack.capitalize()}, made for the threshold: with all segments replayed, bundles are "
            f"accepted with probability {'' if share == 1 else 'at least '}{share:g} "
            f"at {symbol_of(scale)} = {_listed(own)}. "
            f"At the least of these it claims {least.case.steps} steps, computes {least.case.cost.flops:.2g} "
            f"flops, and ends {_away(least)} from the stolen weights{rejected}; at the largest "
            f"{most.case.steps} steps, {most.case.cost.flops:.2g} flops, and {_away(most)}."
            + _growth_said(measured, scale, own)
        )
    return said


def _growth_said(measured: Measured, scale: Scale, own: Sequence[Forged]) -> str:
    """What segments times threshold is, where the threshold alone decides how many segments there are."""
    usual = measured.effort.setting.steps
    longer = [(one.case.segments * tuning(one)[1], tuning(one)[1]) for one in own if one.case.steps > usual]
    if scale is not Scale.NORMALISED or len({threshold for _, threshold in longer}) < 2:
        return ""
    least, most = min(longer)[0], max(longer)[0]
    return (
        f" Its segments times δ are {least:.2g} to {most:.2g} d_ref, the way from its start: a smaller δ "
        "only makes it longer, as 1/δ."
    )


def _in_exact(cases: Sequence[Case]) -> list[str]:
    """What the threshold 0 does, where no noise is."""
    replayed = [case for case in cases if case.replays and case.replays.equal]
    honest = [case for case in replayed if case.attack in HONEST and case.replays]
    if not honest:
        return []
    counts = [(sum(case.replays.equal), len(case.replays.equal)) for case in honest if case.replays]
    equal, of = (sum(values) for values in zip(*counts, strict=True))
    names = dict.fromkeys(case.attack for case in replayed if case.attack not in HONEST)
    false = [n for n in names if all(not _all_equal(c) for c in replayed if c.attack == n)]
    true = [name for name in names if name not in false]
    return [
        f"In exact arithmetic the threshold is 0: {equal} of {of} segments of honest runs replay bit for "
        f"bit (runs: {len(honest)}). {len(false)} of {len(names)} attacks have segments that do not, and "
        f"pass only where none of those is replayed; the others are true runs, which no comparison can "
        f"refuse: {', '.join(true) or 'none'}."
    ]


def _all_equal(case: Case) -> bool:
    return case.replays is not None and all(case.replays.equal)


def _figures(measured: Measured) -> dict[str, float | str | None]:
    figures: dict[str, float | str | None] = {}
    for scale in SCALES:
        kind, usual = "absolute" if scale is Scale.NORMALISED else "relative", measured.usual(scale)
        for reduced, name in ((False, "single precision"), (True, "any precision")):
            if measured.runs(reduced=reduced):
                rate = measured.rejected(scale, Picked.ALL, usual, reduced=reduced)[0]
                figures[f"honest rejected, {kind}, {name}"] = rate
        for attack, picked in PLOTTED:
            if attack in measured.cases:
                rate = measured.accepted(attack, scale, picked, usual)
                figures[f"accepted, {kind}, {attack}, {picked.value}"] = rate
        made = [one for one in measured.anew if tuning(one)[0] is scale]
        shares = [one.scored[scale].acceptance(Picked.ALL, tuning(one)[1]) for one in made]
        figures[f"accepted, {kind}, made for the threshold"] = min(shares, default=None)
    return figures


def _listed(own: Sequence[Forged]) -> str:
    return ", ".join(dict.fromkeys(f"{tuning(one)[1]:g}" for one in own))


def _away(one: Forged) -> str:
    return "–" if one.case.distance is None else f"{one.case.distance:.2g} d_ref"
