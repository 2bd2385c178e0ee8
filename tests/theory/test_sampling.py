"""What docs/theory/sampling.md proves of draws, tried: 10,000 verifications of claims at the bounds."""

from __future__ import annotations

from fractions import Fraction
from hashlib import sha256
from math import ceil, comb, log

import numpy as np
import numpy.typing as npt
import pytest

from gradseal.study.audits.provers import forge
from gradseal.verify.policy import Policy, Replay
from gradseal.verify.sampling import draw_sample
from gradseal.verify.statistics import draws_needed, forged_bound, length_bound, missed_probability

TRIALS = 10_000
ALPHA = 0.05
SPREAD = 4 * (ALPHA / TRIALS) ** 0.5
"""Four standard deviations of a share that is ALPHA, and more than four of one that is less."""

Numbers = npt.NDArray[np.float64]


def missed_by_length(
    random: np.random.Generator, lengths: Numbers, forged: npt.NDArray[np.bool_], draws: int
) -> npt.NDArray[np.bool_]:
    """For each trial, whether so many draws by length, with replacement, met no forged segment."""
    edges = np.cumsum(lengths) / lengths.sum()
    missed = np.ones(TRIALS, dtype=bool)
    for _ in range(draws):
        drawn = np.searchsorted(edges, random.uniform(size=TRIALS), side="right")
        missed &= ~forged[np.minimum(drawn, len(lengths) - 1)]
    return missed


@pytest.mark.parametrize(("population", "drawn"), [(20, 12), (100, 39), (1000, 59), (50, 0)])
def test_uniform_draws_see_more_than_the_bound_at_their_level(population: int, drawn: int) -> None:
    """S1: one more than the bound passes at most in 5 %, the bound itself in more."""
    random = np.random.default_rng(population)
    most = forged_bound(population, drawn, 1 - ALPHA)
    for forged in {most + 1, min(population, 2 * most + 1)}:
        if not most < forged <= population:
            continue
        passed = (random.hypergeometric(forged, population - forged, drawn, TRIALS) == 0).mean()
        assert passed <= ALPHA + SPREAD
        assert passed == pytest.approx(float(missed_probability(population, forged, drawn)), abs=0.02)
    assert missed_probability(population, most, drawn) > ALPHA
    needed = draws_needed(population, 0.05, 1 - ALPHA)
    assert needed <= min(population, ceil(log(1 / ALPHA) / 0.05))
    # The number 0.05 is a little more than a twentieth, and so are six of a hundred.
    assert forged_bound(population, needed, 1 - ALPHA) < max(1, ceil(Fraction(0.05) * population))


def test_the_verifiers_own_draw_misses_as_often_as_the_law_says() -> None:
    """S1 (a) on the draw of `verify.sampling` itself, 10,000 times."""
    policy = Policy(name="some", replay=Replay.SAMPLE, confidence=0.5, tolerated_fraction=0.2)
    segments, forged = 14, {3, 7}
    missed = 0
    for number in range(TRIALS):
        sample = draw_sample(policy, segments, number.to_bytes(32, "big"), bytes(32))
        missed += not forged & set(sample.segments)
    expected = float(missed_probability(sample.population, len(forged), len(sample.uniform)))
    assert 0.2 < expected < 0.8
    assert missed / TRIALS == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("draws", [5, 30, 59])
def test_draws_by_length_see_more_than_the_bound_at_their_level(draws: int) -> None:
    """S2: a share of the length just beyond 1 - alpha^(1/n), in many small segments or in one."""
    random = np.random.default_rng(draws)
    bound = length_bound(draws, 1 - ALPHA)
    assert bound == pytest.approx(1 - ALPHA ** (1 / draws))
    for pieces in (1, 40):
        true = random.lognormal(sigma=1.5, size=300)
        share = min(0.999, bound * 1.01)
        way = true.sum() * share / (1 - share)
        lengths = np.concatenate([true, np.full(pieces, way / pieces)])
        forged = np.arange(len(lengths)) >= len(true)
        passed = missed_by_length(random, lengths, forged, draws).mean()
        assert passed <= ALPHA + SPREAD
        assert passed == pytest.approx((1 - share) ** draws, abs=0.01)


def test_cutting_a_forged_way_does_not_lower_its_share() -> None:
    """S2 (c): cut at random points of the plane between the same ends, a way is no shorter."""
    random = np.random.default_rng(1)
    start, end, true = np.zeros(2), np.array([3.0, 0.0]), 20.0
    whole = 3.0 / (3.0 + true)
    for pieces in (2, 5, 30):
        between = random.normal(size=(TRIALS, pieces - 1, 2))
        ends = np.broadcast_to(start, (TRIALS, 1, 2)), np.broadcast_to(end, (TRIALS, 1, 2))
        way = np.concatenate([ends[0], between, ends[1]], axis=1)
        forged = np.linalg.norm(np.diff(way, axis=1), axis=-1).sum(axis=1)
        assert (forged / (forged + true) >= whole - 1e-12).all()


def claims(random: np.random.Generator, segments: int) -> tuple[Numbers, npt.NDArray[np.bool_]]:
    """Lengths and forged segments of random claims, one a row."""
    lengths = random.lognormal(sigma=1.2, size=(TRIALS, segments))
    return lengths, random.uniform(size=(TRIALS, segments)) < random.uniform(0, 0.2, size=(TRIALS, 1))


def test_no_forged_segment_is_longer_than_the_longest_that_are_always_replayed() -> None:
    """S3: of claims that pass the Q longest, each forged segment is at most as long as these."""
    random, longest, segments, width = np.random.default_rng(2), 8, 60, 3
    lengths, forged = claims(random, segments)
    ranked = np.argsort(-lengths, axis=1)[:, :longest]
    passed = ~np.take_along_axis(forged, ranked, axis=1).any(axis=1)
    assert 0.1 < passed.mean() < 0.9
    shortest = np.take_along_axis(lengths, ranked, axis=1).min(axis=1)
    assert (np.where(forged, lengths, 0.0).max(axis=1)[passed] <= shortest[passed]).all()
    directions = random.normal(size=(TRIALS, segments, width))
    moves = directions / np.linalg.norm(directions, axis=-1, keepdims=True) * lengths[..., None]
    moved = np.linalg.norm(np.where(forged[..., None], moves, 0.0).sum(axis=1), axis=-1)
    assert (moved[passed] <= (forged.sum(axis=1) * shortest)[passed] + 1e-9).all()


@pytest.mark.parametrize(("forged", "share"), [(5, 0.11), (15, 0.02), (15, 0.11), (2, 0.5)])
def test_both_kinds_of_draws_together_hold_at_the_larger_error(forged: int, share: float) -> None:
    """S4 (a) to (c): claims that violate one statement, or both, pass at most in the larger of two errors."""
    random = np.random.default_rng(forged)
    population, uniform, by_length = 200, 59, 40
    most, longest = forged_bound(population, uniform, 1 - ALPHA), length_bound(by_length, 1 - ALPHA)
    assert forged > most or share > longest, "this claim violates nothing"
    lengths = np.ones(population)
    wrong = np.arange(population) < forged
    lengths[wrong] = (population - forged) * share / (1 - share) / forged
    missed = random.hypergeometric(forged, population - forged, uniform, TRIALS) == 0
    missed &= missed_by_length(random, lengths, wrong, by_length)
    assert missed.mean() <= ALPHA + SPREAD
    law = float(missed_probability(population, forged, uniform)) * (1 - share) ** by_length
    assert missed.mean() == pytest.approx(law, abs=0.01)


def said_falsely(prover: str, uniform: int, by_length: int, factor: float) -> float:
    """How often a verifier says what is false: that forged segments moved at most `factor` times the bound.

    The prover is fixed, and goes beyond that by as little as he can.
    """
    random, longest = np.random.default_rng(3), 10
    lengths = np.sort(random.lognormal(sigma=1.0, size=120))
    rest, s = lengths[:-longest].copy(), lengths[-longest]
    most, share = forged_bound(len(rest), uniform, 1 - ALPHA), length_bound(by_length, 1 - ALPHA)
    if prover == "pieces of length s":
        forged = np.arange(int(factor * most) + 1)
        rest[forged] = s
    else:
        forged = forge(rest, prover, most, factor * share)
    wrong = np.isin(np.arange(len(rest)), forged)
    allowed = factor * min(share * rest.sum(), most * s)
    assert rest[wrong].sum() > allowed, "what is said of this prover is true"
    missed = random.hypergeometric(wrong.sum(), (~wrong).sum(), uniform, TRIALS) == 0
    missed &= missed_by_length(random, rest, wrong, by_length)
    return float(missed.mean())


@pytest.mark.parametrize(
    ("prover", "uniform", "by_length"),
    [("pieces of length s", 20, 0), ("length", 1, 20), ("both", 20, 20), ("pieces of length s", 20, 3)],
)
def test_what_forged_segments_moved_is_within_the_joint_bound(
    prover: str, uniform: int, by_length: int
) -> None:
    """S4 (a): provers at the edge of the bound are passed as seldom as is said."""
    assert said_falsely(prover, uniform, by_length, 1.0) <= ALPHA + SPREAD


@pytest.mark.parametrize(
    ("prover", "uniform", "by_length"), [("pieces of length s", 20, 0), ("length", 1, 20)]
)
def test_a_joint_bound_that_is_less_is_false_too_often(prover: str, uniform: int, by_length: int) -> None:
    """S4 (a) is not far from the least that holds: 15 % less does not."""
    assert said_falsely(prover, uniform, by_length, 0.85) > ALPHA + SPREAD


def test_of_segments_that_count_forged_ones_are_missed_as_often_as_of_all() -> None:
    """S4 (e) on the draw of `verify.sampling` itself: by either kind of draw, and by both together."""
    policy = Policy(
        name="some", replay=Replay.SAMPLE, confidence=0.6, tolerated_fraction=0.3, tolerated_length=0.3
    )
    segments, lengths = 60, [1.0] * 60
    counting = set(range(1, 59, 2))
    forged = {1, 3, 5, 7}
    missed, allowed, added = np.zeros((3, TRIALS)), np.zeros(TRIALS), 0
    for number in range(TRIALS):
        sample = draw_sample(
            policy, segments, number.to_bytes(32, "big"), bytes(32), lengths=lengths, counting=counting
        )
        drawn = counting & {*sample.uniform, *sample.also_uniform}
        by_length = [i for i in (*sample.weighted, *sample.also_weighted) if i in counting]
        uniform, weighted = not forged & drawn, not forged & set(by_length)
        missed[:, number] = uniform, weighted, uniform and weighted
        allowed[number] = float(missed_probability(len(counting), len(forged), len(drawn)))
        added += bool(sample.also_uniform) and bool(sample.also_weighted)
    assert added > TRIALS / 10
    law = (1 - len(forged) / len(counting)) ** len(by_length)
    expected = allowed.mean(), law, allowed.mean() * law
    assert all(0.02 < one < 0.6 for one in expected)
    assert missed.mean(axis=1) == pytest.approx(expected, abs=0.016)  # four standard deviations of a half


def test_a_draw_from_the_root_alone_is_ground() -> None:
    """S5 (b), (c): a forger tries roots until one draws none of what is forged; not so with a fresh draw."""
    segments, forged, drawn, tries = 20, {4, 11, 15}, 12, 40

    def misses(key: bytes) -> bool:
        ranked = sorted(range(segments), key=lambda i: sha256(key + i.to_bytes(8, "big")).digest())
        return not forged & set(ranked[:drawn])

    one = comb(segments - len(forged), drawn) / comb(segments, drawn)
    roots = [[f"{trial} {number}".encode() for number in range(tries)] for trial in range(300)]
    ground = sum(any(misses(root) for root in own) for own in roots) / len(roots)
    assert ground == pytest.approx(1 - (1 - one) ** tries, abs=0.1)
    fresh = sum(misses(b"fresh" + sha256(own[-1]).digest() + own[0]) for own in roots * 5) / 1500
    assert one < 0.06 and ground > 0.7 and fresh < 0.12


@pytest.mark.parametrize(("population", "drawn"), [(20, 16), (100, 39), (5000, 59)])
def test_one_forged_segment_passes_as_often_as_it_is_not_drawn(population: int, drawn: int) -> None:
    """S6 (a), (b)."""
    assert missed_probability(population, 1, drawn) * population == population - drawn
    random = np.random.default_rng(drawn)
    passed = (random.hypergeometric(1, population - 1, drawn, TRIALS) == 0).mean()
    assert passed == pytest.approx(1 - drawn / population, abs=0.02)
    needed = next(n for n in range(population + 1) if missed_probability(population, 1, n) <= ALPHA)
    assert needed >= (1 - ALPHA) * population


def test_swings_hide_a_jump_from_draws_by_length() -> None:
    """S6 (c): the longer true segments swing, the more often a jump passes."""
    random, jump, draws = np.random.default_rng(4), 10.0, 30
    passed = []
    for swing in (0.0, 20.0, 200.0, 2000.0):
        lengths = np.concatenate([np.ones(50), np.full(6, swing), [jump]])
        forged = np.arange(len(lengths)) == len(lengths) - 1
        passed.append(missed_by_length(random, lengths, forged, draws).mean())
        law = ((lengths.sum() - jump) / lengths.sum()) ** draws
        assert passed[-1] == pytest.approx(law, abs=0.02)
    assert passed == sorted(passed)
    assert passed[0] < 0.05 and passed[-1] > 0.95
