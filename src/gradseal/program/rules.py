"""The closed list of rules that fill tensors at initialisation.

A rule is data: `Constant`, `Uniform`, `Normal` or `TruncatedNormal`, whose numbers are scalars: named, or
derived from the model's shapes, or *free*, which costs eight free bytes each. From a rule, a seed and a
tensor's name anyone fills the same bytes, in any pieces. Order here: scalars, rules, reading, filling.
Leaves out which rule a model's tensor has, and what policy says about free bytes. Knows no torch.
Format: docs/spec/randomness.md, sections 5 and 6.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt

from gradseal.errors import MalformedBundle
from gradseal.program.randomness import CHUNK, Floats, derive, normal_quantile, open_unit, unit, words
from gradseal.proof.canonical import Json, float_to_bits
from gradseal.proof.fields import Fields

NAMED: Final[dict[str, float]] = {
    **{str(n): float(n) for n in (0, 1, -1, 2, -2, 3, -3)},
    **{str(x): x for x in (0.5, -0.5, 0.25)},  # 0.25 is PReLU's slope
    **{str(x): x for x in (0.1, -0.1, 0.2, -0.2, 0.05, -0.05)},  # ranges of embeddings and recurrent nets
    **{str(x): x for x in (0.02, -0.02, 0.04, -0.04)},  # transformers' deviation, and twice it
    **{str(x): x for x in (0.01, -0.01, 0.001, -0.001)},  # small ranges, deviations and slopes
    **{str(x): x for x in (1e-5, 1e-6)},  # layer scales
    "-inf": -math.inf,  # attention masks
    "lowest float32": -(2.0 - 2.0**-23) * 2.0**127,  # likewise
}
"""The constants that cost nothing. Few, since each adds to what can be said without free bytes."""

RATIOS: Final[tuple[tuple[int, int], ...]] = (
    # (1, 3, 2, 6) for Kaiming normal and uniform, Xavier normal and uniform, times the square of the gain:
    *((1, 1), (2, 1), (3, 1), (6, 1)),  # linear 1, and a bias's bound
    *((4, 1), (12, 1)),  # ReLU √2
    *((1, 3), (2, 3)),  # leaky ReLU with slope √5: √(1/3), the default of linear and convolutional layers
    *((25, 9), (25, 3), (50, 9), (50, 3)),  # tanh 5/3
)
"""p/q of the formula √(p / (q · fan)), simplest first."""

FAN_MAX: Final = 2**31 - 1
TOLERANCE: Final = 1e-12
"""How far a formula may be from the value it explains, relatively: frameworks round several times more."""

# No formula lies outside, where the square of a number could also under- or overflow.
_FORMULA_LOW: Final = 2.0**-17
_FORMULA_HIGH: Final = 5.0

ATTEMPTS: Final = 64
"""How often `TruncatedNormal` draws an element before it settles for a bound."""
_FREE_BYTES: Final = 8
_FLOAT_DTYPES: Final = {"float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}
_INTEGER_DTYPES: Final = {"int64": "<i8", "int32": "<i4", "int16": "<i2", "int8": "|i1", "uint8": "|u1"}
_DTYPES: Final = {**_FLOAT_DTYPES, **_INTEGER_DTYPES, "bool": "|u1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A constant of the table `NAMED`."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in NAMED:
            raise MalformedBundle(f"no constant is named {self.name!r}")

    def value(self) -> float:
        """The constant."""
        return NAMED[self.name]

    def to_json(self) -> dict[str, Json]:
        """For the manifest."""
        return {"form": "named", "name": self.name}


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula:
    """± √(p / (q · fan)), with p/q of the table `RATIOS` and a fan of the model's shapes."""

    negative: bool
    p: int
    q: int
    fan: int

    def __post_init__(self) -> None:
        if (self.p, self.q) not in RATIOS or not 1 <= self.fan <= FAN_MAX:
            raise MalformedBundle(f"no formula has the ratio {self.p}/{self.q} and the fan {self.fan}")

    def value(self) -> float:
        """Two roundings, of the quotient and of the root; q · fan is exact."""
        root = math.sqrt(self.p / (self.q * self.fan))
        return -root if self.negative else root

    def to_json(self) -> dict[str, Json]:
        """For the manifest."""
        sign = "-" if self.negative else "+"
        return {"form": "formula", "sign": sign, "ratio": f"{self.p}/{self.q}", "fan": self.fan}


@dataclass(frozen=True, slots=True, kw_only=True)
class Free:
    """Any float64 but NaN, by its bits; eight bytes that the prover chose."""

    number: float

    def __post_init__(self) -> None:
        if math.isnan(self.number):
            raise MalformedBundle("NaN initialises nothing")

    def value(self) -> float:
        """The number."""
        return self.number

    def to_json(self) -> dict[str, Json]:
        """For the manifest."""
        return {"form": "free", "bits": float_to_bits(self.number)}


Scalar = Named | Formula | Free


def fans_of(shapes: Iterable[Sequence[int]]) -> frozenset[int]:
    """The integers that a formula may use: for each shape its dimensions, fan in, fan out and their sum.

    As in torch.nn.init, with two dimensions or more fan in is the second and fan out the first, each times
    all later ones. A vector gives its length. No more than dimensions + 3 for each shape, in [1, 2**31).
    """
    found: set[int] = set()
    for shape in shapes:
        found.update(shape)
        if len(shape) >= 2:
            receptive_field = math.prod(shape[2:])
            fan_out, fan_in = shape[0] * receptive_field, shape[1] * receptive_field
            found.update((fan_in, fan_out, fan_in + fan_out))
    return frozenset(fan for fan in found if 1 <= fan <= FAN_MAX)


def explain(value: float, fans: Collection[int]) -> Scalar:
    """The simplest scalar: named if equal bit for bit, else by the first ratio that fits, else free.

    A formula fits within a relative 1e-12 and then *replaces* the number by its own value.
    """
    for name, constant in NAMED.items():
        if _bits(constant) == _bits(value):
            return Named(name=name)
    if _FORMULA_LOW < abs(value) < _FORMULA_HIGH:
        for p, q in RATIOS:
            fan = round(p / (q * value * value))
            if fan in fans and 1 <= fan <= FAN_MAX:
                formula = Formula(negative=value < 0, p=p, q=q, fan=fan)
                if abs(formula.value() - value) <= TOLERANCE * abs(value):
                    return formula
    return Free(number=value)


def _bits(number: float) -> bytes:
    return struct.pack(">d", number)


class _Rule:
    """What the rules share: their fields are scalars, and nothing else."""

    __slots__ = ()
    kind: ClassVar[str]

    def scalars(self) -> dict[str, Scalar]:
        """The rule's scalars by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def free_bytes(self) -> int:
        """Eight for each free scalar."""
        return sum(_FREE_BYTES for scalar in self.scalars().values() if isinstance(scalar, Free))

    def to_json(self) -> dict[str, Json]:
        """For the manifest; `rule_from_json` reads it back."""
        return {"kind": self.kind} | {name: scalar.to_json() for name, scalar in self.scalars().items()}

    def _require(self, fits: bool, message: str) -> None:
        finite = all(math.isfinite(scalar.value()) for scalar in self.scalars().values())
        if not (finite and fits):
            raise MalformedBundle(message, where=self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant(_Rule):
    """Every element is one number."""

    kind = "constant"
    number: Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform(_Rule):
    """low + u · (high − low) with u in [0, 1): never above `high`, but rounding may reach it."""

    kind = "uniform"
    low: Scalar
    high: Scalar

    def __post_init__(self) -> None:
        low, high = self.low.value(), self.high.value()
        self._require(low <= high and math.isfinite(high - low), "the range is empty or not finite")


@dataclass(frozen=True, slots=True, kw_only=True)
class Normal(_Rule):
    """Mean + std · z with a standard normal z."""

    kind = "normal"
    mean: Scalar
    std: Scalar

    def __post_init__(self) -> None:
        self._require(self.std.value() >= 0.0, "the deviation is negative, or a number not finite")


@dataclass(frozen=True, slots=True, kw_only=True)
class TruncatedNormal(_Rule):
    """As `Normal`, drawn again until it lies in [low, high]; after 64 draws, the nearer bound."""

    kind = "truncated normal"
    mean: Scalar
    std: Scalar
    low: Scalar
    high: Scalar

    def __post_init__(self) -> None:
        fits = self.std.value() >= 0.0 and self.low.value() <= self.high.value()
        self._require(fits, "the range is empty, the deviation negative, or a number not finite")


Rule = Constant | Uniform | Normal | TruncatedNormal
_RULES: Final[dict[str, type[Rule]]] = {
    rule.kind: rule for rule in (Constant, Uniform, Normal, TruncatedNormal)
}


def check(rule: Rule, fans: Collection[int]) -> None:
    """Refuse a rule with a formula whose fan is not one of the model's.

    Raises:
        MalformedBundle: If there is one.
    """
    for name, scalar in rule.scalars().items():
        if isinstance(scalar, Formula) and scalar.fan not in fans:
            place = f"{rule.kind}, {name}"
            raise MalformedBundle(f"no tensor's shape gives the fan {scalar.fan}", where=place)


def rule_from_json(entry: Fields) -> Rule:
    """Read a rule strictly.

    Raises:
        UnknownKind: If this version knows no such rule, form, name or ratio.
        MalformedBundle: If anything is missing, extra or out of range.
    """
    kind = _RULES[entry.kind("kind", _RULES)]
    rule = kind(**{field.name: _scalar_from_json(entry.object(field.name)) for field in fields(kind)})
    entry.end()
    return rule


def _scalar_from_json(entry: Fields) -> Scalar:
    scalar: Scalar
    match entry.kind("form", ("named", "formula", "free")):
        case "named":
            scalar = Named(name=entry.kind("name", NAMED))
        case "formula":
            p, q = entry.kind("ratio", [f"{p}/{q}" for p, q in RATIOS]).split("/")
            negative = entry.choice("sign", ("+", "-")) == "-"
            scalar = Formula(negative=negative, p=int(p), q=int(q), fan=entry.integer("fan", 1, FAN_MAX))
        case _:
            scalar = Free(number=entry.float_("bits"))
    entry.end()
    return scalar


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
    _require_dtype(dtype)
    if any(size < 0 for size in shape):
        raise MalformedBundle(f"a tensor of shape {tuple(shape)} does not exist", where=name)
    if dtype not in _FLOAT_DTYPES and not isinstance(rule, Constant):
        raise MalformedBundle(f"a {rule.kind} rule does not fill {dtype}", where=name)
    item = _item(rule.number.value(), dtype) if isinstance(rule, Constant) else b""
    count = math.prod(shape)
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        if isinstance(rule, Constant):
            yield item * size
        else:
            yield _encode(_draw(rule, _Stream(seed=seed, name=name, start=start, size=size)), dtype)


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


def _draw(rule: Uniform | Normal | TruncatedNormal, stream: _Stream) -> Floats:
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


def _normal(rule: Normal | TruncatedNormal, drawn: npt.NDArray[np.uint64]) -> Floats:
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
    scalar = next((s for s in _candidates(number, fans) if _fills(s.value(), dtype, item)), None)
    return None if scalar is None else Constant(number=scalar)


def _decode(item: bytes, dtype: str) -> float | None:
    if dtype == "bfloat16":
        item, dtype = b"\0\0" + item, "float32"
    number = float(np.frombuffer(item, dtype=_DTYPES[dtype])[0])
    return None if math.isnan(number) else number


def _candidates(number: float, fans: Collection[int]) -> Iterator[Scalar]:
    yield from (Named(name=name) for name in NAMED)
    if _FORMULA_LOW < abs(number) < _FORMULA_HIGH:
        ordered = sorted(fan for fan in fans if 1 <= fan <= FAN_MAX)
        for p, q in RATIOS:
            # A bfloat16 is within 2^−8 of what it was rounded from, so its fan is within 2^−7: 2 % is ample.
            fan = p / (q * number * number)
            for near in ordered[bisect_left(ordered, 0.98 * fan) : bisect_right(ordered, 1.02 * fan)]:
                yield Formula(negative=number < 0, p=p, q=q, fan=near)
    yield Free(number=number)


def _fills(number: float, dtype: str, item: bytes) -> bool:
    try:
        return _item(number, dtype) == item
    except MalformedBundle:  # an integer type that cannot hold this candidate
        return False
