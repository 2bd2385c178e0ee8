"""No attack: the recipe's run as it is asked for, so that tables show what each verifier says of that."""

from __future__ import annotations

from gradseal.attacks.attack import Attack, Hand, Need
from gradseal.attacks.smuggling import train


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    train(hand.present())


ATTACK = Attack(
    name="honest",
    source="no attack",
    idea="An owner trains as he says.",
    needs=frozenset({Need.DATA}),
    aims="nothing false",
    forge=forge,
    steals=False,
)
