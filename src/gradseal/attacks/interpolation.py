"""Interpolation: an own honest run goes over into the stolen weights along a line, over many segments.

Source: Choi, Shavit and Duvenaud 2023, "Tools for Verifying Neural Models' Training Data". The first half is
an honest run; the second half is the straight line from its end to the stolen weights, so that no segment
moves far. The learning rate is the true one throughout, and so a replay goes elsewhere.
"""

from __future__ import annotations

from gradseal.attacks.attack import Attack, Hand, Need
from gradseal.attacks.paths import walk


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    run = hand.present()
    run.begin()
    honest = run.planned // 2
    for _ in range(honest):
        run.train()
    walk(hand, run, hand.weights, run.planned - honest)
    run.finish()


ATTACK = Attack(
    name="interpolation",
    source="Choi, Shavit and Duvenaud 2023, Tools for Verifying Neural Models' Training Data",
    idea="An own honest run up to its middle, then a straight line to the stolen weights over all "
    "segments left.",
    needs=frozenset({Need.WEIGHTS, Need.DATA}),
    aims="computation",
    forge=forge,
)
