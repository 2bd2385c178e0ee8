"""Verification, in the order in which it is done: cheap checks first, computation last.

1. Open the bundle, with limits.
2. Integrity: signature, tree, entries, contents, every state, the released weights.
3. Precedence: the seed's source.
4. Initialisation: state zero recomputed, free bytes counted.
5. Draw the segments to replay.
6. Replay them, in a child process in the recorded environment.
7. Say what a sample is worth.
8. The verdict.

Contents that contradict a digest, a signature, a pinned key or the order refute a claim and end the
verification; what is absent, unknown or cannot be run leaves it undecided. Nothing is trusted because the
bundle carries it, no pickle is read and none of the owner's code is run.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gradseal.errors import (
    CorruptBlob,
    Error,
    MalformedBundle,
    MissingFile,
    ReplayError,
    StoreError,
    UnknownKind,
)
from gradseal.program.native import Environment, differences
from gradseal.program.program import same_structure
from gradseal.program.randomness import run_seed
from gradseal.program.sources import FreeBytes
from gradseal.proof.bundle import Bundle, open_bundle
from gradseal.proof.files import CHECKPOINT
from gradseal.proof.manifest import Manifest
from gradseal.proof.note import VerificationKey
from gradseal.store.files import FsspecFiles
from gradseal.verify.claims import claims_of, outcome_of
from gradseal.verify.contents import (
    Contents,
    Log,
    StateChecker,
    check_given,
    check_weights,
    compare_weights,
    read_contents,
    read_log,
)
from gradseal.verify.executors import Executor, LocalProcess, Ready, Request
from gradseal.verify.initialisation import check_state_zero, count_free_bytes
from gradseal.verify.outcomes import SegmentResult, Task
from gradseal.verify.policy import Policy
from gradseal.verify.samples import SampleReader
from gradseal.verify.sampling import Sample, draw_sample
from gradseal.verify.verdict import Check, Cost, Finding, Result, Verdict

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how far it is and how far it goes; 0 where that is not known."""

_MAX_WEIGHTS_BYTES = 1 << 40


class _Ended(Exception):
    """No later check can be made."""


@dataclass(slots=True, kw_only=True)
class Examination:
    """What is known so far, filled in from top to bottom."""

    policy: Policy
    findings: list[Finding] = field(default_factory=list)
    pinned: bool = False
    log: Log | None = None
    contents: Contents | None = None
    states: list[tuple[bytes, ...]] = field(default_factory=list)
    data_checked: bool = False
    weights_checked: bool = False
    state_zero_checked: bool = False
    free: tuple[FreeBytes, ...] = ()
    sample: Sample | None = None
    environment: Environment | None = None
    results: list[SegmentResult] = field(default_factory=list)
    bytes_hashed: int = 0

    def found(self, check: Check, result: Result, message: str, where: str = "") -> None:
        """Adds a finding."""
        self.findings.append(Finding(check=check, result=result, message=message, where=where))

    @contextmanager
    def checking(self, check: Check, held: str = "") -> Iterator[None]:
        """Turns what is raised inside into a finding of `check`, which ends the examination."""
        try:
            yield
        except (CorruptBlob, MalformedBundle) as e:
            self.found(check, Result.REFUTED, e.message, e.where)
            raise _Ended from e
        except (MissingFile, UnknownKind, StoreError, ReplayError) as e:
            self.found(check, Result.UNDECIDED, e.message, e.where)
            raise _Ended from e
        if held:
            self.found(check, Result.HELD, held)


def verify(
    path: str | Path,
    policy: Policy | None = None,
    *,
    keys: Sequence[VerificationKey] = (),
    weights: str | Path | None = None,
    draw: bytes | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Checks a bundle against a policy.

    Args:
        path: The bundle: a directory, or an fsspec URL.
        policy: What is demanded and spent; by default `full`.
        keys: The owner's key as the verifier knows it; with several, any of them will do. Without any, integrity
            is only that of a record that agrees with itself.
        weights: A safetensors file that is to hold the released weights.
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
    began = time.monotonic()
    url = str(path) if "://" in str(path) else str(Path(path).absolute())
    files = FsspecFiles(url)
    bundle = open_bundle(files)  # 1
    examination = Examination(policy=policy)
    try:
        log, contents = _integrity(examination, bundle, keys, shown)  # 2
        _released(examination, files, log, contents, weights)
        _precedence(examination, log.manifest)  # 3
        seed = run_seed(log.manifest.plan.seed.value, log.manifest.digest())
        _initialisation(examination, contents, seed)  # 4
        sample = draw_sample(policy, len(log.segments), draw, bundle.checkpoint.root)  # 5
        examination.sample = sample
        _replay(examination, url, log, contents, sample, executor or LocalProcess(), shown)  # 6
    except _Ended:
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
    )


def _integrity(
    examination: Examination, bundle: Bundle, keys: Sequence[VerificationKey], shown: Progress
) -> tuple[Log, Contents]:
    with examination.checking(Check.LOG):
        entries = bundle.all_entries()
        bundle.check_log(entries)
    examination.found(Check.LOG, Result.HELD, f"{len(entries)} entries have the tree's tiles and root")
    with examination.checking(Check.MANIFEST):
        manifest = Manifest.decode(entries[0])
    _signature(examination, bundle, manifest, keys)
    with examination.checking(Check.ENTRIES):
        log = read_log(manifest, entries)
    examination.log = log
    _closed(examination, log)
    with examination.checking(
        Check.PROGRAM, "program, graphs, rules, schema and release map are as the manifest names"
    ):
        contents = read_contents(bundle.files, manifest)
        check_given(bundle.files, contents)
    examination.contents = contents
    _structure(examination, contents)
    _states(examination, bundle, log, contents, shown)
    with examination.checking(Check.DATA):
        reader = SampleReader(bundle.files, manifest.data, contents.schema)
        reader.check_all(
            lambda done: shown("hashing samples", done, manifest.data.samples * contents.schema.size_bytes)
        )
    examination.bytes_hashed += reader.bytes_hashed
    examination.data_checked = True
    examination.found(Check.DATA, Result.HELD, f"{manifest.data.samples} samples open against the data root")
    return log, contents


def _signature(
    examination: Examination, bundle: Bundle, manifest: Manifest, keys: Sequence[VerificationKey]
) -> None:
    with examination.checking(Check.SIGNATURE, f"the checkpoint is signed by {manifest.owner}"):
        if not bundle.note.verified_by(manifest.owner):
            raise CorruptBlob(f"not signed by the manifest's owner, {manifest.owner}", where=CHECKPOINT)
        if bundle.checkpoint.origin != manifest.origin:
            raise CorruptBlob(
                f"has the origin of another log than this manifest's, {manifest.origin}", where=CHECKPOINT
            )
    if not keys:
        examination.found(
            Check.PINNED_KEY,
            Result.NOTED,
            "no key was pinned: the record agrees with itself, whoever made it",
        )
        return
    with examination.checking(Check.PINNED_KEY, "the owner's key is one that was pinned"):
        if manifest.owner not in keys:
            raise CorruptBlob(
                f"the owner's key {manifest.owner} is none of those pinned", where="entry 0: owner"
            )
    examination.pinned = True


def _closed(examination: Examination, log: Log) -> None:
    examination.found(Check.ENTRIES, Result.HELD, f"{len(log.segments)} segments stand in the plan's order")
    if log.close is None:
        last = (
            f"the last sealed segment is {log.segments[-1].index}" if log.segments else "no segment is sealed"
        )
        examination.found(
            Check.ENTRIES,
            Result.UNDECIDED,
            f"the run is not closed: {last} of {log.manifest.plan.segments}",
            where=f"entry {len(log.segments) + 1 + (log.initial is not None)}",
        )


def _structure(examination: Examination, contents: Contents) -> None:
    (_, first), *others = sorted(contents.graphs.items(), reverse=True)
    for size, graph in others:
        if not same_structure(first, graph):
            examination.found(
                Check.PROGRAM,
                Result.NOTED,
                f"batches of {size} run other operators than full ones; read both graphs",
                where=f"graph of batch size {size}",
            )


def _states(examination: Examination, bundle: Bundle, log: Log, contents: Contents, shown: Progress) -> None:
    total = len(log.seals) * sum(s.size_bytes for s in contents.program.layout)
    checker = StateChecker(
        bundle.files, log.manifest, contents.program, lambda done: shown("hashing states", done, total)
    )
    for number, seal in enumerate(log.seals):
        with examination.checking(Check.STATES):
            try:
                examination.states.append(checker.check(seal))
            except Error as e:
                e.message = f"{e.message} (state {_state_name(number)})"
                raise
    examination.bytes_hashed += checker.bytes_hashed
    examination.found(
        Check.STATES, Result.HELD, f"{len(log.seals)} states have their tensors' digests and seals"
    )


def _state_name(number: int) -> str:
    return "zero" if number == 0 else f"after segment {number - 1}"


def _released(
    examination: Examination, files: FsspecFiles, log: Log, contents: Contents, weights: str | Path | None
) -> None:
    if log.close is None:
        return
    with examination.checking(Check.WEIGHTS, "the released weights are the last state's"):
        check_weights(files, log.close, contents, examination.states[-1])
    if weights is not None:
        path = Path(weights)
        data = FsspecFiles(str(path.absolute().parent)).read(path.name, _MAX_WEIGHTS_BYTES)
        with examination.checking(Check.WEIGHTS, "the weights that were handed in are the last state's"):
            compare_weights(data, contents, examination.states[-1], where=str(weights))
    examination.weights_checked = True


def _precedence(examination: Examination, manifest: Manifest) -> None:
    examination.found(
        Check.SEED,
        Result.NOTED,
        "the seed was chosen by the owner, and nothing says when",
        where="entry 0: plan.seed",
    )


def _initialisation(examination: Examination, contents: Contents, seed: bytes) -> None:
    if not examination.states:
        return
    with examination.checking(Check.INITIALISATION):
        wrong = list(check_state_zero(contents, seed, examination.states[0]))
    examination.findings.extend(wrong)
    if wrong:
        raise _Ended
    examination.state_zero_checked = True
    examination.found(
        Check.INITIALISATION,
        Result.HELD,
        "state zero is what the rules give with the run's seed, or was given",
    )
    examination.free = count_free_bytes(contents)
    for item in examination.free:
        examination.findings.append(
            Finding(
                check=Check.FREE_BYTES,
                result=Result.NOTED,
                message=f"{item.size_bytes} bytes that no rule derives ({item.where})",
                where=item.name,
                measured=float(item.size_bytes),
            )
        )


def _replay(
    examination: Examination,
    url: str,
    log: Log,
    contents: Contents,
    sample: Sample,
    executor: Executor,
    shown: Progress,
) -> None:
    segments, seals = sample.segments, log.seals
    if not segments:
        return
    if contents.environment.threads > examination.policy.max_threads:
        examination.found(
            Check.ENVIRONMENT,
            Result.UNDECIDED,
            f"was recorded with {contents.environment.threads} threads; the policy allows "
            f"{examination.policy.max_threads}",
            where="entry 0: arithmetic.threads",
        )
        raise _Ended
    request = Request(
        url=url,
        manifest=log.manifest,
        environment=contents.environment,
        tasks=[
            Task(segment=i, start=seals[i], end=seals[i + 1], losses=log.segments[i].losses) for i in segments
        ],
        step_timeout_seconds=examination.policy.step_timeout_seconds,
        memory_bytes=examination.policy.memory_bytes,
    )
    with examination.checking(Check.REPLAY):
        for answer in executor.run(request):
            if isinstance(answer, Ready):
                _compare_environment(examination, contents.environment, answer.environment)
            else:
                _judge(examination, answer)
                shown("replaying segments", len(examination.results), len(segments))
    equal = sum(r.equal for r in examination.results)
    examination.found(
        Check.REPLAY,
        Result.HELD if equal == len(segments) else Result.NOTED,
        f"{equal} of {len(segments)} segments replayed bit for bit",
    )


def _compare_environment(examination: Examination, recorded: Environment, had: Environment) -> None:
    examination.environment = had
    wrong = differences(recorded, had)
    if wrong:
        said = "; ".join(f"{name} {a!r}, here {b!r}" for name, (a, b) in wrong.items())
        examination.found(Check.ENVIRONMENT, Result.NOTED, f"the recorded environment cannot be had: {said}")
    else:
        examination.found(Check.ENVIRONMENT, Result.HELD, "replays run in the recorded environment")


def _judge(examination: Examination, answer: SegmentResult) -> None:
    examination.results.append(answer)
    if answer.equal:
        return
    recorded = examination.contents.environment if examination.contents else None
    same = recorded is not None and recorded == examination.environment
    relative = answer.error / answer.update if answer.update else float("inf") if answer.error else 0.0
    examination.findings.append(
        Finding(
            check=Check.REPLAY,
            result=Result.REFUTED if same else Result.UNDECIDED,
            message=f"replay differs from the sealed state in {', '.join(answer.differing)}; the parameters are "
            f"{answer.error:.3g} away, {relative:.3g} of the update"
            + ("" if same else "; in another environment this may be noise"),
            where=f"segment {answer.segment}",
            segment=answer.segment,
            measured=relative if relative != float("inf") else None,
            allowed=0.0,
        )
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
