from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact import convolution, functions, products, sums
from gradseal.program.exact.linear import TABLE
from gradseal.program.interpret import overload

INF = math.inf
NAN = math.nan
NAN_BITS = 0x7FC00000
CORNERS = [0.0, -0.0, 1.0, 2.0**-149, 2.0**-126, 2.0**127, -(2.0**127), INF, -INF, NAN]
NUMBERS = st.floats(width=32) | st.sampled_from(CORNERS) | st.floats(width=32, min_value=-2.0, max_value=2.0)
FACTORS = st.sampled_from([1, 0, 1.0, 0.0, -1, 0.1, 3])


def call(name: str, *args: Any, **kwargs: Any) -> Any:
    return TABLE[f"aten.{name}.default"](*args, **kwargs)


def bits(x: Tensor) -> list[int]:
    same = torch.where(x.isnan(), torch.tensor(NAN), x).contiguous().reshape(-1).view(torch.int32)
    values: list[int] = (same.to(torch.int64) & 0xFFFFFFFF).tolist()
    return values


def f(x: float) -> float:
    """Of Python's result of one operation on two float32, which is thereby rounded once."""
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", x))[0]
    except OverflowError:
        return math.copysign(INF, x)
    return rounded


def bits_of(x: float) -> int:
    return NAN_BITS if math.isnan(x) else int.from_bytes(struct.pack(">f", f(x)), "big")


def drawn(data: st.DataObject, *shape: int) -> Tensor:
    count = math.prod(shape)
    return torch.tensor(data.draw(st.lists(NUMBERS, min_size=count, max_size=count))).reshape(shape)


def combined(own: Tensor, product: Tensor, beta: float, alpha: float) -> list[int]:
    """β times one, plus α times the other, each step rounded; without the one where β is 0."""
    pairs = zip(own.expand(product.shape).flatten().tolist(), product.flatten().tolist(), strict=True)
    scaled = [(f(f(beta) * a), f(f(alpha) * b)) for a, b in pairs]
    return [bits_of(b if beta == 0 else f(a + b)) for a, b in scaled]


@given(st.data(), FACTORS, FACTORS)
@settings(max_examples=100, deadline=None)
def test_a_product_is_rounded_before_it_is_scaled_and_added(
    data: st.DataObject, beta: float, alpha: float
) -> None:
    a, b, v, w = drawn(data, 2, 3), drawn(data, 3, 2), drawn(data, 3), drawn(data, 2)
    factors = {"beta": beta, "alpha": alpha}
    ab, av = products.matmul(a, b), products.matmul(a, v[:, None])[:, 0]
    assert bits(call("addmm", w, a, b, **factors)) == combined(w, ab, beta, alpha)
    assert bits(call("addmm", a[:, :1], a, b, **factors)) == combined(a[:, :1], ab, beta, alpha)
    assert bits(call("addmv", w, a, v, **factors)) == combined(w, av, beta, alpha)
    assert bits(call("baddbmm", b[None, :2], a[None], b[None], **factors)) == combined(
        b[None, :2], ab[None], beta, alpha
    )
    both = products.matmul(torch.cat([a, a], 1), torch.cat([b, b]))
    stacked = call("addbmm", w, torch.stack([a, a]), torch.stack([b, b]), **factors)
    assert bits(stacked) == combined(w, both, beta, alpha)
    outer = [f(x * y) for x in v.tolist() for y in w.tolist()]
    assert bits(call("addr", b, v, w, **factors)) == combined(
        b, torch.tensor(outer).reshape(3, 2), beta, alpha
    )


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_products_of_vectors_are_those_of_matrices(data: st.DataObject) -> None:
    a, b, v = drawn(data, 2, 3), drawn(data, 3, 2), drawn(data, 3)
    assert bits(call("mm", a, b)) == bits(products.matmul(a, b))
    assert bits(call("bmm", a[None], b[None])) == bits(products.matmul(a, b))
    assert bits(call("mv", a, v)) == bits(products.matmul(a, v[:, None]))
    assert bits(call("dot", a[0], v)) == bits(products.matmul(a[:1], v[:, None]))


def test_a_graph_that_ignores_what_it_adds_to_may_have_a_nan_there() -> None:
    a = torch.eye(2)
    result = call("addmm", torch.full((2,), NAN), a, a, beta=0)
    assert bits(result) == bits(a)


# Convolutions, each as the products of its definition.

Sizes = tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]


@st.composite
def layers(draw: st.DrawFn) -> Sizes:
    pairs = [(draw(st.integers(low, 2)), draw(st.integers(low, 2))) for low in (1, 0, 1)]
    return pairs[0], pairs[1], pairs[2], draw(st.integers(1, 2))


def window(layer: Sizes) -> convolution.Window:
    stride, padding, dilation, groups = layer
    return convolution.Window(stride=stride, padding=padding, dilation=dilation, groups=groups)


@given(st.data(), layers())
@settings(max_examples=25, deadline=None)
def test_a_convolution_is_its_products_and_then_a_bias(data: st.DataObject, layer: Sizes) -> None:
    """The products themselves are those of test_exact_convolution."""
    stride, padding, dilation, groups = layer
    x, kernel, bias = drawn(data, 1, 2, 4, 3), drawn(data, 2, 2 // groups, 2, 2), drawn(data, 2)
    plain = convolution.conv2d(x, kernel, window(layer))
    for own, expected in ((None, plain), (bias, plain + bias[:, None, None])):
        result = call("convolution", x, kernel, own, stride, padding, dilation, False, [0, 0], groups)
        assert bits(result) == bits(expected)


@given(st.data(), layers())
@settings(max_examples=15, deadline=None)
def test_gradients_of_a_convolution_are_their_products(data: st.DataObject, layer: Sizes) -> None:
    x, kernel = drawn(data, 2, 2, 3, 3), drawn(data, 2, 2 // layer[3], 2, 2)
    options = (*layer[:3], False, [0, 0], layer[3])
    y = call("convolution", x, kernel, None, *options)
    gradient = drawn(data, *y.shape)
    own, filters, bias = call("convolution_backward", gradient, x, kernel, [2], *options, [True] * 3)
    assert bits(own) == bits(convolution.conv2d_input_gradient(gradient, kernel, window(layer), (3, 3)))
    assert bits(filters) == bits(convolution.conv2d_weight_gradient(gradient, x, window(layer), (2, 2)))
    assert bits(bias) == bits(sums.sum_along(gradient.transpose(0, 1).flatten(1), (1,)))


# Beside torch.

GENERATOR = torch.Generator().manual_seed(5)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR)


A, B, V, W = random(4, 6), random(6, 5), random(6), random(5)
BATCHES = random(3, 4, 6), random(3, 6, 5)
FACTOR = {"beta": 0.3, "alpha": -1.7}
ADDED: list[dict[str, Any]] = [{}, FACTOR, {"beta": 0}]


def plane(
    inner: int, outer: int, kernel: list[int], options: tuple[Any, ...], *, biased: bool = True
) -> tuple[Any, ...]:
    """The arguments of a convolution."""
    transposed, groups = options[3], options[5]
    x = random(2, inner, *[9, 8][2 - len(kernel) :])
    sides = (inner, outer // groups) if transposed else (outer, inner // groups)
    return (x, random(*sides, *kernel), random(outer) if biased else None, *options)


CONVOLUTIONS: list[tuple[Any, ...]] = [
    plane(4, 6, [3, 3], ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)),
    plane(4, 6, [3, 2], ([2, 1], [1, 0], [1, 2], False, [0, 0], 2), biased=False),
    plane(4, 4, [3, 3], ([2], [1], [1], False, [0], 4)),
    plane(4, 6, [1, 1], ([1, 1], [0, 0], [1, 1], False, [0, 0], 1)),
    plane(4, 6, [3], ([2], [1], [2], False, [0], 2)),
    plane(4, 6, [3], ([1], [0], [1], False, [0], 1), biased=False),
    plane(4, 6, [3, 3], ([2, 2], [1, 1], [1, 1], True, [1, 1], 1)),
    plane(4, 6, [3, 2], ([2, 3], [0, 1], [2, 1], True, [0, 2], 2), biased=False),
    plane(4, 2, [4], ([2], [1], [1], True, [0], 2)),
]


def backward(case: tuple[Any, ...], mask: list[bool]) -> tuple[Any, ...]:
    x, kernel, bias, *options = case
    y = overload("aten.convolution.default")(*case)
    sizes = None if bias is None else list(bias.shape)
    return (random(*y.shape), x, kernel, sizes, *options, mask)


MASKS = [[True, True, True], [True, False, False], [False, True, False], [False, False, True]]
NORMS = [
    (random(4, 3, 2), random(4, 1, 1), 0),
    (random(3, 5), random(1, 5), 1),
    (random(4, 3), random(4, 1), 0),
]


def norms_backward(case: tuple[Any, ...]) -> tuple[Any, ...]:
    v, g, dim = case
    return (random(*v.shape), v, g, overload("aten._weight_norm_interface.default")(*case)[1], dim)


Case = tuple[tuple[Any, ...], dict[str, Any]]
CASES: Mapping[str, list[Case]] = {
    "mm": [((A, B), {})],
    "bmm": [(BATCHES, {})],
    "mv": [((A, V), {})],
    "dot": [((V, random(6)), {})],
    "addmm": [((own, A, B), o) for own in (W, random(4, 5), random(4, 1)) for o in ADDED],
    "addmv": [((random(4), A, V), o) for o in ADDED],
    "addr": [((random(6, 5), V, W), o) for o in ADDED],
    "addbmm": [((random(4, 5), *BATCHES), o) for o in ADDED],
    "baddbmm": [((own, *BATCHES), o) for own in (random(3, 4, 5), random(3, 1, 5)) for o in ADDED],
    "convolution": [(own, {}) for own in CONVOLUTIONS],
    "convolution_backward": [(backward(own, mask), {}) for own in CONVOLUTIONS for mask in MASKS],
    "_weight_norm_interface": [(own, {}) for own in NORMS],
    "_weight_norm_interface_backward": [(norms_backward(own), {}) for own in NORMS],
}
EACH = [(name, *own) for name, cases in CASES.items() for own in cases]
IDS = [f"{name}-{i}" for i, (name, _, _) in enumerate(EACH)]


def test_every_operator_is_tested_here() -> None:
    assert {f"aten.{name}.default" for name in CASES} == set(TABLE)


def several(result: Any) -> tuple[Tensor | None, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


@pytest.mark.parametrize(("name", "args", "kwargs"), EACH, ids=IDS)
def test_results_are_close_to_those_of_torch(name: str, args: Any, kwargs: Any) -> None:
    expected = several(overload(f"aten.{name}.default")(*args, **kwargs))
    result = several(call(name, *args, **kwargs))
    for i, (one, other) in enumerate(zip(result, expected, strict=True)):
        if name == "convolution_backward" and not args[-1][i]:
            assert one is None
            continue
        assert one is not None
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert one.is_contiguous()
    places = overload(f"aten.{name}.default")._schema.arguments
    by_name = {place.name: value for place, value in zip(places, args, strict=False)}
    assert same(several(call(name, **by_name, **kwargs)), result)


def same(one: tuple[Tensor | None, ...], other: tuple[Tensor | None, ...]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(a is b is None or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


@pytest.mark.parametrize(("name", "args", "kwargs"), EACH, ids=IDS)
def test_neither_layout_nor_threads_change_a_bit(name: str, args: Any, kwargs: Any) -> None:
    whole = several(call(name, *args, **kwargs))
    layouts: list[Callable[[Tensor], Tensor]] = [
        lambda x: x.mT.contiguous().mT if x.dim() > 1 else x,
        lambda x: x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x,
        lambda x: torch.stack([x, x], -1)[..., 0],
    ]
    for layout in layouts:
        moved = [layout(x) if isinstance(x, Tensor) else x for x in args]
        assert same(several(call(name, *moved, **kwargs)), whole)
    torch.set_num_threads(2)
    assert same(several(call(name, *args, **kwargs)), whole)


def test_channels_last_stays_last() -> None:
    case = CONVOLUTIONS[0]
    x = case[0].contiguous(memory_format=torch.channels_last)
    y = call("convolution", x, *case[1:])
    assert y.is_contiguous(memory_format=torch.channels_last)
    own, _, _ = call("convolution_backward", y, x, case[1], [6], *case[3:], [True, False, False])
    assert own.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", sorted(CASES))
def test_other_element_types_are_refused(name: str) -> None:
    args, kwargs = CASES[name][0]
    for dtype in (torch.float64, torch.bfloat16):
        with pytest.raises(ReplayError, match=str(dtype).removeprefix("torch.")):
            call(name, *(x.to(dtype) if isinstance(x, Tensor) else x for x in args), **kwargs)


def test_expanded_operands_and_none() -> None:
    row = random(1, 6).expand(4, 6)
    assert bits(call("mm", row, B)) == bits(call("mm", row.contiguous(), B))
    assert bits(call("mm", torch.ones(2, 0), torch.ones(0, 3))) == [0] * 6
    assert call("mm", torch.ones(0, 4), torch.ones(4, 3)).shape == (0, 3)
    assert call("bmm", torch.ones(0, 4, 2), torch.ones(0, 2, 3)).shape == (0, 4, 3)
    assert bits(call("dot", torch.ones(0), torch.ones(0))) == [0]
    assert bits(call("addmm", torch.ones(3), torch.ones(1, 0), torch.ones(0, 3))) == bits(torch.ones(3))


def test_a_transposed_convolution_is_the_gradient_of_a_plain_one() -> None:
    x, kernel, _, *options = CONVOLUTIONS[6]
    y = call("convolution", x, kernel, None, *options)
    window = convolution.Window(stride=(2, 2), padding=(1, 1))
    assert bits(y) == bits(convolution.conv2d_input_gradient(x, kernel, window, (y.shape[2], y.shape[3])))


def test_weight_norm_is_its_steps() -> None:
    v, g = random(3, 4), random(3, 1)
    w, norms = call("_weight_norm_interface", v, g, 0)
    assert bits(norms) == bits(functions.sqrt(sums.sum_along(v * v, (1,), keepdim=True)))
    assert bits(w) == bits(v * (g / norms))
    gradient = random(3, 4)
    to_v, to_g = call("_weight_norm_interface_backward", gradient, v, g, norms, 0)
    assert bits(to_g) == bits(sums.sum_along(gradient * v, (1,), keepdim=True) / norms)
    assert bits(to_v) == bits((gradient - v * (to_g / norms)) * (g / norms))


def test_what_does_not_fit_is_refused() -> None:
    cube = random(1, 2, 3, 3, 3)
    wide = ([1] * 3, [0] * 3, [1] * 3, False, [0] * 3, 1)
    x, kernel, bias, *options = CONVOLUTIONS[0]
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("convolution_backward", (cube, cube, cube, None, *wide, [True] * 3)),
        ("mm", (A, A)),
        ("mm", (V, A)),
        ("mv", (A, A)),
        ("dot", (V, W)),
        ("addmm", (V, A, B)),
        ("addmm", (random(2, 4, 5), A, B)),
        ("addr", (A, A, V)),
        ("addbmm", (W, BATCHES[0], BATCHES[0])),
        ("convolution", (x, kernel, bias[:1], *options)),
        ("convolution", (x[0], kernel, bias, *options)),
        ("convolution", (x, kernel, bias, [0, 1], *options[1:])),
        ("convolution", (x, kernel, bias, [1, 1, 1], *options[1:])),
        ("convolution_backward", (x, x, kernel, None, *options, [True, False, False])),
        ("_weight_norm_interface", (V, V, 0)),
    ]
    with pytest.raises(ReplayError, match="3 dimensions"):
        call("convolution", cube, cube, None, *wide)
    for name, own in calls:
        with pytest.raises(ReplayError):
            call(name, *own)
