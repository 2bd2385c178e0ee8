"""Which segments are replayed: always the ends and the longest, and others by the verifier's own randomness.

Of the rest, some are drawn uniformly, and some in proportion to the length of their update, independently; a
segment that is drawn twice is replayed once. A length that is not known counts as the longest, and where the
rest has one, nothing is drawn by length. Where not every segment counts as evidence, as many are drawn of
those that do. By a classical policy it is the largest updates of each epoch, or as
many segments drawn uniformly. The draw is made after the verifier has fixed the checkpoint, and is bound to
it; a retry uses the same draw, so that an owner gains nothing from making a verification fail.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from heapq import nsmallest
from itertools import accumulate

from gradseal.proof.manifest import Manifest
from gradseal.verify.classical import Classical, Selection
from gradseal.verify.policy import Policy, Replay
from gradseal.verify.statistics import draws_needed, length_draws_needed

_LENGTH_BITS = 62
"""A length counts in units of the longest one's 2^-62: of N segments, a share of N 2^-62 is lost at most."""

MOST_LENGTH_DRAWS = 1 << 16
"""A policy whose tolerated share of the length takes more draws replays all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The segments to replay.

    Args:
        certain: Replayed whatever the draw.
        uniform: Drawn uniformly, without replacement, from the others.
        population: How many others there are: the rest.
        weighted: Drawn from the rest in proportion to length, with replacement, in the order of the draws.
        also_uniform: Drawn uniformly from those of the rest that count, where too few of `uniform` do.
        also_weighted: Drawn by length from those of the rest that count, where too few of `weighted` do.
        length: The length of the rest; None if it is not known, or not asked for.
        diverted: Those that are replayed under another seed too.
        other_seed: That seed.
    """

    certain: tuple[int, ...]
    uniform: tuple[int, ...]
    population: int
    weighted: tuple[int, ...] = ()
    also_uniform: tuple[int, ...] = ()
    also_weighted: tuple[int, ...] = ()
    length: float | None = None
    diverted: frozenset[int] = frozenset()
    other_seed: bytes = b""

    @property
    def segments(self) -> list[int]:
        """All of them, each once, in order."""
        drawn = (*self.uniform, *self.weighted, *self.also_uniform, *self.also_weighted)
        return sorted({*self.certain, *drawn})


def draw_sample(
    policy: Policy,
    segments: int,
    draw: bytes,
    root: bytes,
    *,
    lengths: Sequence[float] = (),
    always: Iterable[int] = (),
    counting: Container[int] | None = None,
    slots: bool = False,
    last: int | None = None,
) -> Sample:
    """The segments that a policy replays.

    Args:
        policy: Says how many.
        segments: How many the bundle has.
        draw: The verifier's randomness.
        root: The root of the checkpoint that is verified.
        lengths: How far each segment moved the parameters; what is missing, or no number, is not known.
        always: Segments that are replayed whatever the draw, besides the first, the last and the longest.
        counting: Segments that count as evidence, known before the draw: of these as many are drawn as the
            policy's confidence needs of them alone. By default all count.
        slots: Whether seeds are a beacon's, so that it says something of time when a result depends on them.
        last: The last segment that moved the weights, which counts among the last ones.
    """
    known = [*lengths[:segments], *(math.nan for _ in range(segments - len(lengths)))]
    ends = {0, segments - 1, segments - 1 if last is None else last} if segments else set()
    certain = ends | {i for i in always if i < segments}
    if policy.replay is Replay.ALL:
        certain = set(range(segments))
    elif policy.replay is Replay.SAMPLE:
        certain |= set(nsmallest(policy.longest, range(segments), key=_largest_first(known)))
    sample = _sampled(policy, certain, known, draw + root, counting)
    if not slots:
        return sample
    diverted = set(sample.segments)
    if policy.dependence is not Replay.ALL:
        # Not of those drawn by length: what others show of the rest would be of the long ones.
        others, some = _drawn(policy, {*sample.certain, *sample.uniform} - ends, b"dependence" + draw + root)
        diverted = ends | set(others[:some] if policy.dependence is Replay.SAMPLE else ())
    other_seed = hashlib.sha256(b"other seed" + draw + root).digest()
    return replace(sample, diverted=frozenset(diverted), other_seed=other_seed)


def _sampled(
    policy: Policy, certain: set[int], lengths: Sequence[float], key: bytes, counting: Container[int] | None
) -> Sample:
    """The certain segments, and what is drawn of the rest."""
    rest = sorted(set(range(len(lengths))) - certain)
    by_length = _length_draws(policy)
    if by_length is None:
        return Sample(certain=tuple(range(len(lengths))), uniform=(), population=0)
    ranked, wanted = _drawn(policy, rest, key)
    if policy.replay is Replay.ENDS:
        wanted = 0
    sample = Sample(
        certain=tuple(sorted(certain)), uniform=tuple(sorted(ranked[:wanted])), population=len(rest)
    )
    if by_length and not all(math.isfinite(lengths[i]) for i in rest):
        # Whoever hides lengths has as many segments replayed, and no claim by length.
        sample = replace(sample, uniform=tuple(sorted(ranked[: wanted + by_length])))
    elif by_length:
        weighted = draw_by_length([lengths[i] for i in rest], by_length, key)
        length = _sum([lengths[i] for i in rest])
        sample = replace(sample, weighted=tuple(rest[place] for place in weighted), length=length)
    if counting is None or not wanted:
        return sample
    return _topped_up(sample, policy, [i for i in ranked if i in counting], lengths, key)


def _topped_up(
    sample: Sample, policy: Policy, counting: Sequence[int], lengths: Sequence[float], key: bytes
) -> Sample:
    """As many draws of segments that count as of all, if only these were there.

    Those that count among `uniform` are the first few of their order, and the next are added; those among
    `weighted` are independent draws by length of them, and so are the ones that are added.
    Source: docs/theory/sampling.md, S4 (e).

    Args:
        sample: Drawn from all.
        policy: Says how many are needed.
        counting: Those of the rest that count, in the uniform order of the draw.
        lengths: Of all segments.
        key: All that decides the draw.
    """
    wanted = draws_needed(len(counting), policy.tolerated_fraction, policy.bound_confidence)
    also = set(counting[:wanted]) - set(sample.uniform)
    own, among = sorted(counting), set(counting)
    missing = sum(i not in among for i in sample.weighted)
    # Under a key of their own: the first draws again would add nothing.
    places = draw_by_length([lengths[i] for i in own], missing, b"also" + key) if missing else []
    return replace(
        sample, also_uniform=tuple(sorted(also)), also_weighted=tuple(own[place] for place in places)
    )


def _length_draws(policy: Policy) -> int | None:
    """How many draws by length the policy makes; None if so many that it replays all instead."""
    if policy.replay is not Replay.SAMPLE or policy.tolerated_length is None:
        return 0
    at_least = -math.log(1 - policy.bound_confidence) * (1 / max(policy.tolerated_length, 1e-300) - 1)
    if not policy.tolerated_length > 0 or at_least > MOST_LENGTH_DRAWS:
        return None
    needed = length_draws_needed(policy.tolerated_length, policy.bound_confidence)
    return needed if needed <= MOST_LENGTH_DRAWS else None


def draw_by_length(lengths: Sequence[float], draws: int, key: bytes) -> list[int]:
    """Draws in proportion to length, with replacement: the places drawn, in order.

    Args:
        lengths: Of each segment, all finite and none negative.
        draws: How many.
        key: All that decides them.

    Returns:
        Nothing, if all lengths are zero. A length below 2^-62 of the longest one is never drawn.
    """
    longest = max(lengths, default=0.0)
    if not longest > 0:
        return []
    ends = list(accumulate(int(math.ldexp(length / longest, _LENGTH_BITS)) for length in lengths))
    return [
        bisect_right(ends, _uniform(b"by length" + key + i.to_bytes(8, "big"), ends[-1]))
        for i in range(draws)
    ]


def _uniform(key: bytes, below: int) -> int:
    """A whole number from 0, uniform but for one part in 2^256 / below."""
    return int.from_bytes(hashlib.sha256(key).digest(), "big") * below >> 256


def _sum(lengths: Sequence[float]) -> float:
    try:
        return math.fsum(lengths)
    except OverflowError:  # of finite lengths, but only in float64
        return math.inf


def draw_classical(
    classical: Classical, manifest: Manifest, updates: Sequence[float], draw: bytes, root: bytes
) -> Sample:
    """The segments that a classical policy replays; no others are, the ends included.

    Args:
        classical: Says how many, and how they are chosen.
        manifest: Has the plan, which says in which epoch each segment begins.
        updates: For each segment, how far it moved the parameters; one that is no number counts as the
            largest, and of equals the first.
        draw: The verifier's randomness.
        root: The root of the checkpoint that is verified.
    """
    segments = range(len(updates))
    if classical.top <= 0:
        return Sample(certain=tuple(segments), uniform=(), population=0)
    epochs: dict[int, list[int]] = {}
    for i in segments:
        epochs.setdefault(manifest.plan.steps_of(i).start // steps_per_epoch(manifest), []).append(i)
    first = _largest_first(updates)
    largest = [i for own in epochs.values() for i in sorted(own, key=first)[: classical.top]]
    if classical.selection is Selection.TOP:
        others = len(segments) - len(largest)
        return Sample(certain=tuple(sorted(largest)), uniform=(), population=others)
    drawn = _shuffled(segments, b"classical" + draw + root)[: len(largest)]
    return Sample(certain=(), uniform=tuple(sorted(drawn)), population=len(segments))


def steps_per_epoch(manifest: Manifest) -> int:
    """How many steps an epoch's batches make, the last step perhaps with some of the next epoch's too."""
    plan = manifest.plan
    full, rest = divmod(manifest.data.samples, plan.batch_size)
    batches = full if plan.drop_last or not rest else full + 1
    return max(1, -(-batches // plan.accumulate))


def _largest_first(updates: Sequence[float]) -> Callable[[int], tuple[float, int]]:
    return lambda i: (-updates[i] if math.isfinite(updates[i]) else -math.inf, i)


def _drawn(policy: Policy, others: Iterable[int], key: bytes) -> tuple[list[int], int]:
    """These segments in a random order, and how many of them the policy's confidence needs."""
    ranked = _shuffled(others, key)
    return ranked, draws_needed(len(ranked), policy.tolerated_fraction, policy.bound_confidence)


def _shuffled(segments: Iterable[int], key: bytes) -> list[int]:
    return sorted(segments, key=lambda i: hashlib.sha256(key + i.to_bytes(8, "big")).digest())
