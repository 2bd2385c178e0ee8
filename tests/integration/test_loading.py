"""A data set is read as its `DataLoader` would read it, and what was read is what was committed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate, get_worker_info

from gradseal.errors import CaptureError, Error, RecordError
from gradseal.program.batches import schema_of
from gradseal.program.initialise import initialise
from gradseal.program.memory import to_bytes
from gradseal.program.samples import flatten
from gradseal.proof.files import blob_path
from gradseal.proof.manifest import Data
from gradseal.proof.note import SigningKey
from gradseal.proof.writer import BlobWriter
from gradseal.record import data as record_data
from gradseal.record.data import CommittedData, commit, dataset_of
from gradseal.record.recorder import record
from memory_files import MemoryFiles

CPU = torch.device("cpu")
SAMPLES = 37
BATCHES = [[3, 1, 2], [36, 0], [5, 5, 9]]


class Pictures(Dataset[Any]):
    """Samples of several kinds, which note who reads them."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.main = os.getpid()

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Any:
        self.read.append(index)
        self.act(index)
        return {"x": torch.full((2, 3), index, dtype=torch.uint8), "y": (index, index / 3)}

    def act(self, index: int) -> None:
        pass


def committed(dataset: Any, workers: int = 0, **options: Any) -> CommittedData:
    loader = DataLoader(dataset, batch_size=4, num_workers=workers, **options)
    source = dataset_of(loader, batch_size=4, shuffle=False, drop_last=False)
    return commit(source, schema_of(source[0]), BlobWriter(MemoryFiles()), lambda done, of: None)


def content(leaves: list[torch.Tensor]) -> list[tuple[torch.dtype, torch.Size, bytes]]:
    return [(leaf.dtype, leaf.shape, to_bytes(leaf)) for leaf in leaves]


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_data, "SHARD_BYTES", 220)  # ten of `Pictures`


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_is_what_torch_collates(workers: int) -> None:
    data = committed(Pictures(), workers)
    with closing(data.stream(BATCHES, CPU)) as stream:
        streamed = [content(leaves) for leaves in stream]
    pictures = Pictures()
    plain = [default_collate([pictures[i] for i in batch]) for batch in BATCHES]
    assert streamed == [content(list(flatten(data.schema.tree, batch))) for batch in plain]
    assert content(data.batch(BATCHES[1], CPU)) == streamed[1]


def test_workers_commit_to_the_same() -> None:
    def commitment(workers: int) -> Data:
        return committed(Pictures(), workers).commitment

    assert commitment(0) == commitment(2)
    assert commitment(0).samples == SAMPLES


def test_nothing_is_read_ahead_without_workers() -> None:
    pictures = Pictures()
    data = committed(pictures)
    pictures.read.clear()
    batches = iter(BATCHES)
    with closing(data.stream(batches, CPU)) as stream:
        assert pictures.read == []
        next(stream)
        assert pictures.read == BATCHES[0]
    assert list(batches) == BATCHES[1:]


def test_with_workers_the_data_set_is_only_read_there() -> None:
    class Elsewhere(Pictures):
        def act(self, index: int) -> None:
            if os.getpid() == self.main:
                raise AssertionError("read in the training process")

    data = committed(Elsewhere(), 1)
    assert len(list(data.stream(BATCHES, CPU))) == 3
    data.batch([1], CPU)


@pytest.mark.parametrize("workers", [0, 2])
def test_torchs_generator_is_left_alone(workers: int) -> None:
    before = torch.get_rng_state()
    data = committed(Pictures(), workers)
    list(data.stream(BATCHES, CPU))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_workers_beginning_is_the_users(tmp_path: Path) -> None:
    class Opened(Pictures):
        opened = False

        def act(self, index: int) -> None:
            if not self.opened:
                raise AssertionError("not opened")

    def begin(worker: int) -> None:
        info = get_worker_info()
        assert info is not None
        info.dataset.opened = True  # type: ignore[attr-defined] # it is an Opened
        (tmp_path / str(worker)).touch()

    data = committed(Opened(), 2, worker_init_fn=begin)
    assert len(list(data.stream(BATCHES, CPU))) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


class Failing(Pictures):
    """Fails at sample 9, once the file is there."""

    def __init__(self, sign: Path, how: str) -> None:
        super().__init__()
        self.sign = sign
        self.how = how

    def __getitem__(self, index: int) -> Any:
        sample = super().__getitem__(index)
        if index == 9 and self.sign.exists():
            if self.how == "changed":
                sample["y"] = (index, index / 4)
            elif self.how == "reshaped":
                sample["x"] = sample["x"][:1]
            elif self.how == "died":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.how == "left":
                os._exit(3)
            elif self.how == "slept":
                time.sleep(1)
            else:
                raise KeyError("no picture")
        return sample


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("how", "where", "message"),
    [
        ("changed", "data[9]", "not the one that was committed"),
        ("reshaped", "data[9], field x", "but the first sample has"),
        ("raised", "data[9]", "the data set raised KeyError: 'no picture'"),
    ],
)
def test_a_sample_at_fault_is_named(tmp_path: Path, how: str, where: str, message: str, workers: int) -> None:
    data = committed(Failing(tmp_path / "sign", how), workers)
    (tmp_path / "sign").touch()
    stream = data.stream(BATCHES, CPU)
    next(stream), next(stream)
    with pytest.raises(RecordError, match=message) as caught:
        next(stream)
    assert caught.value.where == where


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_that_cannot_be_committed_is_named(tmp_path: Path, workers: int) -> None:
    (tmp_path / "sign").touch()
    for how in ("reshaped", "raised"):
        with pytest.raises(CaptureError) as caught:
            committed(Failing(tmp_path / "sign", how), workers)
        assert caught.value.where.startswith("data[9]")


def test_the_users_own_traceback_is_shown(tmp_path: Path) -> None:
    (tmp_path / "sign").touch()
    with pytest.raises(CaptureError) as here:
        committed(Failing(tmp_path / "sign", "raised"))
    assert isinstance(here.value.__cause__, Error)
    assert isinstance(here.value.__cause__.__cause__, KeyError)
    with pytest.raises(CaptureError) as there:
        committed(Failing(tmp_path / "sign", "raised"), 1)
    assert any('raise KeyError("no picture")' in note for note in there.value.__notes__)


# Torch counts descriptors by opening files when a worker is gone in mid-sentence, and may leave one open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how", ["died", "left", "slept"])
def test_a_worker_that_does_not_answer_is_an_error(tmp_path: Path, how: str) -> None:
    dataset, files = Failing(tmp_path / "sign", how), MemoryFiles()
    data = commit(dataset, schema_of(dataset[0]), BlobWriter(files), lambda done, of: None)
    (tmp_path / "sign").touch()
    loader = DataLoader(dataset, batch_size=4, num_workers=1, timeout=0.3 if how == "slept" else 0)
    source = dataset_of(loader, batch_size=4, shuffle=False, drop_last=False)
    leaves = files.content[blob_path(data.commitment.leaves)]
    data = CommittedData(source, data.schema, leaves, data.commitment)
    # Torch's signal handler may tell of a dead worker at any moment, also while none is waited for.
    with pytest.raises(
        (RecordError, RuntimeError), match=r"a worker that reads the data failed|DataLoader worker"
    ):
        list(data.stream(BATCHES, CPU))


def test_a_failing_beginning_is_an_error() -> None:
    def begin(worker: int) -> None:
        raise OSError("no such disk")

    with pytest.raises(CaptureError, match="no such disk"):
        committed(Pictures(), 1, worker_init_fn=begin)


def test_what_cannot_be_sent_to_a_worker_is_said() -> None:
    class Local(Pictures):
        pass

    with pytest.raises(CaptureError, match="cannot be sent to a worker") as caught:
        committed(Local(), 1, multiprocessing_context="spawn")
    assert caught.value.where == "data"


def test_closing_stops_the_workers() -> None:
    data = committed(Pictures(), 2)
    stream = data.stream(BATCHES * 50, CPU)
    next(stream)
    assert len(multiprocessing.active_children()) == 2
    stream.close()
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [0, 1])
def test_samples_are_read_together_where_the_data_set_can(workers: int) -> None:
    class Together(Pictures):
        def __getitem__(self, index: int) -> Any:
            raise AssertionError("one by one")

        def __getitems__(self, indices: list[int]) -> list[Any]:
            samples = [Pictures.__getitem__(self, i) for i in indices]
            return samples[:-1] if indices == BATCHES[2] else samples

    data = committed(Together(), workers)
    stream = data.stream(BATCHES, CPU)
    assert [len(next(stream)[0]) for _ in range(2)] == [3, 2]
    with pytest.raises(RecordError, match="gave 2 samples for 3 numbers"):
        next(stream)


def test_a_sample_that_no_worker_could_send_is_refused() -> None:
    with pytest.raises(CaptureError, match="holds a function"):
        committed([(torch.ones(2), lambda: None)], 1)


def test_numbers_and_odd_tensors_from_workers() -> None:
    weights = torch.randn(8, 6)
    odd = [
        [row.view(2, 3).T, row > 0, row[0].bfloat16(), True, 2**40 + i, i / 7, row.double().numpy()]
        for i, row in enumerate(weights)
    ]
    one, two = committed(odd), committed(odd, 1)
    assert one.commitment == two.commitment
    assert content(one.batch([4, 2], CPU)) == content(two.batch([4, 2], CPU))


def test_tensors_that_need_gradients() -> None:
    data = committed(TensorDataset(torch.ones(5, 2, requires_grad=True)))
    assert not data.batch([1, 2], CPU)[0].requires_grad


class Digits(Pictures):
    def __getitem__(self, index: int) -> Any:
        return torch.arange(6).float() * (index + 1) / SAMPLES, index % 3


def recorded_files(path: Path, workers: int) -> dict[str, bytes]:
    torch.set_num_threads(1)
    with initialise():
        model = nn.Linear(6, 3)
    loader = DataLoader(Digits(), batch_size=8, shuffle=True, num_workers=workers)
    with record(
        path,
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        loss=lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]),
        data=loader,
        batch_size=8,
        steps=7,  # into the second epoch
        every=4,
        key=SigningKey(name="example.com/owner", seed=bytes(32)),
        seed=1,
        progress=False,
    ) as run:
        for batch in run:
            run.step(batch)
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_a_bundle_is_the_same_whoever_read_the_data(tmp_path: Path) -> None:
    assert recorded_files(tmp_path / "own", 0) == recorded_files(tmp_path / "workers", 2)
