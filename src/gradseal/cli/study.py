"""`gradseal study`: measure what verification is worth."""

from __future__ import annotations

import json
import os
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from gradseal.cli.watching import Watcher
from gradseal.report.words import finite, printable

QUICK_SEEDS, FULL_SEEDS = 2, 5


@click.group(name="study", epilog="\b\nExample:\n  gradseal study matrix --out study")
def command() -> None:
    """Measure what verification is worth, on this machine, with attacks of all kinds."""


@command.command(
    name="matrix",
    epilog="\b\nExamples:\n"
    "  gradseal study matrix --out study\n"
    "  gradseal study matrix --out study --full\n"
    "  gradseal study matrix --out study --attack gluing --policy full",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="Where results go, and cases, by which a study that was stopped goes on.",
)
@click.option("--full", is_flag=True, help="Slow attacks too, exact arithmetic throughout, and 5 seeds.")
@click.option("--seeds", type=click.IntRange(min=1), help="How many victims; 2, or 5 with --full.")
@click.option("--attack", "attacks", multiple=True, metavar="NAME", help="Only this one; may be repeated.")
@click.option("--policy", "policies", multiple=True, metavar="NAME", help="Only this one; may be repeated.")
@click.option(
    "--arithmetic",
    type=click.Choice(["native", "exact", "both"]),
    help="Of victims and attacks; native if not given, and with --full both.",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Processes at once; as many as processors.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for an error too.")
def matrix(
    out: Path,
    full: bool,
    seeds: int | None,
    attacks: tuple[str, ...],
    policies: tuple[str, ...],
    arithmetic: str | None,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Judge every attack by every policy, over several victims.

    Writes matrix.html to read, matrix.json, and matrix.md for documents into DIR. Each case is kept in
    DIR/cases, so the same command goes on where one was stopped, and does only what is new.

    Exit status: 0 done, whatever passed; 2 if a case failed, and so its cell lacks a seed.
    """
    from gradseal.attacks.attack import Setting
    from gradseal.attacks.catalogue import attack_names, load_attack
    from gradseal.report.matrix import matrix_markdown, matrix_page
    from gradseal.report.page import save_page
    from gradseal.study.columns import POLICIES, named
    from gradseal.study.matrix import Plan, run_matrix

    chosen = attacks or tuple(n for n in attack_names() if full or not load_attack(n).slow)
    for name in policies:
        named(name, Setting())
    both = arithmetic == "both" or (full and arithmetic is None)
    plan = Plan(
        attacks=tuple(load_attack(name).name for name in chosen),
        policies=policies or POLICIES,
        arithmetics=("native", "exact") if both else (arithmetic or "native",),
        seeds=seeds or (FULL_SEEDS if full else QUICK_SEEDS),
    )
    with Watcher(shown=sys.stderr.isatty()) as watcher:
        table = run_matrix(plan, out, jobs=jobs or os.cpu_count() or 1, progress=watcher.update)
    repeat = shlex.join(["gradseal", *sys.argv[1:]])
    page = matrix_page(table, repeat=repeat, made=datetime.now(UTC))
    save_page(out / "matrix.html", page)
    save_page(out / "matrix.md", matrix_markdown(table))
    save_page(out / "matrix.json", json.dumps(finite(table.to_json()), indent=2) + "\n")
    if as_json:
        click.echo(json.dumps(finite(table.to_json()), indent=2))
    else:
        click.echo(matrix_markdown(table))
    for line in table.failed:
        click.echo(f"failed: {printable(line)}", err=True)
    click.echo(f"written: {printable(str(out / 'matrix.html'))}", err=True)
    sys.exit(2 if table.failed else 0)


@command.command(name="ks", epilog="\b\nExample:\n  gradseal study ks --draws 300")
@click.option("--draws", type=click.IntRange(min=1), default=300, show_default=True, help="Initialisations.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all of them.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for an error too.")
def ks(draws: int, seed: int, as_json: bool) -> None:
    """How often the classical test rejects honest initialisations of ResNet-20, and how often ours.

    Both are Kolmogorov-Smirnov tests of each tensor against its rule's distribution: the original takes each
    tensor at 1 %, the corrected one all of them together.
    """
    from gradseal.study.ks import study_ks

    with Watcher(shown=sys.stderr.isatty()) as watcher:
        result = study_ks(draws, seed, watcher.update)
    click.echo(json.dumps(finite(result.to_json()), indent=2) if as_json else "\n".join(result.lines()))
