"""`gradseal demo`: a real run recorded and verified, and tampered copies of it rejected."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import click
from rich.console import Console, Group, RenderableType
from rich.text import Text

from gradseal.cli.key import write_key
from gradseal.cli.main import BROKEN, REJECTED
from gradseal.cli.watching import Watcher
from gradseal.proof.note import SigningKey, VerificationKey
from gradseal.report.terminal import render, save_page
from gradseal.verify.verdict import Finding, Outcome, Result, Verdict
from gradseal.verify.verifier import verify


@click.command(name="demo")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="A new directory for all that it makes."
)
@click.option("--steps", type=click.IntRange(min=10), help="Train for fewer steps than the recipe's 600.")
def command(out: Path, steps: int | None) -> None:
    """Record a real run, verify it in full, and see tampered copies of it rejected.

    Trains a convolutional net on scikit-learn's digits. Writes key, bundle, verdict.json and report.html to OUT.
    """
    if out.exists() and any(out.iterdir()):
        click.echo(f"error: {out} is not empty; name another directory", err=True)
        sys.exit(BROKEN)
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    owner = SigningKey.generate("demo.example/owner")
    write_key(out / "key", owner)
    _record(out / "bundle", owner, steps, console)
    verdict = _verify(out / "bundle", owner.verification_key, console)
    (out / "verdict.json").write_text(json.dumps(verdict.to_json(), indent=2) + "\n", encoding="utf-8")
    tampered, missed = _tamper(out, owner, console)
    save_page([render(verdict), Group(*tampered)], out / "report.html", "Gradseal: a recorded run, verified")
    console.print(f"\nopen {out / 'report.html'} to read this again; the bundle is {out / 'bundle'}")
    if verdict.outcome is not Outcome.ACCEPTED or missed:
        sys.exit(REJECTED)


def _record(bundle: Path, owner: SigningKey, steps: int | None, console: Console) -> None:
    import torch

    from gradseal.cli.training import train
    from gradseal.recipes.recipe import load_recipe

    torch.set_num_threads(1)
    console.rule("1. A real run is recorded")
    said = train(load_recipe("digits"), bundle, owner, steps=steps, progress=None)
    console.print(f"{said}\nevery segment's end is sealed in a log signed by {owner.verification_key}")


def _verify(bundle: Path, key: VerificationKey, console: Console) -> Verdict:
    console.rule("2. It is verified in full, without its code")
    with Watcher(shown=sys.stderr.isatty()) as watcher:
        verdict = verify(bundle, keys=[key], progress=watcher.update)
    console.print(render(verdict))
    return verdict


def _tamper(out: Path, owner: SigningKey, console: Console) -> tuple[list[RenderableType], int]:
    """Verifies each tampered copy; returns what was printed, and how many were not rejected."""
    from gradseal.attacks.tampering import TAMPERINGS, copy_bundle

    console.rule("3. Tampered copies are rejected")
    lines: list[RenderableType] = []
    missed = 0
    for name, tamper in TAMPERINGS.items():
        done = tamper(copy_bundle(out / "bundle", out / "tampered", owner))
        verdict = verify(out / "tampered", keys=[owner.verification_key])
        missed += verdict.outcome is not Outcome.REJECTED
        lines.append(_tampered_line(name, done, verdict))
        console.print(lines[-1])
        shutil.rmtree(out / "tampered")
    return lines, missed


def _tampered_line(name: str, done: str, verdict: Verdict) -> Text:
    style = "bold red" if verdict.outcome is Outcome.REJECTED else "bold yellow"
    line = (
        Text(verdict.outcome.value, style=style)
        .append(f"  {name}: ", style="bold")
        .append(done, style="default")
    )
    return line.append(f"\n          found: {_first_refuted(verdict)}", style="dim")


def _first_refuted(verdict: Verdict) -> str:
    refuted: list[Finding] = [f for f in verdict.findings if f.result is Result.REFUTED]
    return f"{refuted[0].where}: {refuted[0].message}" if refuted else "none"
