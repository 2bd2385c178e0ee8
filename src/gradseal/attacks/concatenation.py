"""Concatenation: a short honest run of the attacker's own, spliced to the stolen weights in one jump.

Source: Jia et al. 2021, "Proof-of-Learning: Definitions and Practice", which names it first among the spoofs
that its top-Q check is made against. Nothing hides the jump. It claims a fifth of the setting's steps, as its
training is its whole cost.
"""

from __future__ import annotations

from gradseal.attacks.attack import Attack, Hand, Need

SHARE = 5
"""One part in so many of the setting's steps is claimed."""


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    every = hand.setting.every
    run = hand.present(steps=every * max(2, hand.setting.steps // every // SHARE))
    run.begin()
    for _ in range(run.planned - 1):
        run.train()
    run.present(hand.weights)
    run.finish()


ATTACK = Attack(
    name="concatenation",
    source="Jia et al. 2021, Proof-of-Learning: Definitions and Practice",
    idea="A short honest run of the attacker's own, and the stolen weights as the end of its last segment.",
    needs=frozenset({Need.WEIGHTS, Need.DATA}),
    aims="computation",
    forge=forge,
)
