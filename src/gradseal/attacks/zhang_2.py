"""Zhang's second attack: checkpoints within the tolerance of each other, and data that hold the model still.

Source: Zhang et al. 2022, "'Adversarial Examples' for Proof-of-Learning", attack II. See `synthesis` for
what the three have in common. An interval is shorter than the tolerance, so the replay may as well stay
where it starts. The wanted gradient of a batch is almost zero: it leads back to the interval's start, from
which earlier batches drifted, spread over the batches that are left. L-BFGS makes 10 iterations.

Where we differ: the number of intervals follows from the tolerance, and takes more steps than the victim's
run where that is short. The published victim took 78,125 steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradseal.attacks.attack import Attack, Hand, Need
from gradseal.attacks.synthesis import Made, Rule, Synthesis, correction, forge_along
from gradseal.record.presented import State

RULE = Rule(iterations=10, weight=1.0)
_SHARE = 0.8
"""Of the tolerance that an interval's length uses; the rest is for drift that is not cancelled."""


def forge(hand: Hand) -> None:
    """Writes the bundle."""

    def count(way: float) -> int:
        return math.ceil(way / (_SHARE * hand.tolerance))

    def interval(synthesis: Synthesis, left: State, _: State) -> Iterator[Made]:
        for left_over in range(hand.setting.every, 0, -1):
            wanted = correction(synthesis.state, left, left_over)
            made = synthesis.make(wanted, hand.setting.batch_size)
            synthesis.step(made.gradient)
            yield made

    forge_along(hand, RULE, count, interval)


ATTACK = Attack(
    name="zhang 2",
    source='Zhang et al. 2022, "Adversarial Examples" for Proof-of-Learning',
    idea="Checkpoints on a line, within the tolerance of each other; every batch of the claimed data is "
    "synthesised so that a replay stays where it starts.",
    needs=frozenset({Need.WEIGHTS, Need.DATA, Need.TOLERANCE}),
    aims="computation",
    forge=forge,
    slow=True,
)
