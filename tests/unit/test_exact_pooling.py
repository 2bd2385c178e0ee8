from __future__ import annotations

import itertools
import math
import struct
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact.pooling import TABLE
from gradseal.program.interpret import overload

INF = math.inf
NAN = math.nan
NAN_BITS = 0x7FC00000
LARGEST = 2.0**128 - 2.0**104
CORNERS = [0.0, -0.0, 1.0, -1.0, 2.0**-149, 2.0**-40, 3 * 2.0**98, LARGEST, -LARGEST, INF, -INF, NAN]
ANY = st.floats(width=32) | st.sampled_from(CORNERS)
FEW = st.sampled_from([0.0, -0.0, 1.0, 2.0, NAN, -INF])
CLOSE = st.floats(width=32, min_value=-2.0, max_value=2.0)
NUMBERS = st.sampled_from([ANY, CLOSE, FEW])


def call(name: str, *args: Any, **kwargs: Any) -> Any:
    return TABLE[f"aten.{name}.default"](*args, **kwargs)


def bits(x: Tensor) -> list[int]:
    same = torch.where(x.isnan(), torch.tensor(NAN), x).contiguous().reshape(-1).view(torch.int32)
    values: list[int] = (same.to(torch.int64) & 0xFFFFFFFF).tolist()
    return values


def bits_of(x: float) -> int:
    return NAN_BITS if math.isnan(x) else int.from_bytes(struct.pack(">f", x), "big")


# A second implementation, of fractions.


def nearest(q: Fraction) -> float:
    """The float32 next to a fraction, ties to even, with one zero."""
    if q == 0:
        return 0.0
    exponent = abs(q.numerator).bit_length() - q.denominator.bit_length()
    exponent -= Fraction(2) ** exponent > abs(q)
    exponent += Fraction(2) ** (exponent + 1) <= abs(q)
    quantum = Fraction(2) ** max(exponent - 23, -149)
    rounded = round(q / quantum) * quantum
    return math.copysign(INF, q) if abs(rounded) >= 2**128 else float(rounded) + 0.0


def unit(values: Sequence[float], count: int) -> Fraction:
    largest = max(map(abs, values), default=0.0)
    exponent = 128 if not all(map(math.isfinite, values)) else math.frexp(largest)[1] if largest else -148
    length = next(53 - spare for spare in itertools.count() if 2**spare >= count)
    return Fraction(2) ** (exponent - length)


def added(values: Sequence[float], quantum: Fraction) -> float:
    special = [x for x in values if not math.isfinite(x)]
    if special:
        return sum(special)
    return nearest(sum((round(Fraction(x) / quantum) for x in values), Fraction(0)) * quantum)


def divided(x: float, count: int) -> float:
    """Their quotient, rounded to float64 and then to float32: that is the one rounded at once."""
    rounded: float = struct.unpack("<f", struct.pack("<f", x / count))[0]
    return rounded


Span = tuple[range, int]


def spans(size: int, kernel: int, stride: int, padding: int, ceil_mode: bool, include: bool) -> list[Span]:
    """The positions of each window along a dimension, and how many count."""
    rounding = math.ceil if ceil_mode else math.floor
    out = rounding(Fraction(size + 2 * padding - kernel, stride)) + 1
    found = []
    for i in range(out):
        start, end = i * stride - padding, min(i * stride - padding + kernel, size + padding)
        if start < size:  # one that begins in the padding at the end is none
            inside = range(max(start, 0), min(end, size))
            found.append((inside, end - start if include else len(inside)))
    return found


def adaptive_spans(size: int, out: int) -> list[Span]:
    found = [
        range(math.floor(Fraction(i * size, out)), math.ceil(Fraction((i + 1) * size, out)))
        for i in range(out)
    ]
    return [(span, len(span)) for span in found]


def averages(
    plane: list[list[float]], spans: Sequence[list[Span]], area: int | None, divisor: int | None
) -> list[int]:
    result = []
    for (rows, down), (columns, across) in itertools.product(*spans):
        values = [plane[h][w] for h in rows for w in columns]
        # What is outside counts as 0.
        count = area or len(values)
        total = added(values, unit(values, count))
        result.append(bits_of(divided(total, divisor or max(down * across, 1))))
    return result


def back(
    planes: list[list[float]], spans: Sequence[list[Span]], size: tuple[int, int], divisor: int | None
) -> list[int]:
    """The gradients of averages, all planes in one call."""
    pairs: dict[tuple[int, int, int], list[float]] = defaultdict(list)
    sent = []
    for p, plane in enumerate(planes):
        for x, ((rows, down), (columns, across)) in zip(plane, itertools.product(*spans), strict=True):
            share = divided(x, divisor or max(down * across, 1))
            for h, w in itertools.product(rows, columns):
                pairs[p, h, w].append(share)
                sent.append(share)
    quantum = unit(sent, len(sent) // len(planes))
    places = itertools.product(range(len(planes)), range(size[0]), range(size[1]))
    return [bits_of(added(pairs[place], quantum)) for place in places]


def drawn(data: st.DataObject, *shape: int) -> Tensor:
    count = math.prod(shape)
    numbers = data.draw(NUMBERS)
    return torch.tensor(data.draw(st.lists(numbers, min_size=count, max_size=count))).reshape(shape)


Pool = tuple[list[int], list[int], list[int], bool]


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    kernel = [draw(st.integers(1, 3)) for _ in range(2)]
    stride = [draw(st.integers(1, 3)) for _ in range(2)]
    padding = [draw(st.integers(0, k // 2)) for k in kernel]
    return kernel, stride, padding, draw(st.booleans())


@given(st.data(), pools(), st.booleans(), st.sampled_from([None, None, 3, -2]))
@settings(max_examples=80, deadline=None)
def test_an_average_is_an_exact_sum_over_a_count(
    data: st.DataObject,
    pool: tuple[list[int], list[int], list[int], bool],
    include: bool,
    divisor: int | None,
) -> None:
    size = (data.draw(st.integers(3, 5)), data.draw(st.integers(3, 5)))
    x = drawn(data, 2, *size)
    kernel, stride, padding, ceil_mode = pool
    own = [spans(*axis, ceil_mode, include) for axis in zip(size, kernel, stride, padding, strict=True)]
    result = call("avg_pool2d", x, *pool, include, divisor)
    assert list(result.shape) == [2, len(own[0]), len(own[1])]
    area = math.prod(kernel)
    assert bits(result) == [y for plane in x.tolist() for y in averages(plane, own, area, divisor)]
    gradient = drawn(data, *result.shape)
    backward = call("avg_pool2d_backward", gradient, x, *pool, include, divisor)
    assert bits(backward) == back(gradient.flatten(1).tolist(), own, size, divisor)


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_an_adaptive_average_is_an_exact_sum_over_a_count(data: st.DataObject) -> None:
    size, out = ((data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))) for _ in range(2))
    x = drawn(data, 2, *size)
    own = [adaptive_spans(*axis) for axis in zip(size, out, strict=True)]
    result = call("_adaptive_avg_pool2d", x, list(out))
    assert bits(result) == [y for plane in x.tolist() for y in averages(plane, own, None, None)]
    gradient = drawn(data, 2, *out)
    backward = call("_adaptive_avg_pool2d_backward", gradient, x)
    assert bits(backward) == back(gradient.flatten(1).tolist(), own, size, None)


def chosen(plane: list[list[float]], places: Sequence[tuple[int, int]]) -> tuple[float, int]:
    """The first of the largest, the last NaN if there is one, and where it is."""
    values = [plane[h][w] for h, w in places]
    unordered = [i for i, x in enumerate(values) if math.isnan(x)]
    best = unordered[-1] if unordered else values.index(max(values))
    return values[best], places[best][0] * len(plane[0]) + places[best][1]


def gathered(planes: Tensor, indices: Tensor, size: int) -> list[int]:
    """Sums of gradients by the indices of the largest, all planes in one call."""
    flat, index = planes.flatten(1), indices.flatten(1).tolist()
    quantum = unit(flat.flatten().tolist(), flat.shape[1])
    result = []
    for plane, own in zip(flat.tolist(), index, strict=True):
        met = [[x for x, i in zip(plane, own, strict=True) if i == place] for place in range(size)]
        result += [bits_of(added(values, quantum)) for values in met]
    return result


@given(st.data(), pools(), st.integers(1, 2))
@settings(max_examples=80, deadline=None)
def test_the_largest_is_the_first_and_its_gradients_are_exact_sums(
    data: st.DataObject, pool: Pool, dilation: int
) -> None:
    x = drawn(data, 2, 5, 6)
    kernel, stride, padding, ceil_mode = pool
    options = (kernel, stride, padding, [dilation, 1], ceil_mode)
    reach = [dilation * (kernel[0] - 1) + 1, kernel[1]]
    rows, columns = (
        [[i * s - p + d * u for u in range(k)] for i in range(len(spans(n, r, s, p, ceil_mode, True)))]
        for n, k, r, s, p, d in zip((5, 6), kernel, reach, stride, padding, (dilation, 1), strict=True)
    )
    result, indices = call("max_pool2d_with_indices", x, *options)
    expected = []
    for plane in x.tolist():
        for down, across in itertools.product(rows, columns):
            places = [(h, w) for h in down if 0 <= h < 5 for w in across if 0 <= w < 6]
            expected.append(chosen(plane, places))
    assert bits(result) == [bits_of(value) for value, _ in expected]
    assert indices.flatten().tolist() == [place for _, place in expected]
    gradient = drawn(data, *result.shape)
    backward = call("max_pool2d_with_indices_backward", gradient, x, *options, indices)
    assert bits(backward) == gathered(gradient, indices, 30)
    batch = call("max_pool2d_with_indices_backward", gradient[None], x[None], *options, indices[None])
    assert bits(batch) == bits(backward)


@given(st.data(), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_the_adaptive_largest(data: st.DataObject, height: int, width: int) -> None:
    x = drawn(data, 2, 3, 4)
    result, indices = call("adaptive_max_pool2d", x, [height, width])
    expected = []
    for plane in x.tolist():
        for (rows, _), (columns, _) in itertools.product(adaptive_spans(3, height), adaptive_spans(4, width)):
            expected.append(chosen(plane, list(itertools.product(rows, columns))))
    assert bits(result) == [bits_of(value) for value, _ in expected]
    assert indices.flatten().tolist() == [place for _, place in expected]
    gradient = drawn(data, *result.shape)
    backward = call("adaptive_max_pool2d_backward", gradient, x, indices)
    assert bits(backward) == gathered(gradient, indices, 12)


def copied(size: int, out: int, scale: float | None) -> list[int]:
    """Which position each result of upsampling copies."""
    if out in (size, 2 * size):
        return [i * size // out for i in range(out)]
    step = divided(size, out) if scale is None else nearest(Fraction(1.0 / scale))
    return [min(math.floor(nearest(Fraction(i) * Fraction(step))), size - 1) for i in range(out)]


@given(st.data(), st.integers(1, 4), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_upsampling_copies_and_its_gradients_are_exact_sums(data: st.DataObject, size: int, out: int) -> None:
    scale = data.draw(st.sampled_from([None, out / size, 1.5, 0.7]))
    x = drawn(data, 2, 1, size)
    source = copied(size, out, scale)
    result = call("upsample_nearest1d", x, [out], scale)
    assert bits(result) == bits(x[..., source])
    gradient = drawn(data, 2, 1, out)
    backward = call("upsample_nearest1d_backward", gradient, [out], [2, 1, size], scale)
    assert bits(backward) == gathered(gradient, torch.tensor(source).expand(2, 1, out), size)


@given(st.data(), st.integers(-1, 3))
@settings(max_examples=60, deadline=None)
def test_the_gradient_of_an_embedding_is_an_exact_sum(data: st.DataObject, padding: int) -> None:
    gradient = drawn(data, 2, 3, 2)
    index = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=6, max_size=6))).reshape(2, 3)
    result = call("embedding_dense_backward", gradient, index, 5, padding, False)
    rows = list(zip(index.flatten().tolist(), gradient.flatten(0, 1).tolist(), strict=True))
    quantum = unit([x for i, row in rows if i != padding for x in row], 6)
    for place, column in itertools.product(range(5), range(2)):
        met = [row[column] for i, row in rows if i == place != padding]
        assert bits(result[place, column]) == [bits_of(added(met, quantum))]
    small = call("embedding_dense_backward", gradient, index.to(torch.int32), 5, padding, False)
    assert bits(small) == bits(result)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_folding_is_an_exact_sum(data: st.DataObject) -> None:
    kernel, stride, dilation = ([data.draw(st.integers(1, 2)) for _ in range(2)] for _ in range(3))
    padding = [data.draw(st.integers(0, 2)) for _ in range(2)]
    size = (4, 3)
    options = (kernel, dilation, padding, stride)
    counted = torch.arange(1.0, 13.0).reshape(1, 1, *size)
    places = overload("aten.im2col.default")(counted, *options)[0].to(torch.int64) - 1
    columns = drawn(data, 2, 2 * places.shape[0], places.shape[1])
    result = call("col2im", columns, size, *options)
    parts = columns.reshape(4, -1).tolist()
    sent = [
        [(i, x) for i, x in zip(places.flatten().tolist(), part, strict=True) if i >= 0] for part in parts
    ]
    quantum = unit([x for part in sent for _, x in part], len(sent[0]))
    expected = [
        bits_of(added([x for i, x in part if i == place], quantum)) for part in sent for place in range(12)
    ]
    assert result.shape == (2, 2, *size)
    assert bits(result) == expected
    assert bits(call("col2im", columns[0], size, *options)) == bits(
        call("col2im", columns[:1], size, *options)
    )


# Beside torch.

IMAGE = torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(1))
POOLS: list[tuple[Any, ...]] = [
    ([2], [], [0], False),
    ([3, 2], [2, 1], [1, 1], False),
    ([3], [2], [1], True),
    ([2, 3], [3, 2], [0, 1], True),
    ([7, 9], [1], [0], False),
]
INDEX = torch.randint(0, 6, (4, 5), generator=torch.Generator().manual_seed(1))


def like(name: str, *args: Any) -> Tensor:
    """A gradient for the result of an operator."""
    result = overload(f"aten.{name}.default")(*args)
    result = result if isinstance(result, Tensor) else result[0]
    return torch.randn(result.shape, generator=torch.Generator().manual_seed(2))


def indexed(name: str, *args: Any) -> tuple[Tensor, Tensor]:
    return like(name, *args), overload(f"aten.{name}.default")(*args)[1]


def upsampled(*args: Any) -> tuple[Any, ...]:
    name = f"upsample_nearest{len(args[1])}d"
    return (like(name, *args), args[1], list(args[0].shape), *args[2:])


LINE = IMAGE[:, :, 0]
SIZES: list[tuple[Any, ...]] = [([18],), ([13],), ([4], None), ([13], 1.45), ([18], 2.0), ([9], 1.0)]
LINES = [(LINE, *own) for own in SIZES]
PLANES: list[tuple[Any, ...]] = [(IMAGE, [14, 18]), (IMAGE, [9, 4]), (IMAGE, [11, 13], 1.6, 1.5)]
FOLDS: list[tuple[Any, ...]] = [
    ([2, 3], [1, 2], [1, 0], [2, 1]),
    ([3, 3], [1, 1], [1, 1], [1, 1]),
    ([2, 2], [1, 1], [0, 0], [2, 2]),
]
OUTS = [[1, 1], [7, 3], [3, 4], [8, 10]]
MAXIMA = [(*pool[:3], [1], pool[3]) for pool in POOLS] + [([2, 3], [1], [1, 0], [2, 3], False)]
AVERAGES = [(*pool, include, divisor) for pool in POOLS for include in (True, False) for divisor in (None, 5)]
COLUMNS = [torch.randn(2, *overload("aten.im2col.default")(IMAGE, *fold).shape[1:]) for fold in FOLDS]
CASES: Mapping[str, list[tuple[Any, ...]]] = {
    "max_pool2d_with_indices": [(IMAGE, *pool) for pool in MAXIMA],
    "max_pool2d_with_indices_backward": [
        (gradient, IMAGE, *pool, indices)
        for pool in MAXIMA
        for gradient, indices in [indexed("max_pool2d_with_indices", IMAGE, *pool)]
    ],
    "adaptive_max_pool2d": [(IMAGE, out) for out in OUTS],
    "adaptive_max_pool2d_backward": [
        (gradient, IMAGE, indices)
        for out in OUTS
        for gradient, indices in [indexed("adaptive_max_pool2d", IMAGE, out)]
    ],
    "avg_pool1d": [
        (LINE, *([n[-1]] if isinstance(n, list) and n else n for n in own[:5])) for own in AVERAGES
    ],
    "avg_pool2d": [(IMAGE, *own) for own in AVERAGES],
    "avg_pool2d_backward": [(like("avg_pool2d", IMAGE, *own), IMAGE, *own) for own in AVERAGES],
    "_adaptive_avg_pool2d": [(IMAGE, out) for out in OUTS],
    "_adaptive_avg_pool2d_backward": [(like("_adaptive_avg_pool2d", IMAGE, out), IMAGE) for out in OUTS],
    "upsample_nearest1d": LINES,
    "upsample_nearest1d_backward": [upsampled(*own) for own in LINES],
    "upsample_nearest2d": PLANES,
    "upsample_nearest2d_backward": [upsampled(*own) for own in PLANES],
    "im2col": [(IMAGE, *fold) for fold in FOLDS],
    "col2im": [(columns, [7, 9], *fold) for columns, fold in zip(COLUMNS, FOLDS, strict=True)],
    "embedding_dense_backward": [(torch.randn(4, 5, 3), INDEX, 7, padding, False) for padding in (-1, 0, 2)],
}
EACH = [(name, own) for name, cases in CASES.items() for own in cases]


def test_every_operator_is_tested_here() -> None:
    assert {f"aten.{name}.default" for name in CASES} == set(TABLE)


def several(result: Any) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


@pytest.mark.parametrize(("name", "own"), EACH, ids=[f"{name}-{i}" for i, (name, _) in enumerate(EACH)])
def test_results_are_close_to_those_of_torch(name: str, own: tuple[Any, ...]) -> None:
    expected, result = several(overload(f"aten.{name}.default")(*own)), several(call(name, *own))
    for one, other in zip(result, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-6)
    by_name = {
        a.name: v for a, v in zip(overload(f"aten.{name}.default")._schema.arguments, own, strict=False)
    }
    for one, other in zip(several(call(name, **by_name)), result, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("name", "own"), EACH, ids=[f"{name}-{i}" for i, (name, _) in enumerate(EACH)])
def test_neither_layout_nor_threads_change_a_bit(name: str, own: tuple[Any, ...]) -> None:
    whole = several(call(name, *own))

    def moved(layout: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        return several(call(name, *(layout(x) if isinstance(x, Tensor) else x for x in own)))

    layouts: list[Callable[[Tensor], Tensor]] = [
        lambda x: x.to(memory_format=torch.channels_last) if x.dim() == 4 else x,
        lambda x: x.mT.contiguous().mT,
        lambda x: torch.stack([x, x], -1)[..., 0],
    ]
    for layout in layouts:
        for one, other in zip(moved(layout), whole, strict=True):
            assert torch.equal(one, other)
    last = moved(layouts[0])[0]
    if last.dim() == 4 and own[0].dim() == 4:
        assert last.is_contiguous(memory_format=torch.channels_last)
    assert whole[0].is_contiguous()
    torch.set_num_threads(2)
    for one, other in zip(several(call(name, *own)), whole, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", sorted(CASES))
def test_other_element_types_are_refused(name: str) -> None:
    for dtype in (torch.float64, torch.bfloat16):
        own = [x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in CASES[name][0]]
        with pytest.raises(ReplayError, match=str(dtype).removeprefix("torch.")):
            call(name, *own)


@pytest.mark.parametrize("name", sorted(set(CASES) - {"embedding_dense_backward"}))
def test_an_empty_batch_is_one_where_torch_has_it(name: str) -> None:
    own = [x[:0] if isinstance(x, Tensor) else x for x in CASES[name][0]]
    if name.startswith("upsample") and name.endswith("backward"):
        own[2] = [0, *own[2][1:]]
    for result in several(call(name, *own)):
        assert result.shape[0] == 0


def test_an_expanded_gradient_and_no_indices() -> None:
    gradient = torch.tensor(0.25).expand(2, 3, 3, 4)
    name = "_adaptive_avg_pool2d_backward"
    assert bits(call(name, gradient, IMAGE)) == bits(call(name, gradient.contiguous(), IMAGE))
    none = torch.empty(0, dtype=torch.int64)
    assert bits(call("embedding_dense_backward", torch.empty(0, 2), none, 2, -1, False)) == [0] * 4


def test_what_does_not_fit_is_refused() -> None:
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("embedding_dense_backward", (torch.ones(2, 2), torch.tensor([0, 1]), 2, -1, True)),
        ("embedding_dense_backward", (torch.ones(3, 2), torch.tensor([0, 1]), 2, -1, False)),
        ("avg_pool2d", (IMAGE, [2], [0])),
        ("avg_pool2d", (IMAGE, [2], [1], [2])),
        ("avg_pool2d", (IMAGE, [8], [1])),
        ("avg_pool2d", (IMAGE, [2], [1], [0], False, True, 0)),
        ("avg_pool2d", (IMAGE[0, 0], [2])),
        ("avg_pool2d_backward", (IMAGE, IMAGE, [2], [1], [0], False, True, None)),
        ("_adaptive_avg_pool2d", (IMAGE, [0, 1])),
        ("_adaptive_avg_pool2d_backward", (IMAGE[:1], IMAGE)),
        ("max_pool2d_with_indices_backward", (IMAGE, IMAGE, [2], [], [0], [1], False, INDEX)),
        ("upsample_nearest2d_backward", (IMAGE, [2, 2], [2, 3, 1, 1])),
        ("col2im", (torch.ones(1, 4, 5), [2, 2], [2, 2], [1, 1], [0, 0], [1, 1])),
    ]
    for name, own in calls:
        with pytest.raises(ReplayError):
            call(name, *own)
