"""Zhang's first attack: in every interval, data whose gradients lead from one checkpoint to the next.

Source: Zhang et al. 2022, "'Adversarial Examples' for Proof-of-Learning", attack I. See `synthesis` for what
the three have in common. The wanted gradient of a batch is the interval's step, spread over its k batches.

Where we differ: the number of intervals. Published are 20, of k = 100 steps each. Here they are as few as
keep the wanted gradient's squared norm within four fifths of the stopping rule's bound, so that a batch
whose gradient is zero obeys the rule; with fewer, every optimisation would use up its 30 draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradseal.attacks.attack import Attack, Hand, Need
from gradseal.attacks.synthesis import RATE, Made, Rule, Synthesis, correction, forge_along
from gradseal.record.presented import State

RULE = Rule(iterations=100, weight=1.0)
_SHARE = 0.8


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    every = hand.setting.every

    def count(way: float) -> int:
        return math.ceil(way / (RATE * every * math.sqrt(_SHARE * RULE.gradient)))

    def interval(synthesis: Synthesis, left: State, right: State) -> Iterator[Made]:
        wanted = correction(left, right, every)
        for _ in range(every):
            made = synthesis.make(wanted, hand.setting.batch_size)
            synthesis.step(made.gradient)
            yield made

    forge_along(hand, RULE, count, interval)


ATTACK = Attack(
    name="zhang 1",
    source='Zhang et al. 2022, "Adversarial Examples" for Proof-of-Learning',
    idea="Every batch of the claimed data is synthesised so that its gradient leads along the line to the "
    "stolen weights.",
    needs=frozenset({Need.WEIGHTS, Need.DATA, Need.TOLERANCE}),
    aims="computation",
    forge=forge,
    slow=True,
)
