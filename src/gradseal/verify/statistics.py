"""What a sample of segments says about the rest.

Uniform draws without replacement: if m of N segments were forged, n draws miss all of them with probability
C(N - m, n) / C(N, n), the hypergeometric law at zero. Exact integers; no approximation.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil


def forged_bound(population: int, drawn: int, confidence: float) -> int:
    """The most segments that can be forged, at this confidence, when none of those drawn is.

    Args:
        population: How many segments draws are made from.
        drawn: How many were drawn, all of them true.
        confidence: Between 0 and 1, both excluded.
    """
    low, high = 0, population - drawn
    while low < high:
        middle = (low + high + 1) // 2
        if missed_probability(population, middle, drawn) > 1 - Fraction(confidence):
            low = middle
        else:
            high = middle - 1
    return low


def draws_needed(population: int, tolerated_fraction: float, confidence: float) -> int:
    """The fewest draws after which more than the tolerated fraction forged would have been seen.

    Args:
        population: How many segments draws are made from.
        tolerated_fraction: Of the population, between 0 and 1.
        confidence: Between 0 and 1, both excluded.
    """
    if population == 0:
        return 0
    forged = min(population, max(1, ceil(Fraction(tolerated_fraction) * population)))
    # One draw after another: few are needed, while a probability of many draws is a fraction of huge numbers.
    drawn, missed = 0, Fraction(1)
    while missed > 1 - Fraction(confidence):
        missed *= Fraction(population - forged - drawn, population - drawn)
        drawn += 1
    return drawn


def missed_probability(population: int, forged: int, drawn: int) -> Fraction:
    """The probability that `drawn` of `population` segments hold none of the `forged`."""
    if forged + drawn > population:
        return Fraction(0)
    few, many = sorted((forged, drawn))
    probability = Fraction(1)
    for i in range(few):
        probability *= Fraction(population - many - i, population - i)
    return probability
