"""Functions of one float32 number, each with one result on every machine.

A number is taken to float64, the function computed there (`series`), and the result rounded once to float32,
to nearest, ties to even, subnormals kept; overflow gives ±∞. The errors named are the greatest measured, in
units in the last place (0.5 is the least possible). Every NaN becomes the one pattern 7FC00000, and an odd
function keeps the sign of zero. The kernel, where it is there, gives the same bits. Order here: the walk over
the elements, roots, exponentials, logarithms, erf. Format: docs/spec/arithmetic.md, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from gradseal.program.exact import kernel, series
from gradseal.program.exact.digits import require_float32

NAN_BITS: Final = 0x7FC00000
CHUNK: Final = 1 << 16
"""Elements per pass: 512 KiB of float64, so the few temporaries of a pass stay in the second-level cache."""

# Beyond these, every result is the same float32: exp is 0 or ∞, tanh and erf are 1.
EXP_END: Final = 128.0
_TANH_END: Final = 20.0
_ERF_END: Final = 3.9375
# 2 √(2/π) and 0.044715 times that, for the argument of GELU's logistic form.
GELU_LINEAR: Final = float.fromhex("0x1.9884533d43651p+0")
GELU_CUBIC: Final = float.fromhex("0x1.2444f2a4d8b4bp-4")


def elementwise(core: Callable[[Tensor], Tensor], x: Tensor, compiled: str = "") -> Tensor:
    """`core` of each element in float64, rounded to float32; a new tensor, laid out row by row.

    Args:
        core: Takes float64, may write to it.
        x: float32, any shape and strides.
        compiled: The kernel's function with the same bits, where it has one.

    Raises:
        ReplayError: If `x` is not float32.
    """
    require_float32(x)
    loop = kernel.function(compiled, "ppn") if compiled and kernel.usable(x) else None
    if loop is not None:
        return _run(loop, x.contiguous())
    flat = x.detach().reshape(-1).contiguous()
    result = torch.empty_like(flat)
    _walk(core, flat, result)
    return result.view(x.shape)


def _run(loop: Callable[..., None], x: Tensor) -> Tensor:
    result = torch.empty_like(x)
    source, target = x.data_ptr(), result.data_ptr()

    def part(start: int, end: int) -> None:
        loop(source + 4 * start, target + 4 * start, end - start)

    kernel.in_parts(x.numel(), part, least=CHUNK)
    return result


def _walk(core: Callable[[Tensor], Tensor], flat: Tensor, result: Tensor) -> None:
    for start in range(0, flat.numel(), CHUNK):
        piece = flat[start : start + CHUNK]
        result[start : start + CHUNK] = core(piece.to(torch.float64))
    # Asked of the argument too: what a core makes of a NaN through its bits may be a number.
    unordered = torch.ne(result, result).logical_or_(torch.ne(flat, flat))
    result.view(torch.int32).masked_fill_(unordered, NAN_BITS)


def sqrt(x: Tensor) -> Tensor:
    """√x, correctly rounded; NaN below zero, and √−0 = −0."""
    # torch's float64 root may be wrong in its last bit, which cannot matter. Scale x by the power of four
    # that puts √x into [2^23, 2^24), where float32 are the integers, and float64 are 2^−29 apart. A
    # midpoint of two float32 is M/2 with an odd M < 2^25; x is then an integer, and M²/4 an integer plus
    # 1/4. So |√x − M/2| = |x − M²/4| / (√x + M/2) > (1/4) / 2^25 = 2^−27, four units in the last place of
    # float64. A root within one unit of √x is on the same side of every midpoint as √x. No root of a
    # float32 is subnormal.
    return elementwise(torch.sqrt, x, "sqrt")


def rsqrt(x: Tensor) -> Tensor:
    """1 / √x, within 0.500001 ulp; ±∞ at ±0, 0 at ∞, NaN below zero."""
    return elementwise(_rsqrt, x, "rsqrt")


def _rsqrt(x: Tensor) -> Tensor:
    # The float64 root is rounded to float32 first, which makes it the same everywhere, as `sqrt` shows. One
    # step of Heron's method then doubles its 24 good bits.
    root = torch.sqrt(x).to(torch.float32).to(torch.float64)
    doubled = torch.div(x, root).add_(root)
    refined = torch.div(torch.full_like(x, 2.0), doubled)
    plain = torch.div(torch.ones_like(x), root)
    # At 0 and ∞ the step is 0/0 or ∞/∞.
    return torch.where(torch.eq(doubled, doubled), refined, plain)


def exp(x: Tensor) -> Tensor:
    """The exponential, within 0.500001 ulp; ∞ above 88.72, subnormal below −87.33, 0 below −103.97."""
    return elementwise(lambda y: series.exp(y.clamp_(-EXP_END, EXP_END)), x, "exp")


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp −x), within 0.500001 ulp, the left tail too."""
    return elementwise(lambda y: torch.div(torch.ones_like(y), decay(y).add_(1.0)), x, "sigmoid")


def decay(x: Tensor) -> Tensor:
    """Exp −x in float64, of what is beyond ±128 as there."""
    return series.exp(torch.neg(x).clamp_(-EXP_END, EXP_END))


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent, within 0.500001 ulp; odd, bit for bit."""
    return elementwise(_tanh, x, "tanh")


def _tanh(x: Tensor) -> Tensor:
    # With e = exp(2|x|) − 1, tanh |x| = e / (e + 2), which loses nothing near 0.
    e = series.expm1(torch.abs(x).clamp_(max=_TANH_END).mul_(2.0))
    return torch.copysign(torch.div(e, torch.add(e, 2.0)), x)


def log(x: Tensor) -> Tensor:
    """Natural logarithm, within 0.500001 ulp; −∞ at ±0, NaN below zero."""
    return elementwise(_log, x, "log")


def _log(x: Tensor) -> Tensor:
    return _at_ends(x, series.log(x), start=0.0)


def log1p(x: Tensor) -> Tensor:
    """log(1 + x), within 0.500001 ulp, near 0 too; −∞ at −1, NaN below."""
    return elementwise(_log1p, x, "log1p")


def _log1p(x: Tensor) -> Tensor:
    return _at_ends(x, torch.copysign(series.log1p(x), x), start=-1.0)


def _at_ends(x: Tensor, result: Tensor, *, start: float) -> Tensor:
    """A logarithm's `result` where its argument is inside (start, ∞), and its limits and NaN elsewhere."""
    result.masked_fill_(torch.eq(x, math.inf), math.inf)
    result.masked_fill_(torch.eq(x, start), -math.inf)
    return result.masked_fill_(torch.lt(x, start), math.nan)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp x), within 0.500001 ulp, without the threshold above which PyTorch returns x itself."""
    return elementwise(_softplus, x, "softplus")


def _softplus(x: Tensor) -> Tensor:
    return series.log1p(decay(torch.abs(x))).add_(torch.clamp(x, min=0.0))


def erf(x: Tensor) -> Tensor:
    """The error function, within 0.50001 ulp; odd, bit for bit."""
    return elementwise(_erf, x, "erf")


def _erf(x: Tensor) -> Tensor:
    return torch.copysign(series.erf(torch.abs(x).clamp_(max=_ERF_END)), x)


def gelu(x: Tensor) -> Tensor:
    """GELU, x Φ(x) (Hendrycks & Gimpel 2016), within 0.500001 ulp, the left tail too; −0 at −∞."""
    return elementwise(_gelu, x, "gelu")


def _gelu(x: Tensor) -> Tensor:
    tail = series.normal_tail(torch.abs(x).clamp_(max=series.TAIL_END))
    rest = torch.sub(torch.ones_like(tail), tail)
    # Bounded, because −∞ times a weight that vanishes would stay −∞.
    return torch.where(torch.lt(x, 0.0), tail, rest).mul_(torch.clamp(x, min=-series.TAIL_END))


def gelu_tanh(x: Tensor) -> Tensor:
    """½ x (1 + tanh(√(2/π) (x + 0.044715 x³))), as x times a logistic, within 0.500001 ulp; −0 at −∞."""
    return elementwise(_gelu_tanh, x, "gelu_tanh")


def _gelu_tanh(x: Tensor) -> Tensor:
    bounded = torch.clamp(x, min=-series.TAIL_END)
    square = torch.mul(bounded, bounded)
    argument = square.mul_(GELU_CUBIC).add_(GELU_LINEAR).mul_(bounded)
    return torch.div(bounded, decay(argument).add_(1.0))
