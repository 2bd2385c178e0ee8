"""Operators that make one number of many, and orders, each with one result whatever the order of work.

Sums and means are those of `sums`; prefixes, variances and norms are built on them. The extremes and sorted
orders of float32 go by one total order: −∞ … −0, +0 … ∞, with NaN first among extremes and last among the
sorted; of equal numbers the first comes first. Integers are exact in any case. Leaves out products of sums,
softmax and pooling. Order here: sums, spreads and norms, products, extremes, orders, the table.
Format: docs/spec/exact-operators.md, section "Reductions and orders".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact import functions, sums
from gradseal.program.exact.digits import require_float32
from gradseal.program.exact.element_types import (
    Function,
    converted,
    named,
    number,
    passed,
    require_types,
)

Dims = int | Sequence[int] | None

_MAGNITUDE: Final = 0x7FFFFFFF
_NAN_KEY: Final = 0x7FC00000
_SUM_BITS: Final = 53


# --- Sums


def _dims(dim: Dims) -> tuple[int, ...]:
    return () if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)


def _of_type(own: Tensor, dtype: torch.dtype | None, default: torch.dtype) -> Tensor:
    require_types(own)
    return converted(own, default if dtype is None else dtype)


def _summed_type(own: Tensor) -> torch.dtype:
    return torch.float32 if own.dtype is torch.float32 else torch.int64


def _sum(own: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    x = _of_type(own, dtype, _summed_type(own))
    if x.dtype is torch.float32:
        return sums.sum_along(x, _dims(dim), keepdim=keepdim)
    # Integers wrap around in the type that was asked for.
    return torch.sum(x, dim=_dims(dim), keepdim=keepdim, dtype=x.dtype)


def _mean(
    own: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    x = _of_type(own, dtype, own.dtype)
    if x.dtype is not torch.float32:
        raise ReplayError("a mean is of float32, or asks for it by its dtype")
    return sums.mean_along(x, _dims(dim), keepdim=keepdim)


def _prefix_sums(own: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    x = _of_type(own, dtype, _summed_type(own))
    if x.dtype is not torch.float32 or not x.numel():
        return torch.cumsum(x, dim, dtype=x.dtype)
    count = x.shape[dim] if x.dim() else 1
    bits = _SUM_BITS - (count - 1).bit_length()
    largest = torch.amax(torch.abs(x).nan_to_num(nan=math.inf), dim=dim, keepdim=True)
    # Every finite float32 is a normal float64, or 0, whose exponent frexp gives exactly; −149 is the least.
    exponent = torch.frexp(largest.clamp(max=torch.finfo(torch.float32).max).to(torch.float64)).exponent
    exponent = exponent.masked_fill(torch.eq(largest, 0), -149).to(torch.int64)
    scale, unit = _power_of_two(bits - exponent), _power_of_two(exponent - bits)
    whole = torch.round(torch.mul(x.to(torch.float64), scale))
    # Adding 0 makes −0, to which a small sum is rounded, +0.
    return torch.cumsum(whole, dim).mul_(unit).to(torch.float32).add_(0.0)


def _power_of_two(exponents: Tensor) -> Tensor:
    return torch.bitwise_left_shift(exponents + 1023, 52).view(torch.float64)


def _trace(own: Tensor) -> Tensor:
    if own.dim() != 2:
        raise ReplayError("a trace is of a matrix")
    return _sum(torch.diagonal(own))


# --- Spreads and norms


def _variance_and_mean(
    own: Tensor, dim: Dims = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    require_float32(own)
    dims = _dims(dim)
    mean = sums.mean_along(own, dims, keepdim=True)
    away = torch.sub(own, mean)
    squares = sums.sum_along(torch.mul(away, away), dims, keepdim=keepdim)
    count = math.prod(own.shape[d] for d in dims) if dims and own.dim() else own.numel()
    free = max(0.0, count - float(1 if correction is None else correction))
    return torch.div(squares, number(free, own.device)), mean.reshape(squares.shape)


def _variance(own: Tensor, dim: Dims = None, **options: Any) -> Tensor:
    return _variance_and_mean(own, dim, **options)[0]


def _deviation_and_mean(own: Tensor, dim: Dims = None, **options: Any) -> tuple[Tensor, Tensor]:
    variance, mean = _variance_and_mean(own, dim, **options)
    return functions.sqrt(variance), mean


def _deviation(own: Tensor, dim: Dims = None, **options: Any) -> Tensor:
    return _deviation_and_mean(own, dim, **options)[0]


def _norm(
    own: Tensor,
    ord: float | None = 2,
    dim: Dims = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    require_float32(own)
    if dtype not in (None, torch.float32):
        raise ReplayError("a norm is float32")
    match 2.0 if ord is None else float(ord):
        case 2.0:
            return functions.sqrt(sums.sum_along(torch.mul(own, own), _dims(dim), keepdim=keepdim))
        case 1.0:
            return sums.sum_along(torch.abs(own), _dims(dim), keepdim=keepdim)
        case 0.0:
            return sums.sum_along(torch.ne(own, 0).to(torch.float32), _dims(dim), keepdim=keepdim)
        case math.inf:
            return _largest(torch.abs(own), dim, keepdim)
        case other if other == -math.inf:
            return _smallest(torch.abs(own), dim, keepdim)
    raise ReplayError(f"exact arithmetic has no norm of order {ord!r}")


# --- Products


def _product(own: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    return _product_along(own.reshape(-1), 0, dtype=dtype)


def _product_along(
    own: Tensor, dim: int, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    x = _of_type(own, dtype, _summed_type(own))
    if x.dtype is not torch.float32 or not x.dim():
        return torch.prod(x, dim, keepdim, dtype=x.dtype)
    x = x.movedim(dim, 0)
    if x.shape[0] < 2:
        x = torch.cat([x, x.new_ones((1, *x.shape[1:]))])[:1]
    while x.shape[0] > 1:
        half = (x.shape[0] + 1) // 2
        pairs = x.shape[0] - half
        x = torch.cat([torch.mul(x[:pairs], x[half:]), x[pairs:half]])
    return x.movedim(0, dim) if keepdim else x[0]


# --- Extremes


def _keys(x: Tensor, nan_key: int = _NAN_KEY) -> Tensor:
    """Integers in the order of the numbers; float32 in the total order, with NaN where it is wanted."""
    require_types(x)
    if x.dtype is not torch.float32:
        return x
    own = x.contiguous().view(torch.int32)
    keys = torch.where(torch.lt(own, 0), torch.bitwise_xor(own, _MAGNITUDE), own)
    return keys.masked_fill_(torch.ne(x, x), nan_key)


def _from_keys(keys: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype is not torch.float32:
        return keys
    return torch.where(torch.lt(keys, 0), torch.bitwise_xor(keys, _MAGNITUDE), keys).view(torch.float32)


_LOWEST_NAN_KEY: Final = (_NAN_KEY ^ _MAGNITUDE) - (1 << 31)
"""The key of a NaN with its sign set, below that of −∞."""


def _largest(own: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    require_types(own)
    largest = torch.amax(own, _dims(dim), keepdim)
    # Only of zeros is it open which sign they have.
    if own.dtype is not torch.float32 or not bool(torch.eq(largest, 0).any()):
        return largest
    return _from_keys(torch.amax(_keys(own), _dims(dim), keepdim), own.dtype)


def _smallest(own: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    require_types(own)
    smallest = torch.amin(own, _dims(dim), keepdim)
    if own.dtype is not torch.float32 or not bool(torch.eq(smallest, 0).any()):
        return smallest
    return _from_keys(torch.amin(_keys(own, _LOWEST_NAN_KEY), _dims(dim), keepdim), own.dtype)


def _largest_and_place(own: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    keys = _keys(own)
    return _with_place(own, keys, torch.amax(keys, dim, keepdim=True), dim, keepdim)


def _smallest_and_place(own: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    keys = _keys(own, _LOWEST_NAN_KEY)
    return _with_place(own, keys, torch.amin(keys, dim, keepdim=True), dim, keepdim)


def _with_place(own: Tensor, keys: Tensor, extreme: Tensor, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    """The extremes along a dimension, each with the first place that has it."""
    count = keys.shape[dim] if keys.dim() else 1
    shape = [1] * keys.dim()
    if keys.dim():
        shape[dim] = count
    places = torch.arange(count, device=keys.device).reshape(shape)
    first = torch.where(torch.eq(keys, extreme), places, count).amin(dim, keepdim=True)
    values = _from_keys(extreme, own.dtype)
    return (values, first) if keepdim or not keys.dim() else (values.squeeze(dim), first.squeeze(dim))


def _place(find: Callable[..., tuple[Tensor, Tensor]]) -> Function:
    def run(own: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
        if dim is not None:
            return find(own, dim, keepdim)[1]
        place = find(own.reshape(-1), 0)[1]
        return place.reshape([1] * own.dim()) if keepdim else place

    return run


def _extremes(own: Tensor, *, dim: int | None = None, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return _smallest(own, dim, keepdim), _largest(own, dim, keepdim)


# --- Orders


def _sorted(own: Tensor, dim: int = -1, descending: bool = False) -> tuple[Tensor, Tensor]:
    keys, order = torch.sort(_keys(own), dim=dim, descending=descending, stable=True)
    return _from_keys(keys, own.dtype), order


def _sorted_stably(
    own: Tensor, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[Tensor, Tensor]:
    return _sorted(own, dim, descending)


def _order(own: Tensor, dim: int = -1, descending: bool = False) -> Tensor:
    return _sorted(own, dim, descending)[1]


def _order_stably(own: Tensor, *, stable: bool, dim: int = -1, descending: bool = False) -> Tensor:
    return _sorted(own, dim, descending)[1]


def _top(
    own: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Tensor, Tensor]:
    values, order = _sorted(own, dim, largest)
    if not own.dim():
        if k not in (0, 1):
            raise ReplayError(f"there are no {k} of 1 elements")
        return values, order
    if not 0 <= k <= own.shape[dim]:
        raise ReplayError(f"there are no {k} of {own.shape[dim]} elements")
    return values.narrow(dim, 0, k).contiguous(), order.narrow(dim, 0, k).contiguous()


# --- The table

TABLE: Mapping[str, Function] = named(
    {
        "sum": _sum,
        "sum.dim_IntList": _sum,
        "mean": _mean,
        "mean.dim": _mean,
        "cumsum": _prefix_sums,
        "trace": _trace,
        "var.correction": _variance,
        "var_mean.correction": _variance_and_mean,
        "std.correction": _deviation,
        "std_mean.correction": _deviation_and_mean,
        "linalg_vector_norm": _norm,
        "norm.Scalar": _norm,
        "norm.ScalarOpt_dim": _norm,
        "prod": _product,
        "prod.dim_int": _product_along,
        "amax": _largest,
        "amin": _smallest,
        "max": _largest,
        "min": _smallest,
        "max.dim": _largest_and_place,
        "min.dim": _smallest_and_place,
        "argmax": _place(_largest_and_place),
        "argmin": _place(_smallest_and_place),
        "aminmax": _extremes,
        **{name: passed(name) for name in ("any", "any.dim", "all", "all.dim")},
        "sort": _sorted,
        "sort.stable": _sorted_stably,
        "argsort": _order,
        "argsort.stable": _order_stably,
        "topk": _top,
    }
)
"""For each operator defined here, its function, of the arguments that ATen's has."""
