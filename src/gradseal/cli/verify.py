"""`gradseal verify`: check a bundle against a policy."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import click

from gradseal.cli.classical import ClassicalOptions, classical_options, policy_name
from gradseal.cli.draws import DrawOptions, draw_options
from gradseal.cli.main import ACCEPTED, INCONCLUSIVE, REJECTED
from gradseal.cli.paths import reading
from gradseal.cli.report import page_at, repeat_command, repeated_options, write_page
from gradseal.cli.tolerance import ToleranceOptions, tolerance_options
from gradseal.cli.watching import Watcher
from gradseal.errors import KeyFileError
from gradseal.precede.trust import Trust, load_trust
from gradseal.proof.note import VerificationKey
from gradseal.report.terminal import Terminal, print_verdict
from gradseal.report.words import finite, printable
from gradseal.verify.policy import Policy, Replay
from gradseal.verify.verdict import ClaimName, Outcome, Verdict

_STATUS = {Outcome.ACCEPTED: ACCEPTED, Outcome.REJECTED: REJECTED, Outcome.INCONCLUSIVE: INCONCLUSIVE}
_MAX_KEY_FILE_BYTES = 4096


@click.command(
    name="verify",
    epilog="\b\nExamples:\n"
    "  gradseal verify runs/digits --key owner.pub\n"
    "  gradseal verify runs/digits --key owner.pub --policy standard --json\n"
    "  gradseal verify runs/digits --key owner.pub --report report.html\n"
    "  gradseal verify runs/digits --trust trust.toml --require precedence\n"
    "  gradseal verify runs/digits --policy jia2021 --reference twin.safetensors",
)
@click.argument("bundle")
@click.option(
    "--policy",
    callback=policy_name,
    default="full",
    show_default=True,
    metavar="NAME",
    help="What to demand and to spend; see above.",
)
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="KEY",
    help="The owner's public key, or a file that holds it; with several, any of them will do.",
)
@click.option(
    "--trust",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Whom you trust for time: witnesses, time-stamp authorities, beacons, and owners' keys too.",
)
@click.option(
    "--require",
    multiple=True,
    metavar="CLAIM[=STATUS]",
    help="A claim that must be shown (or =supported), in place of the policy's own demands; may be repeated.",
)
@click.option(
    "--free-bytes",
    type=click.IntRange(min=0),
    help="The cap on bytes that no rule derives, in place of the policy's own.",
)
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A safetensors file that must hold the run's last state.",
)
@click.option(
    "--other-seed",
    type=click.Choice(["ends", "sample", "all"]),
    help="Which replayed segments to replay under another seed too; by default all. It doubles their cost.",
)
@click.option(
    "--pulled-to",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A safetensors file of weights that the run may have been pulled to: a heuristic test, which "
    "decides nothing.",
)
@draw_options()
@tolerance_options
@classical_options
@click.option("--draw", metavar="HEX", help="The draw of an earlier verdict, to replay the same segments.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also write the verdict, whatever it is, as a page of HTML to read or print.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for an error too.")
def command(  # noqa: PLR0913 - an option of the command line each
    bundle: str,
    policy: str,
    keys: tuple[str, ...],
    trust: Path | None,
    require: tuple[str, ...],
    free_bytes: int | None,
    weights: Path | None,
    other_seed: str | None,
    pulled_to: Path | None,
    draws: DrawOptions,
    classical: ClassicalOptions,
    tolerance: ToleranceOptions,
    draw: str | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """Check BUNDLE, a directory or URL, against a policy.

    quick replays the first and the last segment, standard a random sample, full all of them. jia2021 judges
    as the first proof-of-learning protocol did, by distances and without proof against forgers;
    jia2021-random, jia2021-relative, jia2021-random-relative and jia2021-bounded as it was repaired. Other
    packages may bring more.

    None of the owner's code is run. Without --key, a record can only be found to agree with itself; without
    --trust, nothing says when it was made.

    Of a sample, gradseal plan says what its numbers prove and cost.

    Exit status: 0 accepted, 1 rejected, 2 not a bundle or wrong usage, 3 inconclusive.
    """
    demanded, drawn = _policy(policy, require, free_bytes, other_seed), _draw(draw)
    classical.check(demanded)
    demanded = draws.applied(demanded)
    calibrators = [read_public_key(key, "--calibrator") for key in tolerance.calibrators]
    demanded = tolerance.applied(demanded, calibrators)
    pinned = [read_public_key(key) for key in keys]
    pins = load_trust(trust) if trust else Trust()
    # Loads torch, and so comes after all that can be wrong with the arguments.
    from gradseal.verify.verifier import verify

    demanded = classical.applied(demanded, bundle)
    apart = (weights, pulled_to)
    with page_at(report), reading(bundle, besides=apart), Watcher(shown=sys.stderr.isatty()) as watcher:
        verdict = verify(
            bundle,
            demanded,
            keys=pinned,
            trust=pins,
            weights=weights,
            pulled_to=pulled_to,
            draw=drawn,
            progress=watcher.update,
        )
    try:
        if report is not None:
            options = repeated_options(
                policy,
                pinned,
                trust=trust,
                require=require,
                free_bytes=free_bytes,
                weights=weights,
                other_seed=other_seed,
                others=[
                    *(["--pulled-to", str(pulled_to)] if pulled_to else []),
                    *draws.repeated(),
                    *tolerance.repeated(calibrators),
                    *classical.repeated(),
                ],
            )
            write_page(report, verdict, repeat_command(bundle, verdict, options))
            click.echo(f"report: {printable(str(report))}", err=True)
    finally:  # a long verification's verdict is told even if the disk is full
        _tell(verdict, pinned=bool(pinned or pins.keys), as_json=as_json)
    sys.exit(_STATUS[verdict.outcome])


def _tell(verdict: Verdict, *, pinned: bool, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(finite(verdict.to_json()), indent=2))
    else:
        print_verdict(verdict, Terminal())
        if not pinned:
            click.echo(
                "\nno key was pinned; give the owner's with --key, got by a way that you trust", err=True
            )


def read_public_key(text: str, option: str = "--key") -> VerificationKey:
    """A public key from its text, or from a file that holds it.

    Args:
        text: Either.
        option: By which it was given, for error messages.

    Raises:
        KeyFileError: It is neither.
    """
    path = Path(text)
    where = option
    try:
        if path.is_file():
            where = text
            with open(path, "rb") as file:
                text = file.read(_MAX_KEY_FILE_BYTES).decode("utf-8", errors="replace").strip()
    except OSError as e:
        raise KeyFileError(f"cannot be read: {e.strerror}", where=where) from e
    if text.startswith("PRIVATE+KEY+"):
        raise KeyFileError(
            "a signing key; verifying needs its public half",
            where=where,
            advice="give what `gradseal key show FILE` prints",
        )
    try:
        return VerificationKey.parse(text, where=where)
    except KeyFileError as e:
        message = (
            e.message if where != option or "+" in text else f"neither a public key nor a file: {text!r}"
        )
        raise KeyFileError(
            message,
            where=where,
            advice="give the line that `gradseal key new` printed, or a file that holds it",
        ) from e


def _policy(name: str, require: tuple[str, ...], free_bytes: int | None, other_seed: str | None) -> Policy:
    policy = Policy.named(name)
    if other_seed is not None:
        policy = replace(policy, dependence=Replay(other_seed))
    if free_bytes is not None:
        policy = replace(policy, free_bytes=free_bytes, free_share=None)
    if not require:
        return policy
    demanded = {claim: status or "shown" for claim, _, status in (item.partition("=") for item in require)}
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
