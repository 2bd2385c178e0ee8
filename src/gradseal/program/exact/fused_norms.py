"""The passes of normalisation, which a kernel does in one each, defined in PyTorch's steps.

The kernel's form, where it is there, gives the same bits. What is said to be float64 is rounded to float32
once, at the end. Order here: sums of deviations, what is normal, gradients, PyTorch's form.
Format: docs/spec/exact-operators.md, section "Normalisation".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from gradseal.program.exact import kernel, kernel_sums
from gradseal.program.exact.digits import require_float32
from gradseal.program.exact.functions import CHUNK
from gradseal.program.exact.kernel_sums import Kind
from gradseal.program.exact.sums import mean_along, sum_along

_PART: Final = 1 << 14
"""The fewest elements worth a thread."""


def mean_of_squares(x: Tensor, dims: Sequence[int]) -> Tensor:
    """The mean of x · x along dimensions, which stay.

    Raises:
        ReplayError: `x` is not float32.
    """
    require_float32(x)
    made = kernel_sums.along(Kind.SQUARE, x, dims, keepdim=True, divided=True)
    return mean_along(torch.mul(x, x), dims, keepdim=True) if made is None else made


def means_away(x: Tensor, mean: Tensor, dims: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The means of x − mean and of its squares along dimensions, which stay.

    Args:
        x: float32, any shape and strides.
        mean: float32, broadcast to the results.
        dims: Which dimensions are averaged.

    Raises:
        ReplayError: A tensor is not float32.
    """
    require_float32(x)
    require_float32(mean)
    first = kernel_sums.along(Kind.AWAY, x, dims, keepdim=True, divided=True, mean=mean)
    second = kernel_sums.along(Kind.AWAY_SQUARE, x, dims, keepdim=True, divided=True, mean=mean)
    if first is not None and second is not None:
        return first, second
    away = torch.sub(x, mean)
    return mean_along(away, dims, keepdim=True), mean_along(away.mul_(away), dims, keepdim=True)


def sum_away_times(x: Tensor, mean: Tensor, factor: Tensor, dims: Sequence[int]) -> Tensor:
    """The sum of (x − mean) · factor along dimensions, which stay.

    Args:
        x: float32, any shape and strides.
        mean: float32, broadcast to the result.
        factor: float32, of the shape of x.
        dims: Which dimensions are summed.

    Raises:
        ReplayError: A tensor is not float32.
    """
    for tensor in (x, mean, factor):
        require_float32(tensor)
    made = kernel_sums.along(Kind.AWAY_TIMES, x, dims, keepdim=True, mean=mean, factor=factor)
    return sum_along(torch.sub(x, mean).mul_(factor), dims, keepdim=True) if made is None else made


def normal(x: Tensor, centre: Tensor, inverse: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """(x − centre) · inverse · weight + bias in float64.

    Args:
        x: float32, without gaps in memory.
        centre: float64, of as many dimensions, broadcast to those of `x`.
        inverse: float64, of the shape of `centre`.
        weight: float32, likewise broadcast; None stands for no product.
        bias: float32, of the shape of `weight`; None stands for no sum.

    Returns:
        float32, laid out as `x`.
    """
    run = kernel.function_for("normal", "ppppppnnnnnnnnn", x, centre, inverse)
    like = next((t for t in (weight, bias) if t is not None), x.new_empty([1] * x.dim()))
    same = centre.shape == inverse.shape and all(t is None or t.shape == like.shape for t in (weight, bias))
    places = None if run is None or not same else _places(x, centre, like)
    if run is None or places is None:
        return _normal(x, centre, inverse, weight, bias)
    result = torch.empty_like(x)
    # A product with 1 and a sum with −0 leave every number as it is.
    factor = torch.ones_like(like) if weight is None else weight.contiguous()
    added = torch.full_like(like, -0.0) if bias is None else bias.contiguous()
    stats = [t.to(torch.float64).contiguous() for t in (centre, inverse)]
    _in_pieces(run, places, x.numel(), x, result, *stats, factor, added)
    return result


def gradient(
    grad: Tensor,
    weight: Tensor | None,
    level: Tensor,
    x: Tensor,
    centre: Tensor,
    *,
    slope: Tensor,
    inverse: Tensor,
) -> Tensor:
    """(grad · weight − level − (x − centre) · slope) · inverse in float64.

    Args:
        grad: float32, without gaps in memory.
        weight: float32, of as many dimensions, broadcast to those of `x`; None stands for no product.
        level: float32 or float64, likewise broadcast; `centre`, `slope` and `inverse` have its shape.
        x: float32, laid out as `grad`.
        centre: See `level`.
        slope: See `level`.
        inverse: See `level`.

    Returns:
        float32, laid out as `grad`.
    """
    run = kernel.function_for("gradient", "ppppppppnnnnnnnnn", x, grad)
    like = x.new_empty([1] * x.dim()) if weight is None else weight
    same = grad.shape == x.shape and grad.stride() == x.stride()
    same = same and level.shape == centre.shape == slope.shape == inverse.shape
    places = None if run is None or not same else _places(x, centre, like)
    if run is None or places is None:
        return _gradient(grad, weight, level, x, centre, slope=slope, inverse=inverse)
    result = torch.empty_like(grad)
    factor = torch.ones_like(like) if weight is None else weight.contiguous()
    stats = [t.to(torch.float64).contiguous() for t in (centre, level, slope, inverse)]
    _in_pieces(run, places, x.numel(), grad, x, result, *stats, factor)
    return result


def layer_gradient(  # noqa: PLR0917 -- as the kernel has them
    grad: Tensor, x: Tensor, mean: Tensor, inverse: Tensor, weight: Tensor | None, products: bool
) -> tuple[Tensor, Tensor | None]:
    """The gradient of a layer's input, and grad · (x − mean) · inverse, whose sums are that of its weight.

    Args:
        grad: float32, (rows, width), row by row.
        x: float32, likewise.
        mean: float32, (rows, 1).
        inverse: float32, (rows, 1).
        weight: float32, (1, width); None counts as ones.
        products: Whether the second result is wanted.

    Returns:
        float32, both of the shape of `x`.
    """
    rows, width = x.shape
    fits = mean.shape == inverse.shape == (rows, 1) and (weight is None or weight.shape == (1, width))
    fits = fits and grad.shape == x.shape and x.is_contiguous()
    run = kernel.function_for("layer_backward", "pppppppnnn", x, grad) if fits else None
    made = torch.empty_like(x) if products else None
    if run is None:
        normed = torch.sub(x, mean).mul_(inverse)
        made = torch.mul(grad, normed) if products else None
        weighted = grad if weight is None else torch.mul(grad, weight)
        level = mean_along(weighted, (1,), keepdim=True)
        slope = mean_along(normed.mul_(weighted), (1,), keepdim=True).to(torch.float64).mul_(inverse)
        return gradient(grad, weight, level, x, mean, slope=slope, inverse=inverse), made
    result = torch.empty_like(x)
    factor = x.new_ones(width) if weight is None else weight.contiguous()
    given = [t.contiguous() for t in (grad, x, mean, inverse)]
    places = [t.data_ptr() for t in (*given, factor, result)]
    to = 0 if made is None else made.data_ptr()

    def part(start: int, end: int) -> None:
        run(*places, to, width, start, end)

    kernel.in_parts(rows, part, least=max(1, _PART // width))
    return result, made


def in_double(formula: Callable[..., Tensor], x: Tensor, *others: Tensor) -> Tensor:
    """A formula of the elements, in float64, rounded to float32 once; laid out as `x` is.

    Args:
        formula: Takes float64, may write to what it gets in the place of `x` only.
        x: float32, of the shape of the result.
        others: float32 or float64, which broadcast to it and have as many dimensions.
    """
    result = torch.empty_like(x)
    rows = x.shape[0]
    step = max(1, CHUNK * rows // max(x.numel(), 1))
    wide = [(o if o.numel() == x.numel() else o.to(torch.float64), o.shape[0] == rows) for o in others]
    for start in range(0, rows, step):
        part = slice(start, start + step)
        pieces = [(o[part] if split else o).to(torch.float64) for o, split in wide]
        result[part] = formula(x[part].to(torch.float64, copy=True), *pieces)
    return result


def _normal(x: Tensor, centre: Tensor, inverse: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    def formula(v: Tensor, c: Tensor, r: Tensor, *rest: Tensor) -> Tensor:
        v.sub_(c).mul_(r)
        v = v if weight is None else v.mul_(rest[0])
        return v if bias is None else v.add_(rest[-1])

    return in_double(formula, x, centre, inverse, *[t for t in (weight, bias) if t is not None])


def _gradient(
    grad: Tensor,
    weight: Tensor | None,
    level: Tensor,
    x: Tensor,
    centre: Tensor,
    *,
    slope: Tensor,
    inverse: Tensor,
) -> Tensor:
    def formula(g: Tensor, *given: Tensor) -> Tensor:
        v, c, m, s, r, *rest = given
        g = g.mul_(rest[0]) if rest else g
        return g.sub_(m).sub_(torch.sub(v, c).mul_(s)).mul_(r)

    weights = [] if weight is None else [weight]
    return in_double(formula, grad, x, centre, level, slope, inverse, *weights)


def _in_pieces(run: Callable[..., None], places: tuple[int, ...], count: int, *arrays: Tensor) -> None:
    at = [array.data_ptr() for array in arrays]
    kernel.in_parts(
        count // places[0], lambda i, j: run(*at, *places, i, j), least=max(1, _PART // places[0])
    )


def _places(x: Tensor, stat: Tensor, weight: Tensor) -> tuple[int, ...] | None:
    """Where the kernel finds the statistics and weights of an element.

    Returns:
        The size of a piece; then of the statistics, and again of the weights, the step along a piece, and
        every how many pieces comes the next of how many. None, if they do not lie like that.
    """
    order = list(range(x.dim()))
    if not x.is_contiguous():
        order.sort(key=x.stride, reverse=True)
    if any(n not in (1, x.shape[dim]) for t in (stat, weight) for dim, n in enumerate(t.shape)):
        return None
    kept = [[dim for dim in order if t.shape[dim] > 1] for t in (stat, weight)]
    if not x.permute(order).is_contiguous() or any(dims != sorted(dims) for dims in kept):
        return None
    groups: list[tuple[int, bool, bool]] = []
    for dim in order:
        if x.shape[dim] == 1:
            continue
        kind = (stat.shape[dim] > 1, weight.shape[dim] > 1)
        size = x.shape[dim]
        if groups and groups[-1][1:] == kind:
            size *= groups.pop()[0]
        groups.append((size, *kind))
    inner, *of_inner = groups.pop() if groups else (1, False, False)
    found = [inner]
    for which, step in enumerate(of_inner):
        used = [group[1 + which] for group in groups]
        first = used.index(True) if any(used) else len(used)
        last = len(used) - used[::-1].index(True) if any(used) else first
        if not all(used[first:last]) or (step and any(used)):
            return None
        every = math.prod(size for size, *_ in groups[last:])
        count = math.prod(size for size, *_ in groups[first:last])
        found += [int(step), every, count]
    return tuple(found)
