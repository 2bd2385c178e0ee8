"""Sums whose order does not matter: along dimensions, and into the places that an index names.

The numbers that are added first become integers, multiples of one unit that is chosen by the largest of them,
so small that float64 holds every sum of any of them. The sum is exact: threads, blocks, vector width and
collisions cannot change a bit. It is rounded to float32 once, to nearest, ties to even. With infinities or
NaN among the numbers it is what IEEE-754 makes of those, in any order. A zero result is +0; every NaN has the
bits 7FC00000. Leaves out sums of products; see `products`. The kernel's form is in
`kernel_sums`. Format: docs/spec/arithmetic.md, section 5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from gradseal.program.exact import kernel_sums
from gradseal.program.exact.digits import power_of_two_double, require_float32
from gradseal.program.exact.functions import NAN_BITS

_SUM_BITS: Final = 53
_MAGNITUDE: Final = 0x7FFFFFFF
_SMALLEST: Final = 1
_LARGEST_FINITE: Final = 0x7F7FFFFF
_BIAS: Final = 1023
_FRACTION_BITS: Final = 52


@dataclass(frozen=True, slots=True, kw_only=True)
class _Integers:
    """Numbers as multiples of a unit.

    Args:
        values: float64 that are integers, or not finite.
        unit: float64, powers of two, of a shape that broadcasts with that of the sums.
    """

    values: Tensor
    unit: Tensor


def sum_along(x: Tensor, dims: Sequence[int] = (), *, keepdim: bool = False) -> Tensor:
    """The sum along some dimensions.

    Args:
        x: float32, any shape and strides.
        dims: Which dimensions are summed, as torch counts them; none means all.
        keepdim: Whether these stay, with size 1.

    Returns:
        float32. The sum of no elements is +0.

    Raises:
        ReplayError: If `x` is not float32.
    """
    return _along(x, dims, keepdim, mean=False)


def mean_along(x: Tensor, dims: Sequence[int] = (), *, keepdim: bool = False) -> Tensor:
    """The sum along some dimensions, not yet rounded, divided by the number K of its elements.

    Its integer divided by K is rounded to float64; that times the unit, which is exact there, to float32.

    Args:
        x: float32, any shape and strides.
        dims: Which dimensions are averaged, as torch counts them; none means all.
        keepdim: Whether these stay, with size 1.

    Returns:
        float32. The mean of no elements is NaN.

    Raises:
        ReplayError: If `x` is not float32.
    """
    return _along(x, dims, keepdim, mean=True)


def sum_by_index(source: Tensor, dim: int, index: Tensor, size: int) -> Tensor:
    """Slices of `source` added up at the positions that `index` gives them: `index_add` into zeros.

    One unit serves the whole call, chosen by the largest element of `source`; all slices count as if they
    met.

    Args:
        source: float32, any shape but (), and strides.
        dim: The dimension that `index` counts along.
        index: int64, shape (source.shape[dim],), each in [0, size).
        size: That of `dim` in the result.

    Returns:
        float32; +0 where nothing was added.

    Raises:
        ReplayError: If `source` is not float32.
    """
    shape = list(source.shape)
    shape[dim] = size
    require_float32(source)
    compiled = kernel_sums.into(source, dim, index, shape)
    if compiled is not None:
        return compiled
    integers = _to_integers(source, _largest(source, ()), index.numel())
    sums = source.new_zeros(shape, dtype=torch.float64).index_add_(dim, index, integers.values)
    return _canonical(sums.mul_(integers.unit))


def sum_by_indices(source: Tensor, dim: int, index: Tensor, shape: Sequence[int]) -> Tensor:
    """Elements of `source` added up where `index` sends each along a dimension: `scatter_add` into zeros.

    One unit serves the whole call, chosen by the largest element that is sent anywhere; the elements of a
    line along `dim` count as if they met.

    Args:
        source: float32, nowhere smaller than `index`; what lies outside is not used.
        dim: The dimension that `index` counts along.
        index: int64, each in [0, shape[dim]), and elsewhere no larger than `shape`.
        shape: That of the result.

    Returns:
        float32; +0 where nothing was added.

    Raises:
        ReplayError: If `source` is not float32.
    """
    used = source[tuple(slice(length) for length in index.shape)]
    require_float32(source)
    compiled = kernel_sums.into(used, dim, index, list(shape), each=True)
    if compiled is not None:
        return compiled
    count = index.shape[dim] if index.dim() else 1
    integers = _to_integers(used, _largest(used, ()), count)
    sums = source.new_zeros(list(shape), dtype=torch.float64).scatter_add_(dim, index, integers.values)
    return _canonical(sums.mul_(integers.unit))


def _along(x: Tensor, dims: Sequence[int], keepdim: bool, *, mean: bool) -> Tensor:
    require_float32(x)
    compiled = kernel_sums.along(kernel_sums.Kind.PLAIN, x, dims, keepdim=keepdim, divided=mean)
    if compiled is not None:
        return compiled
    total, unit = _total(x, dims)
    if mean:
        # A tensor, not a number, which torch would be free to divide by as a product with its reciprocal.
        total.div_(torch.full_like(total, float(_count(x, dims))))
    return _rounded(total.mul_(unit), dims, keepdim)


def _total(x: Tensor, dims: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The sum along some dimensions, which stay, as integers in float64, and their units."""
    integers = _to_integers(x, _largest(x, dims), _count(x, dims))
    return torch.sum(integers.values, dim=tuple(dims), keepdim=True), integers.unit


def _count(x: Tensor, dims: Sequence[int]) -> int:
    return math.prod(x.shape[dim] for dim in dims) if dims and x.dim() else x.numel()


def _largest(x: Tensor, dims: Sequence[int]) -> Tensor:
    """The largest magnitude along some dimensions, which stay, as bits: these order as the numbers do."""
    require_float32(x)
    magnitudes = torch.bitwise_and(x.detach().view(torch.int32), _MAGNITUDE)
    if _count(x, dims):
        return torch.amax(magnitudes, dim=tuple(dims), keepdim=True)
    # The largest of no elements: torch's sum knows the shape, and is 0.
    return torch.sum(magnitudes, dim=tuple(dims), keepdim=True, dtype=torch.int32)


def _to_integers(x: Tensor, largest: Tensor, count: int) -> _Integers:
    """Multiples of 2^(e − b), to nearest, ties to even, where 2^e exceeds `largest` and count · 2^b ≤ 2^53.

    Infinities and NaN stay, and e is then 128. Each sum of up to `count` integers is one of float64.
    """
    bits = _SUM_BITS - (max(count, 1) - 1).bit_length()
    bounded = torch.clamp(largest, _SMALLEST, _LARGEST_FINITE).view(torch.float32)
    # Every float32 is a normal float64, whose exponent field is e + 1022.
    field = torch.bitwise_right_shift(bounded.to(torch.float64).view(torch.int64), _FRACTION_BITS)
    exponent = torch.sub(field, _BIAS - 1)
    values = x.detach().to(torch.float64, copy=True).mul_(power_of_two_double(torch.sub(bits, exponent)))
    return _Integers(values=values.round_(), unit=power_of_two_double(torch.sub(exponent, bits)))


def _rounded(sums: Tensor, dims: Sequence[int], keepdim: bool) -> Tensor:
    result = _canonical(sums)
    if keepdim:
        return result
    return result.squeeze(tuple(dims) or tuple(range(result.dim())))


def _canonical(sums: Tensor) -> Tensor:
    """float64 rounded to float32, with one zero and one NaN."""
    result = sums.to(torch.float32).add_(0.0)
    result.view(torch.int32).masked_fill_(torch.ne(result, result), NAN_BITS)
    return result
