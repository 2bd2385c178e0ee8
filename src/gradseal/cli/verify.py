"""`gradseal verify`: check a bundle against a policy."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from rich.console import Console

from gradseal.cli.main import ACCEPTED, INCONCLUSIVE, REJECTED
from gradseal.cli.watching import Watcher
from gradseal.proof.note import VerificationKey
from gradseal.report.terminal import print_verdict
from gradseal.verify.policy import POLICIES, Policy
from gradseal.verify.verdict import ClaimName, Outcome
from gradseal.verify.verifier import verify

_STATUS = {Outcome.ACCEPTED: ACCEPTED, Outcome.REJECTED: REJECTED, Outcome.INCONCLUSIVE: INCONCLUSIVE}


@click.command(name="verify")
@click.argument("bundle")
@click.option(
    "--policy", type=click.Choice(list(POLICIES)), default="full", show_default=True, help="What to spend."
)
@click.option(
    "--key", "keys", multiple=True, metavar="KEY", help="The owner's public key, or a file that holds it."
)
@click.option(
    "--require",
    multiple=True,
    metavar="CLAIM[=STATUS]",
    help="A claim that must be shown (or =supported), in place of the policy's own demands; may be repeated.",
)
@click.option("--free-bytes", type=click.IntRange(min=0), help="The cap on bytes that no rule derives.")
@click.option(
    "--weights", type=click.Path(path_type=Path), help="A safetensors file that must hold the result."
)
@click.option("--draw", metavar="HEX", help="The draw of an earlier verdict, to repeat it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    bundle: str,
    policy: str,
    keys: tuple[str, ...],
    require: tuple[str, ...],
    free_bytes: int | None,
    weights: Path | None,
    draw: str | None,
    as_json: bool,
) -> None:
    """Check BUNDLE, a directory or URL, against a policy.

    quick replays the first and the last segment, standard a random sample, full all of them. None of the
    owner's code is run. Without --key, a record can only be found to agree with itself.

    Exit status: 0 accepted, 1 rejected, 2 not a bundle or wrong usage, 3 inconclusive.
    """
    with Watcher(shown=sys.stderr.isatty()) as watcher:
        verdict = verify(
            bundle,
            _policy(policy, require, free_bytes),
            keys=[read_public_key(key) for key in keys],
            weights=weights,
            draw=_draw(draw),
            progress=watcher.update,
        )
    if as_json:
        click.echo(json.dumps(verdict.to_json(), indent=2))
    else:
        print_verdict(verdict, Console())
    sys.exit(_STATUS[verdict.outcome])


def read_public_key(text: str) -> VerificationKey:
    """A public key from its text, or from a file that holds it.

    Raises:
        KeyFileError: It is neither.
    """
    path = Path(text)
    if "+" not in text and path.is_file():
        with open(path, "rb") as file:
            text = file.read(4096).decode("utf-8", errors="replace").strip()
    from gradseal.errors import KeyFileError, MalformedBundle

    try:
        return VerificationKey.parse(text, where="--key")
    except MalformedBundle as e:
        raise KeyFileError(
            e.message, where="--key", advice="give the line that `gradseal key show` prints"
        ) from e


def _policy(name: str, require: tuple[str, ...], free_bytes: int | None) -> Policy:
    from dataclasses import replace

    policy = Policy.named(name)
    if free_bytes is not None:
        policy = replace(policy, free_bytes=free_bytes)
    if not require:
        return policy
    demanded = dict((item.partition("=")[0], item.partition("=")[2] or "shown") for item in require)
    for claim, status in demanded.items():
        if claim not in list(ClaimName) or status not in ("shown", "supported"):
            raise click.BadParameter(
                f"{claim}={status}: a claim is one of {', '.join(ClaimName)}, a status shown or supported",
                param_hint="--require",
            )
    return policy.requiring(demanded)


def _draw(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        draw = bytes.fromhex(text)
    except ValueError as e:
        raise click.BadParameter("not hexadecimal digits", param_hint="--draw") from e
    if len(draw) != 32:
        raise click.BadParameter("a draw is 32 bytes, 64 hexadecimal digits", param_hint="--draw")
    return draw
