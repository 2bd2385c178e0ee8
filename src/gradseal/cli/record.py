"""`gradseal record`: record a recipe's training as a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from gradseal.record.keys import load_signer


@click.command(name="record")
@click.argument("recipe")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The bundle to write; a new directory."
)
@click.option(
    "--key",
    required=True,
    type=click.Path(path_type=Path),
    help="The owner's signing key (gradseal key new FILE).",
)
@click.option(
    "--steps", type=click.IntRange(min=1), help="Optimizer updates; the recipe's own number by default."
)
@click.option(
    "--every", type=click.IntRange(min=1), help="Steps in a segment; the recipe's own number by default."
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Samples in a batch; the recipe's own by default."
)
@click.option(
    "--seed", type=click.IntRange(min=0), help="A number to derive all randomness from; fresh by default."
)
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of an operator."
)
def command(
    recipe: str,
    out: Path,
    key: Path,
    steps: int | None,
    every: int | None,
    batch_size: int | None,
    seed: int | None,
    threads: int,
) -> None:
    """Train RECIPE and record the training as a bundle.

    Recipes: digits.
    """
    signer = load_signer(key)
    import torch

    from gradseal.cli.training import train
    from gradseal.recipes.recipe import load_recipe

    torch.set_num_threads(threads)
    said = train(
        load_recipe(recipe),
        out,
        signer,
        steps=steps,
        every=every,
        batch_size=batch_size,
        seed=seed,
        progress=None,
    )
    click.echo(f"{out}: {said}")
    click.echo(f"verify it with: gradseal verify {out} --key {signer.verification_key}")
