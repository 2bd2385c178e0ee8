"""`gradseal import`: make a bundle of a proof by the released proof-of-learning code."""

from __future__ import annotations

import math
import os
import shlex
import sys
from pathlib import Path

import click

from gradseal.cli.watching import Watcher
from gradseal.errors import MissingFile
from gradseal.program.arithmetic import ARITHMETICS, EXACT, NATIVE
from gradseal.recipes.recipe import DIRECTORY_VARIABLES, RECIPES, known_recipe
from gradseal.record.keys import load_signer

_WIDTH = max(map(len, RECIPES))
_LISTED = "\n".join(f"  {name:{_WIDTH}}  {what}" for name, what in RECIPES.items())


@click.command(
    name="import",
    epilog=f"\b\nRecipes:\n{_LISTED}\n\n\b\nExample:\n"
    "  gradseal import proof/MNIST_test --recipe mnist --out runs/old --key me.key\n"
    "  gradseal verify runs/old --policy jia2021",
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--recipe",
    required=True,
    metavar="NAME",
    help="What the folder does not have: model, loss, kind of optimizer and data.",
)
@click.option(
    "--out", required=True, metavar="BUNDLE", help="The bundle to write: a new or empty directory, or a URL."
)
@click.option(
    "--key",
    required=True,
    metavar="FILE",
    help="Your signing key, made by gradseal key new FILE: it says who imported, not who trained.",
)
@click.option(
    "--lr",
    type=float,
    help="The learning rate of a proof whose checkpoints have no optimizer.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Samples in a step, where indices.npy does not say it; else it must agree.",
)
@click.option(
    "--arithmetic",
    type=click.Choice(ARITHMETICS),
    default=NATIVE,
    show_default=True,
    help="In which to replay it: that of this machine, or exact: slower, and the same on any.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Threads of an operator; in native arithmetic a verifier will need as many.",
)
@click.option(
    "--no-hash",
    is_flag=True,
    help="Leave hash.txt alone; to compare it takes minutes with many samples, and says little.",
)
def command(
    folder: Path,
    recipe: str,
    out: str,
    key: str,
    lr: float | None,
    batch_size: int | None,
    arithmetic: str,
    threads: int,
    no_hash: bool,
) -> None:
    """Make a bundle of FOLDER, a proof by the released code of Jia et al. 2021.

    FOLDER has model_step_0, model_step_100 and so on, indices.npy and hash.txt; or, from the attacks of Fang
    et al. 2023, model_0.pt and so on with data_0.npy and label_0.npy. Nothing in it is executed, and nothing
    is judged: gradseal verify does that, with --policy jia2021 as the released verifier would. Learning rates
    and the like are those of the folder, chosen by whoever made it.
    """
    if lr is not None and not math.isfinite(lr):
        raise click.BadParameter("is no finite number", param_hint="--lr")
    signer = load_signer(key)
    known_recipe(recipe)
    if not folder.is_dir():
        what = "is a file, and a released proof is a folder" if folder.exists() else "there is no such folder"
        raise MissingFile(what, where=str(folder))
    import torch

    from gradseal.program.initialise import initialise
    from gradseal.recipes.recipe import load_recipe
    from gradseal.record.imported import Training, import_released
    from gradseal.record.released_inputs import read_proof

    torch.set_num_threads(threads)
    chosen = load_recipe(recipe, os.environ.get(DIRECTORY_VARIABLES.get(recipe, "")))
    proof = read_proof(folder, chosen.data, batch_size=batch_size)
    with initialise():
        model = chosen.build()
    training = Training(
        model=model, optimizer=chosen.optimizer(model), loss=chosen.loss, data=chosen.data, lr=lr
    )
    with Watcher(shown=sys.stderr.isatty()) as watcher:
        imported = import_released(
            proof,
            training,
            target=out,
            signer=signer,
            exact=arithmetic == EXACT,
            hashed=not no_hash,
            progress=watcher.update,
        )
    click.echo(
        f"{out}: {imported.steps} steps in {imported.segments} segments, {imported.batch_size} samples each"
    )
    for note in imported.notes:
        click.echo(f"note: {note}")
    owner = signer.verification_key
    click.echo(f"verify it with:\n  gradseal verify {shlex.quote(out)} --key {owner} --policy jia2021")
