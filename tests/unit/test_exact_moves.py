from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact.moves import TABLE
from gradseal.program.operators import FILLED

INF = math.inf
NAN = math.nan
SMALL = st.floats(width=32, min_value=-1024, max_value=1024)
Case = tuple[tuple[Any, ...], dict[str, Any]]


def aten(name: str) -> Any:
    _, operator, overload = name.split(".")
    return getattr(getattr(torch.ops.aten, operator), overload)


def full_name(name: str) -> str:
    return f"aten.{name}" if "." in name else f"aten.{name}.default"


def run(name: str, *args: Any, **kwargs: Any) -> Any:
    return TABLE[full_name(name)](*args, **kwargs)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


LAYOUTS: dict[str, Callable[[], Tensor]] = {
    "contiguous": lambda: random(3, 4, 5),
    "transposed": lambda: random(5, 4, 3).permute(2, 1, 0),
    "strided": lambda: random(3, 4, 11)[..., 1::2],
    "expanded": lambda: random(3, 1, 5).expand(3, 4, 5),
    "whole": lambda: torch.arange(60, dtype=torch.int64).reshape(3, 4, 5),
    "true": lambda: random(3, 4, 5) > 0,
}
AT = torch.tensor([1, 0, 2])
PLACES = torch.tensor([[[0, 1, 0, 2, 1]], [[2, 1, 1, 0, 0]]])
NO_TIES = torch.tensor([[[0, 1, 0, 2, 1], [1, 2, 3, 3, 0]], [[2, 1, 1, 0, 0], [0, 3, 2, 1, 3]]])


def own(*args: Any, **kwargs: Any) -> Callable[[Tensor], Case]:
    return lambda x: ((x, *args), kwargs)


def made(*args: Any, **kwargs: Any) -> Callable[[Tensor], Case]:
    return lambda x: (args, kwargs)


def picture(*args: Any) -> Callable[[Tensor], Case]:
    return lambda x: ((x.reshape(1, 3, 4, 5), *args), {})


CASES: dict[str, Callable[[Tensor], Case]] = {
    **{
        n: own() for n in ("alias", "detach", "lift_fresh", "lift_fresh_copy", "positive", "clone", "squeeze")
    },
    "permute": own([2, 0, 1]),
    "t": lambda x: ((x[0],), {}),
    "transpose.int": own(0, 2),
    "transpose_": own(0, 1),
    "expand": lambda x: ((x[:, :1], [3, 4, 5]), {}),
    "expand_as": lambda x: ((x[:, :1], x), {}),
    "select.int": own(1, -2),
    "slice.Tensor": own(1, 1, 9223372036854775807, 2),
    "squeeze.dim": lambda x: ((x[:, :1], 1), {}),
    "squeeze.dims": lambda x: ((x[:1, :1], [0, 1]), {}),
    "squeeze_.dim": lambda x: ((x[:, :1], 1), {}),
    "unsqueeze": own(1),
    "unsqueeze_": own(-1),
    "split.Tensor": own(2, 1),
    "unsafe_split.Tensor": own(2, 2),
    "split_with_sizes": own([1, 3], 1),
    "unsafe_split_with_sizes": own([1, 3], 1),
    "unbind.int": own(1),
    "unfold": own(2, 3, 2),
    "diagonal": own(1, 0, 2),
    "view": own([12, 5]),
    "_unsafe_view": own([2, -1]),
    "cat": lambda x: (([x, x[:, 1:], torch.zeros(3, 1, 5, dtype=torch.int64)], 1), {}),
    "stack": lambda x: (([x, x], 1), {}),
    "flip": own([0, 2]),
    "roll": own([2, 1], [0, 2]),
    "repeat": own([2, 1, 1, 2]),
    "index.Tensor": own([None, AT]),
    "gather": own(1, NO_TIES),
    "index_select": own(1, AT),
    "embedding": lambda x: ((x[0], AT), {}),
    "tril": own(1),
    "triu": own(-1),
    "pad": own([1, 2], "constant", 1.0),
    "constant_pad_nd": own([1, -1, 2, 0], 1),
    "pixel_shuffle": lambda x: ((x.reshape(4, 3, 5), 2), {}),
    "pixel_unshuffle": lambda x: ((x[:, :, :4].reshape(1, 3, 4, 4), 2), {}),
    "channel_shuffle": lambda x: ((x.reshape(1, 4, 3, 5), 2), {}),
    **{f"{kind}_pad1d": lambda x: ((x.float(), [1, 2]), {}) for kind in ("reflection", "replication")},
    **{f"{kind}_pad2d": lambda x: ((x.float(), [1, 2, 0, 1]), {}) for kind in ("reflection", "replication")},
    **{
        f"{kind}_pad3d": lambda x: ((x.float().unsqueeze(0), [1, 2, 0, 1, 1, 1]), {})
        for kind in ("reflection", "replication")
    },
    "select_backward": lambda x: ((x[0], [4, 4, 5], 0, 2), {}),
    "slice_backward": own([3, 9, 5], 1, 1, 9, 2),
    "diagonal_backward": lambda x: ((x[:, 0, :3], [3, 4, 4], 1, 1, 2), {}),
    "select_scatter": lambda x: ((x, x[1], 0, 2), {}),
    "slice_scatter": lambda x: ((x, x[:, :2], 1, 1, 3), {}),
    "diagonal_scatter": lambda x: ((x, x[:, :, 0].t()[:, :3], 0, 0, 2), {}),
    **{n: own() for n in ("zero", "zero_", "zeros_like", "ones_like")},
    "zeros": made([2, 3], dtype=torch.int64),
    "ones": made([2, 3]),
    "full": made([2, 3], 0.1),
    "full_like": own(3),
    "eye": made(3),
    "eye.m": made(3, 4, dtype=torch.bool),
    "fill.Scalar": own(2),
    "fill_.Scalar": own(1),
    "fill_.Tensor": own(torch.tensor(1)),
    "scalar_tensor": made(0.3),
    "new_zeros": own([2]),
    "new_ones": own([2], dtype=torch.float32),
    "new_full": own([2], 7),
    "scatter.value": own(1, PLACES, 1),
    "scatter_.value": own(1, PLACES, 1),
    "index_fill.int_Scalar": own(1, AT, 1),
    "index_fill_.int_Scalar": own(1, AT, 1),
    "empty.memory_format": made([2, 3]),
    "empty_like": own(),
    "empty_strided": made([2, 3], [1, 2], dtype=torch.int32),
    "new_empty": own([2]),
    "new_empty_strided": own([2, 2], [1, 2]),
    "arange": made(7),
    "arange.start": made(-3, 4.5),
    "arange.start_step": made(3, -4, -2),
    "linspace": made(-2, 6, 9),
    "scatter.src": lambda x: ((x, 1, NO_TIES, x.flip(0)), {}),
    "scatter_.src": lambda x: ((x, 1, NO_TIES, x.flip(0)), {}),
    "scatter_add": lambda x: ((x, 1, PLACES, x.flip(0)), {}),
    "scatter_add_": lambda x: ((x, 1, PLACES, x.flip(0)), {}),
    "index_add": lambda x: ((x, 1, torch.tensor([1, 1, 3, 1]), x.flip(0)), {}),
    "index_put": lambda x: ((x, [None, AT], x.flip(0)[:, :3]), {}),
    "index_put_": lambda x: ((x, [AT, None, AT], x[1, :, :1].t()), {}),
}
FULL = {full_name(name): case for name, case in CASES.items()}


def test_every_operator_is_compared_with_atens() -> None:
    assert set(FULL) == set(TABLE)


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("name", sorted(FULL))
def test_is_atens(name: str, layout: str) -> None:
    if layout == "expanded" and name.split(".")[1].endswith("_"):
        pytest.skip("elements share memory")
    (args, kwargs), (others, _) = FULL[name](LAYOUTS[layout]()), FULL[name](LAYOUTS[layout]())
    if name in ("aten.index_add.default", "aten.positive.default") and layout == "true":
        pytest.skip("truth values are not added")
    got = TABLE[name](*args, **kwargs)
    if name in FILLED:
        expected = aten(name)(*others, **kwargs).zero_()
    elif name in ("aten._unsafe_view.default", "aten.view.default"):
        expected = torch.reshape(*others)
    else:
        expected = aten(name)(*others, **kwargs)
    pairs = zip(got, expected, strict=True) if isinstance(expected, tuple | list) else [(got, expected)]
    for g, e in pairs:
        assert g.dtype is e.dtype
        exact = not any(part in name for part in ("_add", "accumulate"))
        torch.testing.assert_close(g, e, rtol=0 if exact else 1e-6, atol=0 if exact else 1e-6)
    if name.split(".")[1].endswith("_"):
        torch.testing.assert_close(args[0], others[0], rtol=1e-6, atol=1e-6)
        assert got.data_ptr() == args[0].data_ptr()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", sorted(FULL))
def test_other_types_are_refused(name: str, dtype: torch.dtype) -> None:
    args, kwargs = FULL[name](LAYOUTS["contiguous"]())
    if any(isinstance(a, Tensor) and a.dtype is torch.float32 for a in args):
        args = tuple(a.to(dtype) if isinstance(a, Tensor) and a.is_floating_point() else a for a in args)
    elif name in ("aten.cat.default", "aten.stack.default"):
        args = ([a.to(dtype) for a in args[0]], *args[1:])
    else:
        kwargs = {**kwargs, "dtype": dtype}
    with pytest.raises(ReplayError, match=str(dtype).removeprefix("torch.")):
        TABLE[name](*args, **kwargs)


def test_a_view_shares_memory_where_it_can() -> None:
    x = random(3, 4)
    assert run("view", x, [2, 6]).data_ptr() == x.data_ptr()
    assert run("view", x.t(), [2, 6]).tolist() == x.t().reshape(2, 6).tolist()
    with pytest.raises(RuntimeError):
        run("view", x, [5])


@settings(deadline=None)
@given(st.integers(-50, 50), st.integers(0, 60), st.sampled_from([1, 2, 3, -1, -7]))
def test_counting_integers_is_as_pythons(start: int, length: int, step: int) -> None:
    end = start + length * (1 if step > 0 else -1)
    expected = list(range(start, end, step))
    assert run("arange.start_step", start, end, step).tolist() == expected
    assert run("arange.start_step", start, end, step, dtype=torch.float32).tolist() == expected
    assert run("arange.start_step", start, end, step, dtype=torch.float32).dtype is torch.float32


def test_counting_fractions_rounds_each_step() -> None:
    step, start = torch.tensor(0.1), torch.tensor(-0.7)
    expected = [(start + torch.tensor(float(i)) * step).item() for i in range(37)]
    assert run("arange.start_step", -0.7, 3.0, 0.1).tolist() == expected
    torch.testing.assert_close(run("arange.start_step", -0.7, 3.0, 0.1), torch.arange(-0.7, 3.0, 0.1))
    for args in ((0, 1, 0), (0, -1, 1), (0.0, INF, 1)):
        with pytest.raises(ReplayError):
            run("arange.start_step", *args)
    with pytest.raises(ReplayError):
        run("arange", 2.5, dtype=torch.int64)


def test_equal_distances_are_counted_from_the_nearer_end() -> None:
    first, last = torch.tensor(0.1), torch.tensor(0.9)
    for steps in (2, 3, 10, 31):
        step = (last - first) / torch.tensor(float(steps - 1))
        low = [(first + torch.tensor(float(i)) * step).item() for i in range(steps // 2)]
        high = [(last - torch.tensor(float(i)) * step).item() for i in range(steps - steps // 2)]
        assert run("linspace", 0.1, 0.9, steps).tolist() == low + high[::-1]
    assert run("linspace", 0.1, 0.9, 1).tolist() == [first.item()]
    assert run("linspace", 0.1, 0.9, 0).tolist() == []
    with pytest.raises(ReplayError):
        run("linspace", 0.1, 0.9, -1)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_of_several_sent_to_a_place_the_last_stays(data: st.DataObject) -> None:
    rows, columns, places = (data.draw(st.integers(1, 4)) for _ in range(3))
    index = [[data.draw(st.integers(0, places - 1)) for _ in range(columns)] for _ in range(rows)]
    src = random(rows + 1, columns + 1, seed=rows)
    for dim in (0, 1):
        shape = (places, columns) if dim == 0 else (rows, places)
        expected = torch.full(shape, 9.0)
        for i in range(rows):
            for j in range(columns):
                expected[(index[i][j], j) if dim == 0 else (i, index[i][j])] = src[i, j]
        given_index = torch.tensor(index)
        target = torch.full(shape, 9.0)
        assert torch.equal(run("scatter.src", target, dim, given_index, src), expected)
        assert torch.equal(run("scatter_.src", target, dim, given_index, src), expected)
    flat = torch.tensor(index)
    expected = torch.full((places, 3), 9.0)
    values = random(rows, columns, 3, seed=columns)
    for i in range(rows):
        for j in range(columns):
            expected[index[i][j]] = values[i, j]
    assert torch.equal(run("index_put", torch.full((places, 3), 9.0), [flat], values), expected)
    assert torch.equal(run("index_put_", torch.full((places, 3), 9.0), [flat], values), expected)


def test_many_collisions_leave_the_last() -> None:
    index = torch.randint(0, 7, (20000,), generator=torch.Generator().manual_seed(3))
    src = random(20000, seed=4)
    last = [max(i for i, place in enumerate(index.tolist()) if place == p) for p in range(7)]
    assert torch.equal(run("scatter.src", torch.zeros(7), 0, index, src), src[last])
    assert torch.equal(run("index_put", torch.zeros(7), [index], src), src[last])


def indexings() -> dict[str, tuple[Sequence[Tensor | None], Sequence[int]]]:
    """Indexes of a (3, 4, 5) tensor, and the shape of what they select."""
    mask = torch.tensor([[True, False, True, False], [False] * 4, [True] * 4])
    row = torch.tensor([[-1], [0]])
    return {
        "one": ([AT], (3, 4, 5)),
        "middle": ([None, AT], (3, 3, 5)),
        "last": ([None, None, torch.tensor([[4, -5], [0, 4]])], (3, 4, 2, 2)),
        "neighbours": ([None, AT, torch.tensor([4, 4, 4])], (3, 3)),
        "apart": ([AT, None, torch.tensor([0, 4, 0])], (3, 4)),
        "broadcast": ([row, torch.tensor([1, 1, 3])], (2, 3, 5)),
        "mask": ([mask], (6, 5)),
        "mask after": ([None, torch.tensor([True, False, True, True])], (3, 3, 5)),
        "mask and index": ([torch.tensor([True, False, True]), None, torch.tensor([2, 2])], (2, 4)),
        "all": ([AT, AT, AT], (3,)),
        "none": ([torch.zeros(0, dtype=torch.int64)], (0, 4, 5)),
        "number": ([torch.tensor(2), torch.tensor([1, 1])], (2, 5)),
    }


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("kind", list(indexings()))
def test_every_way_to_index_is_atens(kind: str, accumulate: bool) -> None:
    indices, shape = indexings()[kind]
    for x in (random(3, 4, 5), random(5, 4, 3).permute(2, 1, 0), torch.arange(60).reshape(3, 4, 5)):
        assert x[tuple(slice(None) if i is None else i for i in indices)].shape == tuple(shape)
        # Whole numbers add up exactly in any order, and of equal values it does not matter which is last.
        for values in (torch.full(tuple(shape), 3).to(x.dtype), torch.tensor(2).to(x.dtype)):
            expected = torch.ops.aten.index_put.default(x, indices, values, accumulate)
            got = run("index_put", x, indices, values, accumulate)
            torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
            own_copy = x.clone()
            run("index_put_", own_copy, indices, values, accumulate=accumulate)
            assert torch.equal(own_copy, got)


def nearest(q: Fraction) -> float:
    if q == 0:
        return 0.0
    exponent = max(abs(q.numerator).bit_length() - q.denominator.bit_length() - 24, -149)
    while abs(q) / Fraction(2) ** exponent >= 1 << 24:
        exponent += 1
    return float(round(q / Fraction(2) ** exponent) * Fraction(2) ** exponent)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 3), SMALL), min_size=1, max_size=20), SMALL)
def test_what_is_added_is_summed_exactly_then_added_once(sent: list[tuple[int, float]], first: float) -> None:
    largest = max(abs(value) for _, value in sent)
    exponent = -149
    while largest >= 2.0**exponent:
        exponent += 1
    unit = Fraction(2) ** (exponent - 53 + (len(sent) - 1).bit_length())
    totals = [sum(round(Fraction(v) / unit) for place, v in sent if place == p) * unit for p in range(4)]
    expected = torch.tensor([nearest(Fraction(first) + Fraction(nearest(Fraction(t)))) for t in totals])
    index, values = torch.tensor([p for p, _ in sent]), torch.tensor([v for _, v in sent])
    target = torch.full((4,), first)
    assert torch.equal(run("index_put", target, [index], values, True), expected)
    assert torch.equal(run("index_add", target, 0, index, values), expected)
    assert torch.equal(run("scatter_add", target, 0, index, values), expected)
    backwards = run("index_put", target, [index.flip(0)], values.flip(0), True)
    assert torch.equal(backwards, expected)


def test_alpha_of_index_add_is_rounded_first() -> None:
    x, index, source = torch.zeros(2), torch.tensor([1, 1, 1]), random(3)
    expected = run("index_add", x, 0, index, source * torch.tensor(0.1))
    assert torch.equal(run("index_add", x, 0, index, source, alpha=0.1), expected)
    assert run("index_add", torch.tensor(1.0), 0, torch.tensor([0, 0]), torch.ones(2)).item() == 3.0


@pytest.mark.parametrize("place", [3, -4])
def test_places_that_are_not_there_are_refused(place: int) -> None:
    x, index = random(3), torch.tensor([place])
    for name, args in (
        ("index_put", ([index], torch.ones(1))),
        ("index_put", ([index], torch.ones(1), True)),
        ("scatter.src", (0, index, torch.ones(1))),
        ("scatter_add", (0, index, torch.ones(1))),
        ("index_add", (0, index, torch.ones(1))),
        ("gather", (0, index)),
        ("index_select", (0, index)),
        ("index.Tensor", ([index],)),
    ):
        with pytest.raises((ReplayError, RuntimeError, IndexError)):
            run(name, x, *args)
    with pytest.raises((RuntimeError, IndexError)):
        run("embedding", x.reshape(3, 1), index)


def test_what_does_not_fit_is_refused() -> None:
    x = random(3, 4)
    for name, args in (
        ("index_put", ([AT], torch.ones(3, 4, dtype=torch.int64))),
        ("index_put", ([None], torch.ones(3, 4))),
        ("index_put", ([AT, AT, AT], torch.ones(3))),
        ("index_put", ([torch.ones(2, dtype=torch.bool)], torch.tensor(1.0))),
        ("scatter.src", (0, AT.reshape(1, 3), torch.ones(1, 2))),
        ("scatter.src", (0, AT.reshape(1, 3), torch.ones(1, 3, dtype=torch.int64))),
        ("index_add", (0, AT, torch.ones(3, 3))),
        ("fill_.Tensor", (torch.ones(2),)),
    ):
        with pytest.raises((ReplayError, RuntimeError)):
            run(name, x, *args)
    with pytest.raises(ReplayError, match="does not hold"):
        run("fill_.Tensor", torch.zeros(2, dtype=torch.int64), torch.tensor(NAN))
