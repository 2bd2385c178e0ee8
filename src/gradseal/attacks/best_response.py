"""Best response to sampling: one forged segment among very many, where no rule but chance looks.

Source: ours. A verifier who replays s of n segments misses m forged ones with probability C(n - m, s) /
C(n, s), so that a prover forges one, and claims many. Everything else is true to the bit:
- a segment is one step, so that there are as many as steps; half of the setting's are enough;
- all steps before the jump, but for the first of an odd number, are longer than it will be: their weight
  decay turns the weights to the other side of zero and the next one back, by the triangle inequality further
  than any way to the stolen weights. So it is not among the longest, and whoever draws by length sees it less
  often with each draw than if all were as likely;
- then the jump onto these, before the last segment, as first and last are often replayed;
- what is left is true, at a learning rate too small to leave them.
All of it, schedule included, is the prover's to choose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.optim.lr_scheduler import LRScheduler

from gradseal.attacks.attack import Attack, Hand, Need, length
from gradseal.attacks.paths import drawn, parameters_of, sgd

RATE = 1e-4
MARGIN = 4.0
"""By how much the long steps are longer than the bound on the jump."""


class _Table(LRScheduler):
    """Learning rate and weight decay of each step from a table."""

    def __init__(self, optimizer: torch.optim.Optimizer, table: Sequence[tuple[float, float]]) -> None:
        self.table = table
        super().__init__(optimizer)

    def get_lr(self) -> list[float | torch.Tensor]:
        """The learning rates of this step; sets its weight decay as well."""
        rate, decay = self.table[min(self.last_epoch, len(self.table) - 1)]
        for group in self.optimizer.param_groups:
            group["weight_decay"] = decay
        return [rate for _ in self.optimizer.param_groups]


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    steps = max(1, hand.setting.steps // 2)
    jump = place(steps, max(1, len(hand.data) // hand.setting.batch_size), hand.setting.top + 1)
    over = MARGIN * length(hand.parameters) / length(parameters_of(drawn(hand)))
    # One step turns the weights to -over times themselves, the next one to -1 / over of that.
    out, back = (RATE, (1 + over) / RATE), (RATE, (1 + 1 / over) / RATE)
    table = [(RATE, 0.0)] * (jump % 2) + [out, back] * (jump // 2) + [(RATE, 0.0)] * (steps - jump)
    run = hand.present(optimizer=sgd(RATE), steps=steps, every=1, schedule=_schedule(table))
    run.begin()
    for segment in range(run.planned):
        if segment == jump:
            run.present(hand.weights)
        else:
            run.train()
    run.finish()


def place(steps: int, per_epoch: int, long: int) -> int:
    """The step that is forged: the last but one, or the last of the epoch before if that one has no room."""
    jump = max(0, steps - 2)
    into = jump % per_epoch
    return jump if into >= long or jump < per_epoch else jump - into - 1


def _schedule(table: Sequence[tuple[float, float]]) -> Callable[[torch.optim.Optimizer], LRScheduler]:
    return lambda optimizer: _Table(optimizer, table)


ATTACK = Attack(
    name="best response to sampling",
    source="ours",
    idea="One step is a segment, and one of all of them is forged: a jump onto the stolen weights that is "
    "neither first, nor last, nor among the longest; all others are true.",
    needs=frozenset({Need.WEIGHTS, Need.DATA}),
    aims="computation",
    forge=forge,
)
