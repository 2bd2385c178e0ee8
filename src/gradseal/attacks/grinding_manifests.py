"""Grinding of manifests: one declared seed, and a meaningless digit of the manifest tried in its place.

Source: ours. Seeds of a run are bound to its manifest, so an owner whose seed is fixed beforehand grinds the
manifest instead: here the last digits of a learning rate, which change nothing but every draw. Shown is the
run whose end is nearest to given weights. All runs together take about as many steps as one of the setting.
"""

from __future__ import annotations

import torch
from torch import nn

from gradseal.attacks.attack import Attack, Hand, Need, distance
from gradseal.attacks.selecting import RUNS, Make, show_best, steps_of_each

LAST_DIGITS = 1e-12
"""By what share of itself a learning rate changes from one manifest to the next."""


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    seed, wanted = hand.random_bytes(), hand.parameters
    makes = [_make(hand, seed, number) for number in range(RUNS)]
    show_best(
        hand,
        "distance to given weights",
        makes,
        lambda ends: distance(wanted, ends[-1][0]),
    )


def _make(hand: Hand, seed: bytes, number: int) -> Make:
    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        made = hand.recipe.optimizer(model)
        for group in made.param_groups:
            group["lr"] *= 1 + number * LAST_DIGITS
        return made

    steps = steps_of_each(hand)
    return lambda scratch: hand.present(seed=seed, optimizer=optimizer, steps=steps, scratch=scratch)


ATTACK = Attack(
    name="grinding manifests",
    source="ours",
    idea="Eight honest runs of one seed, whose manifests differ in digits that mean nothing; shown is the "
    "one that ends nearest to given weights.",
    needs=frozenset({Need.WEIGHTS, Need.DATA}),
    aims="that the run is the only one",
    forge=forge,
    steals=False,
)
