"""No attack: an honest run with a beacon's seeds, whose every checkpoint is anchored in time."""

from __future__ import annotations

from gradseal.attacks.attack import Attack, Hand, Need
from gradseal.attacks.dated import Services, present_dated
from gradseal.attacks.smuggling import train


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    services = Services.of(hand)
    train(present_dated(hand, services, services.plan()))


ATTACK = Attack(
    name="honest dated",
    source="no attack",
    idea="An owner trains as he says, draws his seeds from a beacon, and has every checkpoint anchored.",
    needs=frozenset({Need.DATA}),
    aims="nothing false",
    forge=forge,
    steals=False,
)
