"""Tensors to bytes and back, and their digests.

A tensor's bytes are row-major and little-endian, whatever device it is on; its digest is their SHA-256, so
that equal digests mean equal bits. Format: docs/spec/bundle.md, section 5.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence

import safetensors.torch
import torch

from gradseal.errors import CorruptBlob
from gradseal.program.tensors import are_truth_values

if sys.byteorder != "little":
    raise ImportError("Gradseal reads tensors' memory as little-endian bytes; this machine is big-endian")


def to_bytes(tensor: torch.Tensor) -> bytes:
    """A tensor's numbers as bytes."""
    return bytes(view_of(tensor))


def view_of(tensor: torch.Tensor) -> memoryview:
    """A tensor's numbers as bytes; those of a contiguous tensor on the CPU are not copied."""
    return _octets(tensor.to("cpu")).numpy().data if tensor.numel() else memoryview(b"")


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors are equal to the bit, NaN patterns and signs of zero included."""
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    return a.numel() == 0 or torch.equal(_octets(a), _octets(b))


def _octets(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor that is not empty, on its own device."""
    flat = tensor.detach().contiguous().flatten()
    # An expanded tensor of one element is contiguous, and yet has a stride that no view of bytes takes.
    return (flat.clone(memory_format=torch.contiguous_format) if flat.numel() == 1 else flat).view(
        torch.uint8
    )


def from_bytes(
    data: bytes, dtype: str, shape: Sequence[int], device: torch.device, *, where: str
) -> torch.Tensor:
    """The tensor that `to_bytes` gave these bytes of.

    Raises:
        CorruptBlob: There are more or fewer bytes than the type and shape take.
    """
    kind: torch.dtype = getattr(torch, dtype)
    expected = torch.Size(shape).numel() * kind.itemsize
    if len(data) != expected:
        raise CorruptBlob(
            f"{len(data)} bytes where {dtype} of shape {tuple(shape)} takes {expected}", where=where
        )
    if kind is torch.bool and not are_truth_values(data):
        raise CorruptBlob("a truth value that is neither 0 nor 1", where=where)
    if not data:
        return torch.empty(tuple(shape), dtype=kind, device=device)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(kind).reshape(tuple(shape)).to(device)


def dtype_name(dtype: torch.dtype) -> str:
    """The name of an element type, without `torch.`."""
    return str(dtype).removeprefix("torch.")


def digest(tensor: torch.Tensor) -> bytes:
    """SHA-256 of a tensor's bytes."""
    return hashlib.sha256(view_of(tensor)).digest()


def weights_file(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """A safetensors file of these tensors, without metadata: the same bytes for the same tensors."""
    held: set[int] = set()
    separate: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        own = tensor.detach().to("cpu").contiguous()
        # safetensors refuses tensors that share memory, as tied weights do.
        if own.untyped_storage().data_ptr() in held:
            own = own.clone()
        held.add(own.untyped_storage().data_ptr())
        separate[name] = own
    return safetensors.torch.save(separate)
