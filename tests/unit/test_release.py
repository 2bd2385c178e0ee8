"""The release map names state tensors only, and untrusted weights are read strictly."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradseal.errors import CorruptBlob, MalformedBundle, UnknownKind
from gradseal.program.memory import digest, from_bytes, to_bytes, weights_file
from gradseal.program.release import Release, read_weights
from gradseal.program.tensors import ITEM_SIZE_BYTES, TensorSpec
from gradseal.proof.canonical import encode

LAYOUT = {"parameters/w": TensorSpec(name="parameters/w", dtype="float32", shape=(2,))}
CPU = torch.device("cpu")


def test_round_trip() -> None:
    own = Release.of({"w": "parameters/w", "tied": "parameters/w"})
    assert Release.decode(own.encode(), LAYOUT, where="release") == own


@pytest.mark.parametrize(
    "value",
    [
        {"format": "gradseal/release-v1", "tensors": {"w": "parameters/v"}},
        {"format": "gradseal/release-v1", "tensors": {"w": 1}},
        {"format": "gradseal/release-v1", "tensors": ["w"]},
        {"format": "gradseal/release-v1", "tensors": {}, "more": 1},
        {"format": "gradseal/release-v1"},
        {"format": "gradseal/release-v1", "tensors": {"__metadata__": "parameters/w"}},
    ],
)
def test_malformed_release_maps(value: Any) -> None:
    with pytest.raises(MalformedBundle):
        Release.decode(encode(value), LAYOUT, where="release")


def test_an_unknown_format_is_another_versions() -> None:
    with pytest.raises(UnknownKind):
        Release.decode(encode({"format": "gradseal/release-v2", "more": 1}), LAYOUT, where="release")


def test_weights_of_every_type() -> None:
    tensors = {name: torch.ones(2, 3).to(getattr(torch, name)) for name in ITEM_SIZE_BYTES}
    tensors["empty"], tensors["scalar"] = torch.zeros(0, 2), torch.tensor(1.5)
    tensors["tied"] = tensors["float32"]
    found = read_weights(weights_file(tensors), where="weights")
    assert set(found) == set(tensors)
    for name, (spec, data) in found.items():
        assert (spec.dtype, spec.shape) == (str(tensors[name].dtype)[6:], tuple(tensors[name].shape))
        assert data == to_bytes(tensors[name])
        assert torch.equal(from_bytes(data, spec.dtype, spec.shape, CPU, where=name), tensors[name])


def file(header: Any, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 8,
        struct.pack("<Q", 1 << 62) + b"{}",
        file(b"{"),
        file(b"\xff\xff"),
        file([]),
        file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}),
        file({"a": {"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 4]}}, b"0000"),
        file({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"0000"),
        file({"a": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, b"0" * 8),
        file({"a": {"dtype": "F8_E5M2", "shape": [1], "data_offsets": [0, 1]}}, b"0"),
        file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"0000spare"),
        b"\x80\x04\x95pickle",
        file(b"[" * 100_000),
        file(b"1" * 10_000),
        struct.pack("<Q", (64 << 20) + 1) + b" " * ((64 << 20) + 1),
    ],
)
def test_malformed_weights(data: bytes) -> None:
    with pytest.raises(MalformedBundle):
        read_weights(data, where="weights")


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
        b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"I32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"__metadata__":{"k":"1","k":"2"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    ],
    ids=["tensor", "type", "metadata"],
)
def test_weights_that_say_something_twice(header: bytes) -> None:
    for allow in (False, True):
        with pytest.raises(MalformedBundle, match="same key twice"):
            read_weights(file(header, b"0000"), where="weights", allow_metadata=allow)


PART = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize("metadata", [{"licence": "none"}, {}, None])
def test_metadata_are_refused_unless_allowed(metadata: Any) -> None:
    whole = file({"__metadata__": metadata, "a": PART}, b"0000")
    assert set(read_weights(whole, where="weights", allow_metadata=True)) == {"a"}
    with pytest.raises(MalformedBundle, match="metadata"):
        read_weights(whole, where="weights")


@pytest.mark.parametrize(
    "header",
    [
        {"a": PART | {"more": "room for a message"}},
        {"a": [*PART.values()]},
        b" " + json.dumps({"a": PART}).encode(),
        json.dumps({"a": PART}).encode() + b"\n",
    ],
    ids=["a field", "a list", "a space before", "a line end after"],
)
def test_headers_that_the_library_takes_and_the_format_does_not(header: Any) -> None:
    with pytest.raises(MalformedBundle):
        read_weights(file(header, b"0000"), where="weights", allow_metadata=True)


@given(st.data())
def test_any_changed_byte_of_weights(data: st.DataObject) -> None:
    whole = weights_file({"a": torch.arange(3.0), "b": torch.tensor([1, 2])})
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :]
    try:
        found = read_weights(changed[: data.draw(st.integers(0, len(changed)))], where="weights")
    except MalformedBundle:
        return
    assert all(len(raw) == spec.size_bytes for spec, raw in found.values())


def test_bytes_of_tensors() -> None:
    tensor = torch.arange(6.0).view(2, 3).T
    assert to_bytes(tensor) == struct.pack("<6f", 0, 3, 1, 4, 2, 5)
    assert digest(tensor) == digest(tensor.contiguous()) != digest(tensor.T)
    for dtype, data in (("float32", b"0" * 7), ("bool", b"\x02"), ("int64", b"")):
        with pytest.raises(CorruptBlob):
            from_bytes(data, dtype, (1,), CPU, where="t")
