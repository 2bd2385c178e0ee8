"""Canonical JSON: one byte sequence for each value.

RFC 8785 for the subset that the format uses: null, booleans, integers up to 2**53 - 1 in size, strings,
arrays and objects. There are no JSON floats, because RFC 8785 would turn 1.0 into 1 and -0.0 into 0 and has
neither NaN nor infinities: a float travels as the hexadecimal digits of its bits, and a large integer as a
decimal string (the typed scalars at the end of this module).

`decode` bounds size and depth before it parses, then re-encodes what it parsed and compares, so that no two
byte sequences mean the same value. Knows no fields; see `fields`. Format: docs/spec/json.md.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import NoReturn, TypeAlias

from gradseal.errors import MalformedBundle

Json: TypeAlias = bool | int | str | list["Json"] | dict[str, "Json"] | None
"""What `decode` returns: a value of the subset."""

Encodable: TypeAlias = bool | int | str | Sequence["Encodable"] | Mapping[str, "Encodable"] | None
"""What `encode` takes: the subset, with tuples and read-only mappings too."""

MAX_INTEGER = 2**53 - 1
"""The largest integer that every JSON implementation holds exactly (RFC 8785 section 3.2.2.3)."""

MAX_DEPTH = 32
"""How many arrays and objects may lie in one another, unless the caller says otherwise."""

_INTEGER_DIGITS = len(str(-MAX_INTEGER))
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_FLOAT_BITS = re.compile(r"[0-9a-f]{16}")
_LARGE_INTEGER = re.compile(r"-?[1-9][0-9]{15,18}")
_STRING = re.compile(rb'"[^"]*"')
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def encode(value: Encodable, *, where: str = "value", max_depth: int = MAX_DEPTH) -> bytes:
    """The canonical bytes of a value (RFC 8785 section 3.2, without floats).

    Args:
        value: Null, boolean, integer, string, list or tuple, or mapping with string keys.
        where: What the value is, for error messages.
        max_depth: How many arrays and objects may lie in one another.

    Returns:
        UTF-8 without white space, the keys of each object in the order of their UTF-16 code units.

    Raises:
        MalformedBundle: The value is outside the subset; names the place inside it.
    """
    plain = _Plain(where, max_depth).convert(value)
    # The standard encoder's escapes are those of RFC 8785 section 3.2.2.2 once it may write non-ASCII.
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()


def decode(data: bytes, *, where: str, max_bytes: int, max_depth: int = MAX_DEPTH) -> Json:
    """Parse bytes that must be the canonical form of a value.

    Memory stays within a small multiple of `max_bytes`, whatever the bytes are.

    Args:
        data: The bytes.
        where: The file they come from, for error messages.
        max_bytes: The most bytes to look at.
        max_depth: How many arrays and objects may lie in one another.

    Returns:
        The value; `encode` gives back the same bytes.

    Raises:
        MalformedBundle: Too large, too deep, not UTF-8, not JSON, outside the subset, or not canonical.
    """
    if len(data) > max_bytes:
        _refuse(f"{len(data)} bytes of JSON, more than the {max_bytes} allowed", where)
    # Before the parser, which calls itself once for each level.
    if _deeper_than(max_depth, data):
        _refuse(f"JSON nested more than {max_depth} deep", where)
    value = _parse(data, where)
    if encode(value, where=where, max_depth=max_depth) != data:
        _refuse("JSON that is not in canonical form", where)
    return value


def _refuse(message: str, where: str) -> NoReturn:
    raise MalformedBundle(message, where=where)


class _Plain:
    """Turns values into plain types, each object's keys in canonical order.

    The path is spelled out only for an error: a hostile key may be as long as the whole file.
    """

    def __init__(self, where: str, max_depth: int) -> None:
        self._where = where
        self._max_depth = max_depth
        self._path: list[str] = []

    def convert(self, value: object) -> Json:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return _safe_integer(value, self._place)
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, (list, tuple, Mapping)):
            if len(self._path) >= self._max_depth:
                self._refuse("a value nested too deep for canonical JSON")
            return self._object(value) if isinstance(value, Mapping) else self._array(value)
        self._refuse(f"a {type(value).__name__} has no canonical JSON; floats go through float_to_bits")

    def _array(self, items: Sequence[object]) -> list[Json]:
        self._path.append("[]")
        plain = [self.convert(item) for item in items]
        self._path.pop()
        return plain

    def _object(self, value: Mapping[object, object]) -> dict[str, Json]:
        keyed = {self._key(name): item for name, item in value.items()}
        # UTF-16 code units, not code points: above U+FFFF the orders differ (RFC 8785 section 3.2.3).
        names = sorted(keyed, key=lambda name: name.encode("utf-16-be"))
        plain: dict[str, Json] = {}
        for name in names:
            self._path.append(name)
            plain[name] = self.convert(keyed[name])
            self._path.pop()
        return plain

    def _key(self, name: object) -> str:
        if not isinstance(name, str):
            self._refuse(f"an object key that is a {type(name).__name__}, not a string")
        return self._text(name)

    def _text(self, value: str) -> str:
        try:
            value.encode()
        except UnicodeEncodeError as e:
            raise MalformedBundle("a string with a lone surrogate", where=self._place()) from e
        return str.__str__(value)

    def _place(self) -> str:
        path = ".".join(ascii(name[:64])[1:-1] for name in self._path).replace(".[]", "[]")
        return f"{self._where}: {path}" if path else self._where

    def _refuse(self, message: str) -> NoReturn:
        _refuse(message, self._place())


def _safe_integer(value: int, place: Callable[[], str]) -> int:
    if not -MAX_INTEGER <= value <= MAX_INTEGER:
        _refuse("an integer beyond 2**53 - 1 as a JSON number; integer_to_json makes it a string", place())
    return int(value)


def _deeper_than(limit: int, data: bytes) -> bool:
    """Whether brackets outside strings nest deeper than the limit.

    A backslash outside a string would confuse the count after it, and there the parser stops anyway.
    """
    unescaped = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = _STRING.sub(b"", unescaped).translate(None, delete=_NOT_BRACKETS)
    return any(depth > limit for depth in accumulate(_STEP[bracket] for bracket in brackets))


def _parse(data: bytes, where: str) -> Json:
    def integer(digits: str) -> int:
        # Before int(), whose time grows with the square of the digits and which refuses thousands of them.
        if len(digits) > _INTEGER_DIGITS:
            _refuse("an integer beyond 2**53 - 1 as a JSON number", where)
        return int(digits)

    def no_float(text: str) -> NoReturn:
        _refuse(f"a JSON float ({text[:32]}); floats are strings of their bits", where)

    def unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        value = dict(pairs)
        if len(value) != len(pairs):
            _refuse("an object that has the same key twice", where)
        return value

    try:
        value: Json = json.loads(
            data.decode(),
            parse_int=integer,
            parse_float=no_float,
            parse_constant=no_float,
            object_pairs_hook=unique,
        )
    except UnicodeDecodeError as e:
        raise MalformedBundle("JSON that is not UTF-8", where=where) from e
    except json.JSONDecodeError as e:
        raise MalformedBundle(f"not JSON: {e}", where=where) from e
    return value


def float_to_bits(x: float) -> str:
    """The IEEE-754 binary64 bits of a float, 16 lower-case hexadecimal digits, most significant first.

    Signed zeros, infinities and the payload of a NaN are all kept (docs/spec/json.md, section 3).
    """
    return struct.pack(">d", x).hex()


def float_from_bits(text: Json, *, where: str) -> float:
    """The float with these bits; the inverse of `float_to_bits`.

    Raises:
        MalformedBundle: Not exactly 16 lower-case hexadecimal digits.
    """
    if not isinstance(text, str) or not _FLOAT_BITS.fullmatch(text):
        _refuse("a float that is not 16 lower-case hexadecimal digits", where)
    (x,) = struct.unpack(">d", bytes.fromhex(text))
    return float(x)


def integer_to_json(n: int, *, where: str = "value") -> int | str:
    """An integer of 64 bits as a JSON number where that is exact, else as a decimal string.

    Raises:
        MalformedBundle: The integer does not fit 64 bits with sign.
    """
    if not _INT64_MIN <= n <= _INT64_MAX:
        _refuse("an integer that does not fit 64 bits", where)
    return int(n) if -MAX_INTEGER <= n <= MAX_INTEGER else str(int(n))


def integer_from_json(value: Json, *, where: str) -> int:
    """The integer that `integer_to_json` wrote as this value.

    Raises:
        MalformedBundle: Neither a number nor a decimal string, a string where a number would do, leading
            zeros, or beyond 64 bits.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return _safe_integer(value, lambda: where)
    if not isinstance(value, str) or not _LARGE_INTEGER.fullmatch(value):
        _refuse("an integer that is neither a JSON number nor a decimal string beyond 2**53 - 1", where)
    n = int(value)
    if integer_to_json(n, where=where) != value:
        _refuse("a decimal string where a JSON number would do", where)
    return n
