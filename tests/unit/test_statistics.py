"""What a sample of segments says about the rest."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import ceil, comb, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradseal.verify.policy import POLICIES
from gradseal.verify.statistics import (
    detection_probability,
    draws_needed,
    forged_bound,
    length_bound,
    length_draws_needed,
    length_missed_probability,
    missed_probability,
    split_confidence,
)

populations = st.integers(1, 60)
confidences = st.floats(0.01, 0.999)
fractions = st.floats(0.001, 0.999)


def missed(population: int, forged: int, drawn: int) -> Fraction:
    """By counting subsets: the hypergeometric law at zero."""
    return Fraction(comb(population - forged, drawn), comb(population, drawn))


def test_the_law_is_that_of_counted_draws() -> None:
    for population in range(1, 8):
        for forged in range(population + 1):
            for drawn in range(population + 1):
                draws = list(combinations(range(population), drawn))
                clean = sum(all(segment >= forged for segment in draw) for draw in draws)
                assert missed_probability(population, forged, drawn) == Fraction(clean, len(draws))


@given(populations, st.data())
def test_the_probability_is_exact(population: int, data: st.DataObject) -> None:
    forged, drawn = data.draw(st.integers(0, population)), data.draw(st.integers(0, population))
    assert missed_probability(population, forged, drawn) == missed(population, forged, drawn)


@given(populations, confidences, st.data())
def test_more_forged_than_the_bound_would_have_been_seen(
    population: int, confidence: float, data: st.DataObject
) -> None:
    drawn = data.draw(st.integers(0, population))
    allowed = 1 - Fraction(confidence)
    possible = [m for m in range(population - drawn + 1) if missed(population, m, drawn) > allowed]
    assert forged_bound(population, drawn, confidence) == max(possible)


@given(populations, fractions, confidences)
def test_the_draws_are_the_fewest_that_see_more_than_is_tolerated(
    population: int, fraction: float, confidence: float
) -> None:
    drawn, allowed = draws_needed(population, fraction, confidence), 1 - Fraction(confidence)
    too_many = [m for m in range(1, population + 1) if m > Fraction(fraction) * population]
    assert all(missed(population, m, drawn) <= allowed for m in too_many)
    least = max(1, ceil(Fraction(fraction) * population))
    assert drawn == min(n for n in range(population + 1) if missed(population, least, n) <= allowed)
    assert forged_bound(population, drawn, confidence) <= max(0, ceil(Fraction(fraction) * population) - 1)


def test_published_numbers() -> None:
    # The well-known 59 of large populations: 0.95 ** 59 is the first power below 5 %.
    assert [draws_needed(n, 0.05, 0.95) for n in (0, 1, 20, 100, 10_000, 1 << 24)] == [0, 1, 16, 39, 59, 59]
    assert forged_bound(100, 100, 0.95) == 0
    assert forged_bound(100, 0, 0.95) == 100
    assert forged_bound(10_000, 59, 0.95) == 493


@pytest.mark.parametrize(("population", "fraction"), [(1 << 20, 0.001), (1_000_000, 1e-5), (1 << 24, 0.5)])
def test_many_draws_from_many_segments_are_counted_at_once(population: int, fraction: float) -> None:
    drawn, forged = draws_needed(population, fraction, 0.975), ceil(Fraction(fraction) * population)
    allowed = 1 - Fraction(0.975)
    assert missed_probability(population, forged, drawn) <= allowed
    assert missed_probability(population, forged, drawn - 1) > allowed


@given(st.integers(1, 5000), confidences)
def test_a_larger_length_than_the_bound_would_have_been_seen(drawn: int, confidence: float) -> None:
    bound = length_bound(drawn, confidence)
    assert length_missed_probability(bound, drawn) == pytest.approx(1 - confidence, rel=1e-6)
    assert length_missed_probability(min(1.0, bound * 1.01), drawn) < 1 - confidence


@given(st.floats(1e-4, 0.999), confidences)
def test_the_draws_by_length_are_the_fewest(tolerated: float, confidence: float) -> None:
    drawn = length_draws_needed(tolerated, confidence)
    assert length_bound(drawn, confidence) <= tolerated
    assert drawn == 1 or length_bound(drawn - 1, confidence) > tolerated * (1 - 1e-12)


def test_published_numbers_of_lengths() -> None:
    # Dollar-unit sampling's well-known 59: 0.95 ** 59 is the first power below 5 %.
    assert [length_draws_needed(share, 0.95) for share in (0.05, 0.1, 0.01, 1.0, 2.0)] == [59, 29, 299, 0, 0]
    assert length_bound(0, 0.95) == 1.0
    assert length_bound(36, 0.975) == pytest.approx(0.0974, abs=1e-4)
    with pytest.raises(ValueError, match="no number of draws"):
        length_draws_needed(0.0, 0.95)
    with pytest.raises(ValueError, match="no number of draws"):
        length_draws_needed(float("nan"), 0.95)


def test_the_error_is_split_evenly() -> None:
    assert split_confidence(0.95, 1) == pytest.approx(0.95)
    assert split_confidence(0.95, 2) == pytest.approx(0.975)
    assert POLICIES["standard"].bound_confidence == pytest.approx(0.975)
    assert POLICIES["quick"].bound_confidence == pytest.approx(0.95)


def test_what_each_kind_of_draw_sees() -> None:
    assert detection_probability(10, 1, 0.5, uniform=3) == pytest.approx(0.3)
    assert detection_probability(10, 1, 0.5, by_length=2) == pytest.approx(0.75)
    assert detection_probability(10, 1, 0.5, uniform=3, by_length=2) == pytest.approx(1 - 0.7 * 0.25)
    assert detection_probability(10, 1, 0.5) == 0.0
    assert detection_probability(10, 1, 0.0, by_length=99) == 0.0
    assert detection_probability(10, 1, 0.0, certain=True) == 1.0
    assert detection_probability(10, 8, 0.0, uniform=3) == 1.0
    assert log(1 - detection_probability(10**6, 1, 0.01, by_length=100)) == pytest.approx(100 * log(0.99))
