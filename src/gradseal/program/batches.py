"""Samples to bytes, and bytes to batches.

A batch is the fields of its samples stacked along a new first dimension, as torch's own collation does for
tensors and numbers; the recorder and the verifier both make it here, from the committed bytes.
Format: docs/spec/program.md, section 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from gradseal.errors import CaptureError, CorruptBlob
from gradseal.program.memory import dtype_name, to_bytes
from gradseal.program.samples import SampleSchema, Tree, flattener
from gradseal.program.tensors import ITEM_SIZE_BYTES, TensorSpec

_NUMPY_DTYPES = tuple(np.dtype(name) for name in ITEM_SIZE_BYTES if name != "bfloat16")
_NUMBERS: Mapping[type, str] = {bool: "bool", int: "int64", float: "float64"}
_LARGE_BYTES = 1 << 14

_Rows: TypeAlias = npt.NDArray[np.uint8]

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


class Encoder:
    """Samples to bytes, many at a time.

    Args:
        schema: What every sample is.
    """

    def __init__(self, schema: SampleSchema) -> None:
        self.schema = schema
        self._parts = flattener(schema.tree)

    def __reduce__(self) -> tuple[object, ...]:
        return (Encoder, (self.schema,))

    def rows(self, samples: Sequence[Any], numbers: Sequence[int]) -> npt.NDArray[np.uint8]:
        """The bytes of samples, a row each: uint8 of shape (samples, bytes of a sample), contiguous.

        Args:
            samples: As the data set gives them; at least one.
            numbers: Their numbers, for errors.

        Raises:
            CaptureError: One does not have the schema's fields, types and shapes; names sample and field.
        """
        taken = [self._taken_apart(s, n) for s, n in zip(samples, numbers, strict=True)]
        rows = np.empty((len(samples), self.schema.size_bytes), dtype=np.uint8)
        offset = 0
        for field, parts in zip(self.schema.fields, zip(*taken, strict=True), strict=True):
            beyond = offset + field.size_bytes
            _write(rows[:, offset:beyond], field, parts, numbers)
            offset = beyond
        return rows

    def _taken_apart(self, sample: Any, number: int) -> list[Any]:
        try:
            return self._parts(sample)
        except ValueError as e:
            raise CaptureError(f"a sample unlike the first: {e}", where=f"data[{number}]") from e


def encode_sample(schema: SampleSchema, sample: Any, index: int) -> bytes:
    """The bytes of sample number `index`.

    Raises:
        CaptureError: It does not have the schema's fields, types and shapes; names sample and field.
    """
    return Encoder(schema).rows([sample], [index]).tobytes()


def collate(
    schema: SampleSchema, samples: Sequence[bytes | memoryview], device: torch.device
) -> list[torch.Tensor]:
    """The leaves of the batch of `samples`, each of shape (samples, *field shape), on `device`.

    Raises:
        CorruptBlob: A sample has another size than the schema, or a truth value that is neither 0 nor 1.
    """
    if any(len(sample) != schema.size_bytes for sample in samples):
        raise CorruptBlob(f"a sample that has not {schema.size_bytes} bytes", where="batch")
    joined = torch.frombuffer(bytearray().join(samples), dtype=torch.uint8)
    return batch_of(schema, joined.view(len(samples), schema.size_bytes), device)


def batch_of(schema: SampleSchema, rows: torch.Tensor, device: torch.device) -> list[torch.Tensor]:
    """The leaves of a batch from its samples' bytes, as `collate` gives them.

    Args:
        schema: What a sample is.
        rows: A sample in each row: uint8 of shape (samples, bytes of a sample).
        device: Where the leaves go; they share no memory with `rows`.

    Raises:
        CorruptBlob: A truth value that is neither 0 nor 1.
    """
    leaves, offset = [], 0
    # Moved whole, and cut into fields there.
    moved = rows.to(device, non_blocking=rows.is_pinned()) if device.type == "cuda" else rows
    for field in schema.fields:
        beyond = offset + field.size_bytes
        if field.dtype == "bool" and field.size_bytes and int(rows[:, offset:beyond].max()) > 1:
            raise CorruptBlob("a truth value that is neither 0 nor 1", where=f"field {field.name}")
        # A copy even of one sample, so that the field begins where its element type may.
        part = moved[:, offset:beyond].clone(memory_format=torch.contiguous_format).flatten()
        dtype: torch.dtype = getattr(torch, field.dtype)
        leaves.append(part.view(dtype).view(len(rows), *field.shape).to(device))
        offset = beyond
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


def _write(column: _Rows, field: TensorSpec, parts: Sequence[Any], numbers: Sequence[int]) -> None:
    """Writes the bytes of one field of many samples, a row each."""
    if not field.size_bytes or not _plain(field, parts):
        # One by one: for the rarer kinds, and to name the sample that is at fault.
        for row, part, number in zip(column, parts, numbers, strict=True):
            row[:] = np.frombuffer(_encode_field(field, part, number), dtype=np.uint8)
    elif field.size_bytes >= _LARGE_BYTES:
        # Fresh memory costs more than a call for each sample.
        for row, part in zip(column, parts, strict=True):
            row[:] = _stacked([part]).reshape(-1)
    else:
        column[:] = _stacked(parts).reshape(column.shape)


def _plain(field: TensorSpec, parts: Sequence[Any]) -> bool:
    """Whether all parts are, without any conversion, what the field says; of one kind, so that they stack."""
    kind = type(parts[0])
    if any(type(part) is not kind for part in parts):
        return False
    if kind is torch.Tensor:
        dtype: torch.dtype = getattr(torch, field.dtype)
        return all(_plain_tensor(part, dtype, field.shape) for part in parts)
    if kind in _NUMBERS:
        within = kind is not int or (min(parts) >= -(1 << 63) and max(parts) < 1 << 63)
        return within and _NUMBERS[kind] == field.dtype and not field.shape
    if (issubclass(kind, np.generic) or kind is np.ndarray) and field.dtype != "bfloat16":
        # An element type that is equal has the machine's own order of bytes, too.
        wanted = np.dtype(field.dtype)
        return all(part.dtype == wanted and part.shape == field.shape for part in parts)
    return False


def _plain_tensor(tensor: torch.Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> bool:
    return (
        tensor.dtype is dtype
        and tensor.layout is torch.strided
        and tensor.is_cpu
        and not tensor.is_nested
        and not tensor.is_neg()
        and tensor.shape == shape
    )


def _stacked(parts: Sequence[Any]) -> _Rows:
    """The bytes of plain parts, one after another."""
    stacked: npt.NDArray[Any]
    if type(parts[0]) is torch.Tensor:
        with torch.no_grad():
            together = torch.stack(tuple(parts)) if len(parts) > 1 else parts[0]
            stacked = together.contiguous().view(-1).view(torch.uint8).numpy()
    elif type(parts[0]) is np.ndarray:
        stacked = np.ascontiguousarray(np.stack(parts) if len(parts) > 1 else parts[0])
    else:
        stacked = np.array(parts)
    return stacked.reshape(-1).view(np.uint8)


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
        if value.layout != torch.strided or value.is_nested:
            kind = "nested" if value.is_nested else "sparse"
            raise CaptureError(f"a {kind} tensor has no encoding", where=where)
        return value.resolve_neg()
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
