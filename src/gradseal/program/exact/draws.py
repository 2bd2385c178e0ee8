"""Operators that draw random numbers, from words that belong to the operator's place in the run.

Each takes, before ATen's own arguments, a function that gives the first n words of its stream
(`randomness.words`), so what is drawn depends on nothing that was drawn before. Elements are numbered in
row-major order of the shape, however they lie in memory. Numbers are made of words by integer and single
float64 operations, each one NumPy call, and rounded to float32 once. Order here: numbers, results, operators,
the table. Format: docs/spec/exact-operators.md, section "Draws".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program import randomness
from gradseal.program.exact.element_types import Function, converted, named, number, require_types

Draw = Callable[[int], npt.NDArray[np.uint64]]

_HALVES: Final = 2.0**32


# --- Numbers


def _halves(draw: Draw, count: int) -> npt.NDArray[np.int64]:
    """The first `count` of the stream's halves of words, the lower half of each before the upper; int64."""
    # Little-endian bytes, whatever the machine's own order.
    return draw((count + 1) // 2).astype("<u8").view("<u4")[:count].astype(np.int64)


def _threshold(probability: float) -> int:
    """How many of the 2^32 halves are below it: the probability times 2^32, rounded up; exact."""
    if not 0.0 <= probability <= 1.0:
        raise ReplayError(f"{probability!r} is no probability")
    return math.ceil(float(probability) * _HALVES)


def _below(draw: Draw, like: Tensor, probability: float) -> Tensor:
    """Bool, in the shape of `like`: each true with the probability."""
    limit = _threshold(probability)
    return _tensor(_halves(draw, like.numel()) < limit, list(like.shape), like.device)


def _uniform(draw: Draw, count: int) -> npt.NDArray[np.float64]:
    """Multiples of 2^−24 in [0, 1)."""
    return np.multiply((_halves(draw, count) >> np.int64(8)).astype(np.float64), 2.0**-24)


def _normal(draw: Draw, count: int) -> npt.NDArray[np.float64]:
    return randomness.normal_quantile(randomness.open_unit(draw(count)))


def _integers(draw: Draw, count: int, low: int, high: int) -> npt.NDArray[np.int64]:
    """The upper half of each word's product with the number of integers from low to before high, plus low."""
    extent = high - low
    if extent <= 0 or low < -(1 << 63) or high > 1 << 63:
        raise ReplayError(f"there are no integers from {low} to before {high}, or int64 does not hold them")
    words = draw(count)
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    upper, lower = words >> half, words & mask
    times_upper, times_lower = np.uint64(extent >> 32), np.uint64(extent & 0xFFFFFFFF)
    # Long multiplication in base 2^32; neither sum exceeds 64 bits.
    middle = upper * times_lower + ((lower * times_lower) >> half)
    other = lower * times_upper + (middle & mask)
    product = upper * times_upper + (middle >> half) + (other >> half)
    drawn: npt.NDArray[np.int64] = (product + np.uint64(low % (1 << 64))).view(np.int64)
    return drawn


# --- Results


def _tensor(values: npt.NDArray[Any], shape: Sequence[int], device: torch.device | None) -> Tensor:
    return torch.from_numpy(values).reshape(tuple(shape)).to(device)


def _options(options: Mapping[str, Any], default: torch.dtype) -> tuple[torch.dtype, torch.device | None]:
    if options.get("generator") is not None:
        raise ReplayError("exact arithmetic draws from no generator but its own")
    dtype = options.get("dtype") or default
    require_types(dtype)
    return dtype, options.get("device")


def _fractions(
    values: npt.NDArray[np.float64], shape: Sequence[int], device: torch.device | None, dtype: torch.dtype
) -> Tensor:
    if dtype is not torch.float32:
        raise ReplayError(f"{str(dtype).removeprefix('torch.')} holds no such random numbers")
    return _tensor(values.astype(np.float32), shape, device)


def _over(own: Tensor, values: npt.NDArray[np.float64], options: Mapping[str, Any]) -> Tensor:
    """The values written over a tensor of float32."""
    _options(options, own.dtype)
    return own.copy_(_fractions(values, own.shape, own.device, own.dtype))


def _laid_out(own: Tensor, values: Tensor, options: Mapping[str, Any]) -> Tensor:
    """The values as a tensor that lies in memory as ATen's would."""
    layout = options.get("memory_format") or torch.preserve_format
    device = options.get("device") or own.device
    return torch.empty_like(own, dtype=values.dtype, device=device, memory_format=layout).copy_(values)


# --- Operators


def _dropout(draw: Draw, own: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    require_types(own)
    if own.dtype is not torch.float32:
        raise ReplayError("dropout is of float32")
    if train is False:
        return own.clone(), torch.ones_like(own, dtype=torch.bool)
    keep = 1.0 - p
    kept = _below(draw, own, keep)
    scale = 0.0 if keep == 0 else 1.0 / keep
    result = torch.mul(torch.mul(own, kept.to(torch.float32)), number(scale, own.device))
    return result, _laid_out(own, kept, {})


def _bernoulli_over(draw: Draw, own: Tensor, p: float = 0.5, **options: Any) -> Tensor:
    require_types(own)
    _options(options, own.dtype)
    return own.copy_(_below(draw, own, p))


def _bernoulli_with(draw: Draw, own: Tensor, p: float, **options: Any) -> Tensor:
    return _bernoulli_over(draw, torch.empty_like(own), p, **options)


def _bernoulli_of_over(draw: Draw, own: Tensor, p: Tensor, **options: Any) -> Tensor:
    require_types(own, p)
    _options(options, own.dtype)
    wide = converted(p, torch.float32).to(torch.float64).expand(own.shape)
    if not bool(torch.logical_and(torch.ge(wide, 0.0), torch.le(wide, 1.0)).all()):
        raise ReplayError("not all of the numbers are probabilities")
    halves = _tensor(_halves(draw, own.numel()), own.shape, own.device)
    return own.copy_(torch.lt(halves, torch.ceil(torch.mul(wide, _HALVES)).to(torch.int64)))


def _bernoulli_of(draw: Draw, own: Tensor, **options: Any) -> Tensor:
    if own.dtype is not torch.float32:
        raise ReplayError("probabilities are float32")
    return _bernoulli_of_over(draw, torch.empty_like(own), own, **options)


def _rand(draw: Draw, size: Sequence[int], **options: Any) -> Tensor:
    dtype, device = _options(options, torch.float32)
    return _fractions(_uniform(draw, math.prod(size)), size, device, dtype)


def _randn(draw: Draw, size: Sequence[int], **options: Any) -> Tensor:
    dtype, device = _options(options, torch.float32)
    return _fractions(_normal(draw, math.prod(size)), size, device, dtype)


def _like(make: Callable[..., Tensor]) -> Function:
    def run(draw: Draw, own: Tensor, *args: Any, **options: Any) -> Tensor:
        dtype, device = _options(options, own.dtype)
        values = make(draw, *args, list(own.shape), dtype=dtype, device=device or own.device)
        return _laid_out(own, values, options)

    return run


def _uniform_over(draw: Draw, own: Tensor, low: float = 0.0, high: float = 1.0, **options: Any) -> Tensor:
    if not low <= high or not math.isfinite(high - low):
        raise ReplayError(f"no numbers lie between {low!r} and {high!r}")
    values = np.multiply(_uniform(draw, own.numel()), float(high) - float(low))
    return _over(own, np.add(values, float(low)), options)


def _normal_over(draw: Draw, own: Tensor, mean: float = 0.0, std: float = 1.0, **options: Any) -> Tensor:
    if not std >= 0.0:
        raise ReplayError(f"{std!r} is no standard deviation")
    values = np.multiply(_normal(draw, own.numel()), float(std))
    return _over(own, np.add(values, float(mean)), options)


def _exponential_over(draw: Draw, own: Tensor, lambd: float = 1.0, **options: Any) -> Tensor:
    if not lambd > 0.0:
        raise ReplayError(f"{lambd!r} is no rate")
    logarithms = randomness.log_(randomness.open_unit(draw(own.numel())))
    return _over(own, np.divide(np.negative(logarithms), float(lambd)), options)


def _randint(draw: Draw, high: int, size: Sequence[int], **options: Any) -> Tensor:
    return _randint_from(draw, 0, high, size, **options)


def _randint_from(draw: Draw, low: int, high: int, size: Sequence[int], **options: Any) -> Tensor:
    dtype, device = _options(options, torch.int64)
    return converted(_tensor(_integers(draw, math.prod(size), low, high), size, device), dtype)


def _randperm(draw: Draw, n: int, **options: Any) -> Tensor:
    dtype, device = _options(options, torch.int64)
    order = np.argsort(draw(n), kind="stable").astype(np.int64, copy=False)
    return converted(_tensor(order, [n], device), dtype)


# --- The table

TABLE: Mapping[str, Function] = named(
    {
        "native_dropout": _dropout,
        "bernoulli": _bernoulli_of,
        "bernoulli.p": _bernoulli_with,
        "bernoulli_.float": _bernoulli_over,
        "bernoulli_.Tensor": _bernoulli_of_over,
        "rand": _rand,
        "rand_like": _like(_rand),
        "randn": _randn,
        "randn_like": _like(_randn),
        "uniform_": _uniform_over,
        "normal_": _normal_over,
        "exponential_": _exponential_over,
        "randint": _randint,
        "randint.low": _randint_from,
        "randint_like": _like(_randint),
        "randint_like.low_dtype": _like(_randint_from),
        "randperm": _randperm,
    },
    before=1,
)
"""For each operator that draws, its function, of a stream's words and then the arguments that ATen's has."""
