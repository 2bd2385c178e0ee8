"""What came of one attempt against one verifier: a cell of the table of precedence, by a verdict alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from gradseal.study.matrix.remembering import Remembering
from gradseal.study.precedence.attacks import Told
from gradseal.study.precedence.removals import ABLATIONS, DEMANDED, Part, pinned
from gradseal.study.precedence.world import World
from gradseal.verify.verdict import ClaimName, Outcome, Result, Verdict
from gradseal.verify.verifier import verify

NEAR = 0.01
"""A state is the one that was named before if it is at most this share of the owner's path away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One attempt, as one verifier sees it. Times are seconds after the theft; None if nothing says.

    Args:
        tried: The attempt's name.
        removed: The part that the plan and the verifier do without.
        accepted: Whether all is there that he demands.
        against: What is not, in the verdict's words; empty if accepted.
        first_not_before: Before when the first segment was not fixed.
        last_not_before: And the last.
        not_after: By when the last state was sealed.
        runs: From how many runs the author chose.
        said_bits: What the verdict says that gaps leave to choose, in bits; None if it cannot tell.
        passed_over: How many slots the verdict says hold no segment.
        away: From W_T to what was released, as a share of the owner's path.
        known: When the author could name the end, and did to within `NEAR`; None if he could not.
    """

    tried: str
    removed: str
    accepted: bool
    against: str
    first_not_before: float | None
    last_not_before: float | None
    not_after: float | None
    runs: int
    said_bits: float | None
    passed_over: int
    away: float
    known: float | None

    @property
    def bits(self) -> float:
        """What the choice was worth that the author made, in bits."""
        return math.log2(self.runs)

    @property
    def dated_back(self) -> float:
        """How long before the theft the last state is said to have been sealed; infinite without a date."""
        return math.inf if self.not_after is None else max(0.0, -self.not_after)

    @property
    def began_back(self) -> float:
        """How long before the theft the first seed is said to be from; infinite if nothing says."""
        return math.inf if self.first_not_before is None else max(0.0, -self.first_not_before)

    @property
    def known_before(self) -> float:
        """How long before its *not before* the end was known in truth; 0 if nothing false is said."""
        if self.known is None or self.last_not_before is None:
            return 0.0
        return max(0.0, self.last_not_before - self.known)

    def to_json(self) -> dict[str, Any]:
        """Its JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Cell:
        """From its JSON form."""
        return cls(**value)


def judge(world: World, name: str, told: Told, removed: Part, executor: Remembering) -> Cell:
    """What a verifier who does without a part says of a bundle.

    Args:
        world: What he pins.
        name: The attempt's.
        told: The bundle, and what is true of it.
        removed: The part.
        executor: Replays, and remembers them for the other verifiers of the same bundle.
    """
    ablation, run = ABLATIONS[removed], told.run
    trust, brought = world.trusted(run)
    verdict = verify(
        str(run.target),
        ablation.demands(),
        trust=pinned(trust, brought, removed),
        draw=sha256(f"precedence {name}".encode()).digest(),
        executor=executor,
    )
    against = _against(verdict, ablation.lacking(verdict.claims[ClaimName.PRECEDENCE]))
    windows, theft = verdict.windows, world.theft
    first, last = (windows.segments[0], windows.segments[-1]) if windows.segments else (None, None)
    released = {n: t for n, t in run.state.items() if n.startswith("parameters/")}
    named = told.named is not None and world.between(told.named, released) <= NEAR
    bits = [gap.bits for gap in windows.gaps]
    known_bits = [one for one in bits if one is not None]
    return Cell(
        tried=name,
        removed=removed.value,
        accepted=not against,
        against=against,
        first_not_before=_since(theft, first.not_before if first else None),
        last_not_before=_since(theft, last.not_before if last else None),
        not_after=_since(theft, last.not_after if last else None),
        runs=told.tried,
        said_bits=math.fsum(known_bits) if len(known_bits) == len(bits) else None,
        passed_over=windows.passed_over,
        away=world.away(released),
        known=_since(theft, told.known) if named else None,
    )


def _since(theft: float, at: float | None) -> float | None:
    return None if at is None else round(at - theft, 3)


def _against(verdict: Verdict, lacking: tuple[str, ...]) -> str:
    """What keeps a verdict from acceptance, the first thing; empty if nothing does."""
    for result in (Result.REFUTED, Result.UNDECIDED):
        for finding in verdict.findings:
            if finding.result is result:
                return finding.line
    if lacking:
        return lacking[0]
    if verdict.outcome is Outcome.ACCEPTED:
        return ""
    unmet = next((name for name in DEMANDED if verdict.claims[ClaimName(name)].status != DEMANDED[name]), "")
    evidence = verdict.claims[ClaimName(unmet)].evidence if unmet else ()
    return f"{unmet}: {evidence[0] if evidence else verdict.outcome.value}"
