"""Confidence intervals of a rate."""

from __future__ import annotations

from scipy.stats import binomtest


def proportion_bounds(hits: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of a rate.

    Args:
        hits: How often it happened.
        of: In how many independent trials.
        confidence: Of the interval.

    Returns:
        Its ends; 0 and 1 without a trial. Source: C. Clopper and E. Pearson, "The Use of Confidence or
        Fiducial Limits Illustrated in the Case of the Binomial", 1934.
    """
    if not of:
        return 0.0, 1.0
    interval = binomtest(hits, of).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)
