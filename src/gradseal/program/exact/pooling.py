"""Pools of two dimensions and one, and their gradients.

A table from ATen's names to functions of the same arguments. The largest of a window is a choice, and left to
ATen. A window's average is its exact sum, rounded, over a count. A gradient goes to the places that its
result came from (`planes`). What else moves planes or adds into them is in `resampling`, and in the table.
Leaves out three dimensions. Format: docs/spec/exact-operators.md, section "Pools".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gradseal.program.exact import resampling
from gradseal.program.exact.digits import require_float32
from gradseal.program.exact.element_types import Function, named, number
from gradseal.program.exact.planes import Axis, Windows, adaptive_windows, both, members, plane, spread
from gradseal.program.exact.steps import laid_out, refuse_unless
from gradseal.program.exact.sums import sum_along, sum_by_indices

# --- The largest


def _max_pool2d(self: Tensor, *args: Any, **kwargs: Any) -> Any:
    require_float32(self)
    return torch.ops.aten.max_pool2d_with_indices.default(self, *args, **kwargs)


def _adaptive_max_pool2d(self: Tensor, output_size: Sequence[int]) -> Any:
    require_float32(self)
    return torch.ops.aten.adaptive_max_pool2d.default(self, output_size)


def _max_pool2d_backward(grad_output: Tensor, self: Tensor, *options: Any) -> Tensor:
    return _to_the_largest(grad_output, self, options[-1])


def _to_the_largest(grad_output: Tensor, self: Tensor, indices: Tensor) -> Tensor:
    size = plane(self)
    plane(grad_output)
    fits = grad_output.shape == indices.shape and grad_output.shape[:-2] == self.shape[:-2]
    refuse_unless(fits, "a gradient, or indices, of another shape than the pool's result")
    planes = indices.flatten(0, -3).flatten(1)
    sums = sum_by_indices(grad_output.reshape(planes.shape), 1, planes, (planes.shape[0], size[0] * size[1]))
    return laid_out(sums.reshape(self.shape), self)


# --- Averages


def _average(x: Tensor, rows: Windows, columns: Windows, divisor: int | None) -> Tensor:
    sums = x.new_zeros((*x.shape[:-2], len(rows.starts), len(columns.starts)))
    for i, (top, bottom) in enumerate(zip(rows.starts, rows.ends, strict=True)):
        for j, (left, right) in enumerate(zip(columns.starts, columns.ends, strict=True)):
            if top < bottom and left < right:
                sums[..., i, j] = sum_along(x[..., top:bottom, left:right], (-2, -1))
    return _divided(sums, rows, columns, divisor)


def _regular_average(
    x: Tensor, axes: Sequence[Axis], windows: Sequence[Windows], divisor: int | None
) -> Tensor:
    """As `_average`, for windows of one size at one distance; what is outside counts as 0."""
    margins: list[int] = []
    for axis, own in zip(axes, windows, strict=True):
        reach = (len(own.starts) - 1) * axis.stride + axis.kernel
        margins = [axis.padding, max(reach - axis.size - axis.padding, 0), *margins]
    padded = functional.pad(x, margins) if any(margins) else x
    patches = padded.unfold(-2, axes[0].kernel, axes[0].stride).unfold(-2, axes[1].kernel, axes[1].stride)
    # What is added lies furthest apart, so that whole rows are added at once.
    taps = patches.movedim((-2, -1), (0, 1)).contiguous()
    return _divided(sum_along(taps, (0, 1)), windows[0], windows[1], divisor)


def _divided(x: Tensor, rows: Windows, columns: Windows, divisor: int | None) -> Tensor:
    if divisor is not None:
        refuse_unless(divisor != 0, "a pool whose divisor is 0")
        return torch.div(x, number(divisor, x.device))
    # A window wholly outside has the sum 0, which any count leaves as it is.
    down, across = (torch.tensor(w.counts, dtype=torch.int64).clamp_(min=1) for w in (rows, columns))
    counts = torch.mul(down[:, None], across)
    return torch.div(x, counts.to(device=x.device, dtype=torch.float32))


def _axes(
    x: Tensor, kernel_size: Sequence[int], stride: Sequence[int], padding: Sequence[int] | int
) -> list[Axis]:
    kernel, padding = both(kernel_size), both(padding)
    options = zip(plane(x), kernel, both(stride, kernel), padding, strict=True)
    return [Axis(size=s, kernel=k, stride=m, padding=p) for s, k, m, p in options]


def _avg_pool2d(  # noqa: PLR0917 -- as the operator has them
    self: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] | int = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    axes = _axes(self, kernel_size, stride, padding)
    windows = [axis.windows(ceil_mode=ceil_mode, count_include_pad=count_include_pad) for axis in axes]
    return laid_out(_regular_average(self, axes, windows, divisor_override), self)


def _avg_pool1d(  # noqa: PLR0917 -- as the operator has them
    self: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] | int = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    kernel, step, margin = ([both(option)[0]] for option in (kernel_size, stride or kernel_size, padding))
    raised = self.unsqueeze(-2)
    pooled = _avg_pool2d(raised, [1, *kernel], [1, *step], [0, *margin], ceil_mode, count_include_pad)
    return pooled.squeeze(-2)


def _avg_pool2d_backward(  # noqa: PLR0917 -- as the operator has them
    grad_output: Tensor,
    self: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    axes = _axes(self, kernel_size, stride, padding)
    windows = [axis.windows(ceil_mode=ceil_mode, count_include_pad=count_include_pad) for axis in axes]
    return _average_backward(grad_output, self, windows, divisor_override)


def _average_backward(gradient: Tensor, x: Tensor, windows: Sequence[Windows], divisor: int | None) -> Tensor:
    rows, columns = windows
    expected = (*x.shape[:-2], len(rows.starts), len(columns.starts))
    refuse_unless(
        plane(gradient) == expected[-2:] and gradient.shape == expected, "a gradient of another shape"
    )
    shares = _divided(gradient, rows, columns, divisor)
    return laid_out(spread(shares, members(rows), members(columns), plane(x)), x)


def _adaptive_windows(x: Tensor, out: Sequence[int]) -> list[Windows]:
    sizes = list(zip(plane(x), both(out), strict=True))
    refuse_unless(all(size > 0 and own > 0 for size, own in sizes), "a pool of an empty plane")
    return [adaptive_windows(size, own) for size, own in sizes]


def _adaptive_avg_pool2d(self: Tensor, output_size: Sequence[int]) -> Tensor:
    windows = _adaptive_windows(self, output_size)
    axes = []
    for size, own in zip(plane(self), windows, strict=True):
        kernel, rest = divmod(size, len(own.starts))
        if rest:
            return laid_out(_average(self, windows[0], windows[1], None), self)
        axes.append(Axis(size=size, kernel=kernel, stride=kernel, padding=0))
    return laid_out(_regular_average(self, axes, windows, None), self)


def _adaptive_avg_pool2d_backward(grad_output: Tensor, self: Tensor) -> Tensor:
    return _average_backward(grad_output, self, _adaptive_windows(self, plane(grad_output)), None)


# --- The table

TABLE: Mapping[str, Function] = {
    **resampling.TABLE,
    **named(
        {
            "max_pool2d_with_indices": _max_pool2d,
            "max_pool2d_with_indices_backward": _max_pool2d_backward,
            "adaptive_max_pool2d": _adaptive_max_pool2d,
            "adaptive_max_pool2d_backward": _to_the_largest,
            "avg_pool1d": _avg_pool1d,
            "avg_pool2d": _avg_pool2d,
            "avg_pool2d_backward": _avg_pool2d_backward,
            "_adaptive_avg_pool2d": _adaptive_avg_pool2d,
            "_adaptive_avg_pool2d_backward": _adaptive_avg_pool2d_backward,
        }
    ),
}
"""For each operator defined here, its function, of the arguments that ATen's has."""
