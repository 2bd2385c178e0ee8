"""Weights that a verifier holds himself: a local safetensors file that is no part of a bundle."""

from __future__ import annotations

from pathlib import Path

from gradseal.errors import Error
from gradseal.program.release import Tensors, read_weights
from gradseal.store.files import FsspecFiles


def read_own_weights(path: str | Path, max_bytes: int) -> Tensors:
    """Its tensors, by name; errors name its whole path, as none in a bundle.

    Args:
        path: The file, which may have metadata.
        max_bytes: How long it may be.

    Raises:
        MalformedBundle: It is longer, or no safetensors file.
        StoreError: It cannot be read.
    """
    own = Path(path).absolute()
    try:
        data = FsspecFiles(str(own.parent)).read(own.name, max_bytes)
    except Error as e:
        raise type(e)(e.message, where=str(own), advice=e.advice) from e
    return read_weights(data, where=str(own), allow_metadata=True)
