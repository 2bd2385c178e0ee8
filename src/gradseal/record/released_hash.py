"""Comparing a released proof's `hash.txt` with a data set, as the released code does.

It is SHA-256 over `str` of every element of the data set's array. Labels and the order of the samples are
not in it, arrays of more than a thousand numbers are abbreviated to their corners, floats are rounded to what
prints, and the settings for printing change it. So whatever comes of it is told and decides nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.data import TensorDataset

from gradseal.errors import Error, MalformedBundle
from gradseal.record.torch_files import check_regular

HASH = "hash.txt"
MAX_HASH_BYTES = 4096

Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and of how much."""

_AT_ONCE = 100


def hash_note(folder: Path, data: Any, progress: Progress = lambda what, done, total: None) -> str:
    """What comes of the comparison, in words; never an error.

    Args:
        folder: Has `hash.txt`, or has not.
        data: The data set; its array is its `data`, or the first tensor of a `TensorDataset`.
        progress: Called now and then.
    """
    try:
        stated = _stated(folder / HASH)
    except Error as e:
        return f"{HASH} cannot be compared: it {e.message}"
    array = getattr(data, "data", None)
    if array is None and isinstance(data, TensorDataset):
        array = data.tensors[0]
    if array is None or not hasattr(array, "__len__"):
        return f"{HASH} cannot be compared: the data set has no array of all its samples"
    digest = hashlib.sha256()
    for number in range(len(array)):
        digest.update(str(array[number]).encode())
        if number % _AT_ONCE == 0:
            progress("hashing data", number, len(array))
    if digest.hexdigest() == stated.lower():
        return f"{HASH} matches the data, as far as it covers them: what prints of the values, and no labels"
    return f"{HASH} differs from the data's as they print here"


def _stated(path: Path) -> str:
    """What the file says, without the space around it.

    Raises:
        MissingFile: There is none.
        MalformedBundle: It is no text, or too long.
    """
    check_regular(path, MAX_HASH_BYTES)
    try:
        return path.read_bytes()[:MAX_HASH_BYTES].decode("ascii").strip()
    except UnicodeDecodeError as e:
        raise MalformedBundle("is not a digest in hexadecimal", where=str(path)) from e
