"""What a sample of replays' errors says of the next one: a bound, and how the error grows with the steps.

The bound supposes nothing of how errors are distributed, only that the segments measured and those judged
are drawn alike. Source: Wilks, "Determination of Sample Sizes for Setting Tolerance Limits", 1941; exact, by
the binomial law. Growth is a power law, fitted on logarithms by the median of all slopes: Theil, "A
Rank-Invariant Method of Linear and Polynomial Regression Analysis", 1950; Sen, "Estimates of the Regression
Coefficient Based on Kendall's Tau", 1968.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from gradseal.errors import Error


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A one-sided tolerance bound.

    Args:
        value: The bound: one of the scores.
        rank: Which of them, counted from the smallest, from 1.
        scores: Of how many.
        rate: The share of the distribution that lies beyond is at most this, with the confidence: what the
            rank attains. At most what was asked for, unless there were too few scores; then the value is the
            largest of them.
        confidence: See above.
    """

    value: float
    rank: int
    scores: int
    rate: float
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """An error after j steps of about `coefficient` · j ** `exponent`."""

    coefficient: float
    exponent: float


def tolerance_bound(scores: Sequence[float], false_rejection: float, confidence: float) -> Bound:
    """The smallest score that a share 1 − `false_rejection` of the distribution keeps to, with a confidence.

    Of n scores the r-th smallest covers a share 1 − p with at least the probability that fewer than r of n
    lie within that share: the binomial law's. For the largest that is 1 − (1 − p)ⁿ.

    Args:
        scores: Independent draws of one distribution. One that is no number counts as infinite.
        false_rejection: p, between 0 and 1, both excluded.
        confidence: Likewise.

    Raises:
        Error: No scores, or a number out of range.
    """
    _check(false_rejection, confidence)
    if not len(scores):
        raise Error("no scores, so nothing bounds the next one", where="scores")
    ordered = sorted(math.inf if math.isnan(score) else float(score) for score in scores)
    n = len(ordered)
    ranks = np.arange(1, n + 1)
    enough = np.flatnonzero(stats.binom.cdf(ranks - 1, n, 1 - false_rejection) >= confidence)
    rank = int(ranks[enough[0]]) if len(enough) else n
    return Bound(
        value=ordered[rank - 1],
        rank=rank,
        scores=n,
        rate=attained_rate(rank, n, confidence),
        confidence=confidence,
    )


def attained_rate(rank: int, scores: int, confidence: float) -> float:
    """The least p of which the `rank`-th smallest of so many scores is a bound, with this confidence.

    The share that lies below that score has the beta law of `rank` and `scores` − `rank` + 1; of the largest,
    this is 1 − (1 − c) ** (1 / n).
    """
    if rank == scores:
        return -math.expm1(math.log1p(-confidence) / scores)
    return float(1 - stats.beta.ppf(1 - confidence, rank, scores - rank + 1))


def needed(false_rejection: float, confidence: float) -> int:
    """The fewest scores whose largest is such a bound: 59 for 0.05 and 0.95.

    Raises:
        Error: A number is out of range.
    """
    _check(false_rejection, confidence)
    n = max(1, math.floor(math.log1p(-confidence) / math.log1p(-false_rejection)) - 1)
    while -math.expm1(n * math.log1p(-false_rejection)) < confidence:
        n += 1
    return n


def growth(points: Sequence[tuple[int, float]]) -> Growth | None:
    """The power law through points of (steps, error); None where they are of fewer than two numbers of steps.

    Args:
        points: Those whose error is 0, or no finite number, are left out, since they have no logarithm.
    """
    kept = [(j, error) for j, error in points if j > 0 and 0 < error < math.inf]
    if len({j for j, _ in kept}) < 2:
        return None
    x, y = (np.log([point[i] for point in kept]) for i in (0, 1))
    slope, intercept = stats.theilslopes(y, x)[:2]
    return Growth(coefficient=math.exp(intercept), exponent=float(slope))


def _check(false_rejection: float, confidence: float) -> None:
    for name, value in (("false rejection", false_rejection), ("confidence", confidence)):
        if not 0 < value < 1:
            raise Error(f"{value:g} is not between 0 and 1", where=name)
