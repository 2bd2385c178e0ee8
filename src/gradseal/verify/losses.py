"""The losses that a bundle states, as a curve of few points and a summary for each segment.

They are the owner's words until their segment is replayed. A long run is thinned: each point then stands for
as many steps as it takes, by their mean, lowest and highest loss.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

import numpy as np

MAX_POINTS = 2000
REPEATED_LOSSES = 1 << 20
"""How many losses are read again: one blob may be named by a million segments."""


class LossCurve:
    """Takes the losses of one segment after another.

    Args:
        steps: How many steps all of them have.
        most: How many points there may be.
    """

    def __init__(self, steps: int, most: int = MAX_POINTS) -> None:
        self.steps = steps
        self.steps_per_point = max(1, -(-steps // most))
        points = -(-steps // self.steps_per_point)
        self._sum, self._count = np.zeros(points), np.zeros(points, dtype=np.int64)
        self._low, self._high = np.full(points, np.inf), np.full(points, -np.inf)
        self._left = REPEATED_LOSSES
        self.first, self.last, self.mean = array("d"), array("d"), array("d")
        """Of each segment so far; NaN where it is not known."""

    def affords(self, steps: int) -> bool:
        """Whether losses that were read before are to be read again; counts them."""
        self._left -= steps
        return self._left >= 0

    def add(self, first_step: int, losses: Sequence[float]) -> None:
        """Takes the losses of the next segment, at least one."""
        values = np.asarray(losses, dtype=np.float64)
        points = np.arange(first_step, first_step + len(values)) // self.steps_per_point
        with np.errstate(all="ignore"):  # a loss may be of any size, or no number
            np.add.at(self._sum, points, values)
            np.add.at(self._count, points, 1)
            np.minimum.at(self._low, points, values)
            np.maximum.at(self._high, points, values)
            self.mean.append(float(values.mean()))
        self.first.append(losses[0])
        self.last.append(losses[-1])

    def skip(self) -> None:
        """The losses of the next segment are not known."""
        for known in (self.first, self.last, self.mean):
            known.append(math.nan)

    def points(self) -> tuple[list[float], list[float], list[float]]:
        """The mean, the lowest and the highest loss of each point; NaN where none is known."""
        with np.errstate(all="ignore"):
            mean = np.where(self._count > 0, self._sum / self._count, np.nan)
        known = self._count > 0
        low, high = (np.where(known, bound, np.nan) for bound in (self._low, self._high))
        return mean.tolist(), low.tolist(), high.tolist()
