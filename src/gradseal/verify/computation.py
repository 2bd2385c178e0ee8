"""Computation: the sampled segments replayed by a worker, and what their differences mean.

Only bit equality passes. In exact arithmetic a difference refutes, wherever the replay ran. In native
arithmetic it refutes in the recorded environment; in another it may be noise, and leaves the claim undecided
with the error that was measured, unless a calibration says how much noise there is: `tolerating`. By a
classical policy a replay counts by its distance instead: `nearness`.
"""

from __future__ import annotations

from gradseal.errors import ReplayError
from gradseal.precede.log import Log
from gradseal.program.arithmetic import Arithmetic, Exact
from gradseal.program.native import Environment, differences
from gradseal.program.seeds import Seeds
from gradseal.verify.contents import Contents
from gradseal.verify.examination import Examination, Progress
from gradseal.verify.executors import Executor, Ready, Request
from gradseal.verify.nearness import judge_distance, near
from gradseal.verify.outcomes import SegmentResult, Task
from gradseal.verify.policy import Policy
from gradseal.verify.sampling import Sample
from gradseal.verify.tolerance import relative
from gradseal.verify.tolerating import begin_tolerance, judge_tolerance, tell_tolerance
from gradseal.verify.verdict import Check, Result


def request_of(
    url: str, log: Log, seeds: Seeds, *, contents: Contents, sample: Sample, policy: Policy
) -> Request:
    """What a worker is asked: the sample's segments, within the policy's limits."""
    seals = log.seals
    return Request(
        url=url,
        manifest=log.manifest,
        arithmetic=contents.arithmetic,
        programs=log.programs(),
        seeds=seeds,
        tasks=[
            Task(
                segment=i,
                start=seals[i],
                end=seals[i + 1],
                losses=log.segments[i].losses,
                other_seed=sample.other_seed if i in sample.diverted else b"",
                seed_floor=policy.seed_floor,
            )
            for i in sample.segments
        ],
        step_timeout_seconds=policy.step_timeout_seconds,
        memory_bytes=policy.memory_bytes,
        replay_timeout_seconds=policy.replay_timeout_seconds,
    )


def check_computation(
    examination: Examination, request: Request, executor: Executor, shown: Progress
) -> None:
    """Step 6: the sampled segments, replayed and compared.

    Raises:
        Ended: They cannot be replayed.
    """
    if not request.tasks:
        return
    recorded, allowed = request.arithmetic, examination.policy.max_threads
    with examination.checking(Check.ENVIRONMENT):
        if not isinstance(recorded, Exact) and recorded.threads > allowed:
            raise ReplayError(
                f"{recorded.threads} threads; the policy allows {allowed}",
                where="entry 0: arithmetic.threads",
            )
    with examination.checking(Check.REPLAY):
        for answer in executor.run(request):
            if isinstance(answer, Ready):
                examination.environment = answer.environment
                _tell_environment(examination, recorded, answer.environment)
                begin_tolerance(examination, recorded, answer.environment)
            elif isinstance(answer, SegmentResult):
                _take(examination, answer, recorded)
                shown("replaying segments", len(examination.results), len(request.tasks))
    _tell_replays(examination, request)


def _take(examination: Examination, answer: SegmentResult, recorded: Arithmetic) -> None:
    if examination.policy.classical:
        judge_distance(examination, answer, examination.policy.classical.limits)
    elif examination.tolerance is not None:
        judge_tolerance(examination, answer, examination.tolerance)
    else:
        sure = isinstance(recorded, Exact) or recorded == examination.environment
        _judge(examination, answer, sure=sure)


def _tell_replays(examination: Examination, request: Request) -> None:
    classical = examination.policy.classical
    if classical:
        close = sum(near(r, classical.limits) for r in examination.results)
        examination.found(
            Check.DISTANCE,
            Result.HELD if close == len(request.tasks) else Result.NOTED,
            f"{close} of {len(request.tasks)} replays end near the sealed state: {classical.limits.said()}",
        )
        return
    equal = sum(r.equal for r in examination.results)
    examination.found(
        Check.REPLAY,
        Result.HELD if equal == len(request.tasks) else Result.NOTED,
        f"{equal} of {len(request.tasks)} segments replayed bit for bit",
    )
    tell_tolerance(examination, len(request.tasks))


def _tell_environment(examination: Examination, recorded: Arithmetic, had: Environment) -> None:
    if isinstance(recorded, Exact):
        examination.found(
            Check.ENVIRONMENT,
            Result.HELD,
            "exact arithmetic: the worker gave the bits of its definition, and no other setting counts",
        )
        return
    wrong = differences(recorded, had)
    if wrong:
        said = "; ".join(f"{name} {a!r}, here {b!r}" for name, (a, b) in wrong.items())
        examination.found(Check.ENVIRONMENT, Result.NOTED, f"the recorded environment cannot be had: {said}")
    else:
        examination.found(Check.ENVIRONMENT, Result.HELD, "replays run in the recorded environment")


def _judge(examination: Examination, answer: SegmentResult, *, sure: bool) -> None:
    examination.results.append(answer)
    if answer.equal:
        return
    share = relative(answer)
    examination.found_in(
        answer.segment,
        Check.REPLAY,
        Result.REFUTED if sure else Result.UNDECIDED,
        f"replay differs from the sealed state in {', '.join(answer.differing)}; the parameters are "
        f"{answer.error.l2:.3g} away, {share:.3g} of the update"
        + ("" if sure else "; in another environment this may be noise"),
        measured=share,
        allowed=0.0,
    )
