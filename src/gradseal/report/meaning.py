"""What a verdict means, for readers who know neither the format nor the field.

Sentences that claim no more than the verdict does: what each claim asks, what the outcome amounts to, and
what no verdict says.
"""

from __future__ import annotations

from collections.abc import Mapping

from gradseal.report.words import printable
from gradseal.verify.policy import Policy, Replay
from gradseal.verify.protocol import picked
from gradseal.verify.verdict import Check, ClaimName, Outcome, Result, Status, Verdict

CLAIM_MEANING: Mapping[ClaimName, str] = {
    ClaimName.INTEGRITY: "Is the record whole, unaltered, and signed with the key that the verifier holds?",
    ClaimName.PRECEDENCE: "Between which times was the run made, by a beacon and by anchors that the "
    "verifier trusts?",
    ClaimName.INITIALISATION: "Do the first weights follow by rule from the stated seed, rather than having "
    "been brought in?",
    ClaimName.DATA: "Did the training use the samples that were committed to, in the stated order?",
    ClaimName.COMPUTATION: "Are the sealed states and the released weights what the recorded program "
    "computes?",
}

STATUS_MEANING: Mapping[Status, str] = {
    Status.SHOWN: "the evidence is complete",
    Status.SUPPORTED: "the evidence is a sample, with the numbers given",
    Status.NOT_SHOWN: "there is no sufficient evidence, nor any against it",
    Status.REFUTED: "there is evidence against it",
}

_NEVER_SAID = (
    "who the author is, or that whoever trained did not know the resulting weights beforehand;",
    "whether the model is a fine-tuned, permuted or distilled copy of another;",
    "whether the data were lawful, what they mean, or where they come from;",
    "whether other runs were made and not shown.",
)

_REPLAYED = {
    Replay.ENDS: "to recompute the first and the last segment of the training",
    Replay.SAMPLE: "to recompute the first and the last segment of the training, and some others at random",
    Replay.ALL: "to recompute every segment of the training",
}


def not_said(verdict: Verdict) -> list[str]:
    """What the verdict does not say, whatever its outcome."""
    dated = verdict.claims[ClaimName.PRECEDENCE].status in (Status.SHOWN, Status.SUPPORTED)
    return [*([] if dated else ["when the training took place;"]), *_NEVER_SAID]


def asked(verdict: Verdict) -> str:
    """What the verification was asked to do."""
    policy = verdict.policy
    demanded = [f"{name} {status}" for name, status in policy.require.items()]
    return (
        f"To check the record of a training run against the policy {printable(policy.name)!r}: to read and "
        f"hash all of it, {_chosen(policy)}, and to accept it only if nothing contradicts it and "
        + (f"these claims hold: {', '.join(demanded)}. " if demanded else "whatever its claims. ")
        + key_said(verdict)
    )


def _chosen(policy: Policy) -> str:
    if policy.classical is None:
        return _REPLAYED[policy.replay]
    return (
        "to judge it as the classical protocol of proof-of-learning does: by how the first weights are "
        f"distributed, and by recomputing segments of the training ({picked(policy.classical)}) and allowing "
        f"a distance from the sealed weights ({policy.classical.limits.said()})"
    )


def key_said(verdict: Verdict) -> str:
    """Whether the verifier had the owner's key."""
    results = [f.result for f in verdict.findings if f.check is Check.PINNED_KEY]
    if Result.HELD in results:
        return "The verifier held the owner's public key, and the record is signed with it."
    if Result.REFUTED in results:
        return "The verifier held a public key, and the record is signed with another."
    if Result.NOTED in results:
        return "The verifier held no key of the owner's, so it cannot say who made the record."
    return "The verification ended before the owner's key was compared."


def amounts_to(verdict: Verdict) -> str:
    """What the outcome amounts to, in a paragraph."""
    match verdict.outcome:
        case Outcome.REJECTED:
            return (
                "At least one part of this record contradicts another part, the verifier's key, or what the"
                " computation gives. It may be forged, or a damaged copy; a verification cannot tell which."
                " What is wrong, and where, is listed below. Do not rely on the record as it is."
            )
        case Outcome.INCONCLUSIVE:
            return (
                "Nothing was found that contradicts this record. But something that the policy demands was "
                "not shown, or could not be checked here, so that the record is neither accepted nor "
                "rejected. The claims and the lists below say what is lacking."
            )
        case _:
            return _accepted(verdict)


def _accepted(verdict: Verdict) -> str:
    done, count = verdict.cost.segments_replayed, verdict.cost.segments
    computation = verdict.claims[ClaimName.COMPUTATION].status
    if verdict.policy.classical is not None:
        return (
            f"The verifier computed {done} of {count} segments of the training again, and each ended near "
            "enough to the sealed weights for the classical protocol. That protocol is known to accept "
            "forged records that cost far less than training, so this is no evidence against a forger."
        )
    if computation is Status.SHOWN:
        return (
            f"The verifier computed the training again, all {count} segments of it, from the first weights "
            "to the last, and each sealed state came out the same to the last bit. So the released weights "
            "are what the recorded program makes of the first weights and the data that the record names; "
            "the claims say how far those are accounted for. None of the owner's code was run."
        )
    if computation is Status.SUPPORTED:
        return (
            f"The verifier computed {done} of {count} segments of the training again, chosen at random but "
            "for the first and the last, and each sealed state came out the same to the last bit. That "
            "bounds the share of segments that can be false. It does not exclude a single false one, and "
            "one is enough to put other weights in the place of those trained."
        )
    return (
        f"Nothing contradicts this record, and the claims that the policy demands hold. {done} of {count} "
        "segments were computed again; that the weights are the outcome of the training was not demanded, "
        "and is not shown."
    )
