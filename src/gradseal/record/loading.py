"""Reading samples as the user's `DataLoader` reads them: here, or in its worker processes.

Whoever reads a sample also encodes and hashes it, so that workers leave only the comparison of hashes to the
training process. Batches come in the order that they are asked for. Without workers none is read ahead; with
workers, the training process itself never opens the data set. Torch's own generators are left alone.
A worker that is killed is an error of ours when it is waited for; between batches, torch's own signal handler
may raise a RuntimeError first.
"""

from __future__ import annotations

import functools
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pickle import PicklingError
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from gradseal.errors import CaptureError, Error
from gradseal.program.batches import Encoder, batch_of, schema_of
from gradseal.program.samples import SampleSchema

_LONGEST_MESSAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Samples that were read, encoded and hashed together.

    Args:
        numbers: Which.
        rows: The bytes of each in a row: uint8 of shape (samples, bytes of a sample).
        leaves: Their leaf hashes, one after another.
    """

    numbers: Sequence[int]
    rows: torch.Tensor
    leaves: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """How a `DataLoader` runs its workers; the arguments are named as there."""

    num_workers: int
    batch_size: int
    prefetch_factor: int | None
    worker_init_fn: Callable[[int], None] | None
    multiprocessing_context: Any
    timeout: float
    pin_memory: bool

    @classmethod
    def of(cls, loader: DataLoader[Any]) -> Workers | None:
        """The workers of a loader; None where it has none."""
        if not loader.num_workers:
            return None
        return cls(
            num_workers=loader.num_workers,
            batch_size=loader.batch_size or 1,
            prefetch_factor=loader.prefetch_factor,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            timeout=loader.timeout,
            pin_memory=loader.pin_memory,
        )


class Source:
    """A map-style data set, read here or by workers.

    Args:
        dataset: `len` and `[index]`; its `__getitems__` is used where it has one, as a `DataLoader` does.
        workers: Which processes read it; None for this one.
    """

    def __init__(self, dataset: Any, workers: Workers | None = None) -> None:
        self.dataset = dataset
        self.workers = workers

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        """A sample, from which a schema can be made; from workers it comes with tensors for its numbers.

        Raises:
            CaptureError: The data set cannot give it, or the worker cannot run.
        """
        if self.workers is None:
            return _samples(self.dataset, [index])[0]
        reader = _Reader(self.dataset, None)
        with closing(
            _by_workers(reader, self.workers, iter([[index]]), CaptureError, processes=1)
        ) as samples:
            return next(samples)[1]

    def fetch(
        self,
        schema: SampleSchema,
        batches: Iterable[Iterable[int]],
        *,
        failure: type[Error],
        pinned: bool = False,
        processes: int | None = None,
    ) -> Generator[Fetched, None, None]:
        """The samples of each batch in turn; closing the generator stops the workers.

        Args:
            schema: What a sample is.
            batches: The numbers of the samples, none empty.
            failure: What a sample that cannot be read or encoded raises.
            pinned: Whether workers' samples come in pinned memory, where their loader asked for that.
            processes: How many workers at most.

        Raises:
            Error: A `failure`, which names the sample; or a worker died, or could not be started.
        """
        reader = _Reader(self.dataset, Encoder(schema))
        numbered = ([int(i) for i in batch] for batch in batches)
        if self.workers is None:
            for numbers in numbered:
                rows, leaves = _checked(reader.__getitems__(numbers), failure)
                yield Fetched(numbers=numbers, rows=rows, leaves=leaves)
            return
        with closing(
            _by_workers(reader, self.workers, numbered, failure, pinned=pinned, processes=processes)
        ) as read:
            for numbers, (rows, leaves) in read:
                yield Fetched(numbers=numbers, rows=rows, leaves=leaves)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """What went wrong in a worker; as a value, since torch would make another exception of one."""

    error: Error
    trace: str


class _Reader(Dataset[Any]):
    """The data set as workers are given it: a batch of it is encoded and hashed, or is what went wrong.

    Args:
        dataset: The user's.
        encoder: Of its samples; None to give one sample as it is.
    """

    def __init__(self, dataset: Any, encoder: Encoder | None) -> None:
        self.dataset = dataset
        self._encoder = encoder

    def __getitems__(self, numbers: list[int]) -> Any:
        try:
            samples = _samples(self.dataset, numbers)
            if self._encoder is None:
                return _plain(samples[0])
            rows = self._encoder.rows(samples, numbers)
        except Error as e:
            return _Failure(error=e, trace="".join(traceback.format_exception(e)))
        return torch.from_numpy(rows), self._encoder.schema.leaves_of(rows.data.cast("B"))


def _samples(dataset: Any, numbers: Sequence[int]) -> list[Any]:
    """The samples as a `DataLoader` would read them; the data set's own exceptions name the sample."""
    number = numbers[0]
    together = bool(getattr(dataset, "__getitems__", None))
    samples = []
    try:
        if together:
            samples = list(dataset.__getitems__(list(numbers)))
        else:
            for number in numbers:
                samples.append(dataset[number])
    except Exception as e:  # the user's code may raise anything
        more = f", or one of the {len(numbers) - 1} read with it" if together and len(numbers) > 1 else ""
        raise CaptureError(
            f"the data set raised {type(e).__name__}: {str(e)[:_LONGEST_MESSAGE]}",
            where=f"data[{number}]{more}",
        ) from e
    if len(samples) != len(numbers):
        raise CaptureError(
            f"__getitems__ gave {len(samples)} samples for {len(numbers)} numbers", where="data"
        )
    return samples


def _plain(sample: Any) -> Any:
    """The sample in tensors and plain containers: what else it may be made of might not leave the worker."""
    schema = schema_of(sample)
    rows = torch.from_numpy(Encoder(schema).rows([sample], [0]))
    return schema.unflatten([leaf[0] for leaf in batch_of(schema, rows, torch.device("cpu"))])


def _by_workers(
    reader: _Reader,
    workers: Workers,
    batches: Iterator[list[int]],
    failure: type[Error],
    *,
    pinned: bool = False,
    processes: int | None = None,
) -> Generator[tuple[list[int], Any], None, None]:
    """What the reader gives for each batch, in order, from worker processes."""
    asked: deque[list[int]] = deque()

    def noted() -> Iterator[list[int]]:
        for numbers in batches:
            asked.append(numbers)
            yield numbers

    generator = torch.Generator()
    generator.seed()
    loader: DataLoader[Any] = DataLoader(
        reader,
        batch_sampler=noted(),
        collate_fn=_as_it_is,
        num_workers=min(workers.num_workers, processes or workers.num_workers),
        prefetch_factor=workers.prefetch_factor,
        worker_init_fn=functools.partial(_begin_worker, workers.worker_init_fn),
        multiprocessing_context=workers.multiprocessing_context,
        timeout=workers.timeout,
        pin_memory=workers.pin_memory and pinned,
        # Of its own: a loader draws its workers' seeds from torch's, which the recorded run depends on.
        generator=generator,
    )
    results: Any = _started(loader)
    try:
        while (result := _next(results, failure)) is not None:
            yield asked.popleft(), _checked(result, failure)
    finally:
        # Not left to the garbage collector: an exception that is kept would keep the workers. And torch
        # raises wherever it learns that a worker was killed, even in here, where it says nothing new.
        with suppress(RuntimeError):
            results._shutdown_workers()


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    try:
        with warnings.catch_warnings():
            # Torch warns of what cannot be pickled, and raises; the error says it.
            warnings.simplefilter("ignore")
            return iter(loader)
    except (PicklingError, AttributeError, TypeError) as e:
        raise CaptureError(
            f"the data set or its loader's worker_init_fn cannot be sent to a worker process: {e}",
            where="data",
            advice="define them at a module's top level, without lambdas or open files; or num_workers=0",
        ) from e
    except OSError as e:
        raise CaptureError(f"workers could not be started: {e}", where="data") from e


def _next(results: Iterator[Any], failure: type[Error]) -> Any:
    """The next result, or None after the last."""
    try:
        return next(results, None)
    except Error:
        raise
    except Exception as e:  # a dead worker, one too late, or what worker_init_fn raised
        raise failure(
            f"a worker that reads the data failed or was killed: {str(e)[:_LONGEST_MESSAGE]}",
            where="data",
            advice="with num_workers=0 the data is read in this process, and an error of its own shows",
        ) from e


def _checked(result: Any, failure: type[Error]) -> Any:
    """A reader's result, or its failure raised."""
    if not isinstance(result, _Failure):
        return result
    error = failure(result.error.message, where=result.error.where, advice=result.error.advice)
    if result.error.__traceback__ is None:
        error.add_note(f"in the worker:\n{result.trace}")
    raise error from result.error


def _begin_worker(init: Callable[[int], None] | None, worker: int) -> None:
    """What a worker begins with: its data set is the user's own, for the user's code that asks for it."""
    info: Any = get_worker_info()
    object.__setattr__(info, "dataset", info.dataset.dataset)  # torch's own record of it is frozen
    if init is not None:
        init(worker)


def _as_it_is(batch: Any) -> Any:
    return batch
