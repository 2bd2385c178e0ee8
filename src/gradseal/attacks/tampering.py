"""Tampered copies of a bundle: what a stranger, a thief, or the owner himself may change afterwards.

A stranger changes bytes. A thief signs a stranger's log with a key of his own. An owner can sign anything
again, so that every digest fits: then only replay sees it. Each tampering writes a copy and says what it did;
whether it passes is for the verifier to say.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from gradseal.precede.log import read_log
from gradseal.program.fills import fill
from gradseal.program.program import MAX_PROGRAM_BYTES, Program
from gradseal.program.sources import MAX_BYTES as MAX_INITIALISATION_BYTES
from gradseal.program.sources import Given, Initialisation
from gradseal.proof.anchors import INDEX
from gradseal.proof.bundle import Bundle, open_bundle
from gradseal.proof.entries import Entry, Initial, Segment, entry_from_bytes
from gradseal.proof.files import CHECKPOINT, WEIGHTS, Files, blob_path, read_blob, read_opening
from gradseal.proof.manifest import Manifest
from gradseal.proof.note import Signer, SigningKey, sign_note
from gradseal.proof.tiles import encode_entries, entries_path
from gradseal.proof.writer import BlobWriter, BundleWriter
from gradseal.store.files import FsspecFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A copy of a bundle, open for tampering; it must have fewer than 256 entries.

    Args:
        files: The copy.
        bundle: Its checkpoint.
        entries: Its raw entries.
        manifest: Entry 0.
        owner: The owner's key, for what only he can do.
    """

    files: Files
    bundle: Bundle
    entries: list[bytes]
    manifest: Manifest
    owner: Signer

    def typed(self) -> list[Entry]:
        """The entries after the manifest."""
        return [entry_from_bytes(e, where=f"entry {i}") for i, e in enumerate(self.entries[1:], start=1)]

    def segment(self, index: int) -> Segment:
        """A segment by number."""
        return next(e for e in self.typed() if isinstance(e, Segment) and e.index == index)

    @property
    def middle(self) -> int:
        """The number of a segment in the middle of the run."""
        return self.manifest.plan.segments // 2

    def program(self) -> Program:
        """The run's program."""
        return Program.decode(
            read_blob(self.files, self.manifest.program, MAX_PROGRAM_BYTES), where="program"
        )

    def state(self, seal: bytes) -> dict[str, bytes]:
        """The digests of a state's tensors by name."""
        program = self.program()
        digests = read_opening(self.files, seal, len(program.layout))
        return {s.name: d for s, d in zip(program.layout, digests, strict=True)}


def copy_bundle(source: Path, target: Path, owner: Signer) -> Opened:
    """Copies a bundle, sharing the files on disk until one is replaced, and opens the copy."""
    shutil.copytree(source, target, copy_function=os.link)
    files = FsspecFiles(str(target))
    bundle = open_bundle(files)
    entries = bundle.all_entries()
    return Opened(
        files=files, bundle=bundle, entries=entries, manifest=Manifest.decode(entries[0]), owner=owner
    )


def flip_bit(files: Files, path: str, at: int) -> None:
    """Flips the lowest bit of one byte of a file."""
    data = bytearray(files.read(path, 1 << 40))
    data[at % len(data)] ^= 1
    files.write(path, bytes(data))


def alter_state(copy: Opened) -> str:
    """One bit of one weight in a sealed state."""
    name, digest = _first_parameter(copy, copy.segment(copy.middle).seal)
    flip_bit(copy.files, blob_path(digest), at=0)
    return f"flips a bit of {name} in the state after segment {copy.middle}"


def alter_sample(copy: Opened) -> str:
    """One bit of one training sample."""
    shards = read_blob(copy.files, copy.manifest.data.shards, 1 << 30)
    flip_bit(copy.files, blob_path(shards[:32]), at=100)
    return "flips a bit of a training sample"


def alter_entry(copy: Opened) -> str:
    """A segment's losses replaced by another segment's, in the log."""
    altered = replace(copy.segment(copy.middle), losses=copy.segment(0).losses)
    index = copy.entries.index(copy.segment(copy.middle).encode())
    copy.entries[index] = altered.encode()
    _write_entries(copy)
    return f"gives segment {copy.middle} the losses of segment 0, in entry {index}"


def swap_entries(copy: Opened) -> str:
    """Two neighbouring segments exchanged in the log."""
    index = copy.entries.index(copy.segment(copy.middle).encode())
    copy.entries[index], copy.entries[index + 1] = copy.entries[index + 1], copy.entries[index]
    _write_entries(copy)
    return f"exchanges entries {index} and {index + 1}"


def alter_weights(copy: Opened) -> str:
    """One bit of the released weights."""
    flip_bit(copy.files, WEIGHTS, at=-1)
    return "flips a bit of the released weights"


def sign_anew(copy: Opened) -> str:
    """A thief signs the owner's checkpoint with his own key."""
    thief = SigningKey.generate("thief.example")
    copy.files.write(CHECKPOINT, sign_note(copy.bundle.note.text, [thief]))
    return "signs the owner's log with another key"


def claim_as_own(copy: Opened) -> str:
    """A thief writes the whole log again as his own, every digest fitting."""
    thief = SigningKey.generate("thief.example")
    manifest = replace(copy.manifest, owner=thief.verification_key)
    _write_again(copy, thief, manifest, {})
    return "writes and signs the whole log again under another key, as its owner"


def forge_state(copy: Opened) -> str:
    """The owner nudges a weight in mid-run and seals everything again, every digest fitting."""
    seal = copy.segment(copy.middle).seal
    name, digest = _first_parameter(copy, seal)
    weight = bytearray(read_blob(copy.files, digest, 1 << 40))
    weight[0] ^= 1
    nudged = BlobWriter(copy.files).put(bytes(weight))
    _write_again(copy, copy.owner, copy.manifest, {seal: {name: nudged}})
    return (
        f"nudges {name} by one bit after segment {copy.middle} and signs it all again, with the owner's key"
    )


def choose_order(copy: Opened) -> str:
    """The owner gives out another order, makes the state zero that follows, and seals everything again."""
    manifest = replace(copy.manifest, plan=replace(copy.manifest.plan, order="sequential-v1"))
    first = next(entry.seal for entry in copy.typed() if isinstance(entry, Initial))
    _write_again(copy, copy.owner, manifest, {first: _state_zero(copy, manifest)})
    return "gives out the samples' order as another one and signs it all again, with the owner's key"


Tampering = Callable[[Opened], str]

TAMPERINGS: dict[str, Tampering] = {
    "a state": alter_state,
    "a sample": alter_sample,
    "an entry": alter_entry,
    "the entries' order": swap_entries,
    "the released weights": alter_weights,
    "the signature": sign_anew,
    "the owner": claim_as_own,
    "a state, resealed": forge_state,
    "the samples' order, resealed": choose_order,
}
"""Every tampering by what it touches."""


def _first_parameter(copy: Opened, seal: bytes) -> tuple[str, bytes]:
    return next((n, d) for n, d in copy.state(seal).items() if n.startswith("parameters/"))


def _write_entries(copy: Opened) -> None:
    copy.files.write(entries_path(0, len(copy.entries)), encode_entries(copy.entries))


def _write_again(
    copy: Opened, signer: Signer, manifest: Manifest, changed: dict[bytes, dict[str, bytes]]
) -> None:
    """Writes the log again under `manifest`, with other tensors in the states that `changed` names."""
    writer = BundleWriter(BlobWriter(copy.files), signer, manifest)
    for entry in copy.typed():
        match entry:
            case Initial() | Segment():
                writer.append(replace(entry, seal=_seal_again(copy, writer, entry.seal, changed)))
            case _:
                writer.append(entry)
    writer.publish()
    # What anchored the log before contradicts it now.
    copy.files.delete(INDEX)


def _seal_again(
    copy: Opened, writer: BundleWriter, seal: bytes, changed: dict[bytes, dict[str, bytes]]
) -> bytes:
    return writer.seal(list({**copy.state(seal), **changed.get(seal, {})}.values()))


def _state_zero(copy: Opened, manifest: Manifest) -> dict[str, bytes]:
    """The digests of the tensors that rules give with this manifest's seed, and stores them."""
    program = copy.program()
    data = read_blob(copy.files, manifest.initialisation, MAX_INITIALISATION_BYTES)
    sources = Initialisation.decode(data, program.layout, program.constants, where="initialisation").state
    seeds, blobs = read_log(manifest, [manifest.encode(), *copy.entries[1:]]).seeds(), BlobWriter(copy.files)
    if seeds is None:
        return {}
    return {
        spec.name: blobs.put(
            fill(source, seed=seeds.initial, name=spec.name, shape=spec.shape, dtype=spec.dtype)
        )
        for spec, source in zip(program.layout, sources, strict=True)
        if not isinstance(source, Given)
    }
