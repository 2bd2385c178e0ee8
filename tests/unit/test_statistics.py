"""What a sample of segments says about the rest, and how the sample is drawn."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import ceil, comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradseal.verify.policy import POLICIES, Policy
from gradseal.verify.sampling import draw_sample
from gradseal.verify.statistics import draws_needed, forged_bound, missed_probability

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


ROOT = bytes(range(32))


def drawn_with(number: int, policy: Policy = POLICIES["standard"], root: bytes = ROOT) -> tuple[int, ...]:
    return draw_sample(policy, 12, number.to_bytes(32, "big"), root).uniform


def test_a_draw_is_repeatable_and_bound_to_checkpoint_and_randomness() -> None:
    policy = POLICIES["standard"]
    first = draw_sample(policy, 500, bytes(32), ROOT)
    assert draw_sample(policy, 500, bytes(32), ROOT) == first
    assert draw_sample(policy, 500, bytes(31) + b"\1", ROOT) != first
    assert draw_sample(policy, 500, bytes(32), bytes(32)) != first


@given(st.integers(0, 300), st.binary(min_size=32, max_size=32))
def test_a_sample_has_the_ends_and_as_many_others_as_the_policy_needs(segments: int, draw: bytes) -> None:
    policy = POLICIES["standard"]
    sample = draw_sample(policy, segments, draw, ROOT)
    assert sample.certain == tuple(sorted({0, segments - 1} if segments else ()))
    assert sample.population == max(0, segments - 2)
    assert len(sample.uniform) == draws_needed(
        sample.population, policy.tolerated_fraction, policy.confidence
    )
    assert sample.segments == sorted({*sample.certain, *sample.uniform})
    assert all(0 < segment < segments - 1 for segment in sample.uniform)


@pytest.mark.parametrize("segments", [0, 1, 2, 3, 50])
def test_the_other_policies_draw_nothing(segments: int) -> None:
    assert draw_sample(POLICIES["full"], segments, bytes(32), ROOT).segments == list(range(segments))
    ends = draw_sample(POLICIES["quick"], segments, bytes(32), ROOT)
    assert ends.segments == sorted({0, segments - 1} if segments else ())
    assert ends.uniform == ()


def test_draws_are_uniform() -> None:
    """Each of the 45 pairs of ten segments about equally often: chi-squared below its 99.99 % quantile."""
    # Two of ten: an absurdly tolerant policy.
    policy = Policy(name="pairs", replay=POLICIES["standard"].replay, confidence=0.75, tolerated_fraction=0.5)
    counts: dict[tuple[int, ...], int] = {}
    draws = 9000
    for number in range(draws):
        pair = drawn_with(number, policy)
        counts[pair] = counts.get(pair, 0) + 1
    assert {len(pair) for pair in counts} == {2}
    assert len(counts) == 45
    expected = draws / 45
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 88.5
