"""Going on with a recording that was interrupted, from the last state that was sealed.

The bundle's log is read as strictly as a verifier would, since it is the owner's key that signs what follows:
signature, tree, manifest. Whoever resumes must make the same manifest again, from the same script; seeds,
order and randomness follow from it and the number of the step, so nothing else has to be kept.

Before more is signed, what the manifest names is compared with what was made again (`BlobWriter`), and all
else that the log names is hashed, but for the tensors of states before the last: they are most of a large
bundle, and only a verifier reads them all. State zero's given ones are hashed, as the manifest names them.
Format: docs/spec/bundle.md, section 8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from gradseal.errors import CorruptBlob, MissingFile, RecordError, naming
from gradseal.precede.log import Log, read_log
from gradseal.program.memory import from_bytes
from gradseal.program.program import MAX_PROGRAM_BYTES, Program
from gradseal.program.seeds import Seeds
from gradseal.program.sources import MAX_BYTES as MAX_INITIALISATION_BYTES
from gradseal.program.sources import Given, Initialisation
from gradseal.program.tensors import TensorSpec
from gradseal.proof.bundle import open_bundle
from gradseal.proof.canonical import Json, decode
from gradseal.proof.checkpoint import Checkpoint
from gradseal.proof.entries import (
    MAX_LOSSES_BYTES,
    Amendment,
    seal_of,
    state_root,
)
from gradseal.proof.files import CHECKPOINT, Files, check_blob, opening_path, read_blob, read_opening
from gradseal.proof.manifest import Manifest
from gradseal.proof.note import MAX_NOTE_BYTES, Note, VerificationKey
from gradseal.proof.tiles import MAX_ENTRY_BYTES, Tile, entries_path
from gradseal.store.files import FsspecFiles

# What a recording writes before its first checkpoint: the manifest alone, or with state zero.
_FIRST_TILES = tuple(
    path for width in (1, 2) for path in (entries_path(0, width), Tile(level=0, index=0, width=width).path)
)
_FIRST_BLOBS = re.compile(r"blobs/([0-9a-f]{2})/\1[0-9a-f]{62}|openings/[0-9a-f]{64}")
_STAGED = re.compile(r"(.*/)?\.([^/]+)\.[0-9a-f]+")
_BEHIND = {
    "program": "what follows from model, loss, optimizer, clipping and schedule ",
    "initialisation": "what follows from how the model is built ",
    "data": "what follows from the data set ",
    "release": "what follows from the names in the model's state dict ",
}
_ADVICE = "resume with the script, data, settings and packages that began the recording, or record anew"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """What is there of a run.

    Args:
        manifest: Entry 0.
        checkpoint: What was published last.
        note: The same, signed.
        entries: Every raw entry that it covers.
        log: The same, typed.
    """

    manifest: Manifest
    checkpoint: Checkpoint
    note: Note
    entries: tuple[bytes, ...]
    log: Log

    @property
    def closed(self) -> bool:
        """Whether the run is complete."""
        return self.log.close is not None

    @property
    def segments(self) -> int:
        """How many segments are sealed."""
        return len(self.log.segments)

    def seeds(self) -> Seeds:
        """The seeds of its segments, and of what follows until another slot begins."""
        seeds = self.log.seeds()
        if seeds is None:  # a log with a state zero has one
            raise RecordError("has no slot", where=CHECKPOINT)
        return seeds

    def initialisation(self, files: Files) -> Initialisation:
        """Where the run's state zero came from."""
        program = Program.decode(
            read_blob(files, self.manifest.program, MAX_PROGRAM_BYTES), where="program of the bundle"
        )
        return Initialisation.decode(
            read_blob(files, self.manifest.initialisation, MAX_INITIALISATION_BYTES),
            program.layout,
            program.constants,
            where="initialisation of the bundle",
        )

    def amended(self, files: Files) -> Iterator[tuple[Amendment, Program]]:
        """The log's amendments, each with its program."""
        for number, placed in enumerate(self.log.amendments):
            where = f"amended program {number} of the bundle"
            data = read_blob(files, placed.entry.program, MAX_PROGRAM_BYTES)
            yield placed.entry, Program.decode(data, where=where)

    def check_same(self, manifest: Manifest) -> None:
        """Refuses to go on with another run than this.

        Raises:
            RecordError: The manifest differs; names the first field that does, with both values.
        """
        if manifest.encode() == self.entries[0]:
            return
        where, was, now = _first_difference(_parsed(self.entries[0]), _parsed(manifest.encode()), "")
        what = _BEHIND.get(where.partition(".")[0], "")
        raise RecordError(
            f"{what}is {now} now and was {was} when the recording began, so this is another run",
            where=where,
            advice=_ADVICE,
        )

    def state(
        self, files: Files, layout: tuple[TensorSpec, ...], device: torch.device
    ) -> dict[str, torch.Tensor]:
        """The last sealed state, each tensor hashed as it is read.

        Raises:
            CorruptBlob, MissingFile, MalformedBundle: A part of it is altered or not there.
        """
        digests = self._opening(files, self.log.seals[-1], len(layout))
        return {
            spec.name: from_bytes(
                read_blob(files, digest, spec.size_bytes), spec.dtype, spec.shape, device, where=spec.name
            )
            for spec, digest in zip(layout, digests, strict=True)
        }

    def check_kept(self, files: Files, layout: tuple[TensorSpec, ...], given: Initialisation) -> None:
        """Hashes what is not made again: all openings and losses, and the given tensors of state zero.

        Raises:
            CorruptBlob, MissingFile, MalformedBundle: One is altered or not there.
        """
        for spec, source in zip(layout, given.state, strict=True):
            if isinstance(source, Given):
                with naming(f"state zero: {spec.name}"):
                    check_blob(files, source.digest, spec.size_bytes)
        for segment in self.log.segments:
            with naming(f"losses of segment {segment.index}"):
                check_blob(files, segment.losses, MAX_LOSSES_BYTES)
        for seal in dict.fromkeys(self.log.seals):
            self._opening(files, seal, len(layout))

    def _opening(self, files: Files, seal: bytes, tensors: int) -> tuple[bytes, ...]:
        digests = read_opening(files, seal, tensors)
        if seal_of(self.manifest.owner, state_root(digests)) != seal:
            raise CorruptBlob("its digests are not what the log's seal stands for", where=opening_path(seal))
        return digests


def find_interrupted(files: FsspecFiles, owner: VerificationKey) -> Interrupted | None:
    """What is there of the run to resume; None if nothing was published yet.

    Raises:
        RecordError: The log is another owner's, or has no state zero; or there is no log, and files that no
            recording leaves which got no further.
        StoreError: The storage could not say whether there is a log.
        CorruptBlob, MissingFile, MalformedBundle, UnknownKind: The log is not whole.
    """
    try:
        files.read(CHECKPOINT, MAX_NOTE_BYTES)
    except MissingFile:
        _check_unpublished(files)
        return None
    bundle = open_bundle(files)
    if not bundle.note.verified_by(owner):
        raise RecordError("is not signed by the key that was given to record", where=CHECKPOINT)
    entries = bundle.all_entries()
    bundle.check_log(entries)
    manifest = Manifest.decode(entries[0])
    if manifest.owner != owner or bundle.checkpoint.origin != manifest.origin:
        raise RecordError("is not the log of this owner and manifest", where=CHECKPOINT)
    log = read_log(manifest, entries)
    if not log.seals:
        # What was given may differ in each process, so state zero cannot be sealed by another.
        raise RecordError(
            "has no sealed state, and its state zero cannot be made again",
            where=CHECKPOINT,
            advice="record anew",
        )
    return Interrupted(
        manifest=manifest,
        checkpoint=bundle.checkpoint,
        note=bundle.note,
        entries=tuple(entries),
        log=log,
    )


def _check_unpublished(files: FsspecFiles) -> None:
    """Refuses to begin among files that are not from a recording before its first checkpoint.

    Such as a mistyped path, or a bundle whose checkpoint was lost: its log would be written over.
    """
    for path in files.paths():
        staged = _STAGED.fullmatch(path)
        meant = (staged[1] or "") + staged[2] if staged else path
        first = meant in _FIRST_TILES or _FIRST_BLOBS.fullmatch(meant)
        if not (first or (staged and meant == CHECKPOINT)):
            held = f"has no checkpoint, but has {path}" if path else "is not a directory"
            raise RecordError(
                f"{held}, so it is no recording that can be resumed or begun",
                where=files.root,
                advice="name the bundle to resume, or a directory that does not exist or is empty",
            )


def _parsed(data: bytes) -> Json:
    return decode(data, where="manifest", max_bytes=MAX_ENTRY_BYTES)


def _first_difference(was: Json, now: Json, where: str) -> tuple[str, str, str]:
    """The dotted name of the first field in which two manifests differ, and both values."""
    if isinstance(was, dict) and isinstance(now, dict):
        # What the owner chose comes before digests of what follows from it.
        for name in sorted(
            {**was, **now}, key=lambda n: (n not in ("plan", "arithmetic", "data", "kind"), n)
        ):
            if was.get(name) != now.get(name):
                below = f"{where}.{name}" if where else name
                return _first_difference(was.get(name), now.get(name), below)
    return where or "manifest", repr(was), repr(now)
