"""Infinitesimal update with a given start: where state zero is recomputed, it is not claimed to be drawn.

Source: ours, after Fang et al. 2023, "Proof-of-Learning is Currently More Broken Than You Think". The attack
is that of `infinitesimal_update`, but the rank-matched weights are loaded into the model, and so *given*. No
rule is broken then, and a verifier that recomputes state zero goes on to the replays.
"""

from __future__ import annotations

from gradseal.attacks.attack import Attack, Hand, Need
from gradseal.attacks.infinitesimal_update import write


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    write(hand, given=True)


ATTACK = Attack(
    name="infinitesimal update, given",
    source="ours, after Fang et al. 2023, Proof-of-Learning is Currently More Broken Than You Think",
    idea="The infinitesimal update from weights that are given, so that no rule of the start is broken.",
    needs=frozenset({Need.WEIGHTS, Need.DATA, Need.TOLERANCE}),
    aims="computation",
    forge=forge,
)
