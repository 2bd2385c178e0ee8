"""Steps that operators are made of: +, −, × and ÷ of float32 with numbers, refusals, and how results lie.

A number among an operator's arguments becomes a float32 first. Where a result lies in memory does not change
its numbers, but a graph that was captured with ATen's layout may ask for views of it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact.digits import require_float32
from gradseal.program.exact.element_types import number


def require(*tensors: Tensor) -> None:
    """Nothing, if all are of float32.

    Raises:
        ReplayError: If one is of anything else.
    """
    for tensor in tensors:
        require_float32(tensor)


def refuse_unless(fits: bool, message: str) -> None:
    """Nothing, if arguments fit.

    Raises:
        ReplayError: With the message, if they do not.
    """
    if not fits:
        raise ReplayError(message)


def of_each(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A function of each element; the results lie in memory in the operand's order, as ATen's do."""
    if x.is_contiguous():
        return function(x)
    order = sorted(range(x.dim()), key=x.stride, reverse=True)
    back = sorted(range(x.dim()), key=order.__getitem__)
    return function(x.permute(order)).permute(back)


def rounded(value: float) -> float:
    """The float32 next to a number."""
    return number(value, torch.device("cpu")).item()


def times(x: Tensor, factor: float) -> Tensor:
    """The product with a number; `x` itself where that is 1."""
    return x if factor == 1 else torch.mul(x, number(factor, x.device))


def over(x: Tensor, divisor: float) -> Tensor:
    """The quotient by a number; `x` itself where that is 1."""
    # A tensor on the operand's device: torch may multiply by the reciprocal of a number.
    return x if divisor == 1 else torch.div(x, number(divisor, x.device))


def chosen(condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """One of two float32 for each element, bit for bit; takes the layout of its operands."""
    # By bits: `torch.where` branches for each element, which is slow where neither side is the rule.
    own, other = yes.view(torch.int32), no.view(torch.int32)
    mask = torch.neg(condition.to(torch.int32))
    differing = torch.bitwise_and(torch.bitwise_xor(own, other), mask)
    return torch.bitwise_xor(other, differing).view(torch.float32)


def zeroed(x: Tensor, condition: Tensor) -> Tensor:
    """`x`, and +0 where the condition holds."""
    kept = torch.sub(condition.to(torch.int32), 1)
    return torch.bitwise_and(x.view(torch.int32), kept).view(torch.float32)


def complement(x: Tensor) -> Tensor:
    """1 − x."""
    return torch.sub(torch.ones_like(x), x)


def laid_out(result: Tensor, like: Tensor) -> Tensor:
    """The result, in memory row by row, or with the channels last where those of `like` are."""
    if result.dim() == like.dim() == 4 and not like.is_contiguous():
        last = like.is_contiguous(memory_format=torch.channels_last)
        return result.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    return result.contiguous()
