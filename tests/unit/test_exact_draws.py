from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact.draws import TABLE
from gradseal.program.operators import RANDOM
from gradseal.program.randomness import normal_quantile, open_unit, words

KEY = bytes(range(16))


def stream(count: int) -> npt.NDArray[np.uint64]:
    return words(KEY, 0, count)


def of(*values: int) -> Callable[[int], npt.NDArray[np.uint64]]:
    """A stream that begins with these words."""
    return lambda count: np.array([*values, *[0] * count], dtype=np.uint64)[:count]


def run(name: str, *args: Any, draw: Any = stream, **kwargs: Any) -> Any:
    return TABLE[f"aten.{name}" if "." in name else f"aten.{name}.default"](draw, *args, **kwargs)


def halves(count: int) -> list[int]:
    raw = b"".join(int(w).to_bytes(8, "little") for w in words(KEY, 0, (count + 1) // 2))
    return [int.from_bytes(raw[i : i + 4], "little") for i in range(0, 4 * count, 4)]


def single(x: float) -> float:
    return float(struct.unpack("f", struct.pack("f", x))[0])


def units(count: int) -> list[float]:
    return [(half >> 8) / 2**24 for half in halves(count)]


def normals(count: int) -> list[float]:
    numbers: list[float] = normal_quantile(open_unit(words(KEY, 0, count))).tolist()
    return numbers


SHAPES: list[list[int]] = [[], [0], [7], [2, 3], [4, 0, 2], [3, 5, 2]]
CALLS: dict[str, Callable[[list[int]], tuple[Tensor, Sequence[float]]]] = {
    "rand": lambda s: (run("rand", s), units(math.prod(s))),
    "rand_like": lambda s: (run("rand_like", torch.ones(s)), units(math.prod(s))),
    "randn": lambda s: (run("randn", s), list(map(single, normals(math.prod(s))))),
    "randn_like": lambda s: (run("randn_like", torch.ones(s)), list(map(single, normals(math.prod(s))))),
    "uniform_": lambda s: (
        run("uniform_", torch.ones(s), -0.3, 0.7),
        [single(u * (0.7 - -0.3) + -0.3) for u in units(math.prod(s))],
    ),
    "normal_": lambda s: (
        run("normal_", torch.ones(s), 0.1, 0.02),
        [single(z * 0.02 + 0.1) for z in normals(math.prod(s))],
    ),
    "randint": lambda s: (
        run("randint", 10, s),
        [int(w) * 10 >> 64 for w in stream(math.prod(s))],
    ),
    "randint.low": lambda s: (
        run("randint.low", -5, 2**40, s),
        [(int(w) * (2**40 + 5) >> 64) - 5 for w in stream(math.prod(s))],
    ),
    "randint_like": lambda s: (
        run("randint_like", torch.ones(s), 7),
        [int(w) * 7 >> 64 for w in stream(math.prod(s))],
    ),
    "randint_like.low_dtype": lambda s: (
        run("randint_like.low_dtype", torch.ones(s, dtype=torch.int32), -2, 7),
        [(int(w) * 9 >> 64) - 2 for w in stream(math.prod(s))],
    ),
    "bernoulli_.float": lambda s: (
        run("bernoulli_.float", torch.ones(s), 0.3),
        [float(Fraction(h, 2**32) < Fraction(0.3)) for h in halves(math.prod(s))],
    ),
    "bernoulli.p": lambda s: (
        run("bernoulli.p", torch.ones(s), 0.9),
        [float(Fraction(h, 2**32) < Fraction(0.9)) for h in halves(math.prod(s))],
    ),
    "bernoulli": lambda s: (
        run("bernoulli", torch.full(s, 0.4)),
        [float(Fraction(h, 2**32) < Fraction(single(0.4))) for h in halves(math.prod(s))],
    ),
    "bernoulli_.Tensor": lambda s: (
        run("bernoulli_.Tensor", torch.ones(s, dtype=torch.bool), torch.tensor(0.4)),
        [float(Fraction(h, 2**32) < Fraction(single(0.4))) for h in halves(math.prod(s))],
    ),
    "native_dropout": lambda s: (
        run("native_dropout", torch.full(s, 3.0), 0.1, True)[0],
        [
            single(3.0 * single(1 / 0.9)) if Fraction(h, 2**32) < Fraction(0.9) else 0.0
            for h in halves(math.prod(s))
        ],
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", list(CALLS))
def test_numbers_are_those_of_the_definition(name: str, shape: list[int]) -> None:
    got, expected = CALLS[name](shape)
    assert list(got.shape) == shape
    assert got.reshape(-1).tolist() == list(expected)


def test_every_operator_that_draws_is_here_and_tested() -> None:
    full = {f"aten.{n}" if "." in n else f"aten.{n}.default" for n in CALLS}
    assert full | {"aten.randperm.default", "aten.exponential_.default"} == set(TABLE) == set(RANDOM)


@settings(deadline=None, max_examples=300)
@given(
    st.floats(0, 1) | st.sampled_from([0.5, 2.0**-32, 2.0**-33, 5e-324, 1.0, 0.0, 1 - 2.0**-53]), st.data()
)
def test_the_threshold_is_exact(p: float, data: st.DataObject) -> None:
    exact = Fraction(p) * 2**32
    limit = -((-exact.numerator) // exact.denominator)
    near = data.draw(st.integers(-2, 2))
    halves_drawn = [min(max(limit + near, 0), 2**32 - 1), 0, 2**32 - 1, 2**31]
    draw = of(halves_drawn[0] | halves_drawn[1] << 32, halves_drawn[2] | halves_drawn[3] << 32)
    got = run("bernoulli.p", torch.ones(2, 2), p, draw=draw).reshape(-1).tolist()
    assert got == [float(h < limit) for h in halves_drawn]
    tensor = torch.tensor(p)
    limit = math.ceil(Fraction(tensor.item()) * 2**32)
    got = run("bernoulli", tensor.expand(4), draw=draw).tolist()
    assert got == [float(h < limit) for h in halves_drawn]


def test_dropout_multiplies_like_atens() -> None:
    x = torch.randn(40, 50, generator=torch.Generator().manual_seed(1))
    x[0, :4] = torch.tensor([math.inf, -math.inf, math.nan, -0.0])
    for p in (0.0, 0.1, 0.5, 1 / 3, 0.999, 1.0):
        result, mask = run("native_dropout", x, p, True)
        scale = 0.0 if p == 1 else single(1 / (1 - p))
        expected = x * mask * torch.tensor(scale)
        assert mask.dtype is torch.bool
        assert torch.equal(result.view(torch.int32)[1:], expected.view(torch.int32)[1:])
        torch.testing.assert_close(result[0], expected[0], equal_nan=True)
        assert abs(mask.double().mean().item() - (1 - p)) < 0.05
    for train in (False,):
        result, mask = run("native_dropout", x, 0.5, train)
        assert torch.equal(result.view(torch.int32), x.view(torch.int32))
        assert mask.all()
        assert result.data_ptr() != x.data_ptr()
    assert not run("native_dropout", x, 1.0, None)[1].any()


def test_elements_are_numbered_row_by_row_whatever_the_layout() -> None:
    x = torch.randn(6, 4, 5)
    t = x.permute(2, 0, 1)
    assert torch.equal(
        run("native_dropout", t, 0.5, True)[1], run("native_dropout", t.contiguous(), 0.5, True)[1]
    )
    assert run("native_dropout", t, 0.5, True)[1].stride() == t.stride()
    for name in ("rand_like", "randn_like"):
        assert torch.equal(run(name, t), run(name, t.contiguous()))
        assert run(name, t).stride() == t.stride()
        assert run(name, t, memory_format=torch.contiguous_format).is_contiguous()
    for name in ("uniform_", "normal_", "exponential_", "bernoulli_.float"):
        assert torch.equal(run(name, x.clone().permute(2, 0, 1)), run(name, torch.empty(5, 6, 4)))


def test_in_place_writes_over_its_argument() -> None:
    for name in ("uniform_", "normal_", "exponential_", "bernoulli_.float"):
        x = torch.zeros(100)
        assert run(name, x) is x
        assert x.any()


def test_numbers_are_distributed_as_they_should() -> None:
    n = 200_000
    x = run("exponential_", torch.empty(n), 2.0).double()
    assert abs(x.mean() - 0.5) < 0.01
    assert abs(x.std() - 0.5) < 0.01
    assert bool((x > 0).all())
    expected = [-math.log((int(w) >> 12) * 2.0**-52 + 2.0**-53) / 2 for w in stream(50)]
    torch.testing.assert_close(x[:50], torch.tensor(expected).double(), rtol=1e-6, atol=0)
    z = run("randn", [n]).double()
    assert abs(z.mean()) < 0.01
    assert abs(z.std() - 1) < 0.01
    counts = run("randint", 10, [n]).bincount(minlength=10)
    assert len(counts) == 10
    assert bool(((counts - n / 10).abs() < 600).all())


@settings(deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_integers_are_the_upper_half_of_a_product(word: int, a: int, b: int) -> None:
    low, high = min(a, b), max(a, b)
    if low == high:
        return
    got = run("randint.low", low, high, [1], draw=of(word)).item()
    assert got == low + (word * (high - low) >> 64)
    assert low <= got < high


def test_permutations_sort_the_words() -> None:
    drawn = stream(50).tolist()
    assert run("randperm", 50).tolist() == sorted(range(50), key=lambda i: (drawn[i], i))
    assert run("randperm", 3, draw=of(5, 5, 1)).tolist() == [2, 0, 1]
    assert run("randperm", 0).tolist() == []


def test_a_uniform_number_stays_in_its_range() -> None:
    most = of(2**64 - 1)
    assert run("rand", [2], draw=most).tolist()[0] == 1 - 2.0**-24
    assert run("uniform_", torch.empty(1), 0.0, 5.0, draw=most).item() <= 5.0
    assert run("uniform_", torch.empty(1), 3.0, 3.0, draw=most).item() == 3.0


def test_what_cannot_be_drawn_is_refused() -> None:
    x = torch.ones(3)
    for name, args in (
        ("native_dropout", (x, -0.1, True)),
        ("native_dropout", (x, 1.1, True)),
        ("native_dropout", (torch.arange(3), 0.5, True)),
        ("bernoulli.p", (x, math.nan)),
        ("bernoulli", (x * 2,)),
        ("bernoulli", (x * math.nan,)),
        ("bernoulli_.Tensor", (x, x * -1)),
        ("uniform_", (x, 1.0, 0.0)),
        ("uniform_", (torch.arange(3),)),
        ("normal_", (x, 0.0, -1.0)),
        ("exponential_", (x, 0.0)),
        ("randint", (0, [3])),
        ("randint.low", (3, 3, [3])),
        ("randint", (2**64, [3])),
    ):
        with pytest.raises(ReplayError):
            run(name, *args)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_types_are_refused(dtype: torch.dtype) -> None:
    match = str(dtype).removeprefix("torch.")
    x = torch.ones(3, dtype=dtype)
    for name, args in (("rand", ([3],)), ("randn", ([3],)), ("randint", (4, [3])), ("randperm", (4,))):
        with pytest.raises(ReplayError, match=match):
            run(name, *args, dtype=dtype)
    for name in ("rand_like", "randn_like", "uniform_", "normal_", "exponential_", "bernoulli_.float"):
        with pytest.raises(ReplayError, match=match):
            run(name, x)
    with pytest.raises(ReplayError, match=match):
        run("native_dropout", x, 0.5, True)


def test_arguments_may_be_named() -> None:
    x = run("uniform_", torch.empty(5), **{"from": 2.0, "to": 3.0})
    assert x.tolist() == run("uniform_", torch.empty(5), 2.0, 3.0).tolist()
    assert run("native_dropout", torch.ones(5), p=0.5, train=True)[1].shape == (5,)
