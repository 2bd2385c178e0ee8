"""How large a bundle is, against the raw bytes of the states that it holds."""

from __future__ import annotations

from pathlib import Path

from benchmarks.figure import Figure

from gradseal.program.program import MAX_PROGRAM_BYTES, Program
from gradseal.proof.bundle import open_bundle
from gradseal.proof.entries import Initial, Segment, entry_from_bytes
from gradseal.proof.files import blob_path, opening_path, read_blob, read_opening
from gradseal.proof.manifest import Manifest
from gradseal.store.files import FsspecFiles


def measure(bundle: Path) -> list[Figure]:
    """The states' share and the whole, against the states' tensors."""
    files = FsspecFiles(str(bundle))
    first, *others = open_bundle(files).all_entries()
    manifest = Manifest.decode(first)
    program = Program.decode(read_blob(files, manifest.program, MAX_PROGRAM_BYTES), where="program")
    entries = [entry_from_bytes(data, where="entry") for data in others]
    seals = [entry.seal for entry in entries if isinstance(entry, Initial | Segment)]
    # A tensor that did not change is stored once.
    paths = {blob_path(d) for seal in seals for d in read_opening(files, seal, len(program.layout))}
    paths |= {opening_path(seal) for seal in seals}
    raw = len(seals) * sum(spec.size_bytes for spec in program.layout)
    held = sum((bundle / path).stat().st_size for path in paths)
    everything = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    return [
        Figure(name=f"raw bytes of {len(seals)} states", value=raw, unit="bytes"),
        Figure(name="blobs and openings of states / raw bytes", value=held / raw, unit="×", at_most=1.01),
        Figure(name="whole bundle, samples included / raw bytes", value=everything / raw, unit="×"),
        Figure(name="whole bundle", value=everything, unit="bytes"),
    ]
