"""The anchors of a bundle: each the owner's and of this very log, and what it shows of time.

An anchor that contradicts the log is corrupt. One that merely shows no time, such as that of an authority
which the verifier did not pin, is told why. Format: docs/spec/bundle.md, section 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from gradseal.errors import CorruptBlob
from gradseal.precede.bounds import Bound, bound_of
from gradseal.precede.log import Log
from gradseal.precede.trust import Trust
from gradseal.proof.anchors import Anchored, read_index, read_receipt, read_token, receipt_path
from gradseal.proof.files import Files
from gradseal.proof.merkle import Tree, verify_inclusion
from gradseal.proof.note import VerificationKey
from gradseal.proof.receipt import Receipt
from gradseal.verify.examination import Examination
from gradseal.verify.verdict import Check, Result
from gradseal.verify.windows import AnchorRow

_MAX_FAULTS = 20
_MAX_VERIFICATIONS = 20_000
"""How many times a time-stamp is held against an authority: some minutes."""


def check_anchors(
    examination: Examination, files: Files, log: Log, tree: Tree, *, trust: Trust, now: datetime | None
) -> tuple[AnchorRow, ...]:
    """Every anchored checkpoint, and by when it existed.

    Args:
        examination: Takes the findings.
        files: The bundle.
        log: Its entries.
        tree: Its tree.
        trust: The verifier's pins.
        now: The verifier's clock; None if it has none that it trusts.

    Raises:
        Ended: An anchor contradicts the log, or is absent or not known.
    """
    rows = []
    origin = log.manifest.origin  # hashes the manifest each time
    with examination.checking(Check.ANCHORS):
        index = read_index(files)
        for one in _affordable(examination, index, len(trust.authorities)):
            if one.size > tree.size and log.close is None:
                # A run that is being recorded may have grown since its checkpoint was read.
                said = "of more entries than the checkpoint has: the log grew meanwhile, or was cut short"
                examination.found(Check.ANCHORS, Result.NOTED, said, where=receipt_path(one.size))
                break
            receipt = _receipt(files, log.manifest.owner, origin, tree, one)
            tokens = [read_token(files, one.size, number) for number in range(one.timestamps)]
            shown = bound_of(receipt.note, tokens, trust, now=now)
            _tell(examination, one, shown)
            rows.append(AnchorRow(size=one.size, not_after=shown.not_after, by=shown.by))
    return tuple(rows)


def _affordable(examination: Examination, index: Sequence[Anchored], authorities: int) -> list[Anchored]:
    """The anchors with so many time-stamps as a verifier can look at in some minutes."""
    left = most = _MAX_VERIFICATIONS // max(1, authorities)
    found: list[Anchored] = []
    for one in index:
        found.append(replace(one, timestamps=min(one.timestamps, left)))
        left -= found[-1].timestamps
    if not left:
        examination.found(Check.ANCHORS, Result.NOTED, f"of its time-stamps only {most} are looked at")
    return found


def _receipt(files: Files, owner: VerificationKey, origin: str, tree: Tree, one: Anchored) -> Receipt:
    """The receipt of an anchored checkpoint, once it is the owner's and of this log.

    Raises:
        CorruptBlob: It is not; or it covers more than the log has.
    """
    receipt, where = read_receipt(files, one.size), receipt_path(one.size)
    checkpoint = receipt.checkpoint
    if checkpoint.origin != origin:
        raise CorruptBlob("an anchor of another log", where=where)
    if not receipt.note.verified_by(owner):
        raise CorruptBlob("an anchored checkpoint that the owner did not sign", where=where)
    if checkpoint.size > tree.size:
        raise CorruptBlob(
            f"the log was anchored with {checkpoint.size} entries, and has {tree.size}: it was cut short",
            where=where,
        )
    if (checkpoint.size, receipt.index) != (one.size, one.size - 1):
        raise CorruptBlob("an anchor of another size than its name says", where=where)
    if checkpoint.root != tree.root(one.size):
        raise CorruptBlob(
            f"the owner signed another log of {one.size} entries: it was forked, or altered since",
            where=where,
        )
    if not verify_inclusion(
        leaf=tree.leaf(receipt.index),
        index=receipt.index,
        size=one.size,
        proof=receipt.proof,
        root=checkpoint.root,
    ):
        raise CorruptBlob("its proof does not lead to the checkpoint's root", where=where)
    return receipt


def _tell(examination: Examination, one: Anchored, shown: Bound) -> None:
    """Why some of an anchor's evidence does not count, as long as there is room."""
    noted = sum(f.check is Check.ANCHORS and f.result is Result.NOTED for f in examination.findings)
    for fault in shown.faults[: max(0, _MAX_FAULTS - noted)]:
        examination.found(Check.ANCHORS, Result.NOTED, fault, where=f"anchor of size {one.size}")
