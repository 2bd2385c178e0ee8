"""When each part of a run was made, as far as a verification knows: what a report draws as a time-line.

Times are seconds of Unix time. Bounded whatever the run: of segments and anchors at most `MAX_ROWS` are told.
Gathered by `precedence`; decides nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

MAX_ROWS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentWindow:
    """When a segment was made.

    Args:
        segment: Its number.
        slot: The slot that its seed is from; None if the seed was declared.
        not_before: When its seed's round was due, if its replay depends on the seed; None if nothing says.
        not_after: By when it was sealed, by the anchors that the verifier trusts; None if none says.
        seeds: How many slots' seeds, its own among them, were public by then: two at most on the plan's
            cadence, and each more is one more that its owner could have taken; None if not known.
    """

    segment: int
    slot: int | None
    not_before: float | None
    not_after: float | None
    seeds: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorRow:
    """An anchored checkpoint.

    Args:
        size: How many entries it covers.
        not_after: The bound that it gives; None if too few of the anchors count.
        by: Whose anchors count, by the verifier's names for them.
    """

    size: int
    not_after: float | None
    by: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GapRow:
    """Consecutive segments that were not fixed within the plan's cadence.

    Args:
        first_segment: The first of them.
        last_segment: The last.
        recorded: Whether the log says so itself.
        seeds: The most seeds that were public before one of them was fixed; None if it was never anchored.
        bits: What it is worth to an owner who grinds: log2 of the ways in which its segments could have drawn
            from the seeds that were public, those since the segment before included.
    """

    first_segment: int
    last_segment: int
    recorded: bool
    seeds: int | None
    bits: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """When a run was made.

    Args:
        source: Where its randomness is from: `declared` or `beacon`.
        manifest: By when the manifest was sealed.
        start: When slot 0's round was due; the manifest must have been sealed before.
        cadence_seconds: How long a slot is.
        close: By when the last entry was sealed.
        slots: How many slots' seeds the run drew from.
        passed_over: How many slots hold no segment: an owner who waits may pass a seed over.
        steps: How many steps are sealed.
        densest: The most segments that drew from one slot.
        segments: The segments told, in order.
        anchors: The anchored checkpoints told, in order of size.
        gaps: Segments off the cadence.
        gaps_left_out: How many more gaps there are.
    """

    source: str = "declared"
    manifest: float | None = None
    start: float | None = None
    cadence_seconds: int | None = None
    close: float | None = None
    slots: int = 0
    passed_over: int = 0
    steps: int = 0
    densest: int = 0
    segments: tuple[SegmentWindow, ...] = ()
    anchors: tuple[AnchorRow, ...] = ()
    gaps: tuple[GapRow, ...] = ()
    gaps_left_out: int = 0

    def to_json(self) -> dict[str, Any]:
        """Its JSON form."""
        rows = {name: [asdict(row) for row in getattr(self, name)] for name in ("segments", "gaps")}
        anchors = [asdict(row) | {"by": list(row.by)} for row in self.anchors]
        return asdict(self) | rows | {"anchors": anchors}
