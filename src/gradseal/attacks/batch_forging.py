"""Batch forging: a true run, claimed with other batches whose gradients are almost the same.

Sources: Thudi et al. 2022, "On the Necessity of Auditable Algorithmic Definitions for Machine Unlearning";
Baluta et al. 2023, "Unforgeability in Stochastic Gradient Descent", who show that an exact match is out of
reach. The owner wants to deny some samples. Each batch that held one is claimed as the nearest, by its
gradient in the true state, of some random batches of the other samples; the states are the true ones. No
weights are stolen: these are his own.

Where we differ: a candidate keeps the batch's samples that need not be denied, and draws only the others,
since such candidates are nearer than wholly random ones; a segment whose replay with the claimed batches
would end beyond the classical tolerance is searched again; dropout is off and the order is the owner's own,
because both would follow from the seed, that from the claimed data, and these from the run. For the same
reason the initialisation, which must be there before the claimed data are, cannot be the one that the
bundle's seed gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.utils.data import Subset

from gradseal.attacks.attack import Attack, Hand, Need, distance
from gradseal.attacks.paths import drawn, parameters_of
from gradseal.record.presented import Presented, State, copy_of

DENIED_SHARE = 0.01
"""Of the samples."""

CANDIDATES = 20
"""Batches among which the nearest is searched."""

ATTEMPTS = 5
"""Searches for a segment's batches."""

_SHARE = 0.95
"""Of the tolerance: with a smaller difference, no other batches are searched for."""


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    samples, size = len(hand.data), hand.setting.batch_size
    shuffled = torch.randperm(samples, generator=hand.generator).tolist()
    denied = max(1, int(DENIED_SHARE * samples))
    true = hand.present(hand.model(dropout=False), scratch=True)
    forger = Forger(hand, true, frozenset(shuffled[:denied]), shuffled[denied:])
    order = _order(hand, forger)
    state = true.state_zero() | drawn(hand)
    states, losses = [copy_of(state)], []
    claimed: list[int] = []
    for segment in range(true.planned):
        before = []
        batches = [order[step * size : (step + 1) * size] for step in true.steps_of(segment)]
        for step, batch in zip(true.steps_of(segment), batches, strict=True):
            before.append(copy_of(state))
            losses.append(forger.take(state, step, batch))
        states.append(copy_of(state))
        for chosen in forger.claimed(before, state, true.steps_of(segment), batches):
            claimed += chosen
    _note(hand, forger)
    run = hand.present(hand.model(dropout=False), data=Subset(hand.data, claimed), shuffle=False)
    run.begin(states[0])
    for segment, end in enumerate(states[1:]):
        steps = run.steps_of(segment)
        run.present(end, losses[steps.start : steps.stop])
    run.finish()


def _order(hand: Hand, forger: Forger) -> list[int]:
    """The samples of all steps: epoch after epoch, each in its own order, what is denied late."""
    needed = hand.setting.steps * hand.setting.batch_size
    order: list[int] = []
    while len(order) < needed:
        allowed = _shuffled(hand, forger.allowed)
        half = min(len(allowed), needed) // 2
        order += allowed[:half] + _shuffled(hand, [*allowed[half:], *sorted(forger.denied)])
    return order[:needed]


def _shuffled(hand: Hand, samples: Sequence[int]) -> list[int]:
    return [samples[i] for i in torch.randperm(len(samples), generator=hand.generator).tolist()]


@dataclass(slots=True)
class Forger:
    """Finds the batches that are claimed.

    Args:
        hand: What the owner has.
        run: Computes steps and gradients; its data set is the whole one.
        denied: The samples that must not appear.
        allowed: The others.
    """

    hand: Hand
    run: Presented
    denied: frozenset[int]
    allowed: Sequence[int]
    forged: int = field(default=0, init=False)
    errors: list[float] = field(default_factory=list, init=False)

    def take(self, state: State, step: int, batch: Sequence[int]) -> float:
        """Takes a step with any batch, in place; returns the loss."""
        self.hand.meter.batch(len(batch))
        return float(self.run.stepper.take(state, [self.run.samples(batch)], step=step))

    def claimed(
        self, before: Sequence[State], end: State, steps: range, batches: Sequence[Sequence[int]]
    ) -> Sequence[Sequence[int]]:
        """What is claimed instead of a segment's batches.

        Args:
            before: The state before each of its steps.
            end: The state at its end.
            steps: Its steps.
            batches: What they were truly taken with.
        """
        forged = sum(not self.denied.isdisjoint(batch) for batch in batches)
        if not forged:
            return batches
        self.forged += forged
        best, least = batches, float("inf")
        for _ in range(ATTEMPTS):
            found = [
                self._nearest(state, step, batch)
                for state, step, batch in zip(before, steps, batches, strict=True)
            ]
            replayed = copy_of(before[0])
            for step, batch in zip(steps, found, strict=True):
                self.take(replayed, step, batch)
            error = distance(parameters_of(end), replayed)
            if error < least:
                best, least = found, error
            if error <= _SHARE * self.hand.tolerance:
                break
        self.errors.append(least)
        return best

    def _nearest(self, state: State, step: int, batch: Sequence[int]) -> Sequence[int]:
        """The batch whose gradient is nearest: itself, if nothing in it must be denied."""
        kept = [sample for sample in batch if sample not in self.denied]
        if len(kept) == len(batch):
            return batch
        wanted = self._gradient(state, step, batch)
        found = []
        for _ in range(CANDIDATES):
            places = torch.randint(
                len(self.allowed), (len(batch) - len(kept),), generator=self.hand.generator
            )
            candidate = [*kept, *(self.allowed[place] for place in places.tolist())]
            found.append((distance(wanted, self._gradient(state, step, candidate)), candidate))
        return min(found)[1]

    def _gradient(self, state: State, step: int, samples: Sequence[int]) -> State:
        self.hand.meter.batch(len(samples))
        return dict(self.run.stepper.compute(state, self.run.samples(samples), step=step).gradients)


def _note(hand: Hand, forger: Forger) -> None:
    hand.meter.notes |= {
        "batches forged": float(forger.forged),
        "segments with forged batches": float(len(forger.errors)),
        "of these within the tolerance": float(sum(e <= hand.tolerance for e in forger.errors)),
    }


ATTACK = Attack(
    name="batch forging",
    source="Thudi et al. 2022, On the Necessity of Auditable Algorithmic Definitions for Machine Unlearning; "
    "Baluta et al. 2023, Unforgeability in Stochastic Gradient Descent",
    idea="An own run that used samples which are now denied, claimed with other batches whose gradients are "
    "almost the same.",
    needs=frozenset({Need.DATA, Need.TOLERANCE}),
    aims="data",
    forge=forge,
    steals=False,
)
