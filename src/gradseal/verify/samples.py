"""Samples out of a bundle, each opened against the data root.

The leaf hashes are read whole and must have the manifest's root; a sample's bytes must have its leaf hash.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from gradseal.errors import CorruptBlob, MalformedBundle, naming
from gradseal.program.samples import SampleSchema
from gradseal.proof.files import Files, blob_path, read_blob
from gradseal.proof.manifest import Data
from gradseal.proof.merkle import root_of

MAX_SHARD_BYTES = 1 << 30
_CACHED_BYTES = 64 << 20
_HASHED_BYTES = 1 << 20


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
        if root_of(self._leaves) != data.root:
            raise CorruptBlob(
                "the samples' leaf hashes do not have the data root", where=blob_path(data.leaves)
            )
        self._shards = self._read_list(data.shards, -(-data.samples // data.shard_samples), "shards")
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._cached_bytes = 0
        self.bytes_hashed = 0

    def samples(self, indices: Iterable[int]) -> list[bytes]:
        """The bytes of these samples.

        Raises:
            CorruptBlob: A sample is not what was committed; names it.
            MissingFile: Its shard is not there.
        """
        numbers = [int(i) for i in indices]
        samples = [self._sample(i) for i in numbers]
        for number, leaf in zip(numbers, self._schema.leaves(samples), strict=True):
            if leaf != self._leaves[number]:
                raise CorruptBlob("is not the sample that was committed", where=f"sample {number}")
        return samples

    def check_all(self, progress: Callable[[int], None]) -> None:
        """Opens every sample; raises as `samples` does."""
        # Few at a time: a shard may be large, and each sample is copied to be hashed.
        width = max(1, _HASHED_BYTES // self._schema.size_bytes)
        for first in range(0, self._data.samples, width):
            self.samples(range(first, min(first + width, self._data.samples)))
            progress(self.bytes_hashed)

    def _sample(self, index: int) -> bytes:
        number, place = divmod(index, self._data.shard_samples)
        size = self._sample_bytes
        return self._shard(number)[place * size : (place + 1) * size]

    def _shard(self, number: int) -> bytes:
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        held = min(self._data.shard_samples, self._data.samples - number * self._data.shard_samples)
        size_bytes = held * self._schema.size_bytes
        first = number * self._data.shard_samples
        with naming(f"samples {first} to {first + held - 1}"):
            data = read_blob(self._files, self._shards[number], size_bytes)
        if len(data) != size_bytes:
            raise CorruptBlob(
                f"{len(data)} bytes are not {held} samples (shard {number})",
                where=blob_path(self._shards[number]),
            )
        self.bytes_hashed += len(data)
        self._cache[number] = data
        self._cached_bytes += len(data)
        while self._cached_bytes > _CACHED_BYTES and len(self._cache) > 1:
            self._cached_bytes -= len(self._cache.popitem(last=False)[1])
        return data

    def _read_list(self, digest: bytes, count: int, what: str) -> list[bytes]:
        data = read_blob(self._files, digest, 32 * count)
        if len(data) != 32 * count:
            raise MalformedBundle(f"{len(data)} bytes are not {count} {what}", where=blob_path(digest))
        return [data[i : i + 32] for i in range(0, len(data), 32)]
