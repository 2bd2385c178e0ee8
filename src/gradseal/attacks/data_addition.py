"""Data addition: training on more data than are declared.

Source: Choi, Shavit and Duvenaud 2023, "Tools for Verifying Neural Models' Training Data". The declared run
is carried out as declared, but in every segment steps on hidden samples are added, as many as the classical
tolerance forgives. No weights are stolen: the claim that is false is that the model has seen the declared
data alone.

Where we differ: hidden are a part of the recipe's own data, which the claimed data set leaves out; an owner
would hide what must not be known, such as a back door. The added steps stop before the replay of the
declared ones would end farther from the sealed state than the tolerance.
"""

from __future__ import annotations

import torch
from torch.utils.data import Subset

from gradseal.attacks.attack import Attack, Hand, Need, distance
from gradseal.attacks.paths import parameters_of
from gradseal.record.presented import Presented, State, copy_of

HIDDEN_SHARE = 0.1
"""Of the data."""

_SHARE = 0.9
"""Of the tolerance that the added steps may use."""


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    shuffled = torch.randperm(len(hand.data), generator=hand.generator).tolist()
    count = max(hand.setting.batch_size, int(HIDDEN_SHARE * len(shuffled)))
    hidden = hand.present(data=Subset(hand.data, shuffled[:count]), scratch=True)
    run = hand.present(data=Subset(hand.data, shuffled[count:]))
    run.begin()
    added = 0
    for segment in range(run.planned):
        state = copy_of(run.state)
        losses = run.compute(state, segment)
        state, more = _with_hidden(hand, run, hidden, state, first=added)
        added += more
        run.present(state, losses)
    run.finish()
    hand.meter.notes["hidden steps"] = float(added)


def _with_hidden(
    hand: Hand, run: Presented, hidden: Presented, state: State, first: int
) -> tuple[State, int]:
    """Moves a state on by steps on hidden batches, from this number on; returns it, and how many."""
    declared, steps = parameters_of(state), run.steps_of(run.segments)
    for more in range(hand.setting.every):
        batches = hidden.batches((first + more) % hidden.manifest.plan.steps)
        hand.meter.batch(sum(len(batch[0]) for batch in batches))
        next_state = copy_of(state)
        run.stepper.take(next_state, batches, step=steps[-1])
        if distance(declared, next_state) > _SHARE * hand.tolerance:
            return state, more
        state = next_state
    return state, hand.setting.every


ATTACK = Attack(
    name="data addition",
    source="Choi, Shavit and Duvenaud 2023, Tools for Verifying Neural Models' Training Data",
    idea="An own run, true but for added steps on samples that are not declared, as many as the tolerance "
    "forgives.",
    needs=frozenset({Need.DATA, Need.TOLERANCE}),
    aims="data",
    forge=forge,
    steals=False,
)
