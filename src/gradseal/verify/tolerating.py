"""Native replays judged by a calibrated tolerance, where the recorded environment cannot be had.

In the recorded environment, and in exact arithmetic, only bits count, and a calibration is without effect. In
another environment a replay within the tolerance passes, its parameters by one and the rest of its state by
another; one beyond leaves the claim undecided, since honest noise does that at the calibrated rate. Losses
differ by noise too, and are not compared then.
"""

from __future__ import annotations

import math

from gradseal.precede.log import Log
from gradseal.program.arithmetic import Arithmetic, Exact
from gradseal.program.native import Environment, differences
from gradseal.verify.examination import Examination
from gradseal.verify.outcomes import SegmentResult
from gradseal.verify.state_groups import groups_of
from gradseal.verify.tolerance import PASSED, UNLIKELY, Standing, Tolerance, evident, misfits, relative
from gradseal.verify.verdict import Check, Result


def begin_tolerance(examination: Examination, recorded: Arithmetic, had: Environment) -> None:
    """Sets the tolerance that replays in this environment are judged by, if there is one.

    Args:
        examination: With the log read.
        recorded: The run's arithmetic.
        had: The environment of the worker.
    """
    policy, log = examination.policy, examination.log
    calibration = policy.calibration
    if calibration is None or policy.classical or log is None:
        return
    wrong = _misfits(examination, log)
    if isinstance(recorded, Exact) or recorded == had:
        ground = "exact arithmetic has no noise" if isinstance(recorded, Exact) else "the environment is had"
        fit = f"; nor would it fit: it is of {'; '.join(wrong)}" if wrong else ""
        examination.found(Check.TOLERANCE, Result.NOTED, f"the calibration is not used: {ground}{fit}")
        return
    if wrong:
        return
    layout = examination.contents.program.layout if examination.contents else ()
    examination.tolerance = Tolerance(
        calibration=calibration,
        cap=policy.tau_cap,
        groups=tuple(groups_of(spec.name for spec in layout)),
    )
    if other := {n: pair for n, pair in differences(calibration.environment, recorded).items()}:
        said = "; ".join(f"{name} {a!r}, the run {b!r}" for name, (a, b) in other.items())
        examination.found(
            Check.TOLERANCE, Result.NOTED, f"the calibration is of runs in another environment: {said}"
        )


def counting(examination: Examination, log: Log) -> set[int] | None:
    """The segments that count under the policy's calibration, if a replay may come to be judged by it."""
    calibration, contents = examination.policy.calibration, examination.contents
    exact = contents is not None and isinstance(contents.arithmetic, Exact)
    if calibration is None or exact or _misfits(examination, log):
        return None
    updates = examination.lengths.updates if examination.lengths else ()
    return evident(calibration, updates, len(log.segments))


def judge_tolerance(examination: Examination, answer: SegmentResult, tolerance: Tolerance) -> None:
    """Takes the result of a replay, and adds a finding for parameters or a group beyond the tolerance."""
    examination.results.append(answer)
    if tolerance.parameters_beyond(answer):
        _tell_parameters(examination, answer, tolerance)
    if tolerance.state_beyond(answer):
        _tell_state(examination, answer, tolerance)


def _tell_parameters(examination: Examination, answer: SegmentResult, tolerance: Tolerance) -> None:
    share, own = relative(answer), tolerance.calibration
    short = ""
    if not tolerance.covers(answer.update.l2):
        short = f"; its update of {answer.update.l2:.3g} is none from {own.floor:.3g} to {own.ceiling:.3g}"
    examination.found_in(
        answer.segment,
        Check.TOLERANCE,
        Result.UNDECIDED,
        f"the replay's parameters end {answer.error.l2:.3g} away, {share:.3g} of the update, beyond the "
        f"tolerance of {tolerance.tau:.3g}{short}",
        measured=share,
        allowed=tolerance.tau,
    )


def _tell_state(examination: Examination, answer: SegmentResult, tolerance: Tolerance) -> None:
    finite = math.isfinite(answer.state)
    said = f"{answer.state:.3g} of its own change away" if finite else "differs where it has no noise"
    examination.found_in(
        answer.segment,
        Check.TOLERANCE,
        Result.UNDECIDED,
        f"the replay's {answer.state_group} {'ends ' if finite else ''}{said}, beyond the tolerance of "
        f"{tolerance.state_tau:.3g} for the rest of a state",
        measured=answer.state,
        allowed=tolerance.state_tau,
    )


def tell_tolerance(examination: Examination, asked: int) -> None:
    """What all replays together come to.

    Args:
        examination: With the results.
        asked: How many replays were wanted.
    """
    tolerance, results = examination.tolerance, examination.results
    if tolerance is None:
        _tell_misfits(examination)
        return
    standings = [tolerance.standing(r) for r in results]
    passed = sum(s in PASSED for s in standings)
    short = standings.count(Standing.NO_EVIDENCE)
    said = f"{passed} of {asked} replays end within {tolerance.tau:.3g} of their update"
    if tolerance.groups:
        said += f", and the rest of their state within {tolerance.state_tau:.3g} of its change"
    if short:
        own = tolerance.calibration
        said += f"; {short} updates are not from {own.floor:.3g} to {own.ceiling:.3g}: no evidence"
    examination.found(Check.TOLERANCE, Result.HELD if passed == asked else Result.NOTED, said)
    if tolerance.capped:
        examination.found(
            Check.TOLERANCE,
            Result.NOTED,
            f"the policy caps the tolerance at {tolerance.cap:.3g}, below the calibrated "
            f"{_calibrated(tolerance)}: the stated rate of false rejection no longer holds",
        )
    _tell_improbable(examination, tolerance)


def _tell_improbable(examination: Examination, tolerance: Tolerance) -> None:
    beyond, counted, probability = tolerance.improbable(examination.results)
    if probability < UNLIKELY:
        examination.found(
            Check.TOLERANCE,
            Result.UNDECIDED,
            f"{beyond} of {counted} replays end beyond the calibrated tolerance of {_calibrated(tolerance)}; "
            f"of segments drawn as the calibrated ones were as many do with probability {probability:.2g}: "
            "noise that was measured hardly explains it",
        )


def _calibrated(tolerance: Tolerance) -> str:
    own = tolerance.calibration
    rest = f", and {own.state_tau:.3g} for the rest of a state" if tolerance.groups else ""
    return f"{own.tau:.3g}{rest}"


def _misfits(examination: Examination, log: Log) -> tuple[str, ...]:
    calibration = examination.policy.calibration
    if calibration is None:
        return ()
    return misfits(calibration, log.manifest, [digest for _, digest in log.programs()])


def _tell_misfits(examination: Examination) -> None:
    """A calibration of something else, which leaves undecided what it was needed for."""
    log, policy = examination.log, examination.policy
    recorded = examination.contents.arithmetic if examination.contents else None
    if log is None or policy.classical or isinstance(recorded, Exact) or recorded == examination.environment:
        return
    if wrong := _misfits(examination, log):
        missed = not all(r.equal for r in examination.results)
        examination.found(
            Check.TOLERANCE,
            Result.UNDECIDED if missed else Result.NOTED,
            f"the calibration does not fit the run; it is of {'; '.join(wrong)}",
            "calibration",
        )
