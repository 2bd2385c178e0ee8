"""From a torch scheduler to a table: what it will set in each step, evaluated before the first.

A copy of the scheduler and its optimizer is stepped through the whole run; the user's own objects stay as
they are. A schedule that waits for a measured value cannot be known in advance, and is refused.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from gradseal.errors import CaptureError, ReplayError
from gradseal.program.capture_optimizer import get_hyperparameter
from gradseal.program.optimizers import Optimizer
from gradseal.program.schedule import MAX_TABLE_BYTES, Column, Schedule

_TWICE_STEPS = 1000


def capture_schedule(
    scheduler: LRScheduler,
    optimizer: torch.optim.Optimizer,
    named: Optimizer,
    *,
    steps: int,
    steps_per_move: int = 1,
) -> Schedule | None:
    """The table of every hyperparameter that changes; None if none does.

    Args:
        scheduler: Built on `optimizer`, and not yet stepped by the training to come.
        optimizer: The user's optimizer.
        named: The same by name.
        steps: Steps of the run.
        steps_per_move: Steps of training for each step of the scheduler: 1, or those of an epoch.

    Raises:
        CaptureError: It depends on what is measured in training, belongs to another optimizer, sets what no
            replay follows, or gives other values each time.
    """
    _check(scheduler, optimizer)
    names = [(number, field) for number, group in enumerate(named.groups) for field in group.SCHEDULABLE]
    if 8 * steps * len(names) > MAX_TABLE_BYTES:
        raise CaptureError(
            f"{len(names)} hyperparameters for {steps} steps, over the limit of {MAX_TABLE_BYTES} bytes",
            where="schedule",
        )
    values = _values(scheduler, optimizer, names, steps, steps_per_move)
    again = _values(scheduler, optimizer, names, min(steps, _TWICE_STEPS), steps_per_move)
    if not np.array_equal(values[: len(again)], again, equal_nan=True):
        raise CaptureError(
            "gives other values each time that it is evaluated",
            where="schedule",
            advice="make it a function of the step alone",
        )
    for column, (number, field) in enumerate(names):
        if not np.isfinite(values[:, column]).all():
            raise CaptureError(f"sets {field} of group {number} to what is not finite", where="schedule")
    schedule = _table(names, values)
    if schedule is not None:
        _check_values(schedule, named)
    return schedule


def _check(scheduler: LRScheduler, optimizer: torch.optim.Optimizer) -> None:
    if isinstance(scheduler, ReduceLROnPlateau):
        raise CaptureError(
            "ReduceLROnPlateau follows a measured loss, so its values cannot be sealed before training",
            where="schedule",
            advice="use one that follows from the step, such as CosineAnnealingLR, OneCycleLR or LambdaLR",
        )
    if not isinstance(scheduler, LRScheduler):
        raise CaptureError(
            f"{type(scheduler).__name__} is no scheduler of torch.optim.lr_scheduler",
            where="schedule",
            advice="for a function of the step, use LambdaLR",
        )
    if scheduler.optimizer is not optimizer:
        raise CaptureError("was built on another optimizer than the one given to record", where="schedule")


def _check_values(schedule: Schedule, named: Optimizer) -> None:
    """Refuses values that the optimizer's own code would refuse in the midst of the training."""
    seen: set[bytes] = set()
    for step, row in enumerate(schedule.table):
        if (bits := row.tobytes()) not in seen:
            seen.add(bits)
            try:
                named.at(schedule.at(step))
            except ReplayError as e:
                raise CaptureError(f"at step {step}: {e.message}", where="schedule") from e


def _values(
    scheduler: LRScheduler,
    optimizer: torch.optim.Optimizer,
    names: Sequence[tuple[int, str]],
    steps: int,
    steps_per_move: int,
) -> npt.NDArray[np.float64]:
    """What a copy of the scheduler sets, of shape (steps, names)."""
    values = np.empty((steps, len(names)))
    with warnings.catch_warnings():
        # The copy's optimizer never takes a step, of which torch warns.
        warnings.simplefilter("ignore")
        moved = _copied(scheduler, optimizer)
        row = _row(moved.optimizer, names)
        for step in range(steps):
            if step and step % steps_per_move == 0:
                _move(moved, step)
                row = _row(moved.optimizer, names)
            values[step] = row
    return values


def _copied(scheduler: LRScheduler, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """A copy of the scheduler and its optimizer that shares every tensor."""
    tensors = [p for group in optimizer.param_groups for p in group["params"]]
    kept = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    try:
        return copy.deepcopy(scheduler, {id(t): t for t in [*tensors, *kept]})
    except (TypeError, RuntimeError, AttributeError) as e:
        raise CaptureError(
            f"cannot be copied, so not evaluated in advance: {e}",
            where="schedule",
            advice="keep files, modules and generators out of it",
        ) from e


def _move(scheduler: LRScheduler, step: int) -> None:
    try:
        scheduler.step()
    except (TypeError, ValueError, ArithmeticError, LookupError, RuntimeError) as e:
        raise CaptureError(
            f"cannot be evaluated for step {step}: {e}",
            where="schedule",
            advice="make it as long as the run, and a function of the step alone",
        ) from e


def _row(optimizer: torch.optim.Optimizer, names: Sequence[tuple[int, str]]) -> list[float]:
    try:
        return [float(get_hyperparameter(optimizer, number, field)) for number, field in names]
    except (KeyError, TypeError, OverflowError):
        return [math.nan] * len(names)


def _table(names: Sequence[tuple[int, str]], values: npt.NDArray[np.float64]) -> Schedule | None:
    """The columns that change, those of equal name and values together."""
    columns: list[tuple[str, list[int], npt.NDArray[np.float64]]] = []
    for (number, field), column in zip(names, values.T, strict=True):
        if (column == column[0]).all():
            continue
        same = [c for c in columns if c[0] == field and np.array_equal(c[2], column)]
        if same:
            same[0][1].append(number)
        else:
            columns.append((field, [number], column))
    if not columns:
        return None
    return Schedule(
        columns=tuple(Column(field=field, groups=tuple(groups)) for field, groups, _ in columns),
        table=np.ascontiguousarray(np.stack([column for _, _, column in columns], axis=1)),
    )
