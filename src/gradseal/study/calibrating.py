"""Calibration: segments drawn from honest runs, replayed under variants of numerics, to a tolerance.

1. From all segments that moved the weights, so many are drawn uniformly, without replacement.
2. Each is replayed under every variant that is to be had here, against a baseline replay: `measure`.
3. A segment's score is its largest relative error over the variants, at its end. It has a second one, of the
   rest of its state: the largest of a group, relative to the group's own change.
4. Each tolerance is the margin times the tolerance bound of its scores: `tolerance_bound`.

The stated rate is per segment and of each tolerance by itself, whichever of these variants replays it, for
segments drawn as these were: runs of the same program on like data. At most twice as many are beyond one of
the two. It says nothing of numerics that were not varied. Errors are against the
baseline made here, so a bundle's sealed ends decide nothing, but its sealed starts and its data do: calibrate
on runs that you trust. What comes out is `verify.calibration.Calibration`. Source: docs/guide/calibrate.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from gradseal.errors import Error
from gradseal.precede.log import Log
from gradseal.program.arithmetic import Exact
from gradseal.program.native import Environment
from gradseal.program.randomness import derive, permutation
from gradseal.study.noise.measure import Measured, Measurement, measure
from gradseal.study.noise.numerics import FLOAT32
from gradseal.study.opening import open_run
from gradseal.study.tolerance_bound import Bound, growth, needed, tolerance_bound
from gradseal.verify.calibration import CalibratedRun, Calibration
from gradseal.verify.contents import check_opening

FALSE_REJECTION = 0.05
CONFIDENCE = 0.95
CEILING = 2.0
"""How many times the longest update measured one may be as long."""

FLOOR_SLACK = 2.0**-20
"""By how much the floor is below the least update measured, relatively: there are several sums."""

WORST_RATE = 0.5
"""Where so few segments can be had that more than this share might lie beyond, there is nothing to state."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a calibration is to state.

    Args:
        false_rejection: The share of honest segments that may lie beyond.
        confidence: Of that.
        segments: How many to measure; by default as many as the largest score must be of, or all there are.
        margin: What the bound is multiplied by, at least 1.
        family: Of numerics; see `noise.numerics.variants_for`.
        seed: Of the draw.
    """

    false_rejection: float = FALSE_REJECTION
    confidence: float = CONFIDENCE
    segments: int | None = None
    margin: float = 1.0
    family: str = FLOAT32
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A bundle to draw from.

    Args:
        url: Where it is.
        run: Its checkpoint.
        recorded: The environment that it was recorded in.
        log: What it says.
        moving: The segments that changed a parameter.
    """

    url: str
    run: CalibratedRun
    recorded: Environment
    log: Log
    moving: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """A calibration, and what it was made of.

    Args:
        calibration: To be signed.
        bound: Of the scores.
        state_bound: Of those of the rest of the state.
        asked_rate: The false-rejection rate that was asked for.
        sources: The bundles that segments were drawn from.
        measurements: What was measured of each, in the same order.
        still: How many segments moved nothing, and were not drawn from.
    """

    calibration: Calibration
    bound: Bound
    state_bound: Bound
    asked_rate: float
    sources: tuple[Source, ...]
    measurements: tuple[Measurement, ...]
    still: int

    def ends(self) -> list[tuple[Measured, float]]:
        """All comparisons at their segment's end, each with where in its run the segment is, from 0 to 1."""
        return [
            (one, one.segment / len(source.log.segments))
            for source, measurement in zip(self.sources, self.measurements, strict=True)
            for one in measurement.measured
            if one.step == len(source.log.manifest.plan.steps_of(one.segment))
        ]


def calibrate(sources: Sequence[Source], wanted: Wanted, progress: Progress | None = None) -> Calibrated:
    """Measures, and states a tolerance.

    Args:
        sources: From `open_source`: bundles of one program, one plan's k and batch, and one environment.
        wanted: What to state.
        progress: Told what is done.

    Raises:
        Error: Bundles that differ, a run with several programs, too few segments, no variant that gives other
            bits here, or errors without bound; of the rest of a state it names the group.
        MalformedBundle, CorruptBlob, StoreError, ReplayError: As `measure`.
    """
    least = needed(wanted.false_rejection, wanted.confidence)
    if not 1 <= wanted.margin < math.inf:
        raise Error(f"{wanted.margin:g} is below 1, so no stated rate would hold", where="margin")
    _check_alike(sources)
    drawn = _drawn(sources, wanted, least)
    chosen = [(s, segments) for s, segments in zip(sources, drawn, strict=True) if segments]
    measurements = tuple(
        measure(s.url, segments=segments, family=wanted.family, progress=progress) for s, segments in chosen
    )
    used = tuple(source for source, _ in chosen)
    bound, state_bound = (
        tolerance_bound(scores, wanted.false_rejection, wanted.confidence)
        for scores in (
            _scores(used, measurements, lambda m, steps: m.scores(steps)),
            _scores(used, measurements, lambda m, steps: m.state_scores(steps)),
        )
    )
    _check_noise(measurements, bound, wanted.margin)
    _check_state(measurements, state_bound, wanted.margin)
    return Calibrated(
        calibration=_calibration(used, measurements, (bound, state_bound), wanted.margin),
        bound=bound,
        state_bound=state_bound,
        asked_rate=wanted.false_rejection,
        sources=used,
        measurements=measurements,
        still=sum(len(s.log.segments) - len(s.moving) for s in sources),
    )


def open_source(url: str) -> Source:
    """A bundle's log, and which segments changed a parameter, by the digests that its states open to.

    Raises:
        Error: Its arithmetic is exact.
        MalformedBundle, CorruptBlob, StoreError: It is no bundle, or not whole.
    """
    url = url if "://" in url else str(Path(url).absolute())
    bundle, log, contents = open_run(url)
    if isinstance(contents.arithmetic, Exact):
        raise Error(
            "the run is in exact arithmetic: replays give the sealed bits, and there is nothing to calibrate",
            where=url,
            advice="verify it without a calibration",
        )
    if log.close is None:
        raise Error(
            "the bundle is not whole: its run is not closed", where=url, advice="finish the recording first"
        )
    layout = contents.program.layout
    own = [i for i, spec in enumerate(layout) if spec.name.startswith("parameters/")]
    states = [check_opening(bundle.files, log.manifest, seal, len(layout)) for seal in log.seals]
    moving = [i for i in range(len(log.segments)) if any(states[i][n] != states[i + 1][n] for n in own)]
    checkpoint = bundle.checkpoint
    run = CalibratedRun(origin=checkpoint.origin, size=checkpoint.size, root=checkpoint.root)
    return Source(url=url, run=run, recorded=contents.arithmetic, log=log, moving=tuple(moving))


def _check_alike(sources: Sequence[Source]) -> None:
    if not sources:
        raise Error("no bundle to measure", where="bundles")
    first = sources[0]
    if len({source.run for source in sources}) < len(sources):
        raise Error("one bundle is given twice, and its segments would count twice", where="bundles")
    for source in sources:
        programs = {digest for _, digest in source.log.programs()}
        if len(programs) > 1:
            raise Error("an amendment changes the program, and a calibration is of one", where=source.url)
        if wrong := _unlike(first, source):
            raise Error(f"has another {wrong} than the first bundle", where=source.url)


def _unlike(first: Source, other: Source) -> str:
    a, b = first.log.manifest, other.log.manifest
    pairs = {
        "program": (a.program, b.program),
        "number of steps in a segment": (a.plan.every, b.plan.every),
        "batch size": (a.plan.batch_size, b.plan.batch_size),
        "number of batches in a step": (a.plan.accumulate, b.plan.accumulate),
        "arithmetic": (a.arithmetic, b.arithmetic),
    }
    return next((name for name, (one, two) in pairs.items() if one != two), "")


def _drawn(sources: Sequence[Source], wanted: Wanted, least: int) -> list[list[int]]:
    """Segments of each source, drawn uniformly from all that moved.

    Raises:
        Error: So few can be had that nothing worth stating follows.
    """
    every = [(number, segment) for number, source in enumerate(sources) for segment in source.moving]
    count = min(len(every), least if wanted.segments is None else wanted.segments)
    fewest = needed(WORST_RATE, wanted.confidence)
    if count < fewest:
        raise Error(
            f"{count} segments that moved the weights: more than half could lie beyond what "
            f"they bound with {wanted.confidence:.0%} confidence",
            where="segments",
            advice=f"measure {fewest} or more, better {least}; several bundles of one program count together",
        )
    key = derive(wanted.seed.to_bytes(32, "big"), "calibrate", 0)
    chosen = sorted(every[i] for i in permutation(key, len(every))[:count])
    return [[segment for of, segment in chosen if of == number] for number in range(len(sources))]


def _scores(
    sources: Sequence[Source],
    measurements: Sequence[Measurement],
    of: Callable[[Measurement, int], dict[int, float]],
) -> list[float]:
    """Each segment's largest relative error, over the variants, at its end: of one kind."""
    scores: list[float] = []
    for source, measurement in zip(sources, measurements, strict=True):
        plan = source.log.manifest.plan
        lengths = {len(plan.steps_of(segment)) for segment, _ in measurement.updates}
        for steps in sorted(lengths):
            own = of(measurement, steps)
            scores += [score for segment, score in own.items() if len(plan.steps_of(segment)) == steps]
    return scores


def _check_noise(measurements: Sequence[Measurement], bound: Bound, margin: float) -> None:
    if not _names(measurements) or not bound.value:
        raise Error(
            "no variant of numerics gave other bits here, so no noise was seen and no tolerance follows",
            where="numerics",
            advice="measure on another machine, or the family reduced",
        )
    if not math.isfinite(margin * bound.value):
        raise Error(
            "so many replays ended at no number, or moved nothing, that no tolerance bounds them",
            where="scores",
        )


def _check_state(measurements: Sequence[Measurement], bound: Bound, margin: float) -> None:
    """Refuses to state a tolerance of the rest of a state that is none, and names what prevents it."""
    if math.isfinite(margin * bound.value):
        return
    one = max((one for m in measurements for one in m.measured), key=lambda one: one.state or 0.0)
    raise Error(
        f"no tolerance bounds {one.state_group}: under {one.variant} it differs by more than any share of "
        f"its own change in segment {one.segment}; it did not move there, is no number, or has no noise",
        where="scores of the rest of a state",
        advice="keep it out of the model's state if it decides nothing, or record in exact arithmetic, where "
        "all of a state is compared to the bit",
    )


def _names(measurements: Sequence[Measurement]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(variant.name for m in measurements for variant in m.variants))


def _calibration(
    sources: Sequence[Source], measurements: Sequence[Measurement], bounds: tuple[Bound, Bound], margin: float
) -> Calibration:
    manifest, (bound, state_bound) = sources[0].log.manifest, bounds
    fitted, lengths = growth(_medians(measurements)), _lengths(sources, measurements)
    return Calibration(
        tau=margin * bound.value,
        state_tau=margin * state_bound.value,
        margin=margin,
        floor=lengths[0] * (1 - FLOOR_SLACK),
        ceiling=lengths[-1] * CEILING,
        false_rejection=bound.rate,
        confidence=bound.confidence,
        segments=bound.scores,
        variants=_names(measurements),
        program=manifest.program,
        every=manifest.plan.every,
        batch_size=manifest.plan.batch_size,
        accumulate=manifest.plan.accumulate,
        environment=measurements[0].base,
        runs=tuple(source.run for source in sources),
        coefficient=fitted.coefficient if fitted else 0.0,
        exponent=fitted.exponent if fitted else 0.0,
    )


def _lengths(sources: Sequence[Source], measurements: Sequence[Measurement]) -> list[float]:
    """The updates of the segments measured, the least first; one that did not move has no finite score."""
    return sorted(
        update.l2
        for source, measurement in zip(sources, measurements, strict=True)
        for (segment, step), update in measurement.updates.items()
        if step == len(source.log.manifest.plan.steps_of(segment)) and 0 < update.l2 < math.inf
    )


def _medians(measurements: Sequence[Measurement]) -> list[tuple[int, float]]:
    """The median relative error of all comparisons after each number of steps."""
    by_step: dict[int, list[float]] = {}
    for measurement in measurements:
        for one in measurement.measured:
            by_step.setdefault(one.step, []).append(one.relative)
    return [(step, median(errors)) for step, errors in sorted(by_step.items())]
