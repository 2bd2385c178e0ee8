"""The log and the witnesses of `witness.json`, from fixed keys."""

from __future__ import annotations

from dataclasses import replace

from gradseal.proof.checkpoint import Checkpoint
from gradseal.proof.cosignature import CosigningKey
from gradseal.proof.merkle import Tree, leaf_hash
from gradseal.proof.note import Note, NoteSignature, SigningKey, open_note, sign_note

OWNER = SigningKey(name="example.com/owner", seed=b"\x21" * 32)
ORIGIN = f"{OWNER.name}/{1:032x}"
TIME = 1_700_000_000

TREE = Tree(leaf_hash(f"entry {index}".encode()) for index in range(20))
FORK = Tree(leaf_hash(f"{'entry' if index < 6 else 'other'} {index}".encode()) for index in range(20))
"""The same log, but with other entries from 6 on."""

WITNESSES = {
    name: CosigningKey(name=f"{name.lower()}.example", seed=name.encode() * 16)
    for name in ("X1", "X2", "X3", "Y1", "Y2", "Y3")
}
"""By their names in the example of C2SP tlog-policy."""


def checkpoint(size: int, *more: str, tree: Tree = TREE) -> Checkpoint:
    """The log's, with further lines."""
    return Checkpoint(origin=ORIGIN, size=size, root=tree.root(size), extensions=more)


def signed(stated: Checkpoint, key: SigningKey = OWNER) -> Note:
    """The note of a checkpoint, without cosignatures."""
    return open_note(sign_note(stated.text(), [key]), where="vector")


def with_lines(note: Note, *lines: NoteSignature) -> Note:
    """The note with further signature lines."""
    return replace(note, signatures=(*note.signatures, *lines))


def decimal(number: int | None) -> str | None:
    """A time or size as the vectors have it, since not every reader of JSON keeps 63 bits."""
    return None if number is None else str(number)


def changed(good: bytes, changes: dict[str, tuple[bytes, bytes]]) -> list[dict[str, str]]:
    """Files that are good but for one place, which must be there once."""
    cases = []
    for reason, (old, new) in changes.items():
        if good.count(old) != 1:
            raise AssertionError(f"{reason}: {old!r} is there {good.count(old)} times")
        cases.append({"reason": reason, "bytes": good.replace(old, new).hex()})
    return cases
