"""The tree and the entries of a log as static files.

Follows C2SP tlog-tiles: 256 consecutive hashes of one level make a tile, 256 consecutive entries make a
bundle of entries, and the rightmost ones may be partial. Knows names and bytes, not where they are stored.
Format: docs/spec/log.md, section 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gradseal.errors import MalformedBundle
from gradseal.proof.merkle import Tree

TILE_WIDTH = 256
"""Hashes in a full tile, and entries in a full bundle of entries."""

TILE_HEIGHT = 8
"""Levels of the tree from one level of tiles to the next."""

MAX_ENTRY_BYTES = 65535
"""The longest entry that its two-byte length can state."""

_MAX_LEVEL = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A tile by its place: `level` 0 holds leaf hashes; `width` is 256 unless the tile is partial."""

    level: int
    index: int
    width: int

    @property
    def path(self) -> str:
        """The tile's path in the log's directory."""
        return tile_path(self.level, self.index, self.width)


def tile_path(level: int, index: int, width: int = TILE_WIDTH) -> str:
    """`tile/<L>/<N>[.p/<W>]`, the path of a tile (C2SP tlog-tiles, "Merkle Tree").

    Args:
        level: The tile's level, 0 to 63.
        index: The tile's index within the level.
        width: The number of hashes, 1 to 256; below 256 the tile is partial.

    Raises:
        ValueError: There is no such tile.
    """
    if not 0 <= level <= _MAX_LEVEL:
        raise ValueError(f"no tile level {level}")
    return f"tile/{level}/{_numbered(index, width)}"


def entries_path(index: int, width: int = TILE_WIDTH) -> str:
    """`tile/entries/<N>[.p/<W>]`, the path of a bundle of entries (C2SP tlog-tiles, "Log entries").

    Raises:
        ValueError: There is no such bundle.
    """
    return f"tile/entries/{_numbered(index, width)}"


def tiles_for(size: int) -> list[Tile]:
    """All tiles of a tree, level by level from the leaves.

    The list has size / 255 items: bound the size of an unknown log first.

    Args:
        size: The number of leaves.

    Raises:
        ValueError: The size is negative.
    """
    if size < 0:
        raise ValueError(f"a tree of {size} leaves")
    tiles = []
    level = 0
    # Only full tiles are hashed into the level above, so each level has a 256th of the hashes below.
    while hashes := size >> (TILE_HEIGHT * level):
        full, partial = divmod(hashes, TILE_WIDTH)
        tiles += [Tile(level=level, index=index, width=TILE_WIDTH) for index in range(full)]
        if partial:
            tiles.append(Tile(level=level, index=full, width=partial))
        level += 1
    return tiles


def tile_bytes(tree: Tree, level: int, index: int, width: int = TILE_WIDTH) -> bytes:
    """The content of a tile: its hashes, one after another.

    Hash i is the root of the entries from (index * 256 + i) * 256**level, 256**level of them.

    Args:
        tree: A tree that has at least these hashes.
        level: The tile's level.
        index: The tile's index within the level.
        width: The number of hashes, 1 to 256.

    Returns:
        32 bytes for each hash.

    Raises:
        ValueError: The tree does not have them, or there is no such tile.
    """
    _check_place(index, width)
    begin = index * TILE_WIDTH
    return tree.subtrees(TILE_HEIGHT * level, begin, begin + width)


def encode_entries(entries: Iterable[bytes]) -> bytes:
    """The content of a bundle of entries: each entry after its length, two bytes, most significant first.

    Raises:
        MalformedBundle: An entry is longer than 65535 bytes.
    """
    data = bytearray()
    for index, entry in enumerate(entries):
        if len(entry) > MAX_ENTRY_BYTES:
            message = f"an entry of {len(entry)} bytes, more than the {MAX_ENTRY_BYTES} that a log holds"
            raise MalformedBundle(message, where=f"entry {index}")
        data += len(entry).to_bytes(2, "big") + entry
    return bytes(data)


def decode_entries(data: bytes, count: int, *, where: str) -> list[bytes]:
    """The entries of a bundle.

    Args:
        data: The content of the bundle.
        count: How many entries it must hold, as the size of the log says.
        where: The file it comes from, for error messages.

    Raises:
        MalformedBundle: Fewer or more bytes than just these entries.
    """
    entries = []
    position = 0
    for index in range(count):
        start = position + 2
        position = start + int.from_bytes(data[position:start], "big")
        # A length cut short puts `start` beyond the end, so this notices it too.
        if position > len(data):
            raise MalformedBundle(f"ends within entry {index} of {count}", where=where)
        entries.append(data[start:position])
    if position != len(data):
        raise MalformedBundle(f"{len(data) - position} bytes after its {count} entries", where=where)
    return entries


def _numbered(index: int, width: int) -> str:
    """The index in groups of three digits, all but the last marked with an x, and the partial width."""
    _check_place(index, width)
    groups = [f"{index % 1000:03d}"]
    while index := index // 1000:
        groups.append(f"x{index % 1000:03d}")
    path = "/".join(reversed(groups))
    return path if width == TILE_WIDTH else f"{path}.p/{width}"


def _check_place(index: int, width: int) -> None:
    if index < 0 or not 1 <= width <= TILE_WIDTH:
        raise ValueError(f"no tile {index} of width {width}")
