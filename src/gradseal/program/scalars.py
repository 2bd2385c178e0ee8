"""The numbers of initialisation rules: named, following from the model's shapes, or free.

A named constant stands in a short table; a formula is a root of a ratio over a fan of the model's shapes; any
other number is free, and costs eight free bytes. Knows no torch. Format: docs/spec/randomness.md, section 5.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gradseal.errors import MalformedBundle
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

FREE_BYTES: Final = 8
"""What a free scalar costs."""


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


def candidates(number: float, fans: Collection[int]) -> Iterator[Scalar]:
    """Every scalar that may be what a number was before it was rounded to a tensor's type, simplest first."""
    yield from (Named(name=name) for name in NAMED)
    if _FORMULA_LOW < abs(number) < _FORMULA_HIGH:
        ordered = sorted(fan for fan in fans if 1 <= fan <= FAN_MAX)
        for p, q in RATIOS:
            # A bfloat16 is within 2^−8 of what it was rounded from, so its fan is within 2^−7: 2 % is ample.
            fan = p / (q * number * number)
            for near in ordered[bisect_left(ordered, 0.98 * fan) : bisect_right(ordered, 1.02 * fan)]:
                yield Formula(negative=number < 0, p=p, q=q, fan=near)
    yield Free(number=number)


def scalar_from_json(entry: Fields) -> Scalar:
    """Read a scalar strictly.

    Raises:
        UnknownKind: If this version knows no such form, name or ratio.
        MalformedBundle: If anything is missing, extra or out of range.
    """
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
