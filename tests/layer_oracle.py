"""What tests of exact layers share: float32 in Python's own numbers, and a comparison with ATen.

`Float` does one rounding a step. Python computes in float64, whose result rounded to float32 is the rounded
exact one: a sum, product or quotient of two float32 is never so close to a midpoint of two float32 that
float64 would put it there. Sums and means follow docs/spec/arithmetic.md with fractions. Functions and
products are asked of `exact.functions` and `exact.products`, which have tests of their own.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from gradseal.program.exact import functions
from gradseal.program.exact.products import matmul

NAN_BITS = 0x7FC00000
EPS = 2.0**-24

ANY = st.floats(width=32)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
ORDINARY = st.floats(width=32, min_value=-4.0, max_value=4.0)
FAR = st.floats(width=32, min_value=65536.0, max_value=65540.0)
EXTREME = st.sampled_from(
    [0.0, -0.0, 2.0**-149, -(2.0**-149), 2.0**-126, 1.0, -1.0, 2.0**63, -(2.0**64), 3e38, -3e38]
)
SPECIAL = st.sampled_from([math.inf, -math.inf, math.nan, 0.0, -0.0, 1.0, 3e38])
KINDS = st.sampled_from([ORDINARY, FAR, EXTREME, SPECIAL, ANY])
"""Strategies of numbers; a tensor is drawn from one of them."""


def rounded(x: float) -> float:
    """To float32."""
    try:
        result: float = struct.unpack("f", struct.pack("f", x))[0]
    except OverflowError:
        return math.copysign(math.inf, x)
    return result


@dataclass(frozen=True)
class Float:
    value: float

    def __add__(self, other: Float) -> Float:
        return Float(rounded(self.value + other.value))

    def __sub__(self, other: Float) -> Float:
        return Float(rounded(self.value - other.value))

    def __mul__(self, other: Float) -> Float:
        return Float(rounded(self.value * other.value))

    def __neg__(self) -> Float:
        return Float(-self.value)

    def __truediv__(self, other: Float) -> Float:
        a, b = self.value, other.value
        if b:
            return Float(rounded(a / b))
        if a == 0 or math.isnan(a):
            return Float(math.nan)
        return Float(math.inf * math.copysign(1.0, a) * math.copysign(1.0, b))


def of(x: float) -> Float:
    """A number rounded to float32."""
    return Float(rounded(x))


def by(function: Callable[[Tensor], Tensor], x: Float) -> Float:
    """A function of `exact.functions`."""
    return Float(float(function(torch.tensor(x.value, dtype=torch.float32))))


def rsqrt(x: Float) -> Float:
    return by(functions.rsqrt, x)


def exp(x: Float) -> Float:
    return by(functions.exp, x)


def log(x: Float) -> Float:
    return by(functions.log, x)


def largest(values: Sequence[Float]) -> Float:
    """NaN if there is one."""
    numbers = [v.value for v in values]
    return Float(math.nan if any(map(math.isnan, numbers)) else max(numbers))


def nearest(q: Fraction) -> Float:
    """The float32 next to a fraction, ties to even, with one zero."""
    if q == 0:
        return Float(0.0)
    exponent = abs(q.numerator).bit_length() - q.denominator.bit_length()
    exponent -= Fraction(2) ** exponent > abs(q)
    quantum = Fraction(2) ** max(exponent - 23, -149)
    result = round(q / quantum) * quantum
    return Float(math.copysign(math.inf, q) if abs(result) >= 2**128 else float(result) + 0.0)


def _integers(values: Sequence[float]) -> tuple[int, Fraction]:
    exponent = max((math.frexp(v)[1] for v in values if v), default=-148)
    unit = Fraction(2) ** (exponent - 53 + math.ceil(math.log2(max(len(values), 1))))
    return sum(round(Fraction(v) / unit) for v in values), unit


def total(values: Iterable[Float]) -> Float:
    numbers = [v.value for v in values]
    special = [v for v in numbers if not math.isfinite(v)]
    if special:
        return Float(sum(special))
    integer, unit = _integers(numbers)
    return nearest(integer * unit)


def mean(values: Iterable[Float]) -> Float:
    numbers = [v.value for v in values]
    special = [v for v in numbers if not math.isfinite(v)]
    if special or not numbers:
        return Float(sum(special) if special else math.nan)
    integer, unit = _integers(numbers)
    return nearest(Fraction(integer / len(numbers)) * unit)


def times(a: Sequence[Sequence[Float]], b: Sequence[Sequence[Float]]) -> list[list[Float]]:
    """The product of two matrices, by `exact.products`."""
    result = matmul(
        *(torch.tensor([[x.value for x in row] for row in m], dtype=torch.float32) for m in (a, b))
    )
    return [floats(row) for row in result]


def bits(x: Tensor | Sequence[Float]) -> list[int]:
    """Bit patterns, with one for all NaN."""
    values = torch.tensor([v.value for v in x], dtype=torch.float32) if not isinstance(x, Tensor) else x
    assert values.dtype is torch.float32
    patterns: list[int] = (values.reshape(-1).view(torch.int32).to(torch.int64) & 0xFFFFFFFF).tolist()
    nan: list[bool] = values.reshape(-1).isnan().tolist()
    return [NAN_BITS if n else p for p, n in zip(patterns, nan, strict=True)]


def floats(x: Tensor) -> list[Float]:
    return [Float(v) for v in x.reshape(-1).tolist()]


@st.composite
def tensors(draw: st.DrawFn, *shape: int, elements: st.SearchStrategy[float] | None = None) -> Tensor:
    """float32 of this shape, of one kind of numbers, some of them of any other."""
    kind = draw(KINDS) if elements is None else elements
    count = math.prod(shape)
    values = draw(st.lists(kind, min_size=count, max_size=count))
    return torch.tensor(values, dtype=torch.float32).reshape(shape)


Case = tuple[str, tuple[Any, ...]]


def compare(function: Callable[..., Any], name: str, args: tuple[Any, ...], **kwargs: Any) -> None:
    """Asserts that a function gives what ATen's operator gives, and leaves its arguments alike.

    Shapes, layouts and what is None are equal; values are as close to ATen's own in float64 as its float32
    are, but for a few units in the last place.
    """
    runs = [_run(function, args, kwargs, torch.float32)]
    runs += [_run(overload(name), args, kwargs, dtype) for dtype in (torch.float32, torch.float64)]
    for own, single, double in zip(*runs, strict=True):
        if not isinstance(single, Tensor):
            assert own is single
            continue
        assert own.dtype == single.dtype
        assert own.shape == single.shape
        assert own.numel() == 0 or own.stride() == single.stride(), (name, own.stride(), single.stride())
        if not own.numel():
            continue
        # Where float64 is NaN or infinite, so are both.
        assert torch.equal(own.isnan(), double.isnan())
        sane = double.isfinite()
        assert torch.equal(own.double()[~sane].nan_to_num(7.0), double[~sane].nan_to_num(7.0))
        if sane.any():
            allowed = 2.0 * (single - double)[sane].abs().max() + 8 * EPS * double[sane].abs().max()
            assert (own - double)[sane].abs().max() <= allowed + 2.0**-149


def _run(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], dtype: torch.dtype
) -> list[Any]:
    given = [_as(value, dtype) for value in args]
    result = function(*given, **{key: _as(value, dtype) for key, value in kwargs.items()})
    return [
        *(result if isinstance(result, tuple) else [result]),
        *(g for g in given if isinstance(g, Tensor)),
    ]


def overload(name: str) -> Any:
    _, operator, variant = name.split(".")
    return getattr(getattr(torch.ops.aten, operator), variant)


def _as(value: Any, dtype: torch.dtype) -> Any:
    """A copy with the same strides, in another type of fractions."""
    if value is torch.float32:
        return dtype
    if not isinstance(value, Tensor):
        return value
    new = dtype if value.dtype is torch.float32 else value.dtype
    size = 1 + sum((n - 1) * s for n, s in zip(value.shape, value.stride(), strict=True))
    memory = torch.zeros(max(size, 0), dtype=new)
    if value.numel():
        memory = torch.as_strided(value, (size,), (1,)).to(new, copy=True)
    return torch.as_strided(memory, value.shape, value.stride()) if value.numel() else value.to(new)
