"""Batches: nothing is answered before it is durable, and nobody waits for ever, whatever a database does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection, Mapping

import pytest

from forked_log import Branch, origin_of
from gradseal.errors import StoreError
from gradseal.proof.submission import Submission
from gradseal.witness import batching
from gradseal.witness.batching import Batcher
from gradseal.witness.metrics import Metrics
from gradseal.witness.state import Latest, Refused
from gradseal.witness.storage import Decide, Listing, RolledBack

A = Branch("a", 20)


class MemoryStorage:
    """What a database does, and what a test wants it to do before and after a commit."""

    identity = "0" * 32
    counter = 0

    def __init__(self) -> None:
        self.logs: dict[str, Latest] = {}
        self.commits: list[int] = []
        self.before: Callable[[], object] = lambda: None
        self.after: Callable[[], object] = lambda: None
        self.closed = False

    def advance(self, origins: Collection[str], decide: Decide) -> None:
        self.before()
        changed: Mapping[str, Latest] = decide(dict(self.logs))
        self.logs.update(changed)
        self.counter += bool(changed)
        self.commits.append(len(changed))
        self.after()

    def newest(self, limit: int) -> Listing:
        return Listing(total=len(self.logs), logs=tuple(self.logs.items())[:limit])

    def close(self) -> None:
        self.closed = True


def fail_once(error: BaseException) -> Callable[[], None]:
    left = [error]

    def fail() -> None:
        if left:
            raise left.pop()

    return fail


def run(storage: MemoryStorage, scenario: Callable[[Batcher], Awaitable[None]]) -> None:
    async def whole() -> None:
        batcher = Batcher(storage, Metrics(), clock=lambda: 1_800_000_000.9)
        running = asyncio.create_task(batcher.run())
        try:
            await asyncio.wait_for(scenario(batcher), timeout=30)
        finally:
            batcher.stop()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(whole())
    assert storage.closed


def others(number: int) -> list[Submission]:
    return [Branch("x", 3, origin=origin_of(n)).submission(0, 3) for n in range(100, 100 + number)]


def test_nothing_is_answered_before_its_batch_is_durable() -> None:
    storage, released = MemoryStorage(), threading.Event()
    storage.after = lambda: released.wait(20)

    async def scenario(batcher: Batcher) -> None:
        accepted = asyncio.create_task(batcher.submit(A.submission(0, 5)))
        refused = asyncio.create_task(batcher.submit(A.submission(3, 7)))
        done, _ = await asyncio.wait({accepted, refused}, timeout=0.2)
        assert not done
        released.set()
        assert await accepted == Latest(size=5, root=A.tree.root(5), timestamp=1_800_000_000)
        outcome = await refused
        assert isinstance(outcome, Refused)
        assert outcome.size == 5

    run(storage, scenario)


def test_what_comes_in_meanwhile_is_committed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, released = MemoryStorage(), threading.Event()
    storage.before = lambda: released.wait(20)
    monkeypatch.setattr(batching, "MAX_BATCH", 8)

    async def scenario(batcher: Batcher) -> None:
        waiting = [asyncio.create_task(batcher.submit(s)) for s in others(1)]
        await asyncio.sleep(0.05)
        waiting += [asyncio.create_task(batcher.submit(s)) for s in others(13)[1:]]
        await asyncio.sleep(0.05)
        released.set()
        assert all(isinstance(outcome, Latest) for outcome in await asyncio.gather(*waiting))

    run(storage, scenario)
    assert storage.commits == [1, 8, 4]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_batch_that_may_not_be_durable_is_not_answered_and_asking_again_is_right(moment: str) -> None:
    storage = MemoryStorage()
    setattr(storage, moment, fail_once(StoreError("no disk")))

    async def scenario(batcher: Batcher) -> None:
        with pytest.raises(StoreError, match="no disk"):
            await batcher.submit(A.submission(0, 5))
        outcome = await batcher.submit(A.submission(0, 5))
        if isinstance(outcome, Refused):
            assert outcome.size == 5
            outcome = await batcher.submit(A.submission(5, 5))
        assert isinstance(outcome, Latest)

    run(storage, scenario)
    assert storage.logs[A.origin].size == 5


def test_a_database_that_went_back_is_not_asked_again() -> None:
    storage = MemoryStorage()
    storage.before = fail_once(RolledBack("went back"))

    async def scenario(batcher: Batcher) -> None:
        waiting = [asyncio.create_task(batcher.submit(s)) for s in others(3)]
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(outcome, RolledBack) for outcome in outcomes)
        for asking in (batcher.submit(A.submission(0, 5)), batcher.newest(5)):
            with pytest.raises(RolledBack):
                await asking

    run(storage, scenario)
    assert storage.logs == {}


def test_a_bug_leaves_nobody_waiting() -> None:
    storage = MemoryStorage()
    storage.before = fail_once(ZeroDivisionError())

    async def scenario(batcher: Batcher) -> None:
        for submission in others(2):
            with pytest.raises(StoreError):
                await batcher.submit(submission)

    run(storage, scenario)


def test_told_to_stop_it_answers_those_that_wait_and_takes_no_more() -> None:
    storage, released = MemoryStorage(), threading.Event()
    storage.before = lambda: released.wait(20)

    async def scenario(batcher: Batcher) -> None:
        waiting = [asyncio.create_task(batcher.submit(s)) for s in others(3)]
        await asyncio.sleep(0.05)
        batcher.stop()
        with pytest.raises(StoreError, match="stopping"):
            await batcher.submit(A.submission(0, 5))
        released.set()
        assert all(isinstance(outcome, Latest) for outcome in await asyncio.gather(*waiting))

    run(storage, scenario)


def test_who_goes_away_does_not_disturb_the_others() -> None:
    storage, released = MemoryStorage(), threading.Event()
    storage.before = lambda: released.wait(20)

    async def scenario(batcher: Batcher) -> None:
        gone, *waiting = [asyncio.create_task(batcher.submit(s)) for s in others(3)]
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.sleep(0)
        released.set()
        assert all(isinstance(outcome, Latest) for outcome in await asyncio.gather(*waiting))

    run(storage, scenario)
    assert len(storage.logs) == 3


def test_too_many_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, released = MemoryStorage(), threading.Event()
    storage.before = lambda: released.wait(20)
    monkeypatch.setattr(batching, "MAX_WAITING", 2)

    async def scenario(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.submit(others(1)[0]))
        await asyncio.sleep(0.05)
        waiting = [asyncio.create_task(batcher.submit(s)) for s in others(3)[1:]]
        await asyncio.sleep(0.05)
        outcome = await batcher.submit(A.submission(0, 5))
        assert isinstance(outcome, Refused)
        assert outcome.status == 503
        released.set()
        assert all(isinstance(outcome, Latest) for outcome in await asyncio.gather(first, *waiting))

    run(storage, scenario)
