"""Simulated provers: the stated bounds hold at their level, and a false one would be seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradseal.study.audits import provers
from gradseal.study.audits.provers import LAWS, SIGNIFICANCE, TRIALS, forge, policy_of, simulate
from gradseal.verify.statistics import forged_bound, length_bound


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    ("confidence", "forged", "length", "longest"), [(0.95, 0.05, 0.1, 10), (0.99, 0.2, 0.3, 0)]
)
def test_stated_bounds_hold_at_their_level(
    law: str, confidence: float, forged: float, length: float, longest: int
) -> None:
    """Ten thousand trials of the worst prover against each bound alone, and of three against both."""
    lengths = LAWS[law](np.random.default_rng(1), 400)
    policy = policy_of(confidence, forged, length, longest)
    for one in simulate(policy, lengths, law=law, seed=11):
        assert one.trials == TRIALS >= 10_000
        assert one.forged > one.most_forged or one.share > one.most_length, "what is stated must be false"
        assert one.holds, one
        assert one.expected <= one.allowed
        # Not merely rare: as often as the theory says.
        spread = 5 * (one.expected * (1 - one.expected) / one.trials) ** 0.5 + 5 / one.trials
        assert one.false / one.trials == pytest.approx(one.expected, abs=spread)


def test_numpys_draws_are_of_the_verifications_law() -> None:
    """The verification's own draws, ten thousand of them, of a small run."""
    lengths = LAWS["exponential"](np.random.default_rng(2), 24)
    policy = policy_of(0.8, 0.3, 0.4)
    own = simulate(policy, lengths, law="exponential", seed=5, hashed=True)
    quick = simulate(policy, lengths, law="exponential", seed=5)
    for hashed, drawn in zip(own, quick, strict=True):
        assert hashed.holds
        assert (hashed.forged, hashed.share, hashed.expected) == (drawn.forged, drawn.share, drawn.expected)
        spread = 4 * (2 * max(drawn.expected, 1e-3) / TRIALS) ** 0.5
        assert hashed.false / TRIALS == pytest.approx(drawn.false / TRIALS, abs=spread)


@pytest.mark.parametrize("wrong", ["uniform", "by length"])
def test_a_bound_that_does_not_hold_is_seen(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verifier who states more than his draws give."""
    lengths = np.ones(400)
    if wrong == "uniform":
        true = forged_bound
        monkeypatch.setattr(provers, "forged_bound", lambda n, drawn, c: true(n, drawn, c) * 4 // 5)
    else:
        honest = length_bound
        monkeypatch.setattr(provers, "length_bound", lambda drawn, c: honest(drawn, c) * 0.8)
    failed = {
        one.draws
        for one in simulate(policy_of(0.95, 0.05, 0.1), lengths, law="equal", seed=3)
        if not one.holds
    }
    assert wrong in failed


def test_sets_break_a_bound_by_as_little_as_can_be() -> None:
    lengths = np.array([5.0, 1.0, 4.0, 2.0, 3.0])
    assert sorted(lengths[forge(lengths, "number", 1, 0.5)]) == [1.0, 2.0]
    # 5 and 2 are below 7.5 of 15; the shortest that exceeds it is 1.
    assert sorted(lengths[forge(lengths, "length", 1, 0.5)]) == [1.0, 2.0, 5.0]
    assert sorted(lengths[forge(lengths, "both", 2, 0.5)]) == [1.0, 2.0, 3.0, 5.0]
    every = np.random.default_rng(0).pareto(1.1, 300)
    forged = every[forge(every, "length", 0, 0.1)]
    assert forged.sum() > 0.1 * every.sum()
    assert forged.sum() - forged.min() <= 0.1 * every.sum()


def test_a_simulation_is_the_same_again() -> None:
    own = policy_of(0.9, 0.1, 0.2)
    first, again = (simulate(own, np.ones(50), law="equal", seed=1, trials=100) for _ in range(2))
    assert first == again
    assert simulate(own, np.ones(50), law="equal", seed=2, trials=100) != first
    assert replace(first[0], p=SIGNIFICANCE / 2).holds is False
