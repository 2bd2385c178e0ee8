"""Clipping in exact arithmetic: the norm against Python's integers, in any order, layout and grouping."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.clipping import ClipNorm
from gradseal.program.exact import updates

NAN_BITS = 0x7FC00000
LARGEST = 2.0**128 - 2.0**104


def bits(x: Tensor) -> list[int]:
    """With one NaN: its bits are no part of what clipping defines."""
    x = torch.where(x.isnan(), torch.nan, x).contiguous()
    values: list[int] = (x.view(-1).view(torch.int32).to(torch.int64) & 0xFFFFFFFF).tolist()
    return values


def norm(numbers: list[float]) -> float:
    """The definition, in integers."""
    if any(map(math.isnan, numbers)):
        return math.nan
    if any(map(math.isinf, numbers)):
        return math.inf
    largest = max((abs(Fraction(x)) for x in numbers), default=Fraction(0))
    if largest == 0:
        return 0.0
    e = -149
    while largest >= Fraction(2) ** e:
        e += 1
    total = sum(round(Fraction(x) / Fraction(2) ** (e - 24)) ** 2 for x in numbers)
    return math.sqrt(total) * 2.0 ** (e - 24)


def scaled(numbers: list[float], max_norm: float) -> list[int]:
    quotient = max_norm / (norm(numbers) + 1e-6)
    factor = float(torch.tensor(quotient if not quotient > 1 else 1.0))
    found = []
    for x in numbers:
        y = x * factor
        # The product of two float32 is a float64, or not finite; struct rounds it once.
        found.append(NAN_BITS if math.isnan(y) else int(struct.unpack(">I", struct.pack(">f", y))[0]))
    return found


def check(numbers: list[float], max_norm: float, cuts: list[int]) -> None:
    x = torch.tensor(numbers, dtype=torch.float64).to(torch.float32)
    bounds = [0, *sorted(min(cut, len(numbers)) for cut in cuts), len(numbers)]
    gradients = {str(i): x[a:b] for i, (a, b) in enumerate(pairwise(bounds))}
    before = x.clone()
    clipped = ClipNorm(max_norm=max_norm).apply(gradients, exact=True)
    assert list(clipped) == list(gradients)
    assert bits(torch.cat(list(clipped.values()))) == scaled(numbers, max_norm)
    assert bits(x) == bits(before)


FLOATS = st.one_of(
    st.floats(width=32),
    st.floats(width=32, min_value=-2.0, max_value=2.0),
    st.sampled_from([0.0, -0.0, LARGEST, -LARGEST, 2.0**-149, 2.0**-126]),
)
FINITE = FLOATS.filter(math.isfinite)
MAX_NORM = st.floats(min_value=1e-60, max_value=1e60)
CUTS = st.lists(st.integers(0, 40), max_size=4)


@settings(max_examples=300)
@given(numbers=st.lists(FINITE, max_size=40), max_norm=MAX_NORM, cuts=CUTS)
def test_the_bits_of_the_definition(numbers: list[float], max_norm: float, cuts: list[int]) -> None:
    check(numbers, max_norm, cuts)


@settings(max_examples=100)
@given(numbers=st.lists(FLOATS, min_size=1, max_size=40), max_norm=MAX_NORM, cuts=CUTS)
def test_numbers_that_are_not_finite(numbers: list[float], max_norm: float, cuts: list[int]) -> None:
    check(numbers, max_norm, cuts)


def test_the_largest_sums_of_squares() -> None:
    count = (1 << 17) + 37
    x = torch.full((count,), LARGEST)
    assert updates.norm([x]) == math.sqrt(count * (2**24 - 1) ** 2) * 2.0**104
    assert updates.norm([x]) > LARGEST
    numbers = torch.randn(count, generator=torch.Generator().manual_seed(0))
    assert updates.norm([numbers]) == norm(numbers.tolist())


def test_neither_overflow_nor_underflow() -> None:
    for size in (2.0**-149, 2.0**-130, 2.0**-80, 2.0**70, 2.0**126):
        assert updates.norm([torch.tensor([3.0, 4.0]).div_(4.0) * size]) == pytest.approx(
            1.25 * size, rel=0.2
        )
    assert updates.norm([torch.tensor([3 * 2.0**-148, 2.0**-147 * 2])]) == 5 * 2.0**-148


def test_order_layout_grouping_and_threads_change_nothing() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(257, 311, generator=generator) * torch.randn(257, 311, generator=generator).exp()
    flat = x.reshape(-1)
    found = {
        updates.norm(tensors)
        for tensors in (
            [x],
            [x.T],
            [x.T.contiguous()],
            [flat[torch.randperm(flat.numel(), generator=generator)]],
            list(torch.split(flat, 1000)),
            list(torch.split(x, 50))[::-1],
            [x[:, ::2], x[:, 1::2], x[:0]],
        )
    }
    torch.set_num_threads(2)
    found.add(updates.norm([x]))
    assert len(found) == 1
    assert found.pop() == pytest.approx(float(torch.linalg.vector_norm(x.double())), rel=1e-7)


@pytest.mark.parametrize("max_norm", [1e-9, 0.1, 1.0, 250.0, 1e9])
def test_near_to_torch(max_norm: float) -> None:
    generator = torch.Generator().manual_seed(2)
    gradients = {str(i): torch.randn(3, i, generator=generator) for i in range(50)}
    native = ClipNorm(max_norm=max_norm).apply(gradients)
    exact = ClipNorm(max_norm=max_norm).apply(gradients, exact=True)
    for name, gradient in native.items():
        torch.testing.assert_close(exact[name], gradient, rtol=1e-6, atol=0.0)


def test_without_gradients() -> None:
    assert ClipNorm(max_norm=1.0).apply({}, exact=True) == {}
    empty = ClipNorm(max_norm=1.0).apply({"a": torch.ones(0, 3)}, exact=True)
    assert empty["a"].shape == (0, 3)
    assert ClipNorm(max_norm=1.0).apply({"a": torch.tensor(4.0)}, exact=True)["a"].shape == ()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64])
def test_other_types_are_refused(dtype: torch.dtype) -> None:
    gradients = {"a": torch.ones(2), "b": torch.ones(2, dtype=dtype)}
    with pytest.raises(ReplayError, match="takes float32, not") as caught:
        ClipNorm(max_norm=1.0).apply(gradients, exact=True)
    assert caught.value.where == "clip: b"
