"""An owner who trains half of the steps that he claims.

Every segment of the first half is true. In the second half he presents the last true state again and again,
with a trace of noise so that each segment has an update.
"""

from __future__ import annotations

import torch

from gradseal.attacks.attack import Attack, Hand, Need

NOISE = 1e-4


def forge(hand: Hand) -> None:
    """Writes a bundle whose second half was never trained."""
    run = hand.present()
    run.begin()
    for segment in range(run.planned):
        if segment < run.planned // 2:
            run.train()
            continue
        noisy = {
            name: tensor + NOISE * torch.randn(tensor.shape, generator=hand.generator)
            for name, tensor in run.state.items()
            if name.startswith("parameters/")
        }
        run.present(noisy)
    run.finish()


ATTACK = Attack(
    name="lazy owner",
    source="ours, as an example",
    idea="Trains half of the claimed steps; for the others, presents the last state with a trace of noise.",
    needs=frozenset({Need.DATA}),
    aims="computation",
    forge=forge,
    steals=False,
)
