"""Sealing states behind the training's back.

A segment's end is copied, and a thread of its own hashes, stores and publishes the copy while the next
segment is trained: one at a time and in order, so what is published is always a whole prefix of the log.
There is one copy of the state at most, and whoever needs one in between waits for the seal and gets that
memory. What goes wrong in the thread is raised at the next seal or copy, or at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from gradseal.program.memory import view_of
from gradseal.program.tensors import TensorSpec
from gradseal.proof.entries import Close, Entry, Initial, Segment, encode_losses
from gradseal.proof.writer import BundleWriter
from gradseal.record.spare import Spare


class Sealing:
    """Seals the states of one run.

    Args:
        writer: The run's log.
        layout: What the state's tensors are.
    """

    def __init__(self, writer: BundleWriter, layout: Sequence[TensorSpec]) -> None:
        self._writer = writer
        self._spare = Spare(layout)
        self._thread: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None

    def initial(self, state: Mapping[str, torch.Tensor], before: Sequence[Entry] = ()) -> None:
        """Seals and publishes state zero, behind these entries; returns once it is durable."""
        for entry in before:
            self._writer.append(entry)
        self._writer.append(Initial(seal=self._seal(state.values())))
        self._writer.publish()

    def segment(
        self,
        index: int,
        steps: range,
        losses: Sequence[float],
        state: Mapping[str, torch.Tensor],
        before: Sequence[Entry] = (),
    ) -> None:
        """Seals the state at a segment's end, later; waits for the seal before it.

        Args:
            index: The segment's number.
            steps: Its steps.
            losses: Their losses.
            state: Every tensor in the layout's order; copied before this returns.
            before: The entries that come before it: slots, gaps, amendments.

        Raises:
            StoreError: An earlier state could not be stored.
        """
        self.wait()
        copied, said, first = self._spare.copy_of(state), list(losses), list(before)

        def write() -> None:
            named = self._writer.put(encode_losses(said))
            for entry in first:
                self._writer.append(entry)
            self._writer.append(
                Segment(
                    index=index,
                    first_step=steps.start,
                    steps=len(steps),
                    seal=self._seal(copied.values()),
                    losses=named,
                )
            )
            self._writer.publish()

        self._later(write)

    def copy_of(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A copy of the state on its own device, good until the next seal or copy.

        Args:
            state: Every tensor in the layout's order.

        Raises:
            StoreError: An earlier state could not be stored.
        """
        if any(tensor.device.type != "cpu" for tensor in state.values()):
            return {name: tensor.clone() for name, tensor in state.items()}
        self.wait()
        return self._spare.copy_of(state)

    def close(self, segments: int, weights: Callable[[], bytes], before: Sequence[Entry] = ()) -> None:
        """Stores the released weights and closes the log; returns once it is durable.

        Args:
            segments: How many segments the run had.
            weights: Makes the released file, once there is no copy of the state any more.
            before: The entries that come before it: gaps.
        """
        self.wait()
        self._spare.give_back()
        for entry in before:
            self._writer.append(entry)
        self._writer.append(Close(segments=segments, weights=self._writer.release(weights())))
        self._writer.publish()

    def wait(self) -> None:
        """Returns once everything so far is durable; raises what went wrong."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def stop(self) -> None:
        """Ends the thread, once what it is at is done."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def _later(self, work: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="gradseal-sealing")
        self._pending = self._thread.submit(work)

    def _seal(self, tensors: Iterable[torch.Tensor]) -> bytes:
        return self._writer.seal([self._writer.put(view_of(t)) for t in tensors])
