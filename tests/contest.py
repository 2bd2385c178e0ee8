"""Owners who fork their logs, each branch submitted by a thread of its own, and what witnesses made of it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx

from forked_log import Branch, origin_of
from gradseal.proof.note import open_note
from gradseal.proof.submission import SIZE_TYPE, parse_size
from witness_server import WITNESS

BRANCH_SIZE = 400


@dataclass(frozen=True)
class Cosigned:
    """One cosignature that somebody got."""

    origin: str
    size: int
    root: bytes
    timestamp: int


@dataclass
class Contest:
    """Branches of some logs, and what was cosigned of each.

    Args:
        branches: By log, the histories that are submitted at the same time.
        urls: Gives the witnesses that there are now.
    """

    branches: Sequence[Sequence[Branch]]
    urls: Callable[[], Sequence[str]]
    cosigned: list[Cosigned] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    @classmethod
    def make(cls, urls: Callable[[], Sequence[str]], *, logs: int, forks: int, first: int = 1) -> Contest:
        """A contest of logs whose branches part at the beginning, after some entries, or after more."""
        return cls(
            [
                [
                    Branch(f"{fork}-", BRANCH_SIZE, shared=7 * log, origin=origin_of(first + log))
                    for fork in range(forks)
                ]
                for log in range(logs)
            ],
            urls,
        )

    def run(self, submissions: int, meanwhile: Callable[[], None] = lambda: None) -> None:
        """So many submissions of each branch, while something else is done."""
        self._threads = threads = [
            threading.Thread(target=self._submit, args=(branch, submissions, seed))
            for log in self.branches
            for seed, branch in enumerate(log)
        ]
        for thread in threads:
            thread.start()
        try:
            meanwhile()
        finally:
            for thread in threads:
                thread.join(timeout=120)
        assert not any(thread.is_alive() for thread in threads)

    def wait_for(self, more: int) -> None:
        """Until so many more were cosigned, or the contest is over."""
        wanted = len(self.cosigned) + more
        while len(self.cosigned) < wanted and any(thread.is_alive() for thread in self._threads):
            threading.Event().wait(0.005)

    def check(self) -> None:
        """One branch of each log was cosigned and no other, and times grew with sizes."""
        assert self.unexpected == []
        for log in self.branches:
            found = sorted(
                (one for one in self.cosigned if one.origin == log[0].origin),
                key=lambda one: (one.timestamp, one.size),
            )
            assert found, "nothing was cosigned"
            winners = [
                branch for branch in log if all(branch.tree.root(one.size) == one.root for one in found)
            ]
            assert winners, f"a fork of {log[0].origin} was cosigned"
            assert [one.size for one in found] == sorted(one.size for one in found)

    def largest(self, log: Sequence[Branch]) -> int:
        """The largest size that was cosigned of a log."""
        return max(one.size for one in self.cosigned if one.origin == log[0].origin)

    def _submit(self, branch: Branch, submissions: int, seed: int) -> None:
        chance = random.Random(seed)
        believed = size = 0
        with httpx.Client(timeout=20, trust_env=False) as client:
            for _ in range(submissions):
                size = min(BRANCH_SIZE, max(size, believed) + chance.randrange(3))
                if believed > size:
                    continue
                body = branch.submission(believed, size).encode()
                try:
                    url = chance.choice(self.urls())
                    answer = client.post(f"{url}/add-checkpoint", content=body)
                except httpx.HTTPError:
                    # The witness was killed; what it cosigned last is not known until it is back.
                    threading.Event().wait(0.05)
                    continue
                believed = self._take(branch, size, believed, answer)

    def _take(self, branch: Branch, size: int, believed: int, answer: httpx.Response) -> int:
        if answer.status_code == 200:
            note = open_note(branch.note(size).text.encode() + b"\n" + answer.content, where="answer")
            time = WITNESS.verification_key.cosigned_at(note)
            if time is None:
                self.unexpected.append(f"not a cosignature: {answer.text}")
            else:
                self.cosigned.append(Cosigned(branch.origin, size, branch.tree.root(size), time))
            return size
        if answer.status_code == 409 and answer.headers["content-type"] == SIZE_TYPE:
            return parse_size(answer.content, where="answer")
        if answer.status_code not in (422, 503):
            self.unexpected.append(f"{answer.status_code} {answer.text}")
        return believed


def size_held(url: str, branch: Branch) -> int:
    """The size that a witness cosigned last, as it says itself."""
    body = branch.submission(BRANCH_SIZE, BRANCH_SIZE).encode()
    answer = httpx.post(f"{url}/add-checkpoint", content=body, trust_env=False)
    assert answer.status_code == 409, answer.text
    return parse_size(answer.content, where="answer")
