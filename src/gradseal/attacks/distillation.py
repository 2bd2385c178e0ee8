"""Weights smuggled in as labels: a student learns what the stolen model says of each sample.

Source: G. Hinton, O. Vinyals, J. Dean 2015, "Distilling the Knowledge in a Neural Network". The claimed data
are the samples, and beside each the stolen model's own probabilities at a temperature; the loss is the cross
entropy with these at the same temperature, times its square. The student starts by the rules and trains as
the recipe does. It comes near in what it computes, and not in its weights.

Every tenth sample is neither claimed nor trained on: there the two models are compared. The notes say how
often they name the same class, and how far their probabilities are apart (total variation, mean).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import default_collate

from gradseal.attacks.attack import Attack, Hand, Need
from gradseal.attacks.paths import of_weights
from gradseal.attacks.smuggling import Beside, Chosen, Loss, train

TEMPERATURE = 2.0
LEFT_OUT = 10
"""One sample in so many is left out."""

_AT_ONCE = 256
_FORWARD = 1 / 3
"""What a pass forward is of a gradient."""


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    count = len(hand.data)
    kept = [i for i in range(count) if i % LEFT_OUT]
    teacher = of_weights(hand, hand.weights)
    soft = functional.softmax(scores_of(hand, teacher, kept) / TEMPERATURE, dim=-1)
    run = hand.present(data=Beside(Chosen(hand.data, kept), (soft,)), loss=soft_loss(hand))
    train(run)
    compare(hand, teacher, of_weights(hand, run.state), range(0, count, LEFT_OUT))


def soft_loss(hand: Hand) -> Loss:
    """The cross entropy with the probabilities that a batch brings along."""

    def loss(model: nn.Module, batch: tuple[Any, torch.Tensor]) -> torch.Tensor:
        samples, soft = batch
        scores = said_by(hand, model, samples) / TEMPERATURE
        return functional.cross_entropy(scores, soft) * TEMPERATURE**2

    return loss


def said_by(hand: Hand, model: nn.Module, samples: Any) -> torch.Tensor:
    """What the model gives for a batch of samples, however the recipe's loss feeds it."""
    said: list[torch.Tensor] = []
    hook = model.register_forward_hook(lambda module, given, scores: said.append(scores))
    try:
        hand.recipe.loss(model, samples)
    finally:
        hook.remove()
    return said[0]


@torch.no_grad()
def scores_of(hand: Hand, model: nn.Module, indices: Sequence[int]) -> torch.Tensor:
    """The model's scores of samples of the data, in order."""
    hand.meter.gradients += _FORWARD * len(indices)
    parts = [indices[i : i + _AT_ONCE] for i in range(0, len(indices), _AT_ONCE)]
    return torch.cat(
        [said_by(hand, model, default_collate([hand.data[i] for i in part])).detach() for part in parts]
    )


def compare(hand: Hand, teacher: nn.Module, student: nn.Module, indices: Sequence[int]) -> None:
    """Notes how near two models are in what they compute."""
    one, other = (scores_of(hand, model, indices) for model in (teacher, student))
    same = (one.argmax(-1) == other.argmax(-1)).double().mean()
    apart = (one.softmax(-1) - other.softmax(-1)).abs().sum(-1).mean() / 2
    hand.meter.notes["same class as the stolen model"] = float(same)
    hand.meter.notes["total variation from the stolen model"] = float(apart)


ATTACK = Attack(
    name="distillation",
    source="Hinton, Vinyals, Dean 2015, Distilling the Knowledge in a Neural Network",
    idea="A student trains truly from an honest start, on labels that are the stolen model's probabilities.",
    needs=frozenset({Need.WEIGHTS, Need.DATA}),
    aims="that the run found this function",
    forge=forge,
)
