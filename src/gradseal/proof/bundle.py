"""Reading a bundle: its checkpoint, then as much of its log as is asked for.

Opening reads the checkpoint alone, and believes nothing yet: `check_log` compares every entry and every tile
with the checkpoint's root, `entry` one entry by the few tiles between it and the root. Who signed the
checkpoint is not looked at here. Every size is bounded before it is read.
Format: docs/spec/bundle.md, section 1; docs/spec/log.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gradseal.errors import CorruptBlob, MalformedBundle, MissingFile
from gradseal.proof.checkpoint import Checkpoint
from gradseal.proof.files import CHECKPOINT, Files, read_sized
from gradseal.proof.manifest import MAX_SEGMENTS
from gradseal.proof.merkle import HASH_SIZE, Tree, leaf_hash, node_hash, root_of
from gradseal.proof.note import MAX_NOTE_BYTES, Note, open_note
from gradseal.proof.tiles import (
    MAX_ENTRY_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    decode_entries,
    entries_path,
    tile_bytes,
    tiles_for,
)

MAX_ENTRIES = 2 * MAX_SEGMENTS


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
        path, width = self._entries_file(index)
        return decode_entries(self.files.read(path, width * (MAX_ENTRY_BYTES + 2)), width, where=path)

    def all_entries(self) -> list[bytes]:
        """Every raw entry, in order; raises as `entries` does."""
        tiles = range(-(-self.checkpoint.size // TILE_WIDTH))
        return [entry for index in tiles for entry in self.entries(index)]

    def entry(self, index: int) -> bytes:
        """One raw entry, proven to be where the checkpoint says.

        Reads the file of entries that has it and, of each level, the tile above it and the last, partial one:
        two more tiles at most for every factor of 256 in the log's size.

        Args:
            index: The entry's number, from 0.

        Raises:
            CorruptBlob: The last tiles do not have the checkpoint's root, a tile not the hash that the one
                above it holds, or the entry not the hash in its tile; names the file.
            MissingFile: One of them is not there.
            MalformedBundle: The file of entries does not hold as many as it should.
            ValueError: The log has no such entry.
        """
        if not 0 <= index < self.checkpoint.size:
            raise ValueError(f"no entry {index} in a log of {self.checkpoint.size}")
        number, place = divmod(index, TILE_WIDTH)
        leaf = self._proven_leaf(index)
        entry = self.entries(number)[place]
        if leaf_hash(entry) != leaf:
            path, _ = self._entries_file(number)
            raise CorruptBlob(f"entry {index} does not have the hash that the tile holds", where=path)
        return entry

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

    def _entries_file(self, index: int) -> tuple[str, int]:
        """The path of the `index`-th tile of entries, and how many it holds."""
        width = min(TILE_WIDTH, self.checkpoint.size - index * TILE_WIDTH)
        return entries_path(index, width), width

    def _proven_leaf(self, index: int) -> bytes:
        """The leaf hash of an entry, by the tiles above it, each proven by the one before."""
        last = self._last_tiles()
        proven = b""
        for level in reversed(range(_levels(self.checkpoint.size))):
            number, hashes = index >> TILE_HEIGHT * level, self.checkpoint.size >> TILE_HEIGHT * level
            if number >= hashes:
                continue  # on this level the entry is below no hash yet
            tile, place = divmod(number, TILE_WIDTH)
            # A full tile has its hash on the level above, so the first on the way down is a partial one.
            content = last[level] if tile == hashes // TILE_WIDTH else self._full_tile(level, tile, proven)
            proven = content[HASH_SIZE * place : HASH_SIZE * (place + 1)]
        return proven

    def _full_tile(self, level: int, index: int, proven: bytes) -> bytes:
        """A tile's content, if its hashes have the hash that is proven."""
        tile = Tile(level=level, index=index, width=TILE_WIDTH)
        content = read_sized(self.files, tile.path, TILE_WIDTH * HASH_SIZE)
        if root_of(_hashes(content)) != proven:
            raise CorruptBlob("the tile does not have the hash that the one above it holds", where=tile.path)
        return content

    def _last_tiles(self) -> dict[int, bytes]:
        """The partial tile of each level that has one; together they have the checkpoint's root."""
        tiles: dict[int, bytes] = {}
        root = b""
        for level in range(_levels(self.checkpoint.size)):
            index, width = divmod(self.checkpoint.size >> TILE_HEIGHT * level, TILE_WIDTH)
            if width:
                path = Tile(level=level, index=index, width=width).path
                tiles[level] = read_sized(self.files, path, width * HASH_SIZE)
                root = _joined(tiles[level], root)
        if root != self.checkpoint.root:
            raise CorruptBlob(
                "the last tiles do not have the root that the checkpoint signs", where=CHECKPOINT
            )
        return tiles


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


def _levels(size: int) -> int:
    """How many levels of tiles a log has."""
    return -(-size.bit_length() // TILE_HEIGHT)


def _hashes(content: bytes) -> Iterator[bytes]:
    return (content[at : at + HASH_SIZE] for at in range(0, len(content), HASH_SIZE))


def _joined(content: bytes, right: bytes) -> bytes:
    """The root over a partial tile's hashes and what is to their right, whose root is given, if anything."""
    end = len(content)
    # The complete subtrees in the tile are as large as the bits of its width, the smallest to the right.
    for bit in range(TILE_HEIGHT):
        if len(content) // HASH_SIZE >> bit & 1:
            begin = end - (HASH_SIZE << bit)
            subtree = root_of(_hashes(content[begin:end]))
            right = node_hash(subtree, right) if right else subtree
            end = begin
    return right
