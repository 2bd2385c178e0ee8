"""Vectors of docs/spec/log.md, sections 1 and 2: `merkle.json` and `tiles.json`."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from gradseal.proof import merkle, tiles

Vectors = dict[str, Any]

# The leaves of Certificate Transparency's reference tests.
_CT_ENTRIES = (
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
)


def merkle_tree() -> Vectors:
    """docs/spec/log.md, section 1."""
    tree = merkle.Tree(merkle.leaf_hash(bytes.fromhex(entry)) for entry in _CT_ENTRIES)
    longer = merkle.Tree(merkle.leaf_hash(bytes([i])) for i in range(70))
    inclusion = [_inclusion(tree, index, size) for size in range(1, 9) for index in range(size)]
    inclusion += [_inclusion(longer, index, 70) for index in (0, 31, 63, 64, 67, 68, 69)]
    consistency = [_consistency(tree, old, new) for new in range(9) for old in range(new + 1)]
    consistency += [_consistency(longer, old, 70) for old in (1, 32, 63, 64, 65, 68, 69)]
    return {
        "about": (
            "entries: the leaves; roots[n]: the root over the first n. longer: the same for the 70 entries "
            "that are the single bytes 00 to 45, by size. inclusion and consistency: proofs that must "
            "verify, and that a tree must produce. invalid: proofs that must not verify."
        ),
        "source": "entries and roots: the reference tests of Certificate Transparency (RFC 6962)",
        "entries": list(_CT_ENTRIES),
        "leaf_hashes": [tree.leaf(index).hex() for index in range(8)],
        "roots": [tree.root(size).hex() for size in range(9)],
        "longer": {str(size): longer.root(size).hex() for size in (9, 15, 16, 17, 31, 33, 63, 64, 65, 70)},
        "inclusion": inclusion,
        "consistency": consistency,
        "invalid": {
            "inclusion": _bad_inclusion(_inclusion(tree, 5, 7)),
            "consistency": _bad_consistency(_consistency(tree, 6, 8), _consistency(tree, 4, 8)),
        },
    }


def _inclusion(tree: merkle.Tree, index: int, size: int) -> Vectors:
    return {
        "leaf": tree.leaf(index).hex(),
        "index": index,
        "size": size,
        "root": tree.root(size).hex(),
        "proof": [node.hex() for node in tree.inclusion_proof(index, size)],
    }


def _consistency(tree: merkle.Tree, old: int, new: int) -> Vectors:
    return {
        "old": old,
        "new": new,
        "old_root": tree.root(old).hex(),
        "new_root": tree.root(new).hex(),
        "proof": [node.hex() for node in tree.consistency_proof(old, new)],
    }


def _bad_inclusion(good: Vectors) -> list[Vectors]:
    proof = good["proof"]
    return [
        {"reason": "another index"} | good | {"index": 4},
        {"reason": "index not below the size"} | good | {"index": 7},
        {"reason": "negative index"} | good | {"index": -1},
        {"reason": "a size that gives the leaf another path"} | good | {"size": 6},
        {"reason": "size zero"} | good | {"index": 0, "size": 0},
        {"reason": "another root"} | good | {"root": good["leaf"]},
        {"reason": "another leaf"} | good | {"leaf": good["root"]},
        {"reason": "a hash missing at the end"} | good | {"proof": proof[:-1]},
        {"reason": "a hash missing at the beginning"} | good | {"proof": proof[1:]},
        {"reason": "a spare hash at the end"} | good | {"proof": [*proof, proof[0]]},
        {"reason": "a spare hash at the beginning"} | good | {"proof": [proof[0], *proof]},
        {"reason": "hashes in another order"} | good | {"proof": proof[::-1]},
        {"reason": "a hash of 31 bytes"} | good | {"proof": [proof[0][2:], *proof[1:]]},
        {"reason": "no proof"} | good | {"proof": []},
    ]


def _bad_consistency(good: Vectors, complete: Vectors) -> list[Vectors]:
    proof = good["proof"]
    same = complete | {"new": complete["old"], "new_root": complete["old_root"]}
    return [
        {"reason": "another old size"} | good | {"old": 5},
        {"reason": "another new size"} | good | {"new": 9},
        {"reason": "sizes exchanged"} | good | {"old": 8, "new": 6},
        {"reason": "another old root"} | good | {"old_root": good["new_root"]},
        {"reason": "another new root"} | good | {"new_root": good["old_root"]},
        {"reason": "a hash missing at the end"} | good | {"proof": proof[:-1]},
        {"reason": "a spare hash at the end"} | good | {"proof": [*proof, proof[0]]},
        {"reason": "no proof"} | good | {"proof": []},
        {"reason": "the old root repeated in the proof"}
        | complete
        | {"proof": [complete["old_root"], *complete["proof"]]},
        {"reason": "equal sizes with a proof"} | same,
        {"reason": "equal sizes with different roots"} | same | {"proof": [], "new_root": good["new_root"]},
        {"reason": "empty tree with a proof"} | good | {"old": 0, "old_root": merkle.EMPTY_ROOT.hex()},
        {"reason": "empty tree with another root"} | good | {"old": 0, "proof": []},
        {"reason": "negative size"} | good | {"old": -1},
    ]


def log_tiles() -> Vectors:
    """docs/spec/log.md, section 2."""
    tree = merkle.Tree(merkle.leaf_hash(i.to_bytes(4, "big")) for i in range(70_000))
    places = [(0, 0, 256), (0, 1, 44), (0, 273, 112), (1, 0, 256), (1, 1, 17), (2, 0, 1), (63, 1234067, 256)]
    contents = [b"", b"\x00", b"gradseal", bytes(range(256)) * 2]
    encoded = tiles.encode_entries(contents)
    return {
        "about": (
            "paths: of a tile, and of the bundle of entries of the same index and width. layouts: for a tree "
            "of `size`, the full tiles of each level and the width of the partial one (0 if none). tiles: "
            "SHA-256 of the content of tiles of the tree whose 70000 entries are their index in four bytes, "
            "most significant first. entries: a bundle's content and its entries. invalid: must be "
            "refused as a bundle of `count` entries."
        ),
        "source": "size 70000, size 256 and index 1234067 are the examples of C2SP tlog-tiles",
        "paths": [
            {
                "level": level,
                "index": index,
                "width": width,
                "tile": tiles.tile_path(level, index, width),
                "entries": tiles.entries_path(index, width),
            }
            for level, index, width in [*places, (0, 999, 1), (0, 1000, 255), (3, 1_000_000_000, 256)]
        ],
        "layouts": [_layout(size) for size in (0, 1, 255, 256, 257, 65535, 65536, 70_000)],
        "tiles": [
            {
                "level": tile.level,
                "index": tile.index,
                "width": tile.width,
                "sha256": sha256(tiles.tile_bytes(tree, tile.level, tile.index, tile.width)).hexdigest(),
            }
            for tile in tiles.tiles_for(70_000)
            if tile.index in (0, 1, 273)
        ],
        "root": tree.root().hex(),
        "entries": [
            {"bytes": "", "entries": []},
            {"bytes": encoded.hex(), "entries": [entry.hex() for entry in contents]},
        ],
        "invalid": [
            {"reason": "no bytes", "bytes": "", "count": 1},
            {"reason": "an entry too many", "bytes": encoded.hex(), "count": 3},
            {"reason": "an entry too few", "bytes": encoded.hex(), "count": 5},
            {"reason": "a byte missing", "bytes": encoded[:-1].hex(), "count": 4},
            {"reason": "a spare byte", "bytes": encoded.hex() + "00", "count": 4},
            {"reason": "half a length", "bytes": "00", "count": 1},
            {"reason": "a length beyond the end", "bytes": "ffff00", "count": 1},
        ],
    }


def _layout(size: int) -> Vectors:
    levels: list[dict[str, int]] = []
    for tile in tiles.tiles_for(size):
        if tile.level == len(levels):
            levels.append({"full": 0, "partial": 0})
        if tile.width == tiles.TILE_WIDTH:
            levels[tile.level]["full"] += 1
        else:
            levels[tile.level]["partial"] = tile.width
    return {"size": size, "levels": levels}
