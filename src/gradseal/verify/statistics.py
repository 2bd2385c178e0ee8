"""What a sample of segments says about the rest, if all that were drawn are true.

Proofs: docs/theory/sampling.md, whose propositions are named here. The probability is over the verifier's
draw alone, for any set of forged segments that was fixed before it.

- Uniform draws without replacement (S1): if m of N segments were forged, n draws miss all of them with
  probability C(N - m, n) / C(N, n), the hypergeometric law at zero. Exact integers; no approximation.
- Independent draws in proportion to length (S2): if a share f of the length was forged, n draws miss it with
  probability (1 - f)^n, however it is cut, so at confidence 1 - a no more than 1 - a^(1/n) was.
- Both together (S4): each bound has a part of the error, and the draws of both miss with the product.

What is replayed for certain needs no statistics. Nothing is said here of lengths that are not known.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, expm1, floor, isfinite, log, log1p, log10, perm


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
    allowed = 1 - Fraction(confidence)

    def enough(drawn: int) -> bool:
        return missed_probability(population, forged, drawn) <= allowed

    high, most = 1, population - forged + 1
    while high < most and not enough(high):  # many draws from many segments are long numbers: few at first
        high *= 2
    low, high = high // 2, min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def missed_probability(population: int, forged: int, drawn: int) -> Fraction:
    """The probability that `drawn` of `population` segments hold none of the `forged`."""
    if forged + drawn > population:
        return Fraction(0)
    few, many = sorted((forged, drawn))
    return Fraction(perm(population - many, few), perm(population, few))


def split_confidence(confidence: float, bounds: int) -> float:
    """The confidence of each of several bounds that hold together at `confidence`: the error, divided.

    Args:
        confidence: Of all together, between 0 and 1.
        bounds: How many.
    """
    return 1 - (1 - confidence) / bounds


def rounded_up(value: float, digits: int = 2) -> float:
    """The value to so many digits, never less than it is: for what is *at most* so much.

    Args:
        value: Not below 0.
        digits: How many.
    """
    if not value or not isfinite(value):
        return value
    unit = 10.0 ** (floor(log10(value)) - digits + 1)
    return ceil(value / unit * (1 - 1e-12)) * unit


def length_bound(drawn: int, confidence: float) -> float:
    """The largest share of the length that can be forged, when nothing is that was drawn by length.

    Args:
        drawn: How many draws were made, with replacement, each of a segment in proportion to its length.
        confidence: Between 0 and 1, both excluded.
    """
    return -expm1(log(1 - confidence) / drawn) if drawn else 1.0


def length_draws_needed(tolerated_length: float, confidence: float) -> int:
    """The fewest draws by length after which a larger forged share than this would have been seen.

    Args:
        tolerated_length: Of the length, above 0. All of it, 1, takes no draw.
        confidence: Between 0 and 1, both excluded.

    Raises:
        ValueError: The share is not above 0, which no number of draws rules out.
    """
    if not tolerated_length > 0:
        raise ValueError("no number of draws excludes every forged length")
    if tolerated_length >= 1:
        return 0
    drawn = max(1, ceil(log(1 - confidence) / log1p(-tolerated_length)) - 1)
    while length_bound(drawn, confidence) > tolerated_length:
        drawn += 1
    return drawn


def length_missed_probability(share: float, drawn: int) -> float:
    """The probability that so many draws by length all miss what is forged, a share of the length."""
    return max(0.0, 1 - share) ** drawn


def detection_probability(
    population: int, forged: int, share: float, *, uniform: int = 0, by_length: int = 0, certain: bool = False
) -> float:
    """The probability that at least one forged segment is drawn, by either kind of draw.

    Args:
        population: How many segments draws are made from.
        forged: How many of them are forged.
        share: The forged ones' share of their length.
        uniform: Draws without replacement.
        by_length: Draws in proportion to length, with replacement, independent of the others.
        certain: Whether a forged segment is among those replayed whatever the draw, such as the longest.
    """
    if certain:
        return 1.0
    missed = float(missed_probability(population, forged, uniform))
    return 1 - missed * length_missed_probability(share, by_length)
