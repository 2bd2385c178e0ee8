"""Recording a recipe, for the verbs that do."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from gradseal.errors import RecordWarning
from gradseal.precede.asked import Asked
from gradseal.program.initialise import initialise
from gradseal.proof.note import Signer
from gradseal.recipes.recipe import Recipe
from gradseal.record.recorder import record


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings of a recording as lines for people, each time, without the lines of our own source."""

    def show(message: Warning | str, *where: Any, **more: Any) -> None:
        click.echo(f"warning: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", RecordWarning)
        warnings.showwarning = show
        yield


def train(
    recipe: Recipe,
    out: str | Path,
    signer: Signer,
    *,
    steps: int | None = None,
    every: int | None = None,
    batch_size: int | None = None,
    arithmetic: str = "native",
    seed: int | None = None,
    resume: bool = False,
    asked: Asked | None = None,
) -> str:
    """Trains a recipe under record, with progress where a person watches; says what came of it."""
    with initialise():
        model = recipe.build()
    optimizer = recipe.optimizer(model)
    steps, asked = steps or recipe.steps, asked or Asked()
    with (
        _plain_warnings(),
        record(
            out,
            model,
            optimizer,
            loss=recipe.loss,
            data=recipe.data,
            batch_size=batch_size or recipe.batch_size,
            steps=steps,
            every=every or recipe.every,
            key=signer,
            schedule=recipe.schedule(optimizer, steps) if recipe.schedule else None,
            clip=recipe.clip,
            accumulate=recipe.accumulate,
            arithmetic=arithmetic,
            seed=seed,
            beacon=asked.beacon,
            witnesses=asked.witnesses,
            timestamps=asked.timestamps,
            resume=resume,
        ) as run,
    ):
        if run.steps_done:
            click.echo(f"going on after step {run.steps_done} of {run.steps}", err=True)
        for batch in run:
            run.step(batch)
    return f"{run.steps} steps in {run.segments} segments; {recipe.evaluate(model)}"
