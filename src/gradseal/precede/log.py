"""A run's log, typed and in order, its slots, gaps and amendments where they stand.

Reads entries alone; what they name by digest is `verify.contents`. Format: docs/spec/bundle.md, section 4.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from gradseal.errors import MalformedBundle
from gradseal.precede.slots import SlotPlan, seeds_of, slot_plan_of
from gradseal.program.seeds import Seeds
from gradseal.proof.entries import Amendment, Close, Entry, Gap, Initial, Segment, Slot, entry_from_bytes
from gradseal.proof.manifest import Manifest

E = TypeVar("E", Slot, Gap, Amendment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed(Generic[E]):
    """An entry between segments.

    Args:
        entry: What it says.
        index: Its place in the log.
        segment: The number of the segment that comes next.
    """

    entry: E
    index: int
    segment: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """A run's log, typed and in order.

    Args:
        manifest: Entry 0.
        initial: State zero, if the log got so far.
        segments: The segments, in order.
        places: Each segment's place in the log.
        slots: The slots that were drawn from.
        gaps: What the owner says was missed.
        amendments: The programs that came later.
        close: The last entry of a finished run.
        size: How many entries it has.
    """

    manifest: Manifest
    initial: Initial | None
    segments: tuple[Segment, ...]
    places: tuple[int, ...]
    slots: tuple[Placed[Slot], ...]
    gaps: tuple[Placed[Gap], ...]
    amendments: tuple[Placed[Amendment], ...]
    close: Close | None
    size: int

    @property
    def seals(self) -> tuple[bytes, ...]:
        """The seal of every state, state zero first."""
        return (self.initial.seal, *(s.seal for s in self.segments)) if self.initial else ()

    @property
    def slot_plan(self) -> SlotPlan | None:
        """When slots begin; None if the seed was declared."""
        return slot_plan_of(self.manifest)

    def seeds(self) -> Seeds | None:
        """The seed of every segment; None if the run had drawn none yet."""
        return seeds_of(self.manifest, [(slot.segment, slot.entry) for slot in self.slots])

    def slots_by_segment(self) -> list[int | None]:
        """The slot that each segment draws from; None where the seed was declared."""
        ends = [*(slot.segment for slot in self.slots[1:]), len(self.segments)]
        found: list[int | None] = []
        for slot, end in zip(self.slots, ends, strict=False):
            found += [slot.entry.index] * (end - slot.segment)
        return found or [None] * len(self.segments)

    def programs(self) -> list[tuple[int, bytes]]:
        """The digest of each program with the first segment that it is in force for, in order.

        The manifest's is always the first, even if another is in force from segment 0 on; of those that came
        later, only what is in force for a segment or may still be.
        """
        found = [(0, self.manifest.program)]
        indexes = [slot.entry.index for slot in self.slots]  # rising
        for amendment in self.amendments:
            began = bisect_left(indexes, amendment.entry.slot)
            first = self.slots[began].segment if began < len(indexes) else len(self.segments)
            # Of several that one slot puts in force the last counts.
            found.append((first, amendment.entry.program))
        last = len(found) - 1
        return [one for i, one in enumerate(found) if i in (0, last) or found[i + 1][0] > one[0]]


def read_log(manifest: Manifest, entries: Sequence[bytes]) -> Log:
    """The typed log of all raw entries, `manifest` being entry 0.

    Raises:
        MalformedBundle: An entry is not one, or not the one that its place asks for; names it.
        UnknownKind: An entry of a kind that this version does not know.
    """
    reader = _Reader(manifest)
    for index, data in enumerate(entries[1:], start=1):
        where = f"entry {index}"
        reader.read(entry_from_bytes(data, where=where), index, where)
    return reader.log(len(entries))


class _Reader:
    """The log so far."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._plan = slot_plan_of(manifest)
        self._initial: Initial | None = None
        self._segments: list[Segment] = []
        self._places: list[int] = []
        self._slots: list[Placed[Slot]] = []
        self._gaps: list[Placed[Gap]] = []
        self._amendments: list[Placed[Amendment]] = []
        self._close: Close | None = None
        self._last: Entry | None = None
        self._missed: dict[str, int] = {}

    def read(self, entry: Entry, index: int, where: str) -> None:
        if self._close is not None:
            raise MalformedBundle("stands after the close of the run", where=where)
        segment, begun = len(self._segments), self._initial is not None
        match entry:
            case Initial() if not begun and bool(self._slots) == (self._plan is not None):
                self._initial = entry
            case Slot() if self._plan is not None and not isinstance(self._last, Slot):
                self._plan.check(entry, where)
                self._check_slot(entry, where)
                self._slots.append(Placed(entry=entry, index=index, segment=segment))
            case Segment() if begun:
                self._check_segment(entry, where)
                self._segments.append(entry)
                self._places.append(index)
            case Gap() if self._plan is not None:
                self._check_gap(entry, where)
                self._gaps.append(Placed(entry=entry, index=index, segment=segment))
            case Amendment() if begun and self._plan is not None:
                self._check_amendment(entry, where)
                self._amendments.append(Placed(entry=entry, index=index, segment=segment))
            case Close() if begun and entry.segments == segment == self._manifest.plan.segments:
                self._close = entry
            case _:
                raise MalformedBundle("an entry that cannot stand here", where=where)
        # What only tells of slots makes nothing that draws from the one before.
        if not isinstance(entry, Gap | Amendment):
            self._last = entry

    def log(self, size: int) -> Log:
        return Log(
            manifest=self._manifest,
            initial=self._initial,
            segments=tuple(self._segments),
            places=tuple(self._places),
            slots=tuple(self._slots),
            gaps=tuple(self._gaps),
            amendments=tuple(self._amendments),
            close=self._close,
            size=size,
        )

    def _check_segment(self, entry: Segment, where: str) -> None:
        index = len(self._segments)
        steps = self._manifest.plan.steps_of(index)
        expected = (index, steps.start, len(steps))
        if (entry.index, entry.first_step, entry.steps) != expected or not steps:
            raise MalformedBundle(
                f"says segment {entry.index}, steps {entry.first_step} + {entry.steps}; the plan has segment "
                f"{index}, steps {steps.start} + {len(steps)} here",
                where=where,
            )

    def _check_slot(self, entry: Slot, where: str) -> None:
        if not self._slots and entry.index:
            raise MalformedBundle(f"slot {entry.index}, before slot 0", where=f"{where}: index")
        if self._slots and entry.index <= self._slots[-1].entry.index:
            raise MalformedBundle(
                f"slot {entry.index} after slot {self._slots[-1].entry.index}", where=f"{where}: index"
            )

    def _check_gap(self, entry: Gap, where: str) -> None:
        if entry.first_slot <= self._missed.get(entry.cause, -1):
            raise MalformedBundle(
                f"slot {entry.first_slot} is a gap of cause {entry.cause!r} already",
                where=f"{where}: first_slot",
            )
        self._missed[entry.cause] = entry.last_slot

    def _check_amendment(self, entry: Amendment, where: str) -> None:
        if entry.slot <= self._slots[-1].entry.index:
            raise MalformedBundle(
                f"in force from slot {entry.slot}, not later than slot {self._slots[-1].entry.index}",
                where=f"{where}: slot",
            )
        if self._amendments and entry.slot < self._amendments[-1].entry.slot:
            raise MalformedBundle(
                f"in force from slot {entry.slot}, before the amendment above it", where=f"{where}: slot"
            )
