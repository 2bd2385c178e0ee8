"""How far two sets of weights are apart, in the four ways of the classical protocol.

The l1, l2 and l∞ norms of the difference of all weights in one vector, and 1 − cos of the angle between the
two vectors: as in Jia et al., "Proof-of-Learning: Definitions and Practice", 2021. Knows no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Distance(StrEnum):
    """One of the four."""

    L1 = "l1"
    L2 = "l2"
    LINF = "linf"
    COSINE = "cosine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Distances:
    """All four of one pair; NaN or infinite where the weights are, or are too large."""

    l1: float = 0.0
    l2: float = 0.0
    linf: float = 0.0
    cosine: float = 0.0

    def by(self, distance: Distance) -> float:
        """One of them."""
        value: float = getattr(self, distance.value)
        return value


def cosine(square: float, first: float, second: float) -> float:
    """1 − cos, without the loss of digits that subtracting from 1 brings.

    Args:
        square: The squared l2 norm of the difference.
        first: That of one vector.
        second: That of the other.

    Returns:
        From 0 to 2; for a vector of zeros 0 to another, and 1 to anything else.
    """
    if not first or not second:
        return 0.0 if first == second else 1.0
    first, second = math.sqrt(first), math.sqrt(second)
    apart = (square - (first - second) ** 2) / (2 * first * second)
    return apart if apart > 0 or math.isnan(apart) else 0.0
