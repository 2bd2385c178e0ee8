from __future__ import annotations

import math
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact.elementwise import TABLE

INF = math.inf
NAN = math.nan
NUMBERS = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 1e-45, -1e-45, 3e38, -3e38, INF, -INF, NAN, 7.0, 1.25e-38]
F32 = st.floats(width=32, min_value=-1e9, max_value=1e9)


def aten(name: str) -> Any:
    _, operator, overload = name.split(".")
    return getattr(getattr(torch.ops.aten, operator), overload)


def run(name: str, *args: Any, **kwargs: Any) -> Any:
    short = f"aten.{name}" if "." in name else f"aten.{name}.default"
    return TABLE[short](*args, **kwargs)


def single(x: float) -> float:
    """A binary64 rounded to binary32, ties to even."""
    try:
        return float(struct.unpack("f", struct.pack("f", x))[0])
    except OverflowError:
        return math.copysign(INF, x)


def nearest(q: Fraction) -> float:
    """The binary32 next to a fraction; by way of an integer of 24 bits and a power of two."""
    if q == 0:
        return 0.0
    exponent = max(abs(q.numerator).bit_length() - q.denominator.bit_length() - 24, -150)
    while abs(q) / Fraction(2) ** exponent >= 1 << 24 or exponent < -149:
        exponent += 1
    whole = round(q / Fraction(2) ** exponent)
    return single(float(Fraction(whole) * Fraction(2) ** exponent)) if abs(whole) else math.copysign(0.0, q)


def bits(x: Tensor) -> list[int]:
    x = x.masked_fill(x.isnan(), NAN) if x.dtype is torch.float32 else x
    flat = x.contiguous().view(torch.int32) if x.dtype is torch.float32 else x
    values: list[int] = flat.reshape(-1).tolist()
    return values


def same(got: Tensor, expected: Tensor) -> bool:
    return got.dtype is expected.dtype and got.shape == expected.shape and bits(got) == bits(expected)


def layouts(shape: tuple[int, ...] = (3, 4, 5)) -> dict[str, Callable[[int], Tensor]]:
    def base(seed: int, *size: int) -> Tensor:
        return torch.randn(size, generator=torch.Generator().manual_seed(seed))

    return {
        "contiguous": lambda s: base(s, *shape),
        "transposed": lambda s: base(s, *shape[::-1]).permute(2, 1, 0),
        "strided": lambda s: base(s, 3, 4, 11)[..., 1::2],
        "expanded": lambda s: base(s, 3, 1, 5).expand(shape),
        "empty": lambda s: base(s, 3, 0, 5),
        "scalar": lambda s: base(s).reshape(()),
        "corners": lambda s: torch.tensor(NUMBERS).roll(s),
    }


X = Tensor
FLOAT_CASES: dict[str, Callable[[Callable[[int], Tensor]], tuple[tuple[Any, ...], dict[str, Any]]]] = {}


def case(*names: str, **kwargs: Any) -> Callable[[Callable[..., tuple[Any, ...]]], None]:
    def keep(make: Callable[..., tuple[Any, ...]]) -> None:
        for name in names:
            FLOAT_CASES[f"aten.{name}" if "." in name else f"aten.{name}.default"] = lambda x: (
                make(x),
                kwargs,
            )

    return keep


UNARY = """
abs neg floor ceil trunc round isnan isinf nan_to_num logical_not square sign sgn frac exp log log1p sqrt
rsqrt erf tanh sigmoid reciprocal abs_ neg_ floor_ round_ logical_not_ exp_ log_ sqrt_ rsqrt_ tanh_ sigmoid_
reciprocal_
"""
case(*UNARY.split())(lambda x: (x(1),))
COMPARED = ("eq", "ne", "lt", "le", "gt", "ge")
case(*(f"{n}.Tensor" for n in (*COMPARED, "mul", "div", "mul_", "div_", "xlogy")))(lambda x: (x(1), x(2)))
case(*(f"{n}.Scalar" for n in (*COMPARED, "mul", "div", "mul_", "div_")))(lambda x: (x(1), 0.3))
case("fmod.Tensor", "remainder.Tensor")(lambda x: (x(1), x(2)))
case("fmod.Scalar", "remainder.Scalar")(lambda x: (x(1), 0.375))
case("maximum", "minimum", "max.other", "min.other")(lambda x: (x(1), x(2)))
case("logical_and", "logical_or", "logical_xor", "logical_and_", "logical_or_")(lambda x: (x(1), x(2)))
case("add.Tensor", "sub.Tensor", "rsub.Tensor", "add_.Tensor", "sub_.Tensor", alpha=0.1)(
    lambda x: (x(1), x(2))
)
case("add.Scalar", "sub.Scalar", "rsub.Scalar", "add_.Scalar", "sub_.Scalar")(lambda x: (x(1), 0.7, 3))
case("div.Tensor_mode", rounding_mode="trunc")(lambda x: (x(1), x(2)))
case("div.Scalar_mode", rounding_mode="floor")(lambda x: (x(1), 0.375))
case("pow.Tensor_Scalar", "pow_.Scalar")(lambda x: (x(1), 3))
case("clamp", "clamp_")(lambda x: (x(1), -0.5, 0.75))
case("clamp.Tensor")(lambda x: (x(1), x(2), x(3)))
case("clamp_min", "clamp_max", "clamp_min_")(lambda x: (x(1), 0.25))
case("clamp_min.Tensor", "clamp_max.Tensor", "clamp_min_.Tensor")(lambda x: (x(1), x(2)))
case("addcmul", "addcdiv", "addcmul_", "addcdiv_", value=0.3)(lambda x: (x(1), x(2), x(3)))
case("lerp.Scalar")(lambda x: (x(1), x(2), 0.7))
case("lerp.Tensor")(lambda x: (x(1), x(2), x(3)))
case("where")(lambda x: (x(1) > 0,))
case("where.self")(lambda x: (x(1) > 0, x(2), x(3)))
case("where.Scalar")(lambda x: (x(1) > 0, 1.5, -2.0))
case("where.ScalarSelf")(lambda x: (x(1) > 0, 1.5, x(2)))
case("where.ScalarOther")(lambda x: (x(1) > 0, x(2), 1.5))
case("masked_fill.Scalar", "masked_fill_.Scalar")(lambda x: (x(1), x(2) > 0, 0.1))
case("masked_fill.Tensor", "masked_fill_.Tensor")(lambda x: (x(1), x(2) > 0, torch.tensor(2)))
case("_to_copy", dtype=torch.bool)(lambda x: (x(1),))
case("copy_")(lambda x: (x(1), x(2)))

INTEGER_CASES: dict[str, Callable[[Tensor, Tensor], tuple[Any, ...]]] = {
    "aten.bitwise_not.default": lambda a, b: (a,),
    **{f"aten.bitwise_{n}.Tensor": lambda a, b: (a, b) for n in ("and", "or", "xor")},
    **{f"aten.bitwise_{n}.Scalar": lambda a, b: (a, 5) for n in ("and", "or")},
    "aten.add.Tensor": lambda a, b: (a, b),
    "aten.sub.Scalar": lambda a, b: (a, 3),
    "aten.rsub.Scalar": lambda a, b: (a, 3, 2),
    "aten.rsub.Tensor": lambda a, b: (a, b),
    "aten.mul.Tensor": lambda a, b: (a, b),
    "aten.mul.Scalar": lambda a, b: (a, 0.5),
    "aten.div.Tensor": lambda a, b: (a, b),
    "aten.add_.Tensor": lambda a, b: (a.clone(), b),
    "aten.clamp.default": lambda a, b: (a, -2, 3),
    "aten.clamp.Tensor": lambda a, b: (a, b, b + 2),
    "aten.clamp_min.default": lambda a, b: (a, 0.5),
    "aten.pow.Tensor_Scalar": lambda a, b: (a, 3),
    "aten.fmod.Tensor": lambda a, b: (a, b),
    "aten.remainder.Scalar": lambda a, b: (a, -3),
    "aten.maximum.default": lambda a, b: (a, b),
    "aten.eq.Scalar": lambda a, b: (a, 0.5),
    "aten.sign.default": lambda a, b: (a,),
    "aten.square.default": lambda a, b: (a,),
    "aten.exp.default": lambda a, b: (a,),
    "aten.frac.default": lambda a, b: (a.float(),),
    "aten.addcmul.default": lambda a, b: (a, b, b),
    "aten._to_copy.default": lambda a, b: (a,),
}


def test_every_operator_is_compared_with_atens() -> None:
    assert set(FLOAT_CASES) | set(INTEGER_CASES) == set(TABLE)


def fresh(args: tuple[Any, ...], *, in_place: bool) -> list[Any]:
    """The arguments, and a copy of the first where it is written to."""
    return [a.clone() if i == 0 and in_place else a for i, a in enumerate(args)]


@pytest.mark.parametrize("layout", list(layouts()))
@pytest.mark.parametrize("name", sorted(FLOAT_CASES))
def test_is_close_to_atens(name: str, layout: str) -> None:
    args, kwargs = FLOAT_CASES[name](layouts()[layout])
    in_place = name.split(".")[1].endswith("_")
    first = fresh(args, in_place=in_place)
    got = TABLE[name](*first, **kwargs)
    expected = aten(name)(*fresh(args, in_place=in_place), **kwargs)
    if in_place:
        assert got is first[0]
    pairs = zip(got, expected, strict=True) if isinstance(expected, tuple | list) else [(got, expected)]
    for g, e in pairs:
        assert g.dtype is e.dtype
        if layout == "corners" and any(part in name for part in ("fmod", "remainder", "div", "lerp", "addc")):
            continue  # what ATen gives there depends on the width of its vectors
        torch.testing.assert_close(g, e, rtol=1e-5, atol=1e-6, equal_nan=True)
        if not in_place and layout in ("contiguous", "transposed") and g.dim() == 3:
            assert g.stride() == e.stride()


@pytest.mark.parametrize("layout", ["transposed", "strided", "expanded"])
@pytest.mark.parametrize("name", sorted(FLOAT_CASES))
def test_how_elements_lie_changes_no_bit(name: str, layout: str) -> None:
    args, kwargs = FLOAT_CASES[name](layouts()[layout])
    dense = [a.contiguous().clone() if isinstance(a, Tensor) else a for a in args]
    # A copy of an expanded tensor has memory of its own.
    got = TABLE[name](*fresh(args, in_place=True), **kwargs)
    expected = TABLE[name](*dense, **kwargs)
    pairs = zip(got, expected, strict=True) if isinstance(expected, tuple | list) else [(got, expected)]
    assert all(same(g, e) for g, e in pairs)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
@pytest.mark.parametrize("name", sorted(INTEGER_CASES))
def test_integers_are_as_atens(name: str, dtype: torch.dtype) -> None:
    a = torch.tensor([0, 1, 2, 3, 100, 7, 5], dtype=dtype)
    b = torch.tensor([1, 1, 3, 2, 7, 100, 5], dtype=dtype)
    if dtype is not torch.uint8:
        a, b = a - 4, torch.where(b == 2, -b, b)
    args = INTEGER_CASES[name](a, b)
    expected = aten(name)(*fresh(args, in_place=True))
    got = TABLE[name](*fresh(args, in_place=True))
    assert got.dtype is expected.dtype
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)


@settings(deadline=None)
@given(st.lists(F32, min_size=1, max_size=40), F32, st.sampled_from([0.1, 3, -1, 1.5]))
def test_a_factor_is_a_rounding_of_its_own(values: list[float], other: float, alpha: float) -> None:
    x = torch.tensor(values)
    product = nearest(Fraction(single(alpha)) * Fraction(other))
    expected = [nearest(Fraction(v) + Fraction(product)) for v in values]
    got = run("add.Tensor", x, torch.tensor(other), alpha=alpha).tolist()
    assert got == expected
    got = run("addcmul", x, torch.tensor(other), torch.tensor(0.3), value=alpha).tolist()
    product = nearest(Fraction(product) * Fraction(single(0.3)))
    assert got == [nearest(Fraction(v) + Fraction(product)) for v in values]
    quotient = nearest(Fraction(nearest(Fraction(single(alpha)) * Fraction(other))) / Fraction(single(0.3)))
    got = run("addcdiv", x, torch.tensor(other), torch.tensor(0.3), value=alpha).tolist()
    assert got == [nearest(Fraction(v) + Fraction(quotient)) for v in values]


@settings(deadline=None)
@given(F32, F32, st.floats(width=32, min_value=-1, max_value=2))
def test_interpolation_starts_from_the_nearer_end(start: float, end: float, weight: float) -> None:
    way = nearest(Fraction(end) - Fraction(start))
    if abs(weight) < 0.5:
        part = nearest(Fraction(weight) * Fraction(way))
        expected = nearest(Fraction(start) + Fraction(part))
    else:
        part = nearest(Fraction(way) * Fraction(nearest(1 - Fraction(weight))))
        expected = nearest(Fraction(end) - Fraction(part))
    got = run("lerp.Tensor", torch.tensor(start), torch.tensor(end), torch.tensor(weight))
    assert got.item() == expected


@settings(deadline=None)
@given(st.floats(width=32, min_value=2.0**-30, max_value=2.0**30), st.booleans())
def test_powers_are_products_of_products(size: float, negative: bool) -> None:
    x = -size if negative else size
    square = nearest(Fraction(x) ** 2)
    expected = {
        -2: nearest(1 / Fraction(square)),
        -1: nearest(1 / Fraction(x)),
        0: 1.0,
        1: x,
        2: square,
        3: nearest(Fraction(square) * Fraction(x)),
        4: nearest(Fraction(square) ** 2),
    }
    for exponent, power in expected.items():
        assert run("pow.Tensor_Scalar", torch.tensor(x), exponent).item() == power
        assert run("pow.Tensor_Scalar", torch.tensor(x), float(exponent)).item() == power
    with pytest.raises(ReplayError, match=r"2\.5"):
        run("pow.Tensor_Scalar", torch.tensor(x), 2.5)


@settings(deadline=None, max_examples=300)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.floats(width=32, allow_nan=False))
def test_remainders_are_exact(a: float, b: float) -> None:
    got = run("fmod.Tensor", torch.tensor(a), torch.tensor(b))
    expected = math.fmod(a, b) if b else NAN
    assert same(got, torch.tensor(expected))
    if b and math.isfinite(b):
        rest = (
            nearest(Fraction(expected) + Fraction(b)) if expected and (expected < 0) != (b < 0) else expected
        )
        assert same(run("remainder.Tensor", torch.tensor(a), torch.tensor(b)), torch.tensor(rest))


@settings(deadline=None)
@given(st.integers(-(2**24), 2**24), st.floats(width=32, min_value=2.0**-20, max_value=2.0**20))
def test_whole_quotients_are_those_of_real_numbers(whole: int, b: float) -> None:
    product = torch.tensor(whole * b)
    for a in (product.item(), torch.nextafter(product, torch.tensor(INF)).item()):
        quotient = Fraction(a) / Fraction(b)
        if abs(quotient) < 1 << 24:
            args = torch.tensor(a), torch.tensor(b)
            assert run("div.Tensor_mode", *args, rounding_mode="floor").item() == math.floor(quotient)
            assert run("div.Tensor_mode", *args, rounding_mode="trunc").item() == math.trunc(quotient)


def test_of_two_zeros_the_positive_one_is_larger() -> None:
    a, b = torch.tensor([0.0, -0.0, 0.0, -0.0] * 5), torch.tensor([0.0, 0.0, -0.0, -0.0] * 5)
    assert bits(run("maximum", a, b))[:4] == bits(torch.tensor([0.0, 0.0, 0.0, -0.0]))
    assert bits(run("minimum", a, b))[:4] == bits(torch.tensor([0.0, -0.0, -0.0, -0.0]))
    assert bits(run("clamp_min", a, 0.0)) == bits(torch.zeros(20))
    assert bits(run("clamp_max", a, -0.0)) == bits(torch.full((20,), -0.0))
    assert bits(run("sign", a)) == bits(torch.zeros(20))


def test_nan_wins_and_the_upper_bound_wins() -> None:
    x = torch.tensor([NAN, 1.0, 1.0])
    assert run("maximum", x, torch.tensor([1.0, NAN, INF])).isnan().tolist() == [True, True, False]
    assert run("clamp", torch.tensor([NAN, 0.0]), 3, 2).tolist()[1] == 2.0
    assert run("clamp", torch.tensor([NAN]), 3, 2).isnan().all()
    assert run("clamp", torch.tensor([1.0]), NAN).isnan().all()
    assert run("sign", torch.tensor([NAN])).tolist() == [0.0]
    assert run("pow.Tensor_Scalar", torch.tensor([NAN]), 0).tolist() == [1.0]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=40))
def test_integers_become_the_nearest_float(values: list[int]) -> None:
    x = torch.tensor(values, dtype=torch.int64)
    expected = [nearest(Fraction(v)) for v in values]
    assert run("_to_copy", x, dtype=torch.float32).tolist() == expected
    assert run("add.Tensor", x, torch.tensor([0.0])).tolist() == expected
    assert run("mul.Scalar", torch.ones(len(values)), values[0]).tolist()[0] == expected[0]


@settings(deadline=None, max_examples=300)
@given(st.floats() | st.floats(width=32).map(lambda x: math.nextafter(x * (1 + 2.0**-24), 0.0)))
def test_a_number_is_rounded_once(value: float) -> None:
    expected = NAN if math.isnan(value) else single(value)
    assert same(run("mul.Scalar", torch.ones(3), value), torch.full((3,), expected))
    assert same(run("sub.Scalar", torch.full((3,), -0.0), -value), torch.full((3,), expected))


def test_integers_near_the_midpoints_of_floats_are_rounded_once() -> None:
    values = [s * ((1 << n) + d) for s in (1, -1) for n in range(24, 63) for d in (-1, 0, 1, (1 << (n - 24)))]
    values += [v + d for v in values for d in (-1, 1)]
    x = torch.tensor(values, dtype=torch.int64)
    expected = [nearest(Fraction(v)) for v in values]
    assert run("_to_copy", x, dtype=torch.float32).tolist() == expected
    assert [run("add.Scalar", torch.zeros(()), v).item() for v in values] == expected


@pytest.mark.parametrize(
    ("dtype", "fits", "too_much"),
    [
        (torch.int64, [-(2.0**63), 2.0**63 - 2.0**39, 0.9, -7.9], [2.0**63, -(2.0**63) - 2.0**40, NAN, INF]),
        (torch.int32, [-(2.0**31), 2.0**31 - 128, -0.9], [2.0**31, -(2.0**31) - 256, NAN, -INF]),
        (torch.uint8, [0.0, 255.9, -0.9], [256.0, -1.0, NAN]),
    ],
)
def test_a_float_that_an_integer_cannot_hold_is_refused(
    dtype: torch.dtype, fits: list[float], too_much: list[float]
) -> None:
    assert run("_to_copy", torch.tensor(fits), dtype=dtype).tolist() == [int(v) for v in fits]
    for value in too_much:
        with pytest.raises(ReplayError, match="does not hold"):
            run("_to_copy", torch.tensor([1.0, value]), dtype=dtype)
        with pytest.raises(ReplayError, match="does not hold"):
            run("copy_", torch.zeros(2, dtype=dtype), torch.tensor([1.0, value]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", sorted(FLOAT_CASES))
def test_other_types_are_refused(name: str, dtype: torch.dtype) -> None:
    args, kwargs = FLOAT_CASES[name](lambda seed: layouts()["contiguous"](seed).to(dtype))
    if all(not isinstance(a, Tensor) or a.dtype is torch.bool for a in args):
        pytest.skip("takes no float")
    with pytest.raises(ReplayError, match=str(dtype).removeprefix("torch.")):
        TABLE[name](*args, **kwargs)


def test_a_result_of_another_type_or_shape_is_not_written_in_place() -> None:
    whole = torch.arange(3)
    with pytest.raises(ReplayError):
        run("mul_.Tensor", whole, torch.tensor(0.5))
    with pytest.raises(ReplayError):
        run("add_.Tensor", torch.zeros(3), torch.zeros(2, 3))
    with pytest.raises(ReplayError):
        run("div_.Scalar", whole, 2)
    assert whole.tolist() == [0, 1, 2]


def test_arguments_may_be_named() -> None:
    x = torch.tensor([-1.0, 0.5, 3.0])
    assert run("clamp", x, max=1.0).tolist() == [-1.0, 0.5, 1.0]
    assert run("add.Tensor", self=x, other=x, alpha=2).tolist() == [-3.0, 1.5, 9.0]
    assert run("mul.Tensor", x, 2).tolist() == [-2.0, 1.0, 6.0]
    assert run("rsub.Scalar", x, 1.0, alpha=2).tolist() == [3.0, 0.0, -5.0]
