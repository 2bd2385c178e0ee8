"""What attacks have in common that make several true runs and show one.

Nothing in such a bundle is false. To have chosen one of n runs is worth at most log2 n bits: whatever would
have happened to a run by chance with probability p, happens to the chosen one with n · p at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

import torch
from torch.utils.data import default_collate

from gradseal.attacks.attack import Hand
from gradseal.attacks.paths import of_weights
from gradseal.record.presented import Presented, State, copy_of

RUNS = 8
"""How many are tried."""

SAMPLES = 300
"""Over how many a run's loss is taken."""

Ends = list[tuple[State, list[float]]]
"""The state at the end of each segment, and its losses."""

Make = Callable[[bool], Presented]
"""Makes a run's bundle, to try (True) or to show; both have the same manifest, and so the same seeds."""

_AT_ONCE = 256
_FORWARD = 1 / 3
"""What a pass forward is of a gradient."""


def steps_of_each(hand: Hand) -> int:
    """The steps of each of so many runs that all together take about what one of the setting takes."""
    every = hand.setting.every
    return max(2 * every, hand.setting.steps // RUNS)


def compute(run: Presented, segments: int) -> Ends:
    """The first segments, truly computed, and nothing written."""
    state, ends = run.state_zero(), Ends()
    for segment in range(segments):
        losses = run.compute(state, segment)
        ends.append((copy_of(state), losses))
    return ends


def show(run: Presented, ends: Ends) -> None:
    """Writes a run that begins with these segments, and computes the others."""
    run.begin()
    for state, losses in ends:
        run.present(state, losses)
    for _ in range(run.planned - len(ends)):
        run.train()
    run.finish()


def show_best(
    hand: Hand, what: str, makes: Iterable[Make], value: Callable[[Ends], float], share: float = 1.0
) -> None:
    """Tries runs, and shows the one of the least value.

    Args:
        hand: Takes the notes.
        what: What the value is.
        makes: The runs.
        value: Of what was computed of a run.
        share: How much of each run is computed before it is chosen or given up.
    """
    values: list[float] = []
    best: tuple[Make, Ends] | None = None
    for make in makes:
        run = make(True)
        ends = compute(run, max(1, round(share * run.planned)))
        values.append(value(ends))
        if best is None or values[-1] < min(values[:-1]):
            best = make, ends
    if best is None:
        raise ValueError("no run to try")
    note(hand, what, values)
    show(best[0](False), best[1])


@torch.no_grad()
def loss_of(hand: Hand, state: State) -> float:
    """The mean loss of a state's weights over the first samples of the data, in evaluation mode."""
    model = of_weights(hand, state)
    count, total = min(SAMPLES, len(hand.data)), 0.0
    for start in range(0, count, _AT_ONCE):
        part = [hand.data[i] for i in range(start, min(start + _AT_ONCE, count))]
        total += len(part) * float(hand.recipe.loss(model, default_collate(part)))
    hand.meter.gradients += _FORWARD * count
    return total / count


def note(hand: Hand, what: str, values: Sequence[float]) -> None:
    """Notes what was chosen, and from what."""
    hand.meter.notes["runs tried"] = len(values)
    hand.meter.notes["bits of selection"] = math.log2(len(values))
    hand.meter.notes[f"{what}, chosen"] = min(values)
    hand.meter.notes[f"{what}, mean of all"] = fmean(values)
