"""What optimizers and clipping are made of in exact arithmetic, element by element.

Every +, −, ×, ÷ and √ on elements is one torch call that rounds once to float32. Numbers are Python's
floats, combined by + − × ÷ and √, which IEEE-754 rounds correctly, and become a float32 where they meet a
tensor; powers of them are products in a fixed order, as the C library's power differs between machines.
Tensors are walked in pieces that stay in a cache, and what is written has one NaN. Order here: numbers, the
walk, steps of a rule, running means, the norm. Leaves out the rules; see `program.optimizers`. Format:
docs/spec/exact-operators.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from gradseal.program.exact import series
from gradseal.program.exact.digits import require_float32
from gradseal.program.exact.functions import NAN_BITS

PIECE: Final = 1 << 16
"""Elements in a piece for each thread: more would leave its cache, with fewer the calls would weigh."""

_ROOT_PIECE: Final = 1 << 15
"""Squares below 2^48 in one piece of a norm: their sum is below 2^63."""
_SQUARES: Final = 32
"""Squares below 2^48 that float64 adds up exactly."""
_BITS: Final = 24
_LOG_096: Final = float.fromhex("-0x1.4e69ed6d80eb3p-5")
_EXP_END: Final = 128.0


def number(value: float, like: Tensor) -> Tensor:
    """A number as a float32 of shape (), on a tensor's device: there even a division by it is a division.

    Raises:
        OverflowError: It is not finite, or too large for float32.
    """
    # The sign is asked for as 0 and −0 are one key.
    return _number(value, math.copysign(1.0, value), like.device)


@lru_cache(maxsize=1024)
def _number(value: float, sign: float, device: torch.device) -> Tensor:
    rounded = torch.tensor(value, dtype=torch.float64, device="cpu").to(torch.float32)
    if not math.isfinite(rounded.item()):
        raise OverflowError(f"{value!r} is not a finite float32")
    return rounded.to(device)


@lru_cache(maxsize=1024)
def power(base: float, exponent: int) -> float:
    """`base` to the power of an integer ≥ 0, by squaring, from the exponent's lowest bit upwards."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


def power_of_096(exponent: float) -> float:
    """0.96 to the power of a number ≥ 0: exp(max(exponent · log 0.96, −128)), with the exp of `series`."""
    argument = max(exponent * _LOG_096, -_EXP_END)
    return float(series.exp(torch.tensor([argument], dtype=torch.float64, device="cpu")).item())


def pieces(
    written: Sequence[Tensor], read: Tensor, *, spare: int
) -> Iterator[tuple[Sequence[Tensor], Tensor, Sequence[Tensor]]]:
    """Tensors of one shape piece by piece, and after each piece one NaN in those that are written.

    Args:
        written: float32, contiguous.
        read: float32, contiguous.
        spare: How many pieces of numbers without meaning are needed.

    Yields:
        The pieces of `written`, flat, to be changed in place; that of `read`; and the spare ones.
    """
    size = PIECE * torch.get_num_threads()
    own, other = [tensor.view(-1) for tensor in written], read.view(-1)
    room = [torch.empty_like(other[:size]) for _ in range(spare)]
    for start in range(0, other.numel(), size):
        piece = other[start : start + size]
        mine = [tensor[start : start + size] for tensor in own]
        yield mine, piece, [tensor[: piece.numel()] for tensor in room]
        for tensor in mine:
            canonical_(tensor)


def canonical_(x: Tensor) -> Tensor:
    """Gives every NaN of a float32 tensor the bits 7FC00000, in place."""
    # A NaN makes any sum NaN. So may infinities, or an overflow on the way; the second look is exact.
    if x.numel() and math.isnan(torch.sum(x).item()):
        x.view(torch.int32).masked_fill_(torch.ne(x, x), NAN_BITS)
    return x


def product(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """The product a × b, in `out`."""
    return torch.mul(a, b, out=out)


def plus_scaled(a: Tensor, b: Tensor, factor: Tensor, out: Tensor) -> Tensor:
    """The sum a + b × factor, in `out`, which is neither."""
    return torch.mul(b, factor, out=out).add_(a)


def add_scaled_(a: Tensor, b: Tensor, factor: Tensor, out: Tensor) -> Tensor:
    """Adds: a ← a + b × factor, by way of `out`."""
    return a.add_(torch.mul(b, factor, out=out))


def add_quotient_(a: Tensor, b: Tensor, divisor: Tensor, factor: Tensor, out: Tensor) -> Tensor:
    """Adds: a ← a + (b × factor) ÷ divisor, by way of `out`."""
    return a.add_(torch.mul(b, factor, out=out).div_(divisor))


def minus_square(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """The difference a − b × b, in `out`, which is neither."""
    return torch.sub(a, torch.mul(b, b, out=out), out=out)


def raise_(a: Tensor, b: Tensor) -> Tensor:
    """Raises: a ← the larger of a and b; of −0 and +0, +0."""
    return torch.maximum(a, b, out=a).add_(0.0)


def sqrt(x: Tensor, out: Tensor) -> Tensor:
    """√x in `out`, with the numbers of `functions.sqrt`, which says why float64 rounds them correctly."""
    return out.copy_(x.to(torch.float64).sqrt_())


class Decay:
    """Weight decay: w ← w × (1 − lr · decay) if there is an `lr`, else g + w × decay; nothing if it is 0."""

    def __init__(self, decay: float, like: Tensor, *, lr: float | None = None) -> None:
        self._decoupled = lr is not None
        value = decay if lr is None else 1 - lr * decay
        self._factor = number(value, like) if decay != 0 else None

    def apply(self, w: Tensor, g: Tensor, out: Tensor) -> Tensor:
        """The gradient to go on with; moves `w` in place, or puts that gradient in `out`."""
        if self._factor is None:
            return g
        if not self._decoupled:
            return plus_scaled(g, w, self._factor, out)
        w.mul_(self._factor)
        return g


class Mean:
    """A running mean of which a share is kept: a ← a + (b − a) × (1 − share), or b − (b − a) × share.

    The first if 1 − share < ½, as torch's `lerp` has it; so that nothing of a stays where the share is 0.
    """

    def __init__(self, share: float, like: Tensor) -> None:
        self._near = 1 - share < 0.5
        self._factor = number(1 - share if self._near else share, like)

    def move_(self, a: Tensor, b: Tensor, out: Tensor) -> Tensor:
        """Moves `a` in place, by way of `out`."""
        torch.sub(b, a, out=out).mul_(self._factor)
        return a.add_(out) if self._near else torch.sub(b, out, out=a)


class MeanSquare:
    """A running mean of squares of which a share is kept: a ← a × share + (b × (1 − share)) × b."""

    def __init__(self, share: float, like: Tensor) -> None:
        self._share, self._rest = number(share, like), number(1 - share, like)

    def move_(self, a: Tensor, b: Tensor, out: Tensor) -> Tensor:
        """Moves `a` in place, by way of `out`."""
        torch.mul(b, self._rest, out=out).mul_(b)
        return a.mul_(self._share).add_(out)


def norm(tensors: Iterable[Tensor]) -> float:
    """The Euclidean norm of all elements of some float32 tensors together, whatever their order.

    With 2^(e − 1) ≤ m < 2^e for the largest magnitude m, each element is rounded to a multiple q of
    2^(e − 24); the sum S of all q² is exact. It is rounded to float64, its root again, and that times
    2^(e − 24) is the result. No step overflows, and the result may be above all float32.

    Returns:
        ≥ 0; NaN if an element is, else ∞ if one is infinite.

    Raises:
        ReplayError: A tensor is not float32.
    """
    rows = []
    for tensor in tensors:
        require_float32(tensor)
        if tensor.numel():
            rows.append(tensor.detach().reshape(-1))
    largest = _largest(rows)
    if not math.isfinite(largest):
        return largest
    exponent = math.frexp(largest)[1] - _BITS
    scale = math.ldexp(1.0, -exponent)
    total = sum(_sum_of_squares(row, scale) for row in rows)
    return math.ldexp(math.sqrt(total), exponent)


def _largest(rows: Sequence[Tensor]) -> float:
    """The largest magnitude; NaN if an element is."""
    largest = 0.0
    for row in rows:
        for end in torch.stack(torch.aminmax(row)).abs_().tolist():
            if math.isnan(end):
                return math.nan
            largest = max(largest, end)
    return largest


def _sum_of_squares(row: Tensor, scale: float) -> int:
    """Σ nearest(x · scale)², exactly; each below 2^48."""
    whole = row.numel() // _SQUARES * _SQUARES
    sums = [
        _squares(piece, scale).view(_SQUARES, -1).sum(0).to(torch.int64).sum()
        for piece in torch.split(row[:whole], _ROOT_PIECE)
    ]
    sums.append(_squares(row[whole:], scale).to(torch.int64).sum())
    return sum(torch.stack(sums).tolist())


def _squares(piece: Tensor, scale: float) -> Tensor:
    integers = piece.to(torch.float64).mul_(scale).round_()
    return integers.mul_(integers)
