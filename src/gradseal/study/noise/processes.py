"""One process of a measurement of noise: started for a variant, asked, listened to, and ended.

What it says is read as strictly as what a verifier's worker says: the bundle that it replays is hostile.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

from gradseal.errors import ReplayError
from gradseal.precede.log import Log
from gradseal.program.native import Environment, differences
from gradseal.study.noise.numerics import Variant, to_json
from gradseal.verify.distances import Distances
from gradseal.verify.executors import (
    WorkerDied,
    converse,
    native_variables,
    read_distances,
    read_error,
    read_state_error,
)
from gradseal.verify.policy import Policy

Progress = Callable[[str, int, int], None]
Mark = tuple[int, int]
"""A segment, and steps after its start."""

WORKER = "gradseal.study.noise.worker"
SAME_AFTER = 10
"""After how many segments in which it gave the baseline's bits a variant ends: it has the same kernels."""

PLACED = 1e-4
"""How far, relatively, another order in a batch may move the first step's loss, if places do not matter."""


@dataclass(slots=True, kw_only=True)
class Run:
    """What one process said."""

    environment: Environment
    losses: dict[int, float | None] = field(default_factory=dict)
    errors: dict[Mark, Distances] = field(default_factory=dict)
    updates: dict[Mark, Distances] = field(default_factory=dict)
    rests: dict[Mark, tuple[float, str]] = field(default_factory=dict)
    equal: int = 0
    unfit: str = ""

    def same(self) -> str:
        """Why a variant is none, if all that it gave were the baseline's bits."""
        errors = [error.linf for error in self.errors.values()] + [ratio for ratio, _ in self.rests.values()]
        if any(error != 0 for error in errors):
            return ""
        return f"gave the baseline's bits at all {len(self.errors)} marks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What all processes of one measurement have in common."""

    url: str
    log: Log
    policy: Policy
    scratch: str
    marks: Mapping[int, tuple[int, ...]]
    progress: Progress | None
    shares: int
    base: Run | None = None
    done: list[str] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    def run(self, variant: Variant, wanted: Environment) -> Run:
        """Runs one variant in an environment; what it says of itself may make it unfit.

        Raises:
            Error: See `measure`; names the variant.
        """
        run = Run(environment=wanted)
        left = sum(map(len, self.marks.values())) + (len(self.marks) if self.base is None else 0)
        try:
            with closing(self._lines(variant, wanted)) as lines:
                while left and not run.unfit:
                    left -= self._take(run, variant, wanted, _parsed(next(lines)))
        except ReplayError as e:
            if isinstance(e, WorkerDied) or self.base is None:
                raise type(e)(f"{variant.name}: {e.message}", where=e.where, advice=e.advice) from e
            run.unfit = f"cannot be computed here: {e}"
        return run

    def _lines(self, variant: Variant, wanted: Environment) -> Generator[bytes, None, None]:
        return converse(
            WORKER,
            self._message(variant, wanted),
            # Threads that spin while they wait take the time of others; that changes no bit.
            {**native_variables(wanted), "OMP_WAIT_POLICY": "PASSIVE"},
            step_timeout_seconds=self.policy.step_timeout_seconds,
            replay_timeout_seconds=self.policy.replay_timeout_seconds,
        )

    def _message(self, variant: Variant, wanted: Environment) -> dict[str, Any]:
        log, seeds = self.log, self.log.seeds()
        stretches = seeds.stretches if seeds else []
        tasks = [
            {
                "segment": segment,
                "start": log.seals[segment].hex(),
                "end": log.seals[segment + 1].hex(),
                "losses": log.segments[segment].losses.hex(),
                "marks": list(marks),
            }
            for segment, marks in self.marks.items()
        ]
        return {
            "url": self.url,
            "manifest": log.manifest.encode().hex(),
            "programs": [[first, digest.hex()] for first, digest in log.programs()],
            "seeds": [[s.first_segment, s.seed.hex()] for s in stretches],
            "memory_bytes": self.policy.memory_bytes,
            "tasks": tasks,
            "wanted": asdict(wanted),
            "variant": to_json(variant),
            "base": self.base is None,
            "scratch": self.scratch,
        }

    def _take(self, run: Run, variant: Variant, wanted: Environment, said: dict[str, Any]) -> bool:
        """Takes what a worker said; whether it was one of the answers that are waited for."""
        try:
            match said["kind"]:
                case "environment":
                    run.environment = Environment(**said["environment"])
                    run.unfit = "" if self.base is None else _lacking(variant, wanted, run.environment)
                case "loss":
                    run.losses[said["segment"]] = said["loss"]
                    run.unfit = self._placed(variant, said["segment"], said["loss"])
                case "mark":
                    self._take_mark(run, variant, said)
                    return True
                case "sealed":
                    run.equal += said["equal"] is True
                    return True
                case "error":
                    raise read_error(said)
        except (AttributeError, LookupError, TypeError, ValueError) as e:
            raise WorkerDied(f"its answer cannot be read: {str(said)[:80]}", where="worker") from e
        return False

    def _take_mark(self, run: Run, variant: Variant, said: dict[str, Any]) -> None:
        segment, step = mark = said["segment"], said["step"]
        if step not in self.marks[segment] or mark in run.errors:
            raise ValueError("not a mark")
        run.errors[mark] = read_distances(said["error"])
        if self.base is None:
            run.updates[mark] = read_distances(said["update"])
        elif step == self._steps(segment):
            run.rests[mark] = read_state_error(said["state"], said["state_group"])
        elif "state" in said:
            raise ValueError("not the end of a segment")
        if self.base is not None and len({number for number, _ in run.errors}) > SAME_AFTER:
            run.unfit = run.same()
        if step == self.marks[segment][-1] and self.progress is not None:
            with self.lock:
                self.done.append(variant.name)
                done = len(self.done)
            self.progress(f"replaying: {variant.name}", done, self.shares * len(self.marks))

    def _steps(self, segment: int) -> int:
        return len(self.log.manifest.plan.steps_of(segment))

    def _placed(self, variant: Variant, segment: int, loss: float | None) -> str:
        """Why another order is another computation, if the first step's loss shows it."""
        if self.base is None or not variant.reorder:
            return ""
        own = self.base.losses[segment]
        if own is None or loss is None:
            return "" if own == loss else "the loss is a number in one order only"
        if abs(own - loss) <= PLACED * abs(own):
            return ""
        return f"the loss depends on places in the batch: {loss:.6g}, not {own:.6g}, in segment {segment}"


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except ValueError as e:
        raise WorkerDied(f"its answer cannot be read: {line[:80]!r}", where="worker") from e
    if not isinstance(said, dict):
        raise WorkerDied(f"its answer cannot be read: {line[:80]!r}", where="worker")
    return said


def _lacking(variant: Variant, wanted: Environment, had: Environment) -> str:
    """What of a variant its process did not get."""
    wrong = {n: pair for n, pair in differences(wanted, had).items() if n in variant.environment}
    return "; ".join(f"{name} {a} is not to be had here, but {b}" for name, (a, b) in wrong.items())
