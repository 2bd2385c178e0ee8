"""Anchoring what is recorded already: a finished run, or one that was interrupted.

Anchors that come later show a later time; a run that was not anchored while it was made has no more than
that. Needs no key: a checkpoint is signed, and whoever holds the bundle may have it anchored.
"""

from __future__ import annotations

from dataclasses import dataclass

from gradseal.errors import RecordError
from gradseal.precede.hosts import TIMEOUT_SECONDS, Hosts
from gradseal.proof.anchors import AnchorStore, receipt_of
from gradseal.proof.bundle import open_bundle
from gradseal.proof.files import CHECKPOINT, Files
from gradseal.proof.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What was added.

    Args:
        size: How many entries are anchored.
        cosignatures: How many witnesses cosigned.
        timestamps: How many authorities stamped.
        faults: Why others gave nothing.
    """

    size: int
    cosignatures: int
    timestamps: int
    faults: tuple[str, ...]


def anchor_bundle(files: Files, hosts: Hosts, *, timeout_seconds: float = TIMEOUT_SECONDS) -> Added:
    """Has a bundle's checkpoint anchored, and stores the anchors in the bundle.

    Args:
        files: The bundle.
        hosts: Whom to ask.
        timeout_seconds: How long they may take in all.

    Raises:
        RecordError: The checkpoint is not signed by the manifest's owner, or not of this log.
        MalformedBundle, CorruptBlob, MissingFile: It is no bundle, or its log is not whole.
        StoreError: The anchors cannot be stored.
    """
    bundle = open_bundle(files)
    entries = bundle.all_entries()
    tree = bundle.check_log(entries)
    manifest = Manifest.decode(entries[0])
    if not bundle.note.verified_by(manifest.owner) or bundle.checkpoint.origin != manifest.origin:
        raise RecordError(
            "is not the log of the manifest's owner, so nobody would anchor it", where=CHECKPOINT
        )
    obtained = hosts.obtain(bundle.note, tree.consistency_proof, timeout_seconds=timeout_seconds)
    cosignatures = len(obtained.note.signatures) - len(bundle.note.signatures)
    if cosignatures or obtained.tokens:
        AnchorStore(files).add(receipt_of(obtained.note, tree), obtained.tokens)
    return Added(
        size=tree.size,
        cosignatures=cosignatures,
        timestamps=len(obtained.tokens),
        faults=obtained.faults,
    )
