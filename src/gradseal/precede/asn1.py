"""Strict DER (X.690 section 10): bounds, tags and lengths, before any decoder sees the bytes.

Decoders differ in what they forgive. What passes here has definite lengths in their shortest form, no
constructed strings, no long tags and nothing after its end, so that they have little left to differ about.
Knows no types.
Format: docs/spec/timestamps.md, section 1.
"""

from __future__ import annotations

from typing import NoReturn

from gradseal.errors import AnchorError

MAX_DER_BYTES = 64 * 1024
"""The longest encoding that is read."""

MAX_DEPTH = 32
"""How deep its elements may lie in each other."""

MAX_ELEMENTS = 8192
"""The most elements in it."""

_SEQUENCE_OR_SET = (0x10, 0x11)


def check_der(data: bytes, *, where: str) -> None:
    """Refuse what is not one DER element with nothing after it (X.690 section 10), or is over a limit.

    Checks tags and lengths: definite lengths in their shortest form, no constructed strings, no long tags.

    Raises:
        AnchorError: It is not, or is larger, deeper or of more elements than allowed.
    """
    if len(data) > MAX_DER_BYTES:
        refuse(f"{len(data)} bytes, more than the {MAX_DER_BYTES} allowed", where)
    at, ends = 0, [len(data)]
    for _ in range(MAX_ELEMENTS):
        constructed, start, end = _header(data, at, ends[-1], where)
        if len(ends) == 1 and end != len(data):
            refuse(f"{len(data) - end} bytes after its end", where)
        if constructed:
            ends.append(end)
        at = start if constructed else end
        if len(ends) > MAX_DEPTH:
            refuse(f"elements nested deeper than {MAX_DEPTH}", where)
        while ends and at == ends[-1]:
            ends.pop()
        if not ends:
            return
    refuse(f"more than {MAX_ELEMENTS} elements", where)


def children(data: bytes) -> list[bytes]:
    """The elements, with their headers, in the one that `check_der` took; none in a primitive one."""
    found: list[bytes] = []
    constructed, at, limit = _header(data, 0, len(data), "")
    if not constructed:
        return found
    while at < limit:
        _, _, end = _header(data, at, limit, "")
        found.append(data[at:end])
        at = end
    return found


def refuse(message: str, where: str, advice: str = "") -> NoReturn:
    """Raise an `AnchorError`."""
    raise AnchorError(message, where=where, advice=advice)


def _header(data: bytes, at: int, limit: int, where: str) -> tuple[bool, int, int]:
    """Whether the element at an offset is constructed, where its contents start, and where they end."""
    if at + 2 > limit:
        refuse(f"ends early, at byte {at}", where)
    tag, length, start = data[at], data[at + 1], at + 2
    constructed = bool(tag & 0x20)
    universal = tag < 0x40
    if tag & 0x1F == 0x1F or (universal and constructed != (tag & 0x1F in _SEQUENCE_OR_SET)):
        refuse(f"not DER: the tag at byte {at}", where)
    if length >= 0x80:
        octets = data[start : min(start + (length & 0x7F), limit)]
        start, length = start + len(octets), int.from_bytes(octets, "big")
        if not octets or not octets[0] or length < 0x80:
            refuse(f"not DER: the length at byte {at + 1}", where)
    if start + length > limit:
        refuse(f"ends early: the element at byte {at} would be longer than what holds it", where)
    return constructed, start, start + length
