"""Samples to bytes, and bytes to batches.

A batch is the fields of its samples stacked along a new first dimension, as torch's own collation does for
tensors and numbers; the recorder and the verifier both make it here, from the committed bytes.
Format: docs/spec/program.md, section 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from gradseal.errors import CaptureError, CorruptBlob
from gradseal.program.memory import dtype_name, to_bytes
from gradseal.program.samples import SampleSchema, Tree, flatten
from gradseal.program.tensors import ITEM_SIZE_BYTES, TensorSpec

_NUMPY_DTYPES = tuple(np.dtype(name) for name in ITEM_SIZE_BYTES if name != "bfloat16")

RULE = "stack-v1"
"""The name of the one rule by which samples become a batch."""


def schema_of(sample: Any) -> SampleSchema:
    """The schema that `sample` has.

    Raises:
        CaptureError: It is not a tree of tensors and numbers; names the field.
    """
    schema = SampleSchema(tree=_tree_of(sample, ""))
    if not schema.fields or schema.size_bytes == 0:
        raise CaptureError("a sample holds no numbers", where="data[0]")
    return schema


def encode_sample(schema: SampleSchema, sample: Any, index: int) -> bytes:
    """The bytes of sample number `index`.

    Raises:
        CaptureError: It does not have the schema's fields, types and shapes; names sample and field.
    """
    try:
        parts = list(flatten(schema.tree, sample))
    except ValueError as e:
        raise CaptureError(f"a sample unlike the first: {e}", where=f"data[{index}]") from e
    return b"".join(_encode_field(f, p, index) for f, p in zip(schema.fields, parts, strict=True))


def collate(schema: SampleSchema, samples: Sequence[bytes], device: torch.device) -> list[torch.Tensor]:
    """The leaves of the batch of `samples`, each of shape (samples, *field shape), on `device`.

    Raises:
        CorruptBlob: A sample has another size than the schema, or a truth value that is neither 0 nor 1.
    """
    if any(len(sample) != schema.size_bytes for sample in samples):
        raise CorruptBlob(f"a sample that has not {schema.size_bytes} bytes", where="batch")
    rows = torch.frombuffer(bytearray(b"".join(samples)), dtype=torch.uint8).view(
        len(samples), schema.size_bytes
    )
    leaves, offset = [], 0
    for field in schema.fields:
        # A copy even of one sample, so that the field begins where its element type may.
        part = (
            rows[:, offset : offset + field.size_bytes].clone(memory_format=torch.contiguous_format).flatten()
        )
        dtype: torch.dtype = getattr(torch, field.dtype)
        if dtype is torch.bool and part.numel() and int(part.max()) > 1:
            raise CorruptBlob("a truth value that is neither 0 nor 1", where=f"field {field.name}")
        leaves.append(part.view(dtype).view(len(samples), *field.shape).to(device))
        offset += field.size_bytes
    return leaves


def _tree_of(value: Any, name: str) -> Tree:
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise CaptureError("a dict with keys that are not texts", where=f"data[0]{_at(name)}")
        return ("dict", tuple(_tree_of(v, _below(name, k)) for k, v in value.items()), tuple(value))
    if hasattr(value, "_fields"):
        raise CaptureError(
            "a named tuple, whose class a batch would not have",
            where=f"data[0]{_at(name)}",
            advice="return a dict or a plain tuple from the data set",
        )
    if isinstance(value, tuple | list):
        parts = tuple(_tree_of(v, _below(name, str(i))) for i, v in enumerate(value))
        return ("tuple" if isinstance(value, tuple) else "list", parts, ())
    tensor = _tensor_of(value, f"data[0]{_at(name)}")
    dtype = dtype_name(tensor.dtype)
    if dtype not in ITEM_SIZE_BYTES:
        raise CaptureError(f"a tensor of {dtype}, which has no encoding", where=f"data[0]{_at(name)}")
    return TensorSpec(name=name or "sample", dtype=dtype, shape=tuple(tensor.shape))


def _encode_field(field: TensorSpec, part: Any, index: int) -> bytes:
    where = f"data[{index}], field {field.name}"
    tensor = _tensor_of(part, where)
    if dtype_name(tensor.dtype) != field.dtype or tuple(tensor.shape) != field.shape:
        raise CaptureError(
            f"{dtype_name(tensor.dtype)} of shape {tuple(tensor.shape)}, but the first sample has "
            f"{field.dtype} of shape {field.shape}",
            where=where,
            advice="make all samples alike (pad, crop or cast them in the data set)",
        )
    return to_bytes(tensor)


def _tensor_of(value: Any, where: str) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided:
            raise CaptureError("a sparse tensor has no encoding", where=where)
        return value
    if isinstance(value, bool):
        return torch.tensor(value)
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        return torch.tensor(value)
    if isinstance(value, float):
        return torch.tensor(value, dtype=torch.float64)
    if isinstance(value, np.ndarray | np.generic) and value.dtype.newbyteorder("=") in _NUMPY_DTYPES:
        # A copy: torch takes neither read-only memory nor another order of bytes.
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C", ndmin=0))
    raise CaptureError(
        f"a sample holds a {type(value).__name__}, not a tensor or a number",
        where=where,
        advice="return tensors and numbers from the data set (torch.as_tensor, int, float)",
    )


def _below(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part


def _at(name: str) -> str:
    return f", field {name}" if name else ""
