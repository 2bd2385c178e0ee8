"""Bounds of hyperparameters: the learning rate of every group, at every step.

The classical protocol takes hyperparameters from the prover, who may then claim a rate at which nothing
moves, or one for each step that makes it as long as he wants. Bounds are the plain repair; a warm-up from 0
or an annealing to 0 lies outside them too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gradseal.precede.log import Log
from gradseal.program.program import Program
from gradseal.program.schedule import Column
from gradseal.verify.contents import Contents
from gradseal.verify.examination import Examination
from gradseal.verify.verdict import Check, Finding, Result

_MOST_TOLD = 20


def check_learning_rates(
    examination: Examination, log: Log, contents: Contents, bounds: tuple[float, float]
) -> None:
    """Adds a finding for each group of a program whose learning rate leaves the bounds, or that none does."""
    low, high = bounds
    failed = 0
    for program, steps in programs_in_force(log, contents):
        for group, least, largest in learning_rates(program, steps):
            if low <= least and largest <= high:
                continue
            failed += 1
            if failed > _MOST_TOLD:
                continue
            wrong, allowed = (least, low) if not low <= least else (largest, high)
            examination.findings.append(
                Finding(
                    check=Check.HYPERPARAMETERS,
                    result=Result.REFUTED,
                    message=f"a learning rate of {wrong:g}, where {low:g} to {high:g} is allowed",
                    where=f"steps {steps.start} to {steps.stop - 1}: group {group}",
                    measured=wrong if math.isfinite(wrong) else None,
                    allowed=allowed,
                )
            )
    if not failed:
        message = f"every learning rate lies from {low:g} to {high:g}"
        examination.found(Check.HYPERPARAMETERS, Result.HELD, message)


def programs_in_force(log: Log, contents: Contents) -> Iterator[tuple[Program, range]]:
    """Each program with the steps of the sealed segments that it is in force for; none for no step."""
    plan, sealed = log.manifest.plan, len(log.segments)
    begins = [0, *(first for first, _ in contents.later)]
    for own, first, end in zip(contents.each, begins, [*begins[1:], sealed], strict=True):
        if first < end:
            yield own.program, range(plan.steps_of(first).start, plan.steps_of(end - 1).stop)


def learning_rates(program: Program, steps: range) -> Iterator[tuple[int, float, float]]:
    """For each group of the optimizer its number, and its least and largest learning rate in these steps."""
    columns = program.schedule.columns if program.schedule else ()
    scheduled = {number: column for column in columns if column.field == "lr" for number in column.groups}
    every = program.schedule.every if program.schedule else 1
    changes = range(steps.start // every, (steps.stop - 1) // every + 1)
    ranges = {id(column): _range(column, changes) for column in scheduled.values()}
    for number, group in enumerate(program.optimizer.groups):
        if number in scheduled:
            yield number, *ranges[id(scheduled[number])]
        else:
            yield number, group.lr, group.lr


def _range(column: Column, wanted: range) -> tuple[float, float]:
    """The least and the largest of the values of these numbers."""
    low, high, first = math.inf, -math.inf, 0
    for values in column.values():
        own = values[max(0, wanted.start - first) : max(0, wanted.stop - first)]
        if len(own):
            low, high = min(low, float(np.min(own))), max(high, float(np.max(own)))
        first += len(values)
    return low, high
