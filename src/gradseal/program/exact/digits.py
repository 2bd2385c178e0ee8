"""Fixed point: float32 vectors as integers of 28 bits under one exponent, and these as balanced digits.

A vector's exponent comes from the bits of its largest element, and each element is rounded once. What
follows is integers, so that sums of their products can be exact. A vector with an infinity or a NaN has no
fixed point: it is marked, and its integers are 0. Relies on IEEE-754 products by powers of two, with
subnormals kept, and on integer operations. Format: docs/spec/arithmetic.md, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from gradseal.errors import ReplayError

BITS = 27
"""An element's integer is below 2^27 in magnitude."""

DIGITS = 4
DIGIT_BITS = 7

_MAGNITUDE = 0x7FFFFFFF
_INFINITY = 0x7F800000
_FRACTION_BITS = 23


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPoint:
    """Vectors in fixed point: element ≈ integer · 2^(exponent − 27).

    Args:
        integers: int32, in the shape of the vectors' tensor, each below 2^27 in magnitude.
        exponents: int32, one for each vector; the dimension that the vectors lie along is kept, of size 1.
        finite: bool, shaped like the exponents: whether all elements of the vector are finite.
    """

    integers: Tensor
    exponents: Tensor
    finite: Tensor


def fixed_point(x: Tensor, dim: int) -> FixedPoint:
    """The vectors of a float32 tensor that lie along a dimension, in fixed point.

    Args:
        x: float32, of any shape and strides.
        dim: The dimension along which an exponent is shared.

    Raises:
        ReplayError: The tensor is not of float32.
    """
    if x.dtype is not torch.float32:
        raise ReplayError(f"exact arithmetic takes float32, not {str(x.dtype).removeprefix('torch.')}")
    largest = _largest(x.view(torch.int32) & _MAGNITUDE, dim)
    finite = largest < _INFINITY
    if not bool(finite.all()):
        x = x.masked_fill(~finite, 0.0)
        largest = largest.masked_fill(~finite, 0)
    exponents = _exponents(largest)
    shift = BITS - exponents
    # 2^shift may be no float32, but its two halves are. Where the first product is rounded, the second is
    # far below one half (docs/spec/arithmetic.md, section 2, shows it): the integer is 0 either way.
    first = shift >> 1
    scaled = x * power_of_two(first)
    scaled *= power_of_two(shift - first)
    integers = scaled.round_().to(torch.int32)
    return FixedPoint(integers=integers, exponents=exponents, finite=finite)


def leading(integers: Tensor) -> tuple[Tensor, ...]:
    """What the first 1, 2, 3 and 4 digits of each integer amount to, as int32.

    The last is the integer itself; each before it is the next one divided by 128 and rounded, halves up.
    """
    parts = [integers]
    for _ in range(DIGITS - 1):
        parts.append((parts[-1] + (1 << (DIGIT_BITS - 1))) >> DIGIT_BITS)
    return tuple(reversed(parts))


def digits(parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The balanced digits of what `leading` gave, most significant first, as int32.

    The first lies in [−64, 64], the others in [−64, 63].
    """
    rest = (part - (before << DIGIT_BITS) for before, part in pairwise(parts))
    return (parts[0], *rest)


def power_of_two(exponents: Tensor) -> Tensor:
    """2^exponent as float32, made from its bits; for −126 ≤ exponent ≤ 127."""
    return ((exponents.to(torch.int32) + 127) << _FRACTION_BITS).view(torch.float32)


def power_of_two_double(exponents: Tensor) -> Tensor:
    """2^exponent as float64, made from its bits; for −1022 ≤ exponent ≤ 1023."""
    return ((exponents.to(torch.int64) + 1023) << 52).view(torch.float64)


def _largest(magnitudes: Tensor, dim: int) -> Tensor:
    """The largest magnitude of each vector, as bits: they order as the numbers do, NaN above infinity."""
    if magnitudes.shape[dim]:
        return magnitudes.amax(dim=dim, keepdim=True)
    shape = list(magnitudes.shape)
    shape[dim] = 1
    return magnitudes.new_zeros(shape)


def _exponents(magnitudes: Tensor) -> Tensor:
    """The smallest e ≥ −149 with x < 2^e, from the bits of finite x ≥ 0."""
    biased = magnitudes >> _FRACTION_BITS
    # A subnormal is 2^-149 times an integer below 2^23, whose length its own float32 shows: that is exact.
    length = (magnitudes.to(torch.float32).view(torch.int32) >> _FRACTION_BITS) - 126
    subnormal = torch.where(magnitudes > 0, length, 0) - 149
    return torch.where(biased > 0, biased - 126, subnormal).to(torch.int32)
