"""A proof as the released implementation of proof-of-learning leaves it: a folder.

Source: Jia et al. 2021, "Proof-of-Learning: Definitions and Practice", and the code released with it. The
folder has `model_step_T` for every k-th step T from 0 and for the last (a `torch.save` of `net`, `optimizer`
and, where there was one, `scheduler`), `indices.npy` (which samples each step took: steps × batch size) and
`hash.txt`. The architecture, the loss and the data are not in it.

`released_inputs` reads the folders of the code that broke it, which hold the samples themselves.

Nobody vouches for the folder: names are matched strictly, links are not followed, sizes and counts are
bounded before anything is loaded, and nothing is unpickled but plain tensors. Whether the checkpoints fit a
model is `released_state`'s to see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from gradseal.errors import CaptureError, MalformedBundle, MissingFile
from gradseal.record.released_names import RELEASED, Naming
from gradseal.record.torch_files import check_regular, read_torch_file

INDICES = "indices.npy"
MAX_PRESENTED = 1 << 27
"""How many samples all steps together may take."""

MAX_INDICES_BYTES = 8 * MAX_PRESENTED + 4096

_NO_ARRAY = (
    ValueError,
    TypeError,
    SyntaxError,
    EOFError,
    OSError,
    OverflowError,
    MemoryError,
    RecursionError,
)
_NUMPY_MAGIC = b"\x93NUMPY"
_PARTS = frozenset({"net", "optimizer", "scheduler"})

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One saved state, its tensors mapped from the file; nothing in it is checked but its parts' types.

    Args:
        path: The file.
        step: How many steps came before.
        net: The model's state dict.
        optimizer: The optimizer's, if there is one.
        scheduler: The scheduler's, if there is one.
    """

    path: Path
    step: int
    net: Mapping[Any, Any]
    optimizer: Mapping[Any, Any] | None
    scheduler: Mapping[Any, Any] | None


class SamplesAsPresented(Dataset[Any]):
    """The samples in the order in which the proof says that they were taken; read when they are asked for.

    Args:
        dataset: Of which the proof names samples by number.
        indices: The numbers, one after another.
    """

    def __init__(self, dataset: Any, indices: Indices) -> None:
        self._dataset = dataset
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Any:
        return self._dataset[int(self._indices[index])]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedProof:
    """A folder whose names, numbers and order of samples are well-formed.

    Args:
        folder: Where it is.
        steps: How many steps it claims.
        every: How many steps lie between checkpoints; the last interval may be shorter.
        batch_size: How many samples a step takes.
        samples: From the data set to the samples of all steps, one after another.
        naming: How its checkpoints are named.
    """

    folder: Path
    steps: int
    every: int
    batch_size: int
    samples: Callable[[Any], Any]
    naming: Naming = RELEASED

    @property
    def checkpoint_steps(self) -> list[int]:
        """The steps before which there is a checkpoint, and the last."""
        return [*range(0, self.steps, self.every), self.steps]

    def checkpoints(self, limit_bytes: int) -> Iterator[Checkpoint]:
        """Every checkpoint in turn; only what is kept of one stays in memory.

        Args:
            limit_bytes: How large a checkpoint may be, as a file and unpacked.

        Raises:
            MissingFile: One is gone.
            MalformedBundle: One is not what it should be, or above a limit; names file and field.
        """
        for step in self.checkpoint_steps:
            yield _checkpoint(self.naming.path(self.folder, step), step, limit_bytes)


def read_released(folder: str | Path, *, samples: int, batch_size: int | None = None) -> ReleasedProof:
    """Reads all of a folder but its checkpoints' contents.

    Args:
        folder: The directory.
        samples: How many samples the data set has that the proof names by number.
        batch_size: Samples in a step; needed if `indices.npy` has one dimension only, else it must agree.

    Raises:
        MissingFile: There is no such folder, or it lacks a file.
        MalformedBundle: A file is not what it should be, or above a limit; names file and field.
        CaptureError: The folder cannot be read without a batch size, or contradicts the one given.
    """
    folder = Path(folder)
    check_folder(folder)
    RELEASED.steps_in(folder)  # before indices.npy is missed
    indices, batch = _read_indices(folder / INDICES, samples, batch_size)
    steps, every = RELEASED.interval(folder, -(-len(indices) // batch))
    return ReleasedProof(
        folder=folder,
        steps=steps,
        every=every,
        batch_size=batch,
        samples=lambda dataset: SamplesAsPresented(dataset, indices),
    )


def check_folder(folder: Path) -> None:
    """Refuses what is no directory.

    Raises:
        MissingFile: It is none.
    """
    if not folder.is_dir():
        what = "is a file, and a released proof is a folder" if folder.exists() else "there is no such folder"
        raise MissingFile(what, where=str(folder))


def read_array(path: Path, limit_bytes: int) -> npt.NDArray[Any]:
    """An array of `numpy.save`, mapped from its file.

    Raises:
        MissingFile: There is no such file.
        MalformedBundle: It is something else, larger than its file or than the limit, or of objects.
    """
    where = str(path)
    check_regular(path, limit_bytes)
    with path.open("rb") as file:
        if file.read(len(_NUMPY_MAGIC)) != _NUMPY_MAGIC:
            raise MalformedBundle("is no array as numpy.save writes it", where=where)
    try:
        # Mapped: an array that says it is larger than its file is refused before memory is asked for.
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except _NO_ARRAY as e:
        raise MalformedBundle(f"numpy cannot load it: {str(e)[:200]}", where=where) from e
    return array


def _read_indices(path: Path, samples: int, batch_size: int | None) -> tuple[Indices, int]:
    """The numbers of all samples in order, and the batch size."""
    where = str(path)
    table = _numbers(path)
    if table.ndim == 1 and batch_size is None:
        raise CaptureError(
            "has one dimension, so it does not say how many samples a step takes",
            where=where,
            advice="say it: --batch-size NUMBER",
        )
    batch = int(table.shape[1]) if table.ndim == 2 else int(batch_size or 0)
    if batch_size is not None and batch != batch_size:
        raise CaptureError(f"has batches of {batch} samples, not of {batch_size}", where=where)
    least, most = int(table.min()), int(table.max())
    if least < 0 or most >= samples:
        wrong = least if least < 0 else most
        raise MalformedBundle(
            f"names sample {wrong}, but the data set has samples 0 to {samples - 1}",
            where=where,
            advice="name the recipe with the data that the proof was made on",
        )
    return np.ascontiguousarray(table.reshape(-1), dtype=np.int64), batch


def _numbers(path: Path) -> npt.NDArray[Any]:
    """The array in `indices.npy`, of one or two dimensions and of whole numbers."""
    where = str(path)
    table = read_array(path, MAX_INDICES_BYTES)
    if table.dtype.kind not in "iu" or table.ndim not in (1, 2):
        raise MalformedBundle(
            f"is {table.dtype} of {table.ndim} dimensions, not whole numbers, steps × batch size", where=where
        )
    if not 1 <= table.size <= MAX_PRESENTED:
        raise MalformedBundle(
            f"names {table.size:,} samples; it may name 1 to {MAX_PRESENTED:,}", where=where
        )
    return table


def _checkpoint(path: Path, step: int, limit_bytes: int) -> Checkpoint:
    held = read_torch_file(path, limit_bytes)
    where = str(path)
    if not isinstance(held, dict) or "net" not in held:
        raise MalformedBundle("has no 'net', the model's state dict", where=where)
    if unknown := [key for key in held if key not in _PARTS]:
        raise MalformedBundle(
            f"has {str(unknown[0])[:100]!r} besides net, optimizer and scheduler", where=where
        )
    for part, value in held.items():
        if not isinstance(value, dict):
            raise MalformedBundle("is no state dict", where=f"{where}: {part}")
    return Checkpoint(
        path=path,
        step=step,
        net=held["net"],
        optimizer=held.get("optimizer"),
        scheduler=held.get("scheduler"),
    )
