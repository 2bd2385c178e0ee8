"""Convolutions of two dimensions in exact arithmetic, forward and backward.

Each operand goes to fixed point in slices that hold for all it is multiplied with: an image or a result's
gradient by sample and group, a kernel by filter or by channel, and where a result sums over the batch, by
channel or filter. What follows is a convolution of integers, exact, and one rounding. A slice with an
infinity or a NaN makes every result that belongs to it NaN. Order here: the operators, their integers on
PyTorch's operators, shapes. Format: docs/spec/arithmetic.md, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from gradseal.errors import ReplayError
from gradseal.program.exact import kernel as kernels
from gradseal.program.exact.digits import FixedPoint, fixed_point, require_float32
from gradseal.program.exact.products import (
    Realisation,
    added,
    chosen,
    compiled_function,
    require_length,
    rounded,
    sum_of_products,
)

Pair = tuple[int, int]

MAX_SIDE = 4096
"""The longest side of a kernel, and the greatest stride, dilation and padding."""
MAX_ELEMENTS = 1 << 40
"""Of each operand and of the result, with the padding around an image."""

_CHUNK = 1 << 22
"""Elements of patches in memory at a time, as float64."""

_PART = 1 << 20
"""The fewest products that are worth a thread."""

_IMAGE = (2, 3, 4)
"""The dimensions of a slice that belongs to one sample and group, or to one filter or channel of a kernel."""
_BATCH = (0, 3, 4)
"""Those of a slice that belongs to one filter or channel, over the batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How a kernel moves over an image: a number for the height and one for the width, and the groups."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1


def conv2d(x: Tensor, weight: Tensor, window: Window, *, realisation: Realisation | None = None) -> Tensor:
    """The convolution of images with a kernel, without a bias.

    Args:
        x: float32, (batch, channels, height, width).
        weight: float32, (filters, channels of a group, kernel height, kernel width).
        window: How the kernel moves.
        realisation: How to compute it; changes no bit. None is the fastest there is.

    Returns:
        float32, (batch, filters, height out, width out).

    Raises:
        ReplayError: The shapes do not fit, or the kernel is larger than the padded image.
    """
    size = _size_out(x.shape, weight, window)
    require_length(prod(weight.shape[1:]), where="conv2d")
    require_float32(x, weight)
    how = chosen(realisation, x, weight)
    if how is Realisation.KERNEL:
        y = x.new_empty((len(x), len(weight), *size))
        return _compiled("convolution", (x, weight, y), (x, weight, y), window, len(x))
    images = fixed_point(_by_group(x, window, 1), _IMAGE)
    filters = fixed_point(_by_group(weight, window, 0), _IMAGE)
    return _filtered(images.integers, filters, images, window, size, how)


def conv2d_input_gradient(
    gradient: Tensor,
    weight: Tensor,
    window: Window,
    size: Pair,
    *,
    realisation: Realisation | None = None,
) -> Tensor:
    """The gradient of `conv2d` with respect to its images.

    Args:
        gradient: float32, with respect to the result, (batch, filters, height out, width out).
        weight: As for `conv2d`.
        window: As for `conv2d`.
        size: Height and width of the images.
        realisation: How to compute it; changes no bit. None is the fastest there is.

    Returns:
        float32, (batch, channels, height, width).

    Raises:
        ReplayError: The shapes do not fit.
    """
    _require_gradient(gradient, (len(gradient), weight.shape[1] * window.groups, *size), weight, window)
    require_length(prod((len(weight), *weight.shape[2:])), where="conv2d")
    require_float32(gradient, weight)
    how = chosen(realisation, gradient, weight)
    if how is Realisation.KERNEL:
        x = gradient.new_empty((len(gradient), weight.shape[1] * window.groups, *size))
        shapes = (x, weight, gradient)
        return _compiled("convolution_input", (gradient, weight, x), shapes, window, len(x))
    gradients = fixed_point(_by_group(gradient, window, 1), _IMAGE)
    # Each channel sums over its group's filters.
    filters = fixed_point(_by_group(weight, window, 0).transpose(1, 2).flip(3, 4), _IMAGE)
    spread = _spread(gradients.integers, weight, window, size)
    return _filtered(spread, filters, gradients, Window(dilation=window.dilation), size, how)


def conv2d_weight_gradient(
    gradient: Tensor,
    x: Tensor,
    window: Window,
    kernel: Pair,
    *,
    realisation: Realisation | None = None,
) -> Tensor:
    """The gradient of `conv2d` with respect to its kernel.

    Args:
        gradient: float32, with respect to the result, (batch, filters, height out, width out).
        x: As for `conv2d`.
        window: As for `conv2d`.
        kernel: Height and width of the kernel.
        realisation: How to compute it; changes no bit. None is the fastest there is.

    Returns:
        float32, (filters, channels of a group, kernel height, kernel width).

    Raises:
        ReplayError: The shapes do not fit.
    """
    shape = (gradient.shape[1], x.shape[1] // window.groups, *kernel)
    _require_gradient(gradient, x.shape, x.new_empty(()).expand(shape), window)
    require_length(prod((len(gradient), *gradient.shape[2:])), where="conv2d")
    require_float32(gradient, x)
    how = chosen(realisation, gradient, x)
    if how is Realisation.KERNEL:
        own = x.new_empty(shape)
        shapes = (x, own, gradient)
        return _compiled("convolution_weight", (gradient, x, own), shapes, window, len(own))
    gradients = fixed_point(_by_group(gradient, window, 1), _BATCH)
    images = fixed_point(_by_group(x, window, 1), _BATCH)
    total = None
    for part in _chunks(len(x), window.groups * prod((*shape[1:], *gradient.shape[2:]))):
        rows = gradients.integers[part].flatten(3).permute(1, 2, 0, 3).flatten(2)
        columns = _patches(images.integers[part], kernel, window).permute(1, 0, 3, 2).flatten(1, 2)
        block = sum_of_products(rows, columns, how)
        total = block if total is None else added(total, block)
    if total is None:
        return x.new_zeros(shape)
    places = prod(kernel)
    left = [part.reshape(window.groups, -1, 1) for part in (gradients.exponents, gradients.finite)]
    right = [
        part.reshape(window.groups, 1, -1).repeat_interleave(places, 2)
        for part in (images.exponents, images.finite)
    ]
    return rounded(total, (left[0], right[0]), (left[1], right[1])).reshape(shape)


def _compiled(
    name: str,
    operands: tuple[Tensor, Tensor, Tensor],
    shapes: tuple[Tensor, Tensor, Tensor],
    window: Window,
    count: int,
) -> Tensor:
    """Parts of the samples, or of the kernel's filters, each in one call.

    Args:
        name: The function's, for two operands and a result.
        operands: These.
        shapes: The image, the kernel and the convolution's result, among them.
        window: How the kernel moves.
        count: How many samples or filters the result has.
    """
    dense = [x.contiguous() for x in operands]
    image, kernel, result = (x.shape for x in shapes)
    moves = (*window.stride, *window.padding, *window.dilation, window.groups)
    shape = torch.tensor([*image, kernel[0], *kernel[2:], *result[2:], *moves])
    addresses = [x.data_ptr() for x in (*dense, shape)]
    function = compiled_function(name, 4, 2)
    products = prod(kernel[1:]) * prod(result)
    kernels.in_parts(
        count,
        lambda start, end: function(*addresses, start, end),
        least=1 + _PART // max(1, products // max(1, count)),
    )
    return dense[2]


def _by_group(x: Tensor, window: Window, dim: int) -> Tensor:
    shape = (*x.shape[:dim], window.groups, x.shape[dim] // window.groups, *x.shape[dim + 1 :])
    return x.reshape(shape)


def _filtered(  # noqa: PLR0917 -- what it is made of
    integers: Tensor,
    filters: FixedPoint,
    images: FixedPoint,
    window: Window,
    size: Pair,
    how: Realisation,
) -> Tensor:
    """(batch, filters, height, width), from integers of images of (batch, groups, channels, …)."""
    kernel = (filters.integers.shape[3], filters.integers.shape[4])
    rows = filters.integers.flatten(2)
    result = images.integers.new_empty((len(integers), *rows.shape[:2], prod(size)), dtype=torch.float32)
    for part in _chunks(len(integers), len(rows) * rows.shape[2] * prod(size)):
        total = sum_of_products(rows, _patches(integers[part], kernel, window), how)
        result[part] = rounded(
            total,
            (images.exponents[part].flatten(3), filters.exponents.flatten(2)),
            (images.finite[part].flatten(3), filters.finite.flatten(2)),
        )
    return result.reshape(len(integers), len(rows) * rows.shape[1], *size)


def _chunks(count: int, size: int) -> list[slice]:
    """Parts of a batch, of samples that have so many elements of patches each."""
    length = max(1, _CHUNK // max(1, size))
    return [slice(start, start + length) for start in range(0, count, length)]


def _patches(x: Tensor, kernel: Pair, window: Window) -> Tensor:
    """(batch, groups, channels · kernel's places, positions); copies numbers, and pads with zeros."""
    patches = functional.unfold(
        x.flatten(0, 1), kernel, dilation=window.dilation, padding=window.padding, stride=window.stride
    )
    return patches.reshape(*x.shape[:2], *patches.shape[1:])


def _spread(gradient: Tensor, weight: Tensor, window: Window, size: Pair) -> Tensor:
    """The gradient with zeros between its elements and around them, so that the flipped kernel moves by 1.

    What lies before the first place or beyond the last is left out: only padding saw it.
    """
    lengths, kept, places = [], [], []
    for side, stride in enumerate(window.stride):
        reach = window.dilation[side] * (weight.shape[2 + side] - 1)
        before = reach - window.padding[side]
        lengths.append(size[side] + reach)
        first = max(0, -(before // stride))
        end = min(gradient.shape[3 + side], -((before - lengths[side]) // stride))
        kept.append(slice(first, max(first, end)))
        start = before + first * stride
        places.append(slice(start, max(start, before + end * stride), stride))
    spread = gradient.new_zeros((*gradient.shape[:3], *lengths))
    spread[..., places[0], places[1]] = gradient[..., kept[0], kept[1]]
    return spread


def _size_out(size: Sequence[int], weight: Tensor, window: Window) -> Pair:
    shapes = f"an image of shape {tuple(size)} and a kernel of shape {tuple(weight.shape)}"
    groups = window.groups
    if (
        len(size) != 4
        or weight.dim() != 4
        or size[1] != weight.shape[1] * groups
        or groups < 1
        or weight.shape[0] % groups
    ):
        raise ReplayError(f"{shapes} do not fit", where="conv2d")
    _require_bounded(size, weight, window)
    out = []
    for side, axis in enumerate((2, 3)):
        room = size[axis] + 2 * window.padding[side] - window.dilation[side] * (weight.shape[axis] - 1) - 1
        out.append(room // window.stride[side] + 1)
    if min(out) < 1:
        raise ReplayError(f"{shapes} leave no place", where="conv2d")
    return out[0], out[1]


def _require_bounded(size: Sequence[int], weight: Tensor, window: Window) -> None:
    """Refuses what no realisation need reckon with, before sizes are multiplied that might overflow."""
    sides = (*weight.shape[2:], *window.stride, *window.dilation)
    if min(sides) < 1 or max(*sides, *window.padding) > MAX_SIDE or min(window.padding) < 0:
        raise ReplayError(f"a kernel, stride, dilation or padding beyond 1 to {MAX_SIDE}", where="conv2d")
    padded = [max(1, side) + 2 * padding for side, padding in zip(size[2:], window.padding, strict=True)]
    for own in ((*size[:2], *padded), (size[0], weight.shape[0], *padded), tuple(weight.shape)):
        if prod([max(1, side) for side in own]) > MAX_ELEMENTS:
            raise ReplayError(f"more than {MAX_ELEMENTS} elements, with padding", where="conv2d")


def _require_gradient(gradient: Tensor, size: Sequence[int], weight: Tensor, window: Window) -> None:
    expected = (size[0], weight.shape[0], *_size_out(size, weight, window))
    if tuple(gradient.shape) != expected:
        raise ReplayError(f"a gradient of shape {tuple(gradient.shape)}, not {expected}", where="conv2d")
