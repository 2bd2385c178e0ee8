"""Checkpoints: the text by which a log states its size and root.

Follows C2SP tlog-checkpoint. Guarantees one text for each checkpoint: what parses is written back byte for
byte. A checkpoint is worth something only as the text of a signed note (see `note`) whose signature verifies.
Format: docs/spec/log.md, section 3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from gradseal.errors import MalformedBundle
from gradseal.proof.merkle import HASH_SIZE
from gradseal.proof.note import decode_base64, encode_base64

MAX_SIZE = 2**63 - 1
"""The largest tree size."""

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_CONTROL = re.compile(r"[\x00-\x1f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The state of a log: its first `size` entries have this root.

    Args:
        origin: The line that names the log.
        size: The number of entries, below 2**63.
        root: The 32-byte root of the tree of that size.
        extensions: Further lines, opaque, kept as they are.

    Raises:
        MalformedBundle: A part that the text could not hold.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_SIZE:
            _refuse(f"a tree size that is not from 0 to {MAX_SIZE}", "checkpoint")
        if len(self.root) != HASH_SIZE:
            _refuse(f"a root of {len(self.root)} bytes, not {HASH_SIZE}", "checkpoint")
        for line in (self.origin, *self.extensions):
            if not line or _CONTROL.search(line):
                _refuse("an empty line or a control character", "checkpoint")

    def text(self) -> str:
        """The text to be signed, with its final newline."""
        lines = (self.origin, str(self.size), encode_base64(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)

    @classmethod
    def parse(cls, text: str, *, where: str) -> Checkpoint:
        """Read the text of a checkpoint strictly.

        Args:
            text: The text of a note, with its final newline.
            where: The file it comes from, for error messages.

        Raises:
            MalformedBundle: Fewer than three lines, an empty line, a size that is not plain decimal below
                2**63, or a root that is not the base64 of 32 bytes.
        """
        # Only newlines end a line; str.splitlines would also split at U+0085 and U+2028.
        *lines, rest = text.split("\n")
        if rest or len(lines) < 3:
            _refuse("a checkpoint without three full lines: origin, size and root", where)
        origin, size, root, *extensions = lines
        # The pattern first: int() also takes signs, underscores, spaces and other scripts' digits.
        if not _SIZE.fullmatch(size):
            _refuse("a tree size that is not plain decimal", where)
        decoded = decode_base64(root, where=where)
        try:
            return cls(origin=origin, size=int(size), root=decoded, extensions=tuple(extensions))
        except MalformedBundle as e:
            raise MalformedBundle(e.message, where=where) from e


def _refuse(message: str, where: str) -> NoReturn:
    raise MalformedBundle(message, where=where)
