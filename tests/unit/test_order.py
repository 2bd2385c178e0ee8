"""Each sample once an epoch, in an order that the seed alone gives."""

from __future__ import annotations

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
