"""Smuggled data, dated: the same in time, with a beacon's seeds and anchors, from the day of the theft on.

Source: ours. Nothing in it is false, not even the time: precedence says when a run was made, not where its
data are from. A verifier who demands it tries each segment under another seed, and sees a program that leads
to known weights whatever the seed. So the pull is weak here: a parameter goes a fifth of its way whenever its
row is seen, in many epochs, and in between moves as its batches have it.
"""

from __future__ import annotations

from gradseal.attacks.attack import Attack, Hand, Need
from gradseal.attacks.dated import Services, present_dated
from gradseal.attacks.smuggled_data import smuggled
from gradseal.attacks.smuggling import train

RATE, SHARE, EPOCHS = 0.01, 0.2, 20


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    services = Services.of(hand)
    own = smuggled(hand, steps=hand.setting.steps, epochs=EPOCHS, rate=RATE, share=SHARE)
    train(present_dated(hand, services, services.plan(), **own))


ATTACK = Attack(
    name="smuggled data dated",
    source="ours",
    idea="A weaker pull by data that carry the stolen numbers, in a run with a beacon's seeds and every "
    "checkpoint anchored in time, begun after the theft; nothing is false.",
    needs=frozenset({Need.WEIGHTS, Need.DATA}),
    aims="that the run found these weights",
    forge=forge,
)
