"""Work that is kept: each job's result is a file, so that what was stopped goes on where it was.

A file is written whole, under a name that follows from all that decides the result: what is called, with
which arguments, by which code, on which machine. Jobs of one group run one after another in one process,
since they share what that process has made before; groups run side by side, each with one thread.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

import torch

from gradseal.errors import Error, StoreError
from gradseal.program.native import current_environment

Progress = Callable[[str, int, int], None]
_POLL_SECONDS = 0.5
_DECIDING = ("attacks", "precede", "program", "proof", "recipes", "record", "store", "study", "verify")
"""The packages on which a result depends."""
_LIBRARIES = ("numpy", "scipy", "scikit-learn")
"""Whose versions results depend on, besides torch, which the environment names."""
MAX_RESULT_BYTES = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Something to compute.

    Args:
        name: What it is, in words; no other job of a study has it.
        function: Computes it: a function at the top of a module, that returns JSON values.
        arguments: What it is called with, JSON values.
        group: Jobs of one group run in order in one process; alone if empty.
    """

    name: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any]
    group: str = ""

    def path(self, directory: Path) -> Path:
        """Where its result is kept."""
        called = f"{self.function.__module__}.{self.function.__qualname__}"
        decides = json.dumps([called, dict(self.arguments), code_digest()], sort_keys=True)
        digest = hashlib.sha256(decides.encode()).hexdigest()[:12]
        return directory / "cases" / f"{re.sub(r'[^A-Za-z0-9.]+', '-', self.name)}-{digest}.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What came of jobs.

    Args:
        results: By the jobs' names.
        failed: A line for each that ended in an error, by name, with it.
    """

    results: Mapping[str, Any]
    failed: Mapping[str, str]


@cache
def code_digest() -> str:
    """A digest of the sources, of the packages that bring attacks or policies, and of what numbers depend on.

    That is this machine, as native arithmetic sees it, and the versions of the libraries that compute.
    """
    # Jobs run with one thread each, whatever this process has.
    environment = asdict(replace(current_environment(), threads=1))
    versions = {name: _version(name) for name in _LIBRARIES}
    hashed = hashlib.sha256(json.dumps([environment, versions], sort_keys=True).encode())
    root = Path(__file__).parents[1]
    for package in _DECIDING:
        for path in sorted((root / package).rglob("*.py")):
            hashed.update(path.read_bytes())
    for group in ("gradseal.attacks", "gradseal.policies"):
        for point in sorted(entry_points(group=group), key=lambda one: one.name):
            hashed.update(f"{point.name} {point.value} {point.dist and point.dist.version}".encode())
    return hashed.hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def run_jobs(
    jobs: Sequence[Job], directory: Path, *, processes: int = 1, progress: Progress | None = None
) -> Done:
    """Computes what is not kept yet, and gives the results of all.

    Args:
        jobs: What is wanted; of those with one name the first.
        directory: Where results are kept.
        processes: How many at once, each with one thread.
        progress: Told how many jobs are done, and of how many.

    Raises:
        StoreError: The directory cannot be written.
    """
    wanted = list({job.name: job for job in reversed(jobs)}.values())[::-1]
    paths = {job.name: job.path(directory) for job in wanted}
    try:
        (directory / "cases").mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise StoreError(f"cannot be written: {e.strerror}", where=str(directory)) from e
    failed: dict[str, str] = {}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=_begin) as pool:
        groups = _grouped([job for job in wanted if not paths[job.name].exists()])
        waiting: set[Future[dict[str, str]]] = {
            pool.submit(_run, [(job, paths[job.name]) for job in group]) for group in groups
        }
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=_POLL_SECONDS)
                for future in done:
                    failed |= future.result()
                if progress is not None:
                    progress("measuring", sum(path.exists() for path in paths.values()), len(paths))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return Done(results={name: _read(path) for name, path in paths.items() if path.exists()}, failed=failed)


def _grouped(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs by group, in the order in which each group's first one stands."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.group or f"alone: {job.name}", []).append(job)
    return list(groups.values())


def _begin() -> None:
    """Begins a process of the pool: one thread, and its end once the one that started it is gone."""
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run(jobs: Sequence[tuple[Job, Path]]) -> dict[str, str]:
    """Runs in a process of the pool: a group's jobs in order, each with its file; returns what failed."""
    failed = {}
    for job, path in jobs:
        try:
            result = job.function(**job.arguments)
        except Error as e:
            failed[job.name] = e.diagnostics()
            continue
        except Exception as e:  # noqa: BLE001 - one job, perhaps another package's, must not end the others
            failed[job.name] = f"{type(e).__name__}: {e}"
            continue
        _write(path, result)
    return failed


def _write(path: Path, result: Any) -> None:
    staged = path.with_suffix(f".{os.getpid()}")
    staged.write_text(json.dumps(result), encoding="utf-8")
    os.replace(staged, path)


def _read(path: Path) -> Any:
    with open(path, "rb") as file:
        data = file.read(MAX_RESULT_BYTES + 1)
    try:
        if len(data) > MAX_RESULT_BYTES:
            raise ValueError("too large")
        return json.loads(data)
    except ValueError as e:
        raise StoreError(
            f"is no result of a study: {e}", where=str(path), advice="remove it; it is then made again"
        ) from e
