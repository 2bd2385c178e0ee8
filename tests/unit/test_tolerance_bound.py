"""Tolerance bounds against sums of the binomial law by hand, and the fit of growth."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from gradseal.errors import Error
from gradseal.study.tolerance_bound import attained_rate, growth, needed, tolerance_bound


def covered(n: int, rank: int, p: Fraction) -> Fraction:
    """The probability that fewer than `rank` of n lie below the quantile 1 - p: then the score covers it."""
    q = 1 - p
    return sum((math.comb(n, i) * q**i * p ** (n - i) for i in range(rank)), Fraction(0))


@pytest.mark.parametrize("n", [1, 7, 58, 59, 92, 93, 94, 200])
@pytest.mark.parametrize(("p", "c"), [("0.05", "0.95"), ("0.2", "0.9"), ("0.01", "0.5")])
def test_the_bound_is_the_first_score_that_covers(n: int, p: str, c: str) -> None:
    bound = tolerance_bound([float(i) for i in range(n, 0, -1)], float(p), float(c))
    enough = [r for r in range(1, n + 1) if covered(n, r, Fraction(p)) >= Fraction(c)]
    assert bound.rank == (enough[0] if enough else n)
    assert bound.value == bound.rank
    assert (bound.rate <= float(p)) is bool(enough)


@pytest.mark.parametrize(("rank", "n", "c"), [(20, 20, 0.95), (92, 93, 0.95), (5, 9, 0.8), (1, 3, 0.5)])
def test_the_attained_rate_is_where_the_binomial_law_meets_the_confidence(
    rank: int, n: int, c: float
) -> None:
    rate = attained_rate(rank, n, c)
    assert float(covered(n, rank, Fraction(rate))) == pytest.approx(c, abs=1e-9)


@pytest.mark.parametrize(
    ("p", "c", "n"), [(0.05, 0.95, 59), (0.01, 0.99, 459), (0.5, 0.5, 1), (0.1, 0.9, 22)]
)
def test_as_many_scores_are_needed_as_published(p: float, c: float, n: int) -> None:
    assert needed(p, c) == n
    assert covered(n, n, Fraction(p)) >= Fraction(c)
    assert n == 1 or covered(n - 1, n - 1, Fraction(p)) < Fraction(c)


def test_the_bound_holds_as_often_as_it_says() -> None:
    made, trials, n, p, c = np.random.default_rng(3), 2000, 93, 0.05, 0.95
    kept = 0
    for _ in range(trials):
        value = tolerance_bound(list(made.pareto(1.0, n)), p, c).value
        kept += (1 + value) ** -1.0 <= p  # the share of Pareto's law beyond
    assert kept / trials == pytest.approx(c, abs=0.02)


def test_no_number_counts_as_infinite() -> None:
    assert tolerance_bound([math.nan, 1.0, 2.0], 0.5, 0.5).value == 2.0
    assert tolerance_bound([math.nan, 1.0], 0.05, 0.95).value == math.inf


@pytest.mark.parametrize(("p", "c"), [(0, 0.5), (1, 0.5), (0.5, 0), (0.5, 1), (math.nan, 0.5)])
def test_shares_are_between_0_and_1(p: float, c: float) -> None:
    with pytest.raises(Error, match="not between 0 and 1"):
        tolerance_bound([1.0], p, c)
    with pytest.raises(Error, match="not between 0 and 1"):
        needed(p, c)


def test_nothing_bounds_nothing() -> None:
    with pytest.raises(Error, match="no scores"):
        tolerance_bound([], 0.05, 0.95)


def test_growth_is_that_of_most_points() -> None:
    points = [(j, 3e-7 * j**0.75) for j in (1, 2, 5, 10, 20, 50, 100)] + [(7, 0.2), (3, 0.0), (4, math.inf)]
    fitted = growth(points)
    assert fitted is not None
    assert fitted.exponent == pytest.approx(0.75, abs=0.15)
    assert 3e-7 / 3 < fitted.coefficient < 3e-7 * 3


@pytest.mark.parametrize("points", [[], [(5, 1e-7)], [(5, 1e-7), (5, 2e-7)], [(1, 0.0), (5, 2e-7)]])
def test_growth_needs_two_numbers_of_steps(points: list[tuple[int, float]]) -> None:
    assert growth(points) is None
