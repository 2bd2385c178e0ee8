"""A measured figure with what it should be at most, and tables of them for a terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the results.

    Args:
        name: What was measured.
        value: How much it was.
        unit: Of what; `×` for a ratio, `/s` for how many a second.
        at_most: What it should not exceed; None where nothing is promised.
        at_least: What it should reach; None where nothing is promised.
        computed: Whether it follows from measured figures, and was not measured itself.
    """

    name: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    computed: bool = False

    @property
    def shown(self) -> str:
        """The value for people."""
        number = f"{self.value:,.0f}" if self.unit in ("bytes", "/s") else f"{self.value:.3g}"
        if self.unit == "×":
            number = f"{self.value:.4f}" if self.value < 2 else f"{self.value:.2f}"
        return f"{number} {self.unit}" + (" (computed)" if self.computed else "")

    @property
    def target(self) -> str:
        """What it should be, and whether it is; empty where nothing is promised."""
        bounds = []
        if self.at_most is not None:
            bounds.append((f"≤ {self.at_most:g}", self.value <= self.at_most))
        if self.at_least is not None:
            bounds.append((f"≥ {self.at_least:g}", self.value >= self.at_least))
        return ", ".join(f"{bound}: {'met' if held else 'missed'}" for bound, held in bounds)


def text(figures: Sequence[Figure]) -> str:
    """A table for a terminal."""
    width, middle = max(len(f.name) for f in figures), max(len(f.shown) for f in figures)
    return "\n".join(f"{f.name:<{width}}  {f.shown:<{middle}}  {f.target}".rstrip() for f in figures)


def markdown(figures: Sequence[Figure]) -> str:
    """The same as a Markdown table."""
    rows = [f"| {f.name} | {f.shown} | {f.target} |" for f in figures]
    return "\n".join(["| what | measured | target |", "|---|---|---|", *rows])
