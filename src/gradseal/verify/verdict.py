"""What a verification says: findings, five claims, and an overall outcome against a policy.

A finding is the outcome of one check and names what and where. The claims are never blurred into each other,
and the overall outcome has no truth value: it is accepted, rejected or inconclusive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from gradseal.verify.policy import Policy
from gradseal.verify.segments import Segments
from gradseal.verify.windows import Windows


class Status(StrEnum):
    """How a claim ends."""

    SHOWN = "shown"
    SUPPORTED = "supported"
    NOT_SHOWN = "not shown"
    REFUTED = "refuted"


class Outcome(StrEnum):
    """How a verification ends."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    INCONCLUSIVE = "inconclusive"

    def __bool__(self) -> bool:
        raise TypeError("an outcome is no truth value; compare it with Outcome.ACCEPTED")


class Result(StrEnum):
    """How one check ends."""

    HELD = "held"
    REFUTED = "refuted"
    UNDECIDED = "undecided"
    NOTED = "noted"


class ClaimName(StrEnum):
    """The five claims, in the order in which they are reported."""

    INTEGRITY = "integrity"
    PRECEDENCE = "precedence"
    INITIALISATION = "initialisation"
    DATA = "data"
    COMPUTATION = "computation"


class Check(StrEnum):
    """The checks, in the order in which they are made."""

    SIGNATURE = "signature"
    PINNED_KEY = "pinned key"
    LOG = "log"
    MANIFEST = "manifest"
    ENTRIES = "entries"
    PROGRAM = "program"
    STATES = "states"
    LOSSES = "losses"
    DATA = "data"
    WEIGHTS = "weights"
    SEED = "seed"
    BEACON = "beacon"
    ANCHORS = "anchors"
    AMENDMENTS = "amendments"
    WINDOWS = "windows"
    INITIALISATION = "initialisation"
    FREE_BYTES = "free bytes"
    DISTRIBUTION = "distribution"
    HYPERPARAMETERS = "hyperparameters"
    PULL = "pull"
    ENVIRONMENT = "environment"
    REPLAY = "replay"
    TOLERANCE = "tolerance"
    DISTANCE = "distance"
    DEPENDENCE = "dependence"


CLAIM_OF: Mapping[Check, ClaimName] = {
    Check.SIGNATURE: ClaimName.INTEGRITY,
    Check.PINNED_KEY: ClaimName.INTEGRITY,
    Check.LOG: ClaimName.INTEGRITY,
    Check.MANIFEST: ClaimName.INTEGRITY,
    Check.ENTRIES: ClaimName.INTEGRITY,
    Check.PROGRAM: ClaimName.INTEGRITY,
    Check.STATES: ClaimName.INTEGRITY,
    Check.LOSSES: ClaimName.INTEGRITY,
    Check.DATA: ClaimName.DATA,
    Check.WEIGHTS: ClaimName.INTEGRITY,
    Check.SEED: ClaimName.PRECEDENCE,
    Check.BEACON: ClaimName.PRECEDENCE,
    Check.ANCHORS: ClaimName.PRECEDENCE,
    Check.AMENDMENTS: ClaimName.PRECEDENCE,
    Check.WINDOWS: ClaimName.PRECEDENCE,
    Check.INITIALISATION: ClaimName.INITIALISATION,
    Check.FREE_BYTES: ClaimName.INITIALISATION,
    Check.DISTRIBUTION: ClaimName.INITIALISATION,
    Check.HYPERPARAMETERS: ClaimName.COMPUTATION,
    Check.PULL: ClaimName.INITIALISATION,
    Check.ENVIRONMENT: ClaimName.COMPUTATION,
    Check.REPLAY: ClaimName.COMPUTATION,
    Check.TOLERANCE: ClaimName.COMPUTATION,
    Check.DISTANCE: ClaimName.COMPUTATION,
    Check.DEPENDENCE: ClaimName.PRECEDENCE,
}
"""The claim that a refuted check refutes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of one check.

    Args:
        check: Which check.
        result: How it ended.
        message: What was found, in a sentence.
        where: The file, entry, field or tensor; empty for the bundle as a whole.
        segment: The segment's number, if it concerns one.
        measured: What was measured, if anything, with its unit in the message.
        allowed: What would have been allowed.
    """

    check: Check
    result: Result
    message: str
    where: str = ""
    segment: int | None = None
    measured: float | None = None
    allowed: float | None = None

    @property
    def line(self) -> str:
        """Where, and what was found, in one line."""
        return f"{self.where}: {self.message}" if self.where else self.message

    def to_json(self) -> dict[str, Any]:
        """Its fields that have a value."""
        return {name: value for name, value in asdict(self).items() if value is not None and value != ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One of the five claims.

    Args:
        status: How it ended.
        evidence: On what evidence, as lines of text.
    """

    status: Status
    evidence: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Its JSON form."""
        return {"status": self.status.value, "evidence": list(self.evidence)}


def not_shown(*evidence: str) -> Claim:
    """A claim for which there is no sufficient evidence, and why."""
    return Claim(status=Status.NOT_SHOWN, evidence=evidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a verification took.

    Args:
        segments_replayed: Segments replayed.
        segments: Segments in the run.
        steps_replayed: Steps replayed.
        bytes_hashed: Bytes of blobs hashed outside replay.
        seconds: Wall-clock time.
    """

    segments_replayed: int
    segments: int
    steps_replayed: int
    bytes_hashed: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """All that one verification says.

    Args:
        outcome: Against the policy.
        claims: The five, by name.
        findings: Every check's, in order.
        policy: What was demanded.
        cost: What it took.
        bundle: Origin, tree size and root of the checkpoint that was verified, and its owner's key.
        draw: The verifier's randomness, as hexadecimal digits; give it again to repeat the verification.
        record: What the record says, and where replays ran, as JSON values; empty if it could not be read.
        segments: Its segments one by one: losses, updates, replays.
        windows: When each part of the run was made, as far as it is known.
        trust: What the verifier pinned: keys, witnesses, authorities, chains, as JSON values.
        tolerance: By which calibrated tolerance replays were judged, and what came of it, as JSON values;
            empty where only bits counted.
    """

    outcome: Outcome
    claims: Mapping[ClaimName, Claim]
    findings: tuple[Finding, ...]
    policy: Policy
    cost: Cost
    bundle: Mapping[str, str | int]
    draw: str
    record: Mapping[str, Any] = field(default_factory=dict)
    segments: Segments = field(default_factory=Segments)
    windows: Windows = field(default_factory=Windows)
    trust: Mapping[str, Any] = field(default_factory=dict)
    tolerance: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """One object for `verify --json`."""
        return {
            "outcome": self.outcome.value,
            "claims": {name.value: claim.to_json() for name, claim in self.claims.items()},
            "findings": [finding.to_json() for finding in self.findings],
            "policy": self.policy.to_json(),
            "cost": asdict(self.cost),
            "bundle": dict(self.bundle),
            "draw": self.draw,
            "record": dict(self.record),
            "trust": dict(self.trust),
            "tolerance": dict(self.tolerance),
            "segments": self.segments.to_json(),
            "windows": self.windows.to_json(),
        }
