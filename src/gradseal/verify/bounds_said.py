"""What draws bound, in words: for claims of bits, and of replays within a tolerance."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradseal.verify.policy import Policy


def uniform_said(policy: Policy, drawn: int, population: int, most: int, which: str = "") -> str:
    """What segments drawn uniformly bound.

    Args:
        policy: Has the confidence.
        drawn: How many.
        population: Of how many.
        most: At most so many of these are forged.
        which: Which segments these are, besides others.
    """
    return f"{drawn} of {population} other segments {which}drawn uniformly: {_sure(policy)} {most} are forged"


def by_length_said(policy: Policy, drawn: Sequence[int], share: float, whose: str) -> str:
    """What draws by length bound, and how sure both this and the uniform ones' bound are.

    Args:
        policy: Has the confidence.
        drawn: The segments, in whatever order, one drawn twice twice.
        share: At most so much of a length is forged.
        whose: The length that it is a share of.
    """
    return (
        f"{len(drawn)} draws by length, of {len(set(drawn))} segments: {_sure(policy)} "
        f"{share_said(share)} of {whose} is forged; both hold with {100 * policy.confidence:.4g}%"
    )


def share_said(share: float) -> str:
    """A bound on a share, rounded up."""
    return f"{math.ceil(1000 * share) / 10:.1f}%"


def _sure(policy: Policy) -> str:
    return f"with {100 * policy.bound_confidence:.4g}% confidence at most"
