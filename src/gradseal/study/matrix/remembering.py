"""Replays that several policies ask for, made once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from gradseal.verify.executors import Ready, Request
from gradseal.verify.in_process import InProcess
from gradseal.verify.outcomes import SegmentResult, Task

_UNASKED: Mapping[str, Any] = MappingProxyType(
    {"moved": (), "independent": (), "dependence": None, "least_dependent": ""}
)
"""What a result tells of the seed if it was not replayed under another."""


class Remembering:
    """An executor that replays each task once, whichever policy asks; for one bundle.

    `request` is what it was asked last; None before.
    """

    def __init__(self) -> None:
        self._inner = InProcess()
        self._ready: Ready | None = None
        self._known: dict[Task, SegmentResult] = {}
        self.request: Request | None = None

    @property
    def results(self) -> dict[int, SegmentResult]:
        """Of the segments that were replayed, by number."""
        return {task.segment: result for task, result in self._known.items()}

    def run(self, request: Request) -> Iterator[Ready | SegmentResult]:
        """See `Executor`."""
        self.request = request
        tasks = [task if task.other_seed else replace(task, seed_floor=0.0) for task in request.tasks]
        new = {task.segment: task for task in tasks if task not in self._known}
        fresh = self._inner.run(replace(request, tasks=list(new.values())))
        for answer in fresh if new or self._ready is None else ():
            if isinstance(answer, Ready):
                self._ready = answer
            elif isinstance(answer, SegmentResult):
                task = new[answer.segment]
                self._known[task] = answer
                plain = replace(task, other_seed=b"", seed_floor=0.0)
                self._known.setdefault(plain, replace(answer, **_UNASKED))
        if self._ready is not None:
            yield self._ready
        for task in tasks:
            yield self._known[task]
