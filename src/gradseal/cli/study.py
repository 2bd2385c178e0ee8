"""`gradseal study`: measure what verification is worth."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from gradseal.cli.watching import Watcher
from gradseal.report.words import finite, printable

if TYPE_CHECKING:
    from gradseal.study.part import Effort

QUICK_SEEDS, FULL_SEEDS = 2, 5
PARTS = {
    "noise": "How far replay under other numerics ends from the recorded bits.",
    "tradeoff": "False rejections against false acceptances, as the tolerance varies.",
    "precedence": "What a thief can do as each part of the sealed plan is removed.",
    "audits": "What a sample of segments detects, and what it costs.",
    "endpoint": "Whether knowing the final weights helps to reach them.",
}
"""The parts that have no options of their own; with the matrix they are the whole study."""

_OUT = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="Where results go, and cases, by which a study that was stopped goes on.",
)
_FULL = click.option("--full", is_flag=True, help="Everything, for hours; else what minutes allow.")
_SEEDS = click.option("--seeds", type=click.IntRange(min=1), help="How many victims; 2, or 5 with --full.")
_SEED = click.option(
    "--seed", type=click.IntRange(0, 1 << 31), default=101, show_default=True, help="The first victim's."
)
_STEPS = click.option("--steps", type=click.IntRange(min=1), help="Of a victim's run; 500 if not given.")
_EVERY = click.option("--every", type=click.IntRange(min=1), help="Steps in a segment; 10 if not given.")
_BATCH = click.option("--batch-size", type=click.IntRange(min=1), help="Samples in a batch; 6 if not given.")
_JOBS = click.option("--jobs", type=click.IntRange(min=1), help="Processes at once; as many as processors.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for an error too.")


_SIZE = (_FULL, _SEEDS, _SEED, _STEPS, _EVERY, _BATCH, _JOBS, _JSON)


def _sized(verb: Any) -> Any:
    """Gives a command the options that all parts have."""
    for option in reversed((_OUT, *_SIZE)):
        verb = option(verb)
    return verb


@click.group(
    name="study",
    invoke_without_command=True,
    epilog="\b\nExamples:\n"
    "  gradseal study --out study\n"
    "  gradseal study --out study --full\n"
    "  gradseal study audits --out study",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where results go, and cases, by which a study that was stopped goes on.",
)
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Measure what verification is worth, on this machine, with attacks of all kinds.

    Each part answers one question. Without one, all of them are made, and one report: study.html to read,
    study.json, and study.md for documents. Results are kept in DIR/cases, so the same command goes on where
    one was stopped. Everything but times is the same for the same seed.

    Exit status: 0 done, whatever came of it; 2 if something failed, and so is missing.
    """
    if ctx.invoked_subcommand is not None:
        given = [f"--{n}" for n in options if ctx.get_parameter_source(n) is ParameterSource.COMMANDLINE]
        if given:
            raise click.UsageError(f"{given[0]} goes behind {ctx.invoked_subcommand}", ctx)
        return
    if options["out"] is None:
        raise click.UsageError("name a directory by --out, or one of the parts below", ctx)
    from gradseal.study.parts import NAMES

    _measured(NAMES, "study", options)


for _option in _SIZE:
    _option(command)


def _measured(names: Sequence[str], title: str, options: dict[str, Any]) -> None:
    """Makes parts, and writes and prints what they found."""
    from gradseal.report.page import save_page
    from gradseal.report.study import Study, study_markdown, study_page, summary_lines
    from gradseal.study.parts import run_parts

    out, effort = options["out"], _effort(options)
    began = time.monotonic()
    jobs = options["jobs"] or os.cpu_count() or 1
    with _kept(out), Watcher(shown=sys.stderr.isatty()) as watcher:
        sections = run_parts(names, effort, out, processes=jobs, progress=watcher.update)
    study = Study(
        sections=tuple(sections),
        repeat=_repeated(),
        made=datetime.now(UTC),
        seconds=time.monotonic() - began,
        facts=_facts(jobs),
        effort=asdict(effort),
    )
    text = json.dumps(study.to_json(), indent=2) + "\n"
    save_page(out / f"{title}.html", study_page(study))
    save_page(out / f"{title}.md", study_markdown(study))
    save_page(out / f"{title}.json", text)
    told = "".join(f"{printable(line)}\n" for line in summary_lines(sections))
    click.echo(text if options["as_json"] else told, nl=False)
    _end(out / f"{title}.html", [line for section in sections for line in section.failed])


def _add(name: str, said: str) -> None:
    @command.command(
        name=name, short_help=said.rstrip("."), epilog=f"\b\nExample:\n  gradseal study {name} --out study"
    )
    @_sized
    def part(**options: Any) -> None:
        _measured((name,), name, options)

    part.help = f"{said}\n\nWrites {name}.html to read, {name}.json, and {name}.md into DIR."


for _name, _said in PARTS.items():
    _add(_name, _said)


@command.command(
    name="matrix",
    epilog="\b\nExamples:\n"
    "  gradseal study matrix --out study\n"
    "  gradseal study matrix --out study --full\n"
    "  gradseal study matrix --out study --attack gluing --policy full",
)
@_sized
@click.option("--attack", "attacks", multiple=True, metavar="NAME", help="Only this one; may be repeated.")
@click.option("--policy", "policies", multiple=True, metavar="NAME", help="Only this one; may be repeated.")
@click.option(
    "--arithmetic",
    type=click.Choice(["native", "exact", "both"]),
    help="Of victims and attacks. If not given, all are native, and honest runs and the two attacks of the "
    "seed paper exact too; with --full all are both.",
)
@click.option("--recipe", default="digits", show_default=True, help="What victims and attackers train.")
def matrix(
    attacks: tuple[str, ...], policies: tuple[str, ...], arithmetic: str | None, recipe: str, **options: Any
) -> None:
    """Judge every attack by every policy, over several victims.

    Writes matrix.html to read, matrix.json, and matrix.md for documents into DIR: tables of what was asked
    last. Each case is kept in DIR/cases, so the same command does only what is new.

    Exit status: 0 done, whatever passed; 2 if a case failed, and so its cell lacks a seed.
    """
    from gradseal.attacks.attack import Setting
    from gradseal.attacks.catalogue import load_attack
    from gradseal.report.matrix import matrix_markdown, matrix_page
    from gradseal.report.page import save_page
    from gradseal.study.matrix.columns import named
    from gradseal.study.matrix.part import planned
    from gradseal.study.matrix.table import run_matrix

    out = options["out"]
    for name in policies:
        named(name, Setting())
    plan = replace(planned(_effort(options)), recipe=recipe)
    if attacks:
        plan = replace(plan, attacks=tuple(load_attack(name).name for name in attacks))
    if policies:
        plan = replace(plan, policies=policies)
    if arithmetic is not None:
        made = ("native", "exact") if arithmetic == "both" else (arithmetic,)
        plan = replace(plan, arithmetics=made, exact_attacks=None, exact_seeds=None)
    with _kept(out), Watcher(shown=sys.stderr.isatty()) as watcher:
        jobs = options["jobs"] or os.cpu_count() or 1
        table = run_matrix(plan, out, jobs=jobs, progress=watcher.update)
    page = matrix_page(table, repeat=_repeated(), made=datetime.now(UTC))
    text = json.dumps(finite(table.to_json()), indent=2) + "\n"
    save_page(out / "matrix.html", page)
    save_page(out / "matrix.md", matrix_markdown(table))
    save_page(out / "matrix.json", text)
    click.echo(text if options["as_json"] else matrix_markdown(table), nl=False)
    _end(out / "matrix.html", table.failed)


@command.command(name="ks", epilog="\b\nExample:\n  gradseal study ks --draws 300")
@click.option("--draws", type=click.IntRange(min=1), default=300, show_default=True, help="Initialisations.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all of them.")
@_JSON
def ks(draws: int, seed: int, as_json: bool) -> None:
    """How often the classical test rejects honest initialisations of ResNet-20.

    And how often ours does. Both are Kolmogorov-Smirnov tests of each tensor against its rule's distribution:
    the original takes each tensor at 1 %, the corrected one all of them together.
    """
    from gradseal.study.ks import study_ks

    with Watcher(shown=sys.stderr.isatty()) as watcher:
        result = study_ks(draws, seed, watcher.update)
    click.echo(json.dumps(finite(result.to_json()), indent=2) if as_json else "\n".join(result.lines()))


@contextmanager
def _kept(out: Path) -> Iterator[None]:
    """Says, when it is interrupted, that what is done is kept."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"what is done is kept in {printable(str(out / 'cases'))}; repeat to go on", err=True)
        raise


def _effort(options: dict[str, Any]) -> Effort:
    from gradseal.attacks.attack import Setting
    from gradseal.study.part import Effort

    return Effort(
        full=options["full"],
        seed=options["seed"],
        seeds=options["seeds"] or (FULL_SEEDS if options["full"] else QUICK_SEEDS),
        setting=Setting.sized(options["steps"], options["every"], options["batch_size"]),
    )


def _end(page: Path, failed: Sequence[str]) -> None:
    for line in failed:
        click.echo(f"failed: {printable(line)}", err=True)
    click.echo(f"written: {printable(str(page))}", err=True)
    sys.exit(2 if failed else 0)


def _repeated() -> str:
    return shlex.join(["gradseal", *sys.argv[1:]])


def _facts(jobs: int) -> dict[str, str]:
    """Of the machine, as far as measurements depend on it."""
    import torch

    from gradseal.program.native import current_environment

    had = current_environment()
    return {
        "processes": str(jobs),
        "processor": f"{had.processor} ({had.machine}), {os.cpu_count()} of them",
        "vector width": had.cpu_capability,
        "PyTorch": torch.__version__,
        "Python": platform.python_version(),
    }
