"""The matrix: every attack against every policy, over seeds, in native and exact arithmetic.

A case is a job: one attack in one arithmetic on one victim, judged by all policies. Cases of one victim run
one after another in one process, which trains him once.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from gradseal.attacks.attack import Attack, Setting
from gradseal.attacks.catalogue import load_attack
from gradseal.recipes.recipe import load_recipe
from gradseal.study.jobs import Job, Progress, run_jobs
from gradseal.study.matrix.cases import Case
from gradseal.study.matrix.columns import POLICIES
from gradseal.study.matrix.suite import Suite
from gradseal.study.part import FIRST_SEED
from gradseal.study.proportions import proportion_bounds


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
        first_seed: That of the first victim; the others' follow.
        exact_attacks: Those that are made in exact arithmetic too, where that is wanted; None for all.
        exact_seeds: How many victims there are in exact arithmetic; None for as many.
    """

    attacks: tuple[str, ...]
    policies: tuple[str, ...] = POLICIES
    arithmetics: tuple[str, ...] = ("native", "exact")
    seeds: int = 5
    slow_seeds: int = 1
    setting: Setting = field(default_factory=Setting)
    recipe: str = "digits"
    first_seed: int = FIRST_SEED
    exact_attacks: tuple[str, ...] | None = None
    exact_seeds: int | None = None

    def jobs(self) -> list[Job]:
        """A job for each attack, arithmetic and seed; those of one victim are a group."""
        slow = {name: load_attack(name).slow for name in self.attacks}
        return [
            self._job(name, arithmetic, self.first_seed + number)
            for arithmetic in self.arithmetics
            for number in range(self._seeds_in(arithmetic))
            for name in self._attacks_in(arithmetic)
            if number < self.slow_seeds or not slow[name]
        ]

    def _attacks_in(self, arithmetic: str) -> tuple[str, ...]:
        fewer = self.exact_attacks if arithmetic == "exact" else None
        return self.attacks if fewer is None else tuple(name for name in self.attacks if name in fewer)

    def _seeds_in(self, arithmetic: str) -> int:
        fewer = self.exact_seeds if arithmetic == "exact" else None
        return self.seeds if fewer is None else min(self.seeds, fewer)

    def _job(self, attack: str, arithmetic: str, seed: int) -> Job:
        return Job(
            name=f"matrix {attack} {arithmetic} {seed}",
            function=judge_case,
            arguments={
                "attack": attack,
                "arithmetic": arithmetic,
                "seed": seed,
                "setting": asdict(self.setting),
                "policies": list(self.policies),
                "recipe": self.recipe,
            },
            group=f"matrix {self.recipe} {arithmetic} {seed}",
        )


_SUITES: dict[str, Suite] = {}
"""Of this process: the suite of the last case, with the victim that it has trained."""


def judge_case(
    *,
    attack: str,
    arithmetic: str,
    seed: int,
    setting: Mapping[str, Any],
    policies: Sequence[str],
    recipe: str,
) -> Any:
    """One case, as JSON: see `study.matrix.cases.Case`."""
    key = repr((arithmetic, seed, dict(setting), list(policies), recipe))
    if key not in _SUITES:
        for suite in _SUITES.values():
            suite.close()
        _SUITES.clear()
        _SUITES[key] = Suite(load_recipe(recipe), Setting(**setting), tuple(policies))
    return _SUITES[key].judge(load_attack(attack), seed=seed, exact=arithmetic == "exact").to_json()


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
        exact = tuple(plan["exact_attacks"]) if plan["exact_attacks"] is not None else None
        made = Plan(**{**plan, **lists, "setting": Setting(**plan["setting"]), "exact_attacks": exact})
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
        StoreError: The directory cannot be written, or a file in it is none of a study's.
    """
    began = time.monotonic()
    done = run_jobs(plan.jobs(), directory, processes=jobs, progress=progress)
    seconds = time.monotonic() - began
    return tabled(plan, done.results, tuple(f"{n}: {said}" for n, said in done.failed.items()), seconds)


def tabled(
    plan: Plan, results: Mapping[str, Any], failed: tuple[str, ...] = (), seconds: float = 0.0
) -> Matrix:
    """The table of those of a plan's cases that are among results, by the jobs' names."""
    found = [Case.from_json(results[job.name]) for job in plan.jobs() if job.name in results]
    return Matrix(plan=plan, rows=tuple(_rows(plan, found)), failed=failed, seconds=seconds)


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
