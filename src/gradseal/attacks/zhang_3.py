"""Zhang's third attack: as the second, but the batches of an interval are made together, a few at a time.

Source: Zhang et al. 2022, "'Adversarial Examples' for Proof-of-Learning", attack III. See `synthesis` for
what the three have in common. The gradient wanted is zero for the mean over several batches at once, which
L-BFGS reaches with a looser tolerance, 0.1, and λ = 0.1: fewer optimisations than batches.

Where we differ: the number of intervals, as in the second attack. The released code makes an interval's
batches in as many groups as a parameter says; here a group has at most five batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch

from gradseal.attacks.attack import Attack, Hand, Need
from gradseal.attacks.synthesis import Made, Rule, Synthesis, forge_along
from gradseal.record.presented import State

RULE = Rule(iterations=10, weight=0.1, tolerance=0.1)
TOGETHER = 5
"""The most batches that are made at once."""

_SHARE = 0.8


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    size = hand.setting.batch_size

    def count(way: float) -> int:
        return math.ceil(way / (_SHARE * hand.tolerance))

    def interval(synthesis: Synthesis, left: State, _: State) -> Iterator[Made]:
        for first in range(0, hand.setting.every, TOGETHER):
            batches = min(TOGETHER, hand.setting.every - first)
            zero = {name: torch.zeros_like(tensor) for name, tensor in left.items()}
            group = synthesis.make(zero, batches * size)
            for images, labels in zip(
                *(torch.split(part, size) for part in (group.images, group.labels)), strict=True
            ):
                gradient = synthesis.gradient(images, labels)
                synthesis.step(gradient)
                yield replace(group, images=images, labels=labels, gradient=gradient)

    forge_along(hand, RULE, count, interval)


ATTACK = Attack(
    name="zhang 3",
    source='Zhang et al. 2022, "Adversarial Examples" for Proof-of-Learning',
    idea="Checkpoints on a line, within the tolerance of each other; the claimed data are synthesised "
    "several batches at once, so that their common gradient vanishes.",
    needs=frozenset({Need.WEIGHTS, Need.DATA, Need.TOLERANCE}),
    aims="computation",
    forge=forge,
    slow=True,
)
