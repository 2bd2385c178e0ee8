"""The classical protocol's own steps, and what can be claimed by them.

1. State zero by the distribution of its values.
2. Bounds of hyperparameters, where the policy has any.
3. The segments to replay: the largest updates of each epoch, or as many drawn uniformly.

The replays follow as in any verification, and are judged by `nearness`. At best, initialisation and
computation are supported: neither test excludes what was made to pass it. Source: Jia et al.,
"Proof-of-Learning: Definitions and Practice", 2021.
"""

from __future__ import annotations

from gradseal.proof.bundle import Bundle
from gradseal.verify.classical import Classical, InitialTest, Selection
from gradseal.verify.distribution import check_distribution
from gradseal.verify.evidence import listed, released_parameters
from gradseal.verify.examination import Examination
from gradseal.verify.hyperparameters import check_learning_rates
from gradseal.verify.nearness import near, nearest_to_limit
from gradseal.verify.sampling import Sample, draw_classical
from gradseal.verify.statistics import forged_bound
from gradseal.verify.verdict import Check, Claim, ClaimName, Status, not_shown

_TESTS = {
    InitialTest.KS: "Kolmogorov-Smirnov, each at p at least 0.01",
    InitialTest.KS_CORRECTED: "Kolmogorov-Smirnov, corrected for their number, at 0.01 for all together",
}


def prepare_classical(examination: Examination, bundle: Bundle, classical: Classical, draw: bytes) -> Sample:
    """All that is checked before the replays, and which segments these are of.

    Args:
        examination: With integrity done.
        bundle: The bundle.
        classical: The protocol.
        draw: The verifier's randomness.

    Raises:
        Ended: State zero cannot be read.
    """
    log, contents, lengths = examination.log, examination.contents, examination.lengths
    if log is None or contents is None or lengths is None or not examination.state_zero:
        return Sample(certain=(), uniform=(), population=0)
    examination.initial_tested = check_distribution(examination, bundle.files, contents, classical.initial)
    if classical.learning_rates is not None:
        check_learning_rates(examination, log, contents, classical.learning_rates)
    return draw_classical(classical, log.manifest, lengths.ranked, draw, bundle.checkpoint.root)


def classical_claims(examination: Examination, classical: Classical) -> dict[ClaimName, Claim]:
    """The three claims that the protocol speaks of, by what the examination found."""
    return {
        ClaimName.INITIALISATION: _initialisation(examination),
        ClaimName.DATA: not_shown("the protocol compares no order: any samples that replay nearly will do"),
        ClaimName.COMPUTATION: _computation(examination, classical),
    }


def _initialisation(examination: Examination) -> Claim:
    tested = examination.initial_tested
    if tested is None:
        return not_shown("state zero was not tested")
    if tested.untested:
        return not_shown(
            f"no distribution is claimed that could be tested: {listed(tested.untested)}",
            f"{tested.tested} other tensors were tested",
        )
    if tested.least is None:
        return not_shown("no tensor has a rule that draws, so there is nothing to test")
    evidence = [
        f"{tested.tested} tensors pass the test of their distribution ({_TESTS[tested.test]}); "
        f"the smallest p is {tested.least.p:.3g}, of {tested.least.name}",
        "the test cannot see which value sits where: a rearrangement of drawn values passes it",
    ]
    if tested.constant:
        evidence.append(f"{tested.constant} tensors have the one number that their rule gives")
    return Claim(status=Status.SUPPORTED, evidence=tuple(evidence))


def _computation(examination: Examination, classical: Classical) -> Claim:
    if undecided := examination.undecided(Check.REPLAY, Check.ENVIRONMENT):
        return not_shown(*undecided)
    results, sample, limits = examination.results, examination.sample, classical.limits
    if not results or sample is None:
        return not_shown("no segment was replayed")
    close, segments = sum(near(r, limits) for r in results), len(examination.parameter_digests) - 1
    ground = (
        f"{close} of {segments} segments replay to near the sealed parameters, {picked(classical)}: "
        f"{limits.said()}"
    )
    evidence = [ground]
    if (nearest := nearest_to_limit(results, limits)) is not None:
        result, distance = nearest
        allowed = limits.allowed(distance, result.update)
        evidence.append(
            f"nearest to a limit: segment {result.segment}, {distance} {result.error.by(distance):.3g} of "
            f"{allowed:.3g} allowed"
        )
    if sample.uniform:
        confidence = examination.policy.confidence
        most = forged_bound(sample.population, len(sample.uniform), confidence)
        evidence.append(
            f"with {confidence:.0%} confidence at most {most} of {sample.population} segments lie beyond"
        )
    evidence.append("hyperparameters are the bundle's own" + _bounds_said(classical))
    evidence.append(_released(examination))
    return Claim(status=Status.SUPPORTED, evidence=tuple(evidence))


def picked(classical: Classical) -> str:
    """How the segments to replay are chosen, in words."""
    if classical.top <= 0:
        return "all of them"
    if classical.selection is Selection.TOP:
        return f"the {classical.top} largest updates of each epoch"
    return f"drawn uniformly, as many as {classical.top} of each epoch"


def _bounds_said(classical: Classical) -> str:
    if classical.learning_rates is None:
        return ", whatever they are"
    low, high = classical.learning_rates
    return f", with learning rates from {low:g} to {high:g}"


def _released(examination: Examination) -> str:
    if examination.contents is None or not examination.weights_checked:
        return "no released weights were compared: the run is not closed"
    some, all_ = released_parameters(examination.contents)
    return f"{some} of {all_} parameters are released and are the last state's"
