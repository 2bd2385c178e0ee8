"""What a time-line draws of segments and gaps: neighbours put together where they could not be told apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gradseal.verify.times import usable
from gradseal.verify.windows import GapRow, SegmentWindow

_MOST = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What is drawn of one segment, or of neighbours.

    Args:
        first: The first segment's number.
        last: The last one's.
        whole: From the earliest not before to the latest not after of the windows that have both.
        ends: The latest not after of those that have only that.
        begins: The earliest not before of those that have only that.
        segments: How many of those told it stands for.
        contradiction: Whether one ends before it begins.
    """

    first: int
    last: int
    whole: tuple[float, float] | None
    ends: float | None
    begins: float | None
    segments: int
    contradiction: bool


def bars_of(rows: Sequence[SegmentWindow]) -> Iterator[Bar]:
    """One bar a segment, or one for several neighbours if there are many."""
    most = max(1, -(-len(rows) // _MOST))
    for i in range(0, len(rows), most):
        yield _bar(rows[i : i + most])


def _bar(rows: Sequence[SegmentWindow]) -> Bar:
    both, ends, begins = [], [], []
    for row in rows:
        start, end = row.not_before, row.not_after
        if usable(start) and usable(end):
            both.append((start, end))
        elif usable(end):
            ends.append(end)
        elif usable(start):
            begins.append(start)
    return Bar(
        segments=len(rows),
        first=rows[0].segment,
        last=rows[-1].segment,
        whole=(min(a for a, _ in both), max(b for _, b in both)) if both else None,
        ends=max(ends, default=None),
        begins=min(begins, default=None),
        contradiction=any(a > b for a, b in both),
    )


def joined(gaps: Sequence[GapRow], near: float) -> Iterator[tuple[int, int]]:
    """The gaps' segments, those put together between which nothing could be seen."""
    first = last = None
    for gap in sorted(gaps, key=lambda gap: gap.first_segment):
        if first is None or last is None:
            first, last = gap.first_segment, gap.last_segment
        elif gap.first_segment - last - 1 <= near:
            last = max(last, gap.last_segment)
        else:
            yield first, last
            first, last = gap.first_segment, gap.last_segment
    if first is not None and last is not None:
        yield first, last
