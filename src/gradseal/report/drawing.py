"""Drawings as SVG elements for a page of HTML.

Text stays text, colours are the page's own (light or dark), ids are unique in the page and the same for the
same drawing, and nothing outside is referred to. Matplotlib, which takes a moment to load, is loaded when
something is drawn; nothing of its global state is changed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 420, 250
TEXT, GRID, SERIES, GOOD, BAD, OPEN = (f"#0a0b0{i}" for i in range(6))
"""Colours to draw with, each of which becomes one of the page's."""

_COLOURS = {
    TEXT: "currentColor",
    GRID: "var(--line)",
    SERIES: "var(--series)",
    GOOD: "var(--good)",
    BAD: "var(--bad)",
    OPEN: "var(--open)",
}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gradseal",
    "font.size": 12,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": TEXT,
    "ytick.labelcolor": TEXT,
    "figure.dpi": 72,
    "savefig.transparent": True,
}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One plot.

    Args:
        title: What it shows.
        description: The same in numbers, for those who do not see it.
        svg: The element; it names both.
        legend: What its marks mean, by the class of their key in the page's style.
    """

    title: str
    description: str
    svg: str
    legend: tuple[tuple[str, str], ...] = ()


def drawn(
    draw: Callable[[Axes], None], *, name: str, title: str, description: str, height: int = HEIGHT
) -> str:
    """An SVG element.

    Args:
        draw: What draws on the axes it is given.
        name: What the element's ids begin with; no other drawing of the page may have it.
        title: Its title.
        description: The same in words.
        height: How high it is, where it is `WIDTH` wide.
    """
    from matplotlib import style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with style.context(["default", _STYLE]):
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.subplots())
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata=_NO_METADATA)
    return _inline(out.getvalue(), name, title, description, height)


def _inline(svg: str, name: str, title: str, description: str, height: int) -> str:
    """The drawing as an element of a page: no prologue, no fixed size, ids of its own, the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.S)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'\bxlink:href="#', f'href="#{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r"font: ([0-9.]+)px [^;\"]*", r"font-size: \1px", svg)
    for colour, shown in _COLOURS.items():
        svg = svg.replace(colour, shown)
    box = re.search(r'viewBox="([0-9. ]+)"', svg)
    opened = (
        f'<svg viewBox="{box[1] if box else f"0 0 {WIDTH} {height}"}" role="img" '
        f'aria-labelledby="{name}-title {name}-description">\n'
        f'<title id="{name}-title">{escape(title)}</title>\n'
        f'<desc id="{name}-description">{escape(description)}</desc>'
    )
    return opened + svg[svg.index(">") + 1 :].strip()
