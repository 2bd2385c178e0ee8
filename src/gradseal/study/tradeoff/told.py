"""What the trade-off's measurements say, in sentences with their numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradseal.study.matrix.cases import Case
from gradseal.study.section import Section
from gradseal.study.tradeoff.data import ERROR, HONEST, SCALES, Forged, Measured, separated, tuning
from gradseal.study.tradeoff.rates import Picked
from gradseal.study.tradeoff.tables import (
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
    "Replays of one honest run under several numerics are not independent: a run counts once, as rejected if "
    "some of them is. Numerics that gave the run's own bits are not among them, so honest rates are of "
    "replays that differ.",
    "Attacks are replayed where they were made, without noise: a verifier with other numerics sees that "
    "besides. The blindfold attack does not depend on a threshold, and is not made anew.",
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
        notes=(*NOTES, *_left_out(measured), *([f"Not measured: {', '.join(missing)}."] if missing else [])),
    )


def _left_out(measured: Measured) -> list[str]:
    """A note on numerics that honest runs were not measured under."""
    if not measured.left_out:
        return []
    each = (f"{name} ({'; '.join(reasons)})" for name, reasons in measured.left_out.items())
    return [f"Numerics left out: {', '.join(each)}."]


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
    if attacks:
        said += [_separation_said(measured, scale, reduced=reduced) for reduced in measured.precisions()]
    return [*said, *_adaptive_said(measured, scale)]


def _separation_said(measured: Measured, scale: Scale, *, reduced: bool) -> str:
    """How many of the matrix's bundles some threshold splits from the honest replays that there are."""
    attacks, honest = measured.attacks, len(measured.runs(reduced=reduced))
    never = [
        own
        for own in attacks
        if not any(separated(measured, own, scale, picked, reduced=reduced) for picked in Picked)
    ]
    split = [own for own in attacks if own not in never]
    bundles = sum(len(measured.cases[own]) for own in split)
    return (
        f"Some {symbol_of(scale)}, chosen after the fact for each attack, splits the {honest} honest replays "
        f"measured ({measured.numerics(reduced=reduced)}) from the {bundles} bundles of {len(split)} of "
        f"{len(attacks)} attacks, by one of {len(Picked)} selections, with at most {ERROR:.0%} of either on "
        f"the wrong side; none does for: {', '.join(never) or 'no attack'}. No error rate for other runs "
        "follows."
    )


def _honest_said(measured: Measured, scale: Scale) -> str:
    """How far honest replays end away, and how many runs are rejected for it."""
    symbol, usual, parts = symbol_of(scale), measured.usual(scale), []
    for reduced in measured.precisions():
        own = measured.worst(scale, reduced=reduced)
        largest = max(one.every[-1] for one in own)
        rate, low, high = measured.rejected(scale, Picked.ALL, usual, reduced=reduced)
        parts.append(
            f"under {measured.numerics(reduced=reduced)} the largest segment is {largest:.2g} away, and "
            f"{symbol} = {usual:g} rejects {rate:.0%} of {len(own)} runs under some of these "
            f"({low:.0%}–{high:.0%})"
        )
    return (
        f"Honest runs, all segments replayed under other numerics on this machine, each where it gave other "
        f"bits, {kind_of(scale)}: {'; '.join(parts)}."
    )


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
            ""
            if math.isnan(rate)
            else f"; {rate:.0%} of honest runs are rejected there, under some of the numerics measured"
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
    constant = ": a smaller δ made it longer, about as 1/δ" if most < 1.2 * least else ""
    return f" Its segments times δ are {least:.2g} to {most:.2g} d_ref{constant}."


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
    true = [name for name in names if all(_all_equal(c) for c in replayed if c.attack == name)]
    mixed = [name for name in names if name not in (*false, *true)]
    return [
        f"In exact arithmetic the threshold is 0: {equal} of {of} segments of honest runs replay bit for "
        f"bit (runs: {len(honest)}). All bundles of {len(false)} of {len(names)} attacks have segments that "
        "do not, and pass only where none of those is replayed. True runs in all bundles, which no "
        f"comparison can refuse: {', '.join(true) or 'none'}."
        + (f" In some bundles and not in others: {', '.join(mixed)}." if mixed else "")
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
