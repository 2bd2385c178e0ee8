"""The closed list of rules that fill tensors at initialisation, as data.

A rule is `Constant`, `Range`, `Uniform`, `Normal`, `NormalButRow` or `TruncatedNormal`; its numbers are
scalars (see `scalars`), and `fills` makes the bytes. Leaves out which rule a model's tensor has, and what
policy says about free bytes. Knows no torch. Format: docs/spec/randomness.md, sections 5 and 6.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import ClassVar, Final

from gradseal.errors import MalformedBundle
from gradseal.program.scalars import FREE_BYTES, Formula, Free, Scalar, scalar_from_json
from gradseal.proof.canonical import Json
from gradseal.proof.fields import Fields


class _Rule:
    """What the rules share: their fields are scalars, and nothing else."""

    __slots__ = ()
    kind: ClassVar[str]

    def scalars(self) -> dict[str, Scalar]:
        """The rule's scalars by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type] # every subclass is a dataclass

    def free_bytes(self) -> int:
        """Eight for each free scalar."""
        return sum(FREE_BYTES for scalar in self.scalars().values() if isinstance(scalar, Free))

    def to_json(self) -> dict[str, Json]:
        """For the manifest; `rule_from_json` reads it back."""
        return {"kind": self.kind} | {name: scalar.to_json() for name, scalar in self.scalars().items()}

    def _require(self, fits: bool, message: str) -> None:
        finite = all(math.isfinite(scalar.value()) for scalar in self.scalars().values())
        if not (finite and fits):
            raise MalformedBundle(message, where=self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant(_Rule):
    """Every element is one number."""

    kind = "constant"
    number: Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Range(_Rule):
    """Along the last dimension start, start + step, start + 2 · step, …, in every row alike: positions."""

    kind = "range"
    start: Scalar
    step: Scalar

    def __post_init__(self) -> None:
        self._require(True, "a number is not finite")


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform(_Rule):
    """low + u · (high − low) with u in [0, 1): never above `high`, but rounding may reach it."""

    kind = "uniform"
    low: Scalar
    high: Scalar

    def __post_init__(self) -> None:
        low, high = self.low.value(), self.high.value()
        self._require(low <= high and math.isfinite(high - low), "the range is empty or not finite")


@dataclass(frozen=True, slots=True, kw_only=True)
class Normal(_Rule):
    """Mean + std · z with a standard normal z."""

    kind = "normal"
    mean: Scalar
    std: Scalar

    def __post_init__(self) -> None:
        self._require(self.std.value() >= 0.0, "the deviation is negative, or a number not finite")


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalButRow(_Rule):
    """As `Normal`, but for one entry of the first dimension, which is zeros: an embedding's padding."""

    kind = "normal but a row"
    mean: Scalar
    std: Scalar
    row: Scalar

    def __post_init__(self) -> None:
        row = self.row.value()
        fits = self.std.value() >= 0.0 and 0 <= row < 2.0**53 and row == math.floor(row)
        self._require(fits, "the deviation is negative, the row no number of one, or a number not finite")


@dataclass(frozen=True, slots=True, kw_only=True)
class TruncatedNormal(_Rule):
    """As `Normal`, drawn again until it lies in [low, high]; after 64 draws, the nearer bound."""

    kind = "truncated normal"
    mean: Scalar
    std: Scalar
    low: Scalar
    high: Scalar

    def __post_init__(self) -> None:
        fits = self.std.value() >= 0.0 and self.low.value() <= self.high.value()
        self._require(fits, "the range is empty, the deviation negative, or a number not finite")


Rule = Constant | Range | Uniform | Normal | NormalButRow | TruncatedNormal
_RULES: Final[dict[str, type[Rule]]] = {
    rule.kind: rule for rule in (Constant, Range, Uniform, Normal, NormalButRow, TruncatedNormal)
}


def check(rule: Rule, fans: Collection[int]) -> None:
    """Refuse a rule with a formula whose fan is not one of the model's.

    Raises:
        MalformedBundle: If there is one.
    """
    for name, scalar in rule.scalars().items():
        if isinstance(scalar, Formula) and scalar.fan not in fans:
            place = f"{rule.kind}, {name}"
            raise MalformedBundle(f"no tensor's shape gives the fan {scalar.fan}", where=place)


def rule_from_json(entry: Fields) -> Rule:
    """Read a rule strictly.

    Raises:
        UnknownKind: If this version knows no such rule, form, name or ratio.
        MalformedBundle: If anything is missing, extra or out of range.
    """
    kind = _RULES[entry.kind("kind", _RULES)]
    rule = kind(**{field.name: scalar_from_json(entry.object(field.name)) for field in fields(kind)})
    entry.end()
    return rule
