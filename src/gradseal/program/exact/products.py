"""Products of matrices in exact arithmetic: one definition, several realisations with the same bits.

Rows of the left and columns of the right operand go to fixed point; each result is the sum of the products of
their integers, exact, and is rounded to float32 once. Since every partial sum of every realisation is an
exact integer too, threads, vector width, blocking, fused operations and the library that multiplies cannot
change a bit.

A row or column with an infinity or a NaN makes each of its results NaN, of the pattern 7FC00000; a result
that is zero is +0. Order here: the operators, sums of products of integers, rounding. Format:
docs/spec/arithmetic.md, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact import kernel
from gradseal.program.exact.digits import (
    BITS,
    DIGIT_BITS,
    DIGITS,
    digits,
    fixed_point,
    power_of_two_double,
    require_float32,
)

MAX_LENGTH = 2**27
"""The most products in one sum: what the bounds of every realisation are made for."""

_SAFE = 32  # products of integers of 24 bits: 2^48 · 32 = 2^53, what a float64 counts to
_SQUARED_BOUND = 2.0**106 * (1 - 2.0**-20)  # for sums of squares that were rounded up to 2^27 times
_SPLIT = 1.5 * 2.0**78  # added and subtracted, it rounds to a multiple of 2^26
_INT8_BLOCK = 2**18  # 64 · 64 · 2^18 is below 2^31
_PART = 2**20
"""The fewest products that are worth a thread."""


class Realisation(StrEnum):
    """How a sum of products of integers is computed; the bits are the same.

    `kernel`: in compiled code. `float64`: products of float64 matrices, in blocks. `int8`: sixteen products
    of int8 matrices with sums of int32, for processors that have instructions for them.
    """

    KERNEL = "kernel"
    FLOAT64 = "float64"
    INT8 = "int8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """Exact sums, as high + low.

    Args:
        high: float64, multiples of 2^26 below 2^79; None for zeros.
        low: float64, integers of at most 2^53 in magnitude.
    """

    high: Tensor | None
    low: Tensor


def matmul(a: Tensor, b: Tensor, *, realisation: Realisation | None = None) -> Tensor:
    """The product of two matrices.

    Args:
        a: float32, (m, k).
        b: float32, (k, n), k at most `MAX_LENGTH`.
        realisation: How to compute it; changes no bit. None is the fastest there is.

    Returns:
        float32, (m, n).

    Raises:
        ReplayError: The operands are not such matrices.
    """
    _require("matmul", a, b, 2)
    return _product(a, b, realisation)


def bmm(a: Tensor, b: Tensor, *, realisation: Realisation | None = None) -> Tensor:
    """The products of matrices pair by pair, each as `matmul` gives it.

    Args:
        a: float32, (batch, m, k).
        b: float32, (batch, k, n).
        realisation: How to compute it; changes no bit. None is the fastest there is.

    Returns:
        float32, (batch, m, n).

    Raises:
        ReplayError: The operands are not such batches.
    """
    _require("bmm", a, b, 3)
    return _product(a, b, realisation)


def _require(operator: str, a: Tensor, b: Tensor, dimensions: int) -> None:
    left, right = a.shape, b.shape
    if len(left) != dimensions or len(right) != dimensions:
        raise ReplayError(
            f"operands of shapes {tuple(left)} and {tuple(right)} have not {dimensions} dimensions each",
            where=operator,
        )
    if left[-1] != right[-2] or left[:-2] != right[:-2]:
        raise ReplayError(f"shapes {tuple(left)} and {tuple(right)} do not fit", where=operator)
    require_length(left[-1], where=operator)
    require_float32(a, b)


def require_length(length: int, *, where: str) -> None:
    """Nothing, if a sum of so many products is one that the bounds are made for.

    Raises:
        ReplayError: If it is longer.
    """
    if length > MAX_LENGTH:
        raise ReplayError(f"a sum of {length} products is longer than {MAX_LENGTH}", where=where)


def chosen(realisation: Realisation | None, *tensors: Tensor) -> Realisation:
    """The realisation asked for, or the fastest there is for these tensors.

    Raises:
        ReplayError: It is asked for by name, and there is none.
    """
    compiled = kernel.usable(*tensors)
    if realisation is Realisation.KERNEL and not compiled:
        raise ReplayError("there is no compiled kernel for these tensors", where="exact arithmetic")
    if realisation is None:
        return Realisation.KERNEL if compiled else Realisation.FLOAT64
    return realisation


def _product(a: Tensor, b: Tensor, realisation: Realisation | None) -> Tensor:
    how = chosen(realisation, a, b)
    if how is Realisation.KERNEL:
        return _compiled(a, b)
    rows, columns = fixed_point(a, (-1,)), fixed_point(b, (-2,))
    total = sum_of_products(rows.integers, columns.integers, how)
    return rounded(total, (rows.exponents, columns.exponents), (rows.finite, columns.finite))


def _compiled(a: Tensor, b: Tensor) -> Tensor:
    """Parts of the batch or, of one pair of matrices, of the rows, each in one call."""
    *batch, m, k = a.shape
    n = b.shape[-1]
    out = torch.empty((*batch, m, n))
    multiply = compiled_function("products", 3, 10)
    left, right, to = a.data_ptr(), b.data_ptr(), out.data_ptr()
    strides = (*(a.stride() if batch else (0, *a.stride())), *(b.stride() if batch else (0, *b.stride())))
    if batch and batch[0] != 1:
        apart, b_apart = 4 * strides[0], 4 * strides[3]

        def pairs(start: int, end: int) -> None:
            at = left + start * apart, right + start * b_apart, to + start * 4 * m * n
            multiply(*at, end - start, m, k, n, *strides)

        kernel.in_parts(batch[0], pairs, least=1 + _PART // (m * k * n + 1))
        return out
    apart = 4 * strides[1]

    def rows(start: int, end: int) -> None:
        multiply(left + start * apart, right, to + start * 4 * n, 1, end - start, k, n, *strides)

    kernel.in_parts(m, rows, least=1 + _PART // (k * n + 1))
    return out


def compiled_function(name: str, addresses: int, integers: int) -> Callable[..., None]:
    """A function of the kernel that needs memory of its own.

    Args:
        name: Its own, without the prefix that all have.
        addresses: How many addresses it takes.
        integers: How many integers it takes after these.

    Returns:
        It, raising ReplayError where memory lacks.
    """
    function = kernel.known(kernel.function(name, "p" * addresses + "n" * integers, "i"))

    def call(*arguments: int) -> None:
        if function(*arguments):
            raise ReplayError("not enough memory", where="exact arithmetic")

    return call


def sum_of_products(a: Tensor, b: Tensor, realisation: Realisation) -> Total:
    """The product of matrices of integers, exactly.

    Args:
        a: float64, (…, m, k), integers of at most 2^24 in magnitude, k at most `MAX_LENGTH`.
        b: float64, (…, k, n), such integers; the dimensions before expand.
        realisation: How to compute it; not `kernel`.
    """
    return _SUMS[realisation](a, b)


def added(a: Total, b: Total) -> Total:
    """The sum of sums, whose highs together stay below 2^79; splits their lows."""
    highs = [high for high in (a.high, b.high) if high is not None]
    for low in (a.low, b.low):
        highs.append((low + _SPLIT) - _SPLIT)
    high = highs[0] + highs[1]
    for more in highs[2:]:
        high += more
    low = (a.low - highs[-2]) + (b.low - highs[-1])
    return Total(high=high, low=low)


def rounded(total: Total, exponents: tuple[Tensor, Tensor], finite: tuple[Tensor, Tensor]) -> Tensor:
    """The sums in their scales, rounded to float32.

    Args:
        total: Sums of products of integers.
        exponents: Of the vectors that were multiplied, shaped to expand to the sums.
        finite: Whether these vectors are; where one is not, the result is NaN.
    """
    value = total.low if total.high is None else _to_odd(total.high, total.low)
    # Both scalings are exact in float64.
    value = value * power_of_two_double(exponents[0] - BITS)
    value *= power_of_two_double(exponents[1] - BITS)
    result = value.to(torch.float32)
    result += 0.0  # −0 + 0 is +0
    if all(bool(each.all()) for each in finite):
        return result
    return result.masked_fill(~(finite[0] & finite[1]), float("nan"))


def _to_odd(high: Tensor, low: Tensor) -> Tensor:
    """Their sum rounded to odd: the next rounding, to fewer bits, is as if it were the only one."""
    total = high + low
    # What the addition lost (Knuth 1969, TwoSum).
    part = total - high
    lost = (high - (total - part)) + (low - part)
    words = total.view(torch.int64)
    move = torch.where((lost > 0) == (total > 0), 1, -1)
    return torch.where((lost != 0) & ((words & 1) == 0), words + move, words).view(torch.float64)


def _float64_sum(a: Tensor, b: Tensor) -> Total:
    total = None
    for start, end in blocks(_squares(a, -1), _squares(b, -2)):
        part = slice(start, end)
        block = Total(high=None, low=a[..., part] @ b[..., part, :])
        total = block if total is None else added(total, block)
    return Total(high=None, low=a @ b) if total is None else total


def _squares(x: Tensor, dim: int) -> list[float]:
    """For each 32 places along a dimension, the largest sum of squares of a vector's elements there."""
    lines = x.movedim(dim, 0).flatten(1).square()
    length = lines.shape[0]
    if not lines.numel():
        return [0.0] * -(-length // _SAFE)
    whole = length - length % _SAFE
    found: list[float] = (
        lines[:whole].reshape(-1, _SAFE, lines.shape[1]).sum(1).amax(1).tolist() if whole else []
    )
    return found + ([float(lines[whole:].sum(0).max())] if whole < length else [])


def blocks(rows: list[float], columns: list[float]) -> list[tuple[int, int]]:
    """Where a sum of products is cut so that no partial sum is beyond 2^53.

    A partial sum is at most the product of the norms of what it multiplies (Cauchy and Schwarz).

    Args:
        rows: For each 32 products, what the squares of a row's integers there sum up to at most.
        columns: The same of a column's.

    Returns:
        Start and end of each block; the last may end beyond the last product.
    """
    found = []
    start, a, b = 0, 0.0, 0.0
    for i, (row, column) in enumerate(zip(rows, columns, strict=True)):
        if i > start and (a + row) * (b + column) > _SQUARED_BOUND:
            found.append((_SAFE * start, _SAFE * i))
            start, a, b = i, 0.0, 0.0
        a, b = a + row, b + column
    if rows:
        found.append((_SAFE * start, _SAFE * len(rows)))
    return found


def _int8_sum(a: Tensor, b: Tensor) -> Total:
    """Sixteen products of matrices of digits, weighted."""
    left, right = digits(a), digits(b)
    shape = (*_batch(a, b), a.shape[-2], b.shape[-1])
    # Of weights 2^0 to 2^21, and 2^28 to 2^42 in units of 2^28: both stay below 2^63 for K ≤ 2^27.
    low, high = (torch.zeros(shape, dtype=torch.int64, device=a.device) for _ in range(2))
    for start in range(0, a.shape[-1], _INT8_BLOCK):
        part = slice(start, start + _INT8_BLOCK)
        for i in range(DIGITS):
            for j in range(DIGITS):
                product = _int8_product(left[i][..., part], right[j][..., part, :]).to(torch.int64)
                places = 2 * (DIGITS - 1) - i - j
                if places < DIGITS:
                    low += product << (DIGIT_BITS * places)
                else:
                    high += product << (DIGIT_BITS * (places - DIGITS))
    unit = DIGIT_BITS * DIGITS
    high += low >> unit
    low &= (1 << unit) - 1
    return Total(high=high.to(torch.float64) * 2.0**unit, low=low.to(torch.float64))


def _batch(a: Tensor, b: Tensor) -> tuple[int, ...]:
    shape = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # type: ignore[no-untyped-call]
    return tuple(shape)


def _int8_product(a: Tensor, b: Tensor) -> Tensor:
    """int32 sums of int8 products; PyTorch's operator takes one pair of matrices."""
    if a.dim() == b.dim() == 2:
        return torch._int_mm(a.contiguous(), b.contiguous())
    batch = _batch(a, b)
    a, b = (x.expand(*batch, *x.shape[-2:]).flatten(0, -3) for x in (a, b))
    pairs = [_int8_product(left, right) for left, right in zip(a, b, strict=True)]
    result = torch.stack(pairs) if pairs else a.new_zeros((0, a.shape[1], b.shape[2]), dtype=torch.int32)
    return result.reshape(*batch, *result.shape[1:])


_SUMS: Mapping[Realisation, Callable[[Tensor, Tensor], Total]] = {
    Realisation.FLOAT64: _float64_sum,
    Realisation.INT8: _int8_sum,
}
