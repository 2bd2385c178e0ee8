"""A run's segments as plots: loss by step, update length by segment, replay cost by segment.

Each is made for numbers of any size, or left out where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradseal.report.drawing import BAD, GOOD, SERIES, Plot, drawn
from gradseal.verify.segments import SegmentRow, Segments

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LARGEST, _SMALLEST = 1e30, 1e-30
_DOTS = 150
_STRIP = 0.035
_NAMED = 12


def plots_of(segments: Segments) -> list[Plot]:
    """The plots for which there are numbers."""
    rows = segments.rows
    numbers = [float(row.number) for row in rows]
    by_segment = list(_spans(segments, steps=False))
    loss = _Drawing(
        name="loss",
        title="Loss by step",
        across="step",
        xs=_middles(segments),
        ys=segments.losses.mean,
        low=segments.losses.low if segments.losses.steps_per_point > 1 else (),
        high=segments.losses.high if segments.losses.steps_per_point > 1 else (),
        spans=list(_spans(segments, steps=True)),
        note=_thinned(segments.losses.steps_per_point, "steps", "their mean, the band their range"),
    )
    updates = _Drawing(
        name="update",
        title="Update length by segment",
        across="segment",
        xs=numbers,
        ys=[row.update for row in rows],
        spans=by_segment,
        wrong=[row.passed is False for row in rows],
        note=f"‖W_end − W_start‖ over the parameters. {_told(segments)}".strip(),
    )
    cost = _Drawing(
        name="cost",
        title="Replay cost by segment, in seconds",
        across="segment",
        xs=numbers,
        ys=[row.seconds for row in rows],
        spans=by_segment,
        wrong=[row.passed is False for row in rows],
        joined=False,
        note=_told(segments),
    )
    said = _other_bits(segments)
    return [drawing.plot(said) for drawing in (loss, updates, cost) if any(map(_drawable, drawing.ys))]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawing:
    """What a plot is drawn from; `spans` are first, width and whether a replay passed."""

    name: str
    title: str
    across: str
    xs: Sequence[float]
    ys: Sequence[float | None]
    spans: Sequence[tuple[float, float, bool]]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    wrong: Sequence[bool] = ()
    joined: bool = True
    note: str = ""

    def plot(self, said: str) -> Plot:
        """Draws it; `said` ends its description."""
        described = " ".join(filter(None, (self._described(), said)))
        svg = drawn(self._draw, name=self.name, title=self.title, description=described)
        return Plot(title=self.title, description=described, svg=svg)

    def _draw(self, axes: Axes) -> None:
        ys, low, high = (list(map(_at, values)) for values in (self.ys, self.low, self.high))
        dotted = "." if not self.joined or len(ys) <= _DOTS else ""
        if low:
            axes.fill_between(self.xs, low, high, color=SERIES, alpha=0.25, lw=0)
        axes.plot(self.xs, ys, color=SERIES, lw=1.4 if self.joined else 0, marker=dotted, markersize=4)
        bottom, top = _limits([*ys, *low, *high])
        axes.set_ylim(bottom - 0.1 * (top - bottom), top + 0.05 * (top - bottom))
        axes.set_xlabel(self.across)
        axes.locator_params(axis="x", integer=True)
        self._mark_replays(axes)
        self._mark_wrong(axes)

    def _mark_replays(self, axes: Axes) -> None:
        """A strip at the foot, below all values."""
        for equal, colour in ((True, GOOD), (False, BAD)):
            bars = [(first, width) for first, width, same in self.spans if same is equal]
            strip = axes.get_xaxis_transform()
            axes.broken_barh(bars, (0, _STRIP), color=colour, lw=0.6, transform=strip)

    def _mark_wrong(self, axes: Axes) -> None:
        """A cross at each segment with other bits: at its value, or above the strip if it has none."""
        if self.wrong:
            pairs = zip(self.xs, map(_at, self.ys), self.wrong, strict=True)
            marks = [(x, 0.0 if math.isnan(y) else y) for x, y, wrong in pairs if wrong]
            placed = axes.transData
        else:
            marks = [(first + width / 2, 2.5 * _STRIP) for first, width, equal in self.spans if not equal]
            placed = axes.get_xaxis_transform()
        if marks:
            xs, ys = zip(*marks, strict=True)
            axes.plot(xs, ys, "x", color=BAD, markersize=9, mew=2, transform=placed)

    def _described(self) -> str:
        known = [(x, y) for x, y in zip(self.xs, self.ys, strict=True) if y is not None]
        (first, at_first), (last, at_last) = known[0], known[-1]
        values = [y for _, y in known]
        said = (
            f"{at_first:.4g} at {self.across} {first:.0f}, {at_last:.4g} at {self.across} {last:.0f}; lowest "
            f"{min(values):.4g}, highest {max(values):.4g}"
        )
        return f"{said}. {self.note}" if self.note else f"{said}."


def _spans(segments: Segments, *, steps: bool) -> Iterator[tuple[float, float, bool]]:
    """Where segments were replayed, neighbours with the same end put together.

    Between two that are told, those left out count as equal only if all of them were.
    """
    whole = segments.replayed == segments.count
    hidden = segments.unequal_after or (0,) * len(segments.rows)
    first: SegmentRow | None = None
    last: SegmentRow | None = None
    wrong_between = 0
    for row, wrong_after in [*zip(segments.rows, hidden, strict=True), (None, 0)]:
        joins = (
            row is not None
            and last is not None
            and row.passed is last.passed
            and (whole or row.number == last.number + 1)
            and not (wrong_between and row.passed)
        )
        if not joins:
            if first is not None and last is not None and first.passed is not None:
                start, stop = _start(first, steps=steps), _stop(last, steps=steps)
                yield start, stop - start, first.passed
            if row is not None and last is not None and wrong_between:
                start, stop = _stop(last, steps=steps), _start(row, steps=steps)
                yield start, stop - start, False
            first = row
        last, wrong_between = row, wrong_after


def _start(row: SegmentRow, *, steps: bool) -> float:
    return (row.first_step if steps else row.number) - 0.5


def _stop(row: SegmentRow, *, steps: bool) -> float:
    return (row.first_step + row.steps - 1 if steps else row.number) + 0.5


def _middles(segments: Segments) -> list[float]:
    width = segments.losses.steps_per_point
    return [i * width + (width - 1) / 2 for i in range(len(segments.losses.mean))]


def _limits(ys: Sequence[float]) -> tuple[float, float]:
    known = [y for y in ys if not math.isnan(y)]
    bottom, top = min(0.0, *known), max(0.0, *known)
    return (bottom, top) if top - bottom > 0 else (bottom, bottom + 1)


def _drawable(y: float | None) -> bool:
    return y is not None and abs(y) <= _LARGEST


def _at(y: float | None) -> float:
    """A number that axes can be made for; what is too large is left out."""
    if y is None or not _drawable(y):
        return math.nan
    return y if abs(y) >= _SMALLEST else 0.0


def _thinned(width: int, what: str, shown: str) -> str:
    return f"Each point stands for {width} {what} and is {shown}." if width > 1 else ""


def _other_bits(segments: Segments) -> str:
    numbers = [str(row.number) for row in segments.rows if row.passed is False]
    count = len(numbers) + sum(segments.unequal_after)
    unnamed = count - len(numbers[:_NAMED])
    more = f" and {unnamed} more" if unnamed else ""
    what = "segment" if count == 1 else "segments"
    return f"Other bits than sealed: {what} {', '.join(numbers[:_NAMED])}{more}." if numbers else ""


def _told(segments: Segments) -> str:
    told, count = len(segments.rows), segments.count
    return f"{told} of {count} segments are drawn." if told < count else ""
