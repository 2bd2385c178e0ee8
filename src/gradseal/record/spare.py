"""Memory for one copy of a state, made once and used again; and giving memory back.

One piece for all tensors: a copy costs no new pages each time, and freeing it really frees it, which an
allocator does not promise for many tensors of middling size. Knows nothing of who uses it when.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from functools import cache

import torch

from gradseal.program.tensors import TensorSpec

# What torch gives a tensor of its own; kernels may round by position.
_ALIGNMENT = 64


class Spare:
    """A place for a copy of a state, in main memory.

    Args:
        layout: What the state's tensors are.
    """

    def __init__(self, layout: Sequence[TensorSpec]) -> None:
        self._layout = layout
        self._tensors: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def copy_of(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A copy of a state, each tensor contiguous; it takes the place of the copy before.

        Args:
            state: Every tensor in the layout's order, on any device.
        """
        if not self._tensors:
            self._tensors = _room(self._layout)
        for name, tensor in state.items():
            self._tensors[name].copy_(tensor)
        return self._tensors

    def give_back(self) -> None:
        """Frees the memory, once whoever has the copy is done with it."""
        self._tensors = {}


def return_freed_memory() -> None:
    """Hands back to the system what was freed, where the C library keeps it and can be asked (glibc).

    After a passing need for as much as a state: kept, it would add to what training itself goes on to need.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> ctypes._NamedFuncPointer | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None


def _room(layout: Sequence[TensorSpec]) -> dict[str, torch.Tensor]:
    """A tensor of any contents for each of the layout, side by side in one piece of memory."""
    sizes = [-(-spec.size_bytes // _ALIGNMENT) * _ALIGNMENT for spec in layout]
    pieces = torch.split(torch.empty(sum(sizes), dtype=torch.uint8), sizes)
    return {
        spec.name: piece[: spec.size_bytes].view(getattr(torch, spec.dtype)).view(spec.shape)
        for spec, piece in zip(layout, pieces, strict=True)
    }
