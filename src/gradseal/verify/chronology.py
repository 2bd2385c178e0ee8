"""What is known of a run's time, and what follows from it: windows, cadence, gaps, choices.

Only what the verifier pinned went in here. Finds nothing itself; see `precedence`.
What all this is worth is proved in docs/theory/precedence.md.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gradseal.precede.log import Log, Placed
from gradseal.precede.slots import SlotPlan
from gradseal.precede.trust import Trust
from gradseal.proof.entries import Amendment, Slot
from gradseal.verify.outcomes import SegmentResult
from gradseal.verify.windows import MAX_ROWS, AnchorRow, GapRow, SegmentWindow, Windows

LEFT_OUT = 0.05
"""The share of what moved that need not depend on the seed: honest programs have some that goes the same way
under any, such as a bias before a normalisation, which weight decay alone moves."""

_ON_CADENCE = 2
_MOST_GAPS = 100


@dataclass(slots=True, kw_only=True)
class Chronology:
    """What is known of a run's time.

    Args:
        trust: The verifier's pins.
        plan: When slots begin; None if the seed was declared.
        pinned: For each of the plan's chains, whether it is pinned.
        bounds: By when each entry existed, by its index; None where nothing says.
        anchors: What each anchored checkpoint shows.
        gaps: Segments off the cadence, as `find_gaps` gives them once all bounds are known.
        slots: The slot of each segment.
        places: The index of each segment's entry.
        missed: The slots, first and last, that the log itself says something was missed in.
        amendments: The amendments.
        drawn: The slots that were drawn from.
        dependent: The segments that were found to depend on their seed.
        independent: Those that moved something and were found not to.
        still: Those that moved nothing.
        unseeded: Of the elements that moved, the share in tensors that some segment moved whatever its seed.
    """

    trust: Trust
    plan: SlotPlan | None = None
    pinned: tuple[bool, ...] = ()
    bounds: list[float | None] = field(default_factory=list)
    anchors: tuple[AnchorRow, ...] = ()
    gaps: Sequence[GapRow] = ()
    slots: Sequence[int | None] = ()
    places: Sequence[int] = ()
    missed: tuple[tuple[int, int], ...] = ()
    amendments: tuple[Placed[Amendment], ...] = ()
    drawn: tuple[Placed[Slot], ...] = ()
    dependent: set[int] = field(default_factory=set)
    independent: set[int] = field(default_factory=set)
    still: set[int] = field(default_factory=set)
    unseeded: float = 0.0

    def due(self, slot: int) -> float | None:
        """When the first of a slot's rounds of pinned chains was due; None if none is pinned.

        The first, because one honest chain makes a seed unpredictable, and it may be that one.
        """
        if self.plan is None:
            return None
        rounds = zip(self.plan.rounds(slot), self.pinned, strict=True)
        return min((chain.round_due(number) for (chain, number), pinned in rounds if pinned), default=None)

    def not_before(self, slot: int) -> float | None:
        """Before when nobody knew a slot's seed, as far as clocks can be trusted."""
        due = self.due(slot)
        return None if due is None else due - self.trust.skew_seconds

    @property
    def manifest_in_time(self) -> bool:
        """Whether the manifest was sealed before the seed of slot 0 could be known."""
        return bool(self.bounds) and self._existed_before(0, slot=0)

    @property
    def impossible(self) -> list[Placed[Slot]]:
        """Slots whose entry is said to be older than its signatures: some clock that is pinned is wrong."""
        found = []
        for slot in self.drawn:
            bound, known = self.bounds[slot.index], self.not_before(slot.entry.index)
            if bound is not None and known is not None and bound < known:
                found.append(slot)
        return found

    @property
    def timed(self) -> bool:
        """Whether any anchor shows a time."""
        return any(row.not_after is not None for row in self.anchors)

    def in_time(self, amendment: Placed[Amendment]) -> bool:
        """Whether an amendment was sealed before the seed could be known from which it is in force."""
        return self._existed_before(amendment.index, slot=amendment.entry.slot)

    def _existed_before(self, index: int, *, slot: int) -> bool:
        bound, due = self.bounds[index], self.due(slot)
        return bound is not None and due is not None and bound < due

    def always_replayed(self, log: Log) -> list[int]:
        """The first segment of each amendment and each gap, of the latter at most a hundred."""
        gaps = [gap.first_segment for gap in self.gaps] if self.timed else []
        return [first for first, _ in log.programs()] + gaps[:_MOST_GAPS]

    @property
    def grinding_bits(self) -> float | None:
        """What all gaps together are worth to an owner who grinds; None if something was never anchored."""
        bits = [gap.bits for gap in self.gaps]
        known = [one for one in bits if one is not None]
        return math.fsum(known) if len(known) == len(bits) else None

    def window(self, segment: int) -> SegmentWindow:
        """When a segment was made."""
        slot, not_after = self.slots[segment], self.bounds[self.places[segment]]
        depends = slot is not None and segment in self.dependent
        return SegmentWindow(
            segment=segment,
            slot=slot,
            not_before=self.not_before(slot) if slot is not None and depends else None,
            not_after=not_after,
            seeds=self._seeds(slot, not_after, self.due(0)),
        )

    def _seeds(self, slot: int | None, not_after: float | None, start: float | None) -> int | None:
        """How many slots' seeds, from a segment's own on, were public by then; slot 0 began at `start`."""
        if slot is None or not_after is None or self.plan is None or start is None:
            return None
        return max(1, math.floor((not_after - start) / self.plan.cadence_seconds) - slot + 1)

    def note_replays(self, tried: Sequence[SegmentResult], sizes: Sequence[int]) -> None:
        """Takes what replays under another seed gave.

        A segment depends on its seed but for tensors with a twentieth of what it moved. Over the run a tensor
        counts as depending only if it did in every segment that moved it: otherwise it may be moved by some
        segments at random, and by others to where it was known beforehand.

        Args:
            tried: The segments that were replayed so.
            sizes: The elements of each tensor of the layout.
        """
        moved: set[int] = set()
        unseeded: set[int] = set()
        for result in tried:
            moved.update(result.moved)
            unseeded.update(result.independent)
            share = _elements(result.independent, sizes) / max(1, _elements(result.moved, sizes))
            kind = self.independent if share > LEFT_OUT else self.dependent if result.moved else self.still
            kind.add(result.segment)
        self.unseeded = _elements(unseeded, sizes) / max(1, _elements(moved, sizes))

    @property
    def passed_over(self) -> int:
        """How many slots hold no segment: seeds that an owner who waits may pass over."""
        drawn = {slot for slot in self.slots if slot is not None}
        return max(drawn) + 1 - len(drawn) if drawn else 0

    def _skipped(self, segment: int) -> int:
        """How many seeds before its own, since its predecessor's, a segment could have drawn from."""
        slot, before = self.slots[segment], self.slots[segment - 1] if segment else 0
        return 0 if slot is None or before is None else slot - before

    @property
    def off_cadence(self) -> int:
        """How many segments are in gaps."""
        return sum(gap.last_segment - gap.first_segment + 1 for gap in self.gaps)

    def find_gaps(self) -> list[GapRow]:
        """Consecutive segments of one slot that were not fixed within the cadence."""
        found: list[GapRow] = []
        start = self.due(0)
        for segment, slot in enumerate(self.slots):
            seeds = self._seeds(slot, self.bounds[self.places[segment]], start)
            if slot is None or (seeds is not None and seeds <= _ON_CADENCE):
                continue
            if found and found[-1].last_segment == segment - 1 and self.slots[segment - 1] == slot:
                first, before = found[-1].first_segment, found.pop().seeds
                seeds = None if seeds is None or before is None else max(before, seeds)
            else:
                first = segment
            found.append(
                GapRow(
                    first_segment=first,
                    last_segment=segment,
                    recorded=_touches(self.missed, slot, slot + 1),
                    seeds=seeds,
                    bits=None if seeds is None else _bits(segment - first + 1, seeds + self._skipped(first)),
                )
            )
        return found


def merged(intervals: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Intervals of slots, those that touch as one, in order."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(intervals):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return tuple(found)


def _touches(intervals: Sequence[tuple[int, int]], first: int, last: int) -> bool:
    """Whether one of some merged intervals has a slot from `first` to `last`."""
    at = bisect_right(intervals, last, key=lambda interval: interval[0]) - 1
    return at >= 0 and intervals[at][1] >= first


def _elements(tensors: Iterable[int], sizes: Sequence[int]) -> int:
    return sum(sizes[i] for i in tensors if 0 <= i < len(sizes))


def _bits(segments: int, seeds: int) -> float:
    """log2 of the ways in which so many segments can draw from so many seeds, each in order."""
    ways = math.lgamma(segments + seeds) - math.lgamma(seeds) - math.lgamma(segments + 1)
    return ways / math.log(2)


def windows_of(own: Chronology | None, log: Log | None) -> Windows:
    """What the verdict tells of the run's time."""
    if own is None or log is None or not own.bounds:
        return Windows()
    gaps = own.gaps
    count = len(own.slots)
    told = range(count) if count <= MAX_ROWS else [i * (count - 1) // (MAX_ROWS - 1) for i in range(MAX_ROWS)]
    return Windows(
        source="declared" if own.plan is None else "beacon",
        manifest=own.bounds[0],
        start=own.due(0),
        cadence_seconds=own.plan.cadence_seconds if own.plan else None,
        close=own.bounds[-1] if log.close else None,
        slots=len(log.slots),
        passed_over=own.passed_over,
        steps=sum(segment.steps for segment in log.segments),
        densest=max(Counter(slot for slot in own.slots if slot is not None).values(), default=0),
        segments=tuple(own.window(i) for i in told),
        anchors=_told(own.anchors),
        gaps=tuple(gaps[:MAX_ROWS]),
        gaps_left_out=max(0, len(gaps) - MAX_ROWS),
    )


def _told(rows: Sequence[AnchorRow]) -> tuple[AnchorRow, ...]:
    if len(rows) <= MAX_ROWS:
        return tuple(rows)
    return tuple(rows[i * (len(rows) - 1) // (MAX_ROWS - 1)] for i in range(MAX_ROWS))


def bounds_of(size: int, anchors: Sequence[AnchorRow]) -> list[float | None]:
    """By when each entry existed: the least bound of any anchored size that covers it."""
    at = {row.size: row.not_after for row in anchors}
    bounds: list[float | None] = [None] * size
    least: float | None = None
    for index in range(size - 1, -1, -1):
        bound = at.get(index + 1)
        if bound is not None and (least is None or bound < least):
            least = bound
        bounds[index] = least
    return bounds
