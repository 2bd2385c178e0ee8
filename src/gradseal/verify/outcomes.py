"""What a worker is asked, and what it answers. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from gradseal.verify.distances import Distances


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
        seed_floor: The share of its update that a tensor must end away then, to depend on the seed.
    """

    segment: int
    start: bytes
    end: bytes
    losses: bytes
    other_seed: bytes = b""
    seed_floor: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentResult:
    """How a replay went.

    Args:
        segment: The segment's number.
        equal: Whether every tensor and loss has the sealed bits.
        differing: Names of tensors that have not, and of losses, at most a few.
        error: The distances between replayed and sealed parameters.
        update: Those between the sealed parameters before and after; zeros if `equal`, where neither is
            measured.
        state: The largest error of a group of the rest of the state, relative to the group's sealed change;
            see `state_error`. Infinite where nothing bounds it.
        state_group: The group that has it; empty if `state` is 0.
        moved: Which of the model's tensors moved, by their places in the layout; and below, which of these
            ended under the other seed within the floor of where they ended with the segment's own.
        independent: See above.
        dependence: The least share of its update that a moved tensor ended away under the other seed; None if
            there was none.
        least_dependent: That tensor's name.
        seconds: How long the replay took, by the worker's clock; None if it did not say.
    """

    segment: int
    equal: bool
    differing: tuple[str, ...] = ()
    error: Distances = field(default_factory=Distances)
    update: Distances = field(default_factory=Distances)
    state: float = 0.0
    state_group: str = ""
    moved: tuple[int, ...] = ()
    independent: tuple[int, ...] = ()
    dependence: float | None = None
    least_dependent: str = ""
    seconds: float | None = None
