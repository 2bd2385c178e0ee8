"""The page of exact operators names every operator that exact arithmetic has, and every optimizer."""

import re
from pathlib import Path
from typing import get_args

from gradseal.program.exact.operators import DRAWING, EXACT
from gradseal.program.optimizers import Optimizer

PAGE = Path(__file__).parents[2] / "docs" / "spec" / "exact-operators.md"
NAMED = set(re.findall(r"`([a-z0-9_]+)`", PAGE.read_text("utf-8")))


def test_every_operator_is_named_in_place_or_not() -> None:
    names = {name.split(".")[1] for name in [*EXACT, *DRAWING]}
    assert {name for name in names if not NAMED & {name, name.removesuffix("_")}} == set()


def test_every_optimizer_is_named() -> None:
    assert {kind.name for kind in get_args(Optimizer)} <= NAMED
