"""Which segments are replayed: always the first and the last, and others by the verifier's own randomness.

The draw is made after the verifier has fixed the checkpoint, and is bound to it; a retry uses the same draw,
so that an owner gains nothing from making a verification fail.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

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


def _drawn(policy: Policy, others: set[int], key: bytes) -> tuple[list[int], int]:
    """These segments in a random order, and how many of them the policy's confidence needs."""
    ranked = sorted(others, key=lambda i: hashlib.sha256(key + i.to_bytes(8, "big")).digest())
    return ranked, draws_needed(len(ranked), policy.tolerated_fraction, policy.confidence)
