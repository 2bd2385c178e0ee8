"""Tiles and bundles of entries, as C2SP tlog-tiles defines them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradseal.errors import MalformedBundle
from gradseal.proof.merkle import Tree, leaf_hash, root_of
from gradseal.proof.tiles import (
    TILE_WIDTH,
    Tile,
    decode_entries,
    encode_entries,
    entries_path,
    tile_bytes,
    tile_path,
    tiles_for,
)

LEAVES = [leaf_hash(i.to_bytes(4, "big")) for i in range(66_000)]
TREE = Tree(LEAVES)
ENTRIES = st.lists(st.binary(max_size=40), max_size=8)


@pytest.mark.parametrize(
    ("level", "index", "width", "path"),
    [
        (0, 0, 256, "tile/0/000"),
        (0, 0, 1, "tile/0/000.p/1"),
        (1, 999, 255, "tile/1/999.p/255"),
        (2, 1000, 256, "tile/2/x001/000"),
        (63, 1234067, 256, "tile/63/x001/x234/067"),
        (0, 1234067, 8, "tile/0/x001/x234/067.p/8"),
    ],
)
def test_paths(level: int, index: int, width: int, path: str) -> None:
    assert tile_path(level, index, width) == path
    assert Tile(level=level, index=index, width=width).path == path
    assert entries_path(index, width) == path.replace(f"tile/{level}/", "tile/entries/")


@pytest.mark.parametrize(
    ("level", "index", "width"), [(-1, 0, 1), (64, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, 257)]
)
def test_there_is_no_path_where_there_is_no_tile(level: int, index: int, width: int) -> None:
    with pytest.raises(ValueError):
        tile_path(level, index, width)


@given(st.lists(st.tuples(st.integers(0, 10**10), st.integers(1, 256)), min_size=2, max_size=2, unique=True))
def test_different_tiles_have_different_paths_and_no_path_is_a_folder_of_a_full_one(
    places: list[tuple[int, int]],
) -> None:
    first, second = (tile_path(0, *place) for place in places)
    assert first != second
    assert not first.startswith(second + "/")


def test_the_published_layouts() -> None:
    assert tiles_for(0) == []
    assert [(t.level, t.index, t.width) for t in tiles_for(256)] == [(0, 0, 256), (1, 0, 1)]
    layout = tiles_for(70_000)
    assert len(layout) == 273 + 1 + 1 + 1 + 1
    assert [(t.level, t.index, t.width) for t in layout[-5:]] == [
        (0, 272, 256), (0, 273, 112), (1, 0, 256), (1, 1, 17), (2, 0, 1),
    ]  # fmt: skip
    with pytest.raises(ValueError):
        tiles_for(-1)


@given(st.integers(0, len(LEAVES)))
def test_every_hash_of_a_tile_is_the_root_of_what_it_stands_for(size: int) -> None:
    tree = Tree(LEAVES[:size]) if size < 1000 else TREE
    for tile in tiles_for(size)[-3:]:
        content = tile_bytes(tree, tile.level, tile.index, tile.width)
        assert len(content) == 32 * tile.width
        span = TILE_WIDTH**tile.level
        start = (tile.index * TILE_WIDTH + tile.width - 1) * span
        assert content[-32:] == root_of(LEAVES[start : start + span])


def test_level_0_tiles_are_the_leaves() -> None:
    content = b"".join(tile_bytes(TREE, 0, t.index, t.width) for t in tiles_for(TREE.size) if t.level == 0)
    assert content == b"".join(LEAVES)


@pytest.mark.parametrize(
    ("level", "index", "width"),
    [(0, 0, 11), (0, 1, 1), (1, 0, 1), (0, -1, 1), (0, 0, 0), (-1, 0, 1), (0, 0, 257)],
)
def test_a_tile_that_the_tree_does_not_have_is_an_error(level: int, index: int, width: int) -> None:
    with pytest.raises(ValueError):
        tile_bytes(Tree(LEAVES[:10]), level, index, width)


@given(ENTRIES)
def test_entries_come_back(entries: list[bytes]) -> None:
    assert decode_entries(encode_entries(entries), len(entries), where="e") == entries


@given(ENTRIES, st.integers(0, 12))
def test_a_count_has_to_fit(entries: list[bytes], count: int) -> None:
    if count == len(entries):
        return
    with pytest.raises(MalformedBundle, match="tile/entries/000: "):
        decode_entries(encode_entries(entries), count, where="tile/entries/000")


@given(st.binary(max_size=30), st.integers(0, 5))
def test_any_bytes_are_entries_or_refused(data: bytes, count: int) -> None:
    try:
        entries = decode_entries(data, count, where="e")
    except MalformedBundle:
        return
    assert len(entries) == count
    assert encode_entries(entries) == data


def test_the_longest_entry() -> None:
    longest = bytes(65535)
    assert decode_entries(encode_entries([longest]), 1, where="e") == [longest]
    with pytest.raises(MalformedBundle, match="entry 1"):
        encode_entries([b"", longest + b"\0"])
