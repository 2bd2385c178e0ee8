"""`gradseal attack`: carry out one attack, and see what every policy says of it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click

from gradseal.errors import Error
from gradseal.report.words import finite, printable


@click.command(
    name="attack",
    epilog="\b\nExamples:\n"
    "  gradseal attack --list\n"
    "  gradseal attack 'infinitesimal update'\n"
    "  gradseal attack 'blindfold top-Q' --seed 3 --exact --out forged",
)
@click.argument("name", required=False)
@click.option("--list", "listed", is_flag=True, help="Every attack, with what it does, and end.")
@click.option("--recipe", default="digits", show_default=True, help="What victim and attacker train.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of both.")
@click.option("--exact", is_flag=True, help="In exact arithmetic; else in native.")
@click.option("--steps", type=click.IntRange(min=1), help="Steps of the victim's run; 500 if not given.")
@click.option("--every", type=click.IntRange(min=1), help="Steps in a segment; 10 if not given.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples in a batch; 6 if not given.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Keep the attack's bundle here, to verify it yourself; else it is made in memory.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for an error too.")
def command(
    name: str | None,
    listed: bool,
    recipe: str,
    seed: int,
    exact: bool,
    steps: int | None,
    every: int | None,
    batch_size: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Carry out the attack NAME on a victim trained for it, and judge it by every policy.

    The victim's run is a recipe's, on this machine. The attack writes a bundle with what its threat model
    grants; each policy then verifies it, with the attacker's key pinned as if he were the owner. What the
    attacks are is in the documentation, a page each.
    """
    from gradseal.attacks.attack import Setting
    from gradseal.attacks.catalogue import attack_names, load_attack

    if listed:
        attacks = [load_attack(one) for one in attack_names()]
        if as_json:
            click.echo(json.dumps({one.name: one.idea for one in attacks}, indent=2))
        else:
            for one in attacks:
                click.echo(f"{printable(one.name)}\n    {printable(one.idea)}")
        return
    if name is None:
        raise click.UsageError("name an attack, or use --list")
    attack = load_attack(name)
    import torch

    from gradseal.recipes.recipe import load_recipe
    from gradseal.report.matrix import case_lines
    from gradseal.study.matrix.suite import Suite

    setting = Setting.sized(steps, every, batch_size)
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Error("already exists, and is not an empty directory", where=str(out))
    torch.set_num_threads(1)
    click.echo(f"training a victim of {setting.steps} steps, and his twin, then attacking", err=True)
    suite = Suite(load_recipe(recipe), setting)
    case = suite.judge(attack, seed=seed, exact=exact, target=str(out.absolute()) if out else None)
    if as_json:
        click.echo(json.dumps(finite(case.to_json()), indent=2))
        return
    click.echo(printable_lines(case_lines(attack, case)))
    if out is not None:
        bundle = shlex.quote(printable(str(out)))
        pinned = f"gradseal verify {bundle} --key {shlex.quote(case.key)}"
        click.echo(f"\nthe bundle: {printable(str(out))}; verify it with:", err=True)
        click.echo(f"  {pinned} --policy jia2021 --reference {case.reference:.9g}", err=True)
        click.echo(f"  {pinned}", err=True)


def printable_lines(lines: list[str]) -> str:
    """Lines of text without characters that are not printed."""
    return "\n".join(printable(line) for line in lines)
