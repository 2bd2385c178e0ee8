"""Anchors as files of a bundle: for each anchored size of its log a receipt, time-stamps, and one index.

Reading is strict and bounded, and verifies nothing: a receipt shows a time only to those who pin its
witnesses, a token only to those who pin its authority. The index is there because a static server cannot list
files, and nobody need believe it: a size that it leaves out is just not anchored.

`AnchorStore` writes the receipt, then the tokens, then the index, each durable before the next. So wherever
writing stops, what the index lists is there; and what was anchored once never becomes less.
Format: docs/spec/bundle.md, section "Anchors".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from gradseal.errors import MalformedBundle, MissingFile, RecordError
from gradseal.proof.bundle import MAX_ENTRIES
from gradseal.proof.canonical import Encodable, decode, encode
from gradseal.proof.checkpoint import Checkpoint
from gradseal.proof.fields import Fields
from gradseal.proof.files import Files
from gradseal.proof.merkle import Tree
from gradseal.proof.note import Note, NoteSignature
from gradseal.proof.receipt import MAX_RECEIPT_BYTES, Receipt, parse_receipt

INDEX = "anchors/index"

MAX_ANCHORED = 65_536
"""The most anchored sizes."""

MAX_TOKENS = 16
"""The most time-stamps of one size."""

MAX_TOKEN_BYTES = 64 * 1024
"""The longest time-stamp, as `precede.asn1` takes it."""

MAX_INDEX_BYTES = 64 * MAX_ANCHORED
"""The longest index."""


def receipt_path(size: int) -> str:
    """The path of the receipt for the last entry of this size."""
    return f"anchors/{size}.tlog-proof"


def token_path(size: int, number: int) -> str:
    """The path of a time-stamp of the checkpoint of this size; numbers begin at 0."""
    return f"anchors/{size}.{number}.tsr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchored:
    """A size of the log that is said to be anchored.

    Args:
        size: How many entries the checkpoint covers, at least 1.
        timestamps: How many time-stamps there are besides the receipt, 0 to 16.
    """

    size: int
    timestamps: int


def read_index(files: Files) -> tuple[Anchored, ...]:
    """The anchored sizes that a bundle lists, ascending; none if it has no index.

    Raises:
        MalformedBundle: An index that is not of the form, or over a limit; names the field.
        StoreError: It could not be read.
    """
    try:
        data = files.read(INDEX, MAX_INDEX_BYTES)
    except MissingFile:
        return ()
    listed = decode(data, where=INDEX, max_bytes=MAX_INDEX_BYTES, max_depth=2)
    if not isinstance(listed, list) or len(listed) > MAX_ANCHORED:
        raise MalformedBundle(f"not an array of at most {MAX_ANCHORED} anchored sizes", where=INDEX)
    found = tuple(_anchored(Fields(item, INDEX, f"[{i}]")) for i, item in enumerate(listed))
    for i, (before, after) in enumerate(pairwise(found), start=1):
        if before.size >= after.size:
            raise MalformedBundle(
                f"size {after.size} does not come after size {before.size}", where=f"{INDEX}: [{i}].size"
            )
    return found


def read_receipt(files: Files, size: int) -> Receipt:
    """The receipt of an anchored size: its checkpoint, signed and cosigned, and the place of its last entry.

    Whether the entry is there, the caller checks against its own leaf (`merkle.verify_inclusion`) or the root
    against its own tree.

    Raises:
        MissingFile: It is not there.
        MalformedBundle: It does not parse, or is that of another size or entry.
    """
    path = receipt_path(size)
    receipt = parse_receipt(files.read(path, MAX_RECEIPT_BYTES), where=path)
    if (receipt.checkpoint.size, receipt.index) != (size, size - 1):
        raise MalformedBundle(
            f"entry {receipt.index} in a tree of {receipt.checkpoint.size}, not the last one of {size}",
            where=path,
        )
    return receipt


def read_token(files: Files, size: int, number: int) -> bytes:
    """A time-stamp of an anchored size, whatever its bytes are.

    Raises:
        MissingFile: It is not there.
        MalformedBundle: It is longer than a time-stamp may be.
    """
    return files.read(token_path(size, number), MAX_TOKEN_BYTES)


def receipt_of(note: Note, tree: Tree) -> Receipt:
    """The receipt for the last entry of a signed checkpoint.

    Args:
        note: The checkpoint with whatever signatures it has.
        tree: The log's tree, of the checkpoint's size or larger.

    Raises:
        RecordError: The tree does not have the checkpoint's root at that size, or the log is empty.
        MalformedBundle: The note's text is no checkpoint.
    """
    checkpoint = Checkpoint.parse(note.text, where="checkpoint")
    size = checkpoint.size
    if not 1 <= size <= tree.size or tree.root(size) != checkpoint.root:
        raise RecordError(f"the tree has not the checkpoint's root at size {size}", where="checkpoint")
    proof = tuple(tree.inclusion_proof(size - 1, size))
    return Receipt(index=size - 1, proof=proof, note=note, checkpoint=checkpoint)


class AnchorStore:
    """The anchors of a bundle that its owner adds to.

    Reads the index once, when it is made; there must be no other writer. After a write that failed, the same
    call may be made again.

    Args:
        files: The bundle.

    Raises:
        MalformedBundle: The bundle has an index that is not of the form.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._listed = {anchored.size: anchored for anchored in read_index(files)}

    @property
    def anchored(self) -> tuple[Anchored, ...]:
        """What the index lists, ascending."""
        return tuple(self._listed[size] for size in sorted(self._listed))

    def add(self, receipt: Receipt, tokens: Sequence[bytes]) -> Anchored:
        """Puts what was got for a checkpoint beside what is there for its size.

        Of each key the first cosignature is kept, so that asking again does not fill the note. A file that
        the index does not list was never completed, and counts as not there.

        Args:
            receipt: For the last entry of its checkpoint, as `receipt_of` makes it.
            tokens: Time-stamps of its checkpoint; one that is there already is not added again.

        Returns:
            What the index now says of this size.

        Raises:
            RecordError: Another checkpoint of this size is anchored already, or it would be more than the
                format allows. Nothing was written.
            MalformedBundle: The receipt is for another entry than the last, or what is there does not parse.
            StoreError: What is there could not be read, or something could not be written.
        """
        size = receipt.checkpoint.size
        there = self._listed.get(size)
        kept = [read_token(self._files, size, i) for i in range(there.timestamps)] if there else []
        merged = _merged(read_receipt(self._files, size), receipt) if there else receipt
        added = [token for token in dict.fromkeys(tokens) if token not in kept]
        self._check_room(merged, [*kept, *added])
        self._files.write(receipt_path(size), merged.encode())
        for number, token in enumerate(added, start=len(kept)):
            self._files.write(token_path(size, number), token)
        return self._list(Anchored(size=size, timestamps=len(kept) + len(added)))

    def _check_room(self, receipt: Receipt, tokens: Sequence[bytes]) -> None:
        size = receipt.checkpoint.size
        path = receipt_path(size)
        if not 1 <= size <= MAX_ENTRIES or receipt.index != size - 1:
            raise MalformedBundle(f"entry {receipt.index} in a tree of {size}, not its last one", where=path)
        if size not in self._listed and len(self._listed) >= MAX_ANCHORED:
            message = f"{MAX_ANCHORED} sizes are anchored, and a bundle can have no more"
            raise RecordError(message, where=INDEX, advice="anchor more seldom")
        if len(tokens) > MAX_TOKENS:
            message = f"{len(tokens)} time-stamps of one size, more than the {MAX_TOKENS} allowed"
            raise RecordError(message, where=path, advice="those that are there are the earlier ones")
        if any(not 0 < len(token) <= MAX_TOKEN_BYTES for token in tokens):
            raise RecordError(f"a time-stamp that is not 1 to {MAX_TOKEN_BYTES} bytes long", where=path)

    def _list(self, anchored: Anchored) -> Anchored:
        listed = {**self._listed, anchored.size: anchored}
        if listed != self._listed:
            self._files.write(INDEX, _encode_index(listed[size] for size in sorted(listed)))
            self._listed = listed
        return anchored


def _anchored(fields: Fields) -> Anchored:
    read = Anchored(
        size=fields.integer("size", 1, MAX_ENTRIES), timestamps=fields.integer("timestamps", 0, MAX_TOKENS)
    )
    fields.end()
    return read


def _encode_index(listed: Iterable[Anchored]) -> bytes:
    rows: list[Encodable] = [{"size": one.size, "timestamps": one.timestamps} for one in listed]
    return encode(rows, where=INDEX)


def _merged(there: Receipt, new: Receipt) -> Receipt:
    """The receipt that is there, with the signatures of keys that only the new one has."""
    if there.note.text != new.note.text:
        raise RecordError(
            f"another checkpoint of size {new.checkpoint.size} is anchored already",
            where=receipt_path(new.checkpoint.size),
            advice="one key signed two logs: go on with the copy of the bundle that was anchored",
        )
    signatures: dict[tuple[str, bytes], NoteSignature] = {}
    for line in (*there.note.signatures, *new.note.signatures):
        signatures.setdefault((line.name, line.key_id), line)
    return replace(there, note=replace(there.note, signatures=tuple(signatures.values())))
