"""`gradseal demo`: a real run recorded and verified, and tampered copies of it rejected."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from rich.text import Text

from gradseal.cli.key import write_key
from gradseal.cli.main import REJECTED
from gradseal.cli.paths import make_new_directory
from gradseal.cli.report import repeat_command, repeated_options, write_page
from gradseal.cli.watching import Watcher
from gradseal.precede.trust import Trust
from gradseal.proof.note import SigningKey
from gradseal.report.page import Copy, Story
from gradseal.report.terminal import OUTCOME_STYLE, Terminal, line_width, print_verdict, say, wrapped
from gradseal.report.words import finding_text, finite
from gradseal.verify.policy import Policy, Replay
from gradseal.verify.verdict import ClaimName, Outcome, Result, Status, Verdict

_RECORDED = (
    "A small convolutional net learns to read scikit-learn's handwritten digits. Before the first step, "
    "data, program and plan are written into a log, which is anchored; then a beacon gives the first seed. "
    "The state after each five steps is sealed in the log, and the log anchored every few seconds. All is "
    "computed in exact arithmetic, so that any machine can repeat each bit."
)
_LOOPBACK = (
    "A beacon, a witness and a time-stamp authority run on this machine, at 127.0.0.1, with keys made just "
    "now. They are pinned in trust.toml, so the verifier below takes their word for the time; anybody else "
    "would pin services that he has reason to trust."
)
_VERIFIED = (
    "The verifier has the bundle and trust.toml, with the owner's public key. It runs none of the owner's "
    "code: it checks every digest and anchor, makes the first weights anew from the seed, and computes every "
    "step again: once with its seed, which must give the sealed bits, and once with another, which must not."
)
_TAMPERED = (
    "Each copy is changed in one way: by a stranger, by a thief with a key of his own, or by the owner "
    "himself, who can sign anything again. Each must be rejected, by a finding that says what and where."
)
_INDENT = len("inconclusive  ")
_CADENCE_SECONDS, _LEAD_SECONDS = 8, 5.0
_DEMANDED = {claim.value: "shown" for claim in ClaimName}


@click.command(name="demo", epilog="\b\nExample:\n  gradseal demo --out demo")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIRECTORY",
    help="A new or empty directory for all that it makes.",
)
@click.option("--steps", type=click.IntRange(min=10), help="Train for another number of steps than 600.")
def command(out: Path, steps: int | None) -> None:
    """Record a real run, verify it in full, and see tampered copies of it rejected.

    Runs a beacon, a witness and a time-stamp authority at 127.0.0.1 meanwhile. Writes a key, trust.toml, a
    bundle, verdict.json and report.html to DIRECTORY.

    Exit status: 0 if the run is accepted and every tampered copy rejected, 1 if not, 2 for an error.
    """
    make_new_directory(out)
    console = Terminal()
    owner = SigningKey.generate("demo.example/owner")
    write_key(out / "key", owner)
    trust, recorded = _record(out, owner, steps, console)
    verdict = _verify(out, trust, console)
    tampered = _tamper(out, owner, trust, console)
    (out / "verdict.json").write_text(
        json.dumps(finite(verdict.to_json()), indent=2) + "\n", encoding="utf-8"
    )
    write_page(
        out / "report.html",
        verdict,
        repeat_command(
            str(out / "bundle"),
            verdict,
            repeated_options("full", [], trust=out / "trust.toml", require=list(_DEMANDED)),
        ),
        title="Gradseal: a recorded run, verified",
        stories=[
            Story(heading="How this run was made", paragraphs=[_RECORDED, recorded, _LOOPBACK, _VERIFIED]),
            Story(heading="Tampered copies are rejected", paragraphs=[_TAMPERED], copies=_copies(tampered)),
        ],
    )
    say(f"\nkey      {out / 'key'}\npins     {out / 'trust.toml'}\nbundle   {out / 'bundle'}", console)
    say(f"verdict  {out / 'verdict.json'}\nreport   {out / 'report.html'}  (open it in a browser)", console)
    if not _as_promised(verdict, [v for _, _, v in tampered]):
        click.echo("error: this is not what the demo promises", err=True)
        sys.exit(REJECTED)


def _record(out: Path, owner: SigningKey, steps: int | None, console: Terminal) -> tuple[Trust, str]:
    _announce("1. A real run is recorded", _RECORDED, console)
    import torch

    from gradseal.cli.training import train
    from gradseal.precede.asked import Asked
    from gradseal.precede.trust_text import write_trust
    from gradseal.recipes.recipe import load_recipe
    from gradseal.witness.loopback import Loopback

    torch.set_num_threads(1)
    with (
        TemporaryDirectory() as directory,
        Loopback(Path(directory), owner.verification_key) as loopback,
    ):
        trust = loopback.trust
        write_trust(trust, out / "trust.toml")
        say(f"{wrapped(_LOOPBACK, '', line_width(console))}\n", console)
        asked = Asked.of(trust, cadence_seconds=_CADENCE_SECONDS, lead_seconds=_LEAD_SECONDS)
        said = train(
            load_recipe("digits"), out / "bundle", owner, steps=steps, arithmetic="exact", asked=asked
        )
    say(said, console)
    return trust, said


def _verify(out: Path, trust: Trust, console: Terminal) -> Verdict:
    _announce("2. It is verified in full", _VERIFIED, console)
    verdict = _verified(
        out / "bundle", trust, replace(Policy.named("full").requiring(_DEMANDED), name="full, and precedence")
    )
    print_verdict(verdict, console)
    return verdict


def _tamper(out: Path, owner: SigningKey, trust: Trust, console: Terminal) -> list[tuple[str, str, Verdict]]:
    """Verifies each tampered copy; returns what was touched, what was done, and the verdict."""
    from gradseal.attacks.tampering import TAMPERINGS, copy_bundle

    _announce("3. Tampered copies are rejected", _TAMPERED, console)
    # What depends on its seed was seen above.
    policy = replace(Policy.named("full"), dependence=Replay.ENDS)
    tampered = []
    for name, tamper in TAMPERINGS.items():
        copy = out / "tampered"
        try:
            done = tamper(copy_bundle(out / "bundle", copy, owner))
            verdict = _verified(copy, trust, policy)
        finally:
            shutil.rmtree(copy, ignore_errors=True)
        tampered.append((name, done, verdict))
        say(_line(name, done, verdict, line_width(console)), console)
    rejected = sum(v.outcome is Outcome.REJECTED for _, _, v in tampered)
    say(f"{rejected} of {len(tampered)} tampered copies were rejected", console)
    return tampered


def _copies(tampered: list[tuple[str, str, Verdict]]) -> list[Copy]:
    return [Copy(name=name, done=done, found=_found(v), outcome=v.outcome) for name, done, v in tampered]


def _line(name: str, done: str, verdict: Verdict, width: int) -> Text:
    indent = " " * _INDENT
    line = Text(f"{verdict.outcome.value:<{_INDENT}}", style=OUTCOME_STYLE[verdict.outcome])
    line.append(wrapped(f"{name}: {done}", indent, width), style="default")
    return line.append(f"\n{indent}{wrapped(f'found: {_found(verdict)}', indent, width)}", style="default")


def _verified(bundle: Path, trust: Trust, policy: Policy) -> Verdict:
    from gradseal.verify.verifier import verify

    with Watcher(shown=sys.stderr.isatty()) as watcher:
        return verify(bundle, policy, trust=trust, progress=watcher.update)


def _as_promised(verdict: Verdict, tampered: list[Verdict]) -> bool:
    return (
        verdict.outcome is Outcome.ACCEPTED
        and all(verdict.claims[name].status is Status.SHOWN for name in ClaimName)
        and all(v.outcome is Outcome.REJECTED for v in tampered)
    )


def _announce(heading: str, words: str, console: Terminal) -> None:
    say(Text(f"\n{heading}\n", style="bold"), console)
    say(f"{wrapped(words, '', line_width(console))}\n", console)


def _found(verdict: Verdict) -> str:
    refuted = [f for f in verdict.findings if f.result is Result.REFUTED]
    return finding_text(refuted[0]) if refuted else "nothing"
