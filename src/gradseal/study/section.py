"""What a part of the study found: sentences, tables and plots, drawn by nobody yet.

Knows nothing of pages; `report.study` makes HTML, JSON and Markdown of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of text.

    Args:
        title: What it shows.
        headings: One for each column.
        rows: As many cells in each.
        note: What to know to read it.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.headings) for row in self.rows):
            raise ValueError(f"a row of {self.title!r} has not {len(self.headings)} cells")


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One curve of a plot.

    Args:
        name: For the legend.
        x: Ascending, for a curve.
        y: As many.
        low: Where its band begins; empty for none.
        high: Where it ends.
        points: Whether it is marks, not a line.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    points: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One plot.

    Args:
        name: In lower case, of letters and hyphens; unique in the study.
        title: What it shows.
        description: The same in words and numbers, for those who do not see it.
        x: The label of the horizontal axis.
        y: That of the vertical one.
        series: What is drawn.
        log_x: Whether the horizontal axis is logarithmic.
        log_y: Whether the vertical one is.
    """

    name: str
    title: str
    description: str
    x: str
    y: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What one part found.

    Args:
        part: Its name.
        title: Its heading.
        said: What was found, a sentence each, with its numbers.
        tables: The numbers.
        plots: The curves.
        figures: Single numbers by a short name, for documents.
        notes: What was not measured, or limits what was.
        failed: Jobs that ended in an error, with it.
    """

    part: str
    title: str
    said: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    figures: Mapping[str, float | str | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Its JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Section:
        """From its JSON form."""
        tables = tuple(_table(one) for one in value["tables"])
        plots = tuple(_plot(one) for one in value["plots"])
        lists = {name: tuple(value[name]) for name in ("said", "notes", "failed")}
        return cls(**{**value, **lists, "tables": tables, "plots": plots})


def _table(value: Mapping[str, Any]) -> Table:
    rows = tuple(tuple(row) for row in value["rows"])
    return Table(**{**value, "headings": tuple(value["headings"]), "rows": rows})


def _plot(value: Mapping[str, Any]) -> Plot:
    return Plot(**{**value, "series": tuple(_series(one) for one in value["series"])})


def _series(value: Mapping[str, Any]) -> Series:
    lists = {name: tuple(value[name]) for name in ("x", "y", "low", "high")}
    return Series(**{**value, **lists})
