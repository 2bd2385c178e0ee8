"""How the segments to replay are drawn: the ends, the longest, uniformly and by length."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from gradseal.verify.policy import POLICIES, Policy, Replay
from gradseal.verify.sampling import MOST_LENGTH_DRAWS, draw_by_length, draw_sample
from gradseal.verify.statistics import draws_needed, length_draws_needed

ROOT = bytes(range(32))


STANDARD = POLICIES["standard"]


def drawn_with(number: int, policy: Policy, root: bytes = ROOT) -> tuple[int, ...]:
    return draw_sample(policy, 12, number.to_bytes(32, "big"), root).uniform


def test_a_draw_is_repeatable_and_bound_to_checkpoint_and_randomness() -> None:
    lengths = [1.0 + i % 7 for i in range(500)]
    first = draw_sample(STANDARD, 500, bytes(32), ROOT, lengths=lengths)
    assert draw_sample(STANDARD, 500, bytes(32), ROOT, lengths=lengths) == first
    for draw, root in ((bytes(31) + b"\1", ROOT), (bytes(32), bytes(32))):
        other = draw_sample(STANDARD, 500, draw, root, lengths=lengths)
        assert other.certain == first.certain
        assert other.uniform != first.uniform
        assert other.weighted != first.weighted


@given(st.integers(0, 120), st.binary(min_size=32, max_size=32), st.data())
def test_a_sample_has_the_ends_and_as_many_others_as_the_policy_needs(
    segments: int, draw: bytes, data: st.DataObject
) -> None:
    lengths = [float((i * 7919) % 101 + 1) for i in range(segments)]
    longest = data.draw(st.integers(0, 20))
    policy = replace(STANDARD, longest=longest)
    sample = draw_sample(policy, segments, draw, ROOT, lengths=lengths)
    ends = {0, segments - 1} if segments else set()
    top = sorted(range(segments), key=lambda i: (-lengths[i], i))[:longest]
    rest = set(range(segments)) - ends - set(top)
    assert sample.certain == tuple(sorted({*ends, *top}))
    assert sample.population == len(rest)
    assert len(sample.uniform) == draws_needed(len(rest), policy.tolerated_fraction, policy.bound_confidence)
    assert len(sample.weighted) == (length_draws_needed(0.1, policy.bound_confidence) if rest else 0)
    assert {*sample.uniform, *sample.weighted} <= rest
    assert sample.segments == sorted({*sample.certain, *sample.uniform, *sample.weighted})
    assert sample.length == math.fsum(lengths[i] for i in rest)


def test_a_segment_that_is_drawn_twice_is_replayed_once() -> None:
    sample = draw_sample(replace(STANDARD, longest=0), 5, bytes(32), ROOT, lengths=[1, 1, 90, 1, 1])
    assert Counter(sample.weighted)[2] > 1
    assert sample.segments == sorted(set(sample.segments))


@pytest.mark.parametrize("segments", [0, 1, 2, 3, 50])
def test_the_other_policies_draw_nothing(segments: int) -> None:
    assert draw_sample(POLICIES["full"], segments, bytes(32), ROOT).segments == list(range(segments))
    ends = draw_sample(POLICIES["quick"], segments, bytes(32), ROOT)
    assert ends.segments == sorted({0, segments - 1} if segments else ())
    assert ends.uniform == ()


def test_draws_are_uniform() -> None:
    """Each of the 45 pairs of ten segments about equally often: chi-squared below its 99.99 % quantile."""
    # Two of ten: an absurdly tolerant policy.
    policy = Policy(name="pairs", replay=Replay.SAMPLE, confidence=0.75, tolerated_fraction=0.5)
    counts: dict[tuple[int, ...], int] = {}
    draws = 9000
    for number in range(draws):
        pair = drawn_with(number, policy)
        counts[pair] = counts.get(pair, 0) + 1
    assert {len(pair) for pair in counts} == {2}
    assert len(counts) == 45
    expected = draws / 45
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 88.5


def test_draws_by_length_are_in_proportion_to_it() -> None:
    """Chi-squared of 40,000 draws over five segments, below its 99.99 % quantile for three degrees."""
    lengths = [1.0, 0.0, 2.5, 7.0, 1e-3]
    counts = Counter(draw_by_length(lengths, 40_000, bytes(32)))
    assert counts[1] == 0
    expected = {i: 40_000 * length / sum(lengths) for i, length in enumerate(lengths) if length}
    assert sum((counts[i] - n) ** 2 / n for i, n in expected.items()) < 21.1


def test_draws_by_length_are_independent_of_each_other_and_of_the_uniform_ones() -> None:
    """Of two segments of one length: each of the four pairs of neighbouring draws a quarter of the time."""
    drawn = draw_by_length([1.0, 1.0], 20_001, b"key")
    pairs = Counter(pairwise(drawn))
    assert all(abs(count - 5000) < 4 * 61.3 for count in pairs.values())
    policy = Policy(
        name="two", replay=Replay.SAMPLE, confidence=0.5, tolerated_fraction=0.5, tolerated_length=0.75
    )
    both: Counter[tuple[tuple[int, ...], tuple[int, ...]]] = Counter()
    for number in range(4800):
        sample = draw_sample(policy, 6, number.to_bytes(32, "big"), ROOT, lengths=[1.0] * 6)
        both[sample.uniform, sample.weighted] += 1
    assert len(both) == 6 * 4, "of four segments two uniformly and one by length"
    assert sum((n - 200) ** 2 / 200 for n in both.values()) < chi2.ppf(0.9999, 23)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_length_that_is_not_known_ranks_as_the_longest(wrong: float) -> None:
    lengths = [1.0 + i for i in range(60)]
    lengths[17] = wrong
    sample = draw_sample(STANDARD, 60, bytes(32), ROOT, lengths=lengths)
    assert 17 in sample.certain
    # It is replayed for certain, so the rest is known.
    assert (len(sample.weighted), sample.length is not None) == (36, True)
    few = draw_sample(replace(STANDARD, longest=0), 60, bytes(32), ROOT, lengths=lengths)
    assert (few.weighted, few.length) == ((), None)
    # Whoever hides lengths is not drawn from less: of the rest as many more, uniformly.
    known = draw_sample(replace(STANDARD, longest=0), 60, bytes(32), ROOT, lengths=[1.0] * 60)
    assert set(known.uniform) < set(few.uniform)
    assert len(few.uniform) == min(few.population, len(known.uniform) + len(known.weighted))


def test_lengths_that_are_missing_are_not_known() -> None:
    sample = draw_sample(STANDARD, 60, bytes(32), ROOT, lengths=[1.0] * 20)
    assert (sample.weighted, sample.length) == ((), None)
    assert set(range(20, 30)) <= set(sample.certain)


def test_hostile_lengths_are_drawn_by() -> None:
    """The largest and the smallest numbers there are, sums that overflow, and more lengths than segments."""
    for lengths in (
        [1.7e308] * 50,
        [5e-324] * 50,
        [1.7e308, 5e-324] * 25,
        [0.0] * 49 + [5e-324],
        [1.0] * 500,
    ):
        sample = draw_sample(replace(STANDARD, longest=1), 50, bytes(32), ROOT, lengths=lengths)
        assert all(0 < i < 49 for i in sample.weighted)
        assert len(sample.weighted) in {0, 36}
    assert draw_by_length([1.7e308] * 3, 300, b"") != draw_by_length([1.7e308] * 3, 300, b"1")
    assert set(draw_by_length([1.7e308] * 3, 300, b"")) == {0, 1, 2}
    assert set(draw_by_length([5e-324, 0.0, 5e-324], 300, b"")) == {0, 2}


def test_a_rest_that_moved_nothing_has_no_draws_by_length() -> None:
    sample = draw_sample(STANDARD, 60, bytes(32), ROOT, lengths=[0.0] * 60)
    assert (sample.weighted, sample.length) == ((), 0.0)
    assert sample.uniform


def test_a_share_that_no_number_of_draws_rules_out_replays_all() -> None:
    for tolerated in (0.0, 5e-324, 1e-9):
        policy = replace(STANDARD, tolerated_length=tolerated)
        assert draw_sample(policy, 30, bytes(32), ROOT, lengths=[1.0] * 30).segments == list(range(30))
    least = replace(STANDARD, tolerated_length=1e-4)
    assert len(draw_sample(least, 30, bytes(32), ROOT, lengths=[1.0] * 30).weighted) <= MOST_LENGTH_DRAWS


def test_draws_by_length_are_not_among_those_tried_under_another_seed_by_chance() -> None:
    """What a sample of them shows of the others must be of a uniform one."""
    policy = replace(STANDARD, dependence=Replay.SAMPLE, longest=0)
    lengths = [1.0] * 400
    for number in range(5):
        sample = draw_sample(policy, 400, bytes([number]) * 32, ROOT, lengths=lengths, slots=True)
        assert sample.diverted <= {*sample.certain, *sample.uniform}


COUNTING = frozenset(i for i in range(60) if i % 3)
LENGTHS = [1.0 + i % 7 for i in range(60)]


@given(st.binary(min_size=32, max_size=32), st.sets(st.integers(0, 59)))
def test_of_segments_that_count_as_many_are_drawn_as_if_they_were_all(
    draw: bytes, counting: set[int]
) -> None:
    plain = draw_sample(STANDARD, 60, draw, ROOT, lengths=LENGTHS)
    sample = draw_sample(STANDARD, 60, draw, ROOT, lengths=LENGTHS, counting=counting)
    rest = counting - set(sample.certain)
    drawn = rest & {*sample.uniform, *sample.also_uniform}
    needed = draws_needed(len(rest), STANDARD.tolerated_fraction, STANDARD.bound_confidence)
    assert len(drawn) >= needed
    assert len(drawn) == max(needed, len(rest & set(sample.uniform)))
    by_length = [i for i in (*sample.weighted, *sample.also_weighted) if i in rest]
    assert len(by_length) == (len(plain.weighted) if rest else 0)
    assert {*sample.also_uniform, *sample.also_weighted} <= rest
    assert replace(sample, also_uniform=(), also_weighted=()) == plain
    assert set(sample.segments) == {*plain.segments, *sample.also_uniform, *sample.also_weighted}


def test_where_all_count_nothing_is_added() -> None:
    for i in range(20):
        draw = i.to_bytes(32, "big")
        plain = draw_sample(STANDARD, 60, draw, ROOT, lengths=LENGTHS)
        assert draw_sample(STANDARD, 60, draw, ROOT, lengths=LENGTHS, counting=range(60)) == plain


def test_what_is_added_is_drawn_as_the_rest_was() -> None:
    few = replace(STANDARD, tolerated_fraction=0.3, tolerated_length=0.3, longest=0)
    uniform: Counter[int] = Counter()
    weighted: Counter[int] = Counter()
    for i in range(3000):
        sample = draw_sample(few, 60, i.to_bytes(32, "big"), ROOT, lengths=LENGTHS, counting=COUNTING)
        uniform.update(COUNTING & {*sample.uniform, *sample.also_uniform})
        weighted.update(i for i in (*sample.weighted, *sample.also_weighted) if i in COUNTING)
    rest = sorted(COUNTING - {0, 59})
    assert set(uniform) == set(weighted) == set(rest)
    equal = sum(uniform.values()) / len(rest)
    # Draws without replacement vary less than independent ones, so that the law of these is a bound.
    assert sum((uniform[i] - equal) ** 2 / equal for i in rest) < chi2.ppf(0.999, len(rest) - 1)
    share = sum(weighted.values()) / sum(LENGTHS[i] for i in rest)
    far = sum((weighted[i] - share * LENGTHS[i]) ** 2 / (share * LENGTHS[i]) for i in rest)
    assert far < chi2.ppf(0.999, len(rest) - 1)
