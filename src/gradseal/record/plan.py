"""What the user asked `record` for, and the plan that it makes: steps, batches, order, schedule.

Whatever could not be planned is refused here, by the name of the argument.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from gradseal.errors import CaptureError
from gradseal.precede.beacons import Beacon
from gradseal.program.batches import RULE
from gradseal.program.capture import Loss
from gradseal.program.capture_schedule import capture_schedule
from gradseal.program.clipping import ClipNorm
from gradseal.program.optimizers import Optimizer
from gradseal.program.order import SEQUENTIAL, SHUFFLED, Order
from gradseal.program.schedule import Schedule
from gradseal.program.seeds import Seeds, Stretch
from gradseal.proof.manifest import (
    MAX_ACCUMULATED,
    MAX_SEGMENT_STEPS,
    MAX_SEGMENTS,
    MAX_STEPS,
    Plan,
    Seed,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked `record` for; see there."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss
    data: Any
    batch_size: int
    steps: int
    every: int
    seed: Seed | Beacon
    shuffle: bool
    drop_last: bool
    accumulate: int = 1
    clip: float | None = None
    schedule: LRScheduler | None = None
    schedule_per: str = "step"
    exact: bool = False

    def check(self, samples: int) -> None:
        """Refuses what cannot be planned with so many samples.

        Raises:
            CaptureError: A number is out of bounds; names the argument.
        """
        for name in ("batch_size", "steps", "every", "accumulate"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise CaptureError(f"{value!r} is not a positive whole number", where=name)
        if self.batch_size > samples:
            raise CaptureError(
                f"a batch of {self.batch_size} samples, but the data has {samples}",
                where="batch_size",
                advice=f"use at most {samples}",
            )
        for name, value, limit, what in (
            ("steps", self.steps, MAX_STEPS, "steps"),
            ("every", self.every, MAX_SEGMENT_STEPS, "steps"),
            ("every", -(-self.steps // self.every), MAX_SEGMENTS, "segments"),
            ("accumulate", self.accumulate, MAX_ACCUMULATED, "batches in a step"),
        ):
            if value > limit:
                raise CaptureError(f"{value} {what}, over the limit of {limit}", where=name)

    def order(self, samples: int, seeds: Seeds | None = None) -> Order:
        """The order of so many samples; without the run's seeds, for what does not depend on them."""
        stretch = Stretch(first_segment=0, seed=bytes(32))
        return Order(
            rule=SHUFFLED if self.shuffle else SEQUENTIAL,
            samples=samples,
            batch_size=self.batch_size,
            drop_last=self.drop_last,
            seeds=seeds or Seeds(every=self.every, accumulate=self.accumulate, stretches=[stretch]),
        )

    def plan(self) -> Plan:
        """The plan for the manifest; a beacon's slots begin as soon from now on as they may."""
        seed = self.seed.plan(time.time()).to_seed() if isinstance(self.seed, Beacon) else self.seed
        return Plan(
            steps=self.steps,
            every=self.every,
            batch_size=self.batch_size,
            accumulate=self.accumulate,
            drop_last=self.drop_last,
            order=SHUFFLED if self.shuffle else SEQUENTIAL,
            collation=RULE,
            seed=seed,
        )

    def batch_loss(self) -> Loss:
        """The loss of one batch, as a share of its step's."""
        if self.accumulate == 1:
            return self.loss
        return lambda model, batch: self.loss(model, batch) / self.accumulate

    def clip_by_norm(self) -> ClipNorm | None:
        """The clipping of the gradients, if it was asked for.

        Raises:
            CaptureError: `clip` is not a positive number, or the parameters are of several types.
        """
        clip: object = self.clip
        if clip is None:
            return None
        if isinstance(clip, bool) or not isinstance(clip, int | float) or not 0 < clip < math.inf:
            raise CaptureError(
                f"{clip!r} is not a largest norm",
                where="clip",
                advice="give the max_norm that clip_grad_norm_ would get, a positive number",
            )
        types = {str(p.dtype) for g in self.optimizer.param_groups for p in g["params"] if p.requires_grad}
        if len(types) > 1:
            raise CaptureError(
                f"the parameters are of several types: {', '.join(sorted(types))}",
                where="clip",
                advice="clip in a model of one type; autocast does what else 16 bits are wanted for",
            )
        return ClipNorm(max_norm=float(clip))

    def schedule_of(self, optimizer: Optimizer, samples: int) -> Schedule | None:
        """The table of what the scheduler changes, if there is one and it changes anything.

        Raises:
            CaptureError: It cannot be evaluated in advance.
        """
        if self.schedule_per not in ("step", "epoch"):
            raise CaptureError(f"{self.schedule_per!r} is neither 'step' nor 'epoch'", where="schedule_per")
        if self.schedule is None:
            return None
        batches = self.order(samples).batches_per_epoch
        if self.schedule_per == "epoch" and batches % self.accumulate:
            raise CaptureError(
                f"an epoch of {batches} batches does not end with a step of {self.accumulate}",
                where="schedule_per",
                advice="schedule by step, or make the number of batches a multiple of accumulate",
            )
        return capture_schedule(
            self.schedule,
            self.optimizer,
            optimizer,
            steps=self.steps,
            steps_per_move=1 if self.schedule_per == "step" else batches // self.accumulate,
        )
