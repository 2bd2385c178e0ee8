"""A log whose owner signs whatever it likes: branches that agree up to a size and then do not."""

from __future__ import annotations

from collections.abc import Sequence

from gradseal.proof.checkpoint import Checkpoint
from gradseal.proof.merkle import Tree, leaf_hash
from gradseal.proof.note import Note, SigningKey, open_note, sign_note
from gradseal.proof.submission import Submission

OWNER = SigningKey(name="example.org/models", seed=b"\x21" * 32)


def origin_of(number: int, key: SigningKey = OWNER) -> str:
    """The origin of a run's log, which docs/spec/log.md gives a key for each run."""
    return f"{key.name}/{number:032x}"


class Branch:
    """One history of a log.

    Args:
        name: What its entries hold from `shared` on; the entries before are those of every branch.
        size: Its largest size.
        shared: How many entries it has in common with the others.
        origin: The log.
        key: Who signs.
    """

    def __init__(
        self, name: str, size: int, *, shared: int = 0, origin: str = "", key: SigningKey = OWNER
    ) -> None:
        self.name = name
        self.origin = origin or origin_of(1, key)
        self.key = key
        entries = (f"{'' if index < shared else name}{index}".encode() for index in range(size))
        self.tree = Tree(leaf_hash(entry) for entry in entries)

    def checkpoint(self, size: int, extensions: Sequence[str] = ()) -> Checkpoint:
        return Checkpoint(
            origin=self.origin, size=size, root=self.tree.root(size), extensions=tuple(extensions)
        )

    def note(self, size: int, extensions: Sequence[str] = ()) -> Note:
        text = self.checkpoint(size, extensions).text()
        return open_note(sign_note(text, [self.key]), where="note")

    def submission(self, old: int, size: int) -> Submission:
        """With the proof from `old` in this branch, if there can be one."""
        proof = self.tree.consistency_proof(old, size) if 0 < old < size else ()
        return Submission(old=old, proof=tuple(proof), note=self.note(size), checkpoint=self.checkpoint(size))
