"""Head start, ruled: the stolen weights are sealed as state zero, which the rules are said to have given.

Source: ours. As `head_start`, but the manifest claims the model's own rules of initialisation, so nothing is
given. A verifier who does not compute state zero himself can only look at how its values are distributed.
"""

from __future__ import annotations

from gradseal.attacks.attack import Attack, Hand, Need
from gradseal.attacks.head_start import train


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    train(hand, hand.model(), hand.weights)


ATTACK = Attack(
    name="head start, ruled",
    source="ours",
    idea="The stolen weights are sealed as state zero, though the rules are claimed; the training after "
    "it is true, and does nothing.",
    needs=frozenset({Need.WEIGHTS, Need.DATA}),
    aims="initialisation",
    forge=forge,
)
