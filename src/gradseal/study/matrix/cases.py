"""What the suite keeps of an attack that was judged: costs, distances, and each policy's word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gradseal.verify.verdict import CLAIM_OF, ClaimName, Finding, Outcome, Result, Status, Verdict

_MOST_SAID = 300
"""Characters of what decided that a case keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What one policy said of one bundle.

    Args:
        policy: Its name.
        outcome: Accepted, rejected or inconclusive; only an accepted bundle passed.
        claims: Each claim's status.
        check: The check that decided against it; empty if it passed, or if only a claim is not shown.
        claim: The claim that failed first; empty if it passed.
        said: What was said of it.
        replayed: How many segments were replayed.
        seconds: How long the verification took, without replays that an earlier policy had made.
    """

    policy: str
    outcome: str
    claims: Mapping[str, str]
    check: str
    claim: str
    said: str
    replayed: int
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether the verifier accepted the bundle."""
        return self.outcome == Outcome.ACCEPTED.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What something took.

    Args:
        gradients: Gradients of single samples.
        flops: Floating-point operations, those of the gradients included.
        seconds: Wall-clock time, writing the bundle included.
    """

    gradients: float
    flops: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Replays:
    """Every segment of a bundle, replayed where it was made; lists in the order of segments.

    Args:
        epochs: In which epoch it begins.
        equal: Whether the replay has the sealed bits.
        errors: How far (l2) the replayed parameters end from the sealed ones; infinite if that is no number.
        updates: How far the sealed ones moved; infinite likewise.
    """

    epochs: tuple[int, ...]
    equal: tuple[bool, ...]
    errors: tuple[float, ...]
    updates: tuple[float, ...]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Replays:
        """From its JSON form."""
        return cls(**{name: tuple(own) for name, own in value.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One attack, judged.

    Args:
        attack: Its name.
        arithmetic: `native` or `exact`.
        seed: Of the victim and of the attacker.
        steps: How many steps the bundle claims.
        segments: In how many segments.
        distance: From the released parameters to the stolen ones, as a share of d_ref; None if the attack
            does not steal.
        accuracy: What the recipe says of the released weights.
        cost: What the attack took.
        claimed: What an honest run of the claimed steps takes.
        victim: What the victim's run took.
        judged: By each policy.
        reference: d_ref, the distance of two independently trained models.
        key: The attacker's public key, which the verifiers pinned.
        notes: What the attack itself counted.
        replays: All segments; None if the bundle contradicts itself, or cannot be replayed whole.
    """

    attack: str
    arithmetic: str
    seed: int
    steps: int
    segments: int
    distance: float | None
    accuracy: str
    cost: Cost
    claimed: Cost
    victim: Cost
    judged: tuple[Judged, ...]
    reference: float
    key: str
    notes: Mapping[str, float] = field(default_factory=dict)
    replays: Replays | None = None

    def to_json(self) -> dict[str, Any]:
        """Its JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Case:
        """From its JSON form."""
        costs = {name: Cost(**value[name]) for name in ("cost", "claimed", "victim")}
        judged = tuple(Judged(**one) for one in value["judged"])
        replays = Replays.from_json(value["replays"]) if value.get("replays") else None
        return cls(**{**value, **costs, "judged": judged, "replays": replays})


def judged(verdict: Verdict) -> Judged:
    """What of a verdict the matrix keeps."""
    check, claim, said = "", "", ""
    if verdict.outcome is not Outcome.ACCEPTED:
        finding = _against(verdict)
        if finding:
            check, claim, said = finding.check.value, CLAIM_OF[finding.check].value, finding.line
        else:
            name = _unmet(verdict)
            claim, said = name.value, "; ".join(verdict.claims[name].evidence[:2])
    return Judged(
        policy=verdict.policy.name,
        outcome=verdict.outcome.value,
        claims={name.value: own.status.value for name, own in verdict.claims.items()},
        check=check,
        claim=claim,
        said=said if len(said) <= _MOST_SAID else f"{said[: _MOST_SAID - 1]}…",
        replayed=verdict.cost.segments_replayed,
        seconds=verdict.cost.seconds,
    )


def _against(verdict: Verdict) -> Finding | None:
    """The first finding that refutes, or else the first that leaves something undecided."""
    for result in (Result.REFUTED, Result.UNDECIDED):
        for finding in verdict.findings:
            if finding.result is result:
                return finding
    return None


def _unmet(verdict: Verdict) -> ClaimName:
    """The first claim that is not what the policy demands."""
    for name, least in verdict.policy.require.items():
        status = verdict.claims[ClaimName(name)].status
        if status is not Status.SHOWN and not (least == "supported" and status is Status.SUPPORTED):
            return ClaimName(name)
    raise ValueError("every demand is met")
