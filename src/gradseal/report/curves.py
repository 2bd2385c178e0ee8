"""The plots of a study as drawings: curves with bands, marks, logarithmic axes, a legend."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gradseal.report.drawing import BAD, GOOD, OPEN, SERIES, TEXT, Plot, drawn
from gradseal.study import section

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = (SERIES, BAD, GOOD, OPEN, TEXT)
_LINES = ("-", "--", ":", "-.")
_MARKS = "osD^v"
_HEIGHT, _LINE_HEIGHT = 250, 18
_LABEL_WIDTH = 30
"""Characters in a line of a vertical axis's label; more are cut off."""

_SMALLEST, _LARGEST = 1e-300, 1e300


def curve(plot: section.Plot) -> Plot:
    """A plot, drawn; without numbers that cannot be, as those not above 0 on an axis of logarithms."""
    rows = math.ceil(len(plot.series) / 2)
    svg = drawn(
        lambda axes: _draw(axes, plot),
        name=plot.name,
        title=plot.title,
        description=plot.description,
        height=_HEIGHT + _LINE_HEIGHT * rows,
    )
    return Plot(title=plot.title, description=plot.description, svg=svg)


def _draw(axes: Axes, plot: section.Plot) -> None:
    axes.set_xlabel(plot.x)
    axes.set_ylabel(textwrap.fill(plot.y, _LABEL_WIDTH))
    if plot.log_x:
        axes.set_xscale("log")
    if plot.log_y:
        axes.set_yscale("log")
    for number, series in enumerate(plot.series):
        _add(axes, plot, series, number)
    axes.figure.legend(
        loc="outside lower left", ncols=2, frameon=False, fontsize=10, handlelength=2.5, borderaxespad=0
    )


def _add(axes: Axes, plot: section.Plot, series: section.Series, number: int) -> None:
    colour = _COLOURS[number % len(_COLOURS)]
    style = _LINES[number // len(_COLOURS) % len(_LINES)]
    x, y = _shown(series.x, log=plot.log_x), _shown(series.y, log=plot.log_y)
    if series.low and series.high:
        low, high = _shown(series.low, log=plot.log_y), _shown(series.high, log=plot.log_y)
        if series.points:
            for at, bottom, top in zip(x, low, high, strict=True):
                axes.plot([at, at], [bottom, top], color=colour, linewidth=1)
        else:
            axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    if series.points:
        axes.plot(x, y, _MARKS[number % len(_MARKS)], color=colour, markersize=4, label=series.name)
    else:
        axes.plot(x, y, style, color=colour, linewidth=1.5, label=series.name)


def _shown(numbers: Sequence[float | None], *, log: bool) -> list[float]:
    """Numbers as an axis can have them: NaN, which is left out, for those that it cannot."""
    return [
        n
        if n is not None and math.isfinite(n) and abs(n) < _LARGEST and (not log or n > _SMALLEST)
        else math.nan
        for n in numbers
    ]
