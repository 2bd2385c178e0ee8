"""Exact sums by the kernel: where the elements of each sum lie, and the calls.

Gives what the definitions in `sums` and `fused_norms` give, to the bit, or None where there is no kernel for
it. The kernel takes tensors without gaps as (outer, a, b, c), sums along a and c, and leaves the results in
the order of (outer, b). Order here: sums along dimensions, one large sum, sums into places.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from gradseal.program.exact import kernel

_PART: Final = 1 << 16
"""The fewest elements worth a thread."""
_INFINITY: Final = 0x7F800000


class Kind(enum.IntEnum):
    """What is summed; numbered as in c/sums.h. Each step is one operation on float32."""

    PLAIN = 0
    SQUARE = 1
    AWAY = 2
    AWAY_SQUARE = 3
    AWAY_TIMES = 4


def along(
    kind: Kind,
    x: Tensor,
    dims: Sequence[int],
    *,
    keepdim: bool = False,
    divided: bool = False,
    mean: Tensor | None = None,
    factor: Tensor | None = None,
) -> Tensor | None:
    """The sum along some dimensions of the elements, or of what the kind makes of them.

    Args:
        kind: x, x², x − mean, (x − mean)², or (x − mean) · factor.
        x: float32, any shape and strides.
        dims: Which dimensions are summed, as torch counts them; none means all.
        keepdim: Whether these stay, with size 1.
        divided: Whether the mean is wanted.
        mean: float32, broadcast to the result with all dimensions.
        factor: float32, broadcast to x.

    Returns:
        float32, laid out row by row; None where there is no kernel, no element, or an error.
    """
    run = kernel.function("sums", "ippppnnnnni")
    plan = _plan(x.shape, x.stride(), tuple(dims)) if run is not None and kernel.usable(x) else None
    if run is None or plan is None:
        return None
    if plan.copied:
        x = x.detach().permute(plan.order).contiguous().permute(inverse(plan.order))
    outer, a, b, c = plan.groups
    result = x.new_empty(plan.lying)
    if kind is Kind.PLAIN and outer * b == 1 and a * c >= 2 * _PART and torch.get_num_threads() > 1:
        _one_sum(x.data_ptr(), result.data_ptr(), a * c, divided)
    else:
        means = result if mean is None else mean.detach().expand(plan.kept).permute(plan.order).contiguous()
        factors = x if factor is None else laid_out(factor.detach().expand(x.shape), x)
        places = (x.data_ptr(), factors.data_ptr(), means.data_ptr(), result.data_ptr(), a, b, c)
        count = outer * b

        def part(start: int, end: int) -> None:
            run(kind, *places, start, end, divided)

        kernel.in_parts(count, part, least=max(1, _PART // (a * c)))
    if plan.turned:
        result = result.permute(inverse(plan.order)).contiguous()
    return result.view(plan.kept if keepdim else plan.left)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """How the kernel sums along dimensions of tensors of one shape and layout.

    Args:
        copied: Whether the tensor is copied first, so that it lies without gaps in the order below.
        order: The dimensions, from the outermost in memory in.
        groups: The sizes (outer, a, b, c), of which a and c are summed.
        lying: The shape of the result in that order, summed dimensions having size 1.
        turned: Whether that is not the order of the result.
        kept: The shape of the result if summed dimensions stay.
        left: That if they do not.
    """

    copied: bool
    order: list[int]
    groups: tuple[int, int, int, int]
    lying: list[int]
    turned: bool
    kept: list[int]
    left: list[int]


@lru_cache(maxsize=4096)
def _plan(shape: Sequence[int], strides: tuple[int, ...], dims: tuple[int, ...]) -> _Plan | None:
    """The plan; None where there are no elements, or torch refuses the dimensions."""
    rank = len(shape)
    among = dims if dims and rank else range(rank)
    reduced = {dim % rank for dim in among}
    if (
        0 in shape
        or len(reduced) < len(among)
        or any(not -max(rank, 1) <= dim < max(rank, 1) for dim in dims)
    ):
        return None
    order = sorted(range(rank), key=lambda dim: -strides[dim] if shape[dim] > 1 else 0)
    copied = not _dense([shape[dim] for dim in order], [strides[dim] for dim in order])
    order = list(range(rank)) if copied or _dense(shape, strides) else order
    groups = _groups([(shape[dim], dim in reduced) for dim in order])
    if groups is None:
        # What is summed comes last: never more than two groups.
        copied, order = True, sorted(range(rank), key=lambda dim: dim in reduced)
        groups = _groups([(shape[dim], dim in reduced) for dim in order]) or (1, 1, 1, 1)
    kept = [1 if dim in reduced else size for dim, size in enumerate(shape)]
    return _Plan(
        copied=copied,
        order=order,
        groups=groups,
        lying=[kept[dim] for dim in order],
        turned=[dim for dim in order if kept[dim] > 1] != [dim for dim in range(rank) if kept[dim] > 1],
        kept=kept,
        left=[size for dim, size in enumerate(shape) if dim not in reduced],
    )


def _dense(sizes: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether a tensor lies row by row, without gaps."""
    expected = 1
    for size, stride in zip(reversed(sizes), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def inverse(order: Sequence[int]) -> list[int]:
    """The order that takes a permuted tensor back."""
    return sorted(range(len(order)), key=order.__getitem__)


def laid_out(x: Tensor, like: Tensor) -> Tensor:
    """The tensor in memory as another one is, which has no gaps; itself where it is so."""
    return x if x.stride() == like.stride() else torch.empty_like(like).copy_(x)


def _groups(sizes: Sequence[tuple[int, bool]]) -> tuple[int, int, int, int] | None:
    """Dimensions, from the outermost in, each with whether it is summed, as (kept, summed, kept, summed).

    A group without dimensions counts as one of size 1. None, if there are more groups.
    """
    groups = [1, 1, 1, 1]
    place = 3
    for size, summed in reversed(sizes):
        if size == 1:
            continue
        place -= summed != bool(place % 2)
        if place < 0:
            return None
        groups[place] *= size
    return groups[0], groups[1], groups[2], groups[3]


def _one_sum(source: int, target: int, count: int, divided: bool) -> None:
    """One sum in parts: the integers' partial sums are exact."""
    largest = _largest(source, count)
    if largest < _INFINITY:
        part = kernel.known(kernel.function("part_of_sum", "pnni", "n"))
        total = sum(_of_parts(part, source, count, count, largest))
        kernel.known(kernel.function("whole_sum", "pnnii"))(target, total, count, largest, divided)
    else:
        run = kernel.known(kernel.function("sums", "ippppnnnnni"))
        run(Kind.PLAIN, source, source, source, target, 1, 1, count, 0, 1, divided)


def _largest(source: int, count: int) -> int:
    """The bits of the largest magnitude."""
    return max(_of_parts(kernel.known(kernel.function("largest", "pn", "i")), source, count))


def _of_parts(run: Callable[..., int], source: int, count: int, *others: int) -> list[int]:
    """What the kernel gives for parts of an array of float32."""
    found: list[int] = []

    def part(start: int, end: int) -> None:
        found.append(run(source + 4 * start, end - start, *others))

    kernel.in_parts(count, part, least=_PART)
    return found


def into(x: Tensor, dim: int, index: Tensor, shape: list[int], *, each: bool = False) -> Tensor | None:
    """Sums into the places that an index names: `sum_by_index`, or with `each` `sum_by_indices`.

    Args:
        x: float32, any strides.
        dim: The dimension that `index` counts along.
        index: A position for each slice of `x`, or for each element.
        shape: That of the result.
        each: Whether for each element.

    Returns:
        float32; None where there is no kernel, or the arguments are unusual or wrong.
    """
    run = kernel.function("add_at", "ppppnnniinn", "i") if kernel.usable(x, index) else None
    if run is None or index.dtype is not torch.int64 or not x.numel():
        return None
    dim %= x.dim() or 1
    rest = [(x.shape[d], shape[d]) for d in range(x.dim()) if d != dim]
    fits = x.shape == index.shape if each else index.shape == x.shape[dim : dim + 1]
    if not x.dim() or len(shape) != x.dim() or not fits or any(own != whole for own, whole in rest):
        return None
    x, index = x.detach().contiguous(), index.contiguous()
    outer, length, width = math.prod(x.shape[:dim]), x.shape[dim], math.prod(x.shape[dim + 1 :])
    largest = _largest(x.data_ptr(), x.numel())
    result = x.new_empty(shape)
    done: list[int] = []

    def part(start: int, end: int) -> None:
        room = x.new_empty(shape[dim] * width, dtype=torch.float64)
        places = (x.data_ptr(), index.data_ptr(), room.data_ptr(), result.data_ptr())
        done.append(run(*places, length, width, shape[dim], largest, each, start, end))

    kernel.in_parts(outer, part, least=max(1, _PART // (length * width)))
    return result if all(done) else None
