"""Convolutions of two dimensions in exact arithmetic, forward and backward.

Each is a product of matrices as `products` defines it, of a kernel's numbers and the patches of an image: the
exponent is shared by a patch, a filter, or what a result sums over. The patches of one group are in memory
whole.
Format: docs/spec/arithmetic.md, section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gradseal.errors import ReplayError
from gradseal.program.exact.products import Realisation, matmul

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How a kernel moves over an image: a number for the height and one for the width, and the groups."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1


def conv2d(
    x: Tensor, weight: Tensor, window: Window, *, realisation: Realisation = Realisation.MIXED
) -> Tensor:
    """The convolution of images with a kernel, without a bias.

    Args:
        x: float32, (batch, channels, height, width).
        weight: float32, (filters, channels of a group, kernel height, kernel width).
        window: How the kernel moves.
        realisation: How to compute it; changes no bit.

    Returns:
        float32, (batch, filters, height out, width out).

    Raises:
        ReplayError: The shapes do not fit, or the kernel is larger than the padded image.
    """
    size = _size_out(x, weight, window)

    def one(x: Tensor, weight: Tensor) -> Tensor:
        patches = _patches(x, _kernel(weight), window)
        return _filtered(weight.flatten(1), patches, size, realisation)

    return _by_group(one, x, weight, window)


def conv2d_input_gradient(
    gradient: Tensor,
    weight: Tensor,
    window: Window,
    size: Pair,
    *,
    realisation: Realisation = Realisation.MIXED,
) -> Tensor:
    """The gradient of `conv2d` with respect to its images.

    Args:
        gradient: float32, with respect to the result, (batch, filters, height out, width out).
        weight: As for `conv2d`.
        window: As for `conv2d`.
        size: Height and width of the images.
        realisation: How to compute it; changes no bit.

    Returns:
        float32, (batch, channels, height, width).

    Raises:
        ReplayError: The shapes do not fit.
    """
    channels = weight.shape[1] * window.groups
    image = gradient.new_empty((gradient.shape[0], channels, *size))
    _require_gradient(gradient, image, weight, window)

    def one(gradient: Tensor, weight: Tensor) -> Tensor:
        spread = _spread(gradient, weight, window, size)
        patches = _patches(spread, _kernel(weight), Window(dilation=window.dilation))
        return _filtered(weight.flip(2, 3).transpose(0, 1).flatten(1), patches, size, realisation)

    return _by_group(one, gradient, weight, window)


def conv2d_weight_gradient(
    gradient: Tensor,
    x: Tensor,
    window: Window,
    kernel: Pair,
    *,
    realisation: Realisation = Realisation.MIXED,
) -> Tensor:
    """The gradient of `conv2d` with respect to its kernel.

    Args:
        gradient: float32, with respect to the result, (batch, filters, height out, width out).
        x: As for `conv2d`.
        window: As for `conv2d`.
        kernel: Height and width of the kernel.
        realisation: How to compute it; changes no bit.

    Returns:
        float32, (filters, channels of a group, kernel height, kernel width).

    Raises:
        ReplayError: The shapes do not fit.
    """
    weight = x.new_empty((gradient.shape[1], x.shape[1] // window.groups, *kernel))
    _require_gradient(gradient, x, weight, window)
    parts = []
    for own, image in zip(gradient.chunk(window.groups, 1), x.chunk(window.groups, 1), strict=True):
        rows = own.transpose(0, 1).flatten(1)
        columns = _patches(image, kernel, window).transpose(1, 2).flatten(0, 1)
        parts.append(matmul(rows, columns, realisation=realisation).reshape(-1, *weight.shape[1:]))
    return torch.cat(parts)


def _filtered(filters: Tensor, patches: Tensor, size: Pair, realisation: Realisation) -> Tensor:
    """(batch, filters, height, width): one product of matrices for the whole batch."""
    images = patches.transpose(0, 1).flatten(1)
    result = matmul(filters, images, realisation=realisation)
    return result.reshape(filters.shape[0], patches.shape[0], *size).transpose(0, 1)


def _by_group(one: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor, window: Window) -> Tensor:
    pairs = zip(x.chunk(window.groups, 1), weight.chunk(window.groups, 0), strict=True)
    return torch.cat([one(own, filters) for own, filters in pairs], 1)


def _kernel(weight: Tensor) -> Pair:
    return weight.shape[2], weight.shape[3]


def _patches(x: Tensor, kernel: Pair, window: Window) -> Tensor:
    """(batch, channels · kernel height · kernel width, positions); copies numbers, and pads with zeros."""
    return functional.unfold(
        x, kernel, dilation=window.dilation, padding=window.padding, stride=window.stride
    )


def _spread(gradient: Tensor, weight: Tensor, window: Window, size: Pair) -> Tensor:
    """The gradient with zeros between its elements and around them, so that the flipped kernel moves by 1."""
    batch, filters = gradient.shape[:2]
    margins, span = [], []
    for side, axis in enumerate((2, 3)):
        reach = window.dilation[side] * (weight.shape[axis] - 1)
        span.append((gradient.shape[axis] - 1) * window.stride[side] + 1)
        before = reach - window.padding[side]
        margins.append((before, size[side] + reach - span[side] - before))
    spread = gradient.new_zeros((batch, filters, *span))
    spread[:, :, :: window.stride[0], :: window.stride[1]] = gradient
    # A negative margin cuts off what only padding saw.
    return functional.pad(spread, (*margins[1], *margins[0]))


def _size_out(x: Tensor, weight: Tensor, window: Window) -> Pair:
    shapes = f"an image of shape {tuple(x.shape)} and a kernel of shape {tuple(weight.shape)}"
    groups = window.groups
    if (
        x.dim() != 4
        or weight.dim() != 4
        or x.shape[1] != weight.shape[1] * groups
        or weight.shape[0] % groups
    ):
        raise ReplayError(f"{shapes} do not fit", where="conv2d")
    out = []
    for side, axis in enumerate((2, 3)):
        room = x.shape[axis] + 2 * window.padding[side] - window.dilation[side] * (weight.shape[axis] - 1) - 1
        out.append(room // window.stride[side] + 1)
    if min(out) < 1:
        raise ReplayError(f"{shapes} leave no place", where="conv2d")
    return out[0], out[1]


def _require_gradient(gradient: Tensor, x: Tensor, weight: Tensor, window: Window) -> None:
    expected = (x.shape[0], weight.shape[0], *_size_out(x, weight, window))
    if tuple(gradient.shape) != expected:
        raise ReplayError(f"a gradient of shape {tuple(gradient.shape)}, not {expected}", where="conv2d")
