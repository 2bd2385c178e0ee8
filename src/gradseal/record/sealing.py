"""Sealing states behind the training's back.

A segment's end is copied, and a thread of its own hashes, stores and publishes the copy while the next
segment is trained: one at a time and in order, so there is at most one copy of the state, and what is
published is always a whole prefix of the log. What goes wrong there is raised at the next seal, or at the
end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from gradseal.program.memory import view_of
from gradseal.proof.entries import Close, Initial, Segment, encode_losses
from gradseal.proof.writer import BundleWriter


class Sealing:
    """Seals the states of one run.

    Args:
        writer: The run's log.
    """

    def __init__(self, writer: BundleWriter) -> None:
        self._writer = writer
        self._thread: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None

    def initial(self, state: Mapping[str, torch.Tensor]) -> None:
        """Seals and publishes state zero; returns once it is durable."""
        self._writer.append(Initial(seal=self._seal(state.values())))
        self._writer.publish()

    def segment(
        self, index: int, steps: range, losses: Sequence[float], state: Mapping[str, torch.Tensor]
    ) -> None:
        """Seals the state at a segment's end, later; waits for the seal before it.

        Args:
            index: The segment's number.
            steps: Its steps.
            losses: Their losses.
            state: Every tensor in the layout's order; copied before this returns.

        Raises:
            StoreError: An earlier state could not be stored.
        """
        self.wait()
        copied = [tensor.detach().to("cpu", copy=True) for tensor in state.values()]
        said = list(losses)

        def write() -> None:
            named = self._writer.put(encode_losses(said))
            self._writer.append(
                Segment(
                    index=index,
                    first_step=steps.start,
                    steps=len(steps),
                    seal=self._seal(copied),
                    losses=named,
                )
            )
            self._writer.publish()

        self._later(write)

    def close(self, segments: int, weights: bytes) -> None:
        """Stores the released weights and closes the log; returns once it is durable."""
        self.wait()
        self._writer.append(Close(segments=segments, weights=self._writer.release(weights)))
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
