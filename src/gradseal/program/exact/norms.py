"""Normalisation over a batch, a layer, groups or a root mean square, forward and backward.

Statistics are exact means: of a tensor, of its deviations from that mean as it was rounded, and of their
squares; a large mean costs no digits. What is made of them is computed in float64 element by element, and
rounded to float32 once. Each function takes and gives what the ATen operator of its name does. Order here:
batch, layer, root mean square, groups. Format: docs/spec/exact-operators.md, section "Normalisation".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact.digits import require_float32
from gradseal.program.exact.functions import rsqrt
from gradseal.program.exact.fused_norms import (
    gradient,
    in_double,
    layer_gradient,
    mean_of_squares,
    means_away,
    normal,
    sum_away_times,
)
from gradseal.program.exact.sums import mean_along, sum_along

Three = tuple[Tensor | None, Tensor | None, Tensor | None]

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
_RMS_EPS: Final = 2.0**-23
"""For a root mean square without its own: the distance from 1 to the next float32."""


def native_batch_norm(  # noqa: PLR0917 -- as the operator has them
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch normalisation (Ioffe & Szegedy 2015).

    Args:
        input: float32, (N, C, …).
        weight: float32, (C,); None counts as ones.
        bias: float32, (C,); None adds nothing.
        running_mean: float32, (C,), moved in place when training; None when there is none.
        running_var: float32, (C,), likewise; gets the unbiased variance.
        training: Whether statistics are the batch's; if not, they are the running ones.
        momentum: The weight of the new statistics in the running ones.
        eps: Added to the variance.

    Returns:
        The result, and the mean and inverse deviation of each channel, empty unless training.

    Raises:
        ReplayError: A tensor is not float32, or there is nothing to take statistics of.
    """
    _require(input, weight, bias, running_mean, running_var)
    x, dims, across = _by_channel(input)
    if training:
        if not x.numel():
            raise ReplayError("a batch without elements has no statistics", where="native_batch_norm")
        mean, centre, variance, saved_inverse, inverse = _statistics(x, dims, eps)
        if running_mean is not None and running_var is not None:
            _move(running_mean, mean.flatten(), momentum)
            _move(running_var, _unbiased(variance.flatten(), x.numel() // x.shape[1]), momentum)
        saved = (mean.flatten(), saved_inverse.flatten())
    else:
        known_mean, known_variance = _known((running_mean, running_var), "native_batch_norm")
        centre = known_mean.to(torch.float64).view(across)
        inverse = _inverse(known_variance, eps)[1].view(across)
        saved = (x.new_empty(0), x.new_empty(0))
    return normal(x, centre, inverse, _row(weight, across), _row(bias, across)), *saved


def _batch_norm_without_statistics(  # noqa: PLR0917 -- as the operator has them
    input: Tensor, weight: Tensor | None, bias: Tensor | None, training: bool, momentum: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    return native_batch_norm(input, weight, bias, None, None, training, momentum, eps)


def native_batch_norm_backward(  # noqa: PLR0917 -- as the operator has them
    grad_out: Tensor,
    input: Tensor,
    weight: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    save_mean: Tensor | None,
    save_invstd: Tensor | None,
    train: bool,
    eps: float,
    output_mask: Sequence[bool],
) -> Three:
    """The gradients of `native_batch_norm`'s input, weight and bias, those that `output_mask` asks for.

    With `train`, the statistics are those that the forward pass saved, else the running ones.

    Raises:
        ReplayError: A tensor is not float32, or statistics lack.
    """
    _require(grad_out, input, weight)
    x, dims, across = _by_channel(input)
    grad = _like(grad_out, x)
    statistics = (save_mean, save_invstd) if train else (running_mean, running_var)
    mean, other = _known(statistics, "native_batch_norm_backward")
    inverse, wide = (other, other) if train else _inverse(other, eps)
    inverse, wide = inverse.view(across), wide.view(across)
    needed = train and output_mask[0]
    total = sum_along(grad, dims, keepdim=True) if needed or output_mask[2] else None
    along = None
    if needed or output_mask[1]:
        along = sum_away_times(x, mean.view(across), grad, dims)
    to_input = None
    if output_mask[0]:
        row = _row(weight, across)
        if train and along is not None and total is not None:
            parts = _weighted(along, row), _weighted(total, row)
            slope, level = _of_sums(*parts, x.numel() // max(x.shape[1], 1), inverse)
            to_input = gradient(grad, row, level, x, mean.view(across), slope=slope, inverse=inverse)
        else:
            factor = torch.ones_like(inverse) if row is None else row
            to_input = in_double(lambda g, w, r: g.mul_(w).mul_(r), grad, factor, wide)
    to_weight = torch.mul(along, inverse).flatten() if output_mask[1] and along is not None else None
    return to_input, to_weight, total.flatten() if output_mask[2] and total is not None else None


def native_layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Layer normalisation (Ba, Kiros & Hinton 2016) over the last dimensions.

    Args:
        input: float32, any strides.
        normalized_shape: What its shape ends with.
        weight: float32, of that shape; None counts as ones.
        bias: float32, likewise; None adds nothing.
        eps: Added to the variance.

    Returns:
        The result, and the mean and inverse deviation of each row, whose last dimensions have size 1.

    Raises:
        ReplayError: A tensor is not float32, or the shape is not the input's.
    """
    _require(input, weight, bias)
    outer, dims = _split(input, normalized_shape, "native_layer_norm")
    x, shape = input.contiguous(), [*[1] * len(outer), *normalized_shape]
    mean, centre, _, saved_inverse, inverse = _statistics(x, dims, eps)
    result = normal(x, centre, inverse, _row(weight, shape), _row(bias, shape))
    return result, mean, saved_inverse


def native_layer_norm_backward(  # noqa: PLR0917 -- as the operator has them
    grad_out: Tensor,
    input: Tensor,
    normalized_shape: Sequence[int],
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    output_mask: Sequence[bool],
) -> Three:
    """The gradients of `native_layer_norm`'s input, weight and bias, those that `output_mask` asks for.

    `mean` and `rstd` are what the forward pass gave; `grad_out` is shaped as `input`.

    Raises:
        ReplayError: A tensor is not float32, or the shape is not the input's.
    """
    _require(grad_out, input, mean, rstd, weight, bias)
    outer, _ = _split(input, normalized_shape, "native_layer_norm_backward")
    sizes = [math.prod(input.shape[: len(outer)]), math.prod(normalized_shape)]
    grad, x = grad_out.contiguous().view(sizes), input.contiguous().view(sizes)
    parts = (grad, x, mean.reshape(-1, 1), rstd.reshape(-1, 1), _row(weight, [1, sizes[1]]))
    to_input, products = layer_gradient(*parts, output_mask[1])
    to_weight = None if products is None else _over(products, normalized_shape)
    to_bias = _over(grad, normalized_shape) if output_mask[2] else None
    return to_input.view(input.shape) if output_mask[0] else None, to_weight, to_bias


def fused_rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, eps: float | None
) -> tuple[Tensor, Tensor]:
    """Division by the root mean square (Zhang & Sennrich 2019) of the last dimensions.

    Args:
        input: float32, any strides.
        normalized_shape: What its shape ends with.
        weight: float32, of that shape; None counts as ones.
        eps: Added to the mean square; None stands for 2^−23.

    Returns:
        The result, and the inverse root of each row, whose last dimensions have size 1.

    Raises:
        ReplayError: A tensor is not float32, or the shape is not the input's.
    """
    _require(input, weight)
    outer, dims = _split(input, normalized_shape, "_fused_rms_norm")
    square = mean_of_squares(input, dims)
    saved_inverse, inverse = _inverse(square, _RMS_EPS if eps is None else eps)
    row = _row(weight, [*[1] * len(outer), *normalized_shape])
    factor = torch.ones_like(saved_inverse) if row is None else row
    return in_double(lambda v, s, w: v.mul_(s).mul_(w), input, inverse, factor), saved_inverse


def native_group_norm(  # noqa: PLR0917 -- as the operator has them
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    N: int,
    C: int,
    HxW: int,
    group: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Group normalisation (Wu & He 2018): each sample's channels in groups, each with its statistics.

    Args:
        input: float32, (N, C, …).
        N: The samples.
        C: The channels.
        HxW: The elements of a channel.
        weight: float32, (C,); None counts as ones.
        bias: float32, (C,); None adds nothing.
        group: How many groups of channels there are.
        eps: Added to the variance.

    Returns:
        The result, and the mean and inverse deviation of each group, (N, group).

    Raises:
        ReplayError: A tensor is not float32, or the shape is another one.
    """
    _require(input, weight, bias)
    x, channels = _in_groups(input, N, C, HxW, group)
    mean, centre, _, saved_inverse, inverse = _statistics(x, range(2, x.dim()), eps)
    result = normal(x, centre, inverse, _row(weight, channels), _row(bias, channels))
    return _out_of_groups(result, input), mean.view(N, group), saved_inverse.view(N, group)


def native_group_norm_backward(  # noqa: PLR0917 -- as the operator has them
    grad_out: Tensor,
    input: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    N: int,
    C: int,
    HxW: int,
    group: int,
    output_mask: Sequence[bool],
) -> Three:
    """The gradients of `native_group_norm`'s input, weight and bias, those that `output_mask` asks for.

    `mean` and `rstd` are what the forward pass gave; `grad_out` is shaped as `input`.

    Raises:
        ReplayError: A tensor is not float32, or the shape is another one.
    """
    _require(grad_out, input, mean, rstd, weight)
    x, channels = _in_groups(input, N, C, HxW, group)
    grad, _ = _in_groups(_like(grad_out, input), N, C, HxW, group)
    inverse = rstd.reshape(N, group, *[1] * (x.dim() - 2))
    centre = mean.reshape(inverse.shape)
    places = range(3, x.dim())
    along = sum_away_times(x, centre, grad, places)
    total = sum_along(grad, places, keepdim=True)
    to_weight = sum_along(torch.mul(along, inverse), (0,)).reshape(C) if output_mask[1] else None
    to_bias = sum_along(total, (0,)).reshape(C) if output_mask[2] else None
    if not output_mask[0]:
        return None, to_weight, to_bias
    row = _row(weight, channels)
    sums = [sum_along(_weighted(part, row), (2,), keepdim=True) for part in (along, total)]
    slope, level = _of_sums(sums[0], sums[1], C // group * HxW, inverse)
    to_input = gradient(grad, row, level, x, centre, slope=slope, inverse=inverse)
    return _out_of_groups(to_input, input), to_weight, to_bias


def _require(*tensors: Tensor | None) -> None:
    for tensor in tensors:
        if tensor is not None:
            require_float32(tensor)


def _statistics(x: Tensor, dims: Sequence[int], eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The mean, the same as float64, the variance, the inverse deviation, and the same as float64.

    The float64 ones have more digits: that of the mean by the mean of the deviations from the float32 one.
    """
    mean = mean_along(x, tuple(dims), keepdim=True)
    rest, square = (part.to(torch.float64) for part in means_away(x, mean, tuple(dims)))
    variance = square.sub_(torch.mul(rest, rest)).clamp_(min=0.0)
    centre = torch.add(mean.to(torch.float64), rest)
    return mean, centre, variance.to(torch.float32), *_inverse(variance, eps)


def _inverse(variance: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """1 / √(variance + eps) as float32, and as float64 by one step of Newton's method from there."""
    added = torch.full_like(variance, eps, dtype=torch.float32).to(torch.float64)
    moved = torch.add(variance.to(torch.float64), added)
    coarse = rsqrt(moved.to(torch.float32))
    wide = coarse.to(torch.float64)
    halved = torch.mul(moved, wide).mul_(wide).mul_(0.5)
    fine = torch.rsub(halved, 1.5).mul_(wide)
    # Of 0 and ∞, the step makes 0 · ∞.
    return coarse, torch.where(torch.eq(fine, fine), fine, wide)


def _of_sums(along: Tensor, total: Tensor, count: int, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """The slope, along / count · inverse · inverse, and the level, total / count, in float64."""
    number = torch.full_like(inverse, float(count), dtype=torch.float64)
    slope = torch.div(along.to(torch.float64), number).mul_(inverse).mul_(inverse)
    return slope, torch.div(total.to(torch.float64), number)


def _weighted(x: Tensor, row: Tensor | None) -> Tensor:
    return x if row is None else torch.mul(x, row)


def _row(x: Tensor | None, shape: Sequence[int]) -> Tensor | None:
    return None if x is None else x.reshape(list(shape))


def _unbiased(variance: Tensor, count: int) -> Tensor:
    """What divides by one less: of one element, NaN."""
    whole, less = (torch.full_like(variance, float(n)) for n in (count, count - 1))
    return torch.mul(variance, torch.div(whole, less))


def _move(running: Tensor, new: Tensor, momentum: float) -> None:
    kept = torch.mul(running, torch.full_like(running, 1.0 - momentum))
    running.copy_(torch.add(kept, torch.mul(new, torch.full_like(new, momentum))))


def _known(statistics: tuple[Tensor | None, Tensor | None], where: str) -> tuple[Tensor, Tensor]:
    first, second = statistics
    if first is None or second is None:
        raise ReplayError("there are no statistics to normalise with", where=where)
    _require(first, second)
    return first, second


def _by_channel(input: Tensor) -> tuple[Tensor, list[int], list[int]]:
    """A tensor laid out densely, its dimensions but the second, and the shape of a row of its channels."""
    if input.dim() < 2:
        raise ReplayError("the input has no channels", where="batch norm")
    dims = [dim for dim in range(input.dim()) if dim != 1]
    return _dense(input), dims, [input.shape[1] if dim == 1 else 1 for dim in range(input.dim())]


def _dense(x: Tensor) -> Tensor:
    """Itself where it lies row by row or with the channels last, which results keep; else a copy."""
    last = _CHANNELS_LAST.get(x.dim())
    return x if last is not None and x.is_contiguous(memory_format=last) else x.contiguous()


def _like(x: Tensor, other: Tensor) -> Tensor:
    """A tensor laid out as another, dense one of its shape."""
    if x.shape != other.shape:
        raise ReplayError(f"a gradient of shape {tuple(x.shape)} for {tuple(other.shape)}", where="norm")
    return x if x.stride() == other.stride() else torch.empty_like(other).copy_(x)


def _split(input: Tensor, normalized_shape: Sequence[int], where: str) -> tuple[range, range]:
    """The dimensions that are not normalised, and those that are."""
    border = input.dim() - len(normalized_shape)
    if not normalized_shape or border < 0 or list(input.shape[border:]) != list(normalized_shape):
        raise ReplayError(f"{list(normalized_shape)} does not end {list(input.shape)}", where=where)
    return range(border), range(border, input.dim())


def _over(x: Tensor, shape: Sequence[int]) -> Tensor:
    """The sum over the dimensions that are not normalised, of which there may be none."""
    return sum_along(x.view(-1, *shape) if math.prod(shape) else x.new_zeros(0, *shape), (0,))


def _in_groups(input: Tensor, n: int, c: int, places: int, group: int) -> tuple[Tensor, list[int]]:
    """(N, group, channels of one, places…), and the shape of a row of all channels in that."""
    fits = input.dim() >= 2 and list(input.shape[:2]) == [n, c] and math.prod(input.shape[2:]) == places
    if not fits or group <= 0 or c % group:
        raise ReplayError(f"{list(input.shape)} is not {n} × {c} × {places} in {group} groups", where="norm")
    x = _dense(input)
    x = x.view(n, group, c // group, *x.shape[2:])
    x = x.unsqueeze(-1) if x.dim() == 3 else x
    return x, [1, group, c // group, *[1] * (x.dim() - 3)]


def _out_of_groups(x: Tensor, like: Tensor) -> Tensor:
    return x.flatten(1, 2) if like.dim() > 2 else x.reshape(like.shape)


TABLE: Mapping[str, Callable[..., Any]] = {
    "aten.native_batch_norm.default": native_batch_norm,
    "aten.native_batch_norm_backward.default": native_batch_norm_backward,
    "aten._native_batch_norm_legit.default": native_batch_norm,
    "aten._native_batch_norm_legit.no_stats": _batch_norm_without_statistics,
    "aten.native_layer_norm.default": native_layer_norm,
    "aten.native_layer_norm_backward.default": native_layer_norm_backward,
    "aten._fused_rms_norm.default": fused_rms_norm,
    "aten.native_group_norm.default": native_group_norm,
    "aten.native_group_norm_backward.default": native_group_norm_backward,
}
"""By the names that a graph has for them."""
