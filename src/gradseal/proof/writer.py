"""The one writer of bundles: whatever writes a bundle, a recorder or an attack, writes it here.

Blobs and openings go first, then the entries that name them, then the tiles, then the checkpoint that covers
them; each write is durable before the next, so that a reader, at any moment, finds a checkpoint whose entries,
and an entry whose blobs, are all there. Format: docs/spec/bundle.md, section 1; docs/spec/log.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from gradseal.errors import RecordError
from gradseal.proof.checkpoint import Checkpoint
from gradseal.proof.entries import Entry, seal_of, state_root
from gradseal.proof.files import CHECKPOINT, WEIGHTS, Files, blob_path, opening_path
from gradseal.proof.manifest import Manifest
from gradseal.proof.merkle import Tree
from gradseal.proof.note import Signer, sign_note
from gradseal.proof.tiles import TILE_WIDTH, Tile, encode_entries, entries_path, tile_bytes, tiles_for


class BlobWriter:
    """Puts blobs, before there is a log."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._there: set[bytes] = set()

    def put(self, data: bytes) -> bytes:
        """Stores a blob once, durably; returns its SHA-256."""
        digest = hashlib.sha256(data).digest()
        if digest not in self._there:
            self.files.write(blob_path(digest), data)
            self._there.add(digest)
        return digest


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
        self._append(manifest.encode())

    @property
    def size(self) -> int:
        """How many entries the log has, published or not."""
        return self._tree.size

    def put(self, data: bytes) -> bytes:
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
        for tile in tiles_for(size):
            if _end(tile) > self._published:
                self._files.write(tile.path, tile_bytes(self._tree, tile.level, tile.index, tile.width))
        self._write_entries()
        checkpoint = Checkpoint(origin=self._origin, size=size, root=self._tree.root())
        self._files.write(CHECKPOINT, sign_note(checkpoint.text(), [self._signer]))
        self._delete_superseded(size)
        self._published = size
        return checkpoint

    def _append(self, data: bytes) -> int:
        encode_entries([data])  # refuses one that is too long, before the tree has it
        if len(self._tail) == TILE_WIDTH:
            self._write_entries()
            self._tail.clear()
        self._tail.append(data)
        return self._tree.append_entry(data)

    def _write_entries(self) -> None:
        first = self._tree.size - len(self._tail)
        self._files.write(entries_path(first // TILE_WIDTH, len(self._tail)), encode_entries(self._tail))

    def _delete_superseded(self, size: int) -> None:
        """Removes the partial tiles of the last checkpoint that the new one has wider ones of."""
        kept = {tile.path for tile in tiles_for(size)}
        for tile in tiles_for(self._published):
            if tile.path not in kept:
                self._files.delete(tile.path)
        index, width = divmod(self._published, TILE_WIDTH)
        if width and divmod(size, TILE_WIDTH) != (index, width):
            self._files.delete(entries_path(index, width))


def _end(tile: Tile) -> int:
    """The number of entries below the tile and to its left."""
    return int((tile.index * TILE_WIDTH + tile.width) * TILE_WIDTH**tile.level)
