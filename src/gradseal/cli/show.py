"""`gradseal show`: what a bundle says, without verifying it."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from gradseal.proof.bundle import Bundle, open_bundle
from gradseal.proof.canonical import decode
from gradseal.proof.manifest import Manifest
from gradseal.proof.tiles import MAX_ENTRY_BYTES
from gradseal.store.files import FsspecFiles


@click.command(name="show")
@click.argument("bundle")
@click.option("--entries", is_flag=True, help="Every entry of the log, not only the manifest.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(bundle: str, entries: bool, as_json: bool) -> None:
    """Show what BUNDLE says of itself. Nothing is verified."""
    opened = open_bundle(FsspecFiles(bundle))
    said = describe(opened, with_entries=entries)
    if as_json:
        click.echo(json.dumps(said, indent=2))
        return
    _print(said)


def describe(bundle: Bundle, *, with_entries: bool) -> dict[str, Any]:
    """The checkpoint and the manifest, and, if wanted, every later entry, as plain JSON values.

    Raises:
        MalformedBundle: An entry cannot be parsed.
        MissingFile: The entries are not there.
    """
    raw = bundle.all_entries() if with_entries else bundle.entries(0)[:1]
    manifest = Manifest.decode(raw[0])
    later = [decode(e, where=f"entry {i}", max_bytes=MAX_ENTRY_BYTES) for i, e in enumerate(raw[1:], start=1)]
    return {
        "verified": False,
        "checkpoint": {
            "origin": bundle.checkpoint.origin,
            "size": bundle.checkpoint.size,
            "root": bundle.checkpoint.root.hex(),
        },
        "manifest": decode(raw[0], where="entry 0", max_bytes=MAX_ENTRY_BYTES),
        "segments_planned": manifest.plan.segments,
        **({"entries": later} if with_entries else {}),
    }


def _print(said: dict[str, Any]) -> None:
    console = Console()
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for section in ("checkpoint", "manifest"):
        for name, value in _flat(said[section], section):
            table.add_row(name, str(value))
    table.add_row("segments planned", str(said["segments_planned"]))
    console.print(table)
    for number, entry in enumerate(said.get("entries", []), start=1):
        console.print(f"entry {number}: {json.dumps(entry)}", highlight=False, soft_wrap=True)
    console.print("\nnothing of this is verified: run `gradseal verify`", style="dim")


def _flat(value: Any, name: str) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for key, below in value.items() for pair in _flat(below, f"{name}.{key}")]
    return [(name, value)]
