"""Backdating: a run of today that says it began yesterday, with yesterday's public seeds.

Source: ours; that a run made after the theft must not pass for an earlier one is what Fang et al. 2023,
"Proof-of-Learning is Currently More Broken Than You Think", call precedence. The slots of its plan are rounds
of a real beacon that were due a day ago, so that seeds, order and state zero follow from the plan. What it
computes leads to the stolen weights truly, by numbers smuggled in with the data, so that nothing but the time
is false. The witness and the authority are asked when it is made, and say that time: they are honest.
"""

from __future__ import annotations

from gradseal.attacks.attack import Attack, Hand, Need
from gradseal.attacks.dated import DAY_SECONDS, Services, present_dated
from gradseal.attacks.smuggled_data import smuggled
from gradseal.attacks.smuggling import train


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    services = Services.of(hand)
    own = smuggled(hand)
    yesterday = services.plan(ago_seconds=DAY_SECONDS)
    train(present_dated(hand, services, yesterday, **own))


ATTACK = Attack(
    name="backdating",
    source="ours, after precedence in Fang et al. 2023",
    idea="A true run that leads to the stolen weights, made today with a beacon's rounds of yesterday, as "
    "if it had been made then.",
    needs=frozenset({Need.WEIGHTS, Need.DATA}),
    aims="precedence",
    forge=forge,
)
