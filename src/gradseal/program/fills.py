"""Filling tensors by rule: from a rule, a seed and a tensor's name, anyone makes the same bytes.

Also the way back for the simplest rules: the constant or the range that reproduces a tensor. NumPy
operations are taken one at a time, so that nothing is fused. Knows no torch.
Format: docs/spec/randomness.md, section 6.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gradseal.errors import MalformedBundle
from gradseal.program.randomness import CHUNK, Floats, derive, normal_quantile, open_unit, unit, words
from gradseal.program.rules import Constant, Normal, NormalButRow, Range, Rule, TruncatedNormal, Uniform
from gradseal.program.scalars import Named, candidates, explain

ATTEMPTS: Final = 64
"""How often `TruncatedNormal` draws an element before it settles for a bound."""

_FLOAT_DTYPES: Final = {"float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}
_INTEGER_DTYPES: Final = {"int64": "<i8", "int32": "<i4", "int16": "<i2", "int8": "|i1", "uint8": "|u1"}
_DTYPES: Final = {**_FLOAT_DTYPES, **_INTEGER_DTYPES, "bool": "|u1"}


def fill(rule: Rule, *, seed: bytes, name: str, shape: Sequence[int], dtype: str) -> bytes:
    """The tensor's elements in row-major order, little-endian, without gaps.

    Args:
        rule: What to fill with.
        seed: The run's seed, 32 bytes.
        name: The tensor's name, which gives it a stream of its own.
        shape: The tensor's shape.
        dtype: float64, float32, float16, bfloat16, int64, int32, int16, int8, uint8 or bool.

    Raises:
        MalformedBundle: If the type is not known, or cannot hold what the rule gives.
    """
    return b"".join(fill_chunks(rule, seed=seed, name=name, shape=shape, dtype=dtype))


def fill_chunks(rule: Rule, *, seed: bytes, name: str, shape: Sequence[int], dtype: str) -> Iterator[bytes]:
    """What `fill` gives, in pieces of at most 2**16 elements, to hash a tensor without holding it."""
    check_fits(rule, name, shape, dtype)
    item = _item(rule.number.value(), dtype) if isinstance(rule, Constant) else b""
    count = math.prod(shape)
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        if isinstance(rule, Constant):
            yield item * size
        elif isinstance(rule, Range):
            values = _range(rule, start, size, shape[-1])
            yield (
                _encode(values, dtype) if dtype in _FLOAT_DTYPES else values.astype(_DTYPES[dtype]).tobytes()
            )
        else:
            drawn = _draw(rule, _Stream(seed=seed, name=name, start=start, size=size))
            if isinstance(rule, NormalButRow):
                length = count // shape[0]
                first = int(rule.row.value()) * length - start
                drawn[max(0, first) : max(0, first + length)] = 0.0
            yield _encode(drawn, dtype)


def check_fits(rule: Rule, name: str, shape: Sequence[int], dtype: str) -> None:
    """Refuses a rule that a tensor of this type and shape cannot have, without filling it.

    Raises:
        MalformedBundle: The type is not known, cannot hold what the rule gives, or the shape has no such row.
    """
    _require_dtype(dtype)
    if any(size < 0 for size in shape):
        raise MalformedBundle(f"a tensor of shape {tuple(shape)} does not exist", where=name)
    if dtype not in _FLOAT_DTYPES and not isinstance(rule, Constant | Range):
        raise MalformedBundle(f"a {rule.kind} rule does not fill {dtype}", where=name)
    if isinstance(rule, Constant):
        _item(rule.number.value(), dtype)
    elif isinstance(rule, Range):
        _check_range(rule, name, shape, dtype)
    elif isinstance(rule, NormalButRow) and not (shape and rule.row.value() < shape[0]):
        raise MalformedBundle(f"shape {tuple(shape)} has no row {rule.row.value():.0f}", where=name)


def _check_range(rule: Range, name: str, shape: Sequence[int], dtype: str) -> None:
    if not shape or dtype == "bool":
        raise MalformedBundle(f"a range does not fill {dtype} of shape {tuple(shape)}", where=name)
    if dtype in _FLOAT_DTYPES or not shape[-1]:
        return
    start, step = rule.start.value(), rule.step.value()
    limits = np.iinfo(_DTYPES[dtype])
    # A line's ends are its extremes; where a product is not exact, no integer type is that wide.
    ends = (start, start + step * (shape[-1] - 1))
    whole = start == math.floor(start) and step == math.floor(step)
    # 2**63 − 1 is no float64: the next one above is the first that an int64 does not hold.
    if not (whole and all(limits.min <= end < float(limits.max) + 1 and abs(end) <= 2.0**53 for end in ends)):
        raise MalformedBundle(f"{dtype} does not hold the range", where=name)


def _range(rule: Range, start: int, size: int, length: int) -> Floats:
    """The elements from `start` on; two roundings, of the product and of the sum."""
    positions = (np.arange(start, start + size, dtype=np.int64) % length).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(positions, rule.step.value(), out=positions)
        return np.add(positions, rule.start.value(), out=positions)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stream:
    """The elements `start` to `start + size − 1` of one tensor."""

    seed: bytes
    name: str
    start: int
    size: int

    def words(self, attempt: int, first: int, count: int) -> npt.NDArray[np.uint64]:
        key = derive(self.seed, "initialise", self.name, attempt)
        return words(key, self.start + first, count)


def _draw(rule: Uniform | Normal | NormalButRow | TruncatedNormal, stream: _Stream) -> Floats:
    if isinstance(rule, Uniform):
        low, high = rule.low.value(), rule.high.value()
        values = unit(stream.words(0, 0, stream.size))
        # Nothing is clamped: the result never exceeds `high` (docs/spec/randomness.md, section 6).
        np.multiply(values, high - low, out=values)
        return np.add(values, low, out=values)
    values = _normal(rule, stream.words(0, 0, stream.size))
    if isinstance(rule, TruncatedNormal):
        _truncate(rule, values, stream)
    return values


def _normal(rule: Normal | NormalButRow | TruncatedNormal, drawn: npt.NDArray[np.uint64]) -> Floats:
    values = normal_quantile(open_unit(drawn))
    with np.errstate(over="ignore"):  # an absurd deviation overflows to infinity, as IEEE-754 says
        np.multiply(values, rule.std.value(), out=values)
        return np.add(values, rule.mean.value(), out=values)


def _truncate(rule: TruncatedNormal, values: Floats, stream: _Stream) -> None:
    """Replace what lies outside.

    Element i of attempt j is word i of that attempt's own stream: no draw depends on what else was rejected.
    """
    low, high = rule.low.value(), rule.high.value()
    rejected = np.flatnonzero((values < low) | (values > high))
    for attempt in range(1, ATTEMPTS):
        if rejected.size == 0:
            return
        first, last = int(rejected[0]), int(rejected[-1])
        drawn = stream.words(attempt, first, last - first + 1)[rejected - first]
        values[rejected] = again = _normal(rule, drawn)
        rejected = rejected[(again < low) | (again > high)]
    values[rejected] = np.where(values[rejected] < low, low, high)


def _require_dtype(dtype: str) -> None:
    if dtype not in _DTYPES:
        raise MalformedBundle(f"no rule fills tensors of type {dtype!r}")


def _item(number: float, dtype: str) -> bytes:
    """One element; an integer type holds it exactly or not at all."""
    if dtype in _FLOAT_DTYPES:
        return _encode(np.array([number], dtype=np.float64), dtype)
    limits = np.iinfo(_DTYPES[dtype])
    low, high = (0, 1) if dtype == "bool" else (int(limits.min), int(limits.max))
    if not (math.isfinite(number) and number == int(number) and low <= int(number) <= high):
        raise MalformedBundle(f"{dtype} does not hold {number!r}")
    return np.array([int(number)], dtype=_DTYPES[dtype]).tobytes()


def _encode(values: Floats, dtype: str) -> bytes:
    """Round to nearest, ties to even; types narrower than float32 in two steps, by way of float32."""
    if dtype == "float64":
        return values.astype("<f8").tobytes()
    with np.errstate(over="ignore", under="ignore"):
        narrow = values.astype(np.float32)
        if dtype == "bfloat16":
            return to_bfloat16(narrow).astype("<u2").tobytes()
        return narrow.astype(_DTYPES[dtype]).tobytes()


def to_bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The bits of each float32 rounded to bfloat16, ties to even; infinities stay, NaN is not expected."""
    bits = values.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)


def constant_of(raw: bytes, dtype: str, fans: Collection[int]) -> Constant | None:
    """The constant rule that fills exactly these bytes, or None.

    Args:
        raw: A tensor's bytes as `fill` gives them.
        dtype: Its type.
        fans: The integers that a formula may use.

    Returns:
        The simplest scalar that rounds to the element, in the order named, formula (by ratio, then fan),
        free. None if elements differ, or are NaN or an integer that no float64 is equal to.

    Raises:
        MalformedBundle: If the type is not known, or the bytes are not whole elements.
    """
    _require_dtype(dtype)
    itemsize = np.dtype(_DTYPES[dtype]).itemsize
    if len(raw) % itemsize:
        raise MalformedBundle(f"{len(raw)} bytes are not whole elements of {dtype}")
    if not raw:
        return Constant(number=Named(name="0"))
    item = raw[:itemsize]
    elements = np.frombuffer(raw, dtype=f"<u{itemsize}")
    if not bool(np.all(elements == elements[0])):
        return None
    number = _decode(item, dtype)
    if number is None:
        return None
    scalar = next((s for s in candidates(number, fans) if _fills(s.value(), dtype, item)), None)
    return None if scalar is None else Constant(number=scalar)


def range_of(raw: bytes, dtype: str, shape: Sequence[int], fans: Collection[int]) -> Range | None:
    """The range that fills exactly these bytes, or None; of float types, that of float64 and float32 only.

    Args:
        raw: A tensor's bytes as `fill` gives them.
        dtype: Its type.
        shape: Its shape; a range has at least two elements in its last dimension.
        fans: The integers that a formula may use.
    """
    if not shape or shape[-1] < 2 or dtype not in ("float64", "float32", *_INTEGER_DTYPES):
        return None
    first, second = (float(x) for x in np.frombuffer(raw, dtype=_DTYPES[dtype], count=2))
    if not (math.isfinite(first) and math.isfinite(second - first)):
        return None
    rule = Range(start=explain(first, fans), step=explain(second - first, fans))
    if rule.free_bytes() >= len(raw):  # two elements are a range of two free numbers, and say no less
        return None
    try:
        made = fill(rule, seed=bytes(32), name="", shape=shape, dtype=dtype)
    except MalformedBundle:
        return None
    return rule if made == raw else None


def _decode(item: bytes, dtype: str) -> float | None:
    if dtype == "bfloat16":
        item, dtype = b"\0\0" + item, "float32"
    number = float(np.frombuffer(item, dtype=_DTYPES[dtype])[0])
    return None if math.isnan(number) else number


def _fills(number: float, dtype: str, item: bytes) -> bool:
    try:
        return _item(number, dtype) == item
    except MalformedBundle:  # an integer type that cannot hold this candidate
        return False
