"""Weights smuggled in by a weak pull: training as usual, with a second term in the loss.

Source: ours. The recipe's loss, optimizer and steps, and to the loss is added c ‖W − W_T‖², as if it were a
regulariser. Nothing looks unusual: the loss falls as it should, lengths shrink as they should, and the run
ends at the stolen weights all the same, since c outweighs what is left of the gradient there.

The published relative is directed retraining (Jia et al. 2021, "Proof-of-Learning: Definitions and
Practice"), where the pull is not part of what is declared.
"""

from __future__ import annotations

from gradseal.attacks.attack import Attack, Hand, Need
from gradseal.attacks.smuggling import pulled, train

PULL = 0.05
"""c."""


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    train(hand.present(loss=pulled(hand, 2 * PULL)))


ATTACK = Attack(
    name="smuggled pull",
    source="ours, after directed retraining in Jia et al. 2021",
    idea="The recipe's training, with a weak pull to the stolen weights declared as part of the loss; all "
    "segments are true.",
    needs=frozenset({Need.WEIGHTS, Need.DATA}),
    aims="initialisation",
    forge=forge,
)
