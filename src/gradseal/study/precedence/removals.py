"""The parts of the sealed plan, each of which the study of precedence takes away in turn.

A part is taken from the owner's side, whose bundle has less of it, and from the verifier's, who no longer
asks for it: by another policy, by other pins, or by passing over what the claim of precedence then lacks.
Everything else stays. What the parts are, and what is proved of each: docs/theory/precedence.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from gradseal.precede.trust import Trust
from gradseal.verify.policy import Policy
from gradseal.verify.precedence_claim import BARE, MANIFEST_LATE, NO_CLOSE
from gradseal.verify.verdict import Claim, ClaimName, Status


class Part(StrEnum):
    """What is taken away."""

    NOTHING = "nothing"
    BEACON = "the beacon"
    MANIFEST = "the manifest's anchor before slot 0"
    DURING = "anchors during the run"
    ALL_BUT_END = "all anchors but the last"
    ANCHORS = "all anchors"
    CADENCE = "the cadence's limits"
    DEPENDENCE = "the test of dependence"
    SEAL_KEY = "the owner's key in seals"
    INITIALISATION = "the rules of initialisation"
    CHAIN_PIN = "the pinned chain"
    HOST_PINS = "the pinned witness and authority"


EVERYTHING = frozenset({"manifest", "during", "end"})

_ANCHORED: Mapping[Part, frozenset[str]] = MappingProxyType(
    {
        Part.MANIFEST: EVERYTHING - {"manifest"},
        Part.DURING: EVERYTHING - {"during"},
        Part.ALL_BUT_END: frozenset({"end"}),
        Part.ANCHORS: frozenset(),
    }
)

IN_BUNDLES = frozenset({Part.NOTHING, Part.BEACON, *_ANCHORED})
"""Those without which every bundle is another one; `SEAL_KEY` changes what copies seals, the others none."""

_FULL = Policy.named("full")
DEMANDED = {name: least for name, least in _FULL.require.items() if name != ClaimName.PRECEDENCE}
_WHOLE = replace(_FULL, name="whole plan", require=MappingProxyType(DEMANDED))
_NO_LIMITS: Mapping[str, Any] = {"gap_share": 1.0, "grinding_bits": float("inf")}
_ANY_START: Mapping[str, Any] = {"free_bytes": 1 << 40, "free_share": None, "graph_share": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """A verifier who does without a part.

    Args:
        policy: His changes of the policy `full`.
        passed_over: What precedence may lack, by how it begins or by a piece of it.
        least: The status that is demanded of precedence.
    """

    policy: Mapping[str, Any] = field(default_factory=dict)
    passed_over: tuple[str, ...] = ()
    least: tuple[Status, ...] = (Status.SHOWN,)

    def demands(self) -> Policy:
        """His policy; precedence is judged by `dated`."""
        return replace(_WHOLE, **self.policy)

    def lacking(self, claim: Claim) -> tuple[str, ...]:
        """What a claim of precedence lacks for him; empty if nothing."""
        if claim.status in self.least:
            return ()
        if claim.status is not Status.NOT_SHOWN:
            return claim.evidence[-1:] or (claim.status.value,)
        return tuple(line for line in claim.evidence if not any(said in line for said in self.passed_over))


ABLATIONS: Mapping[Part, Ablation] = MappingProxyType(
    {
        Part.NOTHING: Ablation(),
        Part.BEACON: Ablation(least=(Status.SHOWN, Status.SUPPORTED)),
        Part.MANIFEST: Ablation(passed_over=(MANIFEST_LATE,)),
        Part.DURING: Ablation(policy=_NO_LIMITS),
        Part.ALL_BUT_END: Ablation(policy=_NO_LIMITS, passed_over=(MANIFEST_LATE,)),
        Part.ANCHORS: Ablation(policy=_NO_LIMITS, passed_over=(MANIFEST_LATE, NO_CLOSE, BARE)),
        Part.CADENCE: Ablation(policy=_NO_LIMITS),
        Part.DEPENDENCE: Ablation(policy={"seed_floor": 0.0}),
        Part.SEAL_KEY: Ablation(),
        Part.INITIALISATION: Ablation(policy=_ANY_START),
        Part.CHAIN_PIN: Ablation(),
        Part.HOST_PINS: Ablation(),
    }
)


def anchored(removed: Part) -> frozenset[str]:
    """Which checkpoints a plan without a part has anchored: of the manifest, during the run, at its end."""
    return _ANCHORED.get(removed, EVERYTHING)


def pinned(trust: Trust, brought: Trust, removed: Part) -> Trust:
    """What a verifier pins who does without a part: where nothing is pinned, whatever the bundle brings.

    Args:
        trust: What he would pin.
        brought: The services that the bundle's author used.
        removed: The part.
    """
    if removed is Part.CHAIN_PIN:
        return replace(trust, chains=brought.chains)
    if removed is Part.HOST_PINS:
        return replace(trust, policy=brought.policy, authorities=brought.authorities)
    return trust
