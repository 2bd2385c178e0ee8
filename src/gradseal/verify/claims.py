"""From findings to the five claims, and from the claims to an outcome.

Sources: what shows each claim is stated in docs/guide/verify.md; the bound of a sample is that of
`statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradseal.verify.bounds_said import by_length_said, uniform_said
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
from gradseal.verify.precedence_claim import precedence_claim
from gradseal.verify.protocol import classical_claims
from gradseal.verify.sampling import Sample
from gradseal.verify.statistics import forged_bound, length_bound, rounded_up
from gradseal.verify.tolerance_claim import passed, tolerant_claim, tolerated
from gradseal.verify.verdict import (
    CLAIM_OF,
    Check,
    Claim,
    ClaimName,
    Finding,
    Outcome,
    Result,
    Status,
    not_shown,
)

_ENOUGH = {
    "shown": (Status.SHOWN,),
    "supported": (Status.SHOWN, Status.SUPPORTED),
}


def claims_of(examination: Examination) -> dict[ClaimName, Claim]:
    """The five claims, by what the examination found."""
    classical = examination.policy.classical
    claims = {
        ClaimName.INTEGRITY: _integrity(examination),
        ClaimName.PRECEDENCE: precedence_claim(examination),
        **(classical_claims(examination, classical) if classical else _replay_claims(examination)),
    }
    for name, refuted in _refuted(examination.findings).items():
        claims[name] = Claim(status=Status.REFUTED, evidence=tuple(f.line for f in refuted))
    return claims


def _replay_claims(examination: Examination) -> dict[ClaimName, Claim]:
    return {
        ClaimName.INITIALISATION: _initialisation(examination),
        ClaimName.DATA: _data(examination),
        ClaimName.COMPUTATION: _computation(examination),
    }


def outcome_of(claims: dict[ClaimName, Claim], findings: Sequence[Finding], policy: Policy) -> Outcome:
    """Rejected if anything is refuted; accepted if all that the policy demands is there; or inconclusive.

    A classical policy does not look at time, unless precedence is demanded of it.
    """
    if policy.classical and ClaimName.PRECEDENCE not in policy.require:
        findings = [f for f in findings if CLAIM_OF[f.check] is not ClaimName.PRECEDENCE]
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


def _integrity(examination: Examination) -> Claim:
    checks = [check for check, claim in CLAIM_OF.items() if claim is ClaimName.INTEGRITY]
    if missing := examination.undecided(*checks, Check.DATA):
        return not_shown(*missing)
    if not (
        examination.log
        and examination.parameter_digests
        and examination.data_checked
        and examination.weights_checked
    ):
        return not_shown("the verification ended before everything was read")
    whole = (
        "the log, every state, loss and sample and the released weights have the digests that the "
        "checkpoint signs"
    )
    if not examination.pinned:
        return not_shown(f"self-consistent: {whole}", "no key was pinned, so anyone could have made it")
    return Claim(status=Status.SHOWN, evidence=(whole, "the checkpoint is signed by the pinned key"))


def _initialisation(examination: Examination) -> Claim:
    if not examination.state_zero_checked:
        return not_shown("state zero was not recomputed")
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
        return not_shown(*counted)
    rest = ", but for the tensors given, listed below" if given else ""
    ground = f"every tensor of state zero follows from its rule and the seed{rest}"
    return Claim(status=Status.SHOWN, evidence=(ground, *counted))


def _data(examination: Examination) -> Claim:
    log, contents = examination.log, examination.contents
    if not examination.data_checked or log is None or contents is None:
        return not_shown("the samples were not read")
    replayed, tolerance = passed(examination), tolerated(examination)
    if not replayed:
        return not_shown("no segment was replayed bit for bit" + (", or near enough" if tolerance else ""))
    if blind := blind_graphs(contents):
        sizes = ", ".join(map(str, blind))
        return not_shown(f"no gradient depends on the batch, in batches of {sizes}: any data would do")
    still, moved = _still(examination)
    if not moved:
        return not_shown(*still)
    opened, order = "every sample opens against the data root", order_said(log.manifest.plan.order)
    used = samples_used(log, replayed)
    rest = [f"the replayed steps used {used} distinct samples of {log.manifest.data.samples}", *still]
    if unread := unread_fields(contents):
        rest.append(f"no gradient depends on these fields of a sample, nor the loss: {listed(unread)}")
    if tolerance:
        return tolerant_claim(examination, tolerance, before=(opened, order), after=rest, brief=True)
    if _all_replayed(examination):
        ground = f"{order}; all {len(replayed)} segments replay on it"
        return Claim(status=Status.SHOWN, evidence=(opened, ground, *rest))
    bound = _bound(examination)
    if not bound:
        said = f"{len(replayed)} segments replay on the committed samples; {_unbounded(examination)}"
        return not_shown(said, order, *rest)
    return Claim(status=Status.SUPPORTED, evidence=(opened, order, *bound, *rest))


def _computation(examination: Examination) -> Claim:
    if undecided := examination.undecided(Check.REPLAY, Check.TOLERANCE, Check.ENVIRONMENT):
        return not_shown(*undecided)
    replayed, tolerance = len(passed(examination)), tolerated(examination)
    if not replayed:
        return not_shown("no segment was replayed" + (" and near enough" if tolerance else ""))
    still, moved = _still(examination)
    if not moved:
        return not_shown(*still)
    weights, released = _released(examination)
    if tolerance:
        return tolerant_claim(examination, tolerance, after=(weights, *still), released=released)
    return _computed(examination, replayed, (weights, *still), released=released)


def _computed(examination: Examination, replayed: int, rest: tuple[str, ...], *, released: bool) -> Claim:
    """Computation, by so many replays that gave the sealed bits."""
    if _all_replayed(examination):
        if not examination.weights_checked:
            said = f"all {replayed} sealed segments replay bit for bit, but the run is not closed"
            return not_shown(said, *rest[1:])
        ground = f"all {replayed} segments replay bit for bit, back to state zero"
        status = Status.SHOWN if released else Status.NOT_SHOWN
        return Claim(status=status, evidence=(ground, *rest))
    ground, bound = f"{replayed} segments replay bit for bit", _bound(examination)
    if not bound:
        return not_shown(f"{ground}; {_unbounded(examination)}", *rest)
    status = Status.SUPPORTED if released else Status.NOT_SHOWN
    return Claim(status=status, evidence=(ground, *bound, *rest))


def _still(examination: Examination) -> tuple[tuple[str, ...], bool]:
    """What to say of replayed segments that changed no parameter, and whether any other did."""
    replayed = passed(examination)
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


def _all_replayed(examination: Examination) -> bool:
    equal = {r.segment for r in examination.results if r.equal}
    return examination.log is not None and equal == set(range(examination.log.manifest.plan.segments))


def _bound(examination: Examination) -> tuple[str, ...]:
    """What the draws say of the segments that are not replayed for certain, a line a bound; () if nothing."""
    sample, policy = examination.sample, examination.policy
    if sample is None or not sample.uniform or not all(r.equal for r in examination.results):
        return ()
    if len(examination.results) < len(sample.segments):
        return ()
    most = forged_bound(sample.population, len(sample.uniform), policy.bound_confidence)
    uniform = uniform_said(policy, len(sample.uniform), sample.population, most)
    if policy.tolerated_length is None:
        return (uniform,)
    if sample.length is None:
        return ()
    return uniform, _length_bound(examination, sample, sample.length, most)


def _unbounded(examination: Examination) -> str:
    """Why there is no bound."""
    sample = examination.sample
    hidden = sample is not None and sample.uniform and sample.length is None
    by_length = examination.policy.tolerated_length is not None
    return "no bound on the others" + (", whose lengths are not known" if hidden and by_length else "")


def _length_bound(examination: Examination, sample: Sample, length: float, most: int) -> str:
    """What the draws by length say of the rest, of this length and with at most so many forged."""
    if not sample.weighted:
        return "the others moved no parameter, so there is no length to draw by"
    policy, updates = examination.policy, examination.lengths.updates if examination.lengths else ()
    share = length_bound(len(sample.weighted), policy.bound_confidence)
    said = by_length_said(policy, sample.weighted, share, "the others' length")
    certain, way = set(sample.certain), examination.distance or 0.0
    longest = max((updates[i] for i in range(len(updates)) if i not in certain), default=math.inf)
    moved = min(share * length, most * longest)
    if not 0 < way < math.inf or not moved < math.inf:
        return said
    whole = ": they could have made all of the way" if moved >= way else ""
    return (
        f"{said}, and then the forged ones themselves moved the parameters by at most "
        f"{rounded_up(moved / way):.2g} of ‖W_T − W_0‖{whole}"
    )
