"""Reading what `torch.save` wrote, from a file that nobody vouches for.

Such a file is a zip archive of a pickle and the bytes of its tensors. Before torch sees it: its size, the
archive's directory and the sum of what it unpacks to are within limits, nothing in it is compressed, and the
pickle names only what plain tensors are made of. Then torch loads it with `weights_only`, mapped and not
read, so that a tensor cannot reach beyond the file. Nothing of it is executed.
"""

from __future__ import annotations

import pickletools
import stat
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from gradseal.errors import MalformedBundle, MissingFile

MAX_DIRECTORY_BYTES = 16 << 20
"""Of the archive's list of members, which is read as a whole."""

MAX_MEMBERS = 100_000
MAX_PICKLE_BYTES = 16 << 20

_RECORD_BYTES, _RECORD_64_BYTES, _LOCATOR_BYTES = 22, 56, 20
_RECORD_MAGIC, _RECORD_64_MAGIC, _LOCATOR_MAGIC = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"

_ELSEWHERE = 0xFFFFFFFF
"""For a length that only the second place has."""

_TYPES = ("BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")
_GLOBALS = {f"torch {name}Storage" for name in _TYPES} | {
    "collections OrderedDict",
    "collections Counter",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
}
_NAMING = frozenset({"GLOBAL", "STACK_GLOBAL", "INST"})
_ODD = frozenset({"DUP", "POP", "POP_MARK", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "STACK_GLOBAL"})
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_STORING = _PUTS | {"MEMOIZE"}
_COUNTING = frozenset({"MARK", "BININT", "BININT1", "BININT2", "SETITEM", "SETITEMS"})
_MOST_COUNTED = 10_000
"""Milestones of a schedule, two numbers each."""
_BROKEN = (
    UnpicklingError,
    zipfile.BadZipFile,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


def check_regular(path: Path, limit_bytes: int) -> int:
    """The size of a file that is one of its own: no link to elsewhere, no device, not too large.

    Raises:
        MissingFile: There is none.
        MalformedBundle: It is something else, or above the limit.
    """
    try:
        found = path.lstat()
    except OSError as e:
        gone = isinstance(e, FileNotFoundError)
        said = "is not there" if gone else f"cannot be looked at: {e.strerror}"
        raise MissingFile(said, where=str(path)) from e
    if not stat.S_ISREG(found.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "no regular file"
        raise MalformedBundle(f"is {what}", where=str(path), advice="put a copy of the file in its place")
    if found.st_size > limit_bytes:
        raise MalformedBundle(
            f"has {found.st_size:,} bytes, over the limit of {limit_bytes:,}", where=str(path)
        )
    return found.st_size


def read_torch_file(path: Path, limit_bytes: int) -> Any:
    """What a file of `torch.save` holds: containers, numbers, texts, and tensors that are mapped from it.

    Args:
        path: The file; it must not change while its tensors are in use.
        limit_bytes: How large it, and what it unpacks to, may be.

    Raises:
        MissingFile: There is none.
        MalformedBundle: It is not such a file, is above a limit, or holds more than tensors and plain values.
    """
    size = check_regular(path, limit_bytes)
    data = _pickle_of(path, size, limit_bytes)
    _check_pickle(data, str(path))
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except _BROKEN as e:
        raise MalformedBundle(f"torch cannot load it: {_first_line(e)}", where=str(path)) from e


def _pickle_of(path: Path, size: int, limit_bytes: int) -> bytes:
    """The pickle in the archive, once the archive is within its limits."""
    where = str(path)
    try:
        _check_directory(path, size)
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(members, where, limit_bytes)
            (pickled,) = [m for m in members if m.filename.split("/", 1)[1:] == ["data.pkl"]]
            if pickled.file_size > MAX_PICKLE_BYTES:
                raise MalformedBundle(
                    f"{pickled.file_size:,} bytes, over the limit of {MAX_PICKLE_BYTES:,}",
                    where=f"{where}: data.pkl",
                )
            return archive.read(pickled)
    except _BROKEN as e:
        raise MalformedBundle(
            f"is no archive as torch.save writes it: {_first_line(e)}",
            where=where,
            advice="load and save it with PyTorch 1.6 or later, if you trust it",
        ) from e


def _check_directory(path: Path, size: int) -> None:
    """Bounds the list of members, in both places that may say how long it is."""
    with path.open("rb") as file:
        file.seek(max(0, size - _RECORD_BYTES - _LOCATOR_BYTES))
        tail = file.read(_RECORD_BYTES + _LOCATOR_BYTES)
        record, locator = tail[-_RECORD_BYTES:], tail[:-_RECORD_BYTES]
        if len(record) < _RECORD_BYTES or not record.startswith(_RECORD_MAGIC):
            raise zipfile.BadZipFile("it does not end as a zip archive does")
        length = int.from_bytes(record[12:16], "little")
        begin, end = int.from_bytes(record[16:20], "little"), size - _RECORD_BYTES
        if locator.startswith(_LOCATOR_MAGIC):
            at = end - _LOCATOR_BYTES - _RECORD_64_BYTES
            file.seek(max(0, at))
            large = file.read(_RECORD_64_BYTES)
            placed = at >= 0 and int.from_bytes(locator[8:16], "little") == at
            if not placed or not large.startswith(_RECORD_64_MAGIC):
                raise zipfile.BadZipFile("its directory is not where it says")
            whole = int.from_bytes(large[40:48], "little"), int.from_bytes(large[48:56], "little")
            if length not in (_ELSEWHERE, whole[0]) or begin not in (_ELSEWHERE, whole[1]):
                raise zipfile.BadZipFile("its two directories differ")
            (length, begin), end = whole, at
    if length > MAX_DIRECTORY_BYTES:
        raise zipfile.BadZipFile(f"its directory is over the limit of {MAX_DIRECTORY_BYTES:,} bytes")
    # zipfile takes the directory that ends where the record begins, torch the one at the stated place.
    if begin + length != end:
        raise zipfile.BadZipFile("its directory is not where it says")


def _check_members(members: list[zipfile.ZipInfo], where: str, limit_bytes: int) -> None:
    if len(members) > MAX_MEMBERS:
        raise MalformedBundle(f"{len(members):,} members, over the limit of {MAX_MEMBERS:,}", where=where)
    unpacked = sum(member.file_size for member in members)
    if unpacked > limit_bytes:
        raise MalformedBundle(
            f"unpacks to {unpacked:,} bytes, over the limit of {limit_bytes:,}", where=where
        )
    names = [member.filename for member in members]
    if len(set(names)) != len(names) or len({name.split("/", 1)[0] for name in names}) != 1:
        raise MalformedBundle("a member twice, or members of more than one directory", where=where)
    if any(m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size for m in members):
        raise MalformedBundle("a compressed member, which torch.save does not write", where=where)
    if sum(name.endswith("/data.pkl") for name in names) != 1:
        raise MalformedBundle("has no data.pkl, or several", where=where)


def _check_pickle(data: bytes, where: str) -> None:
    """Refuses a pickle that names anything but what plain tensors are made of.

    `weights_only` by itself would also make a `bytearray` of any length that a few bytes ask for.
    """
    try:
        said = [(opcode.name, argument) for opcode, argument, _ in pickletools.genops(data)]
    except _BROKEN as e:
        raise MalformedBundle(f"its pickle cannot be read: {_first_line(e)}", where=where) from e
    named = [str(argument) for name, argument in said if name in _NAMING]
    if others := [name for name in named if name not in _GLOBALS]:
        raise MalformedBundle(
            f"names {others[0][:100]!r}, which is no part of a state dict of tensors", where=where
        )
    if odd := {name for name, _ in said} & _ODD:
        raise MalformedBundle(f"has {min(odd)}, which torch.save does not write", where=where)
    _check_made(said, where)


def _check_made(said: Sequence[tuple[str, Any]], where: str) -> None:
    """Refuses a dictionary or a counter made of anything but nothing, or numbers that stand there.

    Both take any iterable: a tensor of one number, expanded, would be taken apart into as many as it says.
    """
    memo: dict[Any, str] = {}
    named = ""
    for place, (name, argument) in enumerate(said):
        if name == "MEMOIZE" or name in _PUTS:
            memo[len(memo) if name == "MEMOIZE" else argument] = named
            continue
        named = str(argument) if name == "GLOBAL" else memo.get(argument, "") if name in _GETS else ""
        if not named.startswith("collections "):
            continue
        later = [one for one, _ in said[place + 1 : place + 1 + _MOST_COUNTED] if one not in _STORING]
        if named == "collections Counter" and later[:1] == ["EMPTY_DICT"]:
            later = [one for one in later[1:] if one not in _COUNTING]
            empty = ["TUPLE1", "REDUCE"]
        else:
            empty = ["EMPTY_TUPLE", "REDUCE"]
        if later[:2] != empty:
            raise MalformedBundle(f"a {named.split()[1]} that is not made of numbers", where=where)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
