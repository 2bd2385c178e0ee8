"""Submissions committed together: one durable write for all that came in while the last one was under way.

Guarantees that nothing is answered before its batch is durable, refusals included, since they may rest on
what the batch changes; that submissions are decided in the order in which they came; and that a batch of
which nobody knows whether it is durable is answered with an error. A database that went back stops the
witness for good.

A thread of its own makes every use of the database, so that the event loop never waits for a disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from gradseal.errors import StoreError
from gradseal.proof.submission import Submission
from gradseal.witness.mark import Mark
from gradseal.witness.metrics import Metrics
from gradseal.witness.state import Latest, Refused, decide_all
from gradseal.witness.storage import Listing, RolledBack, Storage

MAX_BATCH = 256
"""The most submissions in one commit."""

MAX_WAITING = 4096
"""The most submissions that wait; more are turned away."""

_log = logging.getLogger(__name__)

_Waiting = tuple[Submission, "asyncio.Future[Latest | Refused]"]


class Batcher:
    """Takes submissions and gives their outcomes, once these are durable.

    Args:
        storage: Where to commit; closed by `run` at its end.
        metrics: What to count in.
        mark: Where to note how far the database is, if anywhere.
        clock: The time, in seconds of Unix time.
    """

    def __init__(
        self,
        storage: Storage,
        metrics: Metrics,
        *,
        mark: Mark | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._storage = storage
        self._metrics = metrics
        self._mark = mark
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._refusing: StoreError | None = None
        self._thread = ThreadPoolExecutor(1, "witness-database")

    async def submit(self, submission: Submission) -> Latest | Refused:
        """The outcome of a submission whose log's signature is verified.

        Raises:
            StoreError: It could not be made durable, or the witness stops. It may be durable all the same.
        """
        if self._refusing:
            raise self._refusing
        if len(self._waiting) >= MAX_WAITING:
            return Refused(status=503, reason="too many submissions are waiting")
        outcome: asyncio.Future[Latest | Refused] = asyncio.get_running_loop().create_future()
        self._waiting.append((submission, outcome))
        self._wake.set()
        return await outcome

    async def newest(self, limit: int) -> Listing:
        """The logs that were cosigned last.

        Raises:
            StoreError: They cannot be read.
        """
        if self._refusing:
            raise self._refusing
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._storage.newest, limit)

    def stop(self) -> None:
        """Take no more submissions; `run` ends once those that wait are answered."""
        self._refusing = self._refusing or StoreError("this witness is stopping")
        self._wake.set()

    async def run(self) -> None:
        """Commit batches until stopped, and let go of the database."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting or not self._refusing:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    await self._commit_next(loop)
        finally:
            self.stop()
            for _, outcome in self._waiting:
                _fail(outcome, StoreError("this witness is stopping"))
            await loop.run_in_executor(self._thread, self._close)
            self._thread.shutdown()

    async def _commit_next(self, loop: asyncio.AbstractEventLoop) -> None:
        batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
        self._metrics.batch.observe(len(batch))
        self._metrics.waiting.set(len(self._waiting))
        failure = StoreError("the witness failed")
        try:
            if isinstance(self._refusing, RolledBack):
                raise self._refusing
            outcomes = await loop.run_in_executor(self._thread, self._commit, [s for s, _ in batch])
            self._metrics.changes.set(self._storage.counter)
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if not future.done():  # whoever asked may have gone
                    future.set_result(outcome)
        except StoreError as e:
            _log.error("%d submissions are not answered: %s", len(batch), e)
            self._metrics.failures.inc()
            if isinstance(e, RolledBack):
                self._refusing = e
            failure = e
        finally:
            for _, future in batch:
                _fail(future, failure)

    def _commit(self, submissions: list[Submission]) -> list[Latest | Refused]:
        outcomes: list[Latest | Refused] = []

        def decide(latest: Mapping[str, Latest]) -> Mapping[str, Latest]:
            outcomes[:], changed = decide_all(latest, submissions, int(self._clock()))
            return changed

        self._storage.advance({s.checkpoint.origin for s in submissions}, decide)
        if self._mark:
            self._mark.write(self._storage)
        return outcomes

    def _close(self) -> None:
        try:
            if self._mark and not isinstance(self._refusing, RolledBack):
                self._mark.write(self._storage, now=True)
        finally:
            self._storage.close()


def _fail(future: asyncio.Future[Latest | Refused], error: StoreError) -> None:
    if not future.done():
        future.set_exception(error)
