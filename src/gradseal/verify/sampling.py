"""Which segments are replayed: always the first and the last, and others by the verifier's own randomness.

The draw is made after the verifier has fixed the checkpoint, and is bound to it; a retry uses the same draw,
so that an owner gains nothing from making a verification fail.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from gradseal.verify.policy import Policy, Replay
from gradseal.verify.statistics import draws_needed


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The segments to replay.

    Args:
        certain: Replayed whatever the draw.
        uniform: Drawn uniformly, without replacement, from the others.
        population: How many others there are.
    """

    certain: tuple[int, ...]
    uniform: tuple[int, ...]
    population: int

    @property
    def segments(self) -> list[int]:
        """All of them, in order."""
        return sorted((*self.certain, *self.uniform))


def draw_sample(policy: Policy, segments: int, draw: bytes, root: bytes) -> Sample:
    """The segments that a policy replays.

    Args:
        policy: Says how many.
        segments: How many the bundle has.
        draw: The verifier's randomness.
        root: The root of the checkpoint that is verified.
    """
    if policy.replay is Replay.ALL:
        return Sample(certain=tuple(range(segments)), uniform=(), population=0)
    certain = tuple(sorted({0, segments - 1})) if segments else ()
    others = [i for i in range(segments) if i not in certain]
    wanted = 0
    if policy.replay is Replay.SAMPLE:
        wanted = draws_needed(len(others), policy.tolerated_fraction, policy.confidence)
    ranked = sorted(others, key=lambda i: hashlib.sha256(draw + root + i.to_bytes(8, "big")).digest())
    return Sample(certain=certain, uniform=tuple(sorted(ranked[:wanted])), population=len(others))
