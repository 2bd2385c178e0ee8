"""The prover's best response to an audit, against enumeration and against draws."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gradseal.errors import Error
from gradseal.study.audits.mixes import KINDS, cheapest, of_cost, replayed_probabilities
from gradseal.study.audits.response import Ground, Mix, best_response, missed_uniformly
from gradseal.verify.statistics import missed_probability

lengths_ = st.lists(st.floats(0, 100), min_size=1, max_size=12)
mixes = st.builds(Mix, longest=st.integers(0, 12), uniform=st.integers(0, 12), by_length=st.integers(0, 12))


def by_hand(lengths: list[float], way: float, mix: Mix) -> float:
    """How often the best response is seen, by trying each number of forged segments, one after another."""
    least = 1.0
    ordered = sorted(lengths, reverse=True)
    for forged in range(1, len(lengths) + 1):
        true, each = ordered[: len(lengths) - forged], way / forged
        top, rest = true[: mix.longest], true[mix.longest :]
        if len(top) < min(mix.longest, len(lengths)) or any(one < each for one in top):
            continue
        population = forged + len(rest)
        missed = float(missed_probability(population, forged, min(mix.uniform, population)))
        least = min(least, 1 - missed * (sum(rest) / (sum(rest) + way)) ** mix.by_length)
    return least


@given(lengths_, st.floats(0.01, 300), mixes)
def test_it_is_the_best_of_all_numbers_of_segments(lengths: list[float], way: float, mix: Mix) -> None:
    response = best_response(Ground(lengths, way), mix)
    assert response.detection == pytest.approx(by_hand(lengths, way, mix), abs=1e-9)
    assert response.length == pytest.approx(way / response.forged)


@given(lengths_, st.floats(0.01, 300), mixes, st.floats(1, 50))
@example([1.0], 1.0, Mix(by_length=1), 2.0)
def test_whoever_may_make_segments_longer_is_seen_no_more_often(
    lengths: list[float], way: float, mix: Mix, inflation: float
) -> None:
    seen = [best_response(Ground(lengths, way, one), mix).detection for one in (1.0, inflation, math.inf)]
    assert seen[0] >= seen[1] - 1e-9
    assert seen[1] >= seen[2] - 1e-9


@given(lengths_, st.floats(0.01, 300), mixes)
def test_without_limit_only_uniform_draws_are_left(lengths: list[float], way: float, mix: Mix) -> None:
    response = best_response(Ground(lengths, way, math.inf), mix)
    rest = len(lengths) - mix.longest
    expected = min(1.0, mix.uniform / rest) if rest > 0 else 1.0
    if rest == 1 and mix.by_length:
        expected = 1.0  # all others are certain, so draws by length have the forged one alone to fall on
    assert response.detection == pytest.approx(expected, abs=1e-9)


def test_what_each_audit_leaves_to_a_prover_of_a_real_shape() -> None:
    lengths = [10.0, 8.0, *[1.0] * 98]
    ground = Ground(lengths, 40.0)
    # Against draws of either kind one jump is best; against the longest it is cut below them.
    assert best_response(ground, Mix(uniform=20)).forged == 1
    assert best_response(ground, Mix(by_length=20)).forged == 1
    top = best_response(ground, Mix(longest=2))
    assert (top.forged, top.detection) == (5, 0.0)
    # All longest ones down to length 1: forty pieces of length 1.
    mixed = best_response(ground, Mix(longest=10, uniform=5, by_length=5))
    assert mixed.forged == 40
    assert mixed.detection > 0.99
    # The longest cannot be dodged: there are not enough segments.
    assert best_response(Ground([1.0] * 20, 40.0), Mix(longest=1)).detection == 1.0


def seen(lengths: np.ndarray, forged: np.ndarray, mix: Mix) -> float:
    """How often an audit sees this set of forged segments, by the laws of its draws."""
    order = np.argsort(np.where(forged, -lengths * (1 - 1e-12), -lengths), kind="stable")
    if forged[order[: mix.longest]].any():
        return 1.0
    rest = order[mix.longest :]
    m, population = int(forged[rest].sum()), len(rest)
    missed = float(missed_probability(population, m, min(mix.uniform, population)))
    share = float(lengths[rest][forged[rest]].sum() / lengths[rest].sum())
    return 1 - missed * float((1 - share) ** mix.by_length)


def test_no_unequal_pieces_in_other_places_are_seen_less_often() -> None:
    """S6 (e): whatever pieces, wherever, for each of many audits."""
    random = np.random.default_rng(8)
    nearest = 1.0
    for _ in range(4000):
        count = int(random.integers(3, 40))
        lengths = random.lognormal(sigma=1.0, size=count)
        way = float(lengths.sum() * random.uniform(0.05, 0.6))
        mix = Mix(
            **dict(
                zip(("longest", "uniform", "by_length"), map(int, random.integers(0, (5, 8, 8))), strict=True)
            )
        )
        response = best_response(Ground(lengths, way), mix).detection
        pieces = int(random.integers(1, count + 1))
        spread = random.choice([0.0, 0.2, 2.0])
        parts = random.lognormal(sigma=spread, size=pieces)
        own, forged = lengths.copy(), np.zeros(count, dtype=bool)
        places = random.permutation(count)[:pieces] if random.random() < 0.5 else np.argsort(own)[:pieces]
        own[places], forged[places] = way * parts / parts.sum(), True
        found = seen(own, forged, mix)
        assert found >= response - 1e-9
        nearest = min(nearest, found - response if 0.01 < response < 0.99 else 1.0)
    assert nearest < 1e-6, "none of them came to the response: it may be too low, and this would not show it"


def test_a_displacement_that_is_none_is_no_ground() -> None:
    for way in (math.nan, 0.0, -1.0):
        with pytest.raises(Error):
            Ground([1.0], way)
    with pytest.raises(Error):
        Ground([1.0, math.nan], 1.0)


def test_limited_inflation_pays_for_the_longest_first() -> None:
    lengths = [1.0] * 10
    # A jump of 4 needs two true ones of 4: 6 more than there is, of at most 10 more.
    assert best_response(Ground(lengths, 4.0, 2.0), Mix(longest=2)).forged == 1
    assert best_response(Ground(lengths, 4.0, 1.5), Mix(longest=2)).forged == 2
    assert best_response(Ground(lengths, 4.0, 1.0), Mix(longest=2)).forged == 4


@given(st.integers(0, 40), st.integers(0, 60))
def test_the_probability_in_floating_point_is_the_exact_one(population: int, drawn: int) -> None:
    forged = np.arange(1, population + 1)
    exact = [float(missed_probability(population, int(m), min(drawn, population))) for m in forged]
    assert missed_uniformly(population, forged, drawn) == pytest.approx(exact, abs=1e-9)


@given(st.lists(st.floats(0.1, 9), min_size=2, max_size=5), st.integers(0, 2), st.integers(0, 3))
def test_the_expected_cost_is_that_of_all_draws(lengths: list[float], uniform: int, by_length: int) -> None:
    count = len(lengths)
    mix = Mix(longest=1, uniform=uniform, by_length=by_length)
    rest = sorted(range(count), key=lambda i: -lengths[i])[1:]
    total = sum(lengths[i] for i in rest)
    expected = [0.0] * count
    subsets = list(combinations(rest, min(uniform, len(rest))))
    for i in range(count):
        drawn = sum(i in subset for subset in subsets) / len(subsets)
        missed = (1 - drawn) * (1 - lengths[i] / total) ** by_length
        expected[i] = 1 - missed if i in rest else 1.0
    assert replayed_probabilities(np.array(lengths), mix) == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 1.0])
def test_audits_of_one_cost_cost_that(kind: str, share: float) -> None:
    lengths = np.random.default_rng(3).exponential(size=400)
    cost = float(replayed_probabilities(lengths, of_cost(lengths, kind, share * 400)).sum())
    assert cost == pytest.approx(share * 400, abs=1.0)


def test_hostile_lengths_end_a_search() -> None:
    for lengths in ([0.0] * 50, [1e300] + [1e-300] * 49, [5e-324] * 50):
        own = np.array(lengths)
        for kind in KINDS:
            mix = of_cost(own, kind, 25.0)
            assert 0 <= replayed_probabilities(own, mix).sum() <= 50
            assert 0 <= best_response(Ground(own, 1.0), mix).detection <= 1
        mix, cost = cheapest(Ground(own, 1.0), 0.95, points=6)
        assert 0 <= cost <= 50
    assert best_response(Ground([], 1.0), Mix(uniform=3)).detection == 1.0


@pytest.mark.parametrize("inflation", [1.0, 3.0, math.inf])
def test_the_cheapest_mix_suffices_and_no_kind_alone_is_cheaper(inflation: float) -> None:
    lengths = np.random.default_rng(4).exponential(size=300)
    ground = Ground(lengths, 0.2 * lengths.sum(), inflation)
    mix, cost = cheapest(ground, 0.95, points=20)
    assert best_response(ground, mix).detection >= 0.95
    assert cost == pytest.approx(replayed_probabilities(lengths, mix).sum())
    for kind in KINDS:
        for share in np.linspace(0, 1, 41):
            other = of_cost(lengths, kind, share * 300)
            spent = float(replayed_probabilities(lengths, other).sum())
            if spent < cost - 5:
                assert best_response(ground, other).detection < 0.95
    if math.isinf(inflation):
        assert (mix.longest, mix.by_length) == (0, 0)
        assert mix.uniform in {285, 286}  # the last digit of a logarithm decides
