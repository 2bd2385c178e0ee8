"""Measures the noise of native replay: how far the same steps end apart under variants of numerics.

1. The bundle's log and contents are read, with the limits that a verifier has.
2. The baseline: a process in the recorded environment, as far as it can be had, replays the asked segments
   from their sealed starts, and keeps its parameters at every mark, and all of its state at a segment's end.
3. Each variant in a process of its own; it begins at the same starts and is compared at the same marks.

Errors are against the baseline, not against sealed ends: those are the prover's. A variant is left out, with
the reason, where this machine does not have it, where it is not the same computation, and where it gave the
baseline's bits, in all segments or in the first ten. The log is checked against its checkpoint; who signed
that is for the caller to ask.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gradseal.errors import Error, MalformedBundle, ReplayError, StoreError
from gradseal.precede.log import Log
from gradseal.program.arithmetic import Exact
from gradseal.program.native import Environment, attainable
from gradseal.study.noise.numerics import BASE, FLOAT32, Variant, variants_for
from gradseal.study.noise.processes import Mark, Progress, Run, Session
from gradseal.study.opening import open_run
from gradseal.verify.contents import Contents
from gradseal.verify.distances import Distances
from gradseal.verify.policy import Policy

_ROUND = (1, 2, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One comparison.

    Args:
        segment: Where the replay began.
        variant: The name of what was compared with the baseline.
        step: How many steps after that.
        error: The distances between its parameters and the baseline's.
        update: Those between the baseline's and where both began.
        state: At the segment's end, the largest relative error of a group of the rest of the state; see
            `verify.state_error`. None at other marks.
        state_group: Which group that is; empty if none differs.
    """

    segment: int
    variant: str
    step: int
    error: Distances
    update: Distances
    state: float | None = None
    state_group: str = ""

    @property
    def relative(self) -> float:
        """The l2 error as a share of the update; infinite if that is none, or where one is no number."""
        if not self.update.l2:
            return 0.0 if self.error.l2 == 0 else math.inf
        share = self.error.l2 / self.update.l2
        return math.inf if math.isnan(share) else share


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What was measured.

    Args:
        base: The environment that the baseline had.
        equal: How many of the segments the baseline replayed with the sealed bits.
        of: How many segments there were.
        updates: The baseline's own updates, by segment and mark.
        measured: All comparisons, of the variants that were not left out.
        variants: Those.
        left_out: The others, by name, with why.
    """

    base: Environment
    equal: int
    of: int
    updates: Mapping[Mark, Distances]
    measured: tuple[Measured, ...]
    variants: tuple[Variant, ...]
    left_out: Mapping[str, str]

    def state_scores(self, step: int) -> dict[int, float]:
        """By segment of so many steps the largest error of the rest of the state, of all variants."""
        scores = {segment: 0.0 for segment, mark in self.updates if mark == step}
        for one in self.measured:
            if one.step == step and one.state is not None:
                scores[one.segment] = max(scores[one.segment], one.state)
        return scores

    def scores(self, step: int, *, without: str = "") -> dict[int, float]:
        """By segment the largest relative error of all variants, so many steps after its start.

        Args:
            step: The mark; segments that do not have it have no score.
            without: A variant that does not count.
        """
        scores = {segment: 0.0 for segment, mark in self.updates if mark == step}
        for one in self.measured:
            if one.step == step and one.variant != without:
                scores[one.segment] = max(scores[one.segment], one.relative)
        return scores


def measure(
    url: str | Path,
    *,
    segments: Sequence[int],
    variants: Sequence[Variant] | None = None,
    family: str = FLOAT32,
    marks: Sequence[int] | Mapping[int, Sequence[int]] | None = None,
    policy: Policy | None = None,
    processes: int = 1,
    progress: Progress | None = None,
) -> Measurement:
    """Replays segments under variants of numerics, and compares them with a baseline.

    Args:
        url: The bundle: a directory, or an fsspec URL that another process can read.
        segments: Which to replay.
        variants: Of numerics; by default all of the family that are to be had here.
        family: See `numerics.variants_for`.
        marks: After how many steps to compare, for all segments or for each; beyond a segment's end replays
            go on through those that follow, and marks beyond the run's end are left out. By default 1, 2, 5,
            10 and so on to the segment's end, and there.
        policy: Whose limits on time, memory and threads count; by default `full`.
        processes: How many run at once, of those with one thread.
        progress: Told what runs, and how many segments are done of how many.

    Raises:
        Error: The run is in exact arithmetic, which has no noise, or there is no such segment or family.
        WorkerDied: A process crashed, hung or was killed; names the variant.
        CorruptBlob, MissingFile, MalformedBundle: What the bundle holds is not what its log says.
        StoreError: There is no room for what is kept of the baseline.
    """
    policy = policy or Policy.named("full")
    url = str(url) if "://" in str(url) else str(Path(url).absolute())
    log, contents = _opened(url)
    recorded = _native(contents, policy)
    asked = _asked(log, segments, marks)
    with tempfile.TemporaryDirectory(prefix="gradseal-noise-") as scratch:
        _check_room(log, contents, asked, scratch)
        session = Session(
            url=url, log=log, policy=policy, scratch=scratch, marks=asked, progress=progress, shares=1
        )
        base = session.run(BASE, attainable(recorded))
        left_out: dict[str, str] = {}
        if variants is None:
            graphs = [graph for own in contents.each for graph in own.graphs.values()]
            variants, left_out = variants_for(base.environment, family, graphs)
        session = replace(session, base=base, shares=1 + len(variants))
        runs = _all(session, variants, base.environment, processes)
    return _measurement(base, variants, runs, left_out)


def _all(session: Session, variants: Sequence[Variant], base: Environment, processes: int) -> list[Run]:
    """Runs all variants: those of one thread side by side, then the others one by one."""
    runs: dict[str, Run] = {}
    wanted = {variant.name: variant.of(base) for variant in variants}
    single = [v for v in variants if wanted[v.name].threads == 1]
    with ThreadPoolExecutor(max(1, processes)) as pool:
        futures = {v.name: pool.submit(session.run, v, wanted[v.name]) for v in single}
        try:
            runs |= {name: future.result() for name, future in futures.items()}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for variant in variants:
        if variant.name not in runs:
            runs[variant.name] = session.run(variant, wanted[variant.name])
    return [runs[variant.name] for variant in variants]


def _measurement(
    base: Run, variants: Sequence[Variant], runs: Sequence[Run], left_out: Mapping[str, str]
) -> Measurement:
    reasons, kept, measured = dict(left_out), [], []
    for variant, run in zip(variants, runs, strict=True):
        if reason := run.unfit or run.same():
            reasons[variant.name] = reason
            continue
        kept.append(variant)
        measured += [
            Measured(
                segment=s,
                variant=variant.name,
                step=step,
                error=error,
                update=base.updates[s, step],
                **_rest(run, (s, step)),
            )
            for (s, step), error in run.errors.items()
        ]
    return Measurement(
        base=base.environment,
        equal=base.equal,
        of=len(base.losses),
        updates=base.updates,
        measured=tuple(measured),
        variants=tuple(kept),
        left_out=reasons,
    )


def _rest(run: Run, mark: Mark) -> dict[str, Any]:
    if mark not in run.rests:
        return {}
    ratio, group = run.rests[mark]
    return {"state": ratio, "state_group": group}


def _opened(url: str) -> tuple[Log, Contents]:
    _, log, contents = open_run(url)
    if log.seeds() is None or not log.segments:
        raise MalformedBundle("the run has no segment yet, so there is nothing to replay", where="log")
    return log, contents


def _native(contents: Contents, policy: Policy) -> Environment:
    if isinstance(contents.arithmetic, Exact):
        raise Error(
            "the run is in exact arithmetic, whose replays have no noise",
            where="entry 0: arithmetic",
            advice="measure one that was recorded in native arithmetic",
        )
    if contents.arithmetic.threads > policy.max_threads:
        raise ReplayError(
            f"{contents.arithmetic.threads} threads; the policy allows {policy.max_threads}",
            where="entry 0: arithmetic.threads",
        )
    return contents.arithmetic


def _asked(
    log: Log, segments: Sequence[int], marks: Sequence[int] | Mapping[int, Sequence[int]] | None
) -> dict[int, tuple[int, ...]]:
    """The marks of each segment, as far as the run goes; both ascending."""
    plan, asked = log.manifest.plan, {}
    last = plan.steps_of(len(log.segments) - 1).stop
    for segment in sorted(set(segments)):
        if not 0 <= segment < len(log.segments):
            raise Error(f"there is no segment {segment}, but {len(log.segments)}", where="segments")
        own = marks[segment] if isinstance(marks, Mapping) else marks
        steps = plan.steps_of(segment)
        own = round_marks(len(steps)) if own is None else own
        kept = tuple(sorted({mark for mark in own if 1 <= mark <= last - steps.start}))
        if kept:
            asked[segment] = kept
    if not asked:
        raise Error("no segment to measure, or no mark within the run", where="segments")
    return asked


def round_marks(steps: int) -> tuple[int, ...]:
    """1, 2, 5, 10, 20, 50 and so on, below a number of steps, and that number."""
    powers = range(len(str(steps)))
    return (*(m for p in powers for r in _ROUND if (m := r * 10**p) < steps), steps)


def _check_room(log: Log, contents: Contents, marks: Mapping[int, Sequence[int]], scratch: str) -> None:
    layout = contents.program.layout
    whole = sum(s.size_bytes for s in layout)
    parameters = sum(s.size_bytes for s in layout if s.name.startswith("parameters/"))
    ends = sum(len(log.manifest.plan.steps_of(segment)) in own for segment, own in marks.items())
    needed = parameters * sum(map(len, marks.values())) + (whole - parameters) * ends
    free = shutil.disk_usage(scratch).free
    if needed > free:
        raise StoreError(
            f"what is kept of the baseline takes {needed} bytes, and {free} are free",
            where=scratch,
            advice="measure fewer segments, or set TMPDIR to a directory with more room",
        )
