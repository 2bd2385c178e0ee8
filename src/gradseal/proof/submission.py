"""What a log sends to a witness: the size it grew from, the proof that it only grew, and its checkpoint.

Follows C2SP tlog-witness, "add-checkpoint"; both ends use this module. Guarantees that what parses is written
back byte for byte. Verifies nothing: neither the signature nor the proof.
Format: docs/spec/witness.md, section 2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from gradseal.errors import MalformedBundle
from gradseal.proof.checkpoint import MAX_SIZE, Checkpoint
from gradseal.proof.merkle import HASH_SIZE
from gradseal.proof.note import MAX_NOTE_BYTES, Note, decode_base64, encode_base64, open_note

MAX_PROOF_HASHES = 63
"""The most hashes in a proof (C2SP tlog-witness)."""

MAX_SUBMISSION_BYTES = MAX_NOTE_BYTES + 4096
"""The largest request body: a note, the proof's hashes and the old size."""

SIZE_TYPE = "text/x.tlog.size"
"""The content type of a conflict's answer."""

_OLD = re.compile(rb"old (0|[1-9][0-9]{0,18})")
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,18})\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A checkpoint as a witness gets it.

    Args:
        old: The size that the log believes the witness cosigned last; 0 if none.
        proof: The hashes of `Tree.consistency_proof` from that size.
        note: The signed checkpoint.
        checkpoint: What the note's text says.
    """

    old: int
    proof: tuple[bytes, ...]
    note: Note
    checkpoint: Checkpoint

    def encode(self) -> bytes:
        """The request's body.

        Raises:
            MalformedBundle: A part that no request may have.
        """
        lines = "".join(f"{encode_base64(node)}\n" for node in self.proof)
        data = f"old {self.old}\n{lines}\n".encode() + self.note.encode()
        if parse_submission(data) != self:
            _refuse("a submission that would not be read back as it is")
        return data


def parse_submission(data: bytes, *, where: str = "submission") -> Submission:
    """Parse a request's body strictly.

    Args:
        data: The body.
        where: Where it comes from, for error messages.

    Raises:
        MalformedBundle: Any body but one that `Submission.encode` gives.
    """
    if len(data) > MAX_SUBMISSION_BYTES:
        _refuse(f"a submission of {len(data)} bytes, more than the {MAX_SUBMISSION_BYTES} allowed", where)
    # The head has no empty line, so the first one ends it, and the note may have more of them.
    head, blank, note_bytes = data.partition(b"\n\n")
    if not blank:
        _refuse("a submission without an empty line before its checkpoint", where)
    first, *lines = head.split(b"\n")
    match = _OLD.fullmatch(first)
    if not match or int(match[1]) > MAX_SIZE:
        _refuse("a submission that does not begin with old and a plain decimal size", where)
    if len(lines) > MAX_PROOF_HASHES:
        _refuse(f"a proof of {len(lines)} hashes, more than the {MAX_PROOF_HASHES} allowed", where)
    note = open_note(note_bytes, where=where)
    return Submission(
        old=int(match[1]),
        proof=parse_hashes(lines, where),
        note=note,
        checkpoint=Checkpoint.parse(note.text, where=where),
    )


def parse_hashes(lines: list[bytes], where: str) -> tuple[bytes, ...]:
    """The hashes of a proof, one to a line in base64.

    Raises:
        MalformedBundle: A line that is not the base64 of 32 bytes.
    """
    hashes = []
    for index, line in enumerate(lines):
        node = decode_base64(line.decode("ascii", "replace"), where=f"{where}: hash {index}")
        if len(node) != HASH_SIZE:
            _refuse(f"a hash of {len(node)} bytes, not {HASH_SIZE}", f"{where}: hash {index}")
        hashes.append(node)
    return tuple(hashes)


def parse_size(data: bytes, *, where: str) -> int:
    """The size in the body of a conflict's answer.

    Raises:
        MalformedBundle: Not a plain decimal size and a newline.
    """
    match = _SIZE.fullmatch(data)
    if not match or int(match[1]) > MAX_SIZE:
        _refuse("not a plain decimal size and a newline", where)
    return int(match[1])


def _refuse(message: str, where: str = "submission") -> NoReturn:
    raise MalformedBundle(message, where=where)
