"""A proof as the released attacks on proof-of-learning leave it: a folder that has its own samples.

Source: Fang et al. 2023, "Proof-of-Learning is Currently More Broken Than You Think", and the code released
with it. The folder has `model_T.pt` for every k-th step T from 0 and for the last, a `torch.save` of `net`
alone, and for each interval from step T the samples themselves: `data_T.npy` (steps × batch size × an image)
and `label_T.npy` (steps × batch size). So its maker may show any samples at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from gradseal.errors import CaptureError, MalformedBundle
from gradseal.record.released import (
    MAX_PRESENTED,
    ReleasedProof,
    check_folder,
    read_array,
    read_released,
)
from gradseal.record.released_names import ATTACKS, RELEASED

MAX_INPUT_BYTES = 1 << 36
"""Of one interval's samples, which are mapped and read one after another."""

Array = npt.NDArray[Any]


class OwnSamples(Dataset[Any]):
    """The samples that a folder has, in order; each is an image and its class.

    Args:
        intervals: The arrays of each interval, one row a sample; mapped, so not in memory.
    """

    def __init__(self, intervals: Sequence[tuple[Array, Array]]) -> None:
        self._intervals = intervals
        self._ends = np.cumsum([len(labels) for _, labels in intervals])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        images, labels = self._intervals[number]
        place = index - int(self._ends[number])  # from the end of the interval
        return torch.from_numpy(np.array(images[place])), torch.from_numpy(np.array(labels[place]))


def read_proof(folder: str | Path, dataset: Any, *, batch_size: int | None = None) -> ReleasedProof:
    """Reads a folder of either kind but for its checkpoints' contents.

    Args:
        folder: The directory; with `model_0.pt` and no `model_step_0` it is one of the attacks'.
        dataset: Of which the proof names samples by number, or is to have samples like.
        batch_size: Samples in a step; see `read_released`.

    Raises:
        MissingFile: There is no such folder, or it lacks a file.
        MalformedBundle: A file is not what it should be, or above a limit; names file and field.
        CaptureError: The folder does not say its batch size, contradicts the one given, or the data set's
            samples are not images with classes.
    """
    folder = Path(folder)
    check_folder(folder)
    own = ATTACKS.path(folder, 0).exists() and not RELEASED.path(folder, 0).exists()
    if not own:
        return read_released(folder, samples=len(dataset), batch_size=batch_size)
    steps, every = ATTACKS.interval(folder)
    image, label = _example(dataset)
    starts = range(0, steps, every)
    arrays = [
        (_array(folder / f"data_{start}.npy", image, 2), _array(folder / f"label_{start}.npy", label, 2))
        for start in starts
    ]
    batch = int(arrays[0][1].shape[1])
    if batch_size not in (None, batch):
        raise CaptureError(f"has batches of {batch} samples, not of {batch_size}", where=str(folder))
    if not 1 <= batch * steps <= MAX_PRESENTED:
        raise MalformedBundle(
            f"has {batch * steps:,} samples; it may have 1 to {MAX_PRESENTED:,}", where=str(folder)
        )
    for start, both in zip(starts, arrays, strict=True):
        wanted = (min(every, steps - start), batch)
        for name, array in zip(("data", "label"), both, strict=True):
            if array.shape[:2] != wanted:
                raise MalformedBundle(
                    f"has {array.shape[0]} steps of {array.shape[1]} samples, not {wanted[0]} of {batch}",
                    where=str(folder / f"{name}_{start}.npy"),
                )
    rows = [(images.reshape(-1, *image.shape), labels.reshape(-1)) for images, labels in arrays]
    return ReleasedProof(
        folder=folder,
        steps=steps,
        every=every,
        batch_size=batch,
        samples=lambda dataset: OwnSamples(rows),
        naming=ATTACKS,
    )


def _example(dataset: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """An image and its class, as the data set has them.

    Raises:
        CaptureError: Its samples are something else.
    """
    match dataset[0]:
        case (torch.Tensor() as image, torch.Tensor() as label) if label.dim() == 0:
            return image, label
    raise CaptureError(
        "its samples are not tensors of an image and a class, which are all that such a proof has",
        where="data",
        advice="name the recipe with the data that the proof was made on",
    )


def _array(path: Path, like: torch.Tensor, dimensions: int) -> Array:
    """An array of as many leading dimensions before what is of the shape and type of a tensor.

    Raises:
        MissingFile: There is none.
        MalformedBundle: It is another.
    """
    array = read_array(path, MAX_INPUT_BYTES)
    own = like.numpy()
    if array.ndim != dimensions + own.ndim or (array.shape[dimensions:], array.dtype) != (
        own.shape,
        own.dtype,
    ):
        raise MalformedBundle(
            f"is {array.dtype} of shape {array.shape}, not steps × batch size of {own.dtype} {own.shape}",
            where=str(path),
            advice="name the recipe with the data that the proof was made on",
        )
    return array
