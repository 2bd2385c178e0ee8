"""`gradseal record`: record a recipe's training as a bundle."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from gradseal.cli.numbers import FiniteRange
from gradseal.cli.paths import make_new_directory
from gradseal.precede.asked import Asked
from gradseal.precede.trust import load_trust
from gradseal.program.arithmetic import ARITHMETICS, NATIVE
from gradseal.recipes.recipe import DIRECTORY_VARIABLES, RECIPES, known_recipe
from gradseal.record.keys import load_signer

_WIDTH = max(map(len, RECIPES))
_LISTED = "\n".join(f"  {name:{_WIDTH}}  {what}" for name, what in RECIPES.items())


@click.command(
    name="record",
    epilog=f"\b\nRecipes:\n{_LISTED}\n\n\b\nExample:\n"
    "  gradseal record digits --out runs/digits --key owner.key\n"
    "  gradseal record digits --out runs/digits --key owner.key --resume\n"
    "  gradseal record digits --out runs/exact --key owner.key --arithmetic exact",
)
@click.argument("recipe")
@click.option(
    "--out", required=True, metavar="BUNDLE", help="The bundle to write: a new or empty directory, or a URL."
)
@click.option(
    "--key", required=True, metavar="FILE", help="The owner's signing key, made by gradseal key new FILE."
)
@click.option(
    "--steps", type=click.IntRange(min=1), help="Optimizer updates; by default the recipe's own number."
)
@click.option(
    "--every", type=click.IntRange(min=1), help="Steps in a segment; by default the recipe's own number."
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Samples in a batch; by default the recipe's own number."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="NUMBER",
    help="What all randomness derives from; by default fresh.",
)
@click.option(
    "--anchors",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Whom to ask for seeds and anchors: a file of pins with addresses, as verify --trust takes it.",
)
@click.option(
    "--cadence",
    type=click.IntRange(min=1),
    metavar="SECONDS",
    help="How long a slot is, with a beacon in --anchors; twice a segment's time or more. [default: 60]",
)
@click.option(
    "--lead",
    type=FiniteRange(0, 86_400),
    metavar="SECONDS",
    help="How long before the first slot the manifest is sealed and anchored. [default: 20]",
)
@click.option(
    "--arithmetic",
    type=click.Choice(ARITHMETICS),
    default=NATIVE,
    show_default=True,
    help="PyTorch's own, with bits of one kind of machine; or exact: slower, and the same bits anywhere.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Threads of an operator; in native arithmetic a verifier will need as many.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on from the last sealed state of an interrupted recording in BUNDLE; begin, if there is none.",
)
def command(  # noqa: PLR0913 - an option of the command line each
    recipe: str,
    out: str,
    key: str,
    steps: int | None,
    every: int | None,
    batch_size: int | None,
    seed: int | None,
    anchors: Path | None,
    cadence: int | None,
    lead: float | None,
    arithmetic: str,
    threads: int,
    resume: bool,
) -> None:
    """Train RECIPE and record the training as a bundle.

    With --anchors, seeds come from the beacon in FILE, slot after slot, and the log is anchored meanwhile by
    its witnesses and time-stamp authorities; with --seed too, it is only anchored. What was interrupted goes
    on with the same command and --resume; with a seed of one's own it ends at the same bundle. To record a
    training of your own, call gradseal.record in your script.
    """
    if seed is not None and seed.bit_length() > 256:
        raise click.BadParameter("a seed is below 2**256", param_hint="--seed")
    signer = load_signer(key)
    asked = _asked(anchors, seed, cadence, lead)
    for note in asked.notes:
        click.echo(f"warning: {note}", err=True)
    known_recipe(recipe)
    if not resume:
        make_new_directory(
            out, advice="go on with what was interrupted there: --resume; or name another directory"
        )
    import torch

    from gradseal.cli.training import train
    from gradseal.recipes.recipe import load_recipe

    torch.set_num_threads(threads)
    try:
        said = train(
            load_recipe(recipe, os.environ.get(DIRECTORY_VARIABLES.get(recipe, ""))),
            out,
            signer,
            steps=steps,
            every=every,
            batch_size=batch_size,
            arithmetic=arithmetic,
            seed=seed,
            resume=resume,
            asked=asked,
        )
    except KeyboardInterrupt:
        click.echo(f"\n{out} stays unfinished; go on with the same command and --resume", err=True)
        raise
    click.echo(f"{out}: {said}")
    pins = f" --trust {shlex.quote(str(anchors))}" if anchors else ""
    click.echo(f"verify it with:\n  gradseal verify {shlex.quote(out)} --key {signer.verification_key}{pins}")


def _asked(anchors: Path | None, seed: int | None, cadence: int | None, lead: float | None) -> Asked:
    if anchors is None:
        for name, value in (("--cadence", cadence), ("--lead", lead)):
            if value is not None:
                raise click.BadParameter("says something only with --anchors FILE", param_hint=name)
        return Asked()
    asked = Asked.of(load_trust(anchors), slots=seed is None, cadence_seconds=cadence, lead_seconds=lead)
    if asked.beacon is None and cadence is not None:
        raise click.BadParameter("says something only with seeds from a beacon", param_hint="--cadence")
    return asked
