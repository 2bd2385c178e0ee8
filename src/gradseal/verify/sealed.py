"""What a bundle holds for a computation, read by its digests: sealed states, and a program's constants.

Runs in a worker's process. Nothing is believed that has not the digest by which it is named.
"""

from __future__ import annotations

import torch

from gradseal.program.fills import fill
from gradseal.program.memory import from_bytes
from gradseal.program.seeds import Seeds
from gradseal.program.sources import Given
from gradseal.program.tensors import TensorSpec
from gradseal.proof.files import Files, read_blob
from gradseal.proof.manifest import Manifest
from gradseal.verify.contents import Contents, check_opening


def read_sealed(
    files: Files, manifest: Manifest, contents: Contents, seal: bytes, device: torch.device
) -> dict[str, torch.Tensor]:
    """The state behind a seal, by name.

    Raises:
        CorruptBlob, MissingFile, MalformedBundle: It is altered, or not there.
    """
    layout = contents.program.layout
    digests = check_opening(files, manifest, seal, len(layout))
    return {
        spec.name: _tensor(read_blob(files, wanted, spec.size_bytes), spec, device)
        for spec, wanted in zip(layout, digests, strict=True)
    }


def read_constants(
    files: Files, contents: Contents, seeds: Seeds, device: torch.device
) -> list[torch.Tensor]:
    """A program's constants: given ones out of the bundle, the others by their rules.

    Raises:
        CorruptBlob, MissingFile: One is altered, or not there.
    """
    constants = []
    for spec, source in zip(contents.program.constants, contents.initialisation.constants, strict=True):
        if isinstance(source, Given):
            data = read_blob(files, source.digest, spec.size_bytes)
        else:
            data = fill(source, seed=seeds.initial, name=spec.name, shape=spec.shape, dtype=spec.dtype)
        constants.append(_tensor(data, spec, device))
    return constants


def _tensor(data: bytes, spec: TensorSpec, device: torch.device) -> torch.Tensor:
    return from_bytes(data, spec.dtype, spec.shape, device, where=spec.name)
