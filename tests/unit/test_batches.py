"""Batches are what torch's own collation makes, from the committed bytes."""

from __future__ import annotations

import pickle
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from gradseal.errors import CaptureError, CorruptBlob
from gradseal.program.batches import Encoder, batch_of, collate, encode_sample, schema_of
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


@pytest.mark.parametrize(
    "parts",
    [
        [3, np.int64(3), torch.tensor(3), np.array(3), np.array(3, dtype=">i8")],
        [0.1, np.float64(0.1), torch.tensor(0.1, dtype=torch.float64)],
        [True, np.bool_(True), torch.tensor(True)],
        [torch.arange(6).view(2, 3), torch.arange(6).view(2, 3).T.contiguous().T, np.arange(6).reshape(2, 3)],
        [torch.ones(2, requires_grad=True), torch.ones(2), np.ones(2, dtype=np.float32)],
        [torch.nn.Parameter(torch.ones(2)), torch.ones(2)],
        [torch.complex(torch.ones(2), torch.ones(2)).conj().imag, -torch.ones(2)],
    ],
)
def test_equal_numbers_have_equal_bytes_whatever_holds_them(parts: list[Any]) -> None:
    schema = schema_of((parts[0], torch.zeros(1)))
    expected = encode_sample(schema, (parts[0], torch.zeros(1)), 0)
    for samples in (parts, parts[::-1], *([part] * 2 for part in parts)):
        rows = Encoder(schema).rows([(part, torch.zeros(1)) for part in samples], range(len(samples)))
        assert [row.tobytes() for row in rows] == [expected] * len(samples)


@pytest.mark.parametrize("side", [5, 80])
def test_pictures_with_their_channels_last(side: int) -> None:
    pictures = list(torch.randn(3, 2, side, side).to(memory_format=torch.channels_last))
    blocks = [picture.unsqueeze(0).to(memory_format=torch.channels_last) for picture in pictures]
    for samples in (pictures, blocks):
        rows = Encoder(schema_of(samples[0])).rows(samples, range(3))
        assert [row.tobytes() for row in rows] == [to_bytes(sample) for sample in samples]


@pytest.mark.parametrize(
    "odd", [1 << 63, 1.0, True, np.int32(1), torch.tensor([1]), torch.tensor(1.0), np.array([1]), None, [1]]
)
def test_a_sample_unlike_the_others_is_named_among_many(odd: Any) -> None:
    with pytest.raises(CaptureError) as e:
        Encoder(schema_of({"x": 1})).rows([{"x": 1}, {"x": 2}, {"x": odd}], [4, 2, 8])
    assert e.value.where == "data[8], field x"


def test_an_encoder_can_be_sent_to_another_process() -> None:
    encoder = Encoder(schema_of((1, [2.0])))
    sent = pickle.loads(pickle.dumps(encoder))
    assert sent.rows([(3, [4.0])], [0]).tobytes() == encoder.rows([(3, [4.0])], [0]).tobytes()


def test_a_batch_shares_no_memory_with_its_bytes() -> None:
    schema = schema_of(torch.zeros(2, dtype=torch.uint8))
    rows = torch.zeros(3, 2, dtype=torch.uint8)
    batch_of(schema, rows, CPU)[0].fill_(1)
    assert not rows.any()
