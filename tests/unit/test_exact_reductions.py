from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact.reductions import TABLE

INF = math.inf
NAN = math.nan
ANY = st.floats(width=32)
TIED = st.sampled_from([0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, 2.0**-149, -(2.0**-149)])
SMALL = st.floats(width=32, min_value=-1024, max_value=1024)


def aten(name: str) -> Any:
    _, operator, overload = name.split(".")
    return getattr(getattr(torch.ops.aten, operator), overload)


def run(name: str, *args: Any, **kwargs: Any) -> Any:
    return TABLE[f"aten.{name}" if "." in name else f"aten.{name}.default"](*args, **kwargs)


def nearest(q: Fraction) -> float:
    """The binary32 next to a fraction, by way of an integer of 24 bits; too large is infinite."""
    if q == 0:
        return 0.0
    exponent = max(abs(q.numerator).bit_length() - q.denominator.bit_length() - 24, -149)
    while abs(q) / Fraction(2) ** exponent >= 1 << 24:
        exponent += 1
    value = round(q / Fraction(2) ** exponent) * Fraction(2) ** exponent
    return float(value) if abs(value) < 1 << 128 else math.copysign(INF, q)


def bits(x: Tensor) -> list[int]:
    x = x.masked_fill(x.isnan(), NAN) if x.dtype is torch.float32 else x
    flat = x.contiguous().view(torch.int32) if x.dtype is torch.float32 else x
    values: list[int] = flat.reshape(-1).tolist()
    return values


def key(x: float) -> tuple[int, float, float]:
    """The place of a number in the total order, NaN above all."""
    return (1, 0.0, 0.0) if math.isnan(x) else (0, x, math.copysign(1.0, x))


def low_key(x: float) -> tuple[int, float, float]:
    """Likewise, NaN below all."""
    return (-1, 0.0, 0.0) if math.isnan(x) else key(x)


LAYOUTS: dict[str, Callable[[], Tensor]] = {
    "contiguous": lambda: torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1)),
    "transposed": lambda: torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(2)).permute(2, 1, 0),
    "strided": lambda: torch.randn(3, 4, 11, generator=torch.Generator().manual_seed(3))[..., 1::2],
    "expanded": lambda: torch.randn(3, 1, 5, generator=torch.Generator().manual_seed(4)).expand(3, 4, 5),
    "empty": lambda: torch.zeros(0, 4, 5),
    "scalar": lambda: torch.tensor(-1.5),
    "one": lambda: torch.randn(3, 1, 5, generator=torch.Generator().manual_seed(5)),
}
Case = tuple[tuple[Any, ...], dict[str, Any]]
WHOLE: list[Case] = [((), {})]
ALONG: list[Case] = [((1,), {}), ((-2, True), {})]
LISTED: list[Case] = [(([1],), {}), (([-2], True), {}), (([0, -1],), {})]
CASES: dict[str, list[Case]] = {
    **{name: WHOLE for name in ("sum", "mean", "prod", "max", "min", "any", "all")},
    "sum.dim_IntList": [*LISTED, ((None,), {}), (([], True), {})],
    "mean.dim": [*LISTED, ((None, True), {})],
    "cumsum": [((1,), {}), ((-2,), {})],
    **{
        name: [(([1],), {}), ((), {"correction": 0}), (([-2, 0],), {"correction": 1, "keepdim": True})]
        for name in ("var.correction", "var_mean.correction", "std.correction", "std_mean.correction")
    },
    "linalg_vector_norm": [((order, [1]), {}) for order in (2, 1, 0, INF, -INF)] + [((2,), {})],
    "norm.Scalar": [((), {}), ((1,), {}), ((INF,), {})],
    "norm.ScalarOpt_dim": [((2, [1]), {}), ((None, [-2], True), {})],
    "prod.dim_int": ALONG,
    "amax": [*LISTED, ((), {})],
    "amin": [*LISTED, ((), {})],
    **{name: ALONG for name in ("max.dim", "min.dim", "any.dim", "all.dim")},
    "argmax": [*ALONG, ((), {})],
    "argmin": [*ALONG, ((None, True), {})],
    "aminmax": [((), {}), ((), {"dim": 1}), ((), {"dim": -2, "keepdim": True})],
    "sort": [((), {}), ((1, True), {})],
    "sort.stable": [((), {"stable": True, "dim": 1}), ((), {"stable": True, "descending": True, "dim": -2})],
    "argsort": [((), {}), ((1, True), {})],
    "argsort.stable": [((), {"stable": True, "dim": 1})],
    "topk": [((1, 1), {}), ((1, -2, False), {}), ((0,), {})],
}
FULL = {f"aten.{n}" if "." in n else f"aten.{n}.default": c for n, c in CASES.items()}
FULL["aten.trace.default"] = WHOLE


def test_every_operator_is_compared_with_atens() -> None:
    assert set(FULL) == set(TABLE)


def outcome(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Its results, or None where it refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = function(*args, **kwargs)
        except (RuntimeError, IndexError, ReplayError):
            return None
    return list(result) if isinstance(result, tuple | list) else [result]


@pytest.mark.parametrize("kind", ["float32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("name", sorted(FULL))
def test_is_close_to_atens(name: str, layout: str, kind: str) -> None:
    x = LAYOUTS[layout]()
    if kind != "float32":
        x = (x * 3).to(torch.int64)
        x = (x > 0) if kind == "bool" else x.abs().to(torch.uint8) if kind == "uint8" else x
    if name == "aten.trace.default":
        x = x.reshape(-1, 5) if x.dim() else x
    for args, kwargs in FULL[name]:
        if layout == "scalar" and (args or kwargs):
            continue
        expected, got = outcome(aten(name), (x, *args), kwargs), outcome(TABLE[name], (x, *args), kwargs)
        if expected is None:
            assert got is None or kind == "bool"
            continue
        assert got is not None
        for g, e in zip(got, expected, strict=True):
            if (
                (kind != "float32" or layout == "expanded")
                and ("sort" in name or "topk" in name)
                and g.dtype is torch.int64
            ):
                continue  # ATen leaves ties open
            assert g.dtype is e.dtype
            assert g.shape == e.shape
            torch.testing.assert_close(g, e, rtol=2e-6, atol=2e-6, equal_nan=True)


@pytest.mark.parametrize("layout", ["transposed", "strided", "expanded"])
@pytest.mark.parametrize("name", sorted(FULL))
def test_how_elements_lie_changes_no_bit(name: str, layout: str) -> None:
    x = LAYOUTS[layout]()[0] if name == "aten.trace.default" else LAYOUTS[layout]()
    for args, kwargs in FULL[name]:
        got = outcome(TABLE[name], (x, *args), kwargs)
        expected = outcome(TABLE[name], (x.contiguous(), *args), kwargs)
        assert [bits(g) for g in got] == [bits(e) for e in expected]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", sorted(FULL))
def test_other_types_are_refused(name: str, dtype: torch.dtype) -> None:
    x = torch.ones(3, 4, 5).to(dtype) if name != "aten.trace.default" else torch.ones(3, 3).to(dtype)
    args, kwargs = FULL[name][0]
    with pytest.raises(ReplayError, match=str(dtype).removeprefix("torch.")):
        TABLE[name](x, *args, **kwargs)


def test_the_type_of_a_sum_can_be_asked_for() -> None:
    x = torch.tensor([2**24, 1, 1], dtype=torch.int64)
    assert run("sum", x, dtype=torch.float32).item() == 2.0**24 + 2
    assert run("mean", x, dtype=torch.float32).item() == nearest(Fraction(2**24 + 2, 3))
    assert run("cumsum", x, 0, dtype=torch.float32).tolist() == [2.0**24, 2.0**24, 2.0**24 + 2]
    assert run("sum", torch.tensor([1.5, -2.5]), dtype=torch.int64).item() == -1
    for name in ("sum", "mean", "prod"):
        with pytest.raises(ReplayError, match="float64"):
            run(name, torch.ones(3), dtype=torch.float64)


def prefix_sums(values: list[float]) -> list[float]:
    """The definition, with Python's integers."""
    finite = all(map(math.isfinite, values))
    bits_each = 53 - (len(values) - 1).bit_length()
    largest = max(map(abs, values)) if finite else INF
    exponent = -149
    while finite and Fraction(largest) >= Fraction(2) ** exponent:
        exponent += 1
    exponent = exponent if finite else 128
    unit = Fraction(2) ** (exponent - bits_each)
    total, special, results = 0, [], []
    for value in values:
        if math.isfinite(value):
            total += round(Fraction(value) / unit)
        else:
            special.append(value)
        results.append(sum(special) if special else nearest(total * unit))
    return results


@settings(deadline=None, max_examples=200)
@given(st.lists(ANY | SMALL, min_size=1, max_size=20))
def test_prefix_sums_are_exact(values: list[float]) -> None:
    expected = torch.tensor(prefix_sums(values))
    lines = torch.tensor([values, values[::-1]])
    assert bits(run("cumsum", lines, 1)[0]) == bits(expected)
    assert bits(run("cumsum", lines.t().contiguous(), 0).t()[0]) == bits(expected)


def test_prefix_sums_of_a_long_line_end_in_its_sum() -> None:
    x = torch.randn(2, 100_001, generator=torch.Generator().manual_seed(0))
    assert bits(run("cumsum", x, 1)[:, -1]) == bits(run("sum.dim_IntList", x, [1]))
    assert bits(run("cumsum", torch.tensor([-0.0, -0.0]), 0)) == [0, 0]


@settings(deadline=None, max_examples=200)
@given(st.lists(SMALL, min_size=1, max_size=20), st.sampled_from([0, 1, 0.5]))
def test_variances_round_each_step(values: list[float], correction: float) -> None:
    count = len(values)
    # Sums of numbers of one size are exact before they are rounded; others differ from these at most in bits
    # that the unit drops, so ask for the mean.
    x = torch.tensor(values)
    mean = run("mean", x).item()
    away = [nearest(Fraction(v) - Fraction(mean)) for v in values]
    squares = torch.tensor([nearest(Fraction(a) ** 2) for a in away])
    total = run("sum", squares).item()
    free = nearest(Fraction(max(0.0, count - correction)))
    expected = nearest(Fraction(total) / Fraction(free)) if free else (INF if total else NAN)
    variance, middle = run("var_mean.correction", x, correction=correction)
    assert bits(variance) == bits(torch.tensor(expected))
    assert middle.item() == mean
    assert bits(run("var.correction", x, [0], correction=correction)) == bits(variance)
    root = run("std.correction", x, correction=correction).item()
    if free:
        assert abs(Fraction(root) ** 2 - Fraction(expected)) <= Fraction(expected) / 2**22


@settings(deadline=None, max_examples=200)
@given(st.lists(SMALL, min_size=0, max_size=20))
def test_products_go_by_halves(values: list[float]) -> None:
    def halved(line: list[float]) -> float:
        while len(line) > 1:
            half = (len(line) + 1) // 2
            products = [nearest_signed(a, b) for a, b in zip(line, line[half:], strict=False)]
            line = products + line[len(products) : half]
        return line[0] if line else 1.0

    def nearest_signed(a: float, b: float) -> float:
        if math.isinf(a) or math.isinf(b) or not a or not b:
            return a * b
        return math.copysign(nearest(Fraction(a) * Fraction(b)), math.copysign(1, a) * math.copysign(1, b))

    x = torch.tensor(values)
    assert bits(run("prod", x)) == bits(torch.tensor(halved(values)))
    twice = torch.stack([x, x])
    assert bits(run("prod.dim_int", twice, 1)[1]) == bits(torch.tensor(halved(values)))
    assert run("prod.dim_int", twice, 1, True).shape == (2, 1)


@settings(deadline=None, max_examples=300)
@given(st.lists(TIED | ANY, min_size=1, max_size=12))
def test_the_first_of_equals_is_the_extreme(values: list[float]) -> None:
    x = torch.tensor(values)
    largest = max(range(len(values)), key=lambda i: (key(values[i]), -i))
    smallest = min(range(len(values)), key=lambda i: (low_key(values[i]), i))
    for name, place in (("max", largest), ("min", smallest)):
        expected = torch.tensor(values[place])
        assert bits(run(name, x)) == bits(expected)
        assert bits(run(f"a{name}", x, [0])) == bits(expected)
        value, index = run(f"{name}.dim", x, 0)
        assert bits(value) == bits(expected)
        assert index.item() == place
        assert run(f"arg{name}", x).item() == place
    assert bits(run("aminmax", x)[0]) == bits(torch.tensor(values[smallest]))
    assert bits(run("linalg_vector_norm", x, INF)) == bits(torch.tensor(max(map(abs, values), key=key)))


@settings(deadline=None, max_examples=300)
@given(st.lists(TIED | ANY, min_size=1, max_size=40), st.data())
def test_orders_keep_equals_as_they_were(values: list[float], data: st.DataObject) -> None:
    x = torch.tensor(values)
    ascending = sorted(range(len(values)), key=lambda i: key(values[i]))
    descending = sorted(range(len(values)), key=lambda i: key(values[i]), reverse=True)
    assert run("argsort", x).tolist() == ascending
    assert run("argsort.stable", x, stable=True, descending=True).tolist() == descending
    sorted_values, order = run("sort", x, 0, True)
    assert order.tolist() == descending
    assert bits(sorted_values) == bits(x[order])
    k = data.draw(st.integers(0, len(values)))
    for largest, wanted in ((True, descending), (False, ascending)):
        top, places = run("topk", x, k, largest=largest)
        assert places.tolist() == wanted[:k]
        assert bits(top) == bits(x[places])


def test_order_does_not_depend_on_width_or_layout() -> None:
    generator = torch.Generator().manual_seed(7)
    x = torch.randint(-3, 3, (40, 3000), generator=generator).to(torch.float32)
    places = run("max.dim", x, 1)[1]
    assert places.tolist() == [row.index(max(row)) for row in x.tolist()]
    rows: list[list[float]] = x.tolist()
    wanted = [sorted(range(3000), key=row.__getitem__, reverse=True)[:700] for row in rows]
    assert run("topk", x, 700, 1)[1].tolist() == wanted
    for dim, layout in itertools.product((0, 1), (x, x.t().contiguous().t())):
        assert bits(run("sort", layout, dim)[0]) == bits(run("sort", x, dim)[0])
        assert bits(run("max.dim", layout, dim)[1]) == bits(run("max.dim", x, dim)[1])


def test_a_nan_is_the_extreme_wherever_it_is() -> None:
    for size in (1, 7, 33, 1000):
        for place in {0, size // 2, size - 1}:
            x = torch.randn(3, size)
            x[1, place] = NAN
            for layout in (x, x.t().contiguous().t()):
                for name in ("amax", "amin"):
                    assert run(name, layout, [1]).isnan().tolist() == [False, True, False]
                    assert run(name, layout).isnan()
                for name in ("max.dim", "min.dim"):
                    assert run(name, layout, 1)[1][1] == place


def test_what_has_no_result_is_refused() -> None:
    for name, args in (
        ("topk", (4,)),
        ("topk", (-1,)),
        ("linalg_vector_norm", (3,)),
        ("norm.Scalar", (0.5,)),
    ):
        with pytest.raises(ReplayError):
            run(name, torch.ones(3), *args)
    with pytest.raises(ReplayError):
        run("mean", torch.arange(3))
    with pytest.raises(ReplayError):
        run("var.correction", torch.arange(3))


def test_results_share_no_memory_with_operands() -> None:
    x = torch.tensor([[2.0]])
    for name, args in (
        ("prod.dim_int", (0,)),
        ("amax", ([0],)),
        ("cumsum", (0,)),
        ("sum.dim_IntList", ([0],)),
    ):
        run(name, x, *args).zero_()
    run("sort", x)[0].zero_()
    run("topk", x, 1)[0].zero_()
    assert x.item() == 2.0
