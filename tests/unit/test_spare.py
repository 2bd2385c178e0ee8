"""The one copy of a state that recording needs, and what it waits for."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from gradseal.program.memory import to_bytes
from gradseal.program.tensors import TensorSpec
from gradseal.record.sealing import Sealing
from gradseal.record.spare import Spare, return_freed_memory

STATE = {
    "parameters/w": torch.tensor([[1.5, -0.0], [float("nan"), 3.0]]),
    "parameters/half": torch.tensor([0.5], dtype=torch.bfloat16),
    "buffers/none": torch.empty(0, 3),
    "buffers/n": torch.tensor(7),
    "buffers/flags": torch.tensor([True, False, True]),
}
LAYOUT = tuple(
    TensorSpec(name=n, dtype=str(t.dtype).removeprefix("torch."), shape=tuple(t.shape))
    for n, t in STATE.items()
)


def test_a_copy_has_the_bytes_and_is_apart() -> None:
    spare = Spare(LAYOUT)
    copy = spare.copy_of(STATE)
    assert {n: to_bytes(t) for n, t in copy.items()} == {n: to_bytes(t) for n, t in STATE.items()}
    assert [(t.dtype, t.shape) for t in copy.values()] == [(t.dtype, t.shape) for t in STATE.values()]
    copy["buffers/n"].add_(1)
    assert STATE["buffers/n"].item() == 7


def test_tensors_begin_where_an_allocator_would_put_them() -> None:
    for tensor in Spare(LAYOUT).copy_of(STATE).values():
        assert tensor.numel() == 0 or tensor.data_ptr() % 64 == 0


def test_a_strided_tensor_is_copied_in_order() -> None:
    state = {"parameters/w": torch.arange(6.0).view(2, 3).t()}
    spare = Spare([TensorSpec(name="parameters/w", dtype="float32", shape=(3, 2))])
    copy = spare.copy_of(state)["parameters/w"]
    assert copy.is_contiguous() and torch.equal(copy, state["parameters/w"])


def test_the_memory_is_the_same_until_it_is_given_back() -> None:
    spare = Spare(LAYOUT)
    first = spare.copy_of(STATE)["parameters/w"].data_ptr()
    other = {name: torch.zeros_like(tensor) for name, tensor in STATE.items()}
    again = spare.copy_of(other)["parameters/w"]
    assert again.data_ptr() == first and not again.any()
    spare.give_back()
    assert torch.equal(spare.copy_of(STATE)["buffers/n"], STATE["buffers/n"])


def test_freed_memory_may_always_be_returned() -> None:
    return_freed_memory()


class SlowWriter:
    """A log whose first write waits until it is told to go on."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.put_bytes: list[bytes] = []
        self.fails = False

    def put(self, data: Any) -> bytes:
        self.go_on.wait(10)
        if self.fails:
            raise OSError("the disk is gone")
        self.put_bytes.append(bytes(data))
        return bytes(32)

    def seal(self, digests: Any) -> bytes:
        return bytes(32)

    def append(self, entry: Any) -> None: ...

    def publish(self) -> None: ...


def test_a_copy_waits_for_the_seal_that_has_the_memory() -> None:
    writer: Any = SlowWriter()
    sealing = Sealing(writer, LAYOUT)
    sealing.segment(0, range(2), [1.0, 2.0], STATE)
    other = {name: torch.zeros_like(tensor) for name, tensor in STATE.items()}
    threading.Timer(0.05, writer.go_on.set).start()
    copy = sealing.copy_of(other)
    # All of the sealed state was written before its memory had another's numbers.
    assert writer.put_bytes[1:] == [to_bytes(t) for t in STATE.values()]
    assert not copy["parameters/w"].any()
    sealing.stop()


def test_a_seal_that_failed_is_told_when_a_copy_is_wanted() -> None:
    writer: Any = SlowWriter()
    writer.fails = True
    writer.go_on.set()
    sealing = Sealing(writer, LAYOUT)
    sealing.segment(0, range(1), [1.0], STATE)
    with pytest.raises(OSError, match="the disk is gone"):
        sealing.copy_of(STATE)
    sealing.stop()
