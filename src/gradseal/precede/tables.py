"""Tables of a TOML file that a person writes, read strictly.

Every read checks type and bounds, and every error is an `AnchorError` that names the file and the field:
`trust.toml: timestamps[1].url`. A table is read to its `end`, which refuses names that nobody asked for: a
misspelt pin would otherwise be no pin. Files that a table names are looked for beside the TOML file.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any, NoReturn

from gradseal.errors import AnchorError

MAX_FILE_BYTES = 256 * 1024
"""The largest file, the TOML file itself and each that it names."""

MAX_TEXT_LENGTH = 2048
"""The longest text that is not a file's content."""

_SHOWN = 8


class Table:
    """One table of a TOML file.

    Args:
        values: Its names and values, as `tomllib` gives them.
        file: The file.
        path: The dotted path of the table inside the file; empty for the outermost.
    """

    def __init__(self, values: dict[str, Any], file: Path, path: str = "") -> None:
        self._values = values
        self._file = file
        self._path = path
        self._unread = set(values)

    def where(self, name: str = "") -> str:
        """The file and dotted path of this table, or of one of its fields."""
        path = f"{self._path}.{name}" if self._path and name else self._path or name
        return f"{self._file}: {path}" if path else str(self._file)

    def has(self, name: str) -> bool:
        """Whether the table has the field."""
        return name in self._values

    def text(self, name: str, max_length: int = MAX_TEXT_LENGTH) -> str:
        """A text that is not empty.

        Raises:
            AnchorError: Missing, of another type, or over a limit. All readers below raise likewise.
        """
        return self._text(self._raw(name), name, max_length)

    def texts(self, name: str, max_items: int) -> tuple[str, ...]:
        """An array of texts; none if there is no such field."""
        items = self._array(name, max_items)
        return tuple(self._text(item, f"{name}[{i}]", MAX_TEXT_LENGTH) for i, item in enumerate(items))

    def integer(self, name: str, low: int, high: int, default: int) -> int:
        """An integer from `low` to `high`, both included."""
        value = self._raw(name) if self.has(name) else default
        # In Python True is an integer; in TOML it is not.
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self._refuse(name, f"not an integer from {low} to {high}")
        return value

    def seconds(self, name: str, high: float, default: float) -> float:
        """A number of seconds, 0 to `high`, whole or not."""
        value = self._raw(name) if self.has(name) else default
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            self._refuse(name, "not a number of seconds")
        if not math.isfinite(value) or not 0 <= value <= high:
            self._refuse(name, f"not 0 to {high:g} seconds")
        return float(value)

    def choice(self, name: str, allowed: Collection[str], default: str) -> str:
        """One of a closed list of texts."""
        value = self.text(name) if self.has(name) else default
        if value not in allowed:
            self._refuse(name, f"{ascii(value)[:64]} is not one of {', '.join(sorted(allowed))}")
        return value

    def table(self, name: str) -> Table | None:
        """A table, if it is there; its reader calls its own `end`."""
        if not self.has(name):
            return None
        value = self._raw(name)
        if not isinstance(value, dict):
            self._refuse(name, f"not a table, [{name}]")
        return Table(value, self._file, f"{self._path}.{name}" if self._path else name)

    def tables(self, name: str, max_items: int) -> list[Table]:
        """An array of tables, `[[name]]`; none if there is no such field."""
        items = self._array(name, max_items)
        if not all(isinstance(item, dict) for item in items):
            self._refuse(name, f"not tables, each under [[{name}]]")
        return [Table(item, self._file, f"{name}[{i}]") for i, item in enumerate(items)]

    def content(self, name: str) -> tuple[bytes, str]:
        """The content of the file that the field `name` names, or the text of the field `name_text`.

        Returns:
            The bytes, and where they are from, for error messages.
        """
        inline = f"{name}_text"
        if self.has(name) == self.has(inline):
            self._refuse("", f"must have one of {name}, a file's name, and {inline}, its content")
        if self.has(inline):
            return self.text(inline, MAX_FILE_BYTES).encode(), self.where(inline)
        return self.read(self.text(name), name)

    def read(self, file: str, name: str) -> tuple[bytes, str]:
        """The content of a file that the field `name` names, and where it is from; raises as `text` does."""
        where = f"{self.where(name)}: {ascii(file)[1:-1]}"
        advice = "files are looked for beside the one that names them"
        return _read(self._file.parent / file, where, advice), where

    def end(self, elsewhere: Collection[str] = ()) -> None:
        """Refuse names that were never read.

        Args:
            elsewhere: Names that the outermost table has: in TOML they must stand above all others.

        Raises:
            AnchorError: There are some; names the first few.
        """
        if self._unread:
            names = sorted(self._unread)
            shown = ", ".join(ascii(name[:64]) for name in names[:_SHOWN])
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            moved = any(name in elsewhere for name in names)
            advice = "put it above the first line in brackets" if moved else "is it misspelt?"
            raise AnchorError(f"names that are not known: {shown}{more}", where=self.where(), advice=advice)

    def _raw(self, name: str) -> Any:
        if name not in self._values:
            self._refuse(name, "a field that must be there is missing")
        self._unread.discard(name)
        return self._values[name]

    def _array(self, name: str, max_items: int) -> list[Any]:
        value = self._raw(name) if self.has(name) else []
        if not isinstance(value, list) or len(value) > max_items:
            self._refuse(name, f"not an array of at most {max_items}")
        return value

    def _text(self, value: object, name: str, max_length: int) -> str:
        if not isinstance(value, str) or not 0 < len(value) <= max_length:
            self._refuse(name, f"not a text of 1 to {max_length} characters")
        return value

    def _refuse(self, name: str, message: str) -> NoReturn:
        raise AnchorError(message, where=self.where(name))


def read_toml(file: Path) -> Table:
    """The outermost table of a TOML file.

    Raises:
        AnchorError: It cannot be read, is too large, or is not TOML.
    """
    data = _read(file, str(file), "")
    try:
        return Table(tomllib.loads(data.decode()), file)
    except (ValueError, RecursionError) as e:
        # A fault of TOML is a ValueError, and says the line; so are bytes that are not UTF-8.
        said = ascii(str(e))[1:-1][:200]
        raise AnchorError(f"not TOML: {said}", where=str(file)) from e


def _read(file: Path, where: str, advice: str) -> bytes:
    try:
        with open(file, "rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as e:
        said = getattr(e, "strerror", None) or "not a file's name"
        raise AnchorError(f"cannot be read: {said}", where=where, advice=advice) from e
    if len(data) > MAX_FILE_BYTES:
        raise AnchorError(f"longer than {MAX_FILE_BYTES} bytes", where=where)
    return data
