"""The hyperparameters of a released proof, step by step.

They are the proof's own, as in Jia et al. 2021, "Proof-of-Learning: Definitions and Practice": that a prover
chooses them is what the attacks on it use. A checkpoint says what is in force after it; within an interval
only the released code's scheduler, torch's `MultiStepLR`, changes anything, and its state says when.
"""

from __future__ import annotations

import torch
from torch.optim.lr_scheduler import LRScheduler

from gradseal.errors import MalformedBundle, ReplayError
from gradseal.program.capture_optimizer import get_hyperparameter, set_hyperparameter
from gradseal.program.optimizers import Optimizer
from gradseal.record.released import Checkpoint
from gradseal.record.released_state import number

Values = dict[tuple[int, str], float]
"""Hyperparameters by the number of the group and the name of our field."""


class AsPresented(LRScheduler):
    """A scheduler that sets what the checkpoints say, to the bit.

    Args:
        optimizer: Which is set; as it is before step 0.
        changes: What changes before a step, by the number of the step.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, changes: dict[int, Values]) -> None:
        self.optimizer = optimizer
        self.last_epoch = 0
        self._changes = changes

    def step(self, epoch: int | None = None) -> None:
        """The next step's values."""
        self.last_epoch += 1
        put(self.optimizer, self._changes.get(self.last_epoch, {}))


def values_of(optimizer: torch.optim.Optimizer, named: Optimizer, *, where: str) -> Values:
    """What the optimizer is set to, of all that may change within a run.

    Raises:
        MalformedBundle: A value that no update can be computed with, or a momentum that comes or goes.
    """
    values: Values = {
        (number, field): float(get_hyperparameter(optimizer, number, field))
        for number, group in enumerate(named.groups)
        for field in group.SCHEDULABLE
    }
    try:
        named.at(values)
    except ReplayError as e:
        raise MalformedBundle(e.message, where=f"{where}: {e.where}") from e
    return values


def put(optimizer: torch.optim.Optimizer, values: Values) -> None:
    """Sets the optimizer to these values."""
    for (group, field), value in values.items():
        set_hyperparameter(optimizer, group, field, value)


def rates_within(checkpoint: Checkpoint, steps: int) -> dict[int, float] | None:
    """By what the learning rate is multiplied within the interval after a checkpoint, by step from 0.

    The released code's scheduler is torch's `MultiStepLR`, whose state has its milestones and factor.

    Args:
        checkpoint: With which the interval begins.
        steps: How many it has.

    Returns:
        The factors; None for a scheduler of another kind, of which the state does not say what it does.

    Raises:
        MalformedBundle: A field is no number.
    """
    state = checkpoint.scheduler
    if state is None:
        return {}
    if not {"milestones", "gamma", "last_epoch"} <= set(state):
        return None
    where = f"{checkpoint.path}: scheduler"
    epoch, gamma = state["last_epoch"], number(state["gamma"], f"{where}: gamma")
    if type(epoch) is not int:
        raise MalformedBundle("is no whole number", where=f"{where}: last_epoch")
    milestones = state["milestones"]
    if not isinstance(milestones, dict) or not all(type(n) is int for p in milestones.items() for n in p):
        raise MalformedBundle("are no whole numbers with their counts", where=f"{where}: milestones")
    try:
        return {
            milestone - epoch: float(gamma**count)
            for milestone, count in milestones.items()
            if 1 <= milestone - epoch < steps
        }
    except (ArithmeticError, TypeError) as e:
        raise MalformedBundle(f"no learning rate follows: {e}", where=f"{where}: gamma") from e
