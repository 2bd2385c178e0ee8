from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import mpmath  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact import activation_functions, functions, kernel
from vectors import make_functions

Function = Callable[[Tensor], Tensor]

NAN_BITS = 0x7FC00000
INF = math.inf
NAN = math.nan
SMALLEST = 2.0**-149
VECTORS = json.loads(Path(make_functions.__file__).with_name("functions.json").read_text(encoding="utf-8"))[
    "functions"
]
CONTEXT = mpmath.MPContext()
CONTEXT.prec = 120

FUNCTIONS: dict[str, Function] = {
    "sqrt": functions.sqrt,
    "rsqrt": functions.rsqrt,
    "exp": functions.exp,
    "sigmoid": functions.sigmoid,
    "tanh": functions.tanh,
    "log": functions.log,
    "log1p": functions.log1p,
    "softplus": functions.softplus,
    "erf": functions.erf,
    "gelu": functions.gelu,
    "gelu_tanh": functions.gelu_tanh,
}

# SHA-256 of the results, as little-endian float32, for the arguments with the bits 0, 4099, 8198, … < 2^32.
DIGESTS = {
    "sqrt": "4dc45d707eda47d4ad2b7a484d09819c52e300db61b04db052d83effa1bff8b9",
    "rsqrt": "6496502856cbfee838405bcb50c622836e34efd7b20f181f7d3f69ba8229ac6a",
    "exp": "8092cc4a8e0e78319d2c647bb4fbc6070ab988d6a1daddeaafd72523668225d0",
    "sigmoid": "d77519131ae261276006261e44cbd46b1b44e1326cc026e1733afbb6df80afd4",
    "tanh": "9f0f15aedb3e174c65646a1da79418551a181c0f8972ac97e2875bced6814144",
    "log": "97defe6ca2cbff78a070919e56e30a6afb70ae899104c70c26bc8bdd39cfbf6f",
    "log1p": "7de9ec1ab4841bb6be7e05bd7cfd6e9a9dcf759e2c196a2e610039e346c948a3",
    "softplus": "4eebf590aa064372b9bb2423ec64902697249d2d6e52294e1bd3e409eca0e4c5",
    "erf": "acc3c54d02b77dc4eb94e74a87a8b8dde71e3af96e6b8488d43471bb2a003375",
    "gelu": "6c43813927e9b6bbc75596537fb7de1667f25b71b59922270bbcf6b2580f1319",
    "gelu_tanh": "ea0ae8c8d639ee4c05a727f4a672dd366fc8a660df05173b400ce921a68846b6",
}


def _sigmoid(x: mpmath.mpf) -> mpmath.mpf:
    return 1 / (1 + CONTEXT.exp(-x))


def _gelu_tanh(x: mpmath.mpf) -> mpmath.mpf:
    cubic = CONTEXT.mpf(44715) / 1_000_000
    return x * _sigmoid(2 * CONTEXT.sqrt(2 / CONTEXT.pi) * (x + cubic * x**3))


ORACLES: dict[str, Callable[[mpmath.mpf], mpmath.mpf]] = {
    "sqrt": CONTEXT.sqrt,
    "rsqrt": lambda x: 1 / CONTEXT.sqrt(x),
    "exp": CONTEXT.exp,
    "sigmoid": _sigmoid,
    "tanh": CONTEXT.tanh,
    "log": CONTEXT.log,
    "log1p": CONTEXT.log1p,
    "softplus": lambda x: CONTEXT.log1p(CONTEXT.exp(x)),
    "erf": CONTEXT.erf,
    "gelu": lambda x: x * CONTEXT.erfc(-x / CONTEXT.sqrt(2)) / 2,
    "gelu_tanh": _gelu_tanh,
}
STARTS = {"sqrt": 0.0, "rsqrt": 0.0, "log": 0.0, "log1p": -1.0}
BOUNDS = {"sqrt": 0.5, "erf": 0.50001}


def bits(x: Tensor) -> list[int]:
    values: list[int] = (x.reshape(-1).view(torch.int32).to(torch.int64) & 0xFFFFFFFF).tolist()
    return values


def bits_of(x: float) -> int:
    return NAN_BITS if math.isnan(x) else int.from_bytes(struct.pack(">f", x), "big")


def at(function: Function, x: float) -> int:
    return bits(function(torch.tensor([x])))[0]


def from_bits(patterns: npt.NDArray[np.uint32]) -> Tensor:
    return torch.from_numpy(patterns.view(np.float32).copy())


def spread(step: int) -> Tensor:
    return from_bits(np.arange(0, 1 << 32, step, dtype=np.uint64).astype(np.uint32))


def finite(x: Tensor) -> Tensor:
    return x[x.isfinite()]


def error_in_ulp(result: float, exact: mpmath.mpf) -> float:
    """How far a float32 is from the exact value, in the distance of two float32 there."""
    if exact == 0:
        return 0.0 if result == 0 else INF
    exponent = max(int(CONTEXT.floor(CONTEXT.log(abs(exact), 2))), -126)
    overflows = math.isinf(result) and abs(exact) >= CONTEXT.mpf(2) ** 128 * (1 - CONTEXT.mpf(2) ** -25)
    return 0.0 if overflows else float(abs(CONTEXT.mpf(result) - exact) / CONTEXT.mpf(2) ** (exponent - 23))


def sample(name: str) -> Tensor:
    generator = np.random.default_rng(7)
    parts = [
        finite(spread(10_000_019)).numpy(),
        generator.normal(size=400),
        generator.uniform(-15.0, 15.0, 300),
        generator.uniform(-104.0, 89.0, 200),
        1 + generator.uniform(-0.01, 0.01, 100),
    ]
    x = np.concatenate(parts).astype(np.float32)
    return torch.from_numpy(x[x > STARTS.get(name, -INF)])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_result_is_the_nearest_float32_but_for_near_ties(name: str) -> None:
    x = sample(name)
    # Far beyond both ends nothing happens, and exp there is a number without end.
    x = x[(x > -1e4) & (x < 1e4)] if name in {"exp", "sigmoid", "softplus", "gelu", "gelu_tanh"} else x
    results = FUNCTIONS[name](x).tolist()
    errors = [
        error_in_ulp(y, ORACLES[name](CONTEXT.mpf(v))) for v, y in zip(x.tolist(), results, strict=True)
    ]
    assert len(errors) > 500
    assert max(errors) <= BOUNDS.get(name, 0.500001)


@given(st.floats(width=32, min_value=0.0, allow_infinity=False))
def test_a_root_is_correctly_rounded(x: float) -> None:
    # By integers, and rounded down 2^−200 below the point: no root of a float32 is that close to a midpoint.
    root = Fraction(math.isqrt(int(Fraction(x) * (1 << 400))), 1 << 200)
    y = Fraction(functions.sqrt(torch.tensor([x])).item())
    ulp = Fraction(2) ** (math.frexp(float(y))[1] - 24)
    assert abs(y - root) <= ulp / 2


@pytest.mark.parametrize("units", [-3, -1, 1, 3])
@pytest.mark.parametrize("name", ["sqrt", "rsqrt"])
def test_a_root_does_not_depend_on_the_last_bit_of_torch_s(
    name: str, units: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "library", lambda: None)
    x = torch.cat([spread(65_537), torch.arange(1, 5000, dtype=torch.float32).square()])
    right = bits(FUNCTIONS[name](x))
    true_root = torch.sqrt

    def wrong_root(y: Tensor) -> Tensor:
        root = true_root(y)
        moved = (root.view(torch.int64) + units).view(torch.float64)
        return torch.where((root > 0) & (root < INF), moved, root)

    monkeypatch.setattr(torch, "sqrt", wrong_root)
    assert bits(FUNCTIONS[name](x)) == right


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        *((name, NAN, NAN) for name in FUNCTIONS),
        *(("sqrt", x, y) for x, y in [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, NAN), (-SMALLEST, NAN)]),
        *(("rsqrt", x, y) for x, y in [(0.0, INF), (-0.0, -INF), (INF, 0.0), (-INF, NAN), (-SMALLEST, NAN)]),
        *(("sqrt", x, y) for x, y in [(SMALLEST * 2, 2.0**-74), (4.0, 2.0), (2.0**-148, 2.0**-74)]),
        *(("rsqrt", x, y) for x, y in [(4.0, 0.5), (2.0**-148, 2.0**74)]),
        *(("exp", x, y) for x, y in [(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0), (89.0, INF)]),
        *(("exp", x, y) for x, y in [(-103.0, SMALLEST), (-104.0, 0.0), (-3e38, 0.0), (3e38, INF)]),
        *(("exp", x, 1.0) for x in [SMALLEST, -SMALLEST, 1e-10]),
        *(("sigmoid", x, y) for x, y in [(0.0, 0.5), (-0.0, 0.5), (INF, 1.0), (-INF, 0.0), (-104.0, 0.0)]),
        *(
            ("tanh", x, y)
            for x, y in [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (SMALLEST, SMALLEST)]
        ),
        *(
            ("log", x, y)
            for x, y in [(0.0, -INF), (-0.0, -INF), (INF, INF), (-INF, NAN), (-1.0, NAN), (1.0, 0.0)]
        ),
        *(("log1p", x, y) for x, y in [(0.0, 0.0), (-0.0, -0.0), (-1.0, -INF), (INF, INF), (-INF, NAN)]),
        *(("log1p", x, y) for x, y in [(-1.5, NAN), (SMALLEST, SMALLEST), (-SMALLEST, -SMALLEST)]),
        *(("softplus", x, y) for x, y in [(INF, INF), (-INF, 0.0), (200.0, 200.0), (-104.0, 0.0)]),
        *(("erf", x, y) for x, y in [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (4.0, 1.0)]),
        *(("gelu", x, y) for x, y in [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -0.0), (3e38, 3e38)]),
        *(("gelu", x, y) for x, y in [(-20.0, -0.0), (-3e38, -0.0), (20.0, 20.0)]),
        *(("gelu_tanh", x, y) for x, y in [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -0.0)]),
        *(("gelu_tanh", x, y) for x, y in [(-20.0, -0.0), (-3e38, -0.0), (3e38, 3e38)]),
    ],
)
def test_corners(name: str, x: float, expected: float) -> None:
    assert at(FUNCTIONS[name], x) == bits_of(expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_nan_becomes_the_same_one(name: str) -> None:
    patterns = np.array(
        [0x7F800001, 0x7FC00001, 0x7FFFFFFF, 0xFF800001, 0xFFC00000, 0xFFFFFFFF], dtype=np.uint32
    )
    assert bits(FUNCTIONS[name](from_bits(patterns))) == [NAN_BITS] * len(patterns)


@pytest.mark.parametrize("name", ["exp", "sigmoid", "softplus", "gelu", "gelu_tanh"])
def test_what_vanishes_goes_through_the_subnormals(name: str) -> None:
    results = FUNCTIONS[name](torch.linspace(-104.0, -1.0, 40_000)).abs()
    tiny = results[(results > 0) & (results < 2.0**-126)]
    assert len(tiny) > 5
    assert float(tiny.min()) < 2.0**-140


@pytest.mark.parametrize("name", ["tanh", "erf"])
def test_an_odd_function_is_odd_bit_for_bit(name: str) -> None:
    x = spread(65_537)
    x = x[~x.isnan()]
    assert bits(FUNCTIONS[name](-x)) == bits(-FUNCTIONS[name](x))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_neither_threads_nor_layout_nor_place_change_a_bit(name: str) -> None:
    x = from_bits(np.random.default_rng(3).integers(0, 1 << 32, (6, 310, 71), dtype=np.uint32))
    function = FUNCTIONS[name]
    whole = function(x)
    assert bits(function(x.permute(2, 0, 1))) == bits(whole.permute(2, 0, 1))
    assert bits(function(x[1::2, ::3, 5:])) == bits(whole[1::2, ::3, 5:])
    assert bits(function(x[0, 0, 0])) == bits(whole[0, 0, 0])
    assert bits(function(x[:1].expand(3, -1, -1))) == bits(whole[:1].expand(3, -1, -1))
    torch.set_num_threads(2)
    assert bits(function(x)) == bits(whole)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_argument_is_left_alone_and_the_shape_kept(name: str) -> None:
    x = torch.rand(3, 0, 2), torch.rand(()), torch.rand(2, 5)
    before = [bits(part) for part in x]
    assert [FUNCTIONS[name](part).shape for part in x] == [part.shape for part in x]
    assert [bits(part) for part in x] == before


@pytest.mark.parametrize("name", FUNCTIONS)
def test_other_element_types_are_refused(name: str) -> None:
    with pytest.raises(ReplayError, match="float64"):
        FUNCTIONS[name](torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_bits_are_those_of_every_other_machine(name: str) -> None:
    results = FUNCTIONS[name](spread(4099)).numpy().astype("<f4").tobytes()
    assert hashlib.sha256(results).hexdigest() == DIGESTS[name]


@pytest.mark.parametrize("name", VECTORS["results"])
def test_the_vectors_are_met(name: str) -> None:
    arguments = np.array([int(word, 16) for word in VECTORS["arguments"]], dtype=np.uint32)
    function = getattr(functions if name in FUNCTIONS else activation_functions, name)
    assert bits(function(from_bits(arguments))) == [int(word, 16) for word in VECTORS["results"][name]]


class Page:
    """Section 4 of the specification on Python's floats, written from the page, with its own tables."""

    def __init__(self, text: str) -> None:
        rows = re.findall(r"^\| ([A-Z0-9, a-z]+) \| (-?0x[^|]+) \|$", text, re.MULTILINE)
        self.tables = {name: [float.fromhex(c) for c in row.split()] for name, row in rows}

    def poly(self, name: str, x: float) -> float:
        total = self.tables[name][-1]
        for coefficient in reversed(self.tables[name][:-1]):
            total = coefficient + x * total
        return total

    def parts(self, x: float) -> tuple[float, float]:
        k = round(x * float.fromhex("0x1.71547652b82fep+0"))
        r = x - k * float.fromhex("0x1.62e42fefa39efp-1")
        return self.poly("EXPM1", r) * r, 2.0**k

    def exp(self, x: float) -> float:
        q, scale = self.parts(min(max(x, -128.0), 128.0))
        return (q + 1.0) * scale

    def log(self, x: float) -> float:
        number = int.from_bytes(struct.pack(">d", x), "big")
        k = (number - 0x3FE6A09E667F3BCD) >> 52
        m: float = struct.unpack(">d", (number - k * 2**52).to_bytes(8, "big"))[0]
        s = (m - 1.0) / (m + 1.0)
        z = s * s
        return k * float.fromhex("0x1.62e42fefa39efp-1") + (self.poly("ATANH", z) * z + 2.0) * s

    def log1p(self, x: float) -> float:
        u = 1.0 + x
        return self.log(u) + (x - (u - 1.0)) / u

    def tail(self, a: float) -> float:
        v = a + 6.0
        return self.poly("TAIL", (a - 6.0) / v) / v * self.exp(a * a * -0.5)

    def sqrt(self, x: float) -> float:
        return math.sqrt(x)

    def rsqrt(self, x: float) -> float:
        r = float(np.float32(math.sqrt(x)))
        return 2.0 / (x / r + r)

    def sigmoid(self, x: float) -> float:
        return 1.0 / (self.exp(-x) + 1.0)

    def tanh(self, x: float) -> float:
        q, scale = self.parts(2.0 * min(abs(x), 20.0))
        e = q * scale + (scale - 1.0)
        return math.copysign(e / (e + 2.0), x)

    def softplus(self, x: float) -> float:
        return self.log1p(self.exp(-abs(x))) + max(x, 0.0)

    def erf(self, x: float) -> float:
        a = min(abs(x), 3.9375)
        z = a * a
        return math.copysign(self.poly("ERF, numerator", z) * a / self.poly("ERF, denominator", z), x)

    def gelu(self, x: float) -> float:
        p = self.tail(min(abs(x), 16.0))
        return (p if x < 0 else 1.0 - p) * max(x, -16.0)

    def gelu_tanh(self, x: float) -> float:
        b = max(x, -16.0)
        cubic, linear = float.fromhex("0x1.2444f2a4d8b4bp-4"), float.fromhex("0x1.9884533d43651p+0")
        return b / (self.exp(-((b * b * cubic + linear) * b)) + 1.0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_specification_defines_each_bit(name: str) -> None:
    pages = Path(__file__).parents[2] / "docs" / "spec"
    text = "".join(page.read_text(encoding="utf-8") for page in sorted(pages.glob("arithmetic*.md")))
    by_page: Callable[[float], float] = getattr(Page(text), name)
    x = torch.cat([sample(name), finite(spread(2_000_003))])
    x = x[(x != 0) & (x > STARTS.get(name, -INF))]
    with np.errstate(over="ignore"):
        expected = np.array([by_page(v) for v in x.tolist()]).astype(np.float32)
    assert bits(FUNCTIONS[name](x)) == bits(torch.from_numpy(expected))
