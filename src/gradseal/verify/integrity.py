"""Integrity: signature, tree, entries, contents, every state and sample, the released weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gradseal.errors import CorruptBlob, naming
from gradseal.precede.log import Log, read_log
from gradseal.program.program import same_structure
from gradseal.proof.bundle import Bundle
from gradseal.proof.files import CHECKPOINT, Files
from gradseal.proof.manifest import Manifest
from gradseal.proof.merkle import Tree
from gradseal.proof.note import VerificationKey
from gradseal.verify.contents import (
    Contents,
    StateChecker,
    check_given,
    check_losses,
    check_opening,
    check_weights,
    compare_weights,
    read_contents,
)
from gradseal.verify.distances import Distance
from gradseal.verify.evidence import released_parameters
from gradseal.verify.examination import Examination, Progress
from gradseal.verify.lengths import Lengths
from gradseal.verify.losses import LossCurve
from gradseal.verify.own_weights import read_own_weights
from gradseal.verify.samples import SampleReader
from gradseal.verify.verdict import Check, Result

_MAX_WEIGHTS_BYTES = 1 << 40


def check_integrity(
    examination: Examination, bundle: Bundle, keys: Sequence[VerificationKey], shown: Progress
) -> tuple[Log, Contents, Tree]:
    """Step 2: everything in the bundle is what the signed checkpoint says it is.

    Args:
        examination: Takes the findings.
        bundle: Opened.
        keys: The owner's key as the verifier knows it, if it does.
        shown: Told how far it is.

    Raises:
        Ended: Something contradicts, is absent or is not known.
    """
    _signed_by_pinned(examination, bundle, keys)
    with examination.checking(Check.LOG):
        entries = bundle.all_entries()
        tree = bundle.check_log(entries)
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
        contents = read_contents(bundle.files, manifest, log.programs())
        check_given(bundle.files, contents)
    examination.contents = contents
    _structure(examination, contents)
    _states(examination, bundle, log, contents, shown)
    with examination.checking(Check.LOSSES, "every segment's losses have their digest"):
        examination.curve = LossCurve(sum(segment.steps for segment in log.segments))
        check_losses(bundle.files, log, examination.curve)
    with examination.checking(Check.DATA):
        reader = SampleReader(bundle.files, manifest.data, contents.schema)
        reader.check_all(
            lambda done: shown("hashing samples", done, manifest.data.samples * contents.schema.size_bytes)
        )
    examination.bytes_hashed += reader.bytes_hashed
    examination.data_checked = True
    examination.found(Check.DATA, Result.HELD, f"{manifest.data.samples} samples open against the data root")
    return log, contents, tree


def _signed_by_pinned(examination: Examination, bundle: Bundle, keys: Sequence[VerificationKey]) -> None:
    """Refuses a checkpoint that no pinned key signed, before anything that it says is looked for.

    Otherwise one that was altered would ask for files that are not there, and nothing were decided.
    """
    with examination.checking(Check.PINNED_KEY):
        if keys and not any(bundle.note.verified_by(key) for key in keys):
            raise CorruptBlob("the checkpoint is not signed by a key that was pinned", where=CHECKPOINT)


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
        sealed, planned = len(log.segments), log.manifest.plan.segments
        which = f"{sealed} of {planned} segments are sealed, the last is segment {sealed - 1}"
        said = which if sealed else "no segment is sealed"
        examination.found(
            Check.ENTRIES,
            Result.UNDECIDED,
            f"the run is not closed: {said}",
            where=f"entry {log.size}",
        )


def _structure(examination: Examination, contents: Contents) -> None:
    for own in contents.each:
        _same_structure(examination, own)


def _same_structure(examination: Examination, contents: Contents) -> None:
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
    classical = examination.policy.classical
    ranked_by = classical.limits.ranked_by if classical else Distance.L2
    lengths = Lengths(bundle.files, contents.program.layout, distance=ranked_by)
    examination.lengths = lengths
    checker = StateChecker(
        bundle.files,
        log.manifest,
        contents.program,
        lambda done: shown("hashing states", done, total),
        lengths,
    )
    for number, seal in enumerate(log.seals):
        with examination.checking(Check.STATES), naming(f"state {_state_name(number)}"):
            examination.parameter_digests.append(checker.check(seal))
    if log.seals:
        with examination.checking(Check.STATES):
            examination.state_zero, examination.last_state = (
                check_opening(bundle.files, log.manifest, log.seals[i], len(contents.program.layout))
                for i in (0, -1)
            )
            examination.distance = lengths.between(examination.state_zero, examination.last_state)
    examination.bytes_hashed += checker.bytes_hashed
    examination.found(
        Check.STATES, Result.HELD, f"{len(log.seals)} states have their tensors' digests and seals"
    )


def _state_name(number: int) -> str:
    return "zero" if number == 0 else f"after segment {number - 1}"


def check_released(
    examination: Examination, files: Files, log: Log, contents: Contents, weights: str | Path | None
) -> None:
    """Step 2, last: the released weights, and those that the verifier holds, are the last state's.

    Raises:
        Ended: They are not, or cannot be read.
        MalformedBundle: The verifier's own file is no safetensors file.
        StoreError: It cannot be read.
    """
    if log.close is None:
        if weights is not None:
            _not_compared(examination, "the run is not closed", weights)
        return
    with examination.checking(Check.WEIGHTS, "the released weights are the last state's"):
        check_weights(files, log.close, contents, examination.last_state)
    _unreleased(examination, contents)
    if weights is not None:
        # Outside of the check: one that cannot be read says nothing of the record.
        tensors = read_own_weights(weights, _MAX_WEIGHTS_BYTES)
        some, _ = released_parameters(contents)
        held = "the weights that were handed in are the last state's" if some else ""
        with examination.checking(Check.WEIGHTS, held):
            compare_weights(tensors, contents, examination.last_state, where=str(weights))
        if not some:
            _not_compared(examination, "the run releases no parameter", weights)
    examination.weights_checked = True


def _not_compared(examination: Examination, why: str, weights: str | Path) -> None:
    examination.found(Check.WEIGHTS, Result.UNDECIDED, f"not compared: {why}", where=str(weights))


def _unreleased(examination: Examination, contents: Contents) -> None:
    """Notes parameters that the release map leaves out: a map of nothing would be true of any weights."""
    released = set(contents.release.tensors.values())
    parameters = [s.name for s in contents.program.layout if s.name.startswith("parameters/")]
    missing = [name for name in parameters if name not in released]
    if missing:
        examination.found(
            Check.WEIGHTS,
            Result.NOTED,
            f"{len(missing)} of {len(parameters)} parameters are not released, {missing[0]} first",
            where="release map",
        )
