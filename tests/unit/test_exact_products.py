"""Products of exact arithmetic against the formula, in Python's integers and fractions, every way."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact import kernel, products
from gradseal.program.exact.digits import digits, fixed_point
from gradseal.program.exact.products import MAX_LENGTH, Realisation, Total, added, blocks, bmm, matmul
from product_oracle import (
    EXTREMES,
    NAN,
    PATTERNS,
    WAYS,
    bits,
    dot,
    extreme,
    finite,
    rounded,
    spread_out,
    tensor,
    threads,
    way,
    words,
    written,
)
from vectors import make

Case = dict[str, Any]
VECTORS: Case = json.loads((make.HERE / "arithmetic.json").read_text(encoding="utf-8"))


@st.composite
def operands(draw: st.DrawFn) -> tuple[int, int, int, list[int], list[int]]:
    m, k, n = (draw(st.integers(low, high)) for low, high in ((0, 3), (0, 6), (0, 3)))
    a, b = (draw(st.lists(PATTERNS, min_size=size, max_size=size)) for size in (m * k, k * n))
    if draw(st.booleans()):  # else nearly every row has something that is not finite
        a, b = [finite(w) for w in a], [finite(w) for w in b]
    return m, k, n, a, b


def balanced(integer: int) -> list[int]:
    """Section 2: the four digits, most significant first."""
    found: list[int] = []
    for _ in range(3):
        found.append((integer + 64) % 128 - 64)
        integer = (integer - found[-1]) // 128
    return [integer, *reversed(found)]


@pytest.mark.parametrize("case", VECTORS["fixed_point"])
def test_fixed_point_and_its_digits(case: Case) -> None:
    elements = words(case["elements"])
    found = fixed_point(tensor(elements, len(elements)), (0,))
    assert written(elements) == (case["exponent"], case["integers"])
    assert (found.exponents.tolist(), found.integers.tolist()) == ([case["exponent"]], case["integers"])
    assert [balanced(q) for q in case["integers"]] == case["digits"]
    parts = [part.tolist() for part in digits(found.integers)]
    assert [list(row) for row in zip(*parts, strict=True)] == case["digits"]
    assert found.finite.tolist() == [True]


@pytest.mark.parametrize("elements", VECTORS["not_finite"])
def test_a_vector_that_is_not_finite_has_no_fixed_point(elements: list[str]) -> None:
    assert written(words(elements)) is None
    found = fixed_point(tensor(words(elements), len(elements)), (0,))
    assert found.finite.tolist() == [False]
    assert found.integers.tolist() == [0] * len(elements)


@given(st.lists(PATTERNS.map(finite), max_size=8))
def test_fixed_point_is_the_formula(elements: list[int]) -> None:
    found = fixed_point(tensor(elements, len(elements)), (0,))
    assert written(elements) == (found.exponents.item(), found.integers.tolist())
    parts = [part.tolist() for part in digits(found.integers)]
    assert [list(row) for row in zip(*parts, strict=True)] == [balanced(q) for q in found.integers.tolist()]


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("case", VECTORS["products"])
def test_product_vectors(case: Case, name: str) -> None:
    (m, k, n), a, b = case["shape"], words(case["a"]), words(case["b"])
    with way(name) as realisation:
        result = matmul(tensor(a, m, k), tensor(b, k, n), realisation=realisation)
    assert bits(result) == words(case["result"])
    assert words(case["result"]) == [dot(a[i * k : (i + 1) * k], b[j::n]) for i in range(m) for j in range(n)]


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("case", VECTORS["batches"])
def test_batches_whatever_their_strides(case: Case, name: str) -> None:
    a, b = (
        tensor(words(case[side]["elements"]), -1).as_strided(case[side]["shape"], case[side]["strides"])
        for side in "ab"
    )
    with way(name) as realisation:
        assert bits(bmm(a, b, realisation=realisation)) == words(case["result"])
    pairs = [dot(bits(x[i]), bits(y[:, j])) for x, y in zip(a, b, strict=True) for i, j in _places(x, y)]
    assert words(case["result"]) == pairs


def _places(a: Tensor, b: Tensor) -> list[tuple[int, int]]:
    return [(i, j) for i in range(a.shape[0]) for j in range(b.shape[1])]


@pytest.mark.parametrize("case", VECTORS["long_products"])
def test_long_products(case: Case) -> None:
    left, right = (
        torch.cat([tensor([int(e, 16)], 1).expand(count) for count, e in case[side]]) for side in "ab"
    )
    for name in WAYS:
        with way(name) as realisation:
            assert bits(matmul(left[None], right[:, None], realisation=realisation)) == words(case["result"])
    assert dot(bits(left), bits(right)) == words(case["result"])[0]


def test_a_sum_beyond_a_float64_is_rounded_once() -> None:
    # As a float64 first, it would be a tie and lose its last bit.
    units = 2**60 + 2**36 + 1
    assert words(VECTORS["long_products"][0]["result"]) == [rounded(Fraction(units))]
    assert rounded(Fraction(int(float(units)))) != rounded(Fraction(units))


@given(operands())
@settings(max_examples=150, deadline=None)
def test_every_way_is_the_formula(case: tuple[int, int, int, list[int], list[int]]) -> None:
    m, k, n, a, b = case
    expected = [dot(a[i * k : (i + 1) * k], b[j::n]) for i in range(m) for j in range(n)]
    for name in WAYS:
        with way(name) as realisation:
            assert bits(matmul(tensor(a, m, k), tensor(b, k, n), realisation=realisation)) == expected


@pytest.mark.parametrize("kind", EXTREMES)
@pytest.mark.parametrize("length", [31, 32, 33, 64, 255, 257, 1000, 2600])
def test_no_sum_is_cut_too_late(kind: str, length: int) -> None:
    a, b = extreme(kind, 1, 3, length), extreme(kind, 2, length, 2)
    expected = [dot(bits(a[i]), bits(b[:, j])) for i, j in _places(a, b)]
    for name in WAYS:
        with way(name) as realisation:
            assert bits(matmul(a, b, realisation=realisation)) == expected
            assert bits(matmul(a, -b, realisation=realisation)) == [
                word ^ 0x80000000 if word else 0 for word in expected
            ]


def test_what_is_large_comes_late_in_some_rows_only() -> None:
    a, b = extreme("normal", 3, 5, 900) / 64, extreme("normal", 4, 900, 4) / 64
    a[1, 300:] = b[700:, 2] = 2.0 - 2.0**-23
    a[3, :64] = b[:, 1] = -1.0
    expected = [dot(bits(a[i]), bits(b[:, j])) for i, j in _places(a, b)]
    for name in WAYS:
        with way(name) as realisation:
            assert bits(matmul(a, b, realisation=realisation)) == expected


NORMS = st.lists(
    st.tuples(*[st.one_of(st.floats(0, 2.0**53), st.sampled_from([0.0, 1.0, 2.0**53]))] * 2), max_size=40
)


@given(NORMS)
@example([(2.0**53, 2.0**53)] * 3)
@example([(2.0**52, 2.0**52)] * 3)
def test_blocks_are_safe_and_whole(norms: list[tuple[float, float]]) -> None:
    found = blocks([a for a, _ in norms], [b for _, b in norms])
    assert [start for start, _ in found] == [0, *[end for _, end in found[:-1]]][: len(found)]
    assert sum(end - start for start, end in found) == 32 * len(norms)
    for start, end in found:
        own = norms[start // 32 : end // 32]
        assert sum(Fraction(a) for a, _ in own) * sum(Fraction(b) for _, b in own) <= 2**106


@given(st.integers(-(2**51), 2**51), st.integers(-(2**51), 2**51))
@example(1, 2**25)
@example(2**30, -1)
@example(-(2**34), -(2**10) - 1)
def test_two_parts_are_rounded_once(high: int, low: int) -> None:
    one, true = torch.zeros(1, dtype=torch.int32), torch.ones(1, dtype=torch.bool)
    parts = torch.tensor([[high * 2.0**26], [float(low)]], dtype=torch.float64)
    total = Total(high=parts[0], low=parts[1])
    expected = rounded(Fraction(high * 2**26 + low, 2**48))
    assert bits(products.rounded(total, (one, one), (true, true))) == [expected]
    twice = added(total, total)
    assert twice.high is not None
    assert int(twice.high) + int(twice.low) == 2 * (high * 2**26 + low)
    assert int(twice.high) % 2**26 == 0
    assert abs(int(twice.low)) <= 2**26


SHAPES = [
    (1, 1, 1),
    (1, 300, 30),
    (17, 5, 25),
    (13, 64, 12),
    (97, 260, 11),
    (965, 3, 30),
    (9, 40, 1030),
    (3, 0, 2),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_ways_agree_whatever_the_shape(shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    a, b = spread_out(1, m, k), spread_out(2, k, n)
    expected = bits(matmul(a, b, realisation=Realisation.FLOAT64))
    for name in WAYS[1:]:
        with way(name) as realisation:
            assert bits(matmul(a, b, realisation=realisation)) == expected


@pytest.mark.parametrize("name", WAYS)
def test_neither_threads_nor_strides_nor_order_change_a_bit(name: str) -> None:
    a, b = spread_out(3, 64, 300), spread_out(4, 300, 48)
    shuffled = torch.randperm(300, generator=torch.Generator().manual_seed(5))
    apart = torch.full((70, 3, 302), float("nan"))
    apart[3:67, 1, 1:301] = a
    expected = bits(matmul(a, b, realisation=Realisation.FLOAT64))
    with way(name) as realisation:
        for count in (1, 2):
            with threads(count):
                assert bits(matmul(a, b, realisation=realisation)) == expected
        for left, right in (
            (a.T.contiguous().T, b.T.contiguous().T),
            (a[:, shuffled], b[shuffled]),
            (apart[3:67, 1, 1:301], b.T.repeat_interleave(2, 1).T[::2]),
        ):
            assert bits(matmul(left, right, realisation=realisation)) == expected


@pytest.mark.parametrize("name", WAYS)
def test_elements_may_share_memory(name: str) -> None:
    row, sliding = spread_out(5, 40), spread_out(6, 60)
    a, b = row.expand(13, 40), sliding.as_strided((40, 20), (1, 1))
    one = sliding[:1].expand(40)[:, None].expand(40, 9)
    with way(name) as realisation:
        for right in (b, one):
            result = matmul(a, right, realisation=realisation)
            again = matmul(a.clone(), right.clone(), realisation=Realisation.FLOAT64)
            assert bits(result) == bits(again)


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("count", [1, 2])
def test_a_batch_is_its_pairs(name: str, count: int) -> None:
    a, b = spread_out(6, 3, 40, 90), spread_out(7, 3, 90, 150)
    a[1, 2, 3] = float("inf")
    with way(name) as realisation, threads(count):
        result = bmm(a, b, realisation=realisation)
        pairs = [matmul(x, y, realisation=realisation) for x, y in zip(a, b, strict=True)]
        assert bits(result) == bits(torch.stack(pairs))
        assert bits(result[1, 2]) == [NAN] * 150
        assert tuple(bmm(a[:0], b[:0], realisation=realisation).shape) == (0, 40, 150)


@pytest.mark.parametrize("name", WAYS)
def test_empty_operands(name: str) -> None:
    with way(name) as realisation:
        for m, k, n in ((0, 3, 2), (2, 0, 3), (2, 3, 0), (0, 0, 0)):
            result = matmul(torch.ones(m, k), torch.ones(k, n), realisation=realisation)
            assert tuple(result.shape) == (m, n)
            assert bits(result) == [0] * (m * n)


@pytest.mark.parametrize("name", WAYS)
def test_rows_and_columns_that_are_not_finite_spoil_only_theirs(name: str) -> None:
    a, b = spread_out(8, 30, 70), spread_out(9, 70, 40)
    clean = matmul(a, b, realisation=Realisation.FLOAT64)
    a[4, 69], a[29, 0], b[33, 39], b[0, 12] = float("nan"), float("inf"), -float("inf"), -float("nan")
    clean[[4, 29]] = clean[:, [12, 39]] = float("nan")
    with way(name) as realisation:
        assert bits(matmul(a, b, realisation=realisation)) == bits(clean)


def test_operands_are_left_as_they_were() -> None:
    a, b = spread_out(8, 3, 4), spread_out(9, 4, 2)
    a[0, 0] = float("nan")
    before = bits(a), bits(b)
    for name in WAYS:
        with way(name) as realisation:
            matmul(a, b, realisation=realisation)
    assert (bits(a), bits(b)) == before


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_error_is_below_that_of_native_arithmetic(kind: str) -> None:
    a, b = extreme(kind, 10, 128, 128), extreme(kind, 11, 128, 128)
    exact, native, reference = matmul(a, b), a @ b, a.double() @ b.double()
    assert (exact - reference).square().sum() < (native - reference).square().sum()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 3)),
        (torch.zeros(3), torch.zeros(3, 1)),
        (torch.zeros(1, 2, 3), torch.zeros(1, 3, 2)),
        (torch.zeros(2, 3, dtype=torch.float64), torch.zeros(3, 2, dtype=torch.float64)),
        (torch.zeros(2, 3), torch.zeros(3, 2, dtype=torch.bfloat16)),
        (torch.zeros(1).expand(1, MAX_LENGTH + 1), torch.zeros(1).expand(MAX_LENGTH + 1, 1)),
    ],
)
def test_operands_that_do_not_fit_are_refused(a: Tensor, b: Tensor) -> None:
    with pytest.raises(ReplayError):
        matmul(a, b)


def test_batches_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ReplayError, match="do not fit"):
        bmm(torch.zeros(2, 1, 3), torch.zeros(1, 3, 1))


def test_without_a_kernel_there_is_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "library", lambda: None)
    assert bits(matmul(torch.ones(1, 2), torch.ones(2, 1))) == [0x40000000]
    with pytest.raises(ReplayError, match="no compiled kernel"):
        matmul(torch.ones(1, 2), torch.ones(2, 1), realisation=Realisation.KERNEL)
