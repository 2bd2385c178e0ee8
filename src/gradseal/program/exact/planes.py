"""Planes and windows on them: where the windows of a pool lie, and gradients summed into planes.

What meets at one place of a plane is summed exactly (`sums`), so that no order matters. Order here: where
windows lie, sums into planes. Format: docs/spec/exact-operators.md, section "Pools".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradseal.program.exact.digits import require_float32
from gradseal.program.exact.steps import refuse_unless
from gradseal.program.exact.sums import sum_by_indices

# --- Where windows lie


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Windows along one dimension: the i-th takes in the positions [starts[i], ends[i]).

    Args:
        counts: By how many numbers each one's sum is divided.
    """

    starts: list[int]
    ends: list[int]
    counts: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """How a pool moves along one dimension."""

    size: int
    kernel: int
    stride: int
    padding: int

    def windows(self, *, ceil_mode: bool, count_include_pad: bool) -> Windows:
        """Where the windows lie, without what is outside; their counts may have the padding.

        Raises:
            ReplayError: The pool does not fit.
        """
        refuse_unless(min(self.kernel, self.stride) > 0 and self.padding >= 0, "a pool that does not move")
        refuse_unless(self.padding <= self.kernel // 2, "a pool with more padding than half a kernel")
        room = self.size + 2 * self.padding - self.kernel
        out = (room + (self.stride - 1 if ceil_mode else 0)) // self.stride + 1
        if ceil_mode and (out - 1) * self.stride >= self.size + self.padding:
            out -= 1
        refuse_unless(out > 0, "a pool that is larger than its plane")
        first = [i * self.stride - self.padding for i in range(out)]
        last = [min(start + self.kernel, self.size + self.padding) for start in first]
        starts, ends = [max(start, 0) for start in first], [min(end, self.size) for end in last]
        inner, whole = zip(starts, ends, strict=True), zip(first, last, strict=True)
        counts = [end - start for start, end in (whole if count_include_pad else inner)]
        return Windows(starts=starts, ends=ends, counts=counts)


def adaptive_windows(size: int, out: int) -> Windows:
    """As many windows as wanted that cover the dimension, of sizes that differ by at most 2."""
    starts = [i * size // out for i in range(out)]
    ends = [-(-(i + 1) * size // out) for i in range(out)]
    counts = [end - start for start, end in zip(starts, ends, strict=True)]
    return Windows(starts=starts, ends=ends, counts=counts)


def both(values: Sequence[int] | int, otherwise: Sequence[int] = ()) -> tuple[int, int]:
    """An option for height and width; one number counts for both, none stands for `otherwise`."""
    given = [values] if isinstance(values, int) else list(values) or list(otherwise)
    refuse_unless(len(given) in (1, 2), f"an option of {len(given)} numbers for two dimensions")
    return given[0], given[-1]


def plane(x: Tensor) -> tuple[int, int]:
    """Height and width of float32 planes, of which there may be one or two dimensions.

    Raises:
        ReplayError: If they are of anything else.
    """
    require_float32(x)
    refuse_unless(x.dim() in (3, 4), f"a pool of {x.dim()} dimensions")
    return x.shape[-2], x.shape[-1]


# --- Sums into planes


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Along one dimension, which result takes from which position: as many of one as of the other."""

    results: list[int]
    positions: list[int]


def members(windows: Windows) -> Pairs:
    """Each window with each position in it."""
    spans = list(enumerate(zip(windows.starts, windows.ends, strict=True)))
    return Pairs(
        results=[i for i, (start, end) in spans for _ in range(start, end)],
        positions=[h for _, (start, end) in spans for h in range(start, end)],
    )


def spread(gradient: Tensor, rows: Pairs, columns: Pairs, size: tuple[int, int]) -> Tensor:
    """Planes of `size` where each element of a plane of gradients is added wherever its result took from."""
    device = gradient.device
    sources = _joined(rows.results, columns.results, gradient.shape[-1], device)
    places = _joined(rows.positions, columns.positions, size[1], device)
    return into_planes(gradient.flatten(-2).index_select(-1, sources), places, size)


def _joined(rows: list[int], columns: list[int], width: int, device: torch.device) -> Tensor:
    down, across = torch.tensor(rows, dtype=torch.int64), torch.tensor(columns, dtype=torch.int64)
    return torch.add(torch.mul(down, width)[:, None], across).flatten().to(device)


def into_planes(source: Tensor, places: Tensor, size: tuple[int, int]) -> Tensor:
    """Along the last dimension, elements added up in the planes that take its place."""
    outer = source.shape[:-1]
    flat = source.flatten(0, -2)
    sums = sum_by_indices(flat, 1, places.expand(flat.shape), (flat.shape[0], size[0] * size[1]))
    return sums.reshape(*outer, *size)
