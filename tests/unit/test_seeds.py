"""Which seed each segment, step and batch draws from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradseal.program.seeds import Seeds, Stretch

A, B, C, D = (bytes([i]) * 32 for i in range(4))


def seeds(every: int, accumulate: int, *begins: tuple[int, bytes]) -> Seeds:
    stretches = [Stretch(first_segment=first, seed=seed) for first, seed in begins]
    return Seeds(every=every, accumulate=accumulate, stretches=stretches)


def test_a_stretch_lasts_until_the_next_begins() -> None:
    own = seeds(2, 3, (0, A), (2, B), (5, C))
    assert own.initial == A
    assert [own.of_segment(i) for i in range(7)] == [A, A, B, B, B, C, C]
    assert [own.of_step(i) for i in (0, 3, 4, 9, 10, 99)] == [A, A, B, B, C, C]


def test_of_several_that_begin_with_one_segment_the_last_counts() -> None:
    own = seeds(1, 1, (0, A), (0, B), (2, C), (2, D))
    assert own.initial == A  # but state zero is the first one's
    assert [own.of_segment(i) for i in range(4)] == [B, B, D, D]
    assert own.of_batches(0, 3) == [(0, B), (2, D)]


def test_the_batches_at_which_seeds_begin() -> None:
    own = seeds(2, 3, (0, A), (1, B), (3, C))
    assert own.of_batches(0, 5) == [(0, A)]
    assert own.of_batches(0, 6) == [(0, A), (6, B)]
    assert own.of_batches(4, 30) == [(4, A), (6, B), (18, C)]
    assert own.of_batches(6, 17) == [(6, B)]
    assert own.of_batches(7, 18) == [(7, B), (18, C)]


def test_a_stretch_begins_while_the_run_is_recorded() -> None:
    own = seeds(1, 1, (0, A))
    own.begin(0, B)
    own.begin(3, C)
    assert [own.of_segment(i) for i in range(4)] == [B, B, B, C]
    with pytest.raises(ValueError, match="segment 2 has its seed already"):
        own.begin(2, D)
    assert own.stretches[-1] == Stretch(first_segment=3, seed=C)


@pytest.mark.parametrize("segment", range(7))
def test_diverted_at_a_segment(segment: int) -> None:
    own = seeds(1, 1, (0, A), (2, B), (5, C))
    other = own.diverted(segment, D)
    assert other.initial == own.initial
    assert [other.of_segment(i) for i in range(segment)] == [own.of_segment(i) for i in range(segment)]
    assert {other.of_segment(i) for i in range(segment, 9)} == {D}
    assert [own.of_segment(i) for i in range(7)] == [A, A, B, B, B, C, C]  # as before


@given(
    every=st.integers(1, 4),
    accumulate=st.integers(1, 4),
    begins=st.lists(st.integers(0, 12), max_size=6),
    first=st.integers(0, 60),
    more=st.integers(0, 60),
)
def test_the_seed_of_each_batch_is_that_of_its_step(
    every: int, accumulate: int, begins: list[int], first: int, more: int
) -> None:
    stretches = [(begin, bytes([number]) * 32) for number, begin in enumerate([0, *sorted(begins)])]
    own = seeds(every, accumulate, *stretches)
    found = own.of_batches(first, first + more)
    assert found[0][0] == first and found == sorted(found)
    for batch in range(first, first + more + 1):
        seed = [seed for begin, seed in found if begin <= batch][-1]
        assert seed == own.of_step(batch // accumulate)
    assert len({seed for _, seed in found}) == len(found)
