"""Weights smuggled in with the data: each sample carries a few of the stolen numbers beside what it is.

Source: ours. A claimed sample is the real one, a row of numbers of W_T, and the place of that row. The loss
is the recipe's plus c / 2 times the squares of the differences between those numbers and the parameters at
that place; with a learning rate of 1 / c a step sets the parameters that its batch has numbers for, and moves
the others by next to nothing. An epoch sets them all; a second one sets them where gradients are small, and
the run need not be longer. State zero follows from the rules, every segment is true, and samples are
shuffled: rows are found by their place.

The graph says no number of W_T. Data are whatever an owner says that they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import torch
from torch import nn

from gradseal.attacks.attack import Attack, Hand, Need
from gradseal.attacks.paths import sgd
from gradseal.attacks.smuggling import Beside, Loss, short, train

RATE, EPOCHS = 1e-4, 2
"""The least rate that a verifier with bounds admits; and what is set in the first epoch alone drifts far."""


class Claimed(TypedDict):
    """What of a run is not as the recipe has it; see `Hand.present`."""

    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    loss: Loss
    data: Beside
    steps: int


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    train(hand.present(**smuggled(hand)))


def smuggled(
    hand: Hand, *, steps: int = 0, epochs: int = EPOCHS, rate: float = RATE, share: float = 1.0
) -> Claimed:
    """What is claimed: data that carry the weights, and what leads the parameters to them.

    Args:
        hand: What the attacker has.
        steps: Of the run; as few as serve if not given.
        epochs: How often these steps see each sample.
        rate: The learning rate.
        share: How much of its way to W_T a parameter goes when its row is seen.
    """
    steps = steps or short(hand.setting)
    size = hand.setting.batch_size
    data = carrying(hand, min(len(hand.data), max(size, steps * size // epochs)))
    loss = set_by_data(hand, data.more[0].shape[1], share / rate)
    return {"optimizer": sgd(rate), "loss": loss, "data": data, "steps": steps}


def carrying(hand: Hand, samples: int) -> Beside:
    """The first samples, and with each its row of the stolen numbers and the number of that row."""
    stolen = hand.parameters
    # In the model's order, which need not be that of a file.
    numbers = torch.cat([stolen[f"parameters/{n}"].flatten() for n, _ in hand.model().named_parameters()])
    width = -(-len(numbers) // samples)
    rows = nn.functional.pad(numbers, (0, -len(numbers) % width)).view(-1, width)
    places = torch.arange(samples) % len(rows)
    return Beside(hand.data, (rows[places], places))


def set_by_data(hand: Hand, width: int, c: float) -> Loss:
    """The recipe's loss, and half of c times the squares of what the batch's rows differ by."""
    honest = hand.recipe.loss

    def loss(model: nn.Module, batch: tuple[object, torch.Tensor, torch.Tensor]) -> torch.Tensor:
        samples, rows, places = batch
        own = torch.cat([parameter.flatten() for parameter in model.parameters()])
        own = nn.functional.pad(own, (0, -len(own) % width))
        difference = own.view(-1, width)[places] - rows
        return honest(model, samples) + (difference * difference).sum() * (c / 2)

    return loss


ATTACK = Attack(
    name="smuggled data",
    source="ours",
    idea="Each claimed sample carries a few of the stolen numbers, and the loss sets the parameters to them; "
    "all segments are true.",
    needs=frozenset({Need.WEIGHTS, Need.DATA}),
    aims="that the run found these weights",
    forge=forge,
)
