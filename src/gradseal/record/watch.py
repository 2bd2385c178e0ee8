"""What must not change between two steps, and how a change is told.

The state, tensors outside the model that the loss reads, the modules' training flags, the optimizer's
settings and the numerical environment: a replay knows of no such change, so each stops the recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import nn

from gradseal.errors import RecordError
from gradseal.program.capture_optimizer import option_name, set_hyperparameter
from gradseal.program.curves import TOLERANCE
from gradseal.program.native import Environment, check_recordable, current_environment, differences
from gradseal.program.schedule import Schedule
from gradseal.record.live import LiveState, fingerprint

_SHOWN = 5


class Watch:
    """Remembers how things were after a step, and compares before the next.

    Args:
        model: The user's.
        optimizer: The user's.
        live: Their tensors.
        watched: Tensors outside the state that the loss reads.
        environment: The environment of the recording, where it counts.
        schedule: What sets the optimizer's hyperparameters, if anything does.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        live: LiveState,
        *,
        watched: Sequence[torch.Tensor],
        environment: Environment | None,
        schedule: Schedule | None,
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._live = live
        self._watched = watched
        self._environment = environment
        self._schedule = schedule
        self._flags = _training_flags(model)
        self._fingerprints = [fingerprint(tensor) for tensor in watched]
        self._settings = live.settings()
        # What a schedule sets, and how far from it a scheduler of the user's may be.
        self._near = _tolerances(schedule) if schedule else {}
        self._expected = live.fingerprints()

    def note_state(self) -> None:
        """Takes the state as it is now for what the next step begins with."""
        self._expected = self._live.fingerprints()

    def note_settings(self) -> None:
        """Takes the settings as they are now for what the next step begins with."""
        self._settings = self._live.settings()

    def check_state(self, step: int) -> None:
        """Refuses a state that is not the noted one, or of which a tensor was replaced.

        Raises:
            RecordError: Names the tensors. The other checks raise likewise.
        """
        now = self._live.fingerprints()
        changed = [name for name, value in now.items() if self._expected[name] != value]
        if changed:
            _stop(
                step,
                f"something changed {listed(changed)} since the last step",
                "evaluate with model.eval(), and leave parameters, buffers and momentum alone between steps",
            )

    def check_watched(self, step: int) -> None:
        """Refuses a change of a tensor that the loss reads and that is no part of the model."""
        for tensor, before in zip(self._watched, self._fingerprints, strict=True):
            if fingerprint(tensor) != before:
                shape = tuple(tensor.shape)
                _stop(
                    step,
                    f"the loss reads a tensor of shape {shape}, no part of the model, that changed",
                    "what changes during training must be a buffer of the model (register_buffer)",
                )

    def check_flags(self, step: int) -> None:
        """Refuses a module in another mode than it was captured in."""
        for name, flag in _training_flags(self._model).items():
            if self._flags.get(name) != flag:
                mode = "training" if flag else "evaluation"
                where = f"model.{name}" if name else "model"
                _stop(
                    step,
                    f"{where} is in {mode} mode, not as it was captured",
                    "call model.train() after evaluating",
                )

    def set_settings(self, step: int) -> None:
        """Gives the optimizer the scheduled hyperparameters of a step, and refuses any other change.

        A scheduler of the user's may have set what is set here, as near as a schedule is written down.
        """
        found = self._live.settings()
        if self._schedule is not None:
            for (group, field), value in self._schedule.at(step).items():
                set_hyperparameter(self._optimizer, group, field, value)
        wanted = self._live.settings()
        changed = [
            name
            for name in {**self._settings, **found}
            if found.get(name) != self._settings.get(name)
            and not _is_near(found.get(name), wanted.get(name), self._near.get(name))
        ]
        if changed:
            name = changed[0]
            _stop(
                step,
                f"{listed(changed)} changed since the recording began: "
                f"{self._settings.get(name)!r} became {found.get(name)!r}",
                "give a scheduler to record as schedule=…; nothing else may change them",
            )
        self._settings = wanted

    def check_environment(self, step: int) -> None:
        """Refuses another numerical environment than the recorded one."""
        check_recordable()
        if self._environment is None:
            return
        changed = differences(self._environment, current_environment(self._live.device.type))
        if changed:
            told = ", ".join(f"{name} from {was} to {now}" for name, (was, now) in changed.items())
            _stop(step, f"the numerical environment changed: {told}", "set it before recording")


def listed(names: Sequence[str]) -> str:
    """The first few of some names."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _tolerances(schedule: Schedule) -> dict[str, float]:
    found: dict[str, float] = {}
    for column in schedule.columns:
        near = TOLERANCE * max(float(abs(values).max()) for values in column.values())
        for group in column.groups:
            name = option_name(group, column.field)
            found[name] = max(near, found.get(name, 0.0))
    return found


def _is_near(value: object, wanted: object, tolerance: float | None) -> bool:
    """Whether a setting is the wanted one but for a tolerance; without a tolerance it never is."""
    if tolerance is None:
        return False
    if isinstance(value, tuple) and isinstance(wanted, tuple) and len(value) == len(wanted):
        return all(_is_near(v, w, tolerance) for v, w in zip(value, wanted, strict=True))
    if isinstance(value, float | int) and isinstance(wanted, float | int):
        return abs(value - wanted) <= tolerance
    return False


def _training_flags(model: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in model.named_modules()}


def _stop(step: int, message: str, advice: str) -> NoReturn:
    raise RecordError(message, where=f"step {step}", advice=advice)
