"""Infinitesimal update: checkpoints on a straight line, so close that standing still is close enough.

Source: Fang et al. 2023, "Proof-of-Learning is Currently More Broken Than You Think". An initialisation is
drawn honestly, and its values are put in the rank order of the stolen weights; from there checkpoints lie on
the line to these, each within the verifier's tolerance of the one before. The declared learning rate is as
good as zero: a replay ends where it starts, and that is near enough.

Where we differ: the claim is at least the setting's length, so that costs compare; buffers are on a line too.
"""

from __future__ import annotations

import math

from gradseal.attacks.attack import Attack, Hand, Need, distance
from gradseal.attacks.head_start import load
from gradseal.attacks.paths import drawn, parameters_of, rank_matched, sgd, walk

RATE = 1e-12
SHARE = 0.99
"""Of the tolerance that an interval uses: numbers of single precision do not lie on the line exactly."""


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    write(hand, given=False)


def write(hand: Hand, *, given: bool) -> None:
    """Writes the bundle, with a start that is claimed to follow from the rules, or that is given."""
    target = hand.weights
    start = rank_matched(drawn(hand), target)
    way = distance(parameters_of(start), target)
    segments = math.ceil(way / (SHARE * hand.tolerance))
    steps = max(hand.setting.steps, segments * hand.setting.every)
    model = hand.model()
    if given:
        load(model, start)
    run = hand.present(model, optimizer=sgd(RATE), steps=steps)
    run.begin(start)
    walk(hand, run, target, run.planned)
    run.finish()


ATTACK = Attack(
    name="infinitesimal update",
    source="Fang et al. 2023, Proof-of-Learning is Currently More Broken Than You Think",
    idea="Checkpoints on a line from a rank-matched initialisation to the stolen weights, each within the "
    "tolerance of the one before, under a learning rate of almost zero.",
    needs=frozenset({Need.WEIGHTS, Need.DATA, Need.TOLERANCE}),
    aims="computation",
    forge=forge,
)
