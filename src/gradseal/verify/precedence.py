"""When the run was made: slots' signatures, anchored checkpoints, windows, gaps.

1. Every slot's signatures are those of the planned rounds.
2. Every anchored checkpoint is the owner's, and of this very log.
3. Each shows a time by the witnesses and authorities that the verifier pinned, and by no others.
4. An entry existed by the least of the times that cover it; a segment is on the plan's cadence, or in a gap.
5. After the replays: a segment that depends on its seed was not made before its slot's rounds were due.

Refutes what contradicts; what merely shows no time is noted, and precedence is not shown.
What all this is worth is proved in docs/theory/precedence.md.
"""

from __future__ import annotations

from datetime import datetime

from gradseal.precede.log import Log
from gradseal.precede.slots import check_signatures
from gradseal.precede.trust import Trust
from gradseal.proof.files import Files
from gradseal.proof.merkle import Tree
from gradseal.verify.anchors import check_anchors
from gradseal.verify.chronology import Chronology, bounds_of, merged
from gradseal.verify.examination import Examination
from gradseal.verify.times import utc
from gradseal.verify.verdict import Check, Result

_MOST_TOLD = 20
"""Findings of one kind about slots or amendments."""


def check_precedence(
    examination: Examination, files: Files, tree: Tree, log: Log, *, trust: Trust, now: datetime | None
) -> Chronology:
    """Step 3: all that can be said of time before anything is replayed.

    Args:
        examination: Takes the findings.
        files: The bundle.
        tree: The log's tree.
        log: Its entries.
        trust: The verifier's pins.
        now: The verifier's clock; None if it has none that it trusts.

    Raises:
        Ended: A signature or an anchor contradicts the log, or is absent or not known.
    """
    own = Chronology(
        trust=trust,
        plan=log.slot_plan,
        slots=log.slots_by_segment(),
        places=log.places,
        missed=_missed(log),
        amendments=log.amendments,
        drawn=log.slots,
    )
    examination.chronology = own
    _beacon(examination, log, own)
    own.anchors = check_anchors(examination, files, log, tree, trust=trust, now=now)
    own.bounds = bounds_of(tree.size, own.anchors)
    own.gaps = own.find_gaps()
    _say_anchors(examination, own)
    if own.plan is not None:
        _say_windows(examination, own)
    return own


def _missed(log: Log) -> tuple[tuple[int, int], ...]:
    return merged((gap.entry.first_slot, gap.entry.last_slot) for gap in log.gaps)


def _beacon(examination: Examination, log: Log, own: Chronology) -> None:
    if own.plan is None:
        examination.found(
            Check.SEED,
            Result.NOTED,
            "the seed was chosen by the owner, so nothing says before when the run was not made",
            where="entry 0: plan.seed",
        )
        return
    said = f"{len(log.slots)} slots have their chains' signatures of the planned rounds"
    with examination.checking(Check.BEACON, said):
        check_signatures(own.plan, [slot.entry for slot in log.slots])
    known = {chain.hash for chain in own.trust.chains}
    own.pinned = tuple(chain.hash in known for chain, _ in own.plan.chains)
    for number, ((chain, _), pinned) in enumerate(zip(own.plan.chains, own.pinned, strict=True)):
        if not pinned:
            examination.found(
                Check.BEACON,
                Result.NOTED,
                f"chain {chain.hash.hex()[:8]} is not pinned: whoever has its key may have known its rounds "
                "at any time",
                where=f"entry 0: plan.seed.chains[{number}]",
            )


def _say_anchors(examination: Examination, own: Chronology) -> None:
    count = len(own.anchors)
    if not count:
        examination.found(
            Check.ANCHORS, Result.NOTED, "nothing anchors the log, so nothing says by when it was made"
        )
        return
    examination.found(
        Check.ANCHORS, Result.HELD, f"{count} anchored checkpoints are the owner's and of this log"
    )
    if not own.timed:
        pinned = own.trust.policy or own.trust.authorities
        why = "too few are pinned" if pinned else "no witness and no time-stamp authority is pinned"
        examination.found(Check.ANCHORS, Result.NOTED, f"none of them shows a time: {why}")


def _say_windows(examination: Examination, own: Chronology) -> None:
    if own.plan is None:
        return
    begins, bound = own.due(0), own.bounds[0]
    if own.manifest_in_time:
        examination.found(
            Check.WINDOWS,
            Result.HELD,
            f"the manifest was sealed by {utc(bound)}, before slot 0's round was due at {utc(begins)}",
        )
    elif any(own.pinned):
        said = "nothing shows by when" if bound is None else f"sealed by {utc(bound)}"
        examination.found(
            Check.WINDOWS,
            Result.NOTED,
            f"the manifest is not shown to be from before its seeds: {said}, and slot 0's round was due at "
            f"{utc(begins)}",
            where="entry 0",
        )
    if not own.timed:
        return
    for impossible in own.impossible[:_MOST_TOLD]:
        slot = impossible.entry.index
        examination.found(
            Check.WINDOWS,
            Result.NOTED,
            f"slot {slot} was drawn from by {utc(own.bounds[impossible.index])}, before its round was due at "
            f"{utc(own.due(slot))}: the clock of somebody who is pinned is wrong, or the chain's",
            where=f"entry {impossible.index}",
        )
    for amendment in own.amendments[:_MOST_TOLD]:
        slot, due = amendment.entry.slot, own.due(amendment.entry.slot)
        bound = own.bounds[amendment.index]
        sealed = "nothing shows by when" if bound is None else f"sealed by {utc(bound)}"
        examination.found(
            Check.AMENDMENTS,
            Result.HELD if own.in_time(amendment) else Result.NOTED,
            f"another program from slot {slot} on, whose round was due at {utc(due)}: {sealed}",
            where=f"entry {amendment.index}",
        )
    gaps = own.gaps
    examination.found(
        Check.WINDOWS,
        Result.NOTED if gaps else Result.HELD,
        f"{own.off_cadence} of {len(own.slots)} segments were not fixed within the plan's cadence, in "
        f"{len(gaps)} gaps, of which the log records {sum(gap.recorded for gap in gaps)}",
        where=f"segment {gaps[0].first_segment}" if gaps else "",
    )


def note_dependence(examination: Examination) -> None:
    """Step 6, last: which replayed segments depend on their seed."""
    own, floor = examination.chronology, examination.policy.seed_floor
    if own is None or own.plan is None:
        return
    tried = [r for r in examination.results if r.dependence is not None]
    sizes = [spec.elements for spec in examination.contents.program.layout] if examination.contents else []
    own.note_replays(tried, sizes)
    for result in sorted(tried, key=lambda r: r.segment):
        if result.segment in own.independent and len(examination.findings) < 1000:
            examination.found_in(
                result.segment,
                Check.DEPENDENCE,
                Result.NOTED,
                f"replayed under another seed {result.least_dependent or 'it'} ends {result.dependence:.3g} "
                "of its update away: it may be older than its seed",
                measured=result.dependence,
                allowed=floor,
            )
    if tried:
        still = len(own.still)
        examination.found(
            Check.DEPENDENCE,
            Result.NOTED if own.independent or still else Result.HELD,
            f"{len(own.dependent)} of {len(tried)} segments depend on their seed"
            + (f", and {still} moved nothing" if still else ""),
        )
