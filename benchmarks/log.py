"""The log alone, in memory: its tree, and how much of it is read to prove one entry."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.figure import Figure

from gradseal.errors import MissingFile
from gradseal.proof.bundle import open_bundle
from gradseal.proof.checkpoint import Checkpoint
from gradseal.proof.files import CHECKPOINT
from gradseal.proof.merkle import Tree, leaf_hash, verify_inclusion
from gradseal.proof.note import SigningKey, sign_note
from gradseal.proof.tiles import TILE_WIDTH, encode_entries, entries_path, tile_bytes, tiles_for

_PROOFS = 1000


def measure(entries: int) -> list[Figure]:
    """The tree's times, then the bytes read in logs of a thousand entries and more, up to `entries`."""
    tree = Tree()
    leaves = [leaf_hash(_entry(number)) for number in range(entries)]
    began = time.perf_counter()
    for leaf in leaves:
        tree.append(leaf)
    appended = time.perf_counter() - began
    proven = _proof_seconds(tree, leaves)
    size = f"{entries:,}"
    return [
        Figure(name=f"append, tree of {size}", value=appended / entries * 1e6, unit="µs", at_most=10),
        Figure(name=f"inclusion proof, tree of {size}", value=proven * 1e6, unit="µs", at_most=100),
        *_reading(tree),
    ]


def _proof_seconds(tree: Tree, leaves: list[bytes]) -> float:
    chosen = range(0, tree.size, max(1, tree.size // _PROOFS))
    began = time.perf_counter()
    proofs = [tree.inclusion_proof(index) for index in chosen]
    seconds = (time.perf_counter() - began) / len(proofs)
    root = tree.root()
    for index, proof in zip(chosen, proofs, strict=True):
        if not verify_inclusion(leaf=leaves[index], index=index, size=tree.size, proof=proof, root=root):
            raise AssertionError(f"the proof of entry {index} does not hold")
    return seconds


def _reading(tree: Tree) -> Iterator[Figure]:
    size = 1000
    while size <= tree.size:
        for where, index in (("the first", 0), ("the middle", size // 2), ("the last", size - 1)):
            files = LogFiles(tree, size)
            if open_bundle(files).entry(index) != _entry(index):
                raise AssertionError(f"entry {index} of {size} is another")
            name = f"open a log of {size:,} and prove {where} entry: {files.reads} files"
            yield Figure(name=name, value=files.bytes_read, unit="bytes")
        size *= 10


class LogFiles:
    """The files of a log as a bundle has them, each made when it is read; counts what is read.

    Args:
        tree: Has at least `size` leaves, of the entries of this benchmark.
        size: Of the log.
    """

    def __init__(self, tree: Tree, size: int) -> None:
        self._tree = tree
        self._size = size
        self._tiles = {tile.path: tile for tile in tiles_for(size)}
        checkpoint = Checkpoint(origin="bench.example/log", size=size, root=tree.root(size))
        self._checkpoint = sign_note(checkpoint.text(), [SigningKey.generate("bench.example")])
        self._entries = {
            entries_path(begin // TILE_WIDTH, min(TILE_WIDTH, size - begin)): begin
            for begin in range(0, size, TILE_WIDTH)
        }
        self.reads = 0
        self.bytes_read = 0

    def read(self, path: str, max_bytes: int) -> bytes:
        """See `gradseal.proof.files.Files`."""
        data = self._content(path)
        self.reads += 1
        self.bytes_read += len(data)
        return data

    def _content(self, path: str) -> bytes:
        if path == CHECKPOINT:
            return self._checkpoint
        if path in self._tiles:
            tile = self._tiles[path]
            return tile_bytes(self._tree, tile.level, tile.index, tile.width)
        if path in self._entries:
            begin = self._entries[path]
            return encode_entries(map(_entry, range(begin, min(begin + TILE_WIDTH, self._size))))
        raise MissingFile("is not there", where=path)

    def digest(self, path: str, max_bytes: int) -> tuple[bytes, int]:
        """Not needed to read a log."""
        raise NotImplementedError

    def pieces(self, path: str, max_bytes: int) -> Iterator[bytes]:
        """Not needed to read a log."""
        raise NotImplementedError

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Not needed to read a log."""
        raise NotImplementedError

    def exists(self, path: str) -> bool:
        """Not needed to read a log."""
        raise NotImplementedError

    def delete(self, path: str) -> None:
        """Not needed to read a log."""
        raise NotImplementedError


def _entry(number: int) -> bytes:
    """An entry of about the size that a segment's has."""
    return (
        b'{"first_step":%d,"index":%d,"kind":"segment",' % (50 * number, number) + b'"seal":"%064d"}' % number
    )
