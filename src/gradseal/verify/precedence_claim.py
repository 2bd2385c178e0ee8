"""Precedence: when a run was made, and what of that the evidence shows.

*Shown* if the manifest is from before its seeds, every entry was anchored, the plan's cadence held well
enough, and every segment that moved the weights depends on its seed. *Supported* by a sample of segments, or,
without slots, by an anchor on the end alone. Sources: docs/theory/precedence.md, section 3.
"""

from __future__ import annotations

from gradseal.verify.chronology import LEFT_OUT, Chronology
from gradseal.verify.examination import Examination
from gradseal.verify.statistics import forged_bound
from gradseal.verify.times import not_before, utc
from gradseal.verify.verdict import Check, Claim, Status, not_shown

NO_CLOSE = "the run is not closed, or nothing that is pinned says by when it was"
MANIFEST_LATE = (
    "the manifest is not shown to be from before slot 0's round, so the run may follow from a choice"
)
BARE = "segments have no anchor that counts"
"""What precedence may lack, as a claim says it: those who study it without a part need to know."""


def precedence_claim(examination: Examination) -> Claim:
    """When the run was made, by what the examination found."""
    own, log = examination.chronology, examination.log
    if missing := examination.undecided(Check.BEACON, Check.ANCHORS):
        return not_shown(*missing)
    if own is None or log is None or not own.bounds:
        return not_shown("the verification ended before anything was read that says when it was made")
    close = own.bounds[-1] if log.close else None
    ended = f"not after: the run was closed by {utc(close)}, by anchors that are pinned"
    if own.plan is None:
        declared = "not before: the seed is the owner's own choice, so nothing says"
        if close is None:
            return not_shown("nothing that is pinned says by when it was made", declared)
        return Claim(status=Status.SUPPORTED, evidence=(ended, declared))
    if lacking := _lacking(examination, own, close):
        return not_shown(*lacking)
    lines = (ended, *_lines(own))
    if len(own.dependent | own.independent | own.still) == len(own.places):
        return Claim(status=Status.SHOWN, evidence=lines)
    bound = _dependence_bound(examination, own)
    if bound is None:
        return not_shown(
            *lines, "not every segment was tried under another seed, and nothing bounds the rest"
        )
    return Claim(status=Status.SUPPORTED, evidence=(*lines, bound))


def _lines(own: Chronology) -> list[str]:
    """The evidence for a run that lacks nothing."""
    first, last = min(own.dependent), max(own.dependent)
    lines = [
        f"the manifest was sealed by {utc(own.bounds[0])}, before slot 0's round was due at "
        f"{utc(own.due(0))}",
        f"not before: {len(own.dependent)} of {len(own.places)} segments depend on their slots' seeds, "
        f"segment {first} on one of {not_before(_begun(own, first))}, segment {last} on one of "
        f"{not_before(_begun(own, last))} UTC, less a skew of {own.trust.skew_seconds:g} s",
    ]
    if own.independent:
        lines.append(f"{len(own.independent)} segments do not, and may be older")
    if own.still:
        lines.append(f"{len(own.still)} segments moved nothing")
    lines.append(_gaps(own))
    if own.passed_over:
        lines.append(f"{own.passed_over} slots hold no segment: their seeds were passed over")
    return lines


def _dependence_bound(examination: Examination, own: Chronology) -> str | None:
    """What a sample of replays under another seed says of the other segments."""
    sample = examination.sample
    drawn = [i for i in own.dependent if sample and i in sample.uniform]
    if sample is None or own.independent or not drawn:
        return None
    confidence = examination.policy.confidence
    most = forged_bound(sample.population, len(drawn), confidence)
    return (
        f"{len(drawn)} of {sample.population} other segments drawn uniformly: with {confidence:.0%} "
        f"confidence at most {most} do not depend on their seed"
    )


def _lacking(examination: Examination, own: Chronology, close: float | None) -> list[str]:
    """What precedence of a run with a beacon's seeds lacks; empty if nothing."""
    if not (own.trust.chains or own.trust.policy or own.trust.authorities):
        return ["no beacon, witness or time-stamp authority is pinned, so nothing says when it was made"]
    lacking = []
    if not any(own.pinned):
        lacking.append("no chain of the plan's is pinned: the seeds may have been known at any time")
    if close is None:
        lacking.append(NO_CLOSE)
    if not own.manifest_in_time:
        lacking.append(MANIFEST_LATE)
    if own.impossible:
        lacking.append(
            f"{len(own.impossible)} slots were drawn from before their rounds were due, if anchors are right"
        )
    bare = sum(own.bounds[place] is None for place in own.places)
    if bare:
        lacking.append(f"{bare} of {len(own.places)} {BARE}")
    late = sum(not own.in_time(amendment) for amendment in own.amendments)
    if late:
        lacking.append(f"{late} amendments were not anchored before the slot from which they are in force")
    return lacking + _lacking_in_cadence(examination, own) + _lacking_in_replays(examination, own)


def _lacking_in_cadence(examination: Examination, own: Chronology) -> list[str]:
    """What is lacking where segments were not fixed before later seeds were known."""
    lacking = []
    off, most = own.off_cadence, examination.policy.gap_share
    if off > most * len(own.places):
        lacking.append(
            f"{off} of {len(own.places)} segments are off the plan's cadence, more than {most:.0%}"
        )
    bits = own.grinding_bits
    if bits is not None and bits > examination.policy.grinding_bits:
        lacking.append(
            f"the gaps leave {bits:.1f} bits to choose among seeds, more than "
            f"{examination.policy.grinding_bits:g}"
        )
    return lacking


def _lacking_in_replays(examination: Examination, own: Chronology) -> list[str]:
    """What is lacking in what replays show of the dependence on seeds."""
    lacking = []
    wrong = sum(not result.equal for result in examination.results)
    if wrong:
        lacking.append(
            f"{wrong} segments have other bits than their replays, so nothing says when they were made"
        )
    if not own.dependent | own.independent | own.still:
        lacking.append(
            "no segment was replayed under another seed, so nothing says before when it was not made"
        )
    elif not own.dependent:
        lacking.append("none of the segments that were tried depends on its seed: they may be older")
    elif own.unseeded > LEFT_OUT:
        which = ", ".join(map(str, sorted(own.independent)[:8])) or "some"
        lacking.append(
            f"{own.unseeded:.0%} of the numbers that moved did so whatever the seed, in segments {which}: "
            "they may be older"
        )
    return lacking


def _begun(own: Chronology, segment: int) -> float | None:
    slot = own.slots[segment]
    return None if slot is None else own.not_before(slot)


def _gaps(own: Chronology) -> str:
    gaps = own.gaps
    if not gaps:
        return "every segment was fixed within the plan's cadence"
    return (
        f"{own.off_cadence} segments in {len(gaps)} gaps, worth {own.grinding_bits or 0.0:.1f} bits to an "
        f"owner who grinds; the log records {sum(gap.recorded for gap in gaps)} of them"
    )
