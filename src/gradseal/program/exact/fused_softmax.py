"""Softmax, its logarithm and their gradients, as one pass of the kernel, each defined in PyTorch's steps.

The kernel's form, where it is there, gives the same bits, and saves the passes in between. Results are laid
out row by row. Format: docs/spec/exact-operators.md, section "Softmax".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from gradseal.program.exact import functions, kernel
from gradseal.program.exact.digits import require_float32
from gradseal.program.exact.sums import sum_along

_PART: Final = 1 << 14
"""The fewest elements worth a thread."""


def shares(x: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """The exponentials of what is left after the largest, divided by their sum; that sum, and the largest.

    Args:
        x: float32, any shape and strides, not empty.
        dim: Which dimension is a row; it stays in the sum and the largest, with size 1.

    Returns:
        float32, laid out row by row. A row with NaN or an infinity at its top gives NaN.

    Raises:
        ReplayError: `x` is not float32.
    """
    require_float32(x)
    run = kernel.function_for("softmax", "ppppnnn", x)
    if run is not None:
        rows = _rows(x, dim)
        result, kept = torch.empty_like(rows), [*rows.shape[:-1], 1]
        total, largest = x.new_empty(kept), x.new_empty(kept)
        _along_rows(run, rows.shape, rows, result, total, largest)
        return _back(result, dim), _back(total, dim), _back(largest, dim)
    shifted, top = _shifted(x, dim)
    powers = functions.exp(shifted)
    summed = sum_along(powers, (dim,), keepdim=True)
    return powers.div_(summed), summed, top


def log_shares(x: Tensor, dim: int) -> Tensor:
    """What is left after the largest, less the logarithm of the sum of the exponentials of that; as `shares`.

    Raises:
        ReplayError: `x` is not float32.
    """
    require_float32(x)
    run = kernel.function_for("log_softmax", "ppnnn", x)
    if run is not None:
        rows = _rows(x, dim)
        return _back(_along_rows(run, rows.shape, rows, torch.empty_like(rows)), dim)
    shifted, _ = _shifted(x, dim)
    return shifted.sub_(functions.log(sum_along(functions.exp(shifted), (dim,), keepdim=True)))


def shares_gradient(grad: Tensor, shares_: Tensor, dim: int) -> Tensor:
    """(grad − Σ grad · shares) · shares, the sum along a dimension.

    Args:
        grad: float32, any shape and strides, not empty.
        shares_: float32, of that shape.
        dim: Which dimension is a row.

    Returns:
        float32, laid out row by row.

    Raises:
        ReplayError: One is not float32.
    """
    return _of_two("softmax_backward", _shares_gradient, grad, shares_, dim)


def _shares_gradient(grad: Tensor, shares_: Tensor, dim: int) -> Tensor:
    mean = sum_along(torch.mul(grad, shares_), (dim,), keepdim=True)
    return torch.sub(grad, mean).mul_(shares_)


def log_shares_gradient(grad: Tensor, logarithms: Tensor, dim: int) -> Tensor:
    """The gradient, less exp(logarithms) · Σ grad, the sum along a dimension; as `shares_gradient`.

    Raises:
        ReplayError: One is not float32.
    """
    return _of_two("log_softmax_backward", _log_shares_gradient, grad, logarithms, dim)


def _log_shares_gradient(grad: Tensor, logarithms: Tensor, dim: int) -> Tensor:
    return torch.sub(grad, functions.exp(logarithms).mul_(sum_along(grad, (dim,), keepdim=True)))


def _of_two(name: str, plain: Callable[..., Tensor], grad: Tensor, other: Tensor, dim: int) -> Tensor:
    require_float32(grad)
    require_float32(other)
    run = kernel.function_for(name, "pppnnn", grad, other) if grad.shape == other.shape else None
    if run is None:
        return plain(grad.contiguous(), other.contiguous(), dim)
    rows = _rows(grad, dim)
    return _back(_along_rows(run, rows.shape, rows, _rows(other, dim), torch.empty_like(rows)), dim)


def _shifted(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    rows = x.contiguous()
    # Which zero is the largest of ±0 does not show: both then have the exponential 1.
    largest = torch.amax(rows, dim, keepdim=True)
    return torch.sub(rows, largest), largest


def _rows(x: Tensor, dim: int) -> Tensor:
    """Laid out row by row, with a dimension last."""
    return x.detach().movedim(dim, -1).contiguous()


def _back(rows: Tensor, dim: int) -> Tensor:
    return rows.movedim(-1, dim).contiguous()


def _along_rows(run: Callable[..., None], shape: Sequence[int], *arrays: Tensor) -> Tensor:
    """The kernel's work on rows, with their width and which of them it does; gives the last of the arrays."""
    places, width = [array.data_ptr() for array in arrays], shape[-1]

    def part(start: int, end: int) -> None:
        run(*places, width, start, end)

    kernel.in_parts(math.prod(shape[:-1]), part, least=max(1, _PART // width))
    return arrays[-1]
