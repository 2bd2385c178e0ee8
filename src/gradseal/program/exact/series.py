"""exp, log, erf and the normal tail in float64, from +, −, × and ÷ alone: what `functions` rounds to float32.

Each line is one torch call that IEEE-754 rounds correctly, or integer arithmetic on bits, so every result is
the same on any machine. Relative errors are below 2^−41, far below half a unit in the last place of float32.
Leaves out whatever is not finite; see `functions`. Format: docs/spec/arithmetic.md, section 4.

The coefficients are the definition, lowest degree first. They were made by interpolation at the Chebyshev
nodes of the interval given beside each. `add_(number)` has alpha = 1: that product is exact, and the call
rounds once.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor


def _hex(text: str) -> tuple[float, ...]:
    return tuple(map(float.fromhex, text.split()))


_LOG_2: Final = float.fromhex("0x1.62e42fefa39efp-1")
_LOG2_E: Final = float.fromhex("0x1.71547652b82fep+0")
# A float64 of at most 2^51 that this is added to is rounded to an integer, which its lowest bits then hold.
_ROUNDER: Final = float.fromhex("0x1.8p+52")
_BIAS: Final = 1023
_FRACTION_BITS: Final = 52
_NO_FRACTION: Final = -(1 << _FRACTION_BITS)
_SQRT_HALF_BITS: Final = 0x3FE6A09E667F3BCD
# log 2 · 2^−52: the product with k · 2^52 has the bits of that of log 2 with k.
_LOG_2_PER_BIT: Final = float.fromhex("0x1.62e42fefa39efp-53")

# (exp r − 1) / r for |r| ≤ 0.3467, to 2^−49.
_EXPM1: Final = _hex(
    """
    0x1.0000000000006p+0 0x1.0000000000001p-1 0x1.5555555550d52p-3 0x1.5555555553d56p-5
    0x1.11111123c9907p-7 0x1.6c16c17890eb4p-10 0x1.a019949f940cap-13 0x1.a019b8f9792eep-16
    0x1.72e1382ee1ff3p-19 0x1.28919ccaf9211p-22
    """
)
# 2 (atanh s / s − 1) / s² as a function of s² ≤ 0.02944, to 2^−43.
_ATANH: Final = _hex(
    """
    0x1.55555555553b8p-1 0x1.9999999b86b38p-2 0x1.2492462aae0ecp-2 0x1.c71fcd18711c4p-3
    0x1.7382d1330ebcfp-3 0x1.546ad42a9a1a9p-3
    """
)
# erf x / x as a function of x² ≤ 15.504, numerator and denominator, to 2^−41. All are positive: none cancel.
_ERF: Final = (
    _hex(
        """
        0x1.20dd7504295cfp+0 0x1.c02ef96b24280p-3 0x1.043d22016500bp-4 0x1.a06913e1edb72p-8
        0x1.766ebc9abdfbfp-11 0x1.632100b262874p-15 0x1.3133213e5d11cp-19 0x1.325667918713cp-24
        0x1.5498e806e885bp-30 0x1.71c4cfd0d4bbdp-39
        """
    ),
    _hex(
        """
        0x1.0000000000000p+0 0x1.0df6f8f8816f7p-1 0x1.0e77e261f0709p-3 0x1.53b72524da27dp-6
        0x1.288da7018973ep-9 0x1.77a28afeb08c6p-13 0x1.5b6058d341589p-17 0x1.c4ed5bfef78c5p-22
        0x1.7480c2cc69536p-27 0x1.79f0f694ff0b9p-34
        """
    ),
)
# (a + 6) exp(a²/2) Φ(−a) as a function of (a − 6) / (a + 6), for 0 ≤ a ≤ 16, to 2^−46.
TAIL: Final = _hex(
    """
    0x1.8e010d2b8a0fap-1 -0x1.66eaa7d095dedp-1 0x1.234fe3fd90d74p-1 -0x1.a7d65772ba9dcp-2
    0x1.1267d738c7e75p-2 -0x1.38b069c7c6b74p-3 0x1.33e77760d48d5p-4 -0x1.fba9ddff88b69p-6
    0x1.48a8363159119p-7 -0x1.1762db109e81cp-9 0x1.14397e30549a2p-15 0x1.7bef2660d4f52p-13
    -0x1.10fe96baad5e4p-14 0x1.52deec926d8dbp-20 0x1.f8103308a09d9p-18 -0x1.913b41392fdc2p-20
    -0x1.a23d18f862190p-21
    """
)
TAIL_CENTRE: Final = 6.0
TAIL_END: Final = 16.0
"""exp(−16²/2) · 16 is far below the smallest float32, so the tail need not go on from here."""


def horner(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    """c0 + x (c1 + x (c2 + …)), lowest coefficient first, one rounding for each product and each sum."""
    total = torch.mul(x, coefficients[-1])
    for coefficient in coefficients[-2:0:-1]:
        total.add_(coefficient).mul_(x)
    return total.add_(coefficients[0])


def exp(x: Tensor) -> Tensor:
    """The exponential of |x| ≤ 128, to 2^−46."""
    fraction, scale = _exp_parts(x)
    return fraction.add_(1.0).mul_(scale)


def expm1(x: Tensor) -> Tensor:
    """The exponential less one, for |x| ≤ 128, to 2^−45, near 0 too."""
    fraction, scale = _exp_parts(x)
    return fraction.mul_(scale).add_(scale.sub_(1.0))


def _exp_parts(x: Tensor) -> tuple[Tensor, Tensor]:
    """(q, 2^k) with exp x = 2^k (1 + q), k being the integer next to x / log 2, the even one of two."""
    shifted = torch.mul(x, _LOG2_E).add_(_ROUNDER)
    k = torch.sub(shifted, _ROUNDER)
    r = torch.sub(x, k.mul_(_LOG_2))
    # The bits of _ROUNDER leave at the top; what stays is k + 1023 in the field of the exponent.
    scale = shifted.view(torch.int64).add_(_BIAS).bitwise_left_shift_(_FRACTION_BITS).view(torch.float64)
    return horner(_EXPM1, r).mul_(r), scale


def log(x: Tensor) -> Tensor:
    """The logarithm of positive, normal, finite x, to 2^−49.

    x = 2^k · m with m in [√½, √2), f = m − 1, s = f / (m + 1), log m = 2 atanh s. As |log m| ≤ ½ log 2, it
    takes at most half of k log 2 away, so that one number is enough for log 2.
    """
    bits = x.view(torch.int64)
    # k · 2^52, by a mask: shifting to the right is slow where the processor has no such instruction.
    k = torch.sub(bits, _SQRT_HALF_BITS).bitwise_and_(_NO_FRACTION)
    m = torch.sub(bits, k).view(torch.float64)
    f = torch.sub(m, 1.0)
    s = torch.div(f, m.add_(1.0))
    z = torch.mul(s, s)
    log_m = horner(_ATANH, z).mul_(z).add_(2.0).mul_(s)
    return k.to(torch.float64).mul_(_LOG_2_PER_BIT).add_(log_m)


def log1p(x: Tensor) -> Tensor:
    """log(1 + x) for finite x > −1, to 2^−48, near 0 too.

    It is log u + (x − (u − 1)) / u, where u is 1 + x, rounded.
    """
    u = torch.add(x, 1.0)
    lost = torch.sub(x, torch.sub(u, 1.0)).div_(u)
    return log(u).add_(lost)


def erf(x: Tensor) -> Tensor:
    """The error function of 0 ≤ x ≤ 3.9375, to 2^−41."""
    z = torch.mul(x, x)
    numerator, denominator = (horner(part, z) for part in _ERF)
    return numerator.mul_(x).div_(denominator)


def normal_tail(a: Tensor) -> Tensor:
    """Φ(−a), the weight of the normal distribution beyond a, for 0 ≤ a ≤ 16, to 2^−45 of itself."""
    raised = torch.add(a, TAIL_CENTRE)
    y = torch.sub(a, TAIL_CENTRE).div_(raised)
    # a has 24 bits, so that a² and its half are exact.
    density = exp(torch.mul(a, a).mul_(-0.5))
    return horner(TAIL, y).div_(raised).mul_(density)
