"""Committing to a data set, and fetching samples that are what was committed.

One pass reads every sample, stores its bytes in shards and hashes it into the data's tree. During training
each sample is read from the data set again and must still have its leaf hash: a random transform would
otherwise train on what was never committed. Format: docs/spec/bundle.md, section 6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
from gradseal.program.batches import collate, encode_sample
from gradseal.program.samples import SampleSchema
from gradseal.proof.manifest import Data
from gradseal.proof.merkle import root_of
from gradseal.proof.writer import BlobWriter

SHARD_BYTES = 1 << 20

_SAMPLERS: dict[type, bool] = {RandomSampler: True, SequentialSampler: False}


class CommittedData:
    """A data set whose samples are committed.

    Args:
        dataset: A map-style data set: `len` and `[index]`.
        schema: What its samples are.
        leaves: Each sample's leaf hash.
        commitment: What the manifest says of it.
    """

    def __init__(self, dataset: Any, schema: SampleSchema, leaves: Sequence[bytes], commitment: Data) -> None:
        self._dataset = dataset
        self.schema = schema
        self._leaves = leaves
        self.commitment = commitment

    def batch(self, indices: Iterable[int], device: torch.device) -> list[torch.Tensor]:
        """The leaves of the batch of these samples, fetched anew.

        Raises:
            RecordError: A sample is no longer what was committed.
        """
        numbers = [int(i) for i in indices]
        samples = [encode_sample(self.schema, self._dataset[i], i) for i in numbers]
        for number, leaf in zip(numbers, self.schema.leaves(samples), strict=True):
            if leaf != self._leaves[number]:
                raise RecordError(
                    "a sample is not the one that was committed before training",
                    where=f"data[{number}]",
                    advice="random transforms cannot be recorded; apply them beforehand, or inside the model "
                    "with torch's own randomness",
                )
        return collate(self.schema, samples, device)


def dataset_of(data: Any, *, batch_size: int, shuffle: bool, drop_last: bool) -> Any:
    """The map-style data set in `data`, which may be a `DataLoader` around one that makes the same batches.

    Raises:
        CaptureError: An iterable data set, a collation or order of one's own, a loader that contradicts the
            other arguments, or not a data set.
    """
    if isinstance(data, DataLoader):
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
    return data


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
    for name, value in has.items():
        if value != wanted[name]:
            raise CaptureError(
                f"the DataLoader has {name}={value}, but record was given {wanted[name]}",
                where=name,
                advice=f"give record {name}={value}, or hand over the data set itself",
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
        dataset: A map-style data set with at least one sample.
        schema: What its samples are.
        blobs: Where the samples go.
        progress: Called with the number of samples done and the number of all, now and then.

    Raises:
        CaptureError: A sample cannot be encoded, or is unlike the first; names sample and field.
    """
    shard_samples = max(1, SHARD_BYTES // schema.size_bytes)
    leaves: list[bytes] = []
    shards: list[bytes] = []
    for first in range(0, len(dataset), shard_samples):
        numbers = range(first, min(first + shard_samples, len(dataset)))
        samples = [encode_sample(schema, dataset[i], i) for i in numbers]
        leaves += schema.leaves(samples)
        shards.append(blobs.put(b"".join(samples)))
        progress(len(leaves), len(dataset))
    commitment = Data(
        root=root_of(leaves),
        samples=len(leaves),
        schema=blobs.put(schema.encode()),
        leaves=blobs.put(b"".join(leaves)),
        shards=blobs.put(b"".join(shards)),
        shard_samples=shard_samples,
    )
    return CommittedData(dataset, schema, leaves, commitment)
