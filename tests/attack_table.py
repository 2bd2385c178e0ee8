"""What must come of each attack on time, and the page that says so: `make attacks`.

Every row is judged by the verifier alone, on a bundle that the attack wrote by means of real services (see
`attack_world`). The page docs/reference/attacks.md is written from the rows once all came out as they say.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from attack_world import DEMANDING, World, world
from gradseal.attacks.precedence import ATTACKS, HARMLESS, LIMITS, Attack
from gradseal.attacks.services import SERVICES, Approach
from gradseal.errors import AnchorError
from gradseal.verify.verdict import Check, ClaimName, Finding, Outcome, Status, Verdict
from gradseal.verify.verifier import verify
from in_process import InProcess

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "attacks.md"


@dataclass(frozen=True, slots=True)
class Row:
    """What must come of an attack.

    Args:
        outcome: Of the whole verification, by a policy that demands precedence.
        status: Of the claim of precedence.
        check: Of the finding that decides.
        said: A piece of its message, or of its place.
        pins: What the verifier pins.
    """

    outcome: Outcome
    status: Status
    check: Check
    said: str
    pins: str = "all"

    def decisive(self, verdict: Verdict) -> Finding | None:
        """The finding that decides; None if there is none."""
        of_check = (f for f in verdict.findings if f.check is self.check)
        return next((f for f in of_check if self.said in f"{f.message} {f.where}"), None)


def _rejected(check: Check, said: str, status: Status = Status.REFUTED) -> Row:
    return Row(Outcome.REJECTED, status, check, said)


def _not_shown(check: Check, said: str, pins: str = "all") -> Row:
    return Row(Outcome.INCONCLUSIVE, Status.NOT_SHOWN, check, said, pins)


def _shown(check: Check, said: str, pins: str = "all") -> Row:
    return Row(Outcome.ACCEPTED, Status.SHOWN, check, said, pins)


def _off_cadence(segments: int, gaps: int) -> str:
    return f"{segments} of 4 segments were not fixed within the plan's cadence, in {gaps} gaps"


_UNREAD = Status.NOT_SHOWN

ROWS: Mapping[str, Row] = {
    "own chain": _not_shown(Check.BEACON, "is not pinned: whoever has its key"),
    "own chain under its name": _rejected(Check.ENTRIES, "do not hash to the chain's hash", _UNREAD),
    "declared seed": Row(
        Outcome.INCONCLUSIVE, Status.SUPPORTED, Check.SEED, "the seed was chosen by the owner"
    ),
    "round off the plan": _rejected(Check.BEACON, "slot 2"),
    "wrong signature": _rejected(Check.BEACON, "slot 2"),
    "past rounds": _not_shown(Check.WINDOWS, "the manifest is not shown to be from before its seeds"),
    "manifest too late": _not_shown(Check.WINDOWS, "the manifest is not shown to be from before its seeds"),
    "beacon away": _not_shown(Check.WINDOWS, _off_cadence(3, 3)),
    "full batch": _not_shown(Check.DEPENDENCE, "0 of 4 segments depend on their seed"),
    "own order": _not_shown(Check.DEPENDENCE, "0 of 4 segments depend on their seed"),
    "zero rate": _not_shown(Check.DEPENDENCE, "0 of 4 segments depend on their seed"),
    "identity": _not_shown(Check.DEPENDENCE, "0 of 4 segments depend on their seed"),
    "noise beside": _not_shown(Check.DEPENDENCE, "0 of 4 segments depend on their seed"),
    "late amendment": _not_shown(Check.AMENDMENTS, "another program from slot 2 on"),
    "amendment to known weights": _not_shown(Check.DEPENDENCE, "segment 2"),
    "last segment to known weights": _not_shown(Check.DEPENDENCE, "segment 19"),
    "last two segments to known weights": _not_shown(Check.DEPENDENCE, "segment 18"),
    "landing on old weights": _not_shown(Check.DEPENDENCE, "segment 19"),
    "moved in one segment": _not_shown(Check.DEPENDENCE, "segment 5"),
    "infinite beside": _not_shown(Check.DEPENDENCE, "0 of 4 segments depend on their seed"),
    "tiny weights": _not_shown(Check.DEPENDENCE, "0 of 4 segments depend on their seed"),
    "weights in a buffer": _not_shown(Check.DEPENDENCE, "0 of 4 segments depend on their seed"),
    "no anchors": _not_shown(Check.ANCHORS, "nothing anchors the log"),
    "no anchor of the end": _not_shown(Check.WINDOWS, _off_cadence(2, 2)),
    "late anchors": _not_shown(Check.WINDOWS, _off_cadence(4, 4)),
    "own authority": _not_shown(Check.ANCHORS, "leads to no pinned root", "authorities"),
    "own witness": _not_shown(Check.ANCHORS, "no witness of this key is pinned", "witnesses"),
    "trust brought along": _not_shown(Check.ANCHORS, "none of them shows a time"),
    "wrong purpose": _not_shown(Check.ANCHORS, "not for time-stamping alone", "misused"),
    "digest of nothing": _not_shown(Check.ANCHORS, "stamps another digest", "authorities"),
    "one authority twice": _not_shown(
        Check.ANCHORS, "of 2 time-stamp authorities that must agree, 1 count", "authorities"
    ),
    "tokens of another size": _not_shown(Check.ANCHORS, "stamps another digest", "authorities"),
    "receipts exchanged": _rejected(Check.ANCHORS, "anchors/1.tlog-proof"),
    "receipt taken out": _not_shown(Check.ANCHORS, "anchors/1.tlog-proof"),
    "anchor of another run": _rejected(Check.ANCHORS, "an anchor of another log"),
    "cut short": _not_shown(Check.ANCHORS, "or was cut short"),
    "rewritten": _rejected(Check.ANCHORS, "the owner signed another log"),
    "fork of two witnesses": _not_shown(Check.ANCHORS, "does not verify under the pinned key", "witnesses"),
    "time to come": _not_shown(Check.ANCHORS, "is in the future", "bribed"),
    "before its own seed": _not_shown(Check.WINDOWS, "slot 0 was drawn from by", "bribed"),
    "log signed by another": _rejected(Check.SIGNATURE, "not signed by the manifest's owner", _UNREAD),
    "live log mirrored": _rejected(
        Check.STATES, "state zero: its digests are not what the log's seal stands for", _UNREAD
    ),
    "live log mirrored, unopened": _not_shown(Check.STATES, "state zero: is not there"),
    "states sealed anew": _rejected(Check.INITIALISATION, "with the run's seed", _UNREAD),
    "random states": _rejected(Check.REPLAY, "segment 0", _UNREAD),
    "random states at the end": _rejected(Check.REPLAY, "segment 2", _UNREAD),
    "seals of nothing": _not_shown(Check.STATES, "state after segment 0: is not there"),
    "seals filled in": _rejected(
        Check.STATES, "state after segment 0: its digests are not what the log's seal stands for", _UNREAD
    ),
    "honest": _shown(Check.DEPENDENCE, "4 of 4 segments depend on their seed"),
    "own chain beside": _shown(Check.BEACON, "is not pinned: whoever has its key"),
    "tokens to choose from": _shown(Check.DEPENDENCE, "4 of 4 segments depend on their seed"),
    "amendment in time": _shown(Check.AMENDMENTS, "another program from slot 2 on"),
    "one late segment": _shown(Check.WINDOWS, _off_cadence(1, 1)),
    "seeds passed over": _shown(Check.DEPENDENCE, "4 of 4 segments depend on their seed"),
    "parallel manifests": _shown(Check.DEPENDENCE, "4 of 4 segments depend on their seed"),
    "parallel amendments": _shown(Check.AMENDMENTS, "another program from slot 2 on", "authorities"),
    "noise within": _shown(Check.DEPENDENCE, "4 of 4 segments depend on their seed"),
    "bribed authority": _shown(Check.DEPENDENCE, "4 of 4 segments depend on their seed", "bribed"),
}
"""By the attack's name."""

REFUSED: Mapping[str, str] = {
    "token replayed": "answers another query: the nonce differs",
    "token of tomorrow": "is in the future",
    "round of another chain": "a signature that the chain's key did not make",
    "round of tomorrow": "no relay gave round",
    "fork at one witness": "the witness answered 409",
    "longer fork at one witness": "the proof does not show that the log only grew",
    "smaller tree": "the witness cosigned size 4 of this log, more than the 1 submitted",
}
"""For each attack on a service a piece of the error that whoever was to be deceived gets."""


def judge(own: World, name: str, attack: Attack, path: Path) -> Verdict:
    """What the verifier says of the bundle that an attack writes at `path`."""
    attack.forge(own.scene(path))
    return verify(path, DEMANDING, trust=own.pins[ROWS[name].pins], executor=InProcess())


def differences(name: str, verdict: Verdict) -> list[str]:
    """In what a verdict is not what the table says; empty if in nothing."""
    row, claim = ROWS[name], verdict.claims[ClaimName.PRECEDENCE]
    found = []
    if (verdict.outcome, claim.status) != (row.outcome, row.status):
        found.append(f"{verdict.outcome}, precedence {claim.status}: {'; '.join(claim.evidence)}")
    if row.decisive(verdict) is None:
        found.append(f"no finding of {row.check} says {row.said!r}")
    return found


_HEAD = """# Attacks on time

Each row is an attack that `tests/attacks/test_precedence.py` carries out: with real services on loopback,
over HTTP, whose clock the test moves on; with real rounds, cosignatures and tokens, and real replays. The
owner may sign anything, anew and as often as he likes; nobody gets a round before it is due, or an anchor of
an earlier time than he asks. Whether an attack succeeded, the verifier says. `make attacks` carries all of
them out and writes this page.

The policy is `full`, and demands that precedence is *shown*. Pinned are the owner's key (and the thief's, as
if he were believed), one chain, two witnesses of which both must cosign, two authorities of which both must
agree; the witnesses' word or the authorities' is enough. Where an attack is on one kind, only that is pinned.
What the words mean, and why it must come out like this, is in [Precedence](../theory/precedence.md).

"""

_PARTS: tuple[tuple[str, str, Mapping[str, Attack]], ...] = (
    ("Refused", "Precedence is not shown, or the bundle is rejected.", ATTACKS),
    (
        "Worth nothing, or said",
        "Precedence is shown: what was done is no attack, or gains no more than the verdict says.",
        HARMLESS,
    ),
    (
        "Not seen",
        "Precedence is shown, and no check of one bundle can tell "
        "([limits](../theory/precedence.md#5-what-is-not-shown)). In the last the verifier's own pin fails.",
        LIMITS,
    ),
)


def page() -> str:
    """The page, from the tables."""
    text = _HEAD
    for title, said, attacks in _PARTS:
        text += f"## {title}\n\n{said}\n\n| attack | by | outcome | precedence | decided by | which says |\n"
        text += "|---|---|---|---|---|---|\n"
        for name, attack in attacks.items():
            row = ROWS[name]
            text += (
                f"| **{name}**. {attack.said} | {attack.who} | {row.outcome} | {row.status} | `{row.check}` "
                f"| {row.said} |\n"
            )
        text += "\n"
    text += (
        "## Refused by services, and by those who ask them\n\nNo bundle comes of these.\n\n"
        "| attack | by | the error |\n|---|---|---|\n"
    )
    for name, approach in SERVICES.items():
        text += f"| **{name}**. {_said(approach)} | {approach.who} | {REFUSED[name]} |\n"
    return text


def _said(approach: Approach) -> str:
    return " ".join((approach.make.__doc__ or "").split())


def main(arguments: Sequence[str]) -> int:
    """Carries out every attack, and writes the page; 0 if all came out as the table says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PAGE)
    out = parser.parse_args(arguments).out
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory, world(Path(directory) / "world") as own:
        wrong = list(_wrong(own, Path(directory)))
    print("\n".join(wrong) or "all as the table says", file=sys.stderr)
    if not wrong:
        out.write_text(page(), encoding="utf-8")
    return 1 if wrong else 0


def _wrong(own: World, directory: Path) -> Iterator[str]:
    for name, attack in {**ATTACKS, **HARMLESS, **LIMITS}.items():
        verdict = judge(own, name, attack, directory / name / "bundle")
        yield from (f"{name}: {said}" for said in differences(name, verdict))
    for name, approach in SERVICES.items():
        try:
            approach.make(own.scene(directory / name / "bundle"))
        except AnchorError as e:
            if REFUSED[name] not in str(e):
                yield f"{name}: {e}"
        else:
            yield f"{name}: was not refused"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
