"""`gradseal show`: what a bundle says, without verifying it. Loads no torch."""

from __future__ import annotations

import json
from typing import Any

import click

from gradseal.cli.paths import reading
from gradseal.precede.chain import Chain
from gradseal.proof.anchors import read_index
from gradseal.proof.bundle import Bundle, open_bundle
from gradseal.proof.canonical import decode
from gradseal.proof.entries import Amendment, Close, Gap, Segment, Slot, entry_from_bytes
from gradseal.proof.fields import Fields
from gradseal.proof.manifest import DECLARED, Manifest
from gradseal.proof.tiles import MAX_ENTRY_BYTES
from gradseal.report.words import printable
from gradseal.store.files import FsspecFiles
from gradseal.verify.times import not_before


@click.command(name="show", epilog="\b\nExample:\n  gradseal show runs/digits")
@click.argument("bundle")
@click.option("--entries", is_flag=True, help="Every entry of the log, not only a summary.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for an error too.")
def command(bundle: str, entries: bool, as_json: bool) -> None:
    """Show what BUNDLE, a directory or URL, says of itself. Nothing is verified."""
    with reading(bundle):
        said = describe(open_bundle(FsspecFiles(bundle)), with_entries=entries)
        sections = _sections(said)
    if as_json:
        click.echo(json.dumps(said, indent=2))
        return
    click.echo(f"What {printable(bundle)} says of itself; nothing of it is verified.")
    for heading, rows in sections.items():
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
        "slots": sum(isinstance(e, Slot) for e in later),
        "gaps": sum(isinstance(e, Gap) for e in later),
        "amendments": sum(isinstance(e, Amendment) for e in later),
        "anchors": [{"size": one.size, "timestamps": one.timestamps} for one in read_index(bundle.files)],
    }
    return said | (
        {"entries": [_plain(e, i) for i, e in enumerate(raw[1:], start=1)]} if with_entries else {}
    )


def _closed(said: dict[str, Any]) -> str:
    if said["closed"]:
        return "yes"
    if said["manifest"]["plan"]["seed"]["source"] != DECLARED and not said["slots"]:
        return "no: stopped before state zero, so it cannot be gone on with; or it has just begun"
    return "no: stopped, to be gone on with --resume, or still running"


def _seed_rows(seed: dict[str, Any]) -> dict[str, Any]:
    if seed["source"] == DECLARED:
        return {"seed, declared": seed["value"]}
    rows: dict[str, Any] = {"slots": f"of {seed['cadence_seconds']} s, seeds from a beacon"}
    for number, one in enumerate(seed["chains"]):
        chain = Chain.from_fields(Fields(one["chain"], "entry 0", f"plan.seed.chains[{number}].chain"))
        due = not_before(chain.round_due(one["first_round"]))
        rows[f"chain {number}"] = chain.hash.hex()
        rows[f"  {chain.beacon_id[:12]}"] = f"slot 0 is round {one['first_round']}, due {due}"
    return rows


def _time_rows(said: dict[str, Any]) -> dict[str, Any]:
    """What came of slots and anchors; whether an anchor is worth anything is for a verifier to say."""
    anchors = said["anchors"]
    sizes = f"{len(anchors)} sizes of the log, up to {anchors[-1]['size']}" if anchors else "none"
    stamps = sum(one["timestamps"] for one in anchors)
    return {
        "slots drawn": said["slots"],
        "gaps, amended": f"{said['gaps']} gaps, {said['amendments']} amendments",
        "anchors": sizes + (f", {stamps} time-stamps" if anchors else ""),
    }


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
            "closed": _closed(said),
            "weights": said["weights"] or "none released",
            "batches": f"{plan['accumulate']} a step, each {plan['batch_size']} of {data['samples']} "
            f"samples, {plan['collation']}, "
            + ("short ones dropped" if plan["drop_last"] else "short ones kept"),
            "order": plan["order"],
            **_seed_rows(plan["seed"]),
        },
        "time": _time_rows(said),
        "named by digest": {
            "data root": data["root"],
            **{name: manifest[name] for name in ("program", "initialisation", "release")},
        },
        "arithmetic": {name.replace("_", " "): value for name, value in manifest["arithmetic"].items()},
    }
