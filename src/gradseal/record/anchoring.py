"""Anchoring while a run is recorded: the newest checkpoint, once in each slot, behind the training's back.

Hosts are asked late in a slot, so that a segment which began in the slot before has its anchor in time, if it
took less than a slot's larger part. A host that is away, slow or hostile is asked again in the next slot with
what is newest then; that something was missed becomes a gap in the log, and never stops the training.
What is published is a prefix of the log, so nothing is lost or reordered by asking less often.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from gradseal.errors import Error
from gradseal.precede.beacons import margin_seconds
from gradseal.precede.hosts import Hosts
from gradseal.precede.slots import SlotPlan
from gradseal.proof.anchors import AnchorStore, receipt_of
from gradseal.proof.files import Files
from gradseal.proof.merkle import Tree
from gradseal.proof.note import Note

INTERVAL_SECONDS = 60.0
"""How often a run without slots is anchored."""

TIMEOUT_SECONDS = 10.0
"""How long all hosts together may take, unless a slot is shorter."""


class Anchoring:
    """Has a log's checkpoints anchored.

    Args:
        files: The bundle.
        hosts: Whom to ask.
        plan: When slots begin; None for a run without slots.
        leaves: The leaf hashes of what was published before.
        newest: The checkpoint of that; anchored anew if the bundle has no anchor of it.
        clock: The time now, in seconds of Unix time.
    """

    def __init__(
        self,
        files: Files,
        hosts: Hosts,
        *,
        plan: SlotPlan | None,
        leaves: Sequence[bytes] = (),
        newest: Note | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = AnchorStore(files)
        self._hosts = hosts
        self._plan = plan
        self._clock = clock
        self._tree = Tree(leaves)
        self._lock = threading.Lock()  # of the tree and what follows
        self._newest = newest
        self._anchored = 0  # the size that every host gave its anchor for
        if any(one.size == self._tree.size for one in self._store.anchored):
            self._anchored = self._tree.size
        self._missed: list[int] = []
        self._faults: list[str] = []
        self._asking = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def published(self, note: Note, leaves: Sequence[bytes]) -> None:
        """Takes note of a checkpoint that was published, and of the leaf hashes that came with it."""
        with self._lock:
            self._tree.extend(leaves)
            self._newest = note

    def start(self) -> None:
        """Begins to anchor, slot by slot."""
        self._thread = threading.Thread(target=self._run, name="gradseal-anchoring", daemon=True)
        self._thread.start()

    def now(self) -> bool:
        """Anchors the newest checkpoint; returns whether every host gave its anchor."""
        with self._asking:
            return self._anchor()

    def missed(self) -> list[int]:
        """The slots in which a host gave no anchor, and which were not told before."""
        with self._lock:
            missed, self._missed = self._missed, []
        return missed

    def faults(self) -> list[str]:
        """What went wrong and was not told before."""
        with self._lock:
            faults, self._faults = self._faults, []
        return faults

    def stop(self) -> None:
        """Ends the anchoring; waits for what is being asked."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._anchor_slots()
        except Exception as e:  # noqa: BLE001 - a thread that ends unseen would leave the log unanchored
            with self._lock:
                self._faults.append(f"nothing is anchored any more: {type(e).__name__}: {e}")

    def _anchor_slots(self) -> None:
        while not self._stopped.wait(max(0.0, self._next() - self._clock())):
            slot = self._plan.slot_at(self._clock()) if self._plan else -1
            if not self.now() and slot >= 0:
                with self._lock:
                    self._missed.append(slot)

    def _next(self) -> float:
        """When to anchor next."""
        now = self._clock()
        if self._plan is None:
            return now + INTERVAL_SECONDS
        cadence = self._plan.cadence_seconds
        late = cadence - margin_seconds(cadence)
        return self._plan.begins(self._plan.slot_at(now - late) + 1) + late

    def _anchor(self) -> bool:
        with self._lock:
            note, size = self._newest, self._tree.size
        if note is None or size == self._anchored:
            return True
        timeout = TIMEOUT_SECONDS
        if self._plan is not None:
            timeout = min(timeout, max(1.0, self._plan.cadence_seconds / 2))
        obtained = self._hosts.obtain(note, self._prove, timeout_seconds=timeout)
        faults = list(obtained.faults)
        if obtained.tokens or obtained.note != note:
            try:
                with self._lock:
                    receipt = receipt_of(obtained.note, self._tree)
                self._store.add(receipt, obtained.tokens)
            except Error as e:  # storage that is away for a moment is asked again with the next checkpoint
                faults.append(f"an anchor could not be stored: {e}")
        if not faults:
            self._anchored = size
        with self._lock:
            self._faults += faults
        return not faults

    def _prove(self, old: int, new: int) -> Sequence[bytes]:
        with self._lock:
            return self._tree.consistency_proof(old, new)
