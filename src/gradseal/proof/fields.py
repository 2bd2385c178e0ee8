"""Reading the fields of a decoded JSON object.

Every read checks type and bounds, and every error names the file and the field: `manifest: plan.steps[2]`.
An object is read to its `end`, which refuses fields that nobody asked for: what a reader does not understand
may change what the rest means. Knows no file in particular. Format: docs/spec/json.md.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NoReturn, TypeVar

from gradseal.errors import MalformedBundle, UnknownKind
from gradseal.proof.canonical import Json, float_from_bits

_DIGEST = re.compile(r"[0-9a-f]{64}")
_SHOWN = 8

_T = TypeVar("_T", bool, str, list[Json], dict[str, Json])

_NOUNS: dict[type, str] = {
    bool: "a boolean",
    int: "an integer",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


class Fields:
    """The fields of one JSON object, each to be read once and strictly.

    Args:
        value: What `canonical.decode` returned, or a part of it.
        where: The file it comes from.
        path: The dotted path of the object inside the file; empty for the outermost.

    Raises:
        MalformedBundle: The value is not an object.
    """

    __slots__ = ("_file", "_path", "_unread", "_value")

    def __init__(self, value: Json, where: str, path: str = "") -> None:
        self._file = where
        self._path = path
        self._value = _checked(value, dict, self.where())
        self._unread = set(self._value)

    def where(self, name: str = "", index: int | None = None) -> str:
        """The file and dotted path of this object, of one of its fields, or of one item of an array."""
        path = self._join(name, index)
        return f"{self._file}: {path}" if path else self._file

    @property
    def value(self) -> dict[str, Json]:
        """The object itself, for a reader of another layer."""
        return self._value

    def has(self, name: str) -> bool:
        """Whether the object has the field; does not count as reading it."""
        return name in self._value

    def raw(self, name: str) -> Json:
        """The field's value, whatever it is.

        Raises:
            MalformedBundle: There is no such field.
        """
        if name not in self._value:
            raise MalformedBundle("a field that must be there is missing", where=self.where(name))
        self._unread.discard(name)
        return self._value[name]

    def text(self, name: str, max_length: int = 1024) -> str:
        """A string of at most `max_length` code points.

        Raises:
            MalformedBundle: Missing, not a string, or too long. All readers below raise likewise.
        """
        value = _checked(self.raw(name), str, self.where(name))
        if len(value) > max_length:
            self._refuse(name, f"a string of {len(value)} characters, more than the {max_length} allowed")
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        value = self.raw(name)
        # In Python True is an integer; in JSON it is not.
        if not isinstance(value, int) or isinstance(value, bool):
            self._refuse(name, f"expected an integer, found {_NOUNS[type(value)]}")
        if not low <= value <= high:
            self._refuse(name, f"{value} is not from {low} to {high}")
        return value

    def boolean(self, name: str) -> bool:
        """True or false."""
        return _checked(self.raw(name), bool, self.where(name))

    def digest(self, name: str) -> bytes:
        """A SHA-256 digest, 64 lower-case hexadecimal digits, as its 32 bytes."""
        text = self.text(name, max_length=64)
        if not _DIGEST.fullmatch(text):
            self._refuse(name, "a digest that is not 64 lower-case hexadecimal digits")
        return bytes.fromhex(text)

    def float_(self, name: str) -> float:
        """A float by its bits (`canonical.float_to_bits`)."""
        return float_from_bits(self.raw(name), where=self.where(name))

    def object(self, name: str) -> Fields:
        """An object, to be read in the same way; its reader calls its own `end`."""
        return Fields(self.raw(name), self._file, self._join(name))

    def array(self, name: str, max_items: int) -> list[Json]:
        """An array of at most `max_items` values."""
        value = _checked(self.raw(name), list, self.where(name))
        if len(value) > max_items:
            self._refuse(name, f"{len(value)} items, more than the {max_items} allowed")
        return value

    def objects(self, name: str, max_items: int) -> list[Fields]:
        """An array of at most `max_items` objects; the reader calls `end` on each."""
        items = self.array(name, max_items)
        return [Fields(item, self._file, self._join(name, i)) for i, item in enumerate(items)]

    def choice(self, name: str, allowed: Collection[str]) -> str:
        """One of a closed list of strings."""
        text = self.text(name)
        if text not in allowed:
            self._refuse(name, f"{text[:64]!r} is not one of {', '.join(sorted(allowed))}")
        return text

    def kind(self, name: str, known: Collection[str]) -> str:
        """One of a list of strings that a later version of the format may lengthen.

        Raises:
            UnknownKind: A string, but not one that this version knows.
        """
        text = self.text(name)
        if text not in known:
            raise UnknownKind(
                f"{text[:64]!r} is not known to this version",
                where=self.where(name),
                advice="A newer version of Gradseal may know it.",
            )
        return text

    def end(self) -> None:
        """Refuse fields that were never read.

        Raises:
            MalformedBundle: There are some; names the first few.
        """
        if self._unread:
            names = sorted(self._unread)
            shown = ", ".join(repr(name[:64]) for name in names[:_SHOWN])
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise MalformedBundle(f"fields that the format does not have: {shown}{more}", where=self.where())

    def _join(self, name: str, index: int | None = None) -> str:
        path = f"{self._path}.{name}" if self._path and name else self._path or name
        return path if index is None else f"{path}[{index}]"

    def _refuse(self, name: str, message: str) -> NoReturn:
        raise MalformedBundle(message, where=self.where(name))


def _checked(value: Json, kind: type[_T], where: str) -> _T:
    if not isinstance(value, kind):
        message = f"expected {_NOUNS[kind]}, found {_NOUNS[type(value)]}"
        raise MalformedBundle(message, where=where)
    return value
