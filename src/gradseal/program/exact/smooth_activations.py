"""Activations with exponentials, and their gradients: ELU, softplus, logistics, GELU, SiLU, Mish, GLU.

What depends on one number alone is a function of `functions` or `activation_functions`, rounded once; its
gradient is its derivative, rounded once, times the gradient that comes in. All else is single +, −, × and ÷
of float32. Format: docs/spec/exact-operators.md, section "Activations".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from gradseal.program.exact import activation_functions, functions
from gradseal.program.exact.element_types import Function, in_place, named, number
from gradseal.program.exact.steps import (
    chosen,
    complement,
    of_each,
    over,
    refuse_unless,
    require,
    rounded,
    times,
)


def _simple(function: Callable[[Tensor], Tensor]) -> Function:
    def forward(self: Tensor) -> Tensor:
        require(self)
        return of_each(function, self)

    return forward


def _derived(derivative: Callable[[Tensor], Tensor]) -> Function:
    def backward(grad_output: Tensor, self: Tensor) -> Tensor:
        require(grad_output, self)
        return torch.mul(grad_output, of_each(derivative, self))

    return backward


def _elu(self: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Tensor:
    require(self)
    depth = of_each(activation_functions.expm1, times(self, input_scale))
    depth = times(depth, rounded(rounded(alpha) * rounded(scale)))
    return chosen(torch.lt(self, 0.0), depth, times(self, scale))


def _celu(self: Tensor, alpha: float = 1.0) -> Tensor:
    refuse_unless(alpha != 0, "celu: alpha is 0")
    return _elu(self, alpha, 1.0, 1.0 / alpha)


def _elu_backward(  # noqa: PLR0917 -- as the operator has them
    grad_output: Tensor,
    alpha: float,
    scale: float,
    input_scale: float,
    is_result: bool,
    self_or_result: Tensor,
) -> Tensor:
    require(grad_output, self_or_result)
    refuse_unless(not is_result or alpha >= 0, "elu: a result does not tell the sign")
    depth = rounded(rounded(alpha) * rounded(scale))
    if is_result:
        slope = torch.add(self_or_result, number(depth, self_or_result.device))
    else:
        slope = times(of_each(functions.exp, times(self_or_result, input_scale)), depth)
    bent = torch.mul(grad_output, times(slope, input_scale))
    return chosen(torch.le(self_or_result, 0.0), bent, times(grad_output, scale))


def _softplus(self: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    require(self)
    scaled = times(self, beta)
    curved = over(of_each(functions.softplus, scaled), beta)
    return chosen(torch.gt(scaled, rounded(threshold)), self, curved)


def _softplus_backward(grad_output: Tensor, self: Tensor, beta: float, threshold: float) -> Tensor:
    require(grad_output, self)
    scaled = times(self, beta)
    curved = torch.mul(grad_output, of_each(functions.sigmoid, scaled))
    return chosen(torch.gt(scaled, rounded(threshold)), grad_output, curved)


def _log_sigmoid_forward(self: Tensor) -> tuple[Tensor, Tensor]:
    require(self)
    # The second result is no part of the definition: the gradient does without it.
    return torch.neg(functions.softplus(torch.neg(self))), self.new_empty(0)


def _log_sigmoid_backward(grad_output: Tensor, self: Tensor, buffer: Tensor) -> Tensor:
    require(grad_output, self, buffer)
    return torch.mul(grad_output, of_each(functions.sigmoid, torch.neg(self)))


def _sigmoid_backward(grad_output: Tensor, output: Tensor) -> Tensor:
    require(grad_output, output)
    return torch.mul(torch.mul(grad_output, complement(output)), output)


def _tanh_backward(grad_output: Tensor, output: Tensor) -> Tensor:
    require(grad_output, output)
    return torch.mul(grad_output, complement(torch.mul(output, output)))


def _logit(self: Tensor, eps: float | None = None) -> Tensor:
    require(self)
    bounded = self
    if eps is not None:
        low = rounded(eps)
        bounded = torch.clamp(self, low, rounded(1.0 - low))
    return of_each(activation_functions.logit, bounded)


def _logit_backward(grad_output: Tensor, self: Tensor, eps: float | None = None) -> Tensor:
    require(grad_output, self)
    low = 0.0 if eps is None else rounded(eps)
    inside = torch.ge(self, low).logical_and_(torch.le(self, rounded(1.0 - low)))
    slope = torch.div(grad_output, torch.mul(self, complement(self)))
    return chosen(inside, slope, number(torch.nan if eps is None else 0.0, self.device))


_GELU: Final[Mapping[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]]] = {
    "none": (functions.gelu, activation_functions.gelu_derivative),
    "tanh": (functions.gelu_tanh, activation_functions.gelu_tanh_derivative),
}


def _gelu(self: Tensor, *, approximate: str = "none") -> Tensor:
    refuse_unless(approximate in _GELU, f"gelu: no way to approximate is called {approximate[:40]!r}")
    require(self)
    return of_each(_GELU[approximate][0], self)


def _gelu_backward(grad_output: Tensor, self: Tensor, *, approximate: str = "none") -> Tensor:
    refuse_unless(approximate in _GELU, f"gelu: no way to approximate is called {approximate[:40]!r}")
    require(grad_output, self)
    return torch.mul(grad_output, of_each(_GELU[approximate][1], self))


def _halves(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    require(x)
    refuse_unless(x.dim() > 0 and x.shape[dim] % 2 == 0, "glu: the dimension cannot be halved")
    half = x.shape[dim] // 2
    return x.narrow(dim, 0, half), x.narrow(dim, half, half)


def _glu(self: Tensor, dim: int = -1) -> Tensor:
    value, gate = _halves(self, dim)
    return torch.mul(value, functions.sigmoid(gate))


def _glu_backward(grad_output: Tensor, self: Tensor, dim: int) -> Tensor:
    value, gate = _halves(self, dim)
    require(grad_output)
    opened = functions.sigmoid(gate)
    to_value = torch.mul(grad_output, opened)
    to_gate = torch.mul(torch.mul(to_value, complement(opened)), value)
    return torch.cat([to_value, to_gate], dim)


_IN_PLACE: Mapping[str, Function] = {
    "elu": _elu,
    "celu": _celu,
    "silu": _simple(activation_functions.silu),
}
TABLE: Mapping[str, Function] = named(
    {
        **_IN_PLACE,
        **{f"{name}_": in_place(function) for name, function in _IN_PLACE.items()},
        "elu_backward": _elu_backward,
        "gelu": _gelu,
        "gelu_backward": _gelu_backward,
        "silu_backward": _derived(activation_functions.silu_derivative),
        "sigmoid_backward": _sigmoid_backward,
        "tanh_backward": _tanh_backward,
        "softplus": _softplus,
        "softplus_backward": _softplus_backward,
        "log_sigmoid_forward": _log_sigmoid_forward,
        "log_sigmoid_backward": _log_sigmoid_backward,
        "glu": _glu,
        "glu_backward": _glu_backward,
        "mish": _simple(activation_functions.mish),
        "mish_backward": _derived(activation_functions.mish_derivative),
        "logit": _logit,
        "logit_backward": _logit_backward,
    }
)
"""For each operator defined here, its function, of the arguments that ATen's has."""
