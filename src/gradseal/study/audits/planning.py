"""What an audit takes, what it proves, and what a prover can do against it.

The numbers of draws are those that a verification by the same policy makes (`verify.sampling`); the bounds
are those of `verify.statistics`. Costs are expected ones, of a run in which nothing is forged: a segment that
is drawn twice is replayed once. Next to the audit stand others that replay as many segments, each against the
prover's best response to it (`response`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gradseal.errors import Error
from gradseal.study.audits.audited import Audited, total_of
from gradseal.study.audits.mixes import of_cost, replayed_probabilities
from gradseal.study.audits.response import Array, Ground, Mix, Response, best_response
from gradseal.verify.policy import Policy
from gradseal.verify.sampling import Sample, draw_sample
from gradseal.verify.statistics import forged_bound, length_bound

SHARE_OF_PATH = 0.3
"""The displacement that a prover must cover where no bundle says one, as a share of the path: a guess, to be
replaced by what a run of one's own had (`gradseal plan BUNDLE`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What replaying costs; None for what is not known.

    Args:
        seconds: Of one step.
        money: Of one step, in whatever currency.
    """

    seconds: float | None = None
    money: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One kind of audit, against the prover's best response to it.

    Args:
        mix: What it replays, besides the first, the last and what is always replayed.
        segments: How many different ones, expected, all in all.
        as_they_are: The response of a prover whose true segments are as long as the run's; None if lengths or
            displacement are not known.
        inflated: Of one who may make them as long as he likes.
    """

    mix: Mix
    segments: float
    as_they_are: Response | None
    inflated: Response


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPlan:
    """An audit: what it takes and what it proves.

    Args:
        segments: How many the run has.
        certain: How many are replayed whatever the draw.
        longest: How many of the longest are demanded among these.
        population: How many are left to draw from.
        uniform: Draws without replacement.
        by_length: Draws in proportion to length; 0 where lengths are not known.
        expected_segments: Different segments that are replayed, expected.
        expected_steps: Steps that are replayed, expected, replays under another seed included.
        share: Of the steps that a replay of all takes.
        seconds: How long it takes, expected; None if not known.
        money: What it costs, expected; None if not known.
        confidence: Of both bounds together.
        bound_confidence: Of each.
        most_forged: At most so many of the population are forged, if none of those replayed is.
        most_length: At most this share of the population's length is; None for no statement.
        reach: The most that forged segments moved the parameters if both bounds hold, as a share of the
            displacement; None if that is not known.
        displacement: How far the prover must move the parameters, in the lengths' unit; None if unknown.
        answered: This audit and others of its cost, by name, against the best response to each.
    """

    segments: int
    certain: int
    longest: int
    population: int
    uniform: int
    by_length: int
    expected_segments: float
    expected_steps: float
    share: float
    seconds: float | None
    money: float | None
    confidence: float
    bound_confidence: float
    most_forged: int
    most_length: float | None
    reach: float | None
    displacement: float | None
    answered: Mapping[str, Answered]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def plan_audit(
    run: Audited, policy: Policy, *, displacement: float | None = None, price: Price | None = None
) -> AuditPlan:
    """Plans an audit.

    Args:
        run: What is audited.
        policy: What it demands: confidence, tolerated shares of segments and of length, how many of the
            longest are always replayed.
        displacement: How far a prover must move the parameters, as a share of the path; if None, as far as
            the run went from start to end, or `SHARE_OF_PATH` of a run that nobody recorded.
        price: Of a step.

    Raises:
        Error: A displacement is given and the path's length is not known.
    """
    sample = draw_sample(
        policy, run.segments, b"", b"", lengths=run.lengths.tolist(), always=run.always, last=run.last
    )
    way, price = _way(run, displacement), price or Price()
    found = _probabilities(run, sample)
    # Steps of a run on one machine differ in nothing but their number.
    steps, all_steps = float(found @ run.steps) * run.replays, float(run.steps.sum()) * run.replays
    most = forged_bound(sample.population, len(sample.uniform), policy.bound_confidence)
    share = length_bound(len(sample.weighted), policy.bound_confidence) if sample.weighted else None
    return AuditPlan(
        segments=run.segments,
        certain=len(sample.certain),
        longest=policy.longest,
        population=sample.population,
        uniform=len(sample.uniform),
        by_length=len(sample.weighted),
        expected_segments=float(found.sum()),
        expected_steps=steps,
        share=steps / all_steps,
        seconds=steps * price.seconds if price.seconds is not None else None,
        money=steps * price.money if price.money is not None else None,
        confidence=policy.confidence,
        bound_confidence=policy.bound_confidence,
        most_forged=most,
        most_length=share,
        reach=_reach(run, sample, most, share),
        displacement=way,
        answered=_answered(run, sample, way, float(found.sum())),
    )


def _way(run: Audited, displacement: float | None) -> float | None:
    if displacement is None and run.measured:
        return run.displacement
    share = SHARE_OF_PATH if displacement is None else displacement
    if run.path is None:
        raise Error(
            "the length of the path is not known, so no share of it is",
            where="displacement",
            advice="leave it out",
        )
    return share * run.path


def _probabilities(run: Audited, sample: Sample) -> Array:
    """For each segment, the probability that it is replayed."""
    found = np.ones(run.segments)
    rest = np.setdiff1d(np.arange(run.segments), np.array(sample.certain, dtype=np.int64))
    if len(rest):
        mix = Mix(uniform=len(sample.uniform), by_length=len(sample.weighted))
        # Where a length is not known nothing is drawn by it.
        lengths = run.lengths[rest] if sample.weighted else np.zeros(len(rest))
        found[rest] = replayed_probabilities(lengths, mix)
    return found


def _reach(run: Audited, sample: Sample, most: int, share: float | None) -> float | None:
    if not run.measured or run.displacement is None:
        return None
    rest = np.delete(run.lengths, np.array(sample.certain, dtype=np.int64))
    if not len(rest):
        return 0.0
    moved = most * float(rest.max())
    if share is not None and sample.length is not None:
        moved = min(moved, share * sample.length)
    return moved / run.displacement if math.isfinite(moved) else None


def _answered(run: Audited, sample: Sample, way: float | None, cost: float) -> dict[str, Answered]:
    """This audit, and as many segments of each kind; first, last and what else is certain count in all."""
    ends = {0, run.segments - 1, run.segments - 1 if run.last is None else run.last, *run.always}
    inner = np.delete(run.lengths, sorted(i for i in ends if i < run.segments))
    known = total_of(inner) is not None
    lengths = inner if known else np.ones(len(inner))
    own = run.segments - len(inner)
    chosen = Mix(
        longest=len(sample.certain) - own, uniform=len(sample.uniform), by_length=len(sample.weighted)
    )
    kinds = {"this plan": chosen, "uniform": of_cost(lengths, "uniform", cost - own)}
    if known:
        kinds |= {kind: of_cost(lengths, kind, cost - own) for kind in ("by length", "longest")}
    answered = {}
    for kind, mix in kinds.items():
        honest = best_response(Ground(lengths, way), mix) if known and way is not None else None
        answered[kind] = Answered(
            mix=mix,
            segments=own + float(replayed_probabilities(lengths, mix).sum()) if len(lengths) else float(own),
            as_they_are=honest,
            inflated=best_response(Ground(lengths, 1.0 if way is None else way, math.inf), mix),
        )
    return answered
