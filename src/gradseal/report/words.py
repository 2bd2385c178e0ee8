"""What a verdict says, in words for people; shared by the terminal and the page.

Texts in a verdict may come from a hostile bundle: `printable` leaves no character that could move a
terminal's cursor or turn the direction of writing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gradseal.verify.verdict import Check, Claim, Finding, Outcome, Result, Status, Verdict

_TOLD_BY_CLAIMS = (Check.SEED, Check.FREE_BYTES, Check.PINNED_KEY, Check.REPLAY)


def printable(text: str) -> str:
    """The text with everything that is not printed, but for line ends, as an escape."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def reason(verdict: Verdict) -> str:
    """Why the outcome is what it is, in a sentence."""
    demanded = verdict.policy.require
    policy = f"the policy {verdict.policy.name!r}"
    if verdict.outcome is Outcome.REJECTED:
        refuted = {f.check for f in verdict.findings if f.result is Result.REFUTED}
        if refuted == {Check.PINNED_KEY}:
            return "It is not signed with the key that you gave: another owner's run, or an altered one."
        return "Something in the record is not what it claims to be."
    if verdict.outcome is Outcome.ACCEPTED:
        said = ", ".join(
            f"{c.value} {verdict.claims[c].status.value}" for c in verdict.claims if c in demanded
        )
        return f"All that {policy} demands is there: {said or 'it demands nothing'}."
    if any(f.result is Result.UNDECIDED for f in verdict.findings):
        return "Nothing contradicts the record, but not everything could be checked."
    lacking = [
        f"{c.value} ({claim.status.value})"
        for c, claim in verdict.claims.items()
        if c in demanded and claim.status not in (Status.SHOWN, demanded[c])
    ]
    return f"Nothing contradicts the record, but {policy} demands more: {', '.join(lacking)}."


def identity(verdict: Verdict) -> dict[str, str]:
    """Which run it is and whose it says to be."""
    bundle = verdict.bundle
    return {
        "run": printable(str(bundle["origin"])),
        "owner": printable(str(bundle.get("owner", "not verified"))),
    }


def evidence(claim: Claim, most: int) -> list[str]:
    """A claim's evidence, at most so many lines; of a refuted claim, where it stands instead."""
    if claim.status is Status.REFUTED:
        return ["see what is wrong, below"]
    return _shortened([printable(line) for line in claim.evidence], most)


def wrong(verdict: Verdict, most: int) -> list[str]:
    """What was refuted, at most so many findings."""
    return _told(verdict, [f for f in verdict.findings if f.result is Result.REFUTED], most)


def undecided(verdict: Verdict, most: int) -> list[str]:
    """What could not be checked, at most so many findings."""
    return _told(verdict, [f for f in verdict.findings if f.result is Result.UNDECIDED], most)


def notes(verdict: Verdict, most: int) -> list[str]:
    """What else was noticed, at most so many findings; what the claims tell anyhow is left out."""
    noted = [f for f in verdict.findings if f.result is Result.NOTED and f.check not in _TOLD_BY_CLAIMS]
    return _told(verdict, noted, most)


def finding_text(finding: Finding) -> str:
    """What was found and where."""
    where = f" [{finding.where}]" if finding.where else ""
    return printable(f"{finding.message}{where}")


def cost(verdict: Verdict) -> str:
    """What the verification took."""
    took = verdict.cost
    return (
        f"{took.segments_replayed} of {took.segments} segments replayed ({took.steps_replayed} steps), "
        f"{took.bytes_hashed / 1e6:.1f} MB hashed, {took.seconds:.1f} s"
    )


def finite(value: Any) -> Any:
    """The JSON value with null for each number that JSON has not: NaN and the infinities."""
    if isinstance(value, dict):
        return {name: finite(below) for name, below in value.items()}
    if isinstance(value, list | tuple):
        return [finite(below) for below in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _told(verdict: Verdict, findings: Sequence[Finding], most: int) -> list[str]:
    return _shortened([f"{f.check.value}: {finding_text(f)}" for f in findings], most)


def _shortened(lines: list[str], most: int) -> list[str]:
    more = len(lines) - most
    return [*lines[:most], f"and {more} more, which --json lists"] if more > 0 else lines
