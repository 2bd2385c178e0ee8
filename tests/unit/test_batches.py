"""Batches are what torch's own collation makes, from the committed bytes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from gradseal.errors import CaptureError, CorruptBlob
from gradseal.program.batches import collate, encode_sample, schema_of
from gradseal.program.memory import to_bytes
from gradseal.program.samples import SampleSchema, flatten
from gradseal.program.tensors import TensorSpec

CPU = torch.device("cpu")


class Pair(NamedTuple):
    x: float
    y: float


def samples(make: Any) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    return [make(i, torch.randn(2, 3, generator=generator)) for i in range(4)]


@pytest.mark.parametrize(
    "make",
    [
        lambda i, t: (t, i),
        lambda i, t: [t.to(torch.bfloat16), float(i) / 3, i % 2 == 0],
        lambda i, t: {"x": t.T, "y": {"z": np.float32(i), "w": np.int8(-i)}, "b": (t > 0, t.half())},
        lambda i, t: t.double().numpy(),
        lambda i, t: (np.array(i), t[:, ::2], t.to(torch.uint8), t.to(torch.int16), torch.zeros(0)),
        lambda i, t: np.arange(6, dtype=np.int32).reshape(2, 3).T + i,
    ],
)
def test_the_batches_of_torch(make: Any) -> None:
    data = samples(make)
    schema = schema_of(data[0])
    assert SampleSchema.decode(schema.encode(), where="s") == schema
    encoded = [encode_sample(schema, s, i) for i, s in enumerate(data)]
    assert {len(e) for e in encoded} == {schema.size_bytes}
    for size in (4, 1):
        same_batch(schema, encoded[:size], data[:size])


def same_batch(schema: SampleSchema, encoded: list[bytes], data: list[Any]) -> None:
    own = collate(schema, encoded, CPU)
    for a, b in zip(own, flatten(schema.tree, default_collate(data)), strict=True):
        assert (a.dtype, a.shape, to_bytes(a)) == (b.dtype, b.shape, to_bytes(b))


def test_read_only_and_foreign_arrays() -> None:
    array = np.arange(3, dtype=">i4")
    array.setflags(write=False)
    schema = schema_of(array)
    assert encode_sample(schema, array, 0) == np.arange(3, dtype="<i4").tobytes()


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ("text", "holds a str"),
        ((torch.zeros(1), None), "holds a NoneType"),
        (torch.zeros(1, dtype=torch.complex64), "complex64"),
        (np.zeros(2, dtype=np.uint16), "holds a ndarray"),
        (np.array(["a"]), "holds a ndarray"),
        (1 << 63, "holds a int"),
        ({1: torch.zeros(1)}, "not texts"),
        (torch.zeros(2, 2).to_sparse(), "sparse"),
        ((), "no numbers"),
        (torch.zeros(0), "no numbers"),
        (Pair(1.0, 2.0), "named tuple"),
    ],
)
def test_samples_without_an_encoding(sample: Any, message: str) -> None:
    with pytest.raises(CaptureError, match=message) as e:
        schema_of(sample)
    assert e.value.where.startswith("data[0]")


@pytest.mark.parametrize(
    "other",
    [
        {"x": torch.zeros(2), "y": 1.0},
        {"x": torch.zeros(3), "y": 1},
        {"x": torch.zeros(2, dtype=torch.float64), "y": 1},
        {"x": torch.zeros(2)},
        torch.zeros(2),
    ],
)
def test_samples_unlike_the_first(other: Any) -> None:
    schema = schema_of({"x": torch.zeros(2), "y": 1})
    with pytest.raises(CaptureError) as e:
        encode_sample(schema, other, 7)
    assert "data[7]" in e.value.where


def test_bytes_that_are_no_sample() -> None:
    schema = SampleSchema(tree=TensorSpec(name="sample", dtype="bool", shape=(2,)))
    assert collate(schema, [b"\0\1"], CPU)[0].tolist() == [[False, True]]
    for wrong in (b"\0", b"\0\1\0", b"\0\2"):
        with pytest.raises(CorruptBlob):
            collate(schema, [b"\0\1", wrong], CPU)
