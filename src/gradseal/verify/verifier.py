"""Verification, in the order in which it is done: cheap checks first, computation last.

1. Open the bundle, with limits.
2. Integrity: signature, tree, entries, contents, every state, the released weights.
3. Precedence: slots' signatures, anchored checkpoints, windows, gaps; by what the verifier pinned.
4. Initialisation: state zero recomputed, free bytes counted.
   Where weights are given that the run may have been pulled to, a permutation test, which decides nothing.
5. Draw the segments to replay.
6. Replay them, in a child process in the recorded environment; and once more under another seed.
7. Say what a sample is worth.
8. The verdict.

Contents that contradict a digest, a signature, a pinned key or the order refute a claim and end the
verification; what is absent, unknown or cannot be run leaves it undecided. Nothing is trusted because the
bundle carries it, no pickle is read and none of the owner's code is run.

A classical policy has steps 4 to 6 in its own way: state zero by its distribution, hyperparameters, segments
by the lengths of their updates, replays by their distance. What step 3 finds does not keep it from them.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path

from gradseal.precede.log import Log
from gradseal.precede.trust import Trust
from gradseal.proof.bundle import Bundle, open_bundle
from gradseal.proof.note import VerificationKey
from gradseal.store.files import FsspecFiles
from gradseal.verify.account import record_of, segments_of
from gradseal.verify.chronology import windows_of
from gradseal.verify.claims import claims_of, outcome_of
from gradseal.verify.computation import check_computation, request_of
from gradseal.verify.examination import Ended, Examination, Progress
from gradseal.verify.executors import Executor, LocalProcess
from gradseal.verify.initialisation import check_initialisation
from gradseal.verify.integrity import check_integrity, check_released
from gradseal.verify.policy import Policy
from gradseal.verify.precedence import check_precedence, note_dependence
from gradseal.verify.protocol import prepare_classical
from gradseal.verify.pull import check_pull
from gradseal.verify.sampling import Sample, draw_sample
from gradseal.verify.tolerance_claim import tolerance_of
from gradseal.verify.tolerating import counting
from gradseal.verify.verdict import Cost, Verdict


def verify(
    path: str | Path,
    policy: Policy | None = None,
    *,
    keys: Sequence[VerificationKey] = (),
    trust: Trust | None = None,
    weights: str | Path | None = None,
    pulled_to: str | Path | None = None,
    draw: bytes | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Checks a bundle against a policy.

    Args:
        path: The bundle: a directory, or an fsspec URL.
        policy: What is demanded and spent; by default `full`.
        keys: The owner's key as the verifier knows it; with several, any of them will do. Without any,
            integrity is only that of a record that agrees with itself.
        trust: What else the verifier pins: witnesses, time-stamp authorities, beacon chains, and owners' keys
            too; see `precede.trust`. Without it, nothing says when the run was made.
        weights: A safetensors file that is to hold the released weights.
        pulled_to: A safetensors file with weights that the run may have been pulled to; see `verify.pull`.
        draw: The randomness of an earlier verification, to repeat it; by default fresh.
        executor: Where replays run; by default a child process on this machine.
        progress: Told how far it is.

    Returns:
        The verdict; whatever the bundle holds, not an exception.

    Raises:
        MalformedBundle: It is not a bundle at all, or over a limit.
        StoreError: The storage could not be read.
    """
    policy = policy or Policy.named("full")
    shown = progress or (lambda what, done, total: None)
    draw = draw if draw is not None else secrets.token_bytes(32)
    trust = trust or Trust()
    replayer = executor or LocalProcess()
    pinned = (*keys, *trust.keys)
    began = time.monotonic()
    url = str(path) if "://" in str(path) else str(Path(path).absolute())
    files = FsspecFiles(url)
    bundle = open_bundle(files)  # 1
    examination = Examination(policy=policy)
    try:
        log, contents, tree = check_integrity(examination, bundle, pinned, shown)  # 2
        check_released(examination, files, log, contents, weights)
        with suppress(Ended) if policy.classical else nullcontext():
            check_precedence(examination, files, tree, log, trust=trust, now=datetime.now(UTC))  # 3
        if (seeds := log.seeds()) is not None:
            if policy.classical:
                sample = prepare_classical(examination, bundle, policy.classical, draw)  # 4, 5
            else:
                check_initialisation(examination, contents, seeds.initial)  # 4
                sample = _sample(examination, bundle, log, draw)  # 5
            examination.sample = sample
            request = request_of(url, log, seeds, contents=contents, sample=sample, policy=policy)
            if pulled_to is not None:
                check_pull(examination, files, request, replayer, pulled_to, draw=draw, shown=shown)
            check_computation(examination, request, replayer, shown)  # 6
            note_dependence(examination)
    except Ended:
        pass
    claims = claims_of(examination)  # 7
    return Verdict(  # 8
        outcome=outcome_of(claims, examination.findings, policy),
        claims=claims,
        findings=tuple(examination.findings),
        policy=policy,
        cost=_cost(examination, time.monotonic() - began),
        bundle=_identity(bundle, examination),
        draw=draw.hex(),
        record=record_of(examination),
        segments=segments_of(examination),
        windows=windows_of(examination.chronology, examination.log),
        trust=trust.to_json(),
        tolerance=tolerance_of(examination),
    )


def _sample(examination: Examination, bundle: Bundle, log: Log, draw: bytes) -> Sample:
    own = examination.chronology
    return draw_sample(
        examination.policy,
        len(log.segments),
        draw,
        bundle.checkpoint.root,
        lengths=examination.lengths.updates if examination.lengths else (),
        always=own.always_replayed(log) if own else (),
        counting=counting(examination, log),
        slots=own is not None and own.plan is not None,
        last=max(examination.moving(), default=None),
    )


def _cost(examination: Examination, seconds: float) -> Cost:
    plan = examination.log.manifest.plan if examination.log else None
    return Cost(
        segments_replayed=len(examination.results),
        segments=len(examination.log.segments) if examination.log else 0,
        steps_replayed=sum(len(plan.steps_of(r.segment)) for r in examination.results) if plan else 0,
        bytes_hashed=examination.bytes_hashed,
        seconds=round(seconds, 3),
    )


def _identity(bundle: Bundle, examination: Examination) -> dict[str, str | int]:
    identity: dict[str, str | int] = {
        "origin": bundle.checkpoint.origin,
        "size": bundle.checkpoint.size,
        "root": bundle.checkpoint.root.hex(),
    }
    if examination.log:
        identity["owner"] = str(examination.log.manifest.owner)
    return identity
