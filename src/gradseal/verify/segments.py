"""What is known of a run's segments one by one, for a report: losses, lengths of updates, cost of replays.

Bounded whatever the run: at most `MAX_ROWS` segments are told, the first, the last and those that did not
replay among them, and at most `losses.MAX_POINTS` points of the losses. Gathered by `account`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

MAX_ROWS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRow:
    """One segment.

    Args:
        number: From 0.
        first_step: The number of its first step.
        steps: How many it has.
        first_loss: The stated loss of its first step; None, here and below, for what is unknown or no number.
        last_loss: That of its last step.
        mean_loss: The mean of all of its steps'.
        update: ‖W_end − W_start‖ over the parameters, out of the sealed states.
        replayed: Whether it was replayed.
        equal: Whether the replay gave the sealed bits; None if it was not replayed.
        error: How far the replay ended from the sealed parameters, by the l2 norm.
        standing: By a tolerance: equal, within, no evidence, or beyond; empty where only bits count.
        seconds: How long the replay took.
    """

    number: int
    first_step: int
    steps: int
    first_loss: float | None = None
    last_loss: float | None = None
    mean_loss: float | None = None
    update: float | None = None
    replayed: bool = False
    equal: bool | None = None
    error: float | None = None
    standing: str = ""
    seconds: float | None = None

    @property
    def passed(self) -> bool | None:
        """Whether the replay passed; None if there was none, or if it is no evidence."""
        if self.equal is None or self.standing == "no evidence":
            return None
        return self.equal or self.standing == "within"


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """The stated losses as a curve.

    Args:
        steps_per_point: How many steps a point stands for, but for the last.
        mean: The mean loss of each point; None where it is not known or no number.
        low: The lowest.
        high: The highest.
    """

    steps_per_point: int = 1
    mean: tuple[float | None, ...] = ()
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """The segments of a run.

    Args:
        count: How many are sealed.
        replayed: How many were replayed.
        rows: Those told, in order: all of them, or `MAX_ROWS` at most.
        unequal_after: For each row, how many segments before the next row replayed to other bits, beyond a
            tolerance if there is one, and are not told; empty if there is none at all.
        losses: The curve of losses.
        path_length: The sum of the updates' lengths.
        distance: ‖W_T − W_0‖.
    """

    count: int = 0
    replayed: int = 0
    rows: tuple[SegmentRow, ...] = ()
    unequal_after: tuple[int, ...] = ()
    losses: Losses = Losses()
    path_length: float | None = None
    distance: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Its JSON form, with null for what is not known or no number that JSON has."""
        curve: dict[str, Any] = {"steps_per_point": self.losses.steps_per_point, "mean": self.losses.mean}
        if self.losses.steps_per_point > 1:
            curve |= {"low": self.losses.low, "high": self.losses.high}
        return {
            "count": self.count,
            "told": len(self.rows),
            "path_length": self.path_length,
            "distance": self.distance,
            "losses": {name: list(v) if isinstance(v, tuple) else v for name, v in curve.items()},
            "rows": [asdict(row) for row in self.rows],
        }
