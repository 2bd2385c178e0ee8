"""Rank-matched start: an initialisation of honest values in the stolen weights' order, and honest training.

Source: the first step of Fang et al. 2023, "Proof-of-Learning is Currently More Broken Than You Think", and
of Zhang et al. 2022, "Adversarial Examples for Proof-of-Learning", on its own. What it is for: the order
alone says nearly all that a small net has learned, so a training too slow to learn anything ends about as
good as the stolen weights, and nearer to them than another training would. All after state zero is true.
"""

from __future__ import annotations

from gradseal.attacks.attack import Attack, Hand, Need
from gradseal.attacks.paths import drawn, rank_matched, sgd

RATE = 1e-3


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    run = hand.present(optimizer=sgd(RATE))
    run.train_all(rank_matched(drawn(hand), hand.weights))


ATTACK = Attack(
    name="rank-matched start",
    source="Fang et al. 2023, Proof-of-Learning is Currently More Broken Than You Think (the start alone)",
    idea="State zero has the values of an honest initialisation in the rank order of the stolen weights; all "
    "training after it is true, at a small learning rate.",
    needs=frozenset({Need.WEIGHTS, Need.DATA}),
    aims="initialisation",
    forge=forge,
)
