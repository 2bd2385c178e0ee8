"""`gradseal calibrate`: measure the noise of native replay, and sign a tolerance for it."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import click

from gradseal.cli.numbers import FiniteRange
from gradseal.cli.paths import reading
from gradseal.cli.watching import Watcher
from gradseal.errors import StoreError
from gradseal.record.keys import load_signer
from gradseal.report.words import finite, printable


@click.command(
    name="calibrate",
    epilog="\b\nExamples:\n"
    "  gradseal calibrate runs/digits --out digits.calibration --key my.key\n"
    "  gradseal calibrate runs/a runs/b --out ab.calibration --key my.key --json",
)
@click.argument("bundles", nargs=-1, required=True, metavar="BUNDLE...")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="Where the signed calibration goes.",
)
@click.option("--key", required=True, metavar="FILE", help="Your signing key; see gradseal key.")
@click.option(
    "--false-rejection",
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    metavar="SHARE",
    help="How many honest segments may lie beyond the tolerance.",
)
@click.option(
    "--confidence",
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    metavar="SHARE",
    help="With which confidence that is to hold.",
)
@click.option(
    "--segments",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many to measure; as many as rate and confidence need, or all.",
)
@click.option(
    "--margin",
    type=FiniteRange(min=1),
    default=1.0,
    show_default=True,
    help="What the bound is multiplied by.",
)
@click.option(
    "--family",
    type=click.Choice(["float32", "reduced"]),
    default="float32",
    show_default=True,
    help="Which numerics to vary; reduced has the products of accelerators too.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=2**32 - 1),
    default=0,
    show_default=True,
    help="Of the segments drawn.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for an error too.")
def command(
    bundles: tuple[str, ...],
    out: Path,
    key: str,
    false_rejection: float,
    confidence: float,
    segments: int | None,
    margin: float,
    family: str,
    seed: int,
    as_json: bool,
) -> None:
    """Measure how far honest replays of BUNDLE end apart, and sign a tolerance.

    Replays segments, drawn uniformly, under deliberately different numerics, and takes a distribution-free
    bound of the relative errors. verify --calibration judges native replays by it where the recorded
    environment cannot be had. Several bundles must be of one program.

    Calibrate on runs that you trust: a false one may be made to be noisy.
    """
    signer = load_signer(key)
    if not out.absolute().parent.is_dir():
        raise StoreError(
            "there is no such directory", where=str(out.parent), advice="make it, or name another"
        )
    # Loads torch, and so comes after all that can be wrong with the arguments.
    from gradseal.report.calibration import calibration_json, calibration_lines
    from gradseal.study.calibrating import Wanted, calibrate, open_source
    from gradseal.verify.calibration import sign_calibration

    wanted = Wanted(
        false_rejection=false_rejection,
        confidence=confidence,
        segments=segments,
        margin=margin,
        family=family,
        seed=seed,
    )
    sources = []
    for bundle in bundles:
        with reading(bundle):
            sources.append(open_source(bundle))
    with Watcher(shown=sys.stderr.isatty()) as watcher:
        made = calibrate(sources, wanted, watcher.update)
    _write(out, sign_calibration(made.calibration, [signer]))
    if as_json:
        click.echo(json.dumps(finite(calibration_json(made)), indent=2))
    else:
        click.echo("\n".join(calibration_lines(made)))
    click.echo(f"written: {printable(str(out))}; verify with:", err=True)
    pins = f"--calibration {shlex.quote(str(out))} --calibrator {signer.verification_key}"
    click.echo(f"  gradseal verify BUNDLE --policy standard {pins}", err=True)


def _write(out: Path, data: bytes) -> None:
    try:
        out.write_bytes(data)
    except OSError as e:
        raise StoreError(f"the calibration cannot be written: {e.strerror}", where=str(out)) from e
