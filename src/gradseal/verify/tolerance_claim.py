"""What replays within a tolerance are evidence of: data and computation, at most supported.

Besides what the replays themselves must show, the *reach* must stay below 1: drift within the tolerance,
added up over the whole run, must not have been able to go as far as the run went. The bound of a sample
counts as true only what passed, among the segments with an update of a length that the calibration measured;
all others may be forged, and their whole length is in the reach. What a false state besides the parameters
does later is in no reach: it is compared, and what is left of it is told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gradseal.program.native import Environment, differences
from gradseal.verify.bounds_said import by_length_said, uniform_said
from gradseal.verify.examination import Examination
from gradseal.verify.outcomes import SegmentResult
from gradseal.verify.statistics import forged_bound, length_bound, rounded_up
from gradseal.verify.tolerance import PASSED, Standing, Tolerance, evident, reach_of, relative
from gradseal.verify.verdict import Check, Claim, Status, not_shown


def tolerated(examination: Examination) -> Tolerance | None:
    """The tolerance, where it was needed: not all replays gave the sealed bits."""
    needed = not all(result.equal for result in examination.results)
    return examination.tolerance if needed else None


def passed(examination: Examination) -> list[int]:
    """The segments whose replays passed: bit for bit or, where a tolerance is in force, within it."""
    tolerance = examination.tolerance
    if tolerance is None:
        return [result.segment for result in examination.results if result.equal]
    return [r.segment for r in examination.results if tolerance.standing(r) in PASSED]


def tolerant_claim(
    examination: Examination,
    tolerance: Tolerance,
    *,
    before: Sequence[str] = (),
    brief: bool = False,
    after: Sequence[str] = (),
    released: bool = True,
) -> Claim:
    """Data or computation, by replays within a tolerance.

    Args:
        examination: With at least one replay that passed.
        tolerance: In force.
        before: What else is evidence, to be told first.
        brief: Leave out what another claim tells in full.
        after: To be told last.
        released: Whether the claim is of any weights.
    """
    evidence = [*before, _ground(examination, tolerance)]
    evidence += [] if brief else [*_elsewhere(examination), _calibrated(tolerance)]
    bound = _covered(examination, tolerance)
    lacking = examination.undecided(Check.TOLERANCE)
    if not bound:
        lacking.append("no bound on the segments that did not pass")
    reach = _reach(examination, tolerance)
    if reach is None:
        lacking.append("reach: not known, so drift within the tolerance could have gone anywhere")
    elif reach >= 1:
        lacking.append(f"reach {reach:.4g}, at least 1: drift within the tolerance could have gone anywhere")
    else:
        evidence.append(
            f"reach {rounded_up(reach, 3):.3g}: how far drift could go that is within the tolerance in each "
            "segment, added up, of the way from start to end"
        )
    evidence += bound
    evidence += [] if brief else [*_short(examination, tolerance), *_uncompared(examination, tolerance)]
    evidence += after
    if lacking:
        return not_shown(*lacking, *evidence)
    return Claim(status=Status.SUPPORTED if released else Status.NOT_SHOWN, evidence=tuple(evidence))


def tolerance_of(examination: Examination) -> dict[str, Any]:
    """For the verdict: the tolerance in force, and what came of it; empty if there was none."""
    tolerance = examination.tolerance
    if tolerance is None:
        return {}
    standings = [tolerance.standing(result) for result in examination.results]
    calibration = tolerance.calibration
    largest, worst = _largest(examination), _worst(examination)
    return {
        "tau": tolerance.tau,
        "state_tau": tolerance.state_tau if tolerance.groups else None,
        "capped": tolerance.capped,
        "false_rejection": None if tolerance.capped else tolerance.false_rejection,
        "confidence": tolerance.confidence,
        "calibrated_segments": calibration.segments,
        "signer": calibration.signer,
        **{s.value.replace(" ", "_"): standings.count(s) for s in Standing},
        "largest_error": largest if largest is not None and math.isfinite(largest) else None,
        "largest_state_error": worst.state if worst and math.isfinite(worst.state) else None,
        "state_group": worst.state_group if worst else "",
        "reach": _reach(examination, tolerance),
    }


def _ground(examination: Examination, tolerance: Tolerance) -> str:
    standings = [tolerance.standing(result) for result in examination.results]
    within, equal = standings.count(Standing.WITHIN), standings.count(Standing.EQUAL)
    said = f"{within + equal} segments replay to within {tolerance.tau:.3g} of their update"
    if tolerance.groups:
        said += f" and the rest of their state to within {tolerance.state_tau:.3g} of its change"
    if equal:
        said += f", {equal} of them bit for bit"
    largest, worst = _largest(examination), _worst(examination)
    said += f"; the largest error is {largest:.3g}" if largest is not None else ""
    return said + (f", and {worst.state:.3g} in {worst.state_group}" if worst and worst.state_group else "")


def _worst(examination: Examination) -> SegmentResult | None:
    """The replay with the largest error in the rest of its state."""
    return max(examination.results, key=lambda result: result.state, default=None)


def _largest(examination: Examination) -> float | None:
    """The largest relative error of the replays whose update counts."""
    tolerance = examination.tolerance
    counted = [r for r in examination.results if tolerance and tolerance.covers(r.update.l2)]
    return max(map(relative, counted), default=None)


def _calibrated(tolerance: Tolerance) -> str:
    own = tolerance.calibration
    times = "" if own.margin == 1 else f"{own.margin:g} times "
    what = f"each tolerance is {times}its" if tolerance.groups else f"the tolerance is {times}the"
    said = (
        f"{what} bound of {own.segments} segments under {len(own.variants)} numerics, "
        f"signed by {own.signer.partition('+')[0] or 'nobody'}"
    )
    if tolerance.capped:
        return f"{said}, capped at {tolerance.cap:.3g}: the calibrated rate no longer holds"
    rate = f"at most {rounded_up(tolerance.false_rejection):.2g} of honest segments like these lie beyond"
    both = " one of the two bounds" if tolerance.groups else ""
    return f"{said}: with {100 * tolerance.confidence:.4g}% confidence {rate}{both}"


def _elsewhere(examination: Examination) -> list[str]:
    """That the recorded environment, which would settle it, is the owner's word, and not had here."""
    recorded = examination.contents.arithmetic if examination.contents else None
    had = examination.environment
    if had is None or not isinstance(recorded, Environment):
        return []
    wrong = differences(recorded, had)
    said = "; ".join(f"{name} {a!r}, here {b!r}" for name, (a, b) in wrong.items())
    return [f"the environment that the owner names cannot be had: {said}"] if wrong else []


def _covered(examination: Examination, tolerance: Tolerance) -> tuple[str, ...]:
    """Why the segments that did not pass, or were not replayed, do not spoil the claim; nothing if they do.

    Given how many draws fell on segments whose update has a length that was measured, these are draws of the
    same kind from all such segments. Too few of them bound less than the policy demands, and then nothing.
    """
    updates, sample = examination.lengths.updates if examination.lengths else (), examination.sample
    count, own = len(examination.parameter_digests) - 1, tolerance.calibration
    counting = evident(own, updates, count)
    good = set(passed(examination))
    if counting <= good and examination.weights_checked:
        return (
            f"all {len(counting)} segments passed whose update is from {own.floor:.3g} to {own.ceiling:.3g}",
        )
    if sample is None or len(examination.results) < len(sample.segments):
        return ()
    others = set(range(count)) - set(sample.certain)
    drawn = counting & {*sample.uniform, *sample.also_uniform}
    wanted = counting & set(sample.segments)
    if not drawn or not wanted <= good or len(others) != sample.population:
        return ()
    population, policy = len(counting & others), examination.policy
    most = forged_bound(population, len(drawn), policy.bound_confidence)
    if most > math.ceil(policy.tolerated_fraction * population):
        return ()
    uniform = uniform_said(policy, len(drawn), population, most, "with evidence ")
    weighted = [i for i in (*sample.weighted, *sample.also_weighted) if i in counting]
    if policy.tolerated_length is None:
        return (uniform,)
    share = length_bound(len(weighted), policy.bound_confidence) if weighted else 1.0
    if not weighted or share > policy.tolerated_length:
        return ()
    return uniform, by_length_said(policy, weighted, share, "the length of those others")


def _short(examination: Examination, tolerance: Tolerance) -> list[str]:
    own = tolerance.calibration
    updates = examination.lengths.updates if examination.lengths else ()
    other = sum(not tolerance.covers(length) for length in updates)
    if not other:
        return []
    return [
        f"{other} of {len(updates)} updates are not from {own.floor:.3g} to {own.ceiling:.3g}, as those "
        "measured: no evidence; they may be forged, and count in the reach with their whole length"
    ]


def _uncompared(examination: Examination, tolerance: Tolerance) -> list[str]:
    """What is compared of a state besides its parameters, and what is left open."""
    losses = "losses are not compared, since they differ by noise"
    if not tolerance.groups:
        return [losses]
    return [
        *_false_states(examination, tolerance),
        f"the rest of a state is compared in groups: {', '.join(tolerance.groups)}; drift of a group within "
        "its tolerance moves later segments, and the reach does not know of it",
        losses,
    ]


def _false_states(examination: Examination, tolerance: Tolerance) -> list[str]:
    """What a sample says of false states, in segments without evidence too: their ends move later ones."""
    count, sample = len(examination.parameter_digests) - 1, examination.sample
    good = {r.segment for r in examination.results if not tolerance.state_beyond(r)}
    if len(good) == count:
        return ["all segments end within the tolerance for the rest of a state"]
    if sample is None or not sample.uniform or not set(sample.segments) <= good:
        return []
    policy = examination.policy
    most = forged_bound(sample.population, len(sample.uniform), policy.bound_confidence)
    return [
        f"the rest of a state is within in all {len(good)} replayed, short updates too: with "
        f"{100 * policy.bound_confidence:.4g}% confidence it is false in at most {most} of the "
        f"{sample.population} that were drawn from"
    ]


def _reach(examination: Examination, tolerance: Tolerance) -> float | None:
    log, lengths = examination.log, examination.lengths
    if log is None or lengths is None or len(lengths.updates) != len(log.segments):
        return None
    return reach_of(lengths.updates, examination.distance, tolerance)
