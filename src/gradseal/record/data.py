"""Committing to a data set, and fetching samples that are what was committed.

One pass reads every sample, stores its bytes in shards and hashes it into the data's tree. During training
each sample is read from the data set again and must still have its leaf hash: a random transform would
otherwise train on what was never committed. Who reads, this process or a loader's workers, is `loading`'s.
Format: docs/spec/bundle.md, section 6.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from gradseal.errors import CaptureError, RecordError
from gradseal.program.batches import batch_of, collate
from gradseal.program.samples import SampleSchema
from gradseal.proof.manifest import Data
from gradseal.proof.merkle import HASH_SIZE, root_of
from gradseal.proof.writer import BlobWriter
from gradseal.record.loading import Fetched, Source, Workers

SHARD_BYTES = 1 << 20

_SAMPLERS: dict[type, bool] = {RandomSampler: True, SequentialSampler: False}


class CommittedData:
    """A data set whose samples are committed.

    Args:
        dataset: A map-style data set, or what `dataset_of` made of one.
        schema: What its samples are.
        leaves: Each sample's leaf hash, one after another.
        commitment: What the manifest says of it.
    """

    def __init__(self, dataset: Any, schema: SampleSchema, leaves: bytes, commitment: Data) -> None:
        self._source = _source_of(dataset)
        self.schema = schema
        self._leaves = leaves
        self.commitment = commitment

    def stream(
        self, batches: Iterable[Iterable[int]], device: torch.device
    ) -> Generator[list[torch.Tensor], None, None]:
        """The leaves of each batch in turn, its samples fetched anew.

        Without workers, a batch is fetched when it is asked for. With workers, they are started once for all
        batches and read ahead as their loader says; close the generator to stop them.

        Args:
            batches: The numbers of each batch's samples.
            device: Where the leaves go.

        Raises:
            RecordError: A sample is no longer what was committed, or cannot be read; names it.
            CaptureError: Workers cannot be started.
        """
        return self._stream(batches, device, processes=None)

    def batch(self, indices: Iterable[int], device: torch.device) -> list[torch.Tensor]:
        """The leaves of the batch of these samples, fetched anew.

        Raises:
            RecordError: A sample is no longer what was committed, or cannot be read; names it.
            CaptureError: A worker cannot be started.
        """
        with closing(self._stream([indices], device, processes=1)) as batches:
            return next(batches)

    def _stream(
        self, batches: Iterable[Iterable[int]], device: torch.device, *, processes: int | None
    ) -> Generator[list[torch.Tensor], None, None]:
        fetching = self._source.fetch(
            self.schema, batches, failure=RecordError, pinned=device.type == "cuda", processes=processes
        )
        with closing(fetching):
            for fetched in fetching:
                self._check(fetched)
                yield batch_of(self.schema, fetched.rows, device)

    def _check(self, fetched: Fetched) -> None:
        committed = [self._leaves[HASH_SIZE * n : HASH_SIZE * (n + 1)] for n in fetched.numbers]
        if fetched.leaves == b"".join(committed):
            return
        for i, (number, leaf) in enumerate(zip(fetched.numbers, committed, strict=True)):
            if fetched.leaves[HASH_SIZE * i : HASH_SIZE * (i + 1)] != leaf:
                raise RecordError(
                    "a sample is not the one that was committed before training",
                    where=f"data[{number}]",
                    advice="random transforms cannot be recorded; apply them beforehand, or inside the model "
                    "with torch's own randomness",
                )


def dataset_of(data: Any, *, batch_size: int, shuffle: bool, drop_last: bool) -> Source:
    """The map-style data set in `data`, which may be a `DataLoader` around one that makes the same batches.

    A loader's workers come with it.

    Raises:
        CaptureError: An iterable data set, a collation or order of one's own, a loader that contradicts the
            other arguments, or not a data set.
    """
    workers = None
    if isinstance(data, DataLoader):
        workers = Workers.of(data)
        if not isinstance(data.dataset, IterableDataset):
            _check_loader(data, batch_size=batch_size, shuffle=shuffle, drop_last=drop_last)
        data = data.dataset
    if isinstance(data, IterableDataset) or not hasattr(data, "__getitem__"):
        raise CaptureError(
            f"{type(data).__name__} gives samples only one after another",
            where="data",
            advice="use a map-style data set, with __len__ and __getitem__, so that a sample has a number",
        )
    if not hasattr(data, "__len__"):
        raise CaptureError(f"{type(data).__name__} has no length", where="data")
    if len(data) == 0:
        raise CaptureError("the data set is empty", where="data")
    return Source(data, workers)


def _check_loader(loader: DataLoader[Any], *, batch_size: int, shuffle: bool, drop_last: bool) -> None:
    """Refuses a loader that would make other batches than the recording does."""
    if loader.collate_fn is not default_collate:
        raise CaptureError(
            "a collate_fn of one's own cannot be replayed without its code",
            where="data",
            advice="do its work in the data set's __getitem__, so that samples stack",
        )
    if not _plain(loader):
        raise CaptureError(
            "a sampler of one's own cannot be replayed without its code",
            where="data",
            advice="hand over the data set; record shuffles it from the run's seed",
        )
    has = {
        "batch_size": loader.batch_size,
        "shuffle": _SAMPLERS[type(loader.sampler)],
        "drop_last": loader.drop_last,
    }
    wanted = {"batch_size": batch_size, "shuffle": shuffle, "drop_last": drop_last}
    other = [name for name, value in has.items() if value != wanted[name]]
    if other:
        said = ", ".join(f"{name}={has[name]}" for name in other)
        asked = ", ".join(f"{name}={wanted[name]}" for name in other)
        raise CaptureError(
            f"the DataLoader has {said}, but record was given {asked}",
            where=other[0],
            advice=f"build the DataLoader with {asked}, or hand over the data set itself",
        )


def _plain(loader: DataLoader[Any]) -> bool:
    """Whether a loader takes each sample once an epoch, in order or in torch's own random order."""
    sampler = loader.sampler
    if isinstance(sampler, RandomSampler) and (
        sampler.replacement or sampler.num_samples != len(loader.dataset)  # type: ignore[arg-type] # map-style
    ):
        return False
    return (
        type(loader.batch_sampler) is BatchSampler
        and loader.batch_size is not None
        and type(sampler) in _SAMPLERS
    )


def example(schema: SampleSchema, batch_size: int, device: torch.device) -> list[torch.Tensor]:
    """The leaves of a batch of so many samples, all zeros: a program is captured from shapes alone."""
    return collate(schema, [bytes(schema.size_bytes)] * batch_size, device)


def commit(
    dataset: Any, schema: SampleSchema, blobs: BlobWriter, progress: Callable[[int, int], None]
) -> CommittedData:
    """Reads every sample once, stores it, and commits to it.

    Args:
        dataset: A map-style data set with at least one sample, or what `dataset_of` made of one.
        schema: What its samples are.
        blobs: Where the samples go.
        progress: Called with the number of samples done and the number of all, now and then.

    Raises:
        CaptureError: A sample cannot be read or encoded, or is unlike the first; names sample and field.
    """
    source = _source_of(dataset)
    samples = len(source)
    shard_samples = max(1, SHARD_BYTES // schema.size_bytes)
    # Workers read in the batches that their loader's owner chose, as prefetching and time limits go by batch.
    together = min(shard_samples, source.workers.batch_size if source.workers else shard_samples)
    leaves, shards, shard = bytearray(), bytearray(), bytearray()
    with closing(
        source.fetch(schema, _pieces(samples, shard_samples, together), failure=CaptureError)
    ) as pieces:
        for fetched in pieces:
            leaves += fetched.leaves
            shard += fetched.rows.numpy().data.cast("B")
            done = len(leaves) // HASH_SIZE
            if done % shard_samples == 0 or done == samples:
                shards += blobs.put(bytes(shard))
                shard.clear()
                progress(done, samples)
    hashes = bytes(leaves)
    commitment = Data(
        root=root_of(hashes[i : i + HASH_SIZE] for i in range(0, len(hashes), HASH_SIZE)),
        samples=samples,
        schema=blobs.put(schema.encode()),
        leaves=blobs.put(hashes),
        shards=blobs.put(bytes(shards)),
        shard_samples=shard_samples,
    )
    return CommittedData(source, schema, hashes, commitment)


def _pieces(samples: int, shard_samples: int, together: int) -> Iterator[range]:
    """All samples in order, cut at the shards' ends and into pieces of at most so many."""
    for first in range(0, samples, shard_samples):
        end = min(first + shard_samples, samples)
        for start in range(first, end, together):
            yield range(start, min(start + together, end))


def _source_of(dataset: Any) -> Source:
    return dataset if isinstance(dataset, Source) else Source(dataset)
