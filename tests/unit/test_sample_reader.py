"""What a reader of samples hands out has been hashed to what was committed."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from gradseal.errors import CorruptBlob, MalformedBundle, MissingFile
from gradseal.program.samples import SampleSchema
from gradseal.program.tensors import TensorSpec
from gradseal.proof.files import blob_path
from gradseal.proof.manifest import Data
from gradseal.proof.merkle import root_of
from gradseal.verify import samples as reader_module
from gradseal.verify.samples import SampleReader
from memory_files import MemoryFiles

SCHEMA = SampleSchema(tree=TensorSpec(name="sample", dtype="uint8", shape=(4,)))
SAMPLES = [bytes([i, 0, i, 1]) for i in range(10)]
SHARD = 4


class Reads(MemoryFiles):
    """Counts how often each file is read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    def read(self, path: str, max_bytes: int) -> bytes:
        self.reads.append(path)
        return super().read(path, max_bytes)


def put(files: MemoryFiles, data: bytes) -> bytes:
    digest = hashlib.sha256(data).digest()
    files.content[blob_path(digest)] = data
    return digest


def stored(files: MemoryFiles, samples: list[bytes]) -> Data:
    """A commitment to `SAMPLES`, whose shards hold `samples`."""
    leaves = SCHEMA.leaves(SAMPLES)
    shards = [put(files, b"".join(samples[i : i + SHARD])) for i in range(0, len(samples), SHARD)]
    return Data(
        root=root_of(leaves),
        samples=len(SAMPLES),
        schema=put(files, SCHEMA.encode()),
        leaves=put(files, b"".join(leaves)),
        shards=put(files, b"".join(shards)),
        shard_samples=SHARD,
    )


def test_samples_by_number() -> None:
    files = MemoryFiles()
    reader = SampleReader(files, stored(files, SAMPLES), SCHEMA)
    for numbers in ([9, 0, 4, 4], [3], range(10)):
        assert reader.samples(numbers) == [SAMPLES[i] for i in numbers]


def test_a_sample_that_is_another_is_refused_each_time_and_its_neighbours_are_not() -> None:
    files = MemoryFiles()
    changed = [b"evil" if i == 5 else sample for i, sample in enumerate(SAMPLES)]
    data = stored(files, changed)
    reader = SampleReader(files, data, SCHEMA)
    for _ in range(2):
        assert reader.samples([4, 6]) == [SAMPLES[4], SAMPLES[6]]
        with pytest.raises(CorruptBlob, match="not the sample that was committed") as caught:
            reader.samples([4, 5])
        assert caught.value.where == "sample 5"
        with pytest.raises(CorruptBlob) as caught:
            reader.check_all(lambda done: None)
        assert caught.value.where == "sample 5"


def test_samples_in_each_others_place_are_refused() -> None:
    files = MemoryFiles()
    reader = SampleReader(files, stored(files, [SAMPLES[1], SAMPLES[0], *SAMPLES[2:]]), SCHEMA)
    with pytest.raises(CorruptBlob) as caught:
        reader.samples([1])
    assert caught.value.where == "sample 1"


def test_a_shard_that_memory_let_go_is_hashed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "_CACHED_BYTES", 1)
    files = Reads()
    data = stored(files, SAMPLES)
    reader = SampleReader(files, data, SCHEMA)
    reader.samples([0, 4])
    path = blob_path(hashlib.sha256(b"".join(SAMPLES[:SHARD])).digest())
    files.content[path] = b"evil" * SHARD
    with pytest.raises(CorruptBlob):
        reader.samples([0])


def test_a_shard_is_read_once_while_it_is_in_memory() -> None:
    files = Reads()
    reader = SampleReader(files, stored(files, SAMPLES), SCHEMA)
    files.reads.clear()
    for _ in range(3):
        reader.samples(range(10))
    assert len(files.reads) == len(set(files.reads)) == 3


def test_all_bytes_are_counted_once() -> None:
    files = MemoryFiles()
    reader = SampleReader(files, stored(files, SAMPLES), SCHEMA)
    told: list[int] = []
    reader.check_all(told.append)
    assert told[-1] == reader.bytes_hashed == sum(map(len, SAMPLES))


def test_lists_and_shards_of_another_length() -> None:
    files = MemoryFiles()
    data = stored(files, SAMPLES)
    for wrong in (
        replace(data, samples=9),
        replace(data, samples=11),
        replace(data, shard_samples=1),
        replace(data, leaves=put(files, b"".join(SCHEMA.leaves(SAMPLES))[:-1])),
    ):
        with pytest.raises((MalformedBundle, CorruptBlob)):
            SampleReader(files, wrong, SCHEMA)
    short = stored(files, SAMPLES[:-1])
    with pytest.raises(CorruptBlob, match="are not 2 samples"):
        SampleReader(files, short, SCHEMA).samples([8])
    with pytest.raises(MissingFile):
        SampleReader(files, replace(data, leaves=bytes(32)), SCHEMA)
