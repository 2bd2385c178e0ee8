"""The operators that exact arithmetic defines, by the names that a graph has for them.

One table for all: each module defines some operators by formulas of a few primitives, and a graph with any
other operator is refused when it is captured. Format: docs/spec/exact-operators.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gradseal.program.exact import (
    activations,
    attention,
    draws,
    elementwise,
    linear,
    losses,
    moves,
    norms,
    pooling,
    reductions,
    softmax,
)

_PARTS = (
    elementwise,
    reductions,
    moves,
    linear,
    activations,
    pooling,
    norms,
    softmax,
    attention,
    losses,
)

EXACT: Mapping[str, Callable[..., Any]] = {
    name: function for part in _PARTS for name, function in part.TABLE.items()
}
"""Each takes and gives what the operator of its name does."""

DRAWING: Mapping[str, Callable[..., Any]] = draws.TABLE
"""Those that draw at random; each takes first what gives it so many words of its own stream."""
