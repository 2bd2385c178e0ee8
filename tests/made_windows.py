"""Windows of runs that were never made, for what draws and tells them."""

from __future__ import annotations

from collections.abc import Container
from datetime import UTC, datetime
from typing import Any

from gradseal.verify.windows import AnchorRow, GapRow, SegmentWindow, Windows

START = datetime(2026, 11, 25, 19, 20, 3, tzinfo=UTC).timestamp()


def made_windows(
    count: int,
    *,
    cadence: int = 30,
    dependent: Container[int] | None = None,
    anchored: Container[int] | None = None,
    by: tuple[str, ...] = ("witness.example", "tsa.example"),
    **more: Any,
) -> Windows:
    """A run of one segment a slot, each sealed 40 s after its slot began.

    Args:
        count: How many segments there are.
        cadence: Seconds from slot to slot.
        dependent: Those whose replay depends on their seed; None for all.
        anchored: Those that an anchor covers; None for all.
        by: Whose anchors count.
        more: Fields in the place of those of the run.
    """
    rows = tuple(
        SegmentWindow(
            segment=i,
            slot=i,
            not_before=START + cadence * i if dependent is None or i in dependent else None,
            not_after=START + cadence * i + 40 if anchored is None or i in anchored else None,
            seeds=2,
        )
        for i in range(count)
    )
    sealed = [row for row in rows if row.not_after is not None]
    fields: dict[str, Any] = {
        "source": "beacon",
        "manifest": START - 12.5,
        "start": START,
        "cadence_seconds": cadence,
        "close": START + cadence * count + 50.25,
        "slots": count,
        "steps": 5 * count,
        "densest": 1,
        "segments": rows,
        "anchors": tuple(AnchorRow(size=row.segment + 4, not_after=row.not_after, by=by) for row in sealed),
    }
    return Windows(**{**fields, **more})


def gap(first: int, last: int, *, recorded: bool = True, seeds: int | None = 5) -> GapRow:
    """A gap; of five seeds, worth two bits."""
    bits = None if seeds is None else {3: 1.0, 5: 2.0, 9: 3.0}[seeds]
    return GapRow(first_segment=first, last_segment=last, recorded=recorded, seeds=seeds, bits=bits)
