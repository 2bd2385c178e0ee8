"""Recording a recipe, for the verbs that do."""

from __future__ import annotations

from pathlib import Path

from gradseal.program.initialise import initialise
from gradseal.proof.note import Signer
from gradseal.recipes.recipe import Recipe
from gradseal.record.recorder import record


def train(
    recipe: Recipe,
    out: str | Path,
    signer: Signer,
    *,
    steps: int | None = None,
    every: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
) -> str:
    """Trains a recipe under record, with progress where a person watches; says what came of it."""
    with initialise():
        model = recipe.build()
    with record(
        out,
        model,
        recipe.optimizer(model),
        loss=recipe.loss,
        data=recipe.data,
        batch_size=batch_size or recipe.batch_size,
        steps=steps or recipe.steps,
        every=every or recipe.every,
        key=signer,
        seed=seed,
    ) as run:
        for batch in run:
            run.step(batch)
    return f"{run.steps} steps in {run.segments} segments; {recipe.evaluate(model)}"
