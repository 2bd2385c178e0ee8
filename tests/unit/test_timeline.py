"""The time-line: small whatever the run, drawn from nothing but numbers, and left out if nothing is known."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from gradseal.report.bars import bars_of, joined
from gradseal.report.page import render_page
from gradseal.report.timeline import _numbers, timeline_of
from gradseal.verify.policy import Policy
from gradseal.verify.verdict import Claim, ClaimName, Cost, Outcome, Status, Verdict
from gradseal.verify.windows import AnchorRow, SegmentWindow, Windows
from made_windows import START, gap, made_windows

HOSTILE = "<script>alert(1)</script> \x1b[2J \u202eback"


def drawn(windows: Windows) -> str:
    plot = timeline_of(windows)
    assert plot is not None
    ET.fromstring(plot.svg)
    return plot.svg


def bars(svg: str, fill: str, *, pale: bool = False) -> int:
    """How many shapes are filled with a colour of the page."""
    shapes = re.findall(rf'style="(fill: {re.escape(fill)}[^"]*)"', svg)
    return sum(("fill-opacity: 0.3" in style) is pale for style in shapes)


def page_of(windows: Windows) -> str:
    verdict = Verdict(
        outcome=Outcome.INCONCLUSIVE,
        claims={name: Claim(status=Status.NOT_SHOWN, evidence=()) for name in ClaimName},
        findings=(),
        policy=Policy.named("full"),
        cost=Cost(segments_replayed=0, segments=0, steps_replayed=0, bytes_hashed=0, seconds=0.0),
        bundle={"origin": "x", "size": 1, "root": "00"},
        draw="00" * 32,
        windows=windows,
    )
    return render_page(verdict, title="A run", repeat="verify", made=datetime(2026, 1, 1, tzinfo=UTC))


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def text_of(page: str) -> str:
    parser = _Text()
    parser.feed(page)
    return " ".join(parser.said)


def test_nothing_known_is_not_drawn_and_said() -> None:
    assert timeline_of(Windows()) is None
    assert timeline_of(Windows(source="beacon", start=START)) is None
    assert timeline_of(replace(made_windows(0), manifest=None, close=None)) is None
    page = page_of(Windows())
    assert "<svg" not in page and "found nothing that says when the run was made" in page


@pytest.mark.parametrize("count", [1, 2, 10, 80, 81, 2000])
def test_it_is_small_and_whole_whatever_the_run(count: int) -> None:
    windows = made_windows(count, gaps=tuple(gap(i, i) for i in range(0, count, 2)))
    plot = timeline_of(windows)
    assert plot is not None and len(plot.svg) < 90_000
    grouped = list(bars_of(windows.segments))
    assert len(grouped) == min(count, 80 if count != 81 else 41)
    assert (grouped[0].first, grouped[-1].last) == (0, count - 1)
    assert all(b.first == a.last + 1 for a, b in pairwise(grouped))
    for bar in grouped:
        rows = windows.segments[bar.first : bar.last + 1]
        assert bar.whole == (rows[0].not_before, rows[-1].not_after)
    assert ("each bar stands for" in plot.description) is (count > 80)
    assert f"segment {count - 1:,} not before" in plot.description
    assert "each bar stands for up to 25 of the 2,000" in plot.description or count != 2000


def test_colours_are_the_page_s_and_text_stays_text() -> None:
    svg = drawn(made_windows(10, gaps=(gap(4, 5),)))
    assert re.findall(r"#[0-9a-f]{6}", svg) == []
    for colour in ("var(--series)", "var(--open)", "currentColor"):
        assert colour in svg
    assert "var(--bad)" not in svg
    for said in ("manifest sealed by 19:19:51", "slot 0 began 19:20:03", "close sealed by 19:25:54"):
        assert f">{said}</text>" in svg
    assert drawn(made_windows(10)) == drawn(made_windows(10))


def test_open_windows_reach_the_edge_and_are_pale() -> None:
    whole, left = made_windows(6), made_windows(6, dependent=(0, 5))
    right = made_windows(6, anchored=range(4), close=None)
    assert bars(drawn(whole), "var(--series)", pale=True) == 0
    for windows, count in ((left, 4), (right, 2)):
        svg = drawn(windows)
        assert bars(svg, "var(--series)", pale=True) == count
        assert bars(svg, "var(--series)") == 6 - count
        plot = timeline_of(windows)
        assert plot is not None and "pale" in dict(plot.legend)
    mixed = next(bars_of(made_windows(160, dependent=range(0, 160, 2)).segments))
    assert mixed.whole == (START, START + 40) and mixed.ends == START + 70 and mixed.begins is None


def test_a_segment_of_which_nothing_is_known_has_no_bar_and_says_so() -> None:
    windows = made_windows(4, dependent=(0, 1), anchored=(0, 1))
    svg = drawn(windows)
    assert bars(svg, "var(--series)") == 2 and bars(svg, "var(--series)", pale=True) == 0
    plot = timeline_of(windows)
    assert plot is not None and "segment 3 at a time that is not known" in plot.description


def test_a_window_that_ends_before_it_begins_is_marked() -> None:
    rows = made_windows(2).segments
    wrong = SegmentWindow(segment=0, slot=0, not_before=START + 100, not_after=START, seeds=None)
    plot = timeline_of(made_windows(2, segments=(wrong, rows[1])))
    assert plot is not None
    assert bars(plot.svg, "var(--bad)") == 1 and "contradiction" in dict(plot.legend)


def test_gaps_are_marked_and_those_that_touch_arejoined() -> None:
    assert list(joined((gap(7, 9), gap(0, 1), gap(2, 3), gap(5, 5)), 0)) == [(0, 3), (5, 5), (7, 9)]
    assert list(joined((gap(0, 1), gap(4, 5)), 2)) == [(0, 5)]
    plot = timeline_of(made_windows(10, gaps=(gap(2, 3), gap(6, 8, recorded=False)), gaps_left_out=1))
    assert plot is not None and "3 gaps" in plot.description
    assert bars(plot.svg, "var(--open)") == 4
    unanchored = made_windows(3, anchored=(), gaps=(gap(0, 2, seeds=None),))
    assert "var(--open)" not in drawn(unanchored)


def test_every_anchor_has_a_tick_until_they_could_not_be_told_apart() -> None:
    def ticks(windows: Windows) -> int:
        """The strokes of the path that has most: the ticks are one path."""
        return max(str(path).count("M") for path in re.findall(r'<path d="([^"]*)"', drawn(windows)))

    assert ticks(made_windows(9)) == 9
    assert 100 <= ticks(made_windows(2000)) <= 140
    far = tuple(AnchorRow(size=99 + i, not_after=START + 1e8 + i, by=()) for i in range(500))
    assert ticks(made_windows(9, anchors=(*made_windows(9).anchors, *far))) == 9


def test_what_is_far_off_does_not_squeeze_the_segments() -> None:
    svg = drawn(made_windows(10, manifest=START - 86400 * 300, close=START + 86400 * 400))
    assert ">manifest sealed by 2026-01-29 19:20:03</text>" in svg
    assert ">19:22</text>" in svg


@pytest.mark.parametrize("span", [0, 1, 45, 3600, 86400, 86400 * 40, 86400 * 3650, 253402300798 - START])
def test_any_length_of_time_has_a_few_labelled_ticks(span: float) -> None:
    windows = Windows(
        source="declared",
        anchors=(AnchorRow(size=1, not_after=START, by=()), AnchorRow(size=2, not_after=START + span, by=())),
    )
    labels = re.findall(r">(\d\d:\d\d(?::\d\d)?|\d{4}-\d\d-\d\d)</text>", drawn(windows))
    assert 2 <= len(labels) <= 7


@pytest.mark.parametrize(
    ("first", "last", "ticks"),
    [
        (0, 0, [0]),
        (0, 9, [0, 2, 4, 6, 8]),
        (0, 1999, [0, 500, 1000, 1500]),
        (7, 8, [7, 8]),
        (0, 1_000_000, [i * 200_000 for i in range(6)]),
    ],
)
def test_segments_numbers_are_round_and_there(first: int, last: int, ticks: list[int]) -> None:
    assert _numbers(first, last) == ticks


def test_hostile_names_are_text_on_the_page_and_not_in_the_drawing() -> None:
    windows = made_windows(5, by=(HOSTILE, "&amp;"), gaps=(gap(1, 2),))
    assert "alert" not in drawn(windows)
    page = page_of(windows)
    assert "<script" not in page and [c for c in page if not c.isprintable() and c != "\n"] == []
    assert text_of(page).count("<script>alert(1)</script> \\x1b[2J \\u202eback, &amp;") == 6
    assert "<h3>Gaps</h3>" in page and "The anchored checkpoints" in page


def test_a_page_of_many_rows_stays_small_and_says_what_is_left_out() -> None:
    page = page_of(made_windows(2000, gaps=tuple(gap(i, i) for i in range(0, 2000, 2)), gaps_left_out=5))
    assert len(page) < 150_000
    assert "965 more, not shown here" in page and "1,960 more, not shown here" in page
