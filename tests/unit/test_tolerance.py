"""What a tolerance says of one replay and of all, on numbers alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from elsewhere import calibration
from gradseal.verify.distances import Distances
from gradseal.verify.outcomes import SegmentResult
from gradseal.verify.tolerance import UNLIKELY, Standing, Tolerance, reach_of


def result(error: float, update: float, *, equal: bool = False) -> SegmentResult:
    return SegmentResult(segment=0, equal=equal, error=Distances(l2=error), update=Distances(l2=update))


def tolerance(cap: float = 1.0, groups: tuple[str, ...] = (), **changed: float) -> Tolerance:
    usual = {"tau": 0.125, "state_tau": 0.25, "floor": 2.0, "ceiling": 64.0, "false_rejection": 0.05}
    fields = {**usual, **changed}
    own = calibration(None, **fields)
    return Tolerance(calibration=own, cap=cap, groups=groups)


@pytest.mark.parametrize(
    ("error", "update", "standing"),
    [
        (1.0, 8.0, Standing.WITHIN),
        (1.0000001, 8.0, Standing.BEYOND),
        (0.25, 2.0, Standing.WITHIN),
        (0.25, 1.9999, Standing.NO_EVIDENCE),
        (0.0, 0.0, Standing.NO_EVIDENCE),
        (0.2500001, 1.9999, Standing.BEYOND),
        (math.nan, 8.0, Standing.BEYOND),
        (math.inf, 8.0, Standing.BEYOND),
        (1.0, math.inf, Standing.BEYOND),
        (1.0, math.nan, Standing.BEYOND),
        (math.inf, math.inf, Standing.BEYOND),
    ],
)
def test_a_replay_is_worth_what_its_distance_says(error: float, update: float, standing: Standing) -> None:
    assert tolerance().standing(result(error, update)) is standing


@pytest.mark.parametrize(
    ("state", "update", "standing"),
    [
        (0.25, 8.0, Standing.WITHIN),
        (0.2500001, 8.0, Standing.BEYOND),
        (math.inf, 8.0, Standing.BEYOND),
        (math.nan, 8.0, Standing.BEYOND),
        (0.25, 1.0, Standing.NO_EVIDENCE),
        (0.2500001, 1.0, Standing.BEYOND),
    ],
)
def test_the_rest_of_a_state_has_a_tolerance_of_its_own(
    state: float, update: float, standing: Standing
) -> None:
    own = replace(result(0.0, update), state=state, state_group="exp_avg")
    assert tolerance(groups=("exp_avg",)).standing(own) is standing


def test_where_nothing_else_had_noise_nothing_else_may_differ() -> None:
    own = replace(result(0.0, 8.0), state=1e-12, state_group="buffers")
    assert tolerance(state_tau=0.0, groups=("buffers",)).standing(own) is Standing.BEYOND


def test_two_bounds_are_missed_at_most_by_twice_as_many() -> None:
    one, two = tolerance(), tolerance(groups=("exp_avg",))
    assert (one.false_rejection, two.false_rejection) == (0.05, 0.1)
    assert one.confidence == 0.95
    assert two.confidence == pytest.approx(0.9)
    results = [replace(result(0.0, 8.0), state=0.3, state_group="exp_avg")] * 3 + [result(0.0, 8.0)] * 7
    by_hand = sum(math.comb(10, i) * 0.1**i * 0.9 ** (10 - i) for i in range(3, 11))
    beyond, _, probability = two.improbable(results)
    assert beyond == 3
    assert probability == pytest.approx(by_hand)


def test_a_cap_below_either_takes_the_rate_away() -> None:
    assert [tolerance(cap=0.2, groups=groups).capped for groups in ((), ("buffers",))] == [False, True]
    assert tolerance(cap=0.2).state_tau == 0.2


def test_equal_bits_pass_whatever_their_update() -> None:
    assert tolerance().standing(result(0.0, 0.0, equal=True)) is Standing.EQUAL


def test_a_cap_lowers_the_tolerance_and_never_raises_it() -> None:
    assert tolerance(cap=0.0625).standing(result(1.0, 8.0)) is Standing.BEYOND
    assert tolerance(cap=0.5).standing(result(2.0, 8.0)) is Standing.BEYOND
    assert (tolerance(cap=0.0625).capped, tolerance(cap=0.125).capped) == (True, False)


def test_the_probability_is_the_binomial_tail_at_the_calibrated_tolerance() -> None:
    results = [result(2.0, 8.0)] * 3 + [result(0.0, 8.0)] * 6 + [result(0.0, 0.0, equal=True)]
    beyond, of, probability = tolerance(cap=1e-9).improbable(results)
    by_hand = sum(math.comb(10, i) * 0.05**i * 0.95 ** (10 - i) for i in range(3, 11))
    assert (beyond, of) == (3, 10)
    assert probability == pytest.approx(by_hand)


def test_what_has_no_evidence_counts_neither_way() -> None:
    results = [result(1.0, 1.0)] * 5 + [result(0.0, 8.0)]
    assert tolerance().improbable(results) == (0, 1, 1.0)


def test_few_beyond_are_chance_and_many_are_not() -> None:
    beyond, within = result(2.0, 8.0), result(0.0, 8.0)
    assert tolerance().improbable([beyond] * 3 + [within] * 17)[2] > UNLIKELY
    assert tolerance().improbable([beyond] * 7 + [within] * 13)[2] < UNLIKELY


def test_reach_adds_all_drift_up() -> None:
    expected = (30 * tolerance().tau + 0.5 + 100) / 250
    assert reach_of([10.0, 20.0, 0.5, 100.0], 250.0, tolerance()) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("updates", "distance"),
    [([1.0], None), ([1.0], 0.0), ([1.0], math.inf), ([1.0], math.nan), ([math.nan], 1.0), ([math.inf], 1.0)],
)
def test_reach_is_not_known_without_every_length(updates: list[float], distance: float | None) -> None:
    assert reach_of(updates, distance, tolerance()) is None


def test_an_update_longer_than_those_measured_is_no_evidence_and_makes_no_room() -> None:
    """Whoever makes an update long chooses what a share of it is."""
    long = result(7.9, 1e9)
    assert tolerance().standing(long) is Standing.NO_EVIDENCE
    assert tolerance().standing(result(8.1, 1e9)) is Standing.BEYOND
    assert reach_of([1e9], 1e9, tolerance()) == 1.0
