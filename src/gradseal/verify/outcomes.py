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
    """

    segment: int
    start: bytes
    end: bytes
    losses: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentResult:
    """How a replay went.

    Args:
        segment: The segment's number.
        equal: Whether every tensor and loss has the sealed bits.
        differing: Names of tensors that have not, and of losses, at most a few.
        error: Euclidean distance between replayed and sealed parameters.
        update: Euclidean length of the sealed update of the parameters.
        seconds: How long the replay took, by the worker's clock; None if it did not say.
    """

    segment: int
    equal: bool
    differing: tuple[str, ...] = ()
    error: float = 0.0
    update: float = 0.0
    seconds: float | None = None
