"""Every recipe is recorded as the command line does it, and all that its record claims is then shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import Subset, TensorDataset

from bundles import KEY, check, findings
from gradseal.cli.training import train
from gradseal.recipes.images import loss
from gradseal.recipes.recipe import Recipe, load_recipe
from gradseal.recipes.resnet import ResNet20
from gradseal.verify.verdict import ClaimName, Outcome, Result, Status

SAMPLES = 16


def pictures() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (SAMPLES, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return TensorDataset(images, torch.arange(SAMPLES, dtype=torch.uint8) % 10)


def resnet() -> Recipe:
    """The net and the optimizer of `fashion`, whose data a machine may lack, on small pictures."""
    return Recipe(
        build=ResNet20,
        optimizer=lambda model: torch.optim.SGD(
            model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
        ),
        schedule=torch.optim.lr_scheduler.CosineAnnealingLR,
        loss=loss,
        data=pictures(),
        batch_size=SAMPLES,
        steps=3,
        every=2,
        evaluate=lambda model: "not evaluated",
    )


def first_samples(name: str) -> Recipe:
    recipe = load_recipe(name)
    return replace(recipe, data=Subset(recipe.data, range(SAMPLES)))


@pytest.mark.parametrize("name", ["mnist", "text", "resnet"])
def test_a_recipe_is_recorded_and_all_is_shown(tmp_path: Path, name: str) -> None:
    recipe = resnet() if name == "resnet" else first_samples(name)
    said = train(recipe, tmp_path / "run", KEY, steps=2, every=1, batch_size=SAMPLES, seed=7)
    assert said.startswith("2 steps in 2 segments; ")
    verdict = check(tmp_path / "run")
    assert verdict.outcome is Outcome.ACCEPTED, findings(verdict, Result.REFUTED)
    shown = {claim for claim, found in verdict.claims.items() if found.status is Status.SHOWN}
    assert shown == set(ClaimName) - {ClaimName.PRECEDENCE}
