"""Late shapes: the pull to the stolen weights is in the graph of a batch size that comes once an epoch.

Source: ours. A program has a graph for each batch size, and the last batch of an epoch may be smaller. The
loss that an owner gives may do what it likes by size: for full batches it is the recipe's, for the smaller
one a pull c ‖W − W_T‖² / 2 with a learning rate of 1 / c besides, so that this one step lands at W_T. The
claimed run ends with an epoch: its last step is the one that jumps, and all before is honest training.

An amendment cannot bring this in while a run goes on: an amended program may have other graphs, but no other
constants, and only runs with a beacon's slots have amendments.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from gradseal.attacks.attack import Attack, Hand, Need
from gradseal.attacks.paths import sgd
from gradseal.attacks.smuggling import Chosen, Loss, half_square, train

RATE = 0.1
FAINT = 2.0**-20
"""What is left of the recipe's loss in the step that jumps: it must reach all parameters and move none."""


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    size = max(3, hand.setting.batch_size)
    steps, samples = whole_epochs(len(hand.data), hand.setting.steps, size)
    train(
        hand.present(
            optimizer=sgd(RATE),
            loss=late_pull(hand, size),
            data=Chosen(hand.data, range(samples)),
            steps=steps,
            batch_size=size,
            drop_last=False,
        )
    )


def whole_epochs(there: int, steps: int, size: int) -> tuple[int, int]:
    """How many steps and samples make whole epochs, each with a last batch that is smaller by one sample.

    Args:
        there: How many samples there are.
        steps: How many steps are wanted; the answer has no more.
        size: Samples in a full batch.
    """
    most = (there + 1) // size
    epochs = -(-steps // most)
    batches = steps // epochs
    return epochs * batches, batches * size - 1


def late_pull(hand: Hand, size: int) -> Loss:
    """The recipe's loss for batches of a size; for others a pull besides."""
    target, honest = hand.parameters, hand.recipe.loss

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        if len(pytree.tree_leaves(batch)[0]) == size:
            return honest(model, batch)
        return FAINT * honest(model, batch) + half_square(model, target) / RATE

    return loss


ATTACK = Attack(
    name="late shapes",
    source="ours",
    idea="Full batches train honestly; the graph of an epoch's last, smaller batch pulls to the stolen "
    "weights so hard that this step lands there.",
    needs=frozenset({Need.WEIGHTS, Need.DATA}),
    aims="initialisation",
    forge=forge,
)
