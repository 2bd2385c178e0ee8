"""Operators that move, make or select numbers, and those that add them into places.

Most compute nothing, and are ATen's own; only the element types are checked. Where several numbers are sent
to one place, ATen leaves open which stays: here the last one does, in row-major order of the index; and where
they are added up, their sum is that of `sums`, followed by one addition. Memory that ATen does not initialise
holds zeros. Leaves out copies between element types; see `elementwise`. Order here: views and counting,
places, the table. Format: docs/spec/exact-operators.md, section "Moves".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact import sums
from gradseal.program.exact.element_types import (
    Function,
    converted,
    in_place,
    named,
    number,
    passed,
    require_types,
    written_over,
)

Indices = Sequence[Tensor | None]


# --- Views, fills and counting


def _view(own: Tensor, size: Sequence[int]) -> Tensor:
    """The elements in row-major order in another shape; a copy where memory is laid out otherwise."""
    require_types(own)
    return torch.reshape(own, tuple(size))


def _fill_with(own: Tensor, value: Any) -> Tensor:
    source = value if isinstance(value, Tensor) else number(value, own.device)
    require_types(own, source)
    if source.dim():
        raise ReplayError("a tensor is filled with one number")
    return written_over(own, converted(source, own.dtype))


def _zeros(name: str) -> Function:
    empty = passed(name)

    def run(*args: Any, **kwargs: Any) -> Any:
        return empty(*args, **kwargs).zero_()

    return run


def _count(end: float, **options: Any) -> Tensor:
    return _count_from_to(0, end, 1, **options)


def _count_from_to(
    start: float,
    end: float,
    step: float = 1,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    **_: Any,
) -> Tensor:
    """Start + i · step, each i, product and sum rounded once, as many as lie before the end."""
    whole = not any(isinstance(value, float) for value in (start, end, step))
    kind = (torch.int64 if whole else torch.float32) if dtype is None else dtype
    require_types(kind)
    if step == 0 or not all(map(math.isfinite, (start, end, step))):
        raise ReplayError("arange counts by a step that is not 0, between finite numbers")
    if not whole and kind is not torch.float32:
        raise ReplayError("arange counts integers from integers only")
    length = -((start - end) // step) if whole else math.ceil((end - start) / step)
    if length < 0:
        raise ReplayError("arange counts away from its end")
    places = torch.arange(int(length), dtype=torch.int64, device=device)
    if kind is not torch.float32:
        return torch.add(torch.mul(places, int(step)), int(start)).to(kind)
    steps = torch.mul(places.to(torch.float32), number(step, places.device))
    return torch.add(steps, number(start, places.device))


def _between(
    start: float,
    end: float,
    steps: int,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    **_: Any,
) -> Tensor:
    """Numbers at equal distances, counted from the nearer end; each operation rounded once."""
    require_types(dtype)
    if dtype not in (None, torch.float32) or steps < 0:
        raise ReplayError("linspace makes a number of float32")
    places = torch.arange(steps, dtype=torch.int64, device=device)
    first, last = number(start, places.device), number(end, places.device)
    if steps < 2:
        return first.expand(steps).clone()
    step = torch.div(torch.sub(last, first), number(steps - 1, places.device))
    from_start = torch.add(first, torch.mul(places.to(torch.float32), step))
    from_end = torch.sub(last, torch.mul((steps - 1 - places).to(torch.float32), step))
    return torch.where(torch.lt(places, steps // 2), from_start, from_end)


# --- Places


def _last_sent(places: Tensor, dim: int, shape: Sequence[int]) -> Tensor:
    """For each place, the row-major number of the last index element that names it; −1 where none does."""
    numbers = torch.arange(places.numel(), device=places.device).reshape(places.shape)
    nobody = torch.full(tuple(shape), -1, dtype=torch.int64, device=places.device)
    return nobody.scatter_reduce(dim, places, numbers, "amax")


def _scatter(own: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    require_types(own, src)
    _require_same_type(own, src)
    index = index.to(torch.int64)
    if not index.numel():
        return own.clone()
    used = src if not src.dim() else src[tuple(slice(length) for length in index.shape)]
    if used.shape != index.shape:
        raise ReplayError("the source of a scatter is smaller than its index")
    # All that are sent to one place become the last of them, and it does not matter which of them stays.
    last = _last_sent(index, dim, own.shape).gather(dim, index)
    return torch.scatter(own, dim, index, used.reshape(-1)[last])


def _scatter_add(own: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    require_types(own, src)
    _require_same_type(own, src)
    index = index.to(torch.int64)
    if own.dtype is not torch.float32:
        return torch.scatter_add(own, dim, index, src)
    if not index.numel():
        return own.clone()
    return torch.add(own, sums.sum_by_indices(src, dim, index, own.shape))


def _index_add(own: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    require_types(own, source)
    _require_same_type(own, source)
    if own.dtype is not torch.float32:
        return torch.index_add(own, dim, index, source, alpha=alpha)
    index = index.to(torch.int64).reshape(-1)
    line, sent = (x.reshape(1) if not x.dim() else x for x in (own, source))
    if alpha != 1:
        sent = torch.mul(sent, number(alpha, own.device))
    total = sums.sum_by_index(sent, dim, index, line.shape[dim])
    if total.shape != line.shape:
        raise ReplayError("the source of index_add does not fit")
    return torch.add(own, total.reshape(own.shape))


def _require_same_type(own: Tensor, other: Tensor) -> None:
    if own.dtype is not other.dtype:
        raise ReplayError("what is sent is of another element type than where it goes")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """A tensor of rows that an index names, made from one that is indexed along some dimensions.

    Args:
        rows: The tensor's elements, shape (places, elements of a row).
        places: int64, shape (count,): the row that each value goes to.
        values: What is sent, shape (count, elements of a row).
        order: The tensor's dimensions in the order they have in `rows`.
    """

    rows: Tensor
    places: Tensor
    values: Tensor
    order: list[int]


def _by_rows(own: Tensor, indices: Indices, values: Tensor) -> _Rows:
    parts = _integer_indices(own, indices)
    if not parts or all(part is None for part in parts):
        raise ReplayError("no index is given")
    named_dims = [d for d, part in enumerate(parts) if part is not None]
    others = [d for d in range(own.dim()) if d not in named_dims]
    places = _places(own, parts)
    # The index's dimensions stand where the first indexed one is, if these are neighbours, and else in front.
    neighbours = named_dims == list(range(named_dims[0], named_dims[-1] + 1))
    front = named_dims[0] if neighbours else 0
    rest = [own.shape[d] for d in others]
    count, depth = places.numel(), places.dim()
    sent = values.expand([*rest[:front], *places.shape, *rest[front:]])
    sent = sent.movedim(tuple(range(front, front + depth)), tuple(range(depth)))
    width = math.prod(rest)
    order = named_dims + others
    lines = math.prod(own.shape[d] for d in named_dims)
    return _Rows(
        rows=own.permute(order).reshape(lines, width),
        places=places.reshape(-1),
        values=sent.reshape(count, width),
        order=order,
    )


def _places(own: Tensor, parts: Indices) -> Tensor:
    """The row-major number, among the indexed dimensions, that an index names; indexes are broadcast."""
    places = torch.zeros((), dtype=torch.int64, device=own.device)
    for size, part in zip(own.shape, parts, strict=False):
        if part is None:
            continue
        if not bool(torch.logical_and(torch.ge(part, -size), torch.lt(part, size)).all()):
            raise ReplayError(f"an index is out of range for {size}")
        wrapped = torch.where(torch.lt(part, 0), torch.add(part, size), part)
        places = torch.add(torch.mul(places, size), wrapped)
    return places


def _integer_indices(own: Tensor, indices: Indices) -> list[Tensor | None]:
    """Indexes with truth values replaced by the places that are true."""
    parts: list[Tensor | None] = []
    for index in indices:
        if index is None or index.dtype not in (torch.bool, torch.uint8):
            parts.append(index if index is None else index.to(torch.int64))
            continue
        if list(index.shape) != list(own.shape[len(parts) : len(parts) + index.dim()]):
            raise ReplayError("a mask does not fit what it indexes")
        parts.extend(torch.nonzero(index).unbind(1))
    if len(parts) > own.dim():
        raise ReplayError("there are more indexes than dimensions")
    return parts


def _index_put(own: Tensor, indices: Indices, values: Tensor, accumulate: bool = False) -> Tensor:
    require_types(own, values)
    _require_same_type(own, values)
    given = _by_rows(own, indices, values)
    rows, places = given.rows, given.places
    if accumulate:
        result = _rows_added(given)
    else:
        last = _last_sent(places, 0, rows.shape[:1])
        if places.numel():
            chosen = given.values[last.clamp(min=0)]
            result = torch.where(torch.ge(last, 0).unsqueeze(1), chosen, rows)
        else:
            result = rows
    back = sorted(range(own.dim()), key=given.order.__getitem__)
    return (
        result.reshape([own.shape[d] for d in given.order])
        .permute(back)
        .clone(memory_format=torch.contiguous_format)
    )


def _rows_added(given: _Rows) -> Tensor:
    if given.rows.dtype is not torch.float32:
        return torch.index_add(given.rows, 0, given.places, given.values)
    total = sums.sum_by_index(given.values, 0, given.places, given.rows.shape[0])
    return torch.add(given.rows, total)


# --- The table

_VIEWS: Final = """
alias detach lift_fresh positive permute t transpose.int transpose_ expand expand_as select.int slice.Tensor
squeeze squeeze.dim squeeze.dims squeeze_.dim unsqueeze unsqueeze_ split.Tensor split_with_sizes unbind.int
unfold diagonal
"""
_COPIES: Final = """
clone lift_fresh_copy cat stack flip roll repeat index.Tensor gather index_select embedding tril triu pad
constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
replication_pad3d pixel_shuffle pixel_unshuffle channel_shuffle unsafe_split.Tensor
unsafe_split_with_sizes select_backward slice_backward diagonal_backward select_scatter slice_scatter
diagonal_scatter
"""
_FILLS: Final = """
zero zero_ zeros zeros_like ones ones_like full full_like eye eye.m fill.Scalar fill_.Scalar scalar_tensor
new_zeros new_ones new_full scatter.value scatter_.value index_fill.int_Scalar index_fill_.int_Scalar
"""
_EMPTY: Final = "empty.memory_format empty_like empty_strided new_empty new_empty_strided"

TABLE: Mapping[str, Function] = named(
    {
        **{name: passed(name) for name in (_VIEWS + _COPIES + _FILLS).split()},
        **{name: _zeros(name) for name in _EMPTY.split()},
        "view": _view,
        "_unsafe_view": _view,
        "fill_.Tensor": _fill_with,
        "arange": _count,
        "arange.start": _count_from_to,
        "arange.start_step": _count_from_to,
        "linspace": _between,
        "scatter.src": _scatter,
        "scatter_.src": in_place(_scatter),
        "scatter_add": _scatter_add,
        "scatter_add_": in_place(_scatter_add),
        "index_add": _index_add,
        "index_put": _index_put,
        "index_put_": in_place(_index_put),
    }
)
"""For each operator defined here, its function, of the arguments that ATen's has."""
