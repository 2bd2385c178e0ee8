"""The one writer of bundles: whatever writes a bundle, a recorder or an attack, writes it here.

Blobs and openings go first, then the entries that name them, then the tiles, then the checkpoint that covers
them; each write is durable before the next. So whenever writing stops, the checkpoint that is there covers
entries and tiles that are there, and these name blobs that are there. After a write that failed, the same
call may be made again. Partial tiles of older checkpoints are deleted last: whoever misses one reads the
checkpoint again. Format: docs/spec/bundle.md, section 1; docs/spec/log.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

from gradseal.errors import MalformedBundle, MissingFile, RecordError
from gradseal.proof.checkpoint import Checkpoint
from gradseal.proof.entries import Entry, seal_of, state_root
from gradseal.proof.files import CHECKPOINT, WEIGHTS, Files, blob_path, opening_path
from gradseal.proof.manifest import Manifest
from gradseal.proof.merkle import Tree, leaf_hash
from gradseal.proof.note import Note, Signer, open_note, sign_note
from gradseal.proof.tiles import TILE_HEIGHT, TILE_WIDTH, Tile, encode_entries, entries_path, tile_bytes

_MOST_AT_ONCE = 8
"""The most entries that a recording publishes under one checkpoint."""


class BlobWriter:
    """Puts blobs, before there is a log.

    Args:
        files: Where they go.
        resumed: Whether some may be there from before. They are hashed, and written again only if they are
            not what they should be.
    """

    def __init__(self, files: Files, *, resumed: bool = False) -> None:
        self.files = files
        self._resumed = resumed
        self._there: set[bytes] = set()
        self._written: set[bytes] = set()

    def put(self, data: bytes | memoryview) -> bytes:
        """Stores a blob once, durably; returns its SHA-256."""
        digest = hashlib.sha256(data).digest()
        if digest not in self._there:
            found = self._found(digest, memoryview(data).nbytes) if self._resumed else None
            if found != digest:
                self.files.write(blob_path(digest), data)
            if found is None:
                self._written.add(digest)
            self._there.add(digest)
        return digest

    def discard(self) -> None:
        """Removes every blob that was written here, before any log names one."""
        while self._written:
            digest = self._written.pop()
            self._there.discard(digest)
            self.files.delete(blob_path(digest))

    def _found(self, digest: bytes, size_bytes: int) -> bytes | None:
        """The SHA-256 of what is in a blob's place; none of what is too long; None if nothing is there."""
        try:
            return self.files.digest(blob_path(digest), size_bytes)[0]
        except MissingFile:
            return None
        except MalformedBundle:
            return b""


class BundleWriter:
    """A log that grows, and the blobs that it names.

    Args:
        blobs: Where blobs go; the log goes to the same files.
        signer: The owner's key.
        manifest: Entry 0; its owner must be the signer's key.
    """

    def __init__(self, blobs: BlobWriter, signer: Signer, manifest: Manifest) -> None:
        if manifest.owner != signer.verification_key:
            raise RecordError(
                "the manifest names another owner than the signing key", where="manifest: owner"
            )
        self._blobs = blobs
        self._files = blobs.files
        self._signer = signer
        self._owner = manifest.owner
        self._origin = manifest.origin
        self._tree = Tree()
        self._tail: list[bytes] = []
        self._published = 0
        self._unpublished: list[bytes] = []
        self._told: Callable[[Note, Sequence[bytes]], None] = lambda note, leaves: None
        self._partial: set[str] = set()
        self._append(manifest.encode())

    def catch_up(self, checkpoint: Checkpoint, entries: Sequence[bytes]) -> None:
        """Makes a new writer one that goes on from what was published before.

        Args:
            checkpoint: What was published last.
            entries: Every entry that it covers, the manifest first.

        Raises:
            RecordError: They are not what the checkpoint says, or the log is another's.
        """
        tree = Tree()
        tree.extend(leaf_hash(data) for data in entries)
        if (checkpoint.origin, checkpoint.size, checkpoint.root) != (self._origin, tree.size, tree.root()):
            raise RecordError("the entries are not those that the checkpoint covers", where=CHECKPOINT)
        self._tree, self._published = tree, tree.size
        self._unpublished.clear()
        self._tail = list(entries[-(tree.size % TILE_WIDTH or TILE_WIDTH) :])
        # Whoever stopped may have left partial tiles of the checkpoint before, or of one that never came.
        for size in range(max(1, tree.size - _MOST_AT_ONCE), tree.size + _MOST_AT_ONCE + 1):
            self._partial.update(_partial_paths(size))

    def tell(self, told: Callable[[Note, Sequence[bytes]], None]) -> None:
        """Has every checkpoint told, once it is published: the note, and the leaf hashes new in it."""
        self._told = told

    @property
    def files(self) -> Files:
        """Where the bundle is."""
        return self._files

    @property
    def size(self) -> int:
        """How many entries the log has, published or not."""
        return self._tree.size

    def put(self, data: bytes | memoryview) -> bytes:
        """Stores a blob; returns its SHA-256."""
        return self._blobs.put(data)

    def seal(self, digests: Sequence[bytes]) -> bytes:
        """Seals a state, whose tensors' digests these are, and stores the opening; returns the seal."""
        seal = seal_of(self._owner, state_root(digests))
        self._files.write(opening_path(seal), b"".join(digests))
        return seal

    def release(self, weights: bytes) -> bytes:
        """Stores the released weights; returns their SHA-256."""
        self._files.write(WEIGHTS, weights)
        return hashlib.sha256(weights).digest()

    def append(self, entry: Entry) -> int:
        """Adds an entry, not yet published; returns its index."""
        return self._append(entry.encode())

    def publish(self) -> Checkpoint:
        """Makes all entries so far visible under a new signed checkpoint."""
        size = self._tree.size
        current = {self._write_entries()}
        for tile in _tiles_since(self._published, size):
            current.add(tile.path)
            if _end(tile) > self._published:
                content = tile_bytes(self._tree, tile.level, tile.index, tile.width)
                self._write_tile(tile.path, tile.width, content)
        checkpoint = Checkpoint(origin=self._origin, size=size, root=self._tree.root())
        note = sign_note(checkpoint.text(), [self._signer])
        self._files.write(CHECKPOINT, note)
        self._published = size
        leaves, self._unpublished = self._unpublished, []
        self._told(open_note(note, where=CHECKPOINT), leaves)
        for path in sorted(self._partial - current):
            self._files.delete(path)
            self._partial.discard(path)
        return checkpoint

    def _append(self, data: bytes) -> int:
        encode_entries([data])  # refuses one that is too long, before the tree has it
        if len(self._tail) == TILE_WIDTH:
            self._write_entries()
            self._tail.clear()
        self._tail.append(data)
        self._unpublished.append(leaf_hash(data))
        return self._tree.append(self._unpublished[-1])

    def _write_entries(self) -> str:
        index = (self._tree.size - len(self._tail)) // TILE_WIDTH
        width = len(self._tail)
        return self._write_tile(entries_path(index, width), width, encode_entries(self._tail))

    def _write_tile(self, path: str, width: int, content: bytes) -> str:
        if width < TILE_WIDTH:
            # Before the write: one that failed may have written the file all the same.
            self._partial.add(path)
        self._files.write(path, content)
        return path


def _tiles_since(old: int, new: int) -> Iterator[Tile]:
    """The tiles of a tree of `new` leaves that were partial, or not there, when it had `old` leaves."""
    level = 0
    while hashes := new >> (TILE_HEIGHT * level):
        first = (old >> (TILE_HEIGHT * level)) // TILE_WIDTH
        for index in range(first, -(-hashes // TILE_WIDTH)):
            yield Tile(level=level, index=index, width=min(TILE_WIDTH, hashes - index * TILE_WIDTH))
        level += 1


def _end(tile: Tile) -> int:
    """The number of entries below the tile and to its left."""
    return int((tile.index * TILE_WIDTH + tile.width) * TILE_WIDTH**tile.level)


def _partial_paths(size: int) -> Iterator[str]:
    """The paths of the files that hold part of a tile, in a log of `size` entries."""
    if width := size % TILE_WIDTH:
        yield entries_path(size // TILE_WIDTH, width)
    for tile in _tiles_since(size - 1, size):
        if tile.width < TILE_WIDTH:
            yield tile.path
