"""Changing a program while it runs: which hyperparameters may change, and the program that results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from gradseal.errors import RecordError
from gradseal.program.clipping import ClipNorm
from gradseal.program.program import Program


def amended_program(
    program: Program, *, group: int | None, clip: float | None, settings: Mapping[str, float]
) -> tuple[Program, dict[tuple[int, str], float]]:
    """The program with other hyperparameters.

    Args:
        program: The one in force.
        group: The number of the parameter group that is meant; None for all.
        clip: The largest norm of all gradients together; None for what it is.
        settings: New values by the names of the optimizer's own fields.

    Returns:
        The program, and each new value by group and field.

    Raises:
        RecordError: Nothing changes, a field or group that is not there or that a schedule sets, or a value
            that is none.
    """
    optimizer = program.optimizer
    groups = range(len(optimizer.groups)) if group is None else [group]
    if not settings and clip is None:
        raise RecordError("nothing to change", where="amend", advice="name a value, such as lr=0.01")
    if group is not None and not 0 <= group < len(optimizer.groups):
        raise RecordError(f"no group {group} among {len(optimizer.groups)}", where="amend: group")
    scheduled = program.schedule.at(0) if program.schedule else {}
    values: dict[tuple[int, str], float] = {}
    for name, value in settings.items():
        if name not in optimizer.GROUP.SCHEDULABLE:
            known = ", ".join(optimizer.GROUP.SCHEDULABLE)
            raise RecordError(f"{optimizer.name} has only {known} to change", where=f"amend: {name}")
        if not _is_number(value):
            raise RecordError(f"{value!r} is not a number", where=f"amend: {name}")
        for number in groups:
            if (number, name) in scheduled:
                raise RecordError("the schedule sets it", where=f"amend: {name}")
            values[number, name] = float(value)
    amended = optimizer.at(values)
    for number in groups:
        if wrong := amended.groups[number].wrong():
            raise RecordError(wrong, where=f"amend: group {number}")
    if clip is not None and not 0 < clip < math.inf:
        raise RecordError(f"{clip!r} is not a largest norm", where="amend: clip")
    clipping = program.clip if clip is None else ClipNorm(max_norm=float(clip))
    return replace(program, optimizer=amended, clip=clipping), values


def settings_between(before: Program, after: Program) -> dict[tuple[int, str], float]:
    """Each hyperparameter that an amended program has other than the one before, by group and field."""
    return {
        (number, name): getattr(new, name)
        for number, (old, new) in enumerate(zip(before.optimizer.groups, after.optimizer.groups, strict=True))
        for name in before.optimizer.GROUP.SCHEDULABLE
        if getattr(new, name) != getattr(old, name)
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
