"""When a run was made, as a drawing: one bar a segment, from its not before to its not after.

Of many segments neighbours share a bar, so that the drawing stays small and can be read: it reaches from the
earliest to the latest of its windows. Where nothing bounds a window it is drawn pale, up to the edge. Beside
the bars stand the manifest, slot 0's round and the close; below them ticks for anchored checkpoints; across
them the gaps. Left out if nothing is known. What is far from the segments is named at the edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradseal.report.bars import Bar, bars_of, joined
from gradseal.report.drawing import BAD, OPEN, SERIES, TEXT, Plot, drawn
from gradseal.report.when import gaps_of, known
from gradseal.verify.times import counted, not_after, not_before, usable
from gradseal.verify.windows import SegmentWindow, Windows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TITLE = "The run in time"
_MOMENTS = (("manifest sealed by", not_after), ("slot 0 began", not_before), ("close sealed by", not_after))
_SEPARATE = 24
_MOST_TICKS = 140
_PALE = 0.3
_ROOM = 0.04
_TICKS = 0.045
_LEVEL = 15
_LEAST_SECONDS = 4.0
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200)
_DAY = 86400
_LEGEND = {
    "window": "between not before and not after",
    "pale": "open: nothing bounds it on that side",
    "contradiction": "not after lies before not before",
    "gap": "gap",
    "tick": "anchored checkpoint",
}


def timeline_of(windows: Windows) -> Plot | None:
    """The drawing; None if nothing is known of when the run was made."""
    if not known(windows):
        return None
    drawing = _Timeline(windows)
    description = drawing.described()
    svg = drawn(drawing.draw, name="timeline", title=_TITLE, description=description, height=drawing.height)
    return Plot(title=_TITLE, description=description, svg=svg, legend=drawing.legend())


@dataclass(frozen=True, slots=True)
class _Moment:
    """What happened once: what, when, and how its time is written."""

    name: str
    time: float
    written: Callable[[float, str], str]

    def when(self, form: str = "%Y-%m-%d %H:%M:%S") -> str:
        """Its time."""
        return self.written(self.time, form)


class _Timeline:
    """A drawing of windows; times are seconds, and segments go downwards."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows
        self._rows = windows.segments
        self._bars = list(bars_of(windows.segments))
        self._gaps = gaps_of(windows)
        self._anchors = [row.not_after for row in windows.anchors if usable(row.not_after)]
        self._left, self._right = self._range()
        self._foot, self._top = (self._rows[-1].segment, self._rows[0].segment) if self._rows else (0, 0)

    @property
    def height(self) -> int:
        """How high it is: a few segments need little."""
        return 140 + min(170, 22 * len(self._bars))

    def legend(self) -> tuple[tuple[str, str], ...]:
        """The kinds of marks that are there."""
        there = {
            "window": any(bar.whole for bar in self._bars),
            "pale": any(bar.ends is not None or bar.begins is not None for bar in self._bars),
            "contradiction": any(bar.contradiction for bar in self._bars),
            "gap": bool(self._gaps),
            "tick": bool(self._anchors),
        }
        return tuple((key, said) for key, said in _LEGEND.items() if there[key])

    def draw(self, axes: Axes) -> None:
        """Draws it."""
        height = self._foot - self._top + 1
        axes.set_xlim(self._left, self._right)
        axes.set_ylim(self._foot + 0.5 + 0.1 * height, self._top - 0.5 - 0.03 * height)
        axes.grid(visible=False, axis="y")
        if self._rows:
            axes.set_ylabel("segment")
            ticks = _numbers(self._top, self._foot)
            axes.set_yticks(ticks, [f"{number:,}" for number in ticks])
        else:
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
        self._mark_gaps(axes)
        for bar in self._bars:
            self._draw_bar(axes, bar)
        self._mark_anchors(axes)
        self._mark_moments(axes)
        _label_times(axes, self._left, self._right)

    def described(self) -> str:
        """The same in words."""
        windows, said = self._windows, []
        said += [f"{moment.name} {moment.when()} UTC" for moment in self._moments()]
        said += [f"segment {row.segment:,} {_window(row)}" for row in _ends(self._rows)]
        if len(self._bars) < len(self._rows):
            most = max(bar.segments for bar in self._bars)
            said.append(
                f"each bar stands for up to {most} of the {len(self._rows):,} segments told, from the "
                "earliest of their times to the latest"
            )
        if self._gaps:
            said.append(counted(len(self._gaps) + windows.gaps_left_out, "gap"))
        if self._anchors:
            said.append(counted(len(self._anchors), "anchored checkpoint"))
        text = "; ".join(said)
        return f"{text[:1].upper()}{text[1:]}."

    def _range(self) -> tuple[float, float]:
        """From when to when it goes: the segments' times, and the others if they are near."""
        windows = self._windows
        inner = [t for row in self._rows for t in (row.not_before, row.not_after) if usable(t)]
        others = [t for t in (windows.manifest, windows.start, windows.close) if usable(t)] + self._anchors
        core = inner or others
        span = max(max(core) - min(core), _LEAST_SECONDS)
        near = [t for t in others if min(core) - span <= t <= max(core) + span]
        first, last = min([*core, *near]), max([*core, *near])
        room = _ROOM * max(last - first, _LEAST_SECONDS)
        lack = max(0.0, _LEAST_SECONDS - (last - first)) / 2
        return first - room - lack, last + room + lack

    def _draw_bar(self, axes: Axes, bar: Bar) -> None:
        height = bar.last - bar.first + (0.7 if len(self._rows) <= _SEPARATE else 1.0)
        middle = (bar.first + bar.last) / 2
        pale = [(self._left, bar.ends - self._left)] if bar.ends is not None else []
        pale += [(bar.begins, self._right - bar.begins)] if bar.begins is not None else []
        place = (middle - height / 2, height)
        if pale:
            axes.broken_barh(pale, place, color=SERIES, alpha=_PALE, lw=0)
            edges = [edge for edge in (bar.ends, bar.begins) if edge is not None]
            if len(self._bars) <= _SEPARATE:
                axes.vlines(edges, place[0], place[0] + height, colors=SERIES, lw=2)
        if bar.whole:
            start, end = sorted(bar.whole)
            colour = BAD if bar.contradiction else SERIES
            axes.broken_barh([(start, end - start)], place, color=colour, lw=0.8)

    def _mark_gaps(self, axes: Axes) -> None:
        seen = (self._foot - self._top + 1) / 150
        for first, last in joined(self._gaps, seen):
            middle, height = (first + last) / 2, max(last - first + 1, seen)
            axes.axhspan(middle - height / 2, middle + height / 2, color=OPEN, alpha=0.25, lw=0)
            axes.axhspan(middle - height / 2, middle + height / 2, xmin=0.975, color=OPEN, lw=0)

    def _mark_anchors(self, axes: Axes) -> None:
        """Ticks at the foot, no more than can be told apart, as one line with breaks in it."""
        step = (self._right - self._left) / _MOST_TICKS
        inside = [t for t in self._anchors if self._left <= t <= self._right]
        ticks = {int((t - self._left) / step): t for t in inside}
        xs = [x for tick in ticks.values() for x in (tick, tick, math.nan)]
        ys = [0.0, _TICKS, math.nan] * len(ticks)
        if ticks:
            axes.plot(xs, ys, color=TEXT, lw=1, transform=axes.get_xaxis_transform())

    def _moments(self) -> list[_Moment]:
        """What happened once."""
        windows = self._windows
        times = (windows.manifest, windows.start, windows.close)
        named = zip(_MOMENTS, times, strict=True)
        return [_Moment(name, time, rounded) for (name, rounded), time in named if usable(time)]

    def _mark_moments(self, axes: Axes) -> None:
        """Lines through the whole height, each with its name at a level of its own, so that few cross."""
        middle = (self._left + self._right) / 2
        moments = sorted(self._moments(), key=lambda m: (m.time <= middle, abs(m.time - middle)))
        for level, moment in enumerate(moments):
            self._mark_moment(axes, moment, _LEVEL * level, "right" if moment.time > middle else "left")

    def _mark_moment(self, axes: Axes, moment: _Moment, level: float, side: str) -> None:
        """One line and its name, dotted and at the edge if it is outside."""
        at = min(max(moment.time, self._left), self._right)
        inside = at == moment.time
        day = _one_day(self._left, self._right) and inside
        text = f"{moment.name} {moment.when('%H:%M:%S' if day else '%Y-%m-%d %H:%M:%S')}"
        style = "-" if inside else ":"
        axes.axvline(at, color=TEXT, lw=1, ls=style, clip_on=False)
        axes.annotate(
            "",
            (at, 1),
            (0, level + 14),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            arrowprops={"arrowstyle": "-", "color": TEXT, "lw": 1, "ls": style, "shrinkA": 0, "shrinkB": 0},
            annotation_clip=False,
        )
        axes.annotate(
            text,
            (at, 1),
            (-3 if side == "right" else 3, level + 3),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            ha=side,
            annotation_clip=False,
        )


def _ends(rows: Sequence[SegmentWindow]) -> Sequence[SegmentWindow]:
    return rows if len(rows) < 2 else (rows[0], rows[-1])


def _window(row: SegmentWindow) -> str:
    said = [f"not before {not_before(row.not_before)} UTC"] if usable(row.not_before) else []
    said += [f"not after {not_after(row.not_after)} UTC"] if usable(row.not_after) else []
    return " and ".join(said) or "at a time that is not known"


def _numbers(first: int, last: int) -> list[int]:
    """About five round numbers of segments, all of them there."""
    least = (last - first) / 5
    decade = 10 ** max(0, math.floor(math.log10(max(least, 1))))
    step = next(m * decade for m in (1, 2, 5, 10) if m * decade >= least)
    return list(range(-(-first // step) * step, last + 1, step)) or [first]


def _label_times(axes: Axes, left: float, right: float) -> None:
    """About four ticks, at whole seconds, minutes, hours or days, and the date below."""
    least = (right - left) / 5
    step = next((step for step in _STEPS if step >= least), None) or _DAY * -(-int(least) // _DAY)
    ticks = [t for t in range(int(left // step) * step, int(right) + 1, step) if left <= t <= right]
    one_day = _one_day(left, right)
    form = "%H:%M:%S" if step < 60 else "%H:%M" if step < _DAY else "%Y-%m-%d"
    if not one_day and step < _DAY:
        form = f"{form}\n%m-%d"
    axes.set_xticks(ticks, [not_before(tick, form) for tick in ticks])
    axes.set_xlabel(f"UTC, {not_before(right, '%Y-%m-%d')}" if one_day else "UTC")


def _one_day(left: float, right: float) -> bool:
    return int(max(left, 0) // _DAY) == int(right // _DAY)
