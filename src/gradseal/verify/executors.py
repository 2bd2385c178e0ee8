"""Where replays run: the seam between the verifier and its workers.

`LocalProcess` starts one process, for native arithmetic in the recorded environment: threads, vector width,
oneDNN and MKL modes can only be set before torch is loaded. The process may crash, hang or run out of memory
on a hostile program; that ends in `WorkerDied`, never in the verifier.
"""

from __future__ import annotations

import json
import math
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, fields
from typing import IO, Any, Protocol

from gradseal import errors
from gradseal.errors import Error, ReplayError
from gradseal.program.arithmetic import Arithmetic, Exact
from gradseal.program.native import NUMERICAL_PREFIXES, Environment, attainable
from gradseal.program.seeds import Seeds
from gradseal.proof.manifest import Manifest
from gradseal.verify.distances import Distance, Distances
from gradseal.verify.outcomes import SegmentResult, Task
from gradseal.verify.symmetry import Probe, Probed, groups_to_json

_MAX_LINE_BYTES = 1 << 20
_PIPES_CLOSE_SECONDS = 5.0


class WorkerDied(ReplayError):
    """A worker ended, or was ended, before it was done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Segments to replay, and within which limits.

    Args:
        url: Where the bundle is.
        manifest: Entry 0.
        arithmetic: The recorded one.
        programs: The digest of each program by the first segment that it is in force for.
        seeds: The run's.
        tasks: The segments, in order.
        step_timeout_seconds: How long a worker may go without a sign of life.
        memory_bytes: How much address space it may use.
        replay_timeout_seconds: How long the whole request may take, or None for no limit.
        probe: Hidden units to try to permute, after the segments.
    """

    url: str
    manifest: Manifest
    arithmetic: Arithmetic
    programs: Sequence[tuple[int, bytes]]
    seeds: Seeds
    tasks: Sequence[Task]
    step_timeout_seconds: float
    memory_bytes: int
    replay_timeout_seconds: float | None = None
    probe: Probe | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A worker is ready, in this environment."""

    environment: Environment


Answer = Ready | SegmentResult | Probed


class Executor(Protocol):
    """Runs a request: the worker's environment first, then a result for each segment, then for a probe."""

    def run(self, request: Request) -> Iterator[Answer]:
        """Replays the request's segments in order.

        Raises:
            WorkerDied: The worker crashed, hung or was killed.
            Error: What the worker found wrong: see `replay.Replayer`.
        """
        ...


class LocalProcess:
    """One worker process on this machine."""

    def run(self, request: Request) -> Iterator[Answer]:
        """See `Executor`."""
        left = len(request.tasks) + (request.probe is not None)
        if not left:
            return
        lines = converse(
            "gradseal.verify.worker",
            _message(request),
            _variables(request.arithmetic),
            step_timeout_seconds=request.step_timeout_seconds,
            replay_timeout_seconds=request.replay_timeout_seconds,
        )
        with closing(lines):
            for line in lines:
                answer = _answer(line)
                if isinstance(answer, Error):
                    raise answer
                if answer is not None:
                    left -= not isinstance(answer, Ready)
                    yield answer
                if not left:
                    return


def converse(
    module: str,
    message: Mapping[str, Any],
    variables: Mapping[str, str],
    *,
    step_timeout_seconds: float,
    replay_timeout_seconds: float | None = None,
) -> Generator[bytes, None, None]:
    """Starts a worker, tells it what to do, and gives the lines that it answers; closing it ends the worker.

    Args:
        module: What the process runs.
        message: The request, which it is sent as one line of JSON.
        variables: All of its environment.
        step_timeout_seconds: How long it may go without a line.
        replay_timeout_seconds: How long it may take in all, or None for no limit.

    Raises:
        WorkerDied: It crashed, hung or was killed; whoever has all answers closes the generator before.
    """
    began = time.monotonic()
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            # -P keeps the working directory out of the import path.
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=variables,
        )
        lines: queue.Queue[bytes] = queue.Queue()
        # Both may wait for a worker that hangs, so neither is done by this thread.
        threads = [
            threading.Thread(target=_send, args=(process.stdin, message), daemon=True),
            threading.Thread(target=_read_lines, args=(process.stdout, lines), daemon=True),
        ]
        try:
            for thread in threads:
                thread.start()
            while line := _next_line(lines, step_timeout_seconds, began, replay_timeout_seconds):
                yield line
            raise WorkerDied(_last_words(process, stderr), where="worker")
        finally:
            process.kill()
            process.wait()
            for thread in threads:
                thread.join(_PIPES_CLOSE_SECONDS)


def native_variables(environment: Environment) -> dict[str, str]:
    """This process's environment variables, but those that decide bits are as `environment` says."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(NUMERICAL_PREFIXES)}
    return {**inherited, **environment.process_variables()}


def _variables(arithmetic: Arithmetic) -> dict[str, str]:
    if isinstance(arithmetic, Exact):
        return dict(os.environ)  # as the verifier has it: no setting changes a bit
    return native_variables(attainable(arithmetic))


def _next_line(lines: queue.Queue[bytes], wait: float, began: float, total: float | None) -> bytes:
    """What the worker says next; nothing once it has ended.

    Args:
        lines: What it has said.
        wait: How many seconds it may be silent.
        began: When it was started, by the monotonic clock.
        total: How many seconds it may take in all, or None for no limit.
    """
    left = wait if total is None else min(wait, max(0.0, began + total - time.monotonic()))
    try:
        if not left:
            raise queue.Empty
        return lines.get(timeout=left)
    except queue.Empty as e:
        if total is not None and time.monotonic() - began >= total:
            raise WorkerDied(f"the replays took more than {total:g} s", where="worker") from e
        raise WorkerDied(f"no step was done within {wait:g} s", where="worker") from e


def _answer(line: bytes) -> Answer | Error | None:
    """What a line says; None for a mere sign of life.

    Raises:
        WorkerDied: It is no answer; a process that was killed may leave half of one.
    """
    try:
        answer = json.loads(line)
        match answer.pop("kind"):
            case "environment":
                return Ready(environment=Environment(**answer["environment"]))
            case "segment":
                _check_seconds(answer["seconds"])
                read_state_error(answer["state"], answer["state_group"])
                lists = {name: tuple(answer[name]) for name in ("differing", "moved", "independent")}
                measured = {name: read_distances(answer[name]) for name in ("error", "update")}
                return SegmentResult(**{**answer, **lists, **measured})
            case "probe":
                return Probed(valid=_numbers(answer["valid"]))
            case "error":
                return read_error(answer)
    except (AttributeError, LookupError, TypeError, ValueError) as e:
        raise WorkerDied(f"its answer cannot be read: {line[:80]!r}", where="worker") from e
    return None


def _numbers(said: object) -> tuple[int, ...]:
    """Ascending numbers of groups."""
    if not isinstance(said, list) or not all(type(number) is int and number >= 0 for number in said):
        raise ValueError("not numbers")
    if said != sorted(set(said)):
        raise ValueError("numbers that do not ascend")
    return tuple(said)


def _check_seconds(seconds: object) -> None:
    if not isinstance(seconds, float) or not 0 <= seconds < math.inf:
        raise ValueError("not a duration")


def read_distances(said: object) -> Distances:
    """Four numbers, none below 0; JSON's NaN and Infinity are among those that a worker says.

    Raises:
        ValueError: They are not that.
    """
    if not isinstance(said, dict) or said.keys() != set(Distance):
        raise ValueError("not the four distances")
    if any(not isinstance(value, float) or value < 0 for value in said.values()):
        raise ValueError("not a distance")
    return Distances(**said)


def read_state_error(ratio: object, group: object) -> tuple[float, str]:
    """A relative error of the rest of a state, Infinity included, and the name of its group, if it is not 0.

    Raises:
        ValueError: They are not that.
    """
    if not isinstance(ratio, float) or not ratio >= 0:  # which a NaN is not
        raise ValueError("not a relative error")
    if not isinstance(group, str) or bool(group) != (ratio > 0):
        raise ValueError("not a group")
    return ratio, group


def _message(request: Request) -> dict[str, Any]:
    tasks = [{f.name: _plain(getattr(task, f.name)) for f in fields(task)} for task in request.tasks]
    message: dict[str, Any] = {
        "url": request.url,
        "manifest": request.manifest.encode().hex(),
        "programs": [[first, digest.hex()] for first, digest in request.programs],
        "seeds": [[s.first_segment, s.seed.hex()] for s in request.seeds.stretches],
        "tasks": tasks,
        "memory_bytes": request.memory_bytes,
    }
    if request.probe is not None:
        probe = request.probe
        message["probe"] = {"state": probe.state.hex(), "groups": groups_to_json(probe.groups)}
    return message


def _send(pipe: IO[bytes], message: Mapping[str, Any]) -> None:
    # A worker that ended has said why, or its silence tells.
    with suppress(OSError), pipe:
        pipe.write(json.dumps(message).encode() + b"\n")


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def _read_lines(pipe: IO[bytes], lines: queue.Queue[bytes]) -> None:
    with pipe:
        while line := pipe.readline(_MAX_LINE_BYTES):
            lines.put(line)
    lines.put(b"")


def _last_words(process: subprocess.Popen[bytes], stderr: IO[bytes]) -> str:
    code = process.wait()
    stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - 2000))
    lines = stderr.read().decode(errors="replace").strip().splitlines()
    return f"ended with status {code}" + (f": {lines[-1][:200]}" if lines else "")


def read_error(answer: dict[str, Any]) -> Error:
    """The error that a worker says it ended by; raises LookupError where it says none."""
    kind = getattr(errors, str(answer["error"]), ReplayError)
    kind = kind if isinstance(kind, type) and issubclass(kind, Error) else ReplayError
    return kind(str(answer["message"]), where=str(answer["where"]))
