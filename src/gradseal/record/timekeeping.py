"""What a recording does about time: slots' seeds, anchors, and what is to be told in the log of both.

Seals the manifest, anchors it, and waits for slot 0, once; from then on nothing waits. Entries that come
between segments are collected here, and go into the log before the next segment's.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gradseal.errors import AnchorError, RecordError, RecordWarning
from gradseal.precede.beacons import Beacon
from gradseal.precede.hosts import Hosts
from gradseal.precede.relays import Relays
from gradseal.precede.slots import SlotPlan, one_seed, slot_plan_of
from gradseal.program.program import Program
from gradseal.program.randomness import slot_seed
from gradseal.program.seeds import Seeds
from gradseal.proof.entries import Amendment, Entry, Gap, Slot
from gradseal.proof.manifest import Manifest
from gradseal.proof.merkle import leaf_hash
from gradseal.proof.writer import BundleWriter
from gradseal.record.amending import settings_between
from gradseal.record.anchoring import Anchoring
from gradseal.record.resume import Interrupted
from gradseal.record.slots import SlotWatch

_ADVICE = "see that they can be reached, and give the beacon more lead_seconds"
_RETRY_SECONDS, _LAST_TRY_SECONDS = 0.5, 1.5
_AMENDED_AFTER = 3
"""Slots from when an amendment is asked for to when it is in force: its entry waits for the segment's end,
and then for its anchor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Amended:
    """A program that is to come.

    Args:
        slot: From which slot on.
        program: The whole program.
        settings: What changes in the optimizer, by group and field.
    """

    slot: int
    program: Program
    settings: dict[tuple[int, str], float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What begins with a segment.

    Args:
        seed: Whether it draws from another seed than the one before.
        amended: The program that is in force from here on, if another.
    """

    seed: bool = False
    amended: Amended | None = None


class Timekeeping:
    """Keeps the time of one recording.

    Args:
        writer: The run's log.
        manifest: Entry 0.
        program: The program that it names.
        beacon: Where seeds come from; None if the seed is declared.
        hosts: Whom to ask for anchors; None for nobody.
        interrupted: What was published before, of a run that is resumed.
    """

    def __init__(
        self,
        writer: BundleWriter,
        manifest: Manifest,
        program: Program,
        *,
        beacon: Beacon | None,
        hosts: Hosts | None,
        interrupted: Interrupted | None = None,
    ) -> None:
        self._writer = writer
        self._manifest = manifest
        self._beacon = beacon
        self._plan = slot_plan_of(manifest)
        self._watch = SlotWatch(self._plan, _relays(beacon, self._plan)) if beacon and self._plan else None
        self._anchoring: Anchoring | None = None
        if hosts is not None:
            leaves = [leaf_hash(entry) for entry in interrupted.entries] if interrupted else []
            newest = interrupted.note if interrupted else None
            self._anchoring = Anchoring(writer.files, hosts, plan=self._plan, leaves=leaves, newest=newest)
            writer.tell(self._anchoring.published)
        self._seeds: Seeds | None = None
        log = interrupted.log if interrupted else None
        self._slot = log.slots[-1].entry.index if log and log.slots else -1
        self._entries: list[Entry] = []
        self._late: list[int] = []
        self._told = -1  # the last slot that a gap of anchors was told of
        self._amended: list[Amended] = []
        self.in_force: Amended | None = None
        if interrupted is not None and self._plan is not None:
            self._resume(interrupted, program)

    def seeds(self, waiting: Callable[[float], None]) -> Seeds:
        """The seeds of a new run with a beacon's, once the manifest is sealed and slot 0 has begun.

        Args:
            waiting: Called with how many seconds there are to wait.

        Raises:
            AnchorError: No relay gives slot 0.
        """
        if self._watch is None or self._beacon is None:
            raise RecordError("the run's seed is declared", where="beacon")
        self._writer.publish()
        anchored = self._anchor_in_time(self._watch)
        self._warn()
        if not anchored or self._watch.slot_now() >= 0:
            warnings.warn(
                "the manifest is not anchored before slot 0 by all who were asked, so precedence may not be "
                "shown; " + (_ADVICE if self._anchoring else "name witnesses or time-stamp authorities"),
                RecordWarning,
                stacklevel=4,
            )
        waiting(self._watch.begins_in())
        slot = self._watch.first(self._beacon.patience_seconds)
        self._entries.append(slot)
        return one_seed(self._manifest.plan, self._seed(slot))

    def _anchor_in_time(self, watch: SlotWatch) -> bool:
        """Has the manifest anchored, and asks again whoever did not answer as long as slot 0 is not near."""
        if self._anchoring is None:
            return False
        while not self._anchoring.now():
            if watch.begins_in() < _LAST_TRY_SECONDS:
                return False
            time.sleep(_RETRY_SECONDS)
        return True

    def start(self, seeds: Seeds) -> None:
        """Begins to watch slots and to anchor, behind the training's back."""
        self._seeds = seeds
        if self._watch is not None:
            self._watch.start(max(self._slot, 0))
        if self._anchoring is not None:
            self._anchoring.start()

    def begin_segment(self, segment: int) -> Begun:
        """A segment begins, and draws from the newest slot that there is."""
        self._warn()
        if self._watch is None or self._seeds is None:
            return Begun()
        slot = self._watch.newest()
        if (gap := self._watch.gap()) is not None:
            self._entries.append(gap)
            warnings.warn(
                f"slots {gap.first_slot} to {gap.last_slot} passed without a seed, which no relay gave; that "
                f"of slot {self._slot} went on",
                RecordWarning,
                stacklevel=3,
            )
        if slot is None or slot.index <= self._slot:
            return Begun()
        self._entries.append(slot)
        self._seeds.begin(segment, self._seed(slot))
        in_force = [amended for amended in self._amended if amended.slot <= slot.index]
        self._amended = [amended for amended in self._amended if amended.slot > slot.index]
        return Begun(seed=True, amended=in_force[-1] if in_force else None)

    def amend(self, program: Program, settings: dict[tuple[int, str], float]) -> int:
        """Lets another program be in force from a later slot on, and returns that slot.

        Raises:
            RecordError: The run has no slots, or another amendment waits already.
        """
        if self._plan is None or self._watch is None:
            raise RecordError(
                "a run with a declared seed cannot be amended",
                where="amend",
                advice="record with beacon=…, so that it is clear what was decided before which seed",
            )
        if self._amended:
            raise RecordError(f"another amendment waits for slot {self._amended[0].slot}", where="amend")
        slot = self._slot + _AMENDED_AFTER
        now = self._watch.slot_now() + _AMENDED_AFTER
        amended = Amended(slot=max(slot, now), program=program, settings=settings)
        self._entries.append(Amendment(slot=amended.slot, program=self._writer.put(program.encode())))
        self._amended.append(amended)
        return amended.slot

    def entries(self) -> list[Entry]:
        """What goes into the log before the next entry of a state."""
        if self._watch is not None and self._slot >= 0:
            # A segment that took so long cannot be anchored in time any more.
            self._late += range(self._slot, self._watch.slot_now() - 1)
        if self._anchoring is not None:
            self._late += self._anchoring.missed()
        self._tell_late()
        entries, self._entries = self._entries, []
        return entries

    def _tell_late(self) -> None:
        late = [slot for slot in self._late if slot > self._told]
        self._late.clear()
        if late:
            self._told = max(late)
            self._entries.append(Gap(cause="anchor", first_slot=min(late), last_slot=self._told))

    def close(self) -> None:
        """Anchors the whole log, as far as hosts are there."""
        if self._anchoring is not None:
            self._anchoring.stop()
            if not self._anchoring.now():
                self._warn()

    def stop(self) -> None:
        """Ends all threads."""
        for part in (self._watch, self._anchoring):
            if part is not None:
                part.stop()

    def _resume(self, interrupted: Interrupted, program: Program) -> None:
        """Takes up amendments, and says that nothing was anchored while nobody recorded."""
        log = interrupted.log
        for amendment, amended in interrupted.amended(self._writer.files):
            settings = settings_between(program, amended)
            one = Amended(slot=amendment.slot, program=amended, settings=settings)
            if one.slot <= self._slot:
                self.in_force = one
            else:
                self._amended.append(one)
        if self._watch is None:
            return
        told = [gap.entry.last_slot for gap in log.gaps if gap.entry.cause == "anchor"]
        self._told = max(told, default=-1)
        self._late += range(self._slot, self._watch.slot_now() - 1)
        self._tell_late()

    def _seed(self, slot: Slot) -> bytes:
        if self._plan is None:
            raise AnchorError("a slot without a plan", where=f"slot {slot.index}")
        self._slot = slot.index
        return slot_seed(self._plan.value(slot), slot.index, self._manifest.digest())

    def _warn(self) -> None:
        for fault in self._anchoring.faults() if self._anchoring else ():
            warnings.warn(f"not anchored: {fault}", RecordWarning, stacklevel=4)
        if self._watch is not None and (fault := self._watch.fault()):
            warnings.warn(fault, RecordWarning, stacklevel=4)


def _relays(beacon: Beacon, plan: SlotPlan) -> Sequence[Relays]:
    """The relays of the plan's chains, in its order; those of others are not asked.

    Raises:
        RecordError: A chain of the plan's has none.
    """
    relays = {one.chain.hash: one for one in beacon.relays}
    for chain, _ in plan.chains:
        if chain.hash not in relays:
            raise RecordError(
                f"the run draws from chain {chain.hash.hex()[:8]}, of which the given beacon has no relay",
                where="beacon",
                advice="go on with the beacon that the recording began with",
            )
    return [relays[chain.hash] for chain, _ in plan.chains]
