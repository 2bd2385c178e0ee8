"""Fixed point: float32 vectors as integers of 25 bits under one exponent, and these as balanced digits.

A vector's exponent comes from the bits of its largest element, and each element is rounded once. What
follows is integers, so that sums of their products can be exact. A vector with an infinity or a NaN has no
fixed point: it is marked, and its integers are 0. Relies on IEEE-754 products by powers of two, with
subnormals kept, and on integer operations. Format: docs/spec/arithmetic.md, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradseal.errors import ReplayError

BITS = 24
"""An element's integer is at most 2^24 in magnitude."""

DIGITS = 4
DIGIT_BITS = 7

_MAGNITUDE = 0x7FFFFFFF
_INFINITY = 0x7F800000
_FRACTION_BITS = 23


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPoint:
    """Vectors in fixed point: element ≈ integer · 2^(exponent − 24).

    Args:
        integers: float64, in the shape of the vectors' tensor, each at most 2^24 in magnitude.
        exponents: int32, one for each vector; the dimensions that the vectors fill are kept, of size 1.
        finite: bool, shaped like the exponents: whether all elements of the vector are finite.
    """

    integers: Tensor
    exponents: Tensor
    finite: Tensor


def fixed_point(x: Tensor, dims: Sequence[int]) -> FixedPoint:
    """The vectors that fill some dimensions of a float32 tensor, in fixed point.

    Args:
        x: float32, of any shape and strides.
        dims: The dimensions over which an exponent is shared.

    Raises:
        ReplayError: The tensor is not of float32.
    """
    require_float32(x)
    largest = _largest(x.view(torch.int32) & _MAGNITUDE, dims)
    finite = largest < _INFINITY
    if not bool(finite.all()):
        x = x.masked_fill(~finite, 0.0)
        largest = largest.masked_fill(~finite, 0)
    exponents = _exponents(largest)
    integers = x.to(torch.float64).mul_(power_of_two_double(BITS - exponents)).round_()
    return FixedPoint(integers=integers, exponents=exponents, finite=finite)


def require_float32(*tensors: Tensor) -> None:
    """Nothing, if all are of float32.

    Raises:
        ReplayError: If one is not.
    """
    for x in tensors:
        if x.dtype is not torch.float32:
            raise ReplayError(f"exact arithmetic takes float32, not {str(x.dtype).removeprefix('torch.')}")


def digits(integers: Tensor) -> tuple[Tensor, ...]:
    """The balanced digits of integers in float64, most significant first, as int8.

    All lie in [−64, 63], and the first in [−8, 8].
    """
    found = []
    rest = integers.to(torch.int32)
    for _ in range(DIGITS - 1):
        head = (rest + (1 << (DIGIT_BITS - 1))) >> DIGIT_BITS
        found.append((rest - (head << DIGIT_BITS)).to(torch.int8))
        rest = head
    return (rest.to(torch.int8), *reversed(found))


def power_of_two_double(exponents: Tensor) -> Tensor:
    """2^exponent as float64, made from its bits; for −1022 ≤ exponent ≤ 1023."""
    return ((exponents.to(torch.int64) + 1023) << 52).view(torch.float64)


def _largest(magnitudes: Tensor, dims: Sequence[int]) -> Tensor:
    """The largest magnitude of each vector, as bits: they order as the numbers do, NaN above infinity."""
    if all(magnitudes.shape[dim] for dim in dims):
        return magnitudes.amax(dim=tuple(dims), keepdim=True)
    shape = list(magnitudes.shape)
    for dim in dims:
        shape[dim] = 1
    return magnitudes.new_zeros(shape)


def _exponents(magnitudes: Tensor) -> Tensor:
    """The smallest e ≥ −149 with x < 2^e, from the bits of finite x ≥ 0."""
    biased = magnitudes >> _FRACTION_BITS
    # A subnormal is 2^-149 times an integer below 2^23, whose length its own float32 shows: that is exact.
    length = (magnitudes.to(torch.float32).view(torch.int32) >> _FRACTION_BITS) - 126
    subnormal = torch.where(magnitudes > 0, length, 0) - 149
    return torch.where(biased > 0, biased - 126, subnormal).to(torch.int32)
