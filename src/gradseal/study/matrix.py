"""The matrix: every attack against every policy, over seeds, in native and exact arithmetic.

Each case is a file of its own, written whole and under a name that follows from all that decides its result,
so that a run that was stopped goes on where it was, and one with other settings starts anew. Cases of one
victim run one after another in one process, processes side by side.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from gradseal.attacks.attack import Attack, Setting
from gradseal.attacks.catalogue import load_attack
from gradseal.errors import Error, StoreError
from gradseal.recipes.recipe import load_recipe
from gradseal.study.cases import Case
from gradseal.study.columns import POLICIES
from gradseal.study.proportions import proportion_bounds
from gradseal.study.suite import Suite

Progress = Callable[[str, int, int], None]
_POLL_SECONDS = 0.5
_DECIDING = ("attacks", "precede", "program", "proof", "recipes", "record", "store", "study", "verify")
"""The packages on which a case depends."""
FIRST_SEED = 101
"""Of the victims; attacks were tuned on others."""
_MAX_CASE_BYTES = 1 << 22


@cache
def code_digest() -> str:
    """A digest of the sources, of torch's version, and of the packages that bring attacks or policies."""
    hashed = hashlib.sha256(torch.__version__.encode())
    root = Path(__file__).parents[1]
    for package in _DECIDING:
        for path in sorted((root / package).rglob("*.py")):
            hashed.update(path.read_bytes())
    for group in ("gradseal.attacks", "gradseal.policies"):
        for point in sorted(entry_points(group=group), key=lambda one: one.name):
            hashed.update(f"{point.name} {point.value} {point.dist and point.dist.version}".encode())
    return hashed.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a matrix is made of.

    Args:
        attacks: Their names; the rows.
        policies: Their names; the columns.
        arithmetics: `native`, `exact` or both.
        seeds: How many victims, each with a seed of its own.
        slow_seeds: How many of them the slow attacks get.
        setting: The size of a run.
        recipe: What is trained.
    """

    attacks: tuple[str, ...]
    policies: tuple[str, ...] = POLICIES
    arithmetics: tuple[str, ...] = ("native", "exact")
    seeds: int = 5
    slow_seeds: int = 1
    setting: Setting = field(default_factory=Setting)
    recipe: str = "digits"

    def cases(self) -> Iterator[tuple[str, str, int]]:
        """Each attack, arithmetic and seed, those of one victim together."""
        slow = {name: load_attack(name).slow for name in self.attacks}
        for arithmetic in self.arithmetics:
            for number in range(self.seeds):
                for name in self.attacks:
                    if number < self.slow_seeds or not slow[name]:
                        yield name, arithmetic, FIRST_SEED + number

    def path(self, directory: Path, attack: str, arithmetic: str, seed: int) -> Path:
        """Where the case of this attack is kept."""
        same = {"setting": asdict(self.setting), "policies": self.policies, "recipe": self.recipe}
        decides = json.dumps({**same, "code": code_digest()}, sort_keys=True)
        digest = hashlib.sha256(decides.encode()).hexdigest()[:12]
        return directory / "cases" / f"{attack.replace(' ', '-')}-{arithmetic}-{seed}-{digest}.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One attack against one policy.

    Args:
        passed: In how many seeds the policy accepted it.
        of: Of how many.
        low: The lower end of the 95 % confidence interval of the rate (Clopper and Pearson 1934).
        high: The upper end.
        outcomes: How often each outcome came.
        check: The check that decided most often where it did not pass, or the claim that was not shown.
        said: What was said of it, once.
        replayed: The median number of replayed segments.
    """

    passed: int
    of: int
    low: float
    high: float
    outcomes: Mapping[str, int]
    check: str
    said: str
    replayed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One attack in one arithmetic.

    Args:
        attack: Its name.
        arithmetic: Which.
        seeds: How many.
        cells: By policy.
        steps: The median of the claimed steps.
        distance: The median distance to the stolen parameters, as a share of d_ref; None if it steals none.
        gradients: The median of gradients as a share of what an honest run of the claimed steps computes.
        gradients_victim: As a share of the victim's.
        flops: The median of floating-point operations as a share of the claimed run's.
        flops_victim: As a share of the victim's.
        seconds_victim: The median of the time as a share of the victim's.
        accuracy: What the recipe says of the weights of the first seed.
        notes: The means of what the attack itself counted.
    """

    attack: str
    arithmetic: str
    seeds: int
    cells: Mapping[str, Cell]
    steps: float
    distance: float | None
    gradients: float
    gradients_victim: float
    flops: float
    flops_victim: float
    seconds_victim: float
    accuracy: str
    notes: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """The whole table.

    Args:
        plan: What it is made of.
        rows: In the plan's order, native before exact.
        failed: Cases that ended in an error, with it; their cells lack a seed.
        seconds: How long this run took; less than all, if it went on with an earlier one.
    """

    plan: Plan
    rows: tuple[Row, ...]
    failed: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Its JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Matrix:
        """From its JSON form."""
        plan = dict(value["plan"])
        lists = {name: tuple(plan[name]) for name in ("attacks", "policies", "arithmetics")}
        rows = tuple(
            Row(**{**row, "cells": {policy: Cell(**cell) for policy, cell in row["cells"].items()}})
            for row in value["rows"]
        )
        made = Plan(**{**plan, **lists, "setting": Setting(**plan["setting"])})
        return cls(plan=made, rows=rows, failed=tuple(value["failed"]), seconds=value["seconds"])


def run_matrix(plan: Plan, directory: Path, *, jobs: int = 1, progress: Progress | None = None) -> Matrix:
    """Makes all cases that are not there yet, and the table of all of them.

    Args:
        plan: What it is made of.
        directory: Where the cases are kept.
        jobs: How many processes, each with one thread.
        progress: Told how many cases are done, and of how many.

    Raises:
        Error: An attack is not known.
        StoreError: The directory cannot be written.
    """
    began = time.monotonic()
    shown = progress or (lambda what, done, total: None)
    cases = list(plan.cases())
    paths = [plan.path(directory, *case) for case in cases]
    try:
        (directory / "cases").mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise StoreError(f"cannot be written: {e.strerror}", where=str(directory)) from e
    failed: list[str] = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_end_with_parent) as pool:
        waiting: set[Future[list[str]]] = {
            pool.submit(_run_victim, plan, directory, arithmetic, seed, names)
            for (arithmetic, seed), names in _by_victim(plan, directory, cases).items()
        }
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=_POLL_SECONDS)
                failed += [line for future in done for line in future.result()]
                shown("judging attacks", sum(path.exists() for path in paths), len(paths))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    found = [_read(path) for path in paths if path.exists()]
    rows = tuple(_rows(plan, found))
    return Matrix(plan=plan, rows=rows, failed=tuple(failed), seconds=time.monotonic() - began)


def _by_victim(
    plan: Plan, directory: Path, cases: Sequence[tuple[str, str, int]]
) -> dict[tuple[str, int], list[str]]:
    """What is not there yet, by victim."""
    missing: dict[tuple[str, int], list[str]] = {}
    for name, arithmetic, seed in cases:
        if not plan.path(directory, name, arithmetic, seed).exists():
            missing.setdefault((arithmetic, seed), []).append(name)
    return missing


def _end_with_parent() -> None:
    """Ends this process of the pool once the one that started it is gone, however it went."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run_victim(plan: Plan, directory: Path, arithmetic: str, seed: int, names: Sequence[str]) -> list[str]:
    """Runs in a process of the pool: all attacks on one victim; returns what failed, a line each."""
    torch.set_num_threads(1)
    suite = Suite(load_recipe(plan.recipe), plan.setting, plan.policies)
    failed = []
    for name in names:
        attack = load_attack(name)
        try:
            case = suite.judge(attack, seed=seed, exact=arithmetic == "exact")
        except Error as e:
            failed.append(f"{name}, {arithmetic}, seed {seed}: {e.diagnostics()}")
            continue
        except Exception as e:  # noqa: BLE001 - one attack, perhaps another package's, must not end the others
            failed.append(f"{name}, {arithmetic}, seed {seed}: {type(e).__name__}: {e}")
            continue
        _write(plan.path(directory, name, arithmetic, seed), case)
    return failed


def _write(path: Path, case: Case) -> None:
    staged = path.with_suffix(f".{os.getpid()}")
    staged.write_text(json.dumps(case.to_json()), encoding="utf-8")
    os.replace(staged, path)


def _read(path: Path) -> Case:
    return Case.from_json(json.loads(path.read_text(encoding="utf-8")))


def _rows(plan: Plan, cases: Sequence[Case]) -> Iterator[Row]:
    by_row: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        by_row.setdefault((case.attack, case.arithmetic), []).append(case)
    for name in plan.attacks:
        for arithmetic in plan.arithmetics:
            if own := by_row.get((name, arithmetic)):
                yield _row(plan, load_attack(name), arithmetic, own)


def _row(plan: Plan, attack: Attack, arithmetic: str, cases: Sequence[Case]) -> Row:
    def share(part: Callable[[Case], float], whole: Callable[[Case], float]) -> float:
        return median(part(case) / whole(case) if whole(case) else math.nan for case in cases)

    distances = [case.distance for case in cases if case.distance is not None]
    noted = {name for case in cases for name in case.notes}
    return Row(
        attack=attack.name,
        arithmetic=arithmetic,
        seeds=len(cases),
        cells={policy: _cell(policy, cases) for policy in plan.policies},
        steps=median(case.steps for case in cases),
        distance=median(distances) if distances else None,
        gradients=share(lambda c: c.cost.gradients, lambda c: c.claimed.gradients),
        gradients_victim=share(lambda c: c.cost.gradients, lambda c: c.victim.gradients),
        flops=share(lambda c: c.cost.flops, lambda c: c.claimed.flops),
        flops_victim=share(lambda c: c.cost.flops, lambda c: c.victim.flops),
        seconds_victim=share(lambda c: c.cost.seconds, lambda c: c.victim.seconds),
        accuracy=cases[0].accuracy,
        notes={
            name: fmean(case.notes[name] for case in cases if name in case.notes) for name in sorted(noted)
        },
    )


def _cell(policy: str, cases: Sequence[Case]) -> Cell:
    judged = [one for case in cases for one in case.judged if one.policy == policy]
    passed = sum(one.passed for one in judged)
    against = [one for one in judged if not one.passed]
    decided = Counter(one.check or f"{one.claim} not shown" for one in against).most_common(1)
    check = decided[0][0] if decided else ""
    low, high = proportion_bounds(passed, len(judged))
    return Cell(
        passed=passed,
        of=len(judged),
        low=low,
        high=high,
        outcomes=dict(Counter(one.outcome for one in judged)),
        check=check,
        said=next((one.said for one in against if (one.check or f"{one.claim} not shown") == check), ""),
        replayed=median(one.replayed for one in judged),
    )
