"""Samples out of a bundle, each opened against the data root.

The leaf hashes are read whole and must have the manifest's root. A shard's bytes must have the digest that
the manifest's list gives, each time that they are read. Every sample that is handed out was hashed to its
leaf by this reader, once for as long as its shard stays in memory. Nothing is taken over from another reader:
a worker hashes all that it uses, whatever the integrity checks hashed before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradseal.errors import CorruptBlob, MalformedBundle, naming
from gradseal.program.samples import SampleSchema
from gradseal.proof.files import Files, blob_path, read_blob
from gradseal.proof.manifest import Data
from gradseal.proof.merkle import HASH_SIZE, root_of

MAX_SHARD_BYTES = 1 << 30
_CACHED_BYTES = 256 << 20
_HASHED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shard:
    """A shard in memory, and for each of its samples whether it was hashed to its leaf (1) or not yet (0)."""

    data: bytes
    checked: bytearray

    @property
    def size_bytes(self) -> int:
        return len(self.data) + len(self.checked)


class SampleReader:
    """Reads samples by number.

    Args:
        files: The bundle.
        data: The manifest's commitment.
        schema: What a sample's bytes are.

    Raises:
        CorruptBlob: The leaf hashes do not have the root.
        MissingFile, MalformedBundle: A list is missing or of the wrong length.
    """

    def __init__(self, files: Files, data: Data, schema: SampleSchema) -> None:
        self._files = files
        self._data = data
        self._schema = schema
        self._sample_bytes = schema.size_bytes
        held = min(data.shard_samples, data.samples) * schema.size_bytes
        if held > MAX_SHARD_BYTES:
            raise MalformedBundle(
                f"shards of {held} bytes, more than the {MAX_SHARD_BYTES} allowed",
                where="entry 0: data.shard_samples",
            )
        self._leaves = self._read_list(data.leaves, data.samples, "leaf hashes")
        if root_of(_pieces(self._leaves, HASH_SIZE)) != data.root:
            raise CorruptBlob(
                "the samples' leaf hashes do not have the data root", where=blob_path(data.leaves)
            )
        self._shards = self._read_list(data.shards, -(-data.samples // data.shard_samples), "shards")
        self._truths = _truths(schema)
        self._cache: OrderedDict[int, _Shard] = OrderedDict()
        self._cached_bytes = 0
        self.bytes_hashed = 0

    def samples(self, indices: Iterable[int]) -> list[bytes]:
        """The bytes of these samples.

        Raises:
            CorruptBlob: A sample is not what was committed; names it.
            MissingFile: Its shard is not there.
        """
        return [self._sample(int(i)) for i in indices]

    def check_all(self, progress: Callable[[int], None]) -> None:
        """Opens every sample; raises as `samples` does, and for a truth value that is neither 0 nor 1."""
        for number in range(len(self._shards) // HASH_SIZE):
            # Past the cache, which one reading of each shard in turn would only fill.
            self._check(number, self._read_shard(number))
            progress(self.bytes_hashed)

    def _check(self, number: int, data: bytes) -> None:
        """Refuses a shard in which a sample has not its leaf."""
        first, size = number * self._data.shard_samples, self._sample_bytes
        self._check_truth_values(number, data)
        # Few at a time, and in one comparison.
        width = max(1, _HASHED_BYTES // size)
        for start in range(0, len(data) // size, width):
            leaves = self._schema.leaves_of(memoryview(data)[start * size : (start + width) * size])
            at = (first + start) * HASH_SIZE
            if leaves == self._leaves[at : at + len(leaves)]:
                continue
            for i, leaf in enumerate(_pieces(leaves, HASH_SIZE)):
                self._check_leaf(first + start + i, leaf)

    def _check_truth_values(self, number: int, data: bytes) -> None:
        if self._truths is None:
            return
        rows = np.frombuffer(data, np.uint8).reshape(-1, self._sample_bytes)
        # A reduction, which needs no array of the shard's size.
        if np.maximum.reduce(rows, axis=None, where=self._truths, initial=0) > 1:
            first = number * self._data.shard_samples
            raise CorruptBlob(
                "a truth value that is neither 0 nor 1", where=f"samples {first} to {first + len(rows) - 1}"
            )

    def _check_leaf(self, index: int, leaf: bytes) -> None:
        if leaf != self._leaves[index * HASH_SIZE : (index + 1) * HASH_SIZE]:
            raise CorruptBlob("is not the sample that was committed", where=f"sample {index}")

    def _sample(self, index: int) -> bytes:
        number, place = divmod(index, self._data.shard_samples)
        shard = self._shard(number)
        # A copy, so that a batch does not keep whole shards in memory.
        sample = shard.data[place * self._sample_bytes : (place + 1) * self._sample_bytes]
        if not shard.checked[place]:
            self._check_leaf(index, self._schema.leaf(sample))
            shard.checked[place] = 1
        return sample

    def _shard(self, number: int) -> _Shard:
        shard = self._cache.get(number)
        if shard is not None:
            self._cache.move_to_end(number)
            return shard
        data = self._read_shard(number)
        shard = _Shard(data=data, checked=bytearray(len(data) // self._sample_bytes))
        self._cache[number] = shard
        self._cached_bytes += shard.size_bytes
        while self._cached_bytes > _CACHED_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].size_bytes
        return shard

    def _read_shard(self, number: int) -> bytes:
        """A shard that has its digest and its length."""
        first = number * self._data.shard_samples
        held = min(self._data.shard_samples, self._data.samples - first)
        size_bytes = held * self._sample_bytes
        digest = self._shards[number * HASH_SIZE : (number + 1) * HASH_SIZE]
        with naming(f"samples {first} to {first + held - 1}"):
            data = read_blob(self._files, digest, size_bytes)
        if len(data) != size_bytes:
            raise CorruptBlob(
                f"{len(data)} bytes are not {held} samples (shard {number})", where=blob_path(digest)
            )
        self.bytes_hashed += len(data)
        return data

    def _read_list(self, digest: bytes, count: int, what: str) -> bytes:
        """Digests, one after another."""
        data = read_blob(self._files, digest, HASH_SIZE * count)
        if len(data) != HASH_SIZE * count:
            raise MalformedBundle(f"{len(data)} bytes are not {count} {what}", where=blob_path(digest))
        return data


def _truths(schema: SampleSchema) -> npt.NDArray[np.bool_] | None:
    """Which bytes of a sample are truth values; None if none is."""
    if all(field.dtype != "bool" for field in schema.fields):
        return None
    found, end = np.zeros(schema.size_bytes, np.bool_), 0
    for field in schema.fields:
        start, end = end, end + field.size_bytes
        found[start:end] = field.dtype == "bool"
    return found


def _pieces(data: bytes, size_bytes: int) -> Iterator[bytes]:
    return (data[i : i + size_bytes] for i in range(0, len(data), size_bytes))
