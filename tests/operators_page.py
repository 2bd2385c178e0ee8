"""Writes docs/spec/operators.md, the closed list of operators, from the code that has it.

    python tests/operators_page.py

A test compares the page with what this makes. Which heading an operator stands under means nothing.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path

from gradseal.program.exact.operators import DRAWING, EXACT
from gradseal.program.operators import FILLED, OPERATORS, RANDOM

PAGE = Path(__file__).parents[1] / "docs" / "spec" / "operators.md"

_MAKERS = re.compile(r"arange|eye|full|linspace|new_\w+|ones|scalar_tensor|zeros|(full|ones|zeros)_like")
_LAYERS = re.compile(
    r"pool|conv|norm|embedding|loss|entropy|softmax|attention|pad|upsample|[cgsr]?elu|glu|silu|mish|hard"
    r"|soft|sigmoid|prelu|shuffle|im2col|col2im|threshold"
)
_SHAPES = re.compile(
    r"cat|clone|copy|detach|alias|diagonal|expand|flip|gather|index|permute|repeat|roll|scatter|select|slice"
    r"|split|squeeze|stack|transpose|^t$|tril|triu|unbind|unfold|view|lift_fresh|positive|masked_fill|where"
    r"|sort|topk"
)

_HEADINGS: tuple[tuple[str, str, Callable[[str], bool]], ...] = (
    (
        "Random",
        "They draw from PyTorch's default generator, which is seeded before each batch of a step ([program, "
        "section 4](program.md#4-running-a-graph)). Those whose name ends in `_` do it in place, as below.",
        lambda name: name in RANDOM,
    ),
    ("Uninitialised memory", "They give zeros.", lambda name: name in FILLED),
    ("Gradients", "Steps of a backward pass.", lambda name: "backward" in name),
    ("In place", "They change their first argument, and give it.", lambda name: _base(name).endswith("_")),
    (
        "New tensors",
        "Of numbers that the arguments say.",
        lambda name: _MAKERS.fullmatch(_base(name)) is not None,
    ),
    ("Layers and losses", "", lambda name: _LAYERS.search(_base(name)) is not None),
    ("Shapes, indexes and choice", "", lambda name: _SHAPES.search(_base(name)) is not None),
    ("Numbers", "", lambda name: True),
)


_UNDEFINED = (
    "These {} have no definition there yet, and a recording in exact arithmetic is refused where the model "
    "needs one; so it is where elements are of 16 or 64 bits of floating point."
)


def page() -> str:
    """The page, of every operator once."""
    parts = [
        "# Operators",
        "The closed list of operators that a [graph](program.md#3-graphs) may name, besides `getitem`. "
        f"There are {len(OPERATORS)}, under headings that mean nothing but what is said below them. The "
        "page is made of `gradseal.program.operators.OPERATORS` by `tests/operators_page.py`.",
        "`name:a,b` stands for the operators `aten.name.a` and `aten.name.b`, and `name` alone for "
        "`aten.name.default`. Overloads have the schemas of PyTorch's ATen: of the version that native "
        "arithmetic names, and of 2.13 in exact arithmetic, defined in [Arithmetic](arithmetic.md).",
    ]
    parts = [_filled(part, 125) for part in parts]
    left = set(OPERATORS)
    for heading, about, belongs in _HEADINGS:
        own = {name for name in left if belongs(name)}
        left -= own
        lines = _filled(" ".join(_words(own)), 100)
        parts += [f"## {heading}", *([_filled(about, 125)] if about else []), textwrap.indent(lines, "    ")]
    missing = [name for name in OPERATORS if name not in EXACT and name not in DRAWING]
    parts += ["## Not in exact arithmetic", _filled(_UNDEFINED.format(len(missing)), 125)]
    parts += [_filled(" ".join(f"`{word}`" for word in _words(missing)), 125)]
    return "\n\n".join(parts) + "\n"


def operators_of(page: str) -> set[str]:
    """The operators that a page lists, read as the page says."""
    found: set[str] = set()
    for word in " ".join(re.findall(r"^    (.*)$", page, re.M)).split():
        name, _, overloads = word.partition(":")
        found |= {f"aten.{name}.{overload}" for overload in (overloads or "default").split(",")}
    return found


def _filled(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _words(names: Iterable[str]) -> Iterable[str]:
    ordered = sorted(names, key=lambda name: (_base(name).strip("_"), _base(name), name))
    for base, own in groupby(ordered, key=_base):
        overloads = [name.rpartition(".")[2] for name in own]
        yield base if overloads == ["default"] else f"{base}:{','.join(overloads)}"


def _base(operator: str) -> str:
    return operator.split(".")[1]


def main() -> int:
    """Writes the page."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
