"""What docs/theory/validity.md proves of tolerances, tried: constructions, and bounds on random claims."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import ceil, comb, erf, sqrt

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from gradseal.study.tolerance_bound import needed, tolerance_bound
from gradseal.verify.classical import Limits, Scale
from gradseal.verify.distances import Distance, Distances
from gradseal.verify.tolerance import UNLIKELY

TRIALS = 10_000

Vectors = npt.NDArray[np.float64]
Replay = Callable[[Vectors], Vectors]


def length(vectors: Vectors) -> Vectors:
    return np.asarray(np.sqrt((vectors * vectors).sum(axis=-1)))


def logistic(rate: float, *, steps: int = 10, samples: int = 32, width: int = 40) -> Replay:
    """A segment of SGD on logistic regression: so many steps at this rate, on data of its own."""
    random = np.random.default_rng(5)
    inputs, classes = random.normal(size=(samples, width)), random.integers(0, 2, samples)

    def replay(weights: Vectors) -> Vectors:
        for _ in range(steps):
            said = 1 / (1 + np.exp(-inputs @ weights))
            weights = weights - rate * inputs.T @ (said - classes) / samples
        return weights

    return replay


def passed(states: Vectors, replay: Replay, limits: Limits) -> list[bool]:
    """For each segment, whether its replay ends within the limits of the verifier's own code."""
    verdicts = []
    for before, after in pairwise(states):
        error = Distances(l2=float(length(replay(before) - after)))
        update = Distances(l2=float(length(after - before)))
        verdicts.append(limits.within(error, update)[Distance.L2])
    return verdicts


def on_a_line(start: Vectors, end: Vectors, segments: int) -> Vectors:
    share = np.linspace(0, 1, segments + 1)[:, None]
    return (1 - share) * start + share * end


@pytest.mark.parametrize("delta", [2.0, 0.3, 0.02])
def test_a_spoof_passes_every_absolute_tolerance_and_needs_as_many_segments(delta: float) -> None:
    """V1 (a): for any delta there is one; standing still, N = ceil(d / delta) is enough and no fewer."""
    random = np.random.default_rng(1)
    start, stolen = random.normal(size=(2, 40))
    limits = Limits(factors={Distance.L2: delta})
    way = float(length(stolen - start))
    needed = ceil(way / delta)
    spare = on_a_line(start, stolen, needed + 1)
    # The gradient is at most the mean length of a sample: G. So is what V1 demands of the rate.
    rate = min(1.0, delta - way / (needed + 1)) / (10 * 20)
    assert all(passed(spare, logistic(rate), limits))
    assert np.array_equal(spare[-1], stolen)
    still = logistic(0.0)
    assert all(passed(on_a_line(start, stolen, needed), still, limits))
    assert not any(passed(on_a_line(start, stolen, needed - 1), still, limits))
    normalised = Limits(factors={Distance.L2: delta / way}, scale=Scale.NORMALISED, reference=way)
    assert all(passed(spare, logistic(rate), normalised))


@pytest.mark.parametrize("tau", [0.01, 0.5, 0.99])
def test_a_relative_tolerance_refuses_who_stands_still(tau: float) -> None:
    """V1 (g): in each segment; and with a tolerance of 1 or more in none."""
    random = np.random.default_rng(2)
    states = on_a_line(random.normal(size=40), random.normal(size=40), 50)
    relative = Limits(factors={Distance.L2: tau}, scale=Scale.RELATIVE)
    assert not any(passed(states, logistic(1e-12), relative))
    lax = Limits(factors={Distance.L2: 1.001}, scale=Scale.RELATIVE)
    assert all(passed(states, logistic(1e-12), lax))


@pytest.mark.parametrize("law", ["exponential", "pareto", "lognormal"])
def test_who_rejects_few_lets_a_displacement_through(law: str) -> None:
    """V2 (a), (b): at the quantile of 1 - beta, q(1 - beta) - q(1/2) passes every other time."""
    random = np.random.default_rng(3)

    def draw(count: int) -> Vectors:
        if law == "exponential":
            return random.exponential(size=count)
        return 1 + random.pareto(1.5, count) if law == "pareto" else random.lognormal(sigma=1.2, size=count)

    known = np.sort(draw(400_000))
    for beta in (0.01, 0.05, 0.2):
        threshold, median = known[int((1 - beta) * len(known))], known[len(known) // 2]
        assert (draw(TRIALS) > threshold).mean() == pytest.approx(beta, abs=0.02)
        # In the plane: the displacement along one axis, noise of the law's length in any direction.
        angle, noise = random.uniform(0, 2 * np.pi, TRIALS), draw(TRIALS)
        ends = np.stack([threshold - median + noise * np.cos(angle), noise * np.sin(angle)], axis=-1)
        assert (length(ends) <= threshold).mean() >= 0.5 - 0.02


@pytest.mark.parametrize("segments", [1, 16, 400])
def test_the_best_test_of_a_spread_drift_attains_the_bound(segments: int) -> None:
    """V2 (d): the likelihood ratio's two errors add up to 2 - 2 Phi(D / (2 sigma sqrt(N))), and no less."""
    random = np.random.default_rng(segments)
    sigma, drift = 0.5, 4.0
    each = drift / segments
    # Of all the displacements, their sum along the direction is all that a test can use.
    noise = np.stack([random.normal(0, sigma, (TRIALS, segments)).sum(axis=1) for _ in range(2)])
    middle = drift / 2
    errors = (noise[0] > middle).mean() + (noise[1] + each * segments <= middle).mean()
    bound = 1 - erf(drift / (2 * sigma * sqrt(segments)) / sqrt(2))
    assert errors == pytest.approx(bound, abs=0.03)
    assert bound >= 1 - drift / (sigma * sqrt(2 * np.pi * segments))
    # Another test on the same claims, the longest displacement, does not do better at any threshold.
    if segments > 1:
        honest, forged = (random.normal(m, sigma, (TRIALS, segments)).max(axis=1) for m in (0, each))
        at = np.quantile(honest, np.linspace(0.01, 0.99, 50))
        worse = [(honest > t).mean() + (forged <= t).mean() for t in at]
        assert min(worse) >= bound - 0.03


def random_claims(
    random: np.random.Generator, tau: float, *, segments: int, width: int
) -> dict[str, Vectors]:
    """TRIALS claims of a program that goes where it likes, each end displaced by up to tau of its update."""
    weights = random.normal(size=(TRIALS, width))
    mixing = random.normal(size=(width, width)) / sqrt(width)
    start, path = weights.copy(), np.zeros(TRIALS)
    put_in, errors, own = np.zeros_like(weights), np.zeros(TRIALS), np.zeros_like(weights)
    direction = random.normal(size=(TRIALS, width))
    for _ in range(segments):
        made = weights + 0.3 * np.tanh(weights @ mixing) + 0.1 * random.normal(size=weights.shape)
        displaced = direction + random.normal(size=weights.shape)
        moved = length(made - weights)
        # Within tau of the sealed update, which contains it: at most tau / (1 + tau) of what was computed.
        scale = random.uniform(0, 1, TRIALS) * tau / (1 + tau) * moved / length(displaced)
        after = made + scale[:, None] * displaced
        error, update = length(after - made), length(after - weights)
        assert (error <= tau * update * (1 + 1e-12)).all()
        assert (error <= tau / (1 - tau) * moved * (1 + 1e-12)).all()
        put_in += after - made
        own += made - weights
        errors += error
        path += update
        weights = after
    return {"put in": put_in, "errors": errors, "own": own, "path": path, "moved": weights - start}


@pytest.mark.parametrize("tau", [0.02, 0.1, 0.5])
def test_displacements_within_tolerance_never_exceed_the_drift_bound(tau: float) -> None:
    """V3 (a), (b), (d), (f), in 10,000 claims."""
    claims = random_claims(np.random.default_rng(4), tau, segments=25, width=6)
    slack = 1 + 1e-9
    assert (length(claims["put in"]) <= claims["errors"] * slack).all()
    assert (claims["errors"] <= tau * claims["path"] * slack).all()
    way = length(claims["moved"])
    reach = tau * claims["path"] / way
    along = (claims["own"] * claims["moved"]).sum(axis=-1) / way
    assert (along >= (1 - reach) * way - 1e-9).all()


def test_what_was_not_replayed_counts_with_its_whole_update() -> None:
    """V3 (b): some segments are not replayed, and jump anywhere."""
    random, tau = np.random.default_rng(6), 0.1
    weights = np.zeros((TRIALS, 4))
    allowed, own = np.zeros(TRIALS), np.zeros_like(weights)
    for segment in range(12):
        made = weights + random.normal(size=weights.shape)
        error = tau / (1 + tau) * length(made - weights)
        if segment % 3 == 0:  # not replayed, or below the floor: nothing is known of it
            after = weights + 5 * random.normal(size=weights.shape)
            allowed += length(after - weights)
        else:
            after = made + error[:, None] * np.array([1.0, 0, 0, 0])
            allowed += tau * length(after - weights)
            own += made - weights
        weights = after
    assert (length(weights - own) <= allowed * (1 + 1e-9)).all()


@pytest.mark.parametrize("tau", [0.01, 0.1, 0.6])
def test_at_reach_one_the_program_may_have_gone_nowhere(tau: float) -> None:
    """V3 (c): the construction."""
    segments, way = 40, 7.0
    aside = way / segments * sqrt(1 / tau**2 - 1)
    weights, alone, path = np.zeros(2), np.zeros(2), 0.0
    for segment in range(segments):
        move = np.array([0.0, aside if segment % 2 == 0 else -aside])
        after = weights + move + [way / segments, 0.0]
        update = float(length(after - weights))
        assert float(length(after - weights - move)) <= tau * update * (1 + 1e-12)
        weights, alone, path = after, alone + move, path + update
    assert weights == pytest.approx([way, 0.0])
    assert alone == pytest.approx([0.0, 0.0])
    assert tau * path / way == pytest.approx(1.0)


def test_a_small_reach_does_not_bound_where_training_would_have_ended() -> None:
    """V3 (e): one displacement within tau, in a direction that training amplifies."""
    tau, growth, segments = 0.01, 1.6, 40
    states = [np.zeros(2)]
    for segment in range(segments):
        x, y = states[-1]
        made = np.array([x + 1, growth * y])
        after = made + np.array([0.0, tau if segment == 0 else 0.0])
        assert length(after - made) <= tau * length(after - states[-1])
        states.append(after)
    moved = np.diff(states, axis=0)
    way, path = float(length(states[-1])), float(length(moved).sum())
    assert tau * path / way <= sqrt(2) * tau
    true = np.array([segments, 0.0])
    assert length(states[-1] - true) > 0.99 * way
    assert length(states[-1] - true) > 50 * tau * path


def test_where_no_step_amplifies_the_end_is_within_the_drift_bound() -> None:
    """V3 (e): gradient steps on a convex quadratic, at a rate of at most 2 / M."""
    random, tau = np.random.default_rng(7), 0.1
    curvature = random.uniform(0, 1, 5)
    weights = random.normal(size=(TRIALS, 5))
    true, path = weights.copy(), np.zeros(TRIALS)
    for _ in range(30):
        made = weights - 1.9 * curvature * weights
        displaced = random.normal(size=weights.shape)
        size = tau / (1 + tau) * length(made - weights) / length(displaced)
        after = made + size[:, None] * displaced
        path += length(after - weights)
        weights, true = after, true - 1.9 * curvature * true
    assert (length(weights - true) <= tau * path * (1 + 1e-9)).all()


def misses(count: int, rate: float, rank: int) -> float:
    """P(Bin(n, 1 - rate) >= rank): that the order statistic of this rank does not cover."""
    p = 1 - rate
    return sum(comb(count, i) * p**i * (1 - p) ** (count - i) for i in range(rank, count + 1))


@pytest.mark.parametrize("law", ["steep", "cauchy", "few values"])
@pytest.mark.parametrize(("count", "rank"), [(59, 59), (93, 92), (150, 148)])
def test_an_order_statistic_covers_at_its_confidence(law: str, count: int, rank: int) -> None:
    """V4 (a), over 10,000 calibrations: whether S_(r) leaves at most 5 % of the law beyond it."""
    random, rate = np.random.default_rng(count), 0.05
    assert tolerance_bound(random.normal(size=count).tolist(), rate, 0.95).rank == rank
    uniform = random.uniform(size=(TRIALS, count))
    if law == "few values":  # with ties: 0 to 9, each as likely
        scores = np.sort(np.floor(10 * uniform), axis=1)[:, rank - 1]
        beyond = 1 - (scores + 1) / 10
    else:  # monotone in the uniform one, so that what is beyond is known
        scores = np.sort(np.exp(9 * uniform) if law == "steep" else np.tan(np.pi * (uniform - 0.5)), axis=1)
        own = scores[:, rank - 1]
        beyond = 1 - (np.log(own) / 9 if law == "steep" else np.arctan(own) / np.pi + 0.5)
    failed = float((beyond > rate + 1e-12).mean())
    expected = misses(count, rate, rank)
    assert expected <= 0.05
    spread = 4 * sqrt(expected / TRIALS)
    if law == "few values":
        assert failed <= expected + spread
    else:
        assert failed == pytest.approx(expected, abs=spread)


def test_draws_of_one_run_cover_it_whatever_its_scores_depend_on() -> None:
    """V4 (b): 59 of a run's 200 segments, whose errors grow from one to the next."""
    random, rate = np.random.default_rng(8), 0.05
    run = np.exp(np.cumsum(random.normal(size=200)) / 3)
    enough = np.sort(run)[ceil((1 - rate) * len(run)) - 1]
    failed = sum(run[random.permutation(len(run))[:59]].max() < enough for _ in range(TRIALS))
    exact = comb(189, 59) / comb(200, 59)
    assert needed(rate, 0.95) == 59
    assert failed / TRIALS == pytest.approx(exact, abs=4 * sqrt(exact / TRIALS))
    assert exact <= (1 - rate) ** 59


def test_later_segments_exceed_the_largest_as_seldom_as_exchangeability_says() -> None:
    """V4 (c), (d): with a machine's own factor in all scores, they are exchangeable and not independent."""
    random = np.random.default_rng(9)
    calibrated, later = 60, 20
    factor = random.lognormal(sigma=1.0, size=(TRIALS, 1))
    scores = factor * random.lognormal(size=(TRIALS, calibrated + later))
    beyond = scores[:, calibrated:] > scores[:, :calibrated].max(axis=1, keepdims=True)
    some = beyond.any(axis=1).mean()
    assert some == pytest.approx(later / (calibrated + later), abs=0.02)
    rate = beyond.mean()
    assert some <= later * rate + 1e-9
    # Independent segments at a fixed tolerance of which 2 % are beyond.
    fixed = (random.uniform(size=(TRIALS, later)) > 0.98).any(axis=1).mean()
    assert fixed == pytest.approx(1 - 0.98**later, abs=0.02)


def test_an_honest_run_is_refuted_as_seldom_as_is_said() -> None:
    """V4 (e), with the verifier's own rule: 10,000 calibrations by 59 segments, each with a run of 40."""
    random, rate, later = np.random.default_rng(10), 0.05, 40
    beyond_rate = 1 - random.uniform(size=(TRIALS, 59)).max(axis=1)  # of the law, beyond the largest of 59
    beyond = random.binomial(later, beyond_rate)
    least = next(j for j in range(later + 1) if stats.binom.sf(j - 1, later, rate) < UNLIKELY)
    assert 2 < least < 20
    refuted, covered = beyond >= least, beyond_rate <= rate
    assert refuted[covered].mean() <= UNLIKELY
    assert refuted.mean() <= UNLIKELY + (1 - rate) ** 59
    # At the stated rate itself it is just below.
    assert (random.binomial(later, rate, 50 * TRIALS) >= least).mean() == pytest.approx(
        float(stats.binom.sf(least - 1, later, rate)), abs=2e-4
    )
