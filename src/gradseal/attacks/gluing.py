"""Gluing: an own honest run goes over into another model's checkpoint, and truthfully on from there.

Source: Choi, Shavit and Duvenaud 2023, "Tools for Verifying Neural Models' Training Data". All segments are
true but the one in the middle, which ends in the stolen weights. The training after it is the recipe's own:
it leaves them again, by as much as it moves. With a rate that keeps it there it is the jump in mid-run.
"""

from __future__ import annotations

from gradseal.attacks.attack import Attack, Hand, Need
from gradseal.attacks.paths import train_but_one


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    run = hand.present()
    train_but_one(run, run.planned // 2, hand.weights)


ATTACK = Attack(
    name="gluing",
    source="Choi, Shavit and Duvenaud 2023, Tools for Verifying Neural Models' Training Data",
    idea="An own honest run up to its middle, then the stolen weights, and honest training from there.",
    needs=frozenset({Need.WEIGHTS, Need.DATA}),
    aims="computation",
    forge=forge,
)
