"""Head start: the stolen weights are presented as the initialisation, and little is trained after it.

Source: ours; no paper names it, but every verifier that takes an initialisation as it comes allows it. The
weights are claimed as *given*, as those of a model that was trained before may well be. All that follows is
true, at a learning rate too small to leave them. `head_start_ruled` claims the rules instead.
"""

from __future__ import annotations

from torch import nn

from gradseal.attacks.attack import Attack, Hand, Need
from gradseal.attacks.paths import sgd
from gradseal.record.presented import State

RATE = 1e-4
"""Low enough to stay, and not so low that a bound on learning rates would refuse it."""


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    model = hand.model()
    load(model, hand.weights)
    train(hand, model)


def load(model: nn.Module, weights: State) -> None:
    """Overwrites parameters and buffers of a model, which are then no longer what its rules gave."""
    model.load_state_dict({name.split("/", 1)[1]: tensor for name, tensor in weights.items()}, strict=False)


def train(hand: Hand, model: nn.Module, state: State | None = None) -> None:
    """Writes a true run from a model, or from a state in its place, at a rate that changes little."""
    hand.present(model, optimizer=sgd(RATE)).train_all(state)


ATTACK = Attack(
    name="head start",
    source="ours",
    idea="The stolen weights are given as the initialisation; the training after it is true, and idle.",
    needs=frozenset({Need.WEIGHTS, Need.DATA}),
    aims="initialisation",
    forge=forge,
)
