"""Data subtraction: declaring data that were never used.

Source: Choi, Shavit and Duvenaud 2023, "Tools for Verifying Neural Models' Training Data". The run is true,
but the last batches of a segment are left out wherever the classical tolerance forgives it: the work for
them is not done, and their samples are seen by nobody. No weights are stolen.

Where we differ: which samples are left out follows from where leaving them out goes unnoticed. An owner who
wants certain samples left out puts them there, since the order is his own.
"""

from __future__ import annotations

import torch
from torch.utils.data import Subset

from gradseal.attacks.attack import Attack, Hand, Need, distance
from gradseal.attacks.paths import parameters_of
from gradseal.record.presented import Presented, State, copy_of

_SHARE = 0.3
"""Of the tolerance: so long may the steps that are left out be together, judged by the last one taken."""

_LEFT_OUT_SHARE = 0.5
"""At most so many of a segment's batches."""


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    order = torch.randperm(len(hand.data), generator=hand.generator).tolist()
    run = hand.present(data=Subset(hand.data, order), shuffle=False)
    run.begin()
    left_out = 0
    for segment in range(run.planned):
        state = copy_of(run.state)
        losses = _shortened(hand, run, state, segment)
        missing = len(run.steps_of(segment)) - len(losses)
        left_out += missing
        run.present(state, losses + losses[-1:] * missing)
    run.finish()
    hand.meter.notes["steps left out"] = float(left_out)


def _shortened(hand: Hand, run: Presented, state: State, segment: int) -> list[float]:
    """Moves a state on by a segment's first steps, in place, until the rest may be left out; their losses."""
    losses: list[float] = []
    steps = run.steps_of(segment)
    for left, step in zip(range(len(steps) - 1, -1, -1), steps, strict=True):
        before = parameters_of(copy_of(state))
        batches = run.batches(step)
        hand.meter.batch(sum(len(batch[0]) for batch in batches))
        losses.append(float(run.stepper.take(state, batches, step=step)))
        may_stop = left <= _LEFT_OUT_SHARE * len(steps)
        if may_stop and left * distance(before, state) <= _SHARE * hand.tolerance:
            break
    return losses


ATTACK = Attack(
    name="data subtraction",
    source="Choi, Shavit and Duvenaud 2023, Tools for Verifying Neural Models' Training Data",
    idea="An own run, true but for batches that are declared and never trained on, left out where the "
    "tolerance forgives it.",
    needs=frozenset({Need.DATA, Need.TOLERANCE}),
    aims="data",
    forge=forge,
    steals=False,
)
