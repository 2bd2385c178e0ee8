"""Blindfold top-Q: the intervals that the verifier looks at are real training, the rest leads to W_T.

Source: Fang et al. 2023, "Proof-of-Learning is Currently More Broken Than You Think". Epoch targets lie on
the line from a rank-matched initialisation to the stolen weights. Each epoch has Q intervals of real gradient
steps of one length, so long that they are the epoch's Q longest; the other intervals lead in a straight line
to the next target. The classical verifier replays the Q longest alone.

A step's published length is d(W_0, W_T) / E for E epochs, and its factor passes for its learning rate, below
1 here. Published: E = 200, Q = 5 intervals of k = 10 real steps, and 200 steps between; here E, k and Q
are those of the claimed run, in whole epochs. The rates depend on the gradients, and must be known before the
bundle begins: no shuffling and no dropout, so that the batches are known, and the states that were computed
to find the rates are presented. The schedule keeps rates to a millionth, so a replay of a real interval ends
near it, not always on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import fmean

import torch

from gradseal.attacks.attack import Attack, Hand, Need, distance, length, line
from gradseal.attacks.paths import drawn, parameters_of, rank_matched, scaled, sgd
from gradseal.record.presented import Presented, State, copy_of

HIGHEST_RATE = 0.99
"""Of a learning rate: where gradients vanish, a step is shorter."""

_LEAST_NORM = 1e-9


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    target = hand.weights
    start = rank_matched(drawn(hand), target)
    per_epoch = max(1, len(hand.data) // hand.setting.batch_size)
    epochs = max(1, round(hand.setting.steps / per_epoch))
    steps = epochs * per_epoch
    tried = hand.present(
        hand.model(dropout=False), optimizer=sgd(1.0), steps=steps, shuffle=False, scratch=True
    )
    path = list(_path(hand, tried, start, target, per_epoch))
    rates = [rate for _, _, own in path for rate in own]
    run = hand.present(
        hand.model(dropout=False), optimizer=sgd(1.0), steps=steps, shuffle=False, schedule=scaled(rates)
    )
    run.begin(start)
    for state, losses, _ in path:
        run.present(state, losses)
    run.finish()


_Interval = tuple[State, list[float] | None, list[float]]
"""The state at its end, its losses if it was computed, and the learning rate of each step."""


def _path(
    hand: Hand, run: Presented, start: State, target: Mapping[str, torch.Tensor], per_epoch: int
) -> Iterator[_Interval]:
    """The whole trajectory, interval by interval."""
    state = copy_of(run.state_zero() | start)
    epochs: dict[int, list[int]] = {}
    for segment in range(run.planned):
        epochs.setdefault(run.steps_of(segment).start // per_epoch, []).append(segment)
    step_length = distance(parameters_of(start), target) / len(epochs)
    for number, segments in enumerate(epochs.values()):
        aim = target if number + 1 == len(epochs) else line(start, target, (number + 1) / len(epochs))
        real, rest = segments[: hand.setting.top], segments[hand.setting.top :]
        rates: list[float] = []
        for segment in real:
            losses, own = _train(hand, run, state, segment, step_length)
            rates += own
            yield copy_of(state), losses, own
        left, usual = copy_of(state), fmean(rates)
        for done, segment in enumerate(rest, start=1):
            state |= aim if done == len(rest) else line({n: left[n] for n in aim}, aim, done / len(rest))
            hand.meter.flops += 3.0 * sum(tensor.numel() for tensor in aim.values())
            yield copy_of(state), None, [usual] * len(run.steps_of(segment))


def _train(
    hand: Hand, run: Presented, state: State, segment: int, step_length: float
) -> tuple[list[float], list[float]]:
    """Moves a state on by an interval of real steps of one length; returns their losses and their rates."""
    losses, rates = [], []
    for step in run.steps_of(segment):
        (batch,) = run.batches(step)
        result = run.stepper.compute(state, batch, step=step)
        hand.meter.batch(len(batch[0]))
        losses.append(float(result.loss))
        rates.append(min(HIGHEST_RATE, step_length / max(length(result.gradients), _LEAST_NORM)))
        for name, value in result.buffers.items():
            state[f"buffers/{name}"].copy_(value)
        optimizer = run.stepper.optimizer_at(step).at({(0, "lr"): rates[-1]})
        optimizer.update(state, dict(result.gradients), step, exact=run.stepper.exact)
    return losses, rates


ATTACK = Attack(
    name="blindfold top-Q",
    source="Fang et al. 2023, Proof-of-Learning is Currently More Broken Than You Think",
    idea="In each epoch Q intervals of real, long steps, which are all that the verifier looks at; the "
    "others lead in a straight line to the stolen weights.",
    needs=frozenset({Need.WEIGHTS, Need.DATA}),
    aims="computation",
    forge=forge,
)
