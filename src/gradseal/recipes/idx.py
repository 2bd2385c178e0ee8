"""Reads idx files, as MNIST and Fashion-MNIST come: a magic number, the dimensions, then one byte a number.

Strict: a file holds what its header says and no more, and the header says what the caller expects. No more
is unpacked than that takes. Format: Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten
digits", at its end.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy
import numpy.typing

from gradseal.errors import Error

_BYTES = 0x0800


def read_idx(path: Path, *, at_most: int, shape: tuple[int, ...] = ()) -> numpy.typing.NDArray[numpy.uint8]:
    """The items of a gzipped idx file of bytes, shape (items, *shape).

    Args:
        path: The file.
        at_most: How many items there may be; there must be one.
        shape: Of an item.

    Raises:
        Error: The file cannot be read, or is anything else; names it.
    """
    dimensions = 1 + len(shape)
    head = 4 + 4 * dimensions
    data = _unpack(path, head + at_most * math.prod(shape))
    if len(data) < head:
        raise Error(f"ends within its header of {head} bytes", where=str(path))
    magic, items, *rest = struct.unpack_from(f">{1 + dimensions}I", data)
    if magic != _BYTES + dimensions:
        raise Error(f"magic {magic:#010x} is not of bytes in {dimensions} dimensions", where=str(path))
    if tuple(rest) != shape or not 1 <= items <= at_most:
        said = " × ".join(map(str, (items, *rest)))
        raise Error(f"holds {said} bytes, not 1 to {at_most} items of shape {shape}", where=str(path))
    if len(data) != head + items * math.prod(shape):
        raise Error(f"has {len(data)} bytes, which is not what its header says", where=str(path))
    return numpy.frombuffer(data, numpy.uint8, offset=head).reshape(items, *shape)


def _unpack(path: Path, at_most: int) -> bytes:
    try:
        with gzip.open(path) as file:
            data = file.read(at_most + 1)
    except (OSError, EOFError, zlib.error) as e:
        raise Error(f"cannot be read: {e}", where=str(path)) from e
    if len(data) > at_most:
        raise Error(f"unpacks to more than {at_most} bytes", where=str(path))
    return data
