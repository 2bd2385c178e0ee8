"""The release map: which tensors of the last state are released, under which names.

The released file is in the safetensors format; its tensors must be the last state's, bit for bit.
Format: docs/spec/bundle.md, section 7; the safetensors format's own documentation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import safetensors

from gradseal.errors import MalformedBundle
from gradseal.program.tensors import TensorSpec
from gradseal.proof.canonical import decode, encode
from gradseal.proof.fields import Fields

FORMAT = "gradseal/release-v1"
MAX_RELEASE_BYTES = 64 << 20
MAX_RELEASED = 200_000
MAX_WEIGHTS_BYTES = 1 << 40
Tensors = dict[str, tuple[TensorSpec, bytes]]
"""Of each tensor of a file what it is and its bytes, by name."""

MAX_HEADER_BYTES = 64 << 20
_METADATA = "__metadata__"

# The library has no types of its own.
_deserialize: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = safetensors.deserialize
_PART = {"dtype", "shape", "data_offsets"}
_SAFETENSORS_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """For each released name, the state tensor behind it."""

    tensors: Mapping[str, str]

    @classmethod
    def of(cls, tensors: Mapping[str, str]) -> Release:
        """The release map of these names."""
        return cls(tensors=dict(tensors))

    def encode(self) -> bytes:
        """The canonical bytes that its digest is taken of."""
        return encode({"format": FORMAT, "tensors": dict(self.tensors)})

    @classmethod
    def decode(cls, data: bytes, layout: Mapping[str, TensorSpec], *, where: str) -> Release:
        """Reads a release map from an untrusted blob.

        Raises:
            MalformedBundle: Not the format, or it names a tensor that the state does not have.
            UnknownKind: A format that this version does not know.
        """
        fields = Fields(decode(data, where=where, max_bytes=MAX_RELEASE_BYTES), where)
        fields.kind("format", [FORMAT])
        names = fields.raw("tensors")
        fields.end()
        if not isinstance(names, dict) or len(names) > MAX_RELEASED:
            raise MalformedBundle(
                f"is not an object of at most {MAX_RELEASED} names", where=fields.where("tensors")
            )
        if _METADATA in names:
            raise MalformedBundle(
                f"a tensor named {_METADATA}, as no safetensors file has it", where=fields.where("tensors")
            )
        tensors: dict[str, str] = {}
        for name, behind in names.items():
            if not isinstance(behind, str) or behind not in layout:
                raise MalformedBundle(
                    f"{name!r} stands for no tensor of the state", where=fields.where("tensors")
                )
            tensors[name] = behind
        return cls(tensors=tensors)


def read_weights(data: bytes, *, where: str, allow_metadata: bool = False) -> Tensors:
    """The tensors of an untrusted safetensors file.

    Args:
        data: The file.
        where: What it is called.
        allow_metadata: Whether it may have some, which are not looked at. A bundle's own has none.

    Raises:
        MalformedBundle: It is not one, says something twice or more than it should, or has a type that no
            state has.
    """
    _check_header(data, where, allow_metadata)
    try:
        parts = _deserialize(data)
    except safetensors.SafetensorError as e:
        raise MalformedBundle(f"not a safetensors file: {e}", where=where) from e
    tensors: dict[str, tuple[TensorSpec, bytes]] = {}
    for name, part in parts:
        dtype = _SAFETENSORS_DTYPES.get(part["dtype"])
        if dtype is None:
            raise MalformedBundle(f"{name!r} is of type {part['dtype']}", where=where)
        tensors[name] = (TensorSpec(name=name, dtype=dtype, shape=tuple(part["shape"])), bytes(part["data"]))
    return tensors


def _check_header(data: bytes, where: str, allow_metadata: bool) -> None:
    """Refuses a header that has room for anything but the tensors, or that says something twice.

    Readers differ in which of the two they take. The rest of the header is the library's to check.
    """
    size_bytes = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size_bytes > len(data) - 8:
        raise MalformedBundle("not a safetensors file: its header is cut off", where=where)
    if size_bytes > MAX_HEADER_BYTES:
        raise MalformedBundle(
            f"a header of {size_bytes} bytes, more than the {MAX_HEADER_BYTES} allowed", where=where
        )

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise MalformedBundle("a header that has the same key twice", where=where)
        return dict(pairs)

    text = data[8 : 8 + size_bytes].rstrip(b" ")
    if not (text.startswith(b"{") and text.endswith(b"}")):
        raise MalformedBundle("not a safetensors file: its header is no object", where=where)
    try:
        header = json.loads(text.decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as e:
        raise MalformedBundle(f"not a safetensors file: its header is no JSON: {e}", where=where) from e
    if _METADATA in header and not allow_metadata:
        raise MalformedBundle("metadata, which released weights do not have", where=where)
    for name, part in header.items():
        if name != _METADATA and not (isinstance(part, dict) and part.keys() == _PART):
            raise MalformedBundle(f"{name!r} is not a type, a shape and its offsets", where=where)
