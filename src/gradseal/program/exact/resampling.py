"""Upsampling to the nearest, folding, embeddings: numbers copied, and gradients added where they came from.

A table from ATen's names to functions of the same arguments. What meets is summed exactly (`planes`, `sums`).
Leaves out three dimensions and what interpolates. Format: docs/spec/exact-operators.md, section "Pools".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradseal.program.exact.digits import require_float32
from gradseal.program.exact.element_types import Function, named, number
from gradseal.program.exact.planes import Pairs, into_planes, plane, spread
from gradseal.program.exact.steps import laid_out, refuse_unless
from gradseal.program.exact.sums import sum_by_index

# --- Upsampling


def _nearest(size: int, out: int, scale: float | None) -> Pairs:
    """Which position each result copies, as ATen finds it, with one rounding to float32 for each step."""
    refuse_unless(size > 0 and out > 0, "upsampling of or to an empty plane")
    if out in (size, 2 * size):
        return Pairs(results=list(range(out)), positions=[i * size // out for i in range(out)])
    cpu = torch.device("cpu")
    if scale is not None and scale > 0:
        step = number(1.0 / scale, cpu)
    else:
        step = torch.div(number(size, cpu), number(out, cpu))
    positions = torch.mul(torch.arange(out).to(torch.float32), step).floor_().clamp_(max=float(size - 1))
    return Pairs(results=list(range(out)), positions=positions.to(torch.int64).tolist())


def _upsample_nearest2d(
    self: Tensor, output_size: Sequence[int], scales_h: float | None = None, scales_w: float | None = None
) -> Tensor:
    height, width = plane(self)
    rows, columns = _nearest(height, output_size[0], scales_h), _nearest(width, output_size[1], scales_w)
    down, across = (torch.tensor(p.positions, device=self.device) for p in (rows, columns))
    return laid_out(self.index_select(-2, down).index_select(-1, across), self)


def _upsample_nearest2d_backward(
    grad_output: Tensor,
    output_size: Sequence[int],
    input_size: Sequence[int],
    scales_h: float | None = None,
    scales_w: float | None = None,
) -> Tensor:
    height, width = input_size[-2], input_size[-1]
    expected = (*input_size[:-2], *output_size)
    plane(grad_output)
    refuse_unless(tuple(grad_output.shape) == expected, "a gradient of another shape")
    rows, columns = _nearest(height, output_size[0], scales_h), _nearest(width, output_size[1], scales_w)
    return laid_out(spread(grad_output, rows, columns, (height, width)), grad_output)


def _upsample_nearest1d(self: Tensor, output_size: Sequence[int], scales: float | None = None) -> Tensor:
    return _upsample_nearest2d(self.unsqueeze(-2), [1, *output_size], None, scales).squeeze(-2)


def _upsample_nearest1d_backward(
    grad_output: Tensor, output_size: Sequence[int], input_size: Sequence[int], scales: float | None = None
) -> Tensor:
    wide = [*input_size[:-1], 1, input_size[-1]]
    gradient = grad_output.unsqueeze(-2)
    return _upsample_nearest2d_backward(gradient, [1, *output_size], wide, None, scales).squeeze(-2)


# --- Folding


def _im2col(self: Tensor, *options: Any, **kwargs: Any) -> Any:
    require_float32(self)
    return torch.ops.aten.im2col.default(self, *options, **kwargs)


def _col2im(  # noqa: PLR0917 -- as the operator has them
    self: Tensor,
    output_size: Sequence[int],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Tensor:
    require_float32(self)
    height, width = output_size
    # Where each column's elements come from: the same columns, of a plane of positions. 0 is outside.
    numbered = torch.arange(1.0, height * width + 1.0, dtype=torch.float64).reshape(1, 1, height, width)
    places = torch.ops.aten.im2col.default(numbered, kernel_size, dilation, padding, stride)[0]
    taps, columns = places.shape
    fits = self.dim() in (2, 3) and self.shape[-1] == columns and self.shape[-2] % taps == 0
    refuse_unless(fits, "columns of another shape than the planes they are folded to")
    source = self.reshape(*self.shape[:-2], self.shape[-2] // taps, taps * columns)
    inside = places.flatten().nonzero()[:, 0].to(self.device)
    positions = places.flatten().to(device=self.device, dtype=torch.int64)[inside].sub_(1)
    return into_planes(source.index_select(-1, inside), positions, (height, width))


# --- Embeddings


def _embedding_backward(
    grad_output: Tensor, indices: Tensor, num_weights: int, padding_idx: int, scale_grad_by_freq: bool
) -> Tensor:
    refuse_unless(not scale_grad_by_freq, "exact arithmetic has no embedding that scales by frequency")
    require_float32(grad_output)
    refuse_unless(
        grad_output.dim() > 0 and grad_output.shape[:-1] == indices.shape, "a gradient of another shape"
    )
    rows = grad_output.reshape(-1, grad_output.shape[-1])
    index = indices.reshape(-1).to(torch.int64)
    if padding_idx >= 0:
        rows = rows.masked_fill(torch.eq(index, padding_idx)[:, None], 0.0)
    return sum_by_index(rows, 0, index, num_weights)


# --- The table

TABLE: Mapping[str, Function] = named(
    {
        "upsample_nearest1d": _upsample_nearest1d,
        "upsample_nearest1d_backward": _upsample_nearest1d_backward,
        "upsample_nearest2d": _upsample_nearest2d,
        "upsample_nearest2d_backward": _upsample_nearest2d_backward,
        "im2col": _im2col,
        "col2im": _col2im,
        "embedding_dense_backward": _embedding_backward,
    }
)
"""For each operator defined here, its function, of the arguments that ATen's has."""
