"""Softmax and its kin: shares of exponentials, their logarithms and their sum, forward and backward.

The largest element of a row is taken off first, so that no exponential overflows; the sum of the exponentials
is exact before it is rounded. A row with NaN or +∞ gives NaN everywhere, and so does a row of −∞ only, for
which the safe softmax gives zeros. Each function takes and gives what the ATen operator of its name does.
Format: docs/spec/exact-operators.md, section "Softmax".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact import functions
from gradseal.program.exact.digits import require_float32
from gradseal.program.exact.fused_softmax import log_shares, log_shares_gradient, shares, shares_gradient
from gradseal.program.exact.sums import sum_along


def softmax(self: Tensor, dim: int, half_to_float: bool) -> Tensor:
    """The exponentials along a dimension, divided by their sum.

    Args:
        self: float32, any shape and strides.
        dim: Along which the results add up to 1.
        half_to_float: Must be false.

    Returns:
        float32, of that shape, laid out row by row.

    Raises:
        ReplayError: `self` is not float32, or `half_to_float` is set.
    """
    _require(self, half_to_float)
    return shares(self, dim)[0] if self.numel() else _empty(self)


def safe_softmax(self: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """As `softmax`, but a row of −∞ only gives zeros.

    Args:
        self: float32, any shape and strides.
        dim: Along which the results add up to 1.
        dtype: float32 or None.

    Returns:
        float32, of that shape, laid out row by row.

    Raises:
        ReplayError: An element type is another one.
    """
    _require(self, dtype not in (None, torch.float32))
    if not self.numel():
        return _empty(self)
    result, _, largest = shares(self, dim)
    return result.masked_fill_(torch.eq(largest, -math.inf), 0.0)


def log_softmax(self: Tensor, dim: int, half_to_float: bool) -> Tensor:
    """The logarithm of `softmax`, which takes and gives the same.

    Raises:
        ReplayError: `self` is not float32, or `half_to_float` is set.
    """
    _require(self, half_to_float)
    if not self.numel():
        return _empty(self)
    return log_shares(self, dim)


def softmax_backward(grad_output: Tensor, output: Tensor, dim: int, input_dtype: torch.dtype) -> Tensor:
    """The gradient of `softmax`'s argument from that of its result.

    Args:
        grad_output: float32, any shape and strides.
        output: float32, of that shape: what `softmax` gave.
        dim: That of the forward pass.
        input_dtype: float32.

    Returns:
        float32, of that shape, laid out row by row.

    Raises:
        ReplayError: An element type is another one.
    """
    _require(grad_output, input_dtype is not torch.float32)
    require_float32(output)
    return shares_gradient(grad_output, output, dim)


def log_softmax_backward(grad_output: Tensor, output: Tensor, dim: int, input_dtype: torch.dtype) -> Tensor:
    """The gradient of `log_softmax`'s argument from that of its result; as `softmax_backward`.

    Raises:
        ReplayError: An element type is another one.
    """
    _require(grad_output, input_dtype is not torch.float32)
    return log_shares_gradient(grad_output, output, dim)


def logsumexp(self: Tensor, dim: int | Sequence[int], keepdim: bool = False) -> Tensor:
    """The logarithm of the sum of the exponentials along dimensions.

    Args:
        self: float32, any shape and strides.
        dim: Along which is summed.
        keepdim: Whether these stay, with size 1.

    Returns:
        float32. Of no elements or of −∞ only, −∞; with +∞ and no NaN, +∞.

    Raises:
        ReplayError: `self` is not float32, or no dimension is named.
    """
    _require(self, False)
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    if not dims:
        raise ReplayError("names no dimension", where="logsumexp")
    if self.numel():
        largest = torch.amax(self, dims, keepdim=True)
        offset = largest.masked_fill_(torch.eq(torch.abs(largest), math.inf), 0.0)
    else:
        offset = torch.zeros_like(sum_along(self, dims, keepdim=True))
    total = sum_along(functions.exp(torch.sub(self, offset)), dims, keepdim=True)
    result = functions.log(total).add_(offset)
    return result if keepdim else result.squeeze(dims)


def _empty(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _require(x: Tensor, other_type: bool) -> None:
    require_float32(x)
    if other_type:
        raise ReplayError("exact arithmetic gives float32 only", where="softmax")


TABLE: Mapping[str, Callable[..., Any]] = {
    "aten._softmax.default": softmax,
    "aten._safe_softmax.default": safe_softmax,
    "aten._log_softmax.default": log_softmax,
    "aten._softmax_backward_data.default": softmax_backward,
    "aten._log_softmax_backward_data.default": log_softmax_backward,
    "aten.logsumexp.default": logsumexp,
}
"""By the names that a graph has for them."""
