"""Inverse gradient: from the stolen weights backwards, each step solved for the weights before it.

Source: Jia et al. 2021, "Proof-of-Learning: Definitions and Practice". Training is undone: the weights
before a step are the root of W_{t-1} − η ∇L(W_{t-1}) − W_t, found by iteration, batch by batch, until
something like an initialisation is reached. They argue that this costs more than training, since a root
takes several gradients, and leads away from initialisations, since walking back the entropy grows.

How a root is found: W ← W_t + η ∇L(W), with Anderson's mixing of the last few iterates, stopped where the
residual is below a hundredth of the classical tolerance, divided by the k steps of a segment, or after a
number of gradients; the best iterate is kept.

Where we differ: only the last segments are solved, since backwards no initialisation comes nearer. From a
rank-matched initialisation to where they begin, checkpoints are on the line, within the tolerance of each
other, which is what is left to somebody who cannot go back to the start. The declared optimizer is SGD
without momentum and weight decay, and neither dropout nor shuffling, so that a step has one inverse and
batches are known.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch

from gradseal.attacks.attack import Attack, Hand, Need, distance, length
from gradseal.attacks.paths import drawn, parameters_of, rank_matched, sgd, walk
from gradseal.record.presented import Presented, State

RATE = 0.01
SOLVED_SHARE = 0.2
"""So many segments are solved, as a share of those of a usual run."""

GRADIENTS = 30
"""The most gradients for one step."""

_SHARE = 0.6
"""Of the tolerance that a straight interval's length uses."""

_REMEMBERED = 5
"""Iterates that are mixed."""


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    target = hand.weights
    start = rank_matched(drawn(hand), target)
    usual = hand.setting.steps // hand.setting.every
    solved = max(1, round(SOLVED_SHARE * usual))
    straight = math.ceil(distance(parameters_of(start), target) / (_SHARE * hand.tolerance))
    segments = max(usual, straight + solved)
    run = hand.present(
        hand.model(dropout=False),
        optimizer=sgd(RATE),
        steps=segments * hand.setting.every,
        shuffle=False,
    )
    states = _backwards(hand, run, target, solved)
    run.begin(start)
    walk(hand, run, states[0], run.planned - solved)
    for state in states[1:]:
        run.present(state)
    run.finish()
    hand.meter.notes |= {
        "distance gone backwards": distance(parameters_of(states[0]), target),
        "norm of the stolen weights": length(parameters_of(target)),
        "norm where it ends": length(parameters_of(states[0])),
    }


def _backwards(hand: Hand, run: Presented, target: State, segments: int) -> list[State]:
    """The states at the ends of the last segments, and before the first of these; buffers as stolen."""
    enough = 0.01 * hand.tolerance / hand.setting.every
    notes = hand.meter.notes
    notes["steps solved"] = notes["steps not solved"] = 0.0
    states = [dict(target)]
    here = dict(target)
    for segment in range(run.planned - 1, run.planned - 1 - segments, -1):
        for step in reversed(run.steps_of(segment)):
            here, residual = _before(hand, run, here, step, enough)
            notes["steps solved" if residual <= enough else "steps not solved"] += 1
        states.insert(0, here)
    return states


def _before(hand: Hand, run: Presented, after: State, step: int, enough: float) -> tuple[State, float]:
    """The state before a step, and how far the step from there ends from the one after."""
    names = list(parameters_of(after))
    (batch,) = run.batches(step)
    goal = torch.cat([after[name].flatten() for name in names]).double()

    def unflattened(flat: torch.Tensor) -> State:
        pieces = torch.split(flat, [after[name].numel() for name in names])
        own = {
            name: piece.view_as(after[name]).to(after[name].dtype)
            for name, piece in zip(names, pieces, strict=True)
        }
        return after | own

    def next_guess(flat: torch.Tensor) -> torch.Tensor:
        hand.meter.batch(len(batch[0]))
        hand.meter.flops += 2.0 * (2 * _REMEMBERED + 3) * len(goal)
        found = run.stepper.compute(run.state_zero() | unflattened(flat), batch, step=step).gradients
        gradient = torch.cat([found[name.removeprefix("parameters/")].flatten() for name in names])
        return goal + RATE * gradient.double()

    flat, residual = fixed_point(next_guess, goal, enough=enough, most=GRADIENTS)
    return unflattened(flat), residual


def fixed_point(
    function: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, *, enough: float, most: int
) -> tuple[torch.Tensor, float]:
    """A point that a function leaves where it is, by Anderson's mixing.

    Args:
        function: From a vector to a vector.
        start: Where to begin.
        enough: Stop where the function moves the point no farther.
        most: Calls of the function.

    Returns:
        The best point found, and how far the function moves it.
    """
    points: list[torch.Tensor] = []
    moves: list[torch.Tensor] = []
    here, best, least = start, start, float("inf")
    for _ in range(most):
        move = function(here) - here
        size = float(move.norm())
        if size < least:
            best, least = here, size
        if size <= enough or not math.isfinite(size):
            break
        points, moves = [*points[-_REMEMBERED:], here], [*moves[-_REMEMBERED:], move]
        here = here + move
        if len(moves) > 1:
            steps = torch.stack([b - a for a, b in pairwise(moves)], 1)
            ways = torch.stack([b - a for a, b in pairwise(points)], 1)
            mixed = torch.linalg.lstsq(steps, move.unsqueeze(1), driver="gelsd").solution
            here = here - ((steps + ways) @ mixed).squeeze(1)
    return best, least


ATTACK = Attack(
    name="inverse gradient",
    source="Jia et al. 2021, Proof-of-Learning: Definitions and Practice",
    idea="The last steps are solved backwards from the stolen weights, by root finding; the way there from "
    "an initialisation is a line.",
    needs=frozenset({Need.WEIGHTS, Need.DATA, Need.TOLERANCE}),
    aims="computation",
    forge=forge,
)
