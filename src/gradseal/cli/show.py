"""`gradseal show`: what a bundle says, without verifying it. Loads no torch."""

from __future__ import annotations

import json
from typing import Any

import click

from gradseal.cli.paths import reading
from gradseal.proof.bundle import Bundle, open_bundle
from gradseal.proof.canonical import decode
from gradseal.proof.entries import Close, Segment, entry_from_bytes
from gradseal.proof.manifest import Manifest
from gradseal.proof.tiles import MAX_ENTRY_BYTES
from gradseal.report.words import printable
from gradseal.store.files import FsspecFiles


@click.command(name="show", epilog="\b\nExample:\n  gradseal show runs/digits")
@click.argument("bundle")
@click.option("--entries", is_flag=True, help="Every entry of the log, not only a summary.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for an error too.")
def command(bundle: str, entries: bool, as_json: bool) -> None:
    """Show what BUNDLE, a directory or URL, says of itself. Nothing is verified."""
    with reading(bundle):
        said = describe(open_bundle(FsspecFiles(bundle)), with_entries=entries)
    if as_json:
        click.echo(json.dumps(said, indent=2))
        return
    click.echo(f"What {printable(bundle)} says of itself; nothing of it is verified.")
    for heading, rows in _sections(said).items():
        click.echo(f"\n{heading}")
        column = max(16, *(len(name) + 2 for name in rows))
        for name, value in rows.items():
            click.echo(f"{printable(name):<{column}}{printable(str(value)) or 'not set'}")
    if entries:
        click.echo("\nentries")
        for number, entry in enumerate(said["entries"], start=1):
            click.echo(f"{number:>8} {printable(json.dumps(entry))}")


def describe(bundle: Bundle, *, with_entries: bool) -> dict[str, Any]:
    """The checkpoint, the manifest, how far the run got, and, if wanted, every later entry, as JSON values.

    Raises:
        MalformedBundle: An entry cannot be parsed.
        UnknownKind: Of a kind that this version does not know.
        MissingFile: The entries are not there.
    """
    raw = bundle.all_entries()
    manifest = Manifest.decode(raw[0])
    later = [entry_from_bytes(e, where=f"entry {i}") for i, e in enumerate(raw[1:], start=1)]
    closed = next((e for e in later if isinstance(e, Close)), None)
    said = {
        "verified": False,
        "checkpoint": {
            "origin": bundle.checkpoint.origin,
            "size": bundle.checkpoint.size,
            "root": bundle.checkpoint.root.hex(),
        },
        "segments_planned": manifest.plan.segments,
        "segments_sealed": sum(isinstance(e, Segment) for e in later),
        "closed": closed is not None,
        "weights": closed.weights.hex() if closed else None,
        "manifest": _plain(raw[0], 0),
    }
    return said | (
        {"entries": [_plain(e, i) for i, e in enumerate(raw[1:], start=1)]} if with_entries else {}
    )


def _plain(entry: bytes, number: int) -> Any:
    return decode(entry, where=f"entry {number}", max_bytes=MAX_ENTRY_BYTES)


def _sections(said: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What is printed, each value on its own line: a label of 16 columns and a digest make 80."""
    manifest, plan, data = said["manifest"], said["manifest"]["plan"], said["manifest"]["data"]
    sealed, planned = said["segments_sealed"], said["segments_planned"]
    return {
        "log": {
            "origin": said["checkpoint"]["origin"],
            "owner": manifest["owner"],
            "entries": said["checkpoint"]["size"],
            "root": said["checkpoint"]["root"],
        },
        "run": {
            "segments": f"{sealed} of {planned} sealed, {plan['every']} steps each, "
            f"{plan['steps']} steps in all",
            "closed": "yes"
            if said["closed"]
            else "no: stopped, to be gone on with --resume, or still running",
            "weights": said["weights"] or "none released",
            "batches": f"{plan['accumulate']} a step, each {plan['batch_size']} of {data['samples']} "
            f"samples, {plan['collation']}, "
            + ("short ones dropped" if plan["drop_last"] else "short ones kept"),
            "order": plan["order"],
            f"seed, {plan['seed']['source']}"[:15]: plan["seed"]["value"],
        },
        "named by digest": {
            "data root": data["root"],
            **{name: manifest[name] for name in ("program", "initialisation", "release")},
        },
        "arithmetic": {name.replace("_", " "): value for name, value in manifest["arithmetic"].items()},
    }
