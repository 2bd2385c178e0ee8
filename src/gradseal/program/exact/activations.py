"""Activations and their gradients, in steps of one rounding each.

A table from ATen's names to functions of the same arguments. Here are those of straight lines, comparisons
and single +, −, × and ÷ of float32; those with exponentials are in `smooth_activations`, and in the table.
Numbers among the arguments become float32 first; results lie in memory as ATen's do. Leaves out what draws at
random. Format: docs/spec/exact-operators.md, section "Activations".
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gradseal.program.exact import smooth_activations
from gradseal.program.exact.element_types import Function, in_place, named, number
from gradseal.program.exact.steps import (
    chosen,
    over,
    refuse_unless,
    require,
    rounded,
    times,
    zeroed,
)

# --- Choices


def _threshold(self: Tensor, threshold: float, value: float) -> Tensor:
    require(self)
    return chosen(torch.le(self, rounded(threshold)), number(value, self.device), self)


def _relu(self: Tensor) -> Tensor:
    require(self)
    return torch.clamp(self, min=0.0).add_(0.0)


def _threshold_backward(grad_output: Tensor, self: Tensor, threshold: float) -> Tensor:
    require(grad_output, self)
    return zeroed(grad_output, torch.le(self, rounded(threshold)))


def _hardtanh(self: Tensor, min_val: float = -1, max_val: float = 1) -> Tensor:
    require(self)
    low, high = rounded(min_val), rounded(max_val)
    refuse_unless(low <= high, "hardtanh: the bounds are not in order")
    bounded = torch.clamp(self, low, high)
    # A bound that is 0 is +0, and a zero that is equal to it becomes it.
    return bounded if low and high else bounded.add_(0.0)


def _hardtanh_backward(grad_output: Tensor, self: Tensor, min_val: float, max_val: float) -> Tensor:
    require(grad_output, self)
    low, high = rounded(min_val), rounded(max_val)
    outside = torch.le(self, low).logical_or_(torch.ge(self, high))
    return zeroed(grad_output, outside)


def _within(x: Tensor, lambd: float) -> Tensor:
    return torch.le(torch.abs(x), rounded(lambd))


def _hardshrink(self: Tensor, lambd: float = 0.5) -> Tensor:
    require(self)
    return zeroed(self, _within(self, lambd))


def _softshrink(self: Tensor, lambd: float = 0.5) -> Tensor:
    require(self)
    refuse_unless(lambd >= 0, "softshrink: lambd is below 0")
    step = number(lambd, self.device)
    moved = chosen(torch.gt(self, 0.0), torch.sub(self, step), torch.add(self, step))
    return zeroed(moved, _within(self, lambd))


def _shrink_backward(grad: Tensor, x: Tensor, lambd: float) -> Tensor:
    require(grad, x)
    return zeroed(grad, _within(x, lambd))


def _softshrink_backward(grad_output: Tensor, self: Tensor, lambd: float) -> Tensor:
    return _shrink_backward(grad_output, self, lambd)


def _hardshrink_backward(grad_out: Tensor, self: Tensor, lambd: float) -> Tensor:
    return _shrink_backward(grad_out, self, lambd)


def _dropout_backward(grad_output: Tensor, mask: Tensor, scale: float) -> Tensor:
    require(grad_output)
    return torch.mul(grad_output, times(mask.to(torch.float32), scale))


# --- Lines


def _leaky_relu(self: Tensor, negative_slope: float = 0.01) -> Tensor:
    require(self)
    return chosen(torch.gt(self, 0.0), self, times(self, negative_slope))


def _leaky_relu_backward(
    grad_output: Tensor, self: Tensor, negative_slope: float, self_is_result: bool
) -> Tensor:
    require(grad_output, self)
    refuse_unless(not self_is_result or negative_slope >= 0, "leaky_relu: a result does not tell the sign")
    return chosen(torch.gt(self, 0.0), grad_output, times(grad_output, negative_slope))


def _prelu(self: Tensor, weight: Tensor) -> Tensor:
    require(self, weight)
    return chosen(torch.gt(self, 0.0), self, torch.mul(self, weight))


def _prelu_backward(grad_output: Tensor, self: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    require(grad_output, self, weight)
    positive = torch.gt(self, 0.0)
    own = chosen(positive, grad_output, torch.mul(grad_output, weight))
    return own, zeroed(torch.mul(grad_output, self), positive)


def _hardsigmoid(self: Tensor) -> Tensor:
    require(self)
    return over(_hardtanh(torch.add(self, 3.0), 0.0, 6.0), 6.0)


def _hardsigmoid_backward(grad_output: Tensor, self: Tensor) -> Tensor:
    require(grad_output, self)
    outside = torch.lt(torch.abs(self), 3.0).logical_not_()
    return zeroed(over(grad_output, 6.0), outside)


def _hardswish(self: Tensor) -> Tensor:
    return torch.mul(self, _hardsigmoid(self))


def _hardswish_backward(grad_output: Tensor, self: Tensor) -> Tensor:
    require(grad_output, self)
    slope = torch.add(over(self, 3.0), 0.5)
    slope = chosen(torch.ge(self, 3.0), number(1.0, self.device), zeroed(slope, torch.le(self, -3.0)))
    return torch.mul(grad_output, slope)


# --- The table

_IN_PLACE: Mapping[str, Function] = {
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "hardtanh": _hardtanh,
    "hardsigmoid": _hardsigmoid,
    "hardswish": _hardswish,
}
TABLE: Mapping[str, Function] = {
    **smooth_activations.TABLE,
    **named(
        {
            **_IN_PLACE,
            **{f"{name}_": in_place(function) for name, function in _IN_PLACE.items()},
            "threshold": _threshold,
            "threshold_backward": _threshold_backward,
            "leaky_relu_backward": _leaky_relu_backward,
            "hardtanh_backward": _hardtanh_backward,
            "hardsigmoid_backward": _hardsigmoid_backward,
            "hardswish_backward": _hardswish_backward,
            "softshrink": _softshrink,
            "softshrink_backward": _softshrink_backward,
            "hardshrink": _hardshrink,
            "hardshrink_backward": _hardshrink_backward,
            "_prelu_kernel": _prelu,
            "_prelu_kernel_backward": _prelu_backward,
            "native_dropout_backward": _dropout_backward,
        }
    ),
}
"""For each operator defined here, its function, of the arguments that ATen's has."""
