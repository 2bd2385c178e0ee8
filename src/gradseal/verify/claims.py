"""From findings to the five claims, and from the claims to an outcome.

Sources: what shows each claim is stated in docs/guide/verify.md; the bound of a sample is that of
`statistics`.
"""

from __future__ import annotations

from collections.abc import Sequence

from gradseal.verify.chronology import Chronology
from gradseal.verify.evidence import (
    blind_graphs,
    listed,
    order_said,
    released_parameters,
    samples_used,
    still_segments,
    unread_fields,
)
from gradseal.verify.examination import Examination
from gradseal.verify.policy import Policy
from gradseal.verify.statistics import forged_bound
from gradseal.verify.times import not_before, utc
from gradseal.verify.verdict import CLAIM_OF, Check, Claim, ClaimName, Finding, Outcome, Result, Status

_ENOUGH = {
    "shown": (Status.SHOWN,),
    "supported": (Status.SHOWN, Status.SUPPORTED),
}


def claims_of(examination: Examination) -> dict[ClaimName, Claim]:
    """The five claims, by what the examination found."""
    claims = {
        ClaimName.INTEGRITY: _integrity(examination),
        ClaimName.PRECEDENCE: _precedence(examination),
        ClaimName.INITIALISATION: _initialisation(examination),
        ClaimName.DATA: _data(examination),
        ClaimName.COMPUTATION: _computation(examination),
    }
    for name, refuted in _refuted(examination.findings).items():
        claims[name] = Claim(status=Status.REFUTED, evidence=tuple(_line(f) for f in refuted))
    return claims


def outcome_of(claims: dict[ClaimName, Claim], findings: Sequence[Finding], policy: Policy) -> Outcome:
    """Rejected if anything is refuted; accepted if all that the policy demands is there; or inconclusive."""
    if any(f.result is Result.REFUTED for f in findings):
        return Outcome.REJECTED
    if any(f.result is Result.UNDECIDED for f in findings):
        return Outcome.INCONCLUSIVE
    enough = all(claims[ClaimName(name)].status in _ENOUGH[least] for name, least in policy.require.items())
    return Outcome.ACCEPTED if enough else Outcome.INCONCLUSIVE


def _refuted(findings: Sequence[Finding]) -> dict[ClaimName, list[Finding]]:
    refuted: dict[ClaimName, list[Finding]] = {}
    for finding in findings:
        if finding.result is Result.REFUTED:
            refuted.setdefault(CLAIM_OF[finding.check], []).append(finding)
    return refuted


def _line(finding: Finding) -> str:
    return f"{finding.where}: {finding.message}" if finding.where else finding.message


def _undecided(examination: Examination, *checks: Check) -> list[str]:
    return [_line(f) for f in examination.findings if f.result is Result.UNDECIDED and f.check in checks]


def _not_shown(*evidence: str) -> Claim:
    return Claim(status=Status.NOT_SHOWN, evidence=evidence)


def _integrity(examination: Examination) -> Claim:
    checks = [check for check, claim in CLAIM_OF.items() if claim is ClaimName.INTEGRITY]
    if missing := _undecided(examination, *checks, Check.DATA):
        return _not_shown(*missing)
    if not (
        examination.log
        and examination.parameter_digests
        and examination.data_checked
        and examination.weights_checked
    ):
        return _not_shown("the verification ended before everything was read")
    whole = (
        "the log, every state, loss and sample and the released weights have the digests that the "
        "checkpoint signs"
    )
    if not examination.pinned:
        return _not_shown(f"self-consistent: {whole}", "no key was pinned, so anyone could have made it")
    return Claim(status=Status.SHOWN, evidence=(whole, "the checkpoint is signed by the pinned key"))


def _precedence(examination: Examination) -> Claim:
    own, log = examination.chronology, examination.log
    if missing := _undecided(examination, Check.BEACON, Check.ANCHORS):
        return _not_shown(*missing)
    if own is None or log is None or not own.bounds:
        return _not_shown("the verification ended before anything was read that says when it was made")
    close = own.bounds[-1] if log.close else None
    ended = f"not after: the run was closed by {utc(close)}, by anchors that are pinned"
    if own.plan is None:
        declared = "not before: the seed is the owner's own choice, so nothing says"
        if close is None:
            return _not_shown("nothing that is pinned says by when it was made", declared)
        return Claim(status=Status.SUPPORTED, evidence=(ended, declared))
    if lacking := _lacking(examination, own, close):
        return _not_shown(*lacking)
    first, last = min(own.dependent), max(own.dependent)
    lines = (
        ended,
        f"the manifest was sealed by {utc(own.bounds[0])}, before slot 0's round was due at "
        f"{utc(own.due(0))}",
        f"not before: {len(own.dependent)} of {len(log.segments)} segments depend on their slots' seeds, "
        f"segment {first} on one of {not_before(_begun(own, first))}, segment {last} on one of "
        f"{not_before(_begun(own, last))} UTC",
        *([f"{len(own.independent)} segments do not: they may be older"] if own.independent else []),
        _gaps(own),
        *(
            [f"{own.passed_over} slots hold no segment: their seeds were passed over"]
            if own.passed_over
            else []
        ),
    )
    if len(own.dependent | own.independent) == len(log.segments):
        return Claim(status=Status.SHOWN, evidence=lines)
    return Claim(status=Status.SUPPORTED, evidence=(*lines, _dependence_bound(examination, own)))


def _dependence_bound(examination: Examination, own: Chronology) -> str:
    """What a sample of replays under another seed says of the other segments."""
    sample = examination.sample
    drawn = [i for i in own.dependent if sample and i in sample.uniform]
    if sample is None or own.independent or not drawn:
        return "not every segment was replayed under another seed, and nothing bounds the others"
    confidence = examination.policy.confidence
    most = forged_bound(sample.population, len(drawn), confidence)
    return (
        f"{len(drawn)} of {sample.population} other segments drawn uniformly: with {confidence:.0%} "
        f"confidence at most {most} do not depend on their seed"
    )


def _lacking(examination: Examination, own: Chronology, close: float | None) -> list[str]:
    """What precedence of a run with a beacon's seeds lacks; empty if nothing."""
    lacking = []
    if not any(own.pinned):
        lacking.append("no chain of the plan's is pinned: the seeds may have been known at any time")
    if close is None:
        lacking.append("the run is not closed, or nothing that is pinned says by when it was")
    if not own.manifest_in_time:
        lacking.append(
            "the manifest is not shown to be from before slot 0's round, so the run may follow from a choice"
        )
    bare = sum(own.bounds[place] is None for place in own.places)
    if bare:
        lacking.append(f"{bare} of {len(own.places)} segments have no anchor that counts")
    late = sum(not own.in_time(amendment) for amendment in own.amendments)
    if late:
        lacking.append(f"{late} amendments were not anchored before the slot from which they are in force")
    gaps, most = own.gaps(), examination.policy.gap_share
    off = sum(gap.last_segment - gap.first_segment + 1 for gap in gaps)
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
    tried = len(own.dependent | own.independent)
    if not own.dependent or len(own.independent) > examination.policy.tolerated_fraction * tried:
        said = (
            f"{len(own.independent)} of {tried}" if tried else "none was replayed under another seed, so no"
        )
        lacking.append(f"{said} segments do not depend on their seed: they may have been made before")
    states = examination.parameter_digests
    last = max((i for i in range(len(states) - 1) if states[i] != states[i + 1]), default=-1)
    if last in own.independent:
        lacking.append(
            f"segment {last}, which moved the weights last, does not depend on its seed: they may be older"
        )
    return lacking


def _begun(own: Chronology, segment: int) -> float | None:
    slot = own.slots[segment]
    return None if slot is None else own.not_before(slot)


def _gaps(own: Chronology) -> str:
    gaps = own.gaps()
    if not gaps:
        return "every segment was fixed within the plan's cadence"
    segments = sum(gap.last_segment - gap.first_segment + 1 for gap in gaps)
    return (
        f"{segments} segments in {len(gaps)} gaps, worth {own.grinding_bits or 0.0:.1f} bits to an owner who "
        f"grinds; the log records {sum(gap.recorded for gap in gaps)} of them"
    )


def _initialisation(examination: Examination) -> Claim:
    if not examination.state_zero_checked:
        return _not_shown("state zero was not recomputed")
    policy, parameters = examination.policy, examination.parameter_bytes
    free, allowed = sum(item.size_bytes for item in examination.free), policy.allowed_free_bytes(parameters)
    graphs, most = examination.graph_bytes, policy.allowed_graph_bytes(parameters)
    verb = "compress to" if examination.graphs_compressed else "have, uncompressed,"
    given = any(item.where == "state zero" for item in examination.free)
    counted = (
        f"{free} free bytes, of at most {allowed}",
        f"the program and its graphs {verb} {graphs} bytes" + (f", of at most {most}" if most else ""),
        *(f"{item.name}: {item.size_bytes} free bytes ({item.where})" for item in examination.free),
    )
    if free > allowed or (most is not None and graphs > most):
        return _not_shown(*counted)
    rest = ", but for the tensors given, listed below" if given else ""
    ground = f"every tensor of state zero follows from its rule and the seed{rest}"
    return Claim(status=Status.SHOWN, evidence=(ground, *counted))


def _data(examination: Examination) -> Claim:
    log, contents = examination.log, examination.contents
    if not examination.data_checked or log is None or contents is None:
        return _not_shown("the samples were not read")
    replayed = _replayed_equal(examination)
    if not replayed:
        return _not_shown("no segment was replayed bit for bit")
    if blind := blind_graphs(contents):
        sizes = ", ".join(map(str, blind))
        return _not_shown(f"no gradient depends on the batch, in batches of {sizes}: any data would do")
    still, moved = _still(examination)
    if not moved:
        return _not_shown(*still)
    opened, order = "every sample opens against the data root", order_said(log.manifest.plan.order)
    used = samples_used(log, replayed)
    rest = [f"the replayed steps used {used} distinct samples of {log.manifest.data.samples}", *still]
    if unread := unread_fields(contents):
        rest.append(f"no gradient depends on these fields of a sample, nor the loss: {listed(unread)}")
    if _all_replayed(examination):
        ground = f"{order}; all {len(replayed)} segments replay on it"
        return Claim(status=Status.SHOWN, evidence=(opened, ground, *rest))
    bound = _bound(examination)
    if bound is None:
        said = f"{len(replayed)} segments replay on the committed samples; no bound on the others"
        return _not_shown(said, order, *rest)
    return Claim(status=Status.SUPPORTED, evidence=(opened, order, bound, *rest))


def _computation(examination: Examination) -> Claim:
    if undecided := _undecided(examination, Check.REPLAY, Check.ENVIRONMENT):
        return _not_shown(*undecided)
    replayed = len(_replayed_equal(examination))
    if not replayed:
        return _not_shown("no segment was replayed")
    still, moved = _still(examination)
    if not moved:
        return _not_shown(*still)
    weights, released = _released(examination)
    if _all_replayed(examination):
        if not examination.weights_checked:
            said = f"all {replayed} sealed segments replay bit for bit, but the run is not closed"
            return _not_shown(said, *still)
        ground = f"all {replayed} segments replay bit for bit, back to state zero"
        status = Status.SHOWN if released else Status.NOT_SHOWN
        return Claim(status=status, evidence=(ground, weights, *still))
    ground, bound = f"{replayed} segments replay bit for bit", _bound(examination)
    if bound is None:
        return _not_shown(f"{ground}; no bound on the others", weights, *still)
    status = Status.SUPPORTED if released else Status.NOT_SHOWN
    return Claim(status=status, evidence=(ground, bound, weights, *still))


def _still(examination: Examination) -> tuple[tuple[str, ...], bool]:
    """What to say of replayed segments that changed no parameter, and whether any other did."""
    replayed = _replayed_equal(examination)
    still = len(still_segments(examination.parameter_digests, replayed))
    if not still:
        return (), True
    share = "all" if still == len(replayed) else f"{still} of the"
    said = f"{share} {len(replayed)} replayed segments left the parameters as they were: no evidence"
    return (said,), still < len(replayed)


def _released(examination: Examination) -> tuple[str, bool]:
    """What to say of the released weights, and whether they can carry the claim."""
    if examination.contents is None or not examination.weights_checked:
        return "no released weights were compared: the run is not closed", True
    some, all_ = released_parameters(examination.contents)
    if not some:
        return f"none of {all_} parameters is released, so the claim would be of no weights", False
    said = f"{some} of {all_} parameters are released and are the last state's"
    return said + (f"; {all_ - some} are not released" if some < all_ else ""), True


def _replayed_equal(examination: Examination) -> list[int]:
    return [result.segment for result in examination.results if result.equal]


def _all_replayed(examination: Examination) -> bool:
    equal = {r.segment for r in examination.results if r.equal}
    return examination.log is not None and equal == set(range(examination.log.manifest.plan.segments))


def _bound(examination: Examination) -> str | None:
    """What the uniform draws say of the segments that were not drawn for certain; None if nothing."""
    sample = examination.sample
    if sample is None or not sample.uniform or not all(r.equal for r in examination.results):
        return None
    if len(examination.results) < len(sample.segments):
        return None
    confidence = examination.policy.confidence
    most = forged_bound(sample.population, len(sample.uniform), confidence)
    return (
        f"{len(sample.uniform)} of {sample.population} other segments drawn uniformly: with {confidence:.0%} "
        f"confidence at most {most} are forged"
    )
