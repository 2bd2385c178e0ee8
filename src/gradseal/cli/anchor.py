"""`gradseal anchor`: have a recorded bundle anchored."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from gradseal.cli.main import BROKEN
from gradseal.cli.numbers import FiniteRange
from gradseal.cli.paths import reading
from gradseal.precede.asked import Asked
from gradseal.precede.hosts import Hosts
from gradseal.precede.trust import load_trust
from gradseal.record.finished import anchor_bundle
from gradseal.report.words import printable
from gradseal.store.files import FsspecFiles


@click.command(
    name="anchor",
    epilog="\b\nExample:\n  gradseal anchor runs/digits --anchors trust.toml",
)
@click.argument("bundle")
@click.option(
    "--anchors",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Whom to ask: a file of pins with addresses, as verify --trust takes it.",
)
@click.option(
    "--timeout",
    type=FiniteRange(0.1, 3_600),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long all of them may take.",
)
def command(bundle: str, anchors: Path, timeout: float) -> None:
    """Have the checkpoint of BUNDLE cosigned and time-stamped, and keep that in the bundle.

    Shows that the run existed by now, no earlier: what is anchored while it is made shows more. Needs no key.
    What an earlier anchoring brought stays, so this may be repeated for hosts that were away.

    Exit status: 0 if anybody gave an anchor, 2 if nobody did.
    """
    asked = Asked.of(load_trust(anchors), slots=False)
    with reading(bundle):
        files = FsspecFiles(bundle)
        added = anchor_bundle(files, Hosts(asked.witnesses, asked.timestamps), timeout_seconds=timeout)
    for fault in added.faults:
        click.echo(f"not anchored: {printable(fault)}", err=True)
    click.echo(
        f"{bundle}: {added.size} entries anchored by {added.cosignatures} witnesses and "
        f"{added.timestamps} time-stamps"
    )
    if not added.cosignatures and not added.timestamps:
        sys.exit(BROKEN)
