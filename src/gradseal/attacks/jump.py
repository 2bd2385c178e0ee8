"""Jump in mid-run: one segment in the middle is false, all others replay to the bit.

Source: ours, the least that any attack on the computation has to forge. State zero follows from the rules and
the first half is honest training; the middle segment jumps onto the stolen weights, from where the training
is true again, at a learning rate that keeps it there.
"""

from __future__ import annotations

from gradseal.attacks.attack import Attack, Hand, Need
from gradseal.attacks.paths import scaled, sgd, train_but_one

RATE = 0.1
FACTOR = 1e-3
"""Of the learning rate after the jump."""


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    every, steps = hand.setting.every, hand.setting.steps
    middle = steps // every // 2
    before = (middle + 1) * every
    run = hand.present(
        optimizer=sgd(RATE), schedule=scaled([1.0] * before + [FACTOR] * max(1, steps - before))
    )
    train_but_one(run, middle, hand.weights)


ATTACK = Attack(
    name="jump in mid-run",
    source="ours",
    idea="One segment in the middle jumps onto the stolen weights; all others are true, those after it at a "
    "learning rate too small to leave them.",
    needs=frozenset({Need.WEIGHTS, Need.DATA}),
    aims="computation",
    forge=forge,
)
