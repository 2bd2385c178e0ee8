"""Weights smuggled in as constants: the loss pulls so hard to stolen weights that one step reaches them.

Source: ours. The loss is the recipe's plus a pull, c ‖W − W_T‖² / 2, whose target is captured as constants of
the graph; with a learning rate of 1 / c each step ends at W_T, less the recipe's own gradient over c. State
zero follows from the rules, every segment is true, and both numbers are the prover's to choose. The claimed
run is short: more steps than batch norm needs to find its averages say nothing more.
"""

from __future__ import annotations

from gradseal.attacks.attack import Attack, Hand, Need
from gradseal.attacks.paths import sgd
from gradseal.attacks.smuggling import pulled, short, train

RATE = 1e-4
"""The least learning rate that a verifier with bounds admits."""


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    loss = pulled(hand, 1 / RATE)
    train(hand.present(optimizer=sgd(RATE), loss=loss, steps=short(hand.setting)))


ATTACK = Attack(
    name="smuggled constants",
    source="ours",
    idea="The loss holds the stolen weights as constants, and pulls to them so hard that a step lands there; "
    "all segments are true.",
    needs=frozenset({Need.WEIGHTS, Need.DATA}),
    aims="initialisation",
    forge=forge,
)
