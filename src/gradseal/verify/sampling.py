"""Which segments are replayed: always the first and the last, and others by the verifier's own randomness.

By a classical policy it is the largest updates of each epoch, or as many segments drawn uniformly. The draw
is made after the verifier has fixed the checkpoint, and is bound to it; a retry uses the same draw, so that
an owner gains nothing from making a verification fail.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from gradseal.proof.manifest import Manifest
from gradseal.verify.classical import Classical, Selection
from gradseal.verify.policy import Policy, Replay
from gradseal.verify.statistics import draws_needed


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The segments to replay.

    Args:
        certain: Replayed whatever the draw.
        uniform: Drawn uniformly, without replacement, from the others.
        population: How many others there are.
        diverted: Those that are replayed under another seed too.
        other_seed: That seed.
    """

    certain: tuple[int, ...]
    uniform: tuple[int, ...]
    population: int
    diverted: frozenset[int] = frozenset()
    other_seed: bytes = b""

    @property
    def segments(self) -> list[int]:
        """All of them, in order."""
        return sorted((*self.certain, *self.uniform))


def draw_sample(
    policy: Policy,
    segments: int,
    draw: bytes,
    root: bytes,
    *,
    always: Iterable[int] = (),
    slots: bool = False,
    last: int | None = None,
) -> Sample:
    """The segments that a policy replays.

    Args:
        policy: Says how many.
        segments: How many the bundle has.
        draw: The verifier's randomness.
        root: The root of the checkpoint that is verified.
        always: Segments that are replayed whatever the draw, besides the first and the last.
        slots: Whether seeds are a beacon's, so that it says something of time when a result depends on them.
        last: The last segment that moved the weights, which counts among the last ones.
    """
    ends = {0, segments - 1, segments - 1 if last is None else last} if segments else set()
    certain = set(range(segments))
    if policy.replay is not Replay.ALL:
        certain = ends | {i for i in always if i < segments}
    ranked, wanted = _drawn(policy, set(range(segments)) - certain, draw + root)
    if policy.replay is Replay.ENDS:
        wanted = 0
    sample = Sample(
        certain=tuple(sorted(certain)), uniform=tuple(sorted(ranked[:wanted])), population=len(ranked)
    )
    if not slots:
        return sample
    diverted = set(sample.segments)
    if policy.dependence is not Replay.ALL:
        others, some = _drawn(policy, diverted - ends, b"dependence" + draw + root)
        diverted = ends | set(others[:some] if policy.dependence is Replay.SAMPLE else ())
    other_seed = hashlib.sha256(b"other seed" + draw + root).digest()
    return replace(sample, diverted=frozenset(diverted), other_seed=other_seed)


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


def _drawn(policy: Policy, others: set[int], key: bytes) -> tuple[list[int], int]:
    """These segments in a random order, and how many of them the policy's confidence needs."""
    ranked = _shuffled(others, key)
    return ranked, draws_needed(len(ranked), policy.tolerated_fraction, policy.confidence)


def _shuffled(segments: Iterable[int], key: bytes) -> list[int]:
    return sorted(segments, key=lambda i: hashlib.sha256(key + i.to_bytes(8, "big")).digest())
