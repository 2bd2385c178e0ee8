from __future__ import annotations

import itertools
import json
import math
import random
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact.sums import mean_along, sum_along, sum_by_index, sum_by_indices
from vectors import make_functions

INF = math.inf
NAN = math.nan
SMALLEST = 2.0**-149
LARGEST = 2.0**128 - 2.0**104
NAN_BITS = 0x7FC00000

VECTORS = json.loads(Path(make_functions.__file__).with_name("functions.json").read_text(encoding="utf-8"))
ANY = st.floats(width=32)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
# Numbers of one size cancel, and those of two sizes lose bits to the unit.
CLOSE = st.floats(width=32, min_value=-2.0, max_value=2.0) | st.sampled_from(
    [2.0**-40, -(2.0**-40), 3 * 2.0**98, -3 * 2.0**98]
)


def bits(x: Tensor) -> list[int]:
    values: list[int] = (x.reshape(-1).view(torch.int32).to(torch.int64) & 0xFFFFFFFF).tolist()
    return values


def bits_of(x: float) -> int:
    return NAN_BITS if math.isnan(x) else int.from_bytes(struct.pack(">f", x), "big")


def nearest(q: Fraction) -> float:
    """The float32 next to a fraction, ties to even, with one zero."""
    if q == 0:
        return 0.0
    exponent = abs(q.numerator).bit_length() - q.denominator.bit_length()
    while Fraction(2) ** exponent > abs(q):
        exponent -= 1
    while Fraction(2) ** (exponent + 1) <= abs(q):
        exponent += 1
    quantum = Fraction(2) ** max(exponent - 23, -149)
    rounded = round(q / quantum) * quantum
    if abs(rounded) >= 2**128:
        return math.copysign(INF, q)
    return float(rounded) + 0.0


def unit(values: Sequence[float], count: int) -> Fraction:
    """Of section 5: the largest is below 2^e, and `count` integers of b bits stay below 2^53."""
    largest = max(map(abs, values), default=0.0)
    exponent = 128 if not math.isfinite(largest) or any(map(math.isnan, values)) else math.frexp(largest)[1]
    exponent = exponent if largest else -148
    length = next(53 - spare for spare in itertools.count() if 2**spare >= count)
    return Fraction(2) ** (exponent - length)


def added(values: Sequence[float], quantum: Fraction) -> Fraction | float:
    """The sum of the values as multiples of the quantum; of what is not finite, if there is any."""
    special = [x for x in values if not math.isfinite(x)]
    if special:
        return sum(special)
    return sum((round(Fraction(x) / quantum) for x in values), Fraction(0)) * quantum


def oracle_sum(values: Sequence[float], quantum: Fraction) -> int:
    total = added(values, quantum)
    return bits_of(nearest(total) if isinstance(total, Fraction) else total)


def oracle_mean(values: Sequence[float]) -> int:
    quantum = unit(values, len(values))
    total = added(values, quantum)
    if not isinstance(total, Fraction):
        return bits_of(total)
    # Python divides integers with one rounding, too.
    quotient = (total / quantum).numerator / len(values)
    return bits_of(nearest(Fraction(quotient) * quantum))


def random_patterns(*shape: int) -> Tensor:
    drawn: npt.NDArray[np.uint32] = np.random.default_rng(5).integers(0, 1 << 32, shape, dtype=np.uint32)
    return torch.from_numpy(drawn.view(np.float32))


@given(st.lists(ANY, min_size=1, max_size=40) | st.lists(CLOSE, min_size=1, max_size=40))
def test_sum_and_mean_are_those_of_the_integers(values: list[float]) -> None:
    x = torch.tensor(values)
    assert bits(sum_along(x)) == [oracle_sum(values, unit(values, len(values)))]
    assert bits(mean_along(x)) == [oracle_mean(values)]


@given(st.lists(FINITE, min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_no_order_matters(values: list[float], random: random.Random) -> None:
    shuffled = random.sample(values, len(values))
    assert bits(sum_along(torch.tensor(shuffled))) == bits(sum_along(torch.tensor(values)))


@given(FINITE)
def test_a_sum_of_one_number_is_that_number(x: float) -> None:
    assert bits(sum_along(torch.tensor([x]))) == bits(mean_along(torch.tensor([x]))) == [bits_of(x + 0.0)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], 0.0),
        ([-0.0], 0.0),
        ([-0.0, -0.0], 0.0),
        ([1.0, -1.0], 0.0),
        ([SMALLEST, SMALLEST], 2 * SMALLEST),
        ([-SMALLEST], -SMALLEST),
        ([LARGEST, LARGEST], INF),
        ([-LARGEST, -LARGEST], -INF),
        ([LARGEST, LARGEST, -LARGEST], LARGEST),
        ([LARGEST, 2.0**102], LARGEST),
        ([LARGEST, 2.0**103], INF),
        ([INF, 1.0, LARGEST], INF),
        ([-INF, 1.0], -INF),
        ([INF, -INF], NAN),
        ([INF, NAN], NAN),
        ([NAN, 1.0], NAN),
        ([1.0, 2.0**-24], 1.0),
        ([1.0 + 2.0**-23, 2.0**-24], 1.0 + 2.0**-22),
        ([1.0, 2.0**-24, 2.0**-48], 1.0 + 2.0**-23),
        # Beyond the unit: 1 < 2^1, b = 53 − 2 for three numbers, and half a unit goes to the even zero.
        ([1.0, 2.0**-24, 2.0**-51], 1.0),
        ([1.0, 2.0**-24, 1.5 * 2.0**-51], 1.0 + 2.0**-23),
    ],
)
def test_corners_of_a_sum(values: list[float], expected: float) -> None:
    assert bits(sum_along(torch.tensor(values, dtype=torch.float32))) == [bits_of(expected)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], NAN),
        ([-0.0, 0.0], 0.0),
        ([-SMALLEST, 0.0, 0.0], 0.0),
        ([SMALLEST, 0.0], 0.0),
        ([SMALLEST, SMALLEST, SMALLEST, 0.0], SMALLEST),
        ([LARGEST, LARGEST], LARGEST),
        ([1.0, 0.0, 0.0], 1 / 3),
        ([INF, 0.0], INF),
        ([INF, -INF], NAN),
    ],
)
def test_corners_of_a_mean(values: list[float], expected: float) -> None:
    assert bits(mean_along(torch.tensor(values, dtype=torch.float32))) == [bits_of(expected)]


DIMENSIONS = [(), (0,), (1,), (2,), (-1,), (0, 2), (1, 0), (0, 1, 2)]


@pytest.mark.parametrize("dims", DIMENSIONS)
@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 4, 1), (2, 0, 3)])
def test_dimensions_are_those_of_torch(shape: tuple[int, ...], dims: tuple[int, ...]) -> None:
    x = torch.randint(-99, 99, shape).to(torch.float32)
    for keepdim in (False, True):
        result = sum_along(x, dims, keepdim=keepdim)
        assert result.dtype == torch.float32
        assert torch.equal(result, x.sum(dims, keepdim=keepdim))
        mean = mean_along(x, dims, keepdim=keepdim)
        assert torch.allclose(mean, x.mean(dims, keepdim=keepdim), equal_nan=True)


def test_a_number_without_dimensions_is_its_own_sum() -> None:
    x = torch.tensor(3.5)
    results = [sum_along(x), sum_along(x, (0,)), sum_along(x, (-1,), keepdim=True), mean_along(x)]
    assert [(r.shape, r.item()) for r in results] == [(x.shape, 3.5)] * 4


def test_each_vector_has_its_own_unit() -> None:
    x = torch.tensor([[1e30, 1.0, -1e30], [1e-30, 1e-36, -1e-30], [NAN, 1.0, 2.0], [0.0, 0.0, 0.0]])
    rows = [oracle_sum(row, unit(row, 3)) for row in x.tolist()]
    assert bits(sum_along(x, (1,))) == rows
    assert rows[1] == bits_of(x[1, 1].item())


@pytest.mark.parametrize("total", [sum_along, mean_along])
def test_neither_threads_nor_layout_change_a_bit(total: Callable[..., Tensor]) -> None:
    x = random_patterns(60, 41, 70)
    x = torch.where(x.abs() < 1e20, x, 0.25)
    for dims in DIMENSIONS[:6]:
        whole = total(x, dims)
        kept = total(x, dims, keepdim=True)
        moved = x.permute(2, 0, 1).contiguous().permute(1, 2, 0)
        assert not moved.is_contiguous()
        assert bits(total(moved, dims)) == bits(whole)
        apart = torch.stack([x, -x], dim=-1)[..., 0]
        assert bits(total(apart, dims, keepdim=True)) == bits(kept)
        turned = x.flip(dims or (0, 1, 2))
        assert bits(total(turned, dims)) == bits(whole)
        torch.set_num_threads(2)
        assert bits(total(x, dims)) == bits(whole)
        torch.set_num_threads(1)
    rows = x[:, :1].expand(-1, 41, -1)
    assert bits(total(rows, (1,))) == bits(total(rows.contiguous(), (1,)))


def test_a_long_sum_stays_exact_where_every_integer_is_as_large_as_may_be() -> None:
    # 2^18 + 1 numbers: one bit fewer for each of them.
    count = (1 << 18) + 1
    x = torch.full((count,), 1.0 - 2.0**-24)
    values = [1.0 - 2.0**-24]
    quantum = unit(values, count)
    exact = round(Fraction(values[0]) / quantum) * count * quantum
    assert bits(sum_along(x)) == [bits_of(nearest(exact))]


@st.composite
def slices(draws: st.DrawFn, elements: st.SearchStrategy[float]) -> tuple[list[list[float]], list[int], int]:
    size = draws(st.integers(1, 4))
    width = draws(st.integers(1, 3))
    row = st.lists(elements, min_size=width, max_size=width)
    rows = draws(st.lists(row, min_size=1, max_size=12))
    return rows, draws(st.lists(st.integers(0, size - 1), min_size=len(rows), max_size=len(rows))), size


@settings(max_examples=150)
@given(st.data())
def test_slices_added_by_index_are_sums_of_integers_in_one_unit(data: st.DataObject) -> None:
    rows, index, size = data.draw(slices(data.draw(st.sampled_from([ANY, CLOSE]))))
    quantum = unit([x for row in rows for x in row], len(rows))
    result = sum_by_index(torch.tensor(rows), 0, torch.tensor(index), size)
    turned = sum_by_index(torch.tensor(rows).t(), 1, torch.tensor(index), size)
    for place, column in itertools.product(range(size), range(len(rows[0]))):
        met = [row[column] for row, target in zip(rows, index, strict=True) if target == place]
        expected = oracle_sum(met, quantum)
        assert bits(result[place, column]) == bits(turned[column, place]) == [expected]


@settings(max_examples=150)
@given(st.data())
def test_elements_added_by_indices_are_sums_of_integers_in_one_unit(data: st.DataObject) -> None:
    rows, _, size = data.draw(slices(data.draw(st.sampled_from([ANY, CLOSE]))))
    width = len(rows[0])
    row = st.lists(st.integers(0, size - 1), min_size=width, max_size=width)
    index = data.draw(st.lists(row, min_size=len(rows), max_size=len(rows)))
    # What lies outside the index has no part in the unit either.
    source = torch.nn.functional.pad(torch.tensor(rows), (0, 1), value=LARGEST)
    quantum = unit([x for row in rows for x in row], len(rows))
    result = sum_by_indices(source, 0, torch.tensor(index), (size, width + 1))
    for place, column in itertools.product(range(size), range(width)):
        met = [rows[i][column] for i in range(len(rows)) if index[i][column] == place]
        assert bits(result[place, column]) == [oracle_sum(met, quantum)]
    assert bits(result[:, width]) == [0] * size


def test_collisions_do_not_depend_on_order_or_threads() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3000, 17, generator=generator)
    index = torch.randint(0, 5, (3000,), generator=generator)
    order = torch.randperm(3000, generator=generator)
    spread_index = index[:, None].expand(-1, 17)
    by_index, by_indices = sum_by_index(x, 0, index, 6), sum_by_indices(x, 0, spread_index, (6, 17))
    assert bits(by_index) == bits(by_indices)
    assert bits(sum_by_index(x[order], 0, index[order], 6)) == bits(by_index)
    assert bits(sum_by_index(x.t().contiguous().t(), 0, index, 6)) == bits(by_index)
    torch.set_num_threads(2)
    assert bits(sum_by_index(x[order], 0, index[order], 6)) == bits(by_index)
    assert bits(sum_by_indices(x[order], 0, spread_index[order], (6, 17))) == bits(by_index)


def test_nothing_added_is_zero() -> None:
    none = torch.empty(0, dtype=torch.int64)
    assert bits(sum_by_index(torch.empty(0, 2), 0, none, 3)) == [0] * 6
    assert bits(sum_by_indices(torch.ones(4), 0, none, (3,))) == [0] * 3
    assert bits(sum_by_index(torch.tensor([-0.0]), 0, torch.tensor([1]), 2)) == [0, 0]


def test_other_element_types_are_refused() -> None:
    x = torch.ones(2, dtype=torch.float64)
    index = torch.tensor([0, 1])
    calls: list[Callable[[], Tensor]] = [
        lambda: sum_along(x),
        lambda: mean_along(x),
        lambda: sum_by_index(x, 0, index, 2),
        lambda: sum_by_indices(x, 0, index, (2,)),
    ]
    for call in calls:
        with pytest.raises(ReplayError, match="float64"):
            call()


def numbers(case: dict[str, Any]) -> Tensor:
    words = np.array([int(word, 16) for word in case["elements"]], dtype=np.uint32)
    return torch.from_numpy(words.view(np.float32)).reshape(case["shape"])


@pytest.mark.parametrize("case", VECTORS["sums"])
def test_the_vectors_of_sums_are_met(case: dict[str, Any]) -> None:
    x, dims = numbers(case), case["dims"] or range(len(case["shape"]))
    sums, means = ([int(word, 16) for word in case[name]] for name in ("sum", "mean"))
    assert bits(sum_along(x, case["dims"])) == sums
    assert bits(mean_along(x, case["dims"])) == means
    kept = [dim for dim in range(x.dim()) if dim not in dims]
    rows = x.permute(*kept, *dims).reshape(len(sums), -1).tolist()
    assert [oracle_sum(row, unit(row, len(row))) for row in rows] == sums
    assert [oracle_mean(row) if row else NAN_BITS for row in rows] == means


@pytest.mark.parametrize("case", VECTORS["into_places"])
def test_the_vectors_of_sums_into_places_are_met(case: dict[str, Any]) -> None:
    x, dim, size = numbers(case), case["dim"], case["size"]
    shape = [size if d == dim else length for d, length in enumerate(x.shape)]
    by_index = sum_by_index(x, dim, torch.tensor(case["index"]), size)
    by_indices = sum_by_indices(x, dim, torch.tensor(case["indices"]).view(x.shape), shape)
    assert bits(by_index) == [int(word, 16) for word in case["by_index"]]
    assert bits(by_indices) == [int(word, 16) for word in case["by_indices"]]
