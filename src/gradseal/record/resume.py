"""Going on with a recording that was interrupted, from the last state that was sealed.

The bundle's log is read as strictly as a verifier would, since it is the owner's key that signs what follows:
signature, tree, manifest. Whoever resumes must make the same manifest again, from the same script; seeds,
order and randomness follow from it and the number of the step, so nothing else has to be kept.
Format: docs/spec/bundle.md, section 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gradseal.errors import CorruptBlob, RecordError
from gradseal.program.memory import from_bytes
from gradseal.program.program import MAX_PROGRAM_BYTES, Program
from gradseal.program.sources import MAX_BYTES as MAX_INITIALISATION_BYTES
from gradseal.program.sources import Initialisation
from gradseal.program.tensors import TensorSpec
from gradseal.proof.bundle import open_bundle
from gradseal.proof.canonical import Json, decode
from gradseal.proof.checkpoint import Checkpoint
from gradseal.proof.entries import Close, Initial, Segment, entry_from_bytes, seal_of, state_root
from gradseal.proof.files import CHECKPOINT, Files, opening_path, read_blob, read_opening
from gradseal.proof.manifest import Manifest
from gradseal.proof.note import VerificationKey
from gradseal.proof.tiles import MAX_ENTRY_BYTES

_ADVICE = "resume with the script, data, settings and packages that began the recording, or record anew"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """What is there of a run.

    Args:
        manifest: Entry 0.
        checkpoint: What was published last.
        entries: Every raw entry that it covers.
        seal: The seal of the last state; empty if not even state zero was sealed.
        segments: How many segments are sealed.
        closed: Whether the run is complete.
    """

    manifest: Manifest
    checkpoint: Checkpoint
    entries: tuple[bytes, ...]
    seal: bytes
    segments: int
    closed: bool

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

    def check_same(self, manifest: Manifest) -> None:
        """Refuses to go on with another run than this.

        Raises:
            RecordError: The manifest differs; names the first field that does, with both values.
        """
        if manifest.encode() == self.entries[0]:
            return
        where, was, now = _first_difference(_parsed(self.entries[0]), _parsed(manifest.encode()), "")
        raise RecordError(
            f"is {now} now and was {was} when the recording began, so this is another run",
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
        digests = read_opening(files, self.seal, len(layout))
        if seal_of(self.manifest.owner, state_root(digests)) != self.seal:
            where = opening_path(self.seal)
            raise CorruptBlob("its digests are not what the log's seal stands for", where=where)
        return {
            spec.name: from_bytes(
                read_blob(files, digest, spec.size_bytes), spec.dtype, spec.shape, device, where=spec.name
            )
            for spec, digest in zip(layout, digests, strict=True)
        }


def find_interrupted(files: Files, owner: VerificationKey) -> Interrupted | None:
    """What is there of the run to resume; None if nothing was published yet.

    Raises:
        RecordError: The log is another owner's.
        CorruptBlob, MissingFile, MalformedBundle, UnknownKind: The log is not whole.
    """
    if not files.exists(CHECKPOINT):
        return None
    bundle = open_bundle(files)
    if not bundle.note.verified_by(owner):
        raise RecordError("is not signed by the key that was given to record", where=CHECKPOINT)
    entries = bundle.all_entries()
    bundle.check_log(entries)
    manifest = Manifest.decode(entries[0])
    if manifest.owner != owner or bundle.checkpoint.origin != manifest.origin:
        raise RecordError("is not the log of this owner and manifest", where=CHECKPOINT)
    seal, segments, closed = b"", 0, False
    for index, data in enumerate(entries[1:], start=1):
        match entry_from_bytes(data, where=f"entry {index}"):
            case Initial(seal=sealed):
                seal = sealed
            case Segment(seal=sealed):
                seal, segments = sealed, segments + 1
            case Close():
                closed = True
    return Interrupted(
        manifest=manifest,
        checkpoint=bundle.checkpoint,
        entries=tuple(entries),
        seal=seal,
        segments=segments,
        closed=closed,
    )


def _parsed(data: bytes) -> Json:
    return decode(data, where="manifest", max_bytes=MAX_ENTRY_BYTES)


def _first_difference(was: Json, now: Json, where: str) -> tuple[str, str, str]:
    """The dotted name of the first field in which two manifests differ, and both values."""
    if isinstance(was, dict) and isinstance(now, dict):
        # What the owner chose comes before digests of what follows from it.
        for name in sorted({**was, **now}, key=lambda n: (n not in ("plan", "arithmetic", "data"), n)):
            if was.get(name) != now.get(name):
                below = f"{where}.{name}" if where else name
                return _first_difference(was.get(name), now.get(name), below)
    return where or "manifest", repr(was), repr(now)
