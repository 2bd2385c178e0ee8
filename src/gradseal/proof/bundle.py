"""Reading a bundle: its checkpoint, then as much of its log as is asked for.

Opening reads the checkpoint alone, and believes nothing yet: `tree` reads every entry and every tile and
compares them with the checkpoint's root. Every size is bounded before it is read.
Format: docs/spec/bundle.md, section 1; docs/spec/log.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from gradseal.errors import CorruptBlob, MalformedBundle, MissingFile
from gradseal.proof.checkpoint import Checkpoint
from gradseal.proof.files import CHECKPOINT, Files, read_sized
from gradseal.proof.manifest import MAX_SEGMENTS
from gradseal.proof.merkle import Tree
from gradseal.proof.note import MAX_NOTE_BYTES, Note, open_note
from gradseal.proof.tiles import (
    MAX_ENTRY_BYTES,
    TILE_WIDTH,
    decode_entries,
    entries_path,
    tile_bytes,
    tiles_for,
)

MAX_ENTRIES = MAX_SEGMENTS + 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle whose checkpoint parses; nothing in it is verified.

    Args:
        files: Where it is.
        note: The signed checkpoint.
        checkpoint: What the note says.
    """

    files: Files
    note: Note
    checkpoint: Checkpoint

    def entries(self, index: int) -> list[bytes]:
        """The raw entries of the `index`-th tile of entries, 256 but for the last.

        Raises:
            MissingFile: The file is not there.
            MalformedBundle: It does not hold that many entries.
        """
        width = min(TILE_WIDTH, self.checkpoint.size - index * TILE_WIDTH)
        path = entries_path(index, width)
        return decode_entries(self.files.read(path, width * (MAX_ENTRY_BYTES + 2)), width, where=path)

    def all_entries(self) -> list[bytes]:
        """Every raw entry, in order; raises as `entries` does."""
        tiles = range(-(-self.checkpoint.size // TILE_WIDTH))
        return [entry for index in tiles for entry in self.entries(index)]

    def check_log(self, entries: list[bytes]) -> Tree:
        """The tree of all entries, once it is the one that the checkpoint and the tiles say.

        Raises:
            CorruptBlob: The entries have another root, or a tile holds other hashes; names the file.
            MissingFile: A tile is not there.
        """
        tree = Tree()
        for entry in entries:
            tree.append_entry(entry)
        for tile in tiles_for(tree.size):
            expected = tile_bytes(tree, tile.level, tile.index, tile.width)
            stored = read_sized(self.files, tile.path, len(expected))
            if stored != expected:
                raise CorruptBlob(_altered(tile.level, tile.index, stored, expected), where=tile.path)
        if tree.root() != self.checkpoint.root:
            raise CorruptBlob("the entries do not have the root that the checkpoint signs", where=CHECKPOINT)
        return tree


def open_bundle(files: Files) -> Bundle:
    """Opens what claims to be a bundle.

    Raises:
        MalformedBundle: It has no checkpoint, or not one that parses, or is over a limit.
    """
    try:
        data = files.read(CHECKPOINT, MAX_NOTE_BYTES)
    except MissingFile as e:
        raise MalformedBundle(
            "not a bundle: it has no checkpoint",
            where=CHECKPOINT,
            advice="name the directory that `gradseal record` wrote; one that was just begun has none yet",
        ) from e
    note = open_note(data, where=CHECKPOINT)
    checkpoint = Checkpoint.parse(note.text, where=CHECKPOINT)
    if not 1 <= checkpoint.size <= MAX_ENTRIES:
        raise MalformedBundle(
            f"a log of {checkpoint.size} entries, not of 1 to {MAX_ENTRIES}", where=CHECKPOINT
        )
    return Bundle(files=files, note=note, checkpoint=checkpoint)


def _altered(level: int, index: int, stored: bytes, expected: bytes) -> str:
    if level == 0:
        for number in range(len(expected) // 32):
            if stored[32 * number : 32 * number + 32] != expected[32 * number : 32 * number + 32]:
                return f"entry {index * TILE_WIDTH + number} does not have the hash that the tile holds"
    return "the tile does not hold the hashes of the entries below it"
