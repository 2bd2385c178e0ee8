"""From a torch scheduler to curves: what it will set in each step, evaluated before the first.

A copy of the scheduler and its optimizer is stepped through the whole run; the user's own objects stay as
they are. A schedule that waits for a measured value cannot be known in advance, and is refused.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from gradseal.errors import CaptureError, MalformedBundle
from gradseal.program.capture_optimizer import fixed_options, get_hyperparameter
from gradseal.program.curves import pieces_of
from gradseal.program.optimizers import Optimizer
from gradseal.program.schedule import MAX_PIECES, MAX_VALUES, Column, Schedule


def capture_schedule(
    scheduler: LRScheduler,
    optimizer: torch.optim.Optimizer,
    named: Optimizer,
    *,
    steps: int,
    steps_per_move: int = 1,
) -> Schedule | None:
    """Every hyperparameter that changes, and how; None if none does.

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
    moves = -(-steps // steps_per_move)
    if moves * len(names) > MAX_VALUES:
        raise CaptureError(
            f"{len(names)} hyperparameters and {moves} changes, over the limit of {MAX_VALUES} values",
            where="schedule",
            advice="schedule by epoch",
        )
    values = _values(scheduler, optimizer, names, moves)
    if not np.array_equal(values, _values(scheduler, optimizer, names, moves), equal_nan=True):
        raise CaptureError(
            "gives other values each time that it is evaluated",
            where="schedule",
            advice="make it a function of the step alone",
        )
    for column, (number, field) in enumerate(names):
        if not np.isfinite(values[:, column]).all():
            raise CaptureError(f"sets {field} of group {number} to what is not finite", where="schedule")
    columns = _columns(names, values)
    if not columns:
        return None
    schedule = Schedule(every=steps_per_move, columns=columns)
    _check_schedule(schedule, named, steps)
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


def _check_schedule(schedule: Schedule, named: Optimizer, steps: int) -> None:
    """Refuses what a reader would refuse, or the optimizer's own code in the midst of the training."""
    pieces = sum(len(column.pieces) for column in schedule.columns)
    if pieces > MAX_PIECES:
        raise CaptureError(
            f"takes {pieces} pieces to write down, over the limit of {MAX_PIECES}",
            where="schedule",
            advice="make it smooth, or constant for longer",
        )
    try:
        schedule.check(named, steps, where="schedule")
    except MalformedBundle as e:
        raise CaptureError(e.message, where=e.where) from e


def _values(
    scheduler: LRScheduler, optimizer: torch.optim.Optimizer, names: Sequence[tuple[int, str]], moves: int
) -> npt.NDArray[np.float64]:
    """What a copy of the scheduler sets, of shape (moves, names)."""
    values = np.empty((moves, len(names)))
    with warnings.catch_warnings():
        # The copy's optimizer never takes a step, of which torch warns.
        warnings.simplefilter("ignore")
        moved = _copied(scheduler, optimizer)
        before = fixed_options(moved.optimizer)
        for move in range(moves):
            if move:
                _move(moved, move)
            values[move] = _row(moved.optimizer, names)
            _check_fixed(before, fixed_options(moved.optimizer), move)
    return values


def _check_fixed(before: Mapping[str, object], now: Mapping[str, object], move: int) -> None:
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            raise CaptureError(
                f"sets {name} in its step {move}, which no replay follows",
                where="schedule",
                advice="schedule learning rates, momentum, betas or weight decay only",
            )


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


def _move(scheduler: LRScheduler, move: int) -> None:
    try:
        scheduler.step()
    except (TypeError, ValueError, ArithmeticError, LookupError, RuntimeError) as e:
        raise CaptureError(
            f"cannot be evaluated for its step {move}: {e}",
            where="schedule",
            advice="make it as long as the run, and a function of the step alone",
        ) from e


def _row(optimizer: torch.optim.Optimizer, names: Sequence[tuple[int, str]]) -> list[float]:
    try:
        return [float(get_hyperparameter(optimizer, number, field)) for number, field in names]
    except (KeyError, TypeError, OverflowError):
        return [math.nan] * len(names)


def _columns(names: Sequence[tuple[int, str]], values: npt.NDArray[np.float64]) -> tuple[Column, ...]:
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
    return tuple(
        Column(field=field, groups=tuple(groups), pieces=pieces_of(column))
        for field, groups, column in columns
    )
