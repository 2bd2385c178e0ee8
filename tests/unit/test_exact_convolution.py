"""Convolutions of exact arithmetic against the formula, in Python's integers and fractions, every way."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import product
from math import prod
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
from gradseal.program.exact.products import Realisation
from product_oracle import (
    EXTREMES,
    NAN,
    PATTERNS,
    WAYS,
    bits,
    extreme,
    finite,
    rounded,
    spread_out,
    tensor,
    threads,
    way,
    words,
    written,
)
from vectors import make

Case = dict[str, Any]
VECTORS: list[Case] = json.loads((make.HERE / "arithmetic.json").read_text(encoding="utf-8"))["convolutions"]
Position = tuple[int, ...]


class Slices:
    """An operand of section 3: integers by position, zeros outside, each with its slice's exponent.

    Args:
        x: The operand.
        shared: For each dimension, how many of its neighbours share a slice; 0 for all.
    """

    def __init__(self, x: Tensor, shared: Position) -> None:
        self.shape = tuple(x.shape)
        self.shared = [share or size for share, size in zip(shared, self.shape, strict=True)]
        elements = dict(zip(product(*map(range, self.shape)), bits(x), strict=True))
        members: dict[Position, list[Position]] = {}
        for position in elements:
            members.setdefault(self.slice_of(position), []).append(position)
        self.exponents: dict[Position, int | None] = {}
        self.integers: dict[Position, int] = {}
        for own, positions in members.items():
            found = written([elements[p] for p in positions])
            self.exponents[own] = found[0] if found else None
            self.integers |= zip(positions, found[1] if found else [0] * len(positions), strict=True)

    def slice_of(self, position: Position) -> Position:
        return tuple(p // share for p, share in zip(position, self.shared, strict=True))

    def at(self, *position: int) -> int:
        return self.integers.get(position, 0)

    def exponent(self, *position: int) -> int | None:
        return self.exponents[self.slice_of(position)]


def result(total: int, e: int | None, f: int | None) -> int:
    return NAN if e is None or f is None else rounded(total * Fraction(2) ** (e + f - 48))


class Convolved:
    """The three convolutions of section 3, element by element."""

    def __init__(self, x: Tensor, weight: Tensor, gradient: Tensor, window: Window) -> None:
        self.x, self.weight, self.gradient, self.window = x, weight, gradient, window
        self.of_group = len(weight) // window.groups  # filters
        self.depth = weight.shape[1]
        self.places = list(product(range(weight.shape[2]), range(weight.shape[3])))

    def read(self, out: int, tap: int, side: int) -> int:
        """Which row (or column) of the image the kernel's `tap` reads for the result's `out`."""
        own = self.window
        return out * own.stride[side] + tap * own.dilation[side] - own.padding[side]

    def writes(self, position: int, tap: int, side: int) -> int:
        """The inverse: which `out` reads it, or −1."""
        room = position + self.window.padding[side] - tap * self.window.dilation[side]
        return room // self.window.stride[side] if room % self.window.stride[side] == 0 else -1

    def forward(self) -> list[int]:
        x, w = Slices(self.x, (1, self.depth, 0, 0)), Slices(self.weight, (1, 0, 0, 0))
        found = []
        for n, o, i, j in product(*map(range, self.gradient.shape)):
            first = o // self.of_group * self.depth
            total = sum(
                w.at(o, c, u, v) * x.at(n, first + c, self.read(i, u, 0), self.read(j, v, 1))
                for c in range(self.depth)
                for u, v in self.places
            )
            found.append(result(total, x.exponent(n, first, 0, 0), w.exponent(o, 0, 0, 0)))
        return found

    def input_gradient(self) -> list[int]:
        y, w = Slices(self.gradient, (1, self.of_group, 0, 0)), Slices(self.weight, (self.of_group, 1, 0, 0))
        found = []
        for n, c, h, l in product(*map(range, self.x.shape)):  # noqa: E741 -- as the page has it
            first, own = c // self.depth * self.of_group, c % self.depth
            total = sum(
                w.at(o, own, u, v) * y.at(n, o, self.writes(h, u, 0), self.writes(l, v, 1))
                for o in range(first, first + self.of_group)
                for u, v in self.places
            )
            found.append(result(total, y.exponent(n, first, 0, 0), w.exponent(first, own, 0, 0)))
        return found

    def weight_gradient(self) -> list[int]:
        y, x = Slices(self.gradient, (0, 1, 0, 0)), Slices(self.x, (0, 1, 0, 0))
        found = []
        batch, _, height, width = self.gradient.shape
        for o, c, u, v in product(*map(range, self.weight.shape)):
            channel = o // self.of_group * self.depth + c
            total = sum(
                y.at(n, o, i, j) * x.at(n, channel, self.read(i, u, 0), self.read(j, v, 1))
                for n, i, j in product(range(batch), range(height), range(width))
            )
            found.append(result(total, y.exponent(0, o, 0, 0), x.exponent(0, channel, 0, 0)))
        return found


def computed(x: Tensor, weight: Tensor, gradient: Tensor, window: Window, how: Realisation) -> list[Tensor]:
    size, kernel = (x.shape[2], x.shape[3]), (weight.shape[2], weight.shape[3])
    return [
        conv2d(x, weight, window, realisation=how),
        conv2d_input_gradient(gradient, weight, window, size, realisation=how),
        conv2d_weight_gradient(gradient, x, window, kernel, realisation=how),
    ]


def expected(x: Tensor, weight: Tensor, gradient: Tensor, window: Window) -> list[list[int]]:
    own = Convolved(x, weight, gradient, window)
    return [own.forward(), own.input_gradient(), own.weight_gradient()]


def size_out(size: Position, kernel: Position, window: Window) -> tuple[int, int]:
    rows, columns = (
        (size[side] + 2 * window.padding[side] - window.dilation[side] * (kernel[side] - 1) - 1)
        // window.stride[side]
        + 1
        for side in (0, 1)
    )
    return rows, columns


def every_way_is(operands: tuple[Tensor, Tensor, Tensor], window: Window, results: list[list[int]]) -> None:
    for name in WAYS:
        with way(name) as how:
            assert [bits(y) for y in computed(*operands, window, how)] == results, name


@pytest.mark.parametrize("case", VECTORS)
def test_convolution_vectors(case: Case) -> None:
    x, weight, gradient = (
        tensor(words(case[name]["elements"]), *case[name]["shape"]) for name in ("x", "weight", "gradient")
    )
    stride, padding, dilation = (tuple(case[name]) for name in ("stride", "padding", "dilation"))
    window = Window(stride=stride, padding=padding, dilation=dilation, groups=case["groups"])
    results = [case[name] for name in ("result", "input_gradient", "weight_gradient")]
    assert expected(x, weight, gradient, window) == [words(found["elements"]) for found in results]
    every_way_is((x, weight, gradient), window, [words(found["elements"]) for found in results])
    shapes = [list(y.shape) for y in computed(x, weight, gradient, window, Realisation.FLOAT64)]
    assert shapes == [found["shape"] for found in results]


Operands = tuple[tuple[Tensor, Tensor, Tensor], Window]


@st.composite
def convolutions(draw: st.DrawFn) -> Operands:
    def pair(low: int, high: int) -> tuple[int, int]:
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    groups = draw(st.sampled_from([1, 1, 2]))
    window = Window(stride=pair(1, 3), padding=pair(0, 2), dilation=pair(1, 2), groups=groups)
    kernel = pair(1, 3)
    least = [
        max(1, d * (k - 1) + 1 - 2 * p)
        for d, k, p in zip(window.dilation, kernel, window.padding, strict=True)
    ]
    size = tuple(draw(st.integers(low, low + 3)) for low in least)
    batch, depth, of_group = (draw(st.integers(1, 2)) for _ in range(3))
    shapes = (
        (batch, groups * depth, *size),
        (groups * of_group, depth, *kernel),
        (batch, groups * of_group, *size_out(size, kernel, window)),
    )
    pattern = draw(st.sampled_from([PATTERNS, PATTERNS.map(finite)]))
    alphabet = draw(st.lists(pattern, min_size=1, max_size=6))
    chosen = st.sampled_from(alphabet)
    x, weight, gradient = (
        tensor(draw(st.lists(chosen, min_size=prod(shape), max_size=prod(shape))), *shape) for shape in shapes
    )
    return (x, weight, gradient), window


@given(convolutions())
@settings(max_examples=60, deadline=None)
def test_every_way_is_the_formula(case: Operands) -> None:
    operands, window = case
    every_way_is(operands, window, expected(*operands, window))


@pytest.mark.parametrize("kind", EXTREMES)
@pytest.mark.parametrize(
    ("shape", "kernel", "window"),
    [
        # More taps than 32; more positions than 32 in a row, in a sample, in a batch.
        ((1, 40, 3, 2), (2, 3, 2), Window(padding=(1, 1))),
        ((2, 1, 2, 37), (3, 1, 2), Window()),
        ((3, 2, 7, 6), (3, 3, 3), Window(padding=(1, 2), stride=(2, 1), groups=2)),
        ((1, 7, 1, 70), (2, 1, 5), Window(padding=(0, 2), dilation=(1, 2))),
    ],
)
def test_no_sum_is_cut_too_late(kind: str, shape: Position, kernel: Position, window: Window) -> None:
    x = extreme(kind, 1, *shape)
    filters, *sides = kernel
    size = (sides[0], sides[1])
    weight = extreme(kind, 2, filters * window.groups, shape[1] // window.groups, *size)
    gradient = extreme(kind, 3, shape[0], len(weight), *size_out(shape[2:], size, window))
    every_way_is((x, weight, gradient), window, expected(x, weight, gradient, window))


@pytest.mark.parametrize("kind", EXTREMES)
@pytest.mark.parametrize(
    ("shape", "kernel", "window"),
    [
        ((5, 64, 7, 7), (16, 64, 3, 3), Window(padding=(1, 1))),
        ((3, 16, 28, 28), (32, 16, 3, 3), Window(padding=(1, 1), stride=(2, 2))),
        ((2, 3, 40, 41), (7, 3, 7, 7), Window(padding=(3, 3), stride=(4, 3))),
        ((2, 6, 11, 70), (6, 1, 3, 5), Window(padding=(4, 0), dilation=(3, 2), groups=6)),
        ((1, 1, 5, 1100), (3, 1, 1, 1), Window(stride=(3, 5))),
        ((2, 4, 6, 6), (4, 4, 6, 6), Window(padding=(5, 5))),
    ],
)
def test_ways_agree(kind: str, shape: Position, kernel: Position, window: Window) -> None:
    x, weight = extreme(kind, 1, *shape), extreme(kind, 2, *kernel)
    gradient = extreme(kind, 3, shape[0], kernel[0], *size_out(shape[2:], kernel[2:], window))
    found = [bits(y) for y in computed(x, weight, gradient, window, Realisation.FLOAT64)]
    every_way_is((x, weight, gradient), window, found)


def test_threads_and_layout_change_no_bit() -> None:
    window = Window(padding=(1, 1), groups=2)
    x, weight, gradient = (
        spread_out(1, 6, 4, 30, 30),
        spread_out(2, 12, 2, 3, 3),
        spread_out(3, 6, 12, 30, 30),
    )
    found = [bits(y) for y in computed(x, weight, gradient, window, Realisation.FLOAT64)]
    moved = tuple(t.contiguous(memory_format=torch.channels_last) for t in (x, weight, gradient))
    every_way_is((moved[0], moved[1], moved[2]), window, found)
    for name in WAYS:
        if name != "int8":  # its many small products are slow in threads
            with way(name) as how, threads(2):
                assert [bits(y) for y in computed(x, weight, gradient, window, how)] == found


def test_elements_may_share_memory() -> None:
    x = spread_out(4, 1, 1, 5, 1).expand(3, 4, 5, 6)
    weight = spread_out(5, 3, 1, 1, 2).expand(3, 4, 2, 2)
    gradient = spread_out(6, 1).expand(3, 3, 4, 5)
    found = computed(x.clone(), weight.clone(), gradient.clone(), Window(), Realisation.FLOAT64)
    every_way_is((x, weight, gradient), Window(), [bits(y) for y in found])


@pytest.mark.parametrize("name", WAYS)
def test_a_slice_that_is_not_finite_spoils_what_belongs_to_it(name: str) -> None:
    window = Window(groups=2, stride=(2, 2))
    x, weight, gradient = torch.ones(2, 4, 4, 4), torch.ones(4, 2, 1, 1), torch.ones(2, 4, 2, 2)
    # None of these is met by another operand's element: the stride passes them by.
    x[1, 3, 3, 3], weight[2, 1], gradient[0, 1, 0, 1] = float("inf"), float("nan"), float("-inf")
    with way(name) as how:
        y, to_x, to_weight = computed(x, weight, gradient, window, how)
    spoiled = torch.zeros(2, 4, dtype=torch.bool)
    spoiled[1, 2:] = spoiled[:, 2] = True
    assert torch.equal(y.isnan().all(3).all(2), spoiled)
    assert torch.equal(y.isnan().any(3).any(2), spoiled)
    spoiled = torch.zeros(2, 4, dtype=torch.bool)
    spoiled[0, :2] = spoiled[:, 3] = True
    assert torch.equal(to_x.isnan().all(3).all(2), spoiled)
    assert torch.equal(to_x.isnan().any(3).any(2), spoiled)
    spoiled = torch.zeros(4, 2, dtype=torch.bool)
    spoiled[1] = spoiled[2:, 1] = True
    assert torch.equal(to_weight.isnan()[..., 0, 0], spoiled)
    assert {word for t in (y, to_x, to_weight) for word in bits(t[t.isnan()])} == {NAN}


@pytest.mark.parametrize("name", WAYS)
def test_an_empty_batch(name: str) -> None:
    x, weight, gradient = torch.ones(0, 2, 4, 4), torch.ones(3, 2, 3, 3), torch.ones(0, 3, 2, 2)
    with way(name) as how:
        y, to_x, to_weight = computed(x, weight, gradient, Window(), how)
    assert (tuple(y.shape), tuple(to_x.shape)) == ((0, 3, 2, 2), (0, 2, 4, 4))
    assert bits(to_weight) == [0] * 54


@pytest.mark.parametrize("shape", [(1, 3, 5, 5), (1, 2, 2, 5), (2, 5, 5)])
def test_images_that_a_kernel_does_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ReplayError):
        conv2d(torch.zeros(shape), torch.zeros(1, 2, 3, 3), Window())


def test_other_elements_than_float32_are_refused() -> None:
    x, weight = torch.zeros(1, 2, 5, 5), torch.zeros(1, 2, 3, 3, dtype=torch.float64)
    with pytest.raises(ReplayError, match="not float64"):
        conv2d(x, weight, Window())


def test_gradients_of_another_shape_are_refused() -> None:
    x, weight, gradient = torch.zeros(1, 2, 5, 5), torch.zeros(1, 2, 3, 3), torch.zeros(1, 1, 4, 3)
    with pytest.raises(ReplayError, match="gradient of shape"):
        conv2d_input_gradient(gradient, weight, Window(), (5, 5))
    with pytest.raises(ReplayError, match="gradient of shape"):
        conv2d_weight_gradient(gradient, x, Window(), (3, 3))
