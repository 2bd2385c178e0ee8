"""Each sample once an epoch, in an order that the seed alone gives."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradseal.errors import MalformedBundle, UnknownKind
from gradseal.program.order import SEQUENTIAL, SHUFFLED, Order
from gradseal.program.randomness import derive, permutation
from gradseal.program.seeds import Seeds, Stretch

SEED = bytes(range(32))


def one(seed: bytes) -> Seeds:
    return Seeds(every=1, accumulate=1, stretches=[Stretch(first_segment=0, seed=seed)])


def order(samples: int, batch: int, rule: str = SHUFFLED, drop: bool = False, seed: bytes = SEED) -> Order:
    return Order(rule=rule, samples=samples, batch_size=batch, drop_last=drop, seeds=one(seed))


@given(
    samples=st.integers(1, 60),
    batch=st.integers(1, 60),
    drop=st.booleans(),
    rule=st.sampled_from([SHUFFLED, SEQUENTIAL]),
)
def test_each_sample_once_an_epoch(samples: int, batch: int, drop: bool, rule: str) -> None:
    batch = min(batch, samples)
    own = order(samples, batch, rule, drop)
    for epoch in range(2):
        steps = range(epoch * own.batches_per_epoch, (epoch + 1) * own.batches_per_epoch)
        batches = [own.indices(step) for step in steps]
        seen = np.concatenate(batches).tolist()
        assert len(set(seen)) == len(seen)
        assert len(seen) == (samples - samples % batch if drop else samples)
        assert set(seen) <= set(range(samples))
        assert {len(b) for b in batches} == set(own.batch_sizes)
        assert all(len(b) == batch for b in batches[:-1])


def test_the_permutation_is_that_of_the_epochs_key() -> None:
    own = order(11, 4)
    for epoch in (0, 1, 7):
        steps = range(3 * epoch, 3 * epoch + 3)
        expected = permutation(derive(SEED, "order", epoch), 11)
        assert np.concatenate([own.indices(s) for s in steps]).tolist() == expected.tolist()


def test_any_step_can_be_asked_for_at_any_time() -> None:
    forward = [order(10, 3).indices(s).tolist() for s in range(9)]
    own = order(10, 3)
    assert [own.indices(s).tolist() for s in reversed(range(9))] == forward[::-1]
    assert forward[:4] != forward[4:8]
    assert order(10, 3, seed=bytes(32)).indices(0).tolist() != forward[0]


def test_sequential() -> None:
    own = order(5, 2, SEQUENTIAL)
    assert [own.indices(s).tolist() for s in range(4)] == [[0, 1], [2, 3], [4], [0, 1]]
    assert own.batch_sizes == (2, 1)
    assert order(5, 2, SEQUENTIAL, drop=True).batch_sizes == (2,)


def test_plans_that_have_no_order() -> None:
    for samples, batch in ((3, 4), (3, 0), (0, 1)):
        with pytest.raises(MalformedBundle):
            order(samples, batch)
    with pytest.raises(UnknownKind):
        order(3, 1, "other")


def as_specified(samples: int, batch: int, drop: bool, seeds: Seeds, number: int) -> list[int]:
    """A batch as docs/spec/program.md, section 7, says it, from its epoch's first on."""
    an_epoch = samples // batch if drop else -(-samples // batch)
    epoch, place = divmod(number, an_epoch)
    first = epoch * an_epoch
    seed = seeds.of_batches(first, first)[0][1]
    own = permutation(derive(seed, "order", epoch), samples).tolist()
    for k in range(1, place + 1):
        now = seeds.of_batches(first + k, first + k)[0][1]
        if now != seed:
            kept, left = own[: k * batch], own[k * batch :]
            own = kept + [left[i] for i in permutation(derive(now, "order", epoch, first + k), len(left))]
            seed = now
    return [int(i) for i in own[place * batch : place * batch + batch]]


@st.composite
def several(draw: st.DrawFn) -> tuple[int, int, bool, Seeds]:
    samples = draw(st.integers(1, 40))
    begins = sorted(draw(st.lists(st.integers(0, 30), max_size=8)))
    return (
        samples,
        draw(st.integers(1, samples)),
        draw(st.booleans()),
        Seeds(
            every=draw(st.integers(1, 4)),
            accumulate=draw(st.integers(1, 3)),
            stretches=[
                Stretch(first_segment=first, seed=bytes([number]) * 32)
                for number, first in enumerate([0, *begins])
            ],
        ),
    )


@given(several())
def test_each_sample_once_an_epoch_whatever_the_seeds(drawn: tuple[int, int, bool, Seeds]) -> None:
    samples, batch, drop, seeds = drawn
    own = Order(rule=SHUFFLED, samples=samples, batch_size=batch, drop_last=drop, seeds=seeds)
    for epoch in range(3):
        numbers = range(epoch * own.batches_per_epoch, (epoch + 1) * own.batches_per_epoch)
        seen = [i for number in numbers for i in own.indices(number).tolist()]
        assert len(set(seen)) == len(seen) == (samples - samples % batch if drop else samples)


@given(several(), st.lists(st.integers(0, 120), max_size=30))
def test_any_batch_at_any_time_is_what_the_specification_says(
    drawn: tuple[int, int, bool, Seeds], asked: list[int]
) -> None:
    samples, batch, drop, seeds = drawn
    own = Order(rule=SHUFFLED, samples=samples, batch_size=batch, drop_last=drop, seeds=seeds)
    for number in asked:
        assert own.indices(number).tolist() == as_specified(samples, batch, drop, seeds, number)


def test_a_seed_that_begins_while_recording_changes_only_what_is_left() -> None:
    seeds = Seeds(every=2, accumulate=1, stretches=[Stretch(first_segment=0, seed=SEED)])
    own = Order(rule=SHUFFLED, samples=40, batch_size=4, drop_last=False, seeds=seeds)
    before = [own.indices(number).tolist() for number in range(10)]
    ahead = own.indices(5)  # read ahead, while nobody knew of another seed
    seeds.begin(2, bytes(32))
    after = [own.indices(number).tolist() for number in range(10)]
    assert after[:4] == before[:4]
    assert after[4:] != before[4:]
    assert sorted(chain(*after[4:])) == sorted(chain(*before[4:]))
    assert ahead.tolist() == before[5]  # what was handed out stays as it was


def test_a_seed_that_begins_with_an_epoch_permutes_it_once() -> None:
    seeds = Seeds(
        every=1,
        accumulate=1,
        stretches=[Stretch(first_segment=0, seed=bytes(32)), Stretch(first_segment=3, seed=SEED)],
    )
    own = Order(rule=SHUFFLED, samples=9, batch_size=3, drop_last=False, seeds=seeds)
    found = [i for number in range(3, 6) for i in own.indices(number).tolist()]
    assert found == permutation(derive(SEED, "order", 1), 9).tolist()


def test_sequential_order_knows_no_seed() -> None:
    seeds = Seeds(
        every=1,
        accumulate=1,
        stretches=[Stretch(first_segment=0, seed=bytes(32)), Stretch(first_segment=1, seed=SEED)],
    )
    own = Order(rule=SEQUENTIAL, samples=5, batch_size=2, drop_last=False, seeds=seeds)
    assert [own.indices(number).tolist() for number in range(4)] == [[0, 1], [2, 3], [4], [0, 1]]
