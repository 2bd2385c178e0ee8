"""Slots while a run is recorded: each slot's rounds, fetched behind the training's back when they are due.

A round that no relay gives before the next slot begins is missed: the seed before goes on, and the recording
says so. Training never waits for a beacon, but for the first slot, without which there is no state zero.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from gradseal.errors import AnchorError
from gradseal.precede.relays import Relays
from gradseal.precede.slots import SlotPlan
from gradseal.proof.entries import Gap, Slot

_MOMENT_SECONDS = 5.0


class SlotWatch:
    """Has the newest slot.

    Args:
        plan: When slots begin.
        relays: Of each of its chains, in order.
        clock: The time now, in seconds of Unix time.
    """

    def __init__(
        self, plan: SlotPlan, relays: Sequence[Relays], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._plan = plan
        self._relays = relays
        self._clock = clock
        self._lock = threading.Lock()
        self._newest: Slot | None = None
        self._missed: list[int] = []
        self._fault = ""
        self._tried = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def first(self, patience_seconds: float) -> Slot:
        """Slot 0, once it has begun.

        Raises:
            AnchorError: No relay gives its rounds within so long.
        """
        return self._fetch(0, patience_seconds)

    def start(self, after: int) -> None:
        """Begins to fetch slots later than `after`, but of those that have begun only the last.

        Waits a moment for one that has begun already, as when a run is gone on with.
        """
        first = max(after + 1, self.slot_now())
        self._thread = threading.Thread(target=self._run, args=(first,), name="gradseal-slots", daemon=True)
        self._thread.start()
        if self.slot_now() >= first:
            self._tried.wait(_MOMENT_SECONDS)

    def begins_in(self) -> float:
        """How many seconds there are to slot 0; less than none once it has begun."""
        return self._plan.begins(0) - self._clock()

    def slot_now(self) -> int:
        """The slot that began last."""
        return self._plan.slot_at(self._clock())

    def newest(self) -> Slot | None:
        """The newest slot that has begun and was not given before; None if there is none."""
        with self._lock:
            newest, self._newest = self._newest, None
        return newest

    def gap(self) -> Gap | None:
        """The slots that were missed and not told before, from the first to the last of them."""
        with self._lock:
            missed, self._missed = self._missed, []
        return Gap(cause="beacon", first_slot=missed[0], last_slot=missed[-1]) if missed else None

    def stop(self) -> None:
        """Ends the fetching, within a moment."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def fault(self) -> str:
        """What ended the fetching, if anything did that was not foreseen, told once."""
        with self._lock:
            fault, self._fault = self._fault, ""
        return fault

    def _run(self, slot: int) -> None:
        try:
            self._watch_slots(slot)
        except Exception as e:  # noqa: BLE001 - a thread that ends unseen would leave the old seed in use
            with self._lock:
                self._fault = f"slots are not watched any more: {type(e).__name__}: {e}"
            self._tried.set()

    def _watch_slots(self, slot: int) -> None:
        while not self._stopped.is_set():
            ends = self._plan.begins(slot + 1)
            try:
                fetched = self._fetch(slot, max(0.0, ends - max(self._clock(), self._plan.begins(slot))))
            except AnchorError:
                if self._stopped.is_set():
                    return
                with self._lock:
                    self._missed.append(slot)
                self._tried.set()
                self._stopped.wait(max(0.0, ends - self._clock()))
            else:
                with self._lock:
                    self._newest = fetched
                self._tried.set()
            # Where fetching took long, or the machine slept, those between are not asked for.
            slot = max(slot + 1, self._plan.slot_at(self._clock()))

    def _fetch(self, slot: int, patience_seconds: float) -> Slot:
        signatures = []
        for relays, (_, number) in zip(self._relays, self._plan.rounds(slot), strict=True):
            had = relays.wait_for(number, cancelled=self._stopped, patience_seconds=patience_seconds)
            if had is None:
                raise AnchorError("the waiting was cancelled", where=f"slot {slot}")
            signatures.append(had.signature)
        return Slot(index=slot, signatures=tuple(signatures))
