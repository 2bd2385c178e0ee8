"""Products and convolutions of exact arithmetic against the formulas, in Python's integers and fractions.

The oracle below shares no code with the package: it follows docs/spec/arithmetic.md, one element at a time.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact.convolution import (
    Window,
    conv2d,
    conv2d_input_gradient,
    conv2d_weight_gradient,
)
from gradseal.program.exact.digits import digits, fixed_point, leading
from gradseal.program.exact.products import MAX_LENGTH, Realisation, bmm, matmul
from vectors import make

Case = dict[str, Any]
VECTORS: Case = json.loads((make.HERE / "arithmetic.json").read_text(encoding="utf-8"))
NAN = 0x7FC00000
ALL = list(Realisation)
LARGEST = 0x7F7FFFFF


def number(bits: int) -> Fraction | None:
    """The value of a float32; None of what is not finite."""
    sign, biased, fraction = bits >> 31, bits >> 23 & 0xFF, bits & 0x7FFFFF
    if biased == 0xFF:
        return None
    magnitude = fraction if biased == 0 else (fraction | 0x800000) << (biased - 1)
    return Fraction(-magnitude if sign else magnitude, 2**149)


def written(vector: Sequence[int]) -> tuple[int, list[int]] | None:
    """Section 2: the exponent of a vector and its elements as integers."""
    numbers = [number(bits) for bits in vector]
    finite = [x for x in numbers if x is not None]
    if len(finite) < len(numbers):
        return None
    exponent = -149
    while any(abs(x) >= Fraction(2) ** exponent for x in finite):
        exponent += 1
    return exponent, [round(x * Fraction(2) ** (27 - exponent)) for x in finite]


def balanced(integer: int) -> list[int]:
    """Section 2: the four digits, from the last to the first."""
    found: list[int] = []
    for _ in range(3):
        found.append((integer + 64) % 128 - 64)
        integer = (integer - found[-1]) // 128
    return [integer, *reversed(found)]


def rounded(value: Fraction) -> int:
    """The bits of the nearest float32, ties to even; a zero is positive."""
    if value == 0:
        return 0
    quantum = Fraction(1, 2**149)
    while abs(value) >= quantum * 2**24:
        quantum *= 2
    count = round(value / quantum)
    if abs(count) * quantum >= 2**128:
        return 0x7F800000 if value > 0 else 0xFF800000
    if count == 0:
        return 0
    # What a float32 holds is not rounded by its conversion.
    return int.from_bytes(struct.pack(">f", float(count * quantum)), "big")


def dot(row: Sequence[int], column: Sequence[int]) -> int:
    """Section 3: one result."""
    a, b = written(row), written(column)
    if a is None or b is None:
        return NAN
    total = 0
    for x, y in zip(a[1], b[1], strict=True):
        left, right = balanced(x), balanced(y)
        total += sum(
            left[i] * right[j] * 2 ** (7 * (3 - i - j)) for i, j in product(range(4), range(4)) if i + j <= 3
        )
    return rounded(total * Fraction(2) ** (a[0] + b[0] - 33))


def tensor(words: Sequence[int], *shape: int) -> Tensor:
    signed = [w - 2**32 if w >= 2**31 else w for w in words]
    return torch.tensor(signed, dtype=torch.int32).view(torch.float32).reshape(shape)


def bits(x: Tensor) -> list[int]:
    assert x.dtype is torch.float32
    return [word & 0xFFFFFFFF for word in x.contiguous().view(torch.int32).flatten().tolist()]


def words(elements: Sequence[str]) -> list[int]:
    return [int(e, 16) for e in elements]


# Neighbours of what matters: zeros, subnormals, ones, the largest; any magnitude; and what is not finite.
PATTERNS = st.one_of(
    st.integers(0, 2**32 - 1),
    st.floats(-8, 8, width=32).map(lambda x: int.from_bytes(struct.pack(">f", x), "big")),
    st.sampled_from(
        [0, 1, 0x7FFFFF, 0x800000, 0x3F800000, 0x3F7FFFFF, LARGEST, 0x7F800000, 0x7FC00001]
    ).flatmap(lambda word: st.sampled_from([word, word | 0x80000000])),
)


def finite(word: int) -> int:
    return word & 0xBFFFFFFF if word & 0x7F800000 == 0x7F800000 else word


@st.composite
def operands(draw: st.DrawFn) -> tuple[int, int, int, list[int], list[int]]:
    m, k, n = (draw(st.integers(low, high)) for low, high in ((0, 3), (0, 6), (0, 3)))
    a, b = (draw(st.lists(PATTERNS, min_size=size, max_size=size)) for size in (m * k, k * n))
    if draw(st.booleans()):  # else nearly every row has something that is not finite
        a, b = [finite(w) for w in a], [finite(w) for w in b]
    return m, k, n, a, b


@pytest.mark.parametrize("case", VECTORS["fixed_point"])
def test_fixed_point_and_its_digits(case: Case) -> None:
    elements = words(case["elements"])
    found = fixed_point(tensor(elements, len(elements)), 0)
    parts = [part.tolist() for part in digits(leading(found.integers))]
    assert written(elements) == (case["exponent"], case["integers"])
    assert (found.exponents.tolist(), found.integers.tolist()) == ([case["exponent"]], case["integers"])
    assert [balanced(q) for q in case["integers"]] == case["digits"]
    assert [list(row) for row in zip(*parts, strict=True)] == case["digits"]
    assert found.finite.tolist() == [True]


@pytest.mark.parametrize("elements", VECTORS["not_finite"])
def test_a_vector_that_is_not_finite_has_no_fixed_point(elements: list[str]) -> None:
    assert written(words(elements)) is None
    found = fixed_point(tensor(words(elements), len(elements)), 0)
    assert found.finite.tolist() == [False]
    assert found.integers.tolist() == [0] * len(elements)


@given(st.lists(PATTERNS.map(finite), max_size=8))
def test_fixed_point_is_the_formula(elements: list[int]) -> None:
    found = fixed_point(tensor(elements, len(elements)), 0)
    assert written(elements) == (found.exponents.item(), found.integers.tolist())
    parts = [part.tolist() for part in digits(leading(found.integers))]
    assert [list(row) for row in zip(*parts, strict=True)] == [balanced(q) for q in found.integers.tolist()]


@pytest.mark.parametrize("realisation", ALL)
@pytest.mark.parametrize("case", VECTORS["products"])
def test_product_vectors(case: Case, realisation: Realisation) -> None:
    (m, k, n), a, b = case["shape"], words(case["a"]), words(case["b"])
    result = matmul(tensor(a, m, k), tensor(b, k, n), realisation=realisation)
    assert bits(result) == words(case["result"])
    assert words(case["result"]) == [dot(a[i * k : (i + 1) * k], b[j::n]) for i in range(m) for j in range(n)]


@pytest.mark.parametrize("realisation", ALL)
@pytest.mark.parametrize("case", VECTORS["long_products"])
def test_long_products(case: Case, realisation: Realisation) -> None:
    row, column = ([(count, int(e, 16)) for count, e in case[name]] for name in "ab")
    left, right = (torch.cat([tensor([e], 1).expand(count) for count, e in runs]) for runs in (row, column))
    assert bits(matmul(left[None], right[:, None], realisation=realisation)) == words(case["result"])


def test_a_sum_beyond_a_float64_is_rounded_once() -> None:
    # 2^53 + 2^29 + 1 units: as a float64 first, it would be a tie and lose its last bit.
    units = 2**20 * 64 * 64 * 2**21 + 2 * 2**20 * (64 * -8) + 2**30 + 2**29 + 1
    assert units == 2**53 + 2**29 + 1
    (case, _) = VECTORS["long_products"]
    assert words(case["result"]) == [rounded(Fraction(units * 2**21))]
    assert rounded(Fraction(int(float(units)) * 2**21)) != rounded(Fraction(units * 2**21))


@given(operands())
@settings(max_examples=150, deadline=None)
def test_every_realisation_is_the_formula(case: tuple[int, int, int, list[int], list[int]]) -> None:
    m, k, n, a, b = case
    expected = [dot(a[i * k : (i + 1) * k], b[j::n]) for i in range(m) for j in range(n)]
    for realisation in ALL:
        assert bits(matmul(tensor(a, m, k), tensor(b, k, n), realisation=realisation)) == expected


def spread_out(seed: int, *shape: int) -> Tensor:
    """Numbers over 60 binary orders of magnitude, a tenth of them the largest in magnitude."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 2**23, shape, generator=generator, dtype=torch.int32)
    x |= torch.randint(70, 130, shape, generator=generator, dtype=torch.int32) << 23
    x = torch.where(torch.rand(shape, generator=generator) < 0.1, 0x417FFFFF, x)
    x |= torch.randint(0, 2, shape, generator=generator, dtype=torch.int32) << 31
    return x.view(torch.float32)


@pytest.mark.parametrize("length", [1023, 1024, 1025, 5000])
def test_realisations_agree_whatever_the_length(length: int) -> None:
    a, b = spread_out(1, 5, length), spread_out(2, length, 3)
    results = [bits(matmul(a, b, realisation=realisation)) for realisation in ALL]
    assert results[0] == results[1] == results[2]
    assert results[0][:3] == [dot(bits(a[0]), bits(b[:, j])) for j in range(3)]


@pytest.mark.parametrize("realisation", ALL)
def test_the_largest_digits_do_not_saturate(realisation: Realisation) -> None:
    length = 2**17
    a = tensor([0x3F7FFFFF, 0xBF7FFFFF], 2, 1).expand(2, length)
    units = length * (64 * 64 * 2**21 + 2 * 64 * -8)
    expected = [rounded(Fraction(sign * units, 2**33)) for sign in (1, -1)]
    assert bits(matmul(a, a[:1].T, realisation=realisation)) == expected


@pytest.mark.parametrize("realisation", ALL)
def test_last_digits_are_summed_beyond_what_a_float32_counts_to(realisation: Realisation) -> None:
    # The first digits cancel most of an odd sum above 2^24, so that each of its units shows.
    count = 5001
    row = torch.tensor([2.0**26, 0.0, -3.0 * 2**21, *[63.0 * 2**7] * count])
    column = torch.tensor([0.0, 2.0**26, 3.0 * 2**21, *[63.0 * 2**14] * count])
    assert 63 * 63 * count > 2**24
    units = 63 * 63 * count - 9 * 2**21
    expected = [rounded(Fraction(units * 2**21))]
    assert bits(matmul(row[None], column[:, None], realisation=realisation)) == expected


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("realisation", [Realisation.FLOAT64, Realisation.MIXED])
def test_neither_threads_nor_strides_nor_order_change_a_bit(realisation: Realisation) -> None:
    a, b = spread_out(3, 64, 300), spread_out(4, 300, 48)
    shuffled = torch.randperm(300, generator=torch.Generator().manual_seed(5))
    with threads(1):
        expected = bits(matmul(a, b, realisation=realisation))
    with threads(2):
        assert bits(matmul(a, b, realisation=realisation)) == expected
    assert bits(matmul(a.T.contiguous().T, b.T.contiguous().T, realisation=realisation)) == expected
    assert bits(matmul(a[:, shuffled], b[shuffled], realisation=realisation)) == expected


@pytest.mark.parametrize("realisation", ALL)
def test_a_batch_is_its_pairs(realisation: Realisation) -> None:
    a, b = spread_out(6, 3, 4, 9), spread_out(7, 3, 9, 5)
    a[1, 2, 3] = float("inf")
    result = bmm(a, b, realisation=realisation)
    pairs = [matmul(x, y, realisation=realisation) for x, y in zip(a, b, strict=True)]
    assert bits(result) == bits(torch.stack(pairs))
    assert bits(result[1, 2]) == [NAN] * 5
    assert tuple(bmm(a[:0], b[:0], realisation=realisation).shape) == (0, 4, 5)


def test_operands_are_left_as_they_were() -> None:
    a, b = spread_out(8, 3, 4), spread_out(9, 4, 2)
    a[0, 0] = float("nan")
    before = bits(a), bits(b)
    for realisation in ALL:
        matmul(a, b, realisation=realisation)
    assert (bits(a), bits(b)) == before


def test_error_is_below_that_of_native_arithmetic() -> None:
    generator = torch.Generator().manual_seed(10)
    a, b = (torch.randn(128, 128, generator=generator) for _ in range(2))
    exact, native, reference = matmul(a, b), a @ b, a.double() @ b.double()
    assert (exact - reference).square().sum() < (native - reference).square().sum()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 3)),
        (torch.zeros(3), torch.zeros(3, 1)),
        (torch.zeros(1, 2, 3), torch.zeros(1, 3, 2)),
        (torch.zeros(2, 3, dtype=torch.float64), torch.zeros(3, 2, dtype=torch.float64)),
        (torch.zeros(1).expand(1, MAX_LENGTH + 1), torch.zeros(1).expand(MAX_LENGTH + 1, 1)),
    ],
)
def test_operands_that_do_not_fit_are_refused(a: Tensor, b: Tensor) -> None:
    with pytest.raises(ReplayError):
        matmul(a, b)


def test_batches_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ReplayError, match="do not fit"):
        bmm(torch.zeros(2, 1, 3), torch.zeros(1, 3, 1))


class Convolved:
    """A convolution of the vectors, element by element; everything is read as bits, by position."""

    def __init__(self, case: Case) -> None:
        self.shapes = {name: case[name]["shape"] for name in ("x", "weight", "gradient")}
        self.elements = {name: words(case[name]["elements"]) for name in self.shapes}
        self.stride: list[int] = case["stride"]
        self.padding: list[int] = case["padding"]
        self.dilation: list[int] = case["dilation"]
        self.groups: int = case["groups"]
        self.filters, self.depth, *self.kernel = self.shapes["weight"]

    def at(self, name: str, *position: int) -> int:
        index = 0
        for size, p in zip(self.shapes[name], position, strict=True):
            if not 0 <= p < size:
                return 0
            index = index * size + p
        return self.elements[name][index]

    def read(self, out: int, offset: int, side: int) -> int:
        """Which row (or column) of the image the kernel's `offset` reads for the result's `out`."""
        return out * self.stride[side] + offset * self.dilation[side] - self.padding[side]

    def writes(self, position: int, offset: int, side: int) -> int:
        """The inverse: which `out` reads it, or −1."""
        room = position + self.padding[side] - offset * self.dilation[side]
        return room // self.stride[side] if room % self.stride[side] == 0 else -1

    def offsets(self) -> Iterator[tuple[int, ...]]:
        return product(*map(range, self.kernel))

    def result(self, n: int, f: int, y: int, x: int) -> int:
        first = f // (self.filters // self.groups) * self.depth
        taps = [(c, *o) for c in range(self.depth) for o in self.offsets()]
        column = [self.at("x", n, first + c, self.read(y, u, 0), self.read(x, v, 1)) for c, u, v in taps]
        return dot([self.at("weight", f, *tap) for tap in taps], column)

    def input_gradient(self, n: int, c: int, y: int, x: int) -> int:
        own = self.filters // self.groups
        taps = [(c // self.depth * own + f, *o) for f in range(own) for o in self.offsets()]
        column = [self.at("gradient", n, f, self.writes(y, u, 0), self.writes(x, v, 1)) for f, u, v in taps]
        return dot([self.at("weight", f, c % self.depth, u, v) for f, u, v in taps], column)

    def weight_gradient(self, f: int, c: int, u: int, v: int) -> int:
        channel = f // (self.filters // self.groups) * self.depth + c
        batch, _, height, width = self.shapes["gradient"]
        places = list(product(range(batch), range(height), range(width)))
        column = [self.at("x", n, channel, self.read(y, u, 0), self.read(x, v, 1)) for n, y, x in places]
        return dot([self.at("gradient", n, f, y, x) for n, y, x in places], column)


@pytest.mark.parametrize("case", VECTORS["convolutions"])
def test_convolution_vectors_are_the_formula(case: Case) -> None:
    own = Convolved(case)
    for name, element in (
        ("result", own.result),
        ("input_gradient", own.input_gradient),
        ("weight_gradient", own.weight_gradient),
    ):
        positions = product(*map(range, case[name]["shape"]))
        assert [element(*p) for p in positions] == words(case[name]["elements"])


@pytest.mark.parametrize("realisation", ALL)
@pytest.mark.parametrize("case", VECTORS["convolutions"])
def test_convolutions(case: Case, realisation: Realisation) -> None:
    x, weight, gradient = (
        tensor(words(case[name]["elements"]), *case[name]["shape"]) for name in ("x", "weight", "gradient")
    )
    stride, padding, dilation = (tuple(case[name]) for name in ("stride", "padding", "dilation"))
    window = Window(stride=stride, padding=padding, dilation=dilation, groups=case["groups"])
    size, kernel = (x.shape[2], x.shape[3]), (weight.shape[2], weight.shape[3])
    for name, result in (
        ("result", conv2d(x, weight, window, realisation=realisation)),
        ("input_gradient", conv2d_input_gradient(gradient, weight, window, size, realisation=realisation)),
        ("weight_gradient", conv2d_weight_gradient(gradient, x, window, kernel, realisation=realisation)),
    ):
        assert list(result.shape) == case[name]["shape"]
        assert bits(result) == words(case[name]["elements"])


@pytest.mark.parametrize("shape", [(1, 3, 5, 5), (1, 2, 2, 5), (2, 5, 5)])
def test_images_that_a_kernel_does_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ReplayError):
        conv2d(torch.zeros(shape), torch.zeros(1, 2, 3, 3), Window())


def test_gradients_of_another_shape_are_refused() -> None:
    x, weight, gradient = torch.zeros(1, 2, 5, 5), torch.zeros(1, 2, 3, 3), torch.zeros(1, 1, 4, 3)
    with pytest.raises(ReplayError, match="gradient of shape"):
        conv2d_input_gradient(gradient, weight, Window(), (5, 5))
    with pytest.raises(ReplayError, match="gradient of shape"):
        conv2d_weight_gradient(gradient, x, Window(), (3, 3))
