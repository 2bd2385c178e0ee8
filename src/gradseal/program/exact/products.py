"""Products of matrices in exact arithmetic: one definition, several realisations with the same bits.

Rows of the left and columns of the right operand go to fixed point; each result is a sum of products of
digits, an exact integer, rounded to float32 once. Since every partial sum of every realisation is an exact
integer too, threads, vector width, blocking, fused operations and the library that multiplies cannot change
a bit.

A row or column with an infinity or a NaN makes each of its results NaN, of the pattern 7FC00000; a result
that is zero is +0. Format: docs/spec/arithmetic.md, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

import torch
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact.digits import (
    BITS,
    DIGIT_BITS,
    DIGITS,
    FixedPoint,
    digits,
    fixed_point,
    leading,
    power_of_two_double,
)

MAX_LENGTH = 2**29
"""The most products in one sum: beyond it, their sum could exceed 63 bits."""

_SCALE = DIGIT_BITS * (DIGITS - 1) - 2 * BITS  # a unit of the sum, where both exponents are 0, is 2^-33
_BLOCK = 2**18  # 64 · 64 · 2^18 is below 2^31, and the weighted sum below 2^52
_SHORT_BLOCK = 2**10  # 3 · 64 · 64 · 2^10 is below 2^24, what a float32 counts to


class Realisation(StrEnum):
    """How a sum of products of digits is computed; the bits are the same.

    `float64`: four products of float64 matrices. `mixed`: one of float64, and four of float32. `int8`: ten
    products of int8 matrices with sums of int32, for processors that have instructions for them.
    """

    FLOAT64 = "float64"
    MIXED = "mixed"
    INT8 = "int8"


def matmul(a: Tensor, b: Tensor, *, realisation: Realisation = Realisation.MIXED) -> Tensor:
    """The product of two matrices.

    Args:
        a: float32, (m, k).
        b: float32, (k, n), k at most `MAX_LENGTH`.
        realisation: How to compute it; changes no bit.

    Returns:
        float32, (m, n).

    Raises:
        ReplayError: The operands are not such matrices.
    """
    _require("matmul", a, b, 2)
    return _product(a, b, realisation)


def bmm(a: Tensor, b: Tensor, *, realisation: Realisation = Realisation.MIXED) -> Tensor:
    """The products of matrices pair by pair, each as `matmul` gives it.

    Args:
        a: float32, (batch, m, k).
        b: float32, (batch, k, n).
        realisation: How to compute it; changes no bit.

    Returns:
        float32, (batch, m, n).

    Raises:
        ReplayError: The operands are not such batches.
    """
    _require("bmm", a, b, 3)
    return _product(a, b, realisation)


def _require(operator: str, a: Tensor, b: Tensor, dimensions: int) -> None:
    shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
    if a.dim() != dimensions or b.dim() != dimensions:
        raise ReplayError(
            f"operands of shapes {shapes} have not {dimensions} dimensions each", where=operator
        )
    if a.shape[-1] != b.shape[-2] or a.shape[:-2] != b.shape[:-2]:
        raise ReplayError(f"shapes {shapes} do not fit", where=operator)
    if a.shape[-1] > MAX_LENGTH:
        raise ReplayError(f"a sum of {a.shape[-1]} products is longer than {MAX_LENGTH}", where=operator)


def _product(a: Tensor, b: Tensor, realisation: Realisation) -> Tensor:
    rows, columns = fixed_point(a, -1), fixed_point(b, -2)
    return _rounded(_sum(rows.integers, columns.integers, _SUMS[realisation]), rows, columns)


def _rounded(total: Tensor, rows: FixedPoint, columns: FixedPoint) -> Tensor:
    """The sum in its scale, rounded to float32; both scalings are exact in float64."""
    total *= power_of_two_double(rows.exponents)
    total *= power_of_two_double(columns.exponents + _SCALE)
    result = total.to(torch.float32)
    result += 0.0  # −0 + 0 is +0
    if bool(rows.finite.all()) and bool(columns.finite.all()):
        return result
    return result.masked_fill(~(rows.finite & columns.finite), float("nan"))


def _sum(a: Tensor, b: Tensor, block_sum: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The sum as float64: exact below 2^53, and what rounds to the same float32 above."""
    length = a.shape[-1]
    if length <= _BLOCK:
        return block_sum(a, b)
    total = torch.zeros((*a.shape[:-1], b.shape[-1]), dtype=torch.int64, device=a.device)
    for start in range(0, length, _BLOCK):
        part = slice(start, start + _BLOCK)
        total += block_sum(a[..., part], b[..., part, :]).to(torch.int64)
    return _to_odd(total)


def _to_odd(total: Tensor) -> Tensor:
    """An integer of 63 bits as float64, rounded to odd: the next rounding is as if it were the only one.

    Of an integer beyond 2^53 the last 10 bits become one that tells whether any of them was set. It lies at
    least 19 bits below the last bit of a float32, so that no tie is made or broken.
    """
    head = total >> 10
    head |= ((total & 1023) != 0).to(torch.int64)
    exact = (total < 2**53) & (total > -(2**53))
    return torch.where(exact, total.to(torch.float64), head.to(torch.float64) * 1024.0)


def _float64_sum(a: Tensor, b: Tensor) -> Tensor:
    """Each digit of a times those leading digits of b that it meets: Σ aᵢ · lead(b, 3 − i)."""
    pairs = zip(digits(leading(a)), reversed(leading(b)), strict=True)
    products = (digit.to(torch.float64) @ part.to(torch.float64) for digit, part in pairs)
    total = next(products)
    for product in products:
        total += product
    return total


def _mixed_sum(a: Tensor, b: Tensor) -> Tensor:
    """lead(a, 1) · lead(b, 2) has six of the ten pairs of digits; the other four fit into float32."""
    left, right = leading(a), leading(b)
    total = left[1].to(torch.float64) @ right[2].to(torch.float64)
    a0, _, a2, a3 = (digit.to(torch.float32) for digit in digits(left))
    b0, b1, _, b3 = (digit.to(torch.float32) for digit in digits(right))
    for start in range(0, a.shape[-1], _SHORT_BLOCK):
        part = slice(start, start + _SHORT_BLOCK)
        units = a0[..., part] @ b3[..., part, :]
        units += a2[..., part] @ b1[..., part, :]
        units += a3[..., part] @ b0[..., part, :]
        total += units
        total += (a2[..., part] @ b0[..., part, :]).to(torch.float64) * 2.0**DIGIT_BITS
    return total


def _int8_sum(a: Tensor, b: Tensor) -> Tensor:
    """The definition as it stands: ten products of matrices of digits, weighted."""
    left = [digit.to(torch.int8) for digit in digits(leading(a))]
    right = [digit.to(torch.int8) for digit in digits(leading(b))]
    total = torch.zeros((*a.shape[:-1], b.shape[-1]), dtype=torch.int64, device=a.device)
    for i in range(DIGITS):
        for j in range(DIGITS - i):
            total += _int8_product(left[i], right[j]).to(torch.int64) << (DIGIT_BITS * (DIGITS - 1 - i - j))
    return total.to(torch.float64)


def _int8_product(a: Tensor, b: Tensor) -> Tensor:
    """int32 sums of int8 products; PyTorch's operator takes one pair of matrices."""
    if a.dim() == 2:
        return torch._int_mm(a.contiguous(), b.contiguous())
    pairs = [_int8_product(left, right) for left, right in zip(a, b, strict=True)]
    return torch.stack(pairs) if pairs else a.new_zeros((0, a.shape[1], b.shape[2]), dtype=torch.int32)


_SUMS: Mapping[Realisation, Callable[[Tensor, Tensor], Tensor]] = {
    Realisation.FLOAT64: _float64_sum,
    Realisation.MIXED: _mixed_sum,
    Realisation.INT8: _int8_sum,
}
