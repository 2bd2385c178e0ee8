"""Grinding of seeds: several honest runs under different declared seeds, of which the best is shown.

Source: ours; that a prover may try seeds is said of training proofs in Choi, Shavit, Duvenaud 2023, "Tools
for Verifying Neural Models' Training Data". Here the best is the one of least loss over some of the training
data. All runs together take about as many steps as one of the setting, so that each claims an eighth of them.
"""

from __future__ import annotations

from gradseal.attacks.attack import Attack, Hand, Need
from gradseal.attacks.selecting import RUNS, Make, loss_of, show_best, steps_of_each


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    makes = [_make(hand, hand.random_bytes()) for _ in range(RUNS)]
    show_best(hand, "training loss", makes, lambda ends: loss_of(hand, ends[-1][0]))


def _make(hand: Hand, seed: bytes) -> Make:
    return lambda scratch: hand.present(seed=seed, steps=steps_of_each(hand), scratch=scratch)


ATTACK = Attack(
    name="grinding seeds",
    source="ours, after Choi, Shavit, Duvenaud 2023, Tools for Verifying Neural Models' Training Data",
    idea="Eight honest runs under different declared seeds; the best is shown as if it were the only one.",
    needs=frozenset({Need.DATA}),
    aims="that the run is the only one",
    forge=forge,
    steals=False,
)
