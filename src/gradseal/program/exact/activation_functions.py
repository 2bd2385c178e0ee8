"""Functions of one float32 number that activations and their gradients are made of.

As in `functions`: computed in float64 from the parts in `series`, straight on, rounded once to float32; every
NaN is the one pattern 7FC00000. A derivative is a function of the argument alone, so that a gradient takes
one more product. The errors named are the greatest measured, in units in the last place; those of derivatives
hold away from their zeros (docs/spec/exact-operators.md). Leaves out what `functions` has. Order here: SiLU,
GELU, Mish, the rest.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from gradseal.program.exact import series
from gradseal.program.exact.functions import EXP_END, GELU_CUBIC, GELU_LINEAR, decay, elementwise

# 1 / √(2π).
_DENSITY: Final = float.fromhex("0x1.9884533d43651p-2")
# Three times GELU_CUBIC.
_GELU_SLOPE: Final = float.fromhex("0x1.b6676bf7450f0p-3")


def silu(x: Tensor) -> Tensor:
    """SiLU, x / (1 + exp −x) (Elfwing et al. 2018), within 0.500001 ulp; −0 at −∞."""
    return elementwise(_silu, x, "silu")


def _silu(x: Tensor) -> Tensor:
    # Bounded below, because −∞ times a weight that vanishes would stay −∞.
    bounded = torch.clamp(x, min=-EXP_END)
    return torch.div(bounded, decay(bounded).add_(1.0))


def silu_derivative(x: Tensor) -> Tensor:
    """The derivative of `silu`, within 0.500001 ulp but near its zero at −1.278."""
    return elementwise(_silu_derivative, x, "silu_derivative")


def _silu_derivative(x: Tensor) -> Tensor:
    bounded = torch.clamp(x, -EXP_END, EXP_END)
    return _gated_slope(decay(bounded), bounded)


def _gated_slope(decayed: Tensor, inner: Tensor) -> Tensor:
    """The sum s + s (1 − s) · inner, where s is 1 / (1 + decayed), 1 − s decayed / (1 + decayed)."""
    raised = torch.add(decayed, 1.0)
    return decayed.div_(raised).mul_(inner).add_(1.0).div_(raised)


def gelu_derivative(x: Tensor) -> Tensor:
    """Φ(x) + x φ(x), the derivative of GELU, within 0.500001 ulp but near its zero at −0.7518."""
    return elementwise(_gelu_derivative, x, "gelu_derivative")


def _gelu_derivative(x: Tensor) -> Tensor:
    # Φ(−a) and φ(a) share the factor exp(−a²/2). If h is the derivative at −|x|, that at |x| is 1 − h.
    a = torch.abs(x).clamp_(max=series.TAIL_END)
    raised = torch.add(a, series.TAIL_CENTRE)
    y = torch.sub(a, series.TAIL_CENTRE).div_(raised)
    left = series.horner(series.TAIL, y).div_(raised).sub_(torch.mul(a, _DENSITY))
    left.mul_(series.exp(torch.mul(a, a).mul_(-0.5)))
    return torch.where(torch.lt(x, 0.0), left, torch.sub(torch.ones_like(left), left))


def gelu_tanh_derivative(x: Tensor) -> Tensor:
    """The derivative of GELU's form with tanh, within 0.500001 ulp but near its zero at −0.7524."""
    return elementwise(_gelu_tanh_derivative, x, "gelu_tanh_derivative")


def _gelu_tanh_derivative(x: Tensor) -> Tensor:
    bounded = torch.clamp(x, -series.TAIL_END, series.TAIL_END)
    square = torch.mul(bounded, bounded)
    # x s(w) has the derivative s + s (1 − s) x w', w being a cubic of x.
    slope = torch.mul(square, _GELU_SLOPE).add_(GELU_LINEAR).mul_(bounded)
    return _gated_slope(decay(square.mul_(GELU_CUBIC).add_(GELU_LINEAR).mul_(bounded)), slope)


def mish(x: Tensor) -> Tensor:
    """Mish, x tanh(log(1 + exp x)) (Misra 2019), within 0.500001 ulp; −0 at −∞."""
    return elementwise(_mish, x, "mish")


def _mish(x: Tensor) -> Tensor:
    _, n = _mish_parts(x)
    weight = torch.div(n, torch.add(n, 2.0))
    return weight.mul_(torch.clamp(x, min=-EXP_END))


def _mish_parts(x: Tensor) -> tuple[Tensor, Tensor]:
    """With e = exp x, e and n = e (e + 2), so that tanh(log(1 + e)) = n / (n + 2), which cancels nothing."""
    e = series.exp(torch.clamp(x, -EXP_END, EXP_END))
    return e, torch.add(e, 2.0).mul_(e)


def mish_derivative(x: Tensor) -> Tensor:
    """The derivative of `mish`, within 0.500001 ulp but near its zero at −1.192."""
    return elementwise(_mish_derivative, x, "mish_derivative")


def _mish_derivative(x: Tensor) -> Tensor:
    e, n = _mish_parts(x)
    raised = torch.add(n, 2.0)
    # The weight n / (n + 2) has the derivative 4 e (e + 1) / (n + 2)².
    slope = torch.add(e, 1.0).mul_(e).mul_(4.0).div_(raised).mul_(torch.clamp(x, -EXP_END, EXP_END))
    return slope.add_(n).div_(raised)


def expm1(x: Tensor) -> Tensor:
    """The exponential less one, within 0.500001 ulp, near 0 too; takes the sign of x, also at ±0."""
    return elementwise(_expm1, x, "expm1")


def _expm1(x: Tensor) -> Tensor:
    return torch.copysign(series.expm1(torch.clamp(x, -EXP_END, EXP_END)), x)


def logit(x: Tensor) -> Tensor:
    """log(x / (1 − x)), within 0.500001 ulp; −∞ at ±0, ∞ at 1, NaN outside [0, 1]."""
    return elementwise(_logit, x, "logit")


def _logit(x: Tensor) -> Tensor:
    result = series.log(torch.div(x, torch.sub(torch.ones_like(x), x)))
    result.masked_fill_(torch.eq(x, 0.0), -math.inf).masked_fill_(torch.eq(x, 1.0), math.inf)
    return result.masked_fill_(torch.lt(x, 0.0).logical_or_(torch.gt(x, 1.0)), math.nan)
