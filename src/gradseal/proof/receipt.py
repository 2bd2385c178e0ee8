"""Receipts: one small file from which anyone sees offline that an entry is in a cosigned log.

Follows C2SP tlog-proof. Guarantees that what parses is written back byte for byte. A receipt carries no
trust: whose signatures count is the policy's to say (`quorum`), and nothing authenticates `extra`.
Format: docs/spec/witness.md, section 5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from gradseal.errors import MalformedBundle
from gradseal.proof.checkpoint import MAX_SIZE, Checkpoint
from gradseal.proof.merkle import verify_inclusion
from gradseal.proof.note import MAX_NOTE_BYTES, Note, VerificationKey, decode_base64, encode_base64, open_note
from gradseal.proof.quorum import QuorumPolicy
from gradseal.proof.submission import MAX_PROOF_HASHES, parse_hashes

HEADER = b"c2sp.org/tlog-proof@v1"
"""The first line."""

MAX_EXTRA_BYTES = 16 * 1024
"""The most extra data in a receipt."""

MAX_RECEIPT_BYTES = MAX_NOTE_BYTES + 2 * MAX_EXTRA_BYTES + 4096
"""The largest receipt that is read."""

_INDEX = re.compile(rb"index (0|[1-9][0-9]{0,18})")
_EXTRA = b"extra "


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Where an entry is in a log, and the log's signed checkpoint.

    Args:
        index: The entry's index.
        proof: The hashes of `Tree.inclusion_proof`.
        note: The signed checkpoint, with any cosignatures.
        checkpoint: What the note's text says.
        extra: Anything; empty for none. Nothing vouches for it.
    """

    index: int
    proof: tuple[bytes, ...]
    note: Note
    checkpoint: Checkpoint
    extra: bytes = b""

    def encode(self) -> bytes:
        """The bytes of the receipt.

        Raises:
            MalformedBundle: A part that no receipt may have.
        """
        extra = f"extra {encode_base64(self.extra)}\n" if self.extra else ""
        hashes = "".join(f"{encode_base64(node)}\n" for node in self.proof)
        head = f"{extra}index {self.index}\n{hashes}\n"
        data = HEADER + b"\n" + head.encode() + self.note.encode()
        if parse_receipt(data, where="receipt") != self:
            _refuse("a receipt that would not be read back as it is", "receipt")
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptCheck:
    """What a receipt shows under a policy.

    Args:
        included: Whether the entry is where the receipt says, in the tree of its checkpoint.
        signer: The log's key, one of the policy's; None if none signed the checkpoint.
        times: When each of the policy's witnesses cosigned it, by name.
        quorum: Whether these are enough.
        not_after: The earliest time by which a quorum had cosigned; None if it is not reached or is `none`.
    """

    included: bool
    signer: VerificationKey | None
    times: Mapping[str, int]
    quorum: bool
    not_after: int | None

    @property
    def holds(self) -> bool:
        """Whether the entry is in a log that the policy believes."""
        return self.included and self.signer is not None and self.quorum


def parse_receipt(data: bytes, *, where: str) -> Receipt:
    """Parse a receipt strictly. Verifies nothing.

    Args:
        data: The bytes.
        where: The file they come from, for error messages.

    Raises:
        MalformedBundle: Any bytes but those that `Receipt.encode` gives.
    """
    if len(data) > MAX_RECEIPT_BYTES:
        _refuse(f"a receipt of {len(data)} bytes, more than the {MAX_RECEIPT_BYTES} allowed", where)
    # The head has no empty line, so the first one ends it, and the note may have more of them.
    head, blank, note_bytes = data.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    if not blank or first != HEADER or not lines:
        _refuse("not a receipt of the kind c2sp.org/tlog-proof@v1", where)
    extra = _parse_extra(lines.pop(0), where) if lines[0].startswith(_EXTRA) else b""
    match = _INDEX.fullmatch(lines[0]) if lines else None
    if not match or int(match[1]) > MAX_SIZE:
        _refuse("a receipt without index and a plain decimal number", where)
    if len(lines) - 1 > MAX_PROOF_HASHES:
        _refuse(f"a proof of {len(lines) - 1} hashes, more than the {MAX_PROOF_HASHES} allowed", where)
    note = open_note(note_bytes, where=where)
    return Receipt(
        index=int(match[1]),
        proof=parse_hashes(lines[1:], where),
        note=note,
        checkpoint=Checkpoint.parse(note.text, where=where),
        extra=extra,
    )


def check_receipt(receipt: Receipt, leaf: bytes, policy: QuorumPolicy) -> ReceiptCheck:
    """What a receipt shows of an entry, under the verifier's own policy.

    Args:
        receipt: The receipt.
        leaf: The leaf hash of the entry, which the verifier computed itself.
        policy: The verifier's.
    """
    checkpoint = receipt.checkpoint
    times = policy.times(receipt.note)
    return ReceiptCheck(
        included=verify_inclusion(
            leaf=leaf, index=receipt.index, size=checkpoint.size, proof=receipt.proof, root=checkpoint.root
        ),
        signer=policy.signer(receipt.note, checkpoint.origin),
        times=times,
        quorum=policy.satisfied(times),
        not_after=policy.not_after(times),
    )


def _parse_extra(line: bytes, where: str) -> bytes:
    extra = decode_base64(line[len(_EXTRA) :].decode("ascii", "replace"), where=f"{where}: extra")
    if not 0 < len(extra) <= MAX_EXTRA_BYTES:
        _refuse(f"extra data of {len(extra)} bytes, not 1 to {MAX_EXTRA_BYTES}", where)
    return extra


def _refuse(message: str, where: str) -> NoReturn:
    raise MalformedBundle(message, where=where)
