"""What a worker is asked, and what it answers. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One segment to replay.

    Args:
        segment: Its number.
        start: The seal of the state before it.
        end: The seal of the state after it.
        losses: The digest of its losses.
        other_seed: A seed to replay it under once more, to see that its result depends on the seed; empty for
            none.
    """

    segment: int
    start: bytes
    end: bytes
    losses: bytes
    other_seed: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentResult:
    """How a replay went.

    Args:
        segment: The segment's number.
        equal: Whether every tensor and loss has the sealed bits.
        differing: Names of tensors that have not, and of losses, at most a few.
        error: Euclidean distance between replayed and sealed parameters.
        update: Euclidean length of the sealed update of the parameters.
        dependence: How far a replay under another seed ends from the sealed parameters, as a share of the
            update's length, tensor by tensor: what the least dependent one that counts reaches; None if there
            was none.
        least_dependent: The name of the parameter for which it is that.
        seconds: How long the replay took, by the worker's clock; None if it did not say.
    """

    segment: int
    equal: bool
    differing: tuple[str, ...] = ()
    error: float = 0.0
    update: float = 0.0
    dependence: float | None = None
    least_dependent: str = ""
    seconds: float | None = None
