from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradseal.errors import MalformedBundle, UnknownKind
from gradseal.program import fills
from gradseal.program.fills import constant_of, fill, fill_chunks, range_of, to_bfloat16
from gradseal.program.randomness import CHUNK, derive, normal_quantile, open_unit, unit, words
from gradseal.program.rules import (
    Constant,
    Normal,
    NormalButRow,
    Range,
    Rule,
    TruncatedNormal,
    Uniform,
    check,
    rule_from_json,
)
from gradseal.program.scalars import NAMED, RATIOS, Formula, Free, Named, Scalar, explain, fans_of
from gradseal.proof.fields import Fields

SEED = bytes(range(32))
FLOAT_DTYPES = ("float64", "float32", "float16", "bfloat16")
SHAPES = [
    (10, 784),
    (64, 3, 7, 7),
    (512, 512, 3, 3),
    (3072, 768),
    (50257, 768),
    (1, 1),
    (7, 5, 3),
    (400, 90),
]


def named(name: str) -> Named:
    return Named(name=name)


def plus(p: int, q: int, fan: int) -> Formula:
    return Formula(negative=False, p=p, q=q, fan=fan)


def minus(p: int, q: int, fan: int) -> Formula:
    return Formula(negative=True, p=p, q=q, fan=fan)


ZERO, ONE, TWO = named("0"), named("1"), named("2")
UNIFORM = Uniform(low=minus(6, 1, 48), high=plus(6, 1, 48))
NORMAL = Normal(mean=ZERO, std=named("0.02"))
TRUNCATED = TruncatedNormal(mean=ZERO, std=ONE, low=named("-0.5"), high=ONE)


def numbers(rule: Rule, count: int, dtype: str = "float64") -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    raw = fill(rule, seed=SEED, name="w", shape=(count,), dtype=dtype)
    return np.frombuffer(raw, dtype={"float64": "<f8", "float32": "<f4", "float16": "<f2"}[dtype]).astype(
        np.float64
    )


# What torch.nn.init and the layers themselves compute, in the order in which they do.


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def _kaiming_std(shape: tuple[int, ...], gain: float) -> float:
    return gain / math.sqrt(_fans(shape)[0])


def _xavier_std(shape: tuple[int, ...], gain: float) -> float:
    return gain * math.sqrt(2.0 / float(sum(_fans(shape))))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("nonlinearity", "slope"),
    [("linear", None), ("relu", None), ("tanh", None), ("leaky_relu", math.sqrt(5.0))],
)
def test_the_bounds_of_torch_are_explained(
    shape: tuple[int, ...], nonlinearity: torch.nn.init._NonlinearityType, slope: float | None
) -> None:
    gain = torch.nn.init.calculate_gain(nonlinearity, slope)
    fans = fans_of([shape])
    for std in (_kaiming_std(shape, gain), _xavier_std(shape, gain)):
        for value in (std, math.sqrt(3.0) * std, -math.sqrt(3.0) * std):
            scalar = explain(value, fans)
            assert not isinstance(scalar, Free)
            assert math.isclose(scalar.value(), value, rel_tol=1e-15)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_bound_of_a_bias_is_explained_by_its_weight(shape: tuple[int, ...]) -> None:
    fan_in = _fans(shape)[0]
    scalar = explain(-1 / math.sqrt(fan_in), fans_of([shape]))
    assert scalar == (named("-1") if fan_in == 1 else minus(1, 1, fan_in))


@given(st.integers(2, 2**20), st.integers(1, 2**20), st.lists(st.integers(1, 7), max_size=2))
def test_the_default_bound_of_any_layer_is_explained(out: int, into: int, kernel: list[int]) -> None:
    shape = (out, into, *kernel)
    value = math.sqrt(3.0) * _kaiming_std(shape, torch.nn.init.calculate_gain("leaky_relu", math.sqrt(5.0)))
    assert not isinstance(explain(value, fans_of([shape])), Free)


def test_bounds_that_a_real_layer_draws_from_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[float] = []
    original = torch.Tensor.uniform_

    def noted(
        self: torch.Tensor, a: float, b: float, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        drawn.extend((a, b))
        return original(self, a, b, generator=generator)

    monkeypatch.setattr(torch.Tensor, "uniform_", noted)
    layers = [torch.nn.Conv2d(3, 8, 5), torch.nn.Linear(120, 84), torch.nn.LSTM(20, 40)]
    layers.append(torch.nn.MultiheadAttention(32, 4))
    shapes = [tuple(p.shape) for layer in layers for p in layer.parameters()]
    assert len(drawn) >= 16
    assert not [x for x in drawn if isinstance(explain(x, fans_of(shapes)), Free)]


def test_explanations_prefer_names_then_earlier_ratios() -> None:
    assert explain(0.5, {4}) == named("0.5")
    assert explain(0.125, {64, 128, 192}) == plus(1, 1, 64)
    assert explain(0.125, {128, 192}) == plus(2, 1, 128)


@pytest.mark.parametrize("value", [0.125 * (1 + 3e-12), 0.3, -0.0, 1e300, 5e-324, math.inf, 2.0**-17])
def test_anything_else_is_free(value: float) -> None:
    scalar = explain(value, {64, 2**31})
    assert isinstance(scalar, Free)
    assert math.copysign(1.0, scalar.value()) == math.copysign(1.0, value)
    assert scalar.value() == value


@pytest.mark.parametrize(("p", "q"), RATIOS)
@pytest.mark.parametrize("fan", [1, 2, 97, 2**31 - 1])
def test_every_formula_explains_itself(p: int, q: int, fan: int) -> None:
    value = minus(p, q, fan).value()
    found = explain(value, {fan})
    assert not isinstance(found, Free)
    assert math.isclose(found.value(), value, rel_tol=1e-12)


def test_fans_come_from_dimensions_and_receptive_fields() -> None:
    assert fans_of([(64, 3, 7, 5)]) == {64, 3, 7, 5, 105, 2240, 2345}
    assert fans_of([(12,), (), (0, 4), (2**40, 1)]) == {12, 4, 1}


def test_a_fan_of_another_model_is_refused() -> None:
    check(UNIFORM, {48})
    check(NORMAL, ())
    with pytest.raises(MalformedBundle, match="fan 48"):
        check(UNIFORM, {49})


def test_free_scalars_are_counted() -> None:
    assert [rule.free_bytes() for rule in (UNIFORM, NORMAL, TRUNCATED)] == [0, 0, 0]
    assert Constant(number=Free(number=0.3)).free_bytes() == 8
    assert Uniform(low=Free(number=0.3), high=Free(number=0.3 + 1e-9)).free_bytes() == 16
    assert TruncatedNormal(mean=Free(number=0.1), std=ONE, low=ZERO, high=TWO).free_bytes() == 8


FINITE = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300)
SCALARS: st.SearchStrategy[Scalar] = st.one_of(
    st.sampled_from(sorted(NAMED)).map(named),
    st.builds(
        lambda negative, ratio, fan: Formula(negative=negative, p=ratio[0], q=ratio[1], fan=fan),
        st.booleans(),
        st.sampled_from(RATIOS),
        st.integers(1, 2**31 - 1),
    ),
    FINITE.map(lambda x: Free(number=x)),
)


def _fields(rule: Rule) -> Fields:
    return Fields(rule.to_json(), "manifest")


@given(SCALARS)
def test_a_scalar_survives_json(scalar: Scalar) -> None:
    rule = rule_from_json(_fields(Constant(number=scalar)))
    assert isinstance(rule, Constant)
    assert type(rule.number) is type(scalar)
    assert rule.number.to_json() == scalar.to_json()


@pytest.mark.parametrize("rule", [UNIFORM, NORMAL, TRUNCATED, Constant(number=Free(number=-0.0))])
def test_a_rule_survives_json(rule: Rule) -> None:
    again = rule_from_json(_fields(rule))
    assert again == rule
    assert again.to_json() == rule.to_json()


@pytest.mark.parametrize(
    "number",
    [
        {"form": "named", "name": "0", "more": 1},
        {"form": "formula", "sign": "+", "ratio": "1/1", "fan": 0},
        {"form": "formula", "sign": "+", "ratio": "1/1", "fan": 2**31},
        {"form": "formula", "sign": "", "ratio": "1/1", "fan": 3},
        {"form": "free", "bits": "7ff8000000000000"},
        {"form": "free", "bits": "0"},
        {"form": "free"},
        "0",
    ],
)
def test_malformed_scalars_are_refused(number: object) -> None:
    with pytest.raises(MalformedBundle):
        rule_from_json(Fields({"kind": "constant", "number": number}, "manifest"))  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "entry",
    [
        {"kind": "orthogonal"},
        {"kind": "constant", "number": {"form": "named", "name": "0.30"}},
        {"kind": "constant", "number": {"form": "formula", "sign": "+", "ratio": "7/1", "fan": 3}},
        {"kind": "constant", "number": {"form": "root"}},
    ],
)
def test_what_a_later_version_may_know_is_told_apart(entry: dict[str, object]) -> None:
    with pytest.raises(UnknownKind):
        rule_from_json(Fields(entry, "manifest"))  # type: ignore[arg-type]


def test_rules_without_a_meaning_are_refused() -> None:
    with pytest.raises(MalformedBundle):
        Uniform(low=ONE, high=ZERO)
    with pytest.raises(MalformedBundle):
        Uniform(low=Free(number=-1.7e308), high=Free(number=1.7e308))
    with pytest.raises(MalformedBundle):
        Uniform(low=named("-inf"), high=ZERO)
    with pytest.raises(MalformedBundle):
        Normal(mean=ZERO, std=named("-1"))
    with pytest.raises(MalformedBundle):
        Normal(mean=Free(number=math.inf), std=ONE)
    with pytest.raises(MalformedBundle):
        TruncatedNormal(mean=ZERO, std=ONE, low=ONE, high=ZERO)
    with pytest.raises(MalformedBundle):
        Named(name="7")
    with pytest.raises(MalformedBundle):
        plus(7, 1, 3)
    with pytest.raises(MalformedBundle):
        Free(number=math.nan)


def test_element_i_comes_from_word_i_of_the_tensors_stream() -> None:
    drawn = words(derive(SEED, "initialise", "w", 0), 0, 500)
    low, high = UNIFORM.low.value(), UNIFORM.high.value()
    np.testing.assert_array_equal(numbers(UNIFORM, 500), low + unit(drawn) * (high - low))
    np.testing.assert_array_equal(numbers(NORMAL, 500), 0.0 + 0.02 * normal_quantile(open_unit(drawn)))


@pytest.mark.parametrize("rule", [UNIFORM, NORMAL, TRUNCATED])
def test_a_fill_does_not_depend_on_its_chunks(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fill(rule, seed=SEED, name="w", shape=(CHUNK + 5,), dtype="float32")
    pieces = list(fill_chunks(rule, seed=SEED, name="w", shape=(CHUNK + 5,), dtype="float32"))
    assert [len(piece) for piece in pieces] == [4 * CHUNK, 20]
    monkeypatch.setattr(fills, "CHUNK", 1001)
    assert fill(rule, seed=SEED, name="w", shape=(CHUNK + 5,), dtype="float32") == whole
    # Nor on the shape, but for its size.
    assert fill(rule, seed=SEED, name="w", shape=(2, 3), dtype="float32") == whole[:24]


def test_tensors_have_streams_of_their_own() -> None:
    seeds = (SEED, bytes(32))
    fills = {fill(UNIFORM, seed=s, name=n, shape=(4,), dtype="float32") for s in seeds for n in ("a", "b")}
    assert len(fills) == 4


def test_uniform_has_its_moments_and_range() -> None:
    values = numbers(UNIFORM, 200_000)
    bound = math.sqrt(6 / 48)
    assert float(values.min()) >= -bound and float(values.max()) <= bound
    assert abs(float(values.mean())) < 0.01 * bound
    assert abs(float(values.std()) / (bound / math.sqrt(3.0)) - 1.0) < 0.01


@given(FINITE, FINITE)
def test_uniform_never_leaves_its_range(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    ends = np.array([0.0, 1.0 - 2.0**-53])
    with np.errstate(under="ignore"):
        first, last = np.add(np.multiply(ends, high - low), low)
    assert first == low
    assert low <= last <= high


def test_truncated_normal_has_the_law_of_its_range() -> None:
    values = np.sort(numbers(TRUNCATED, 100_000))
    assert values[0] >= -0.5 and values[-1] <= 1.0
    phi = [0.5 * math.erfc(-z / math.sqrt(2.0)) for z in (-0.5, 1.0)]
    law = np.array([0.5 * math.erfc(-z / math.sqrt(2.0)) for z in values])
    ranks = (np.arange(values.size) + 0.5) / values.size
    distance = float(np.max(np.abs((law - phi[0]) / (phi[1] - phi[0]) - ranks)))
    assert distance * math.sqrt(values.size) < 1.95


def test_truncated_normal_takes_the_first_attempt_that_fits() -> None:
    values = numbers(TRUNCATED, 300)
    attempts = [
        normal_quantile(open_unit(words(derive(SEED, "initialise", "w", j), 0, 300))) for j in range(64)
    ]
    expected = [next(z[i] for z in attempts if -0.5 <= z[i] <= 1.0) for i in range(300)]
    np.testing.assert_array_equal(values, expected)


def test_truncated_normal_settles_for_the_nearer_bound() -> None:
    far = TruncatedNormal(mean=ZERO, std=named("0.001"), low=ONE, high=TWO)
    assert numbers(far, 5).tolist() == [1.0] * 5
    split = TruncatedNormal(mean=ZERO, std=ONE, low=Free(number=1e-12), high=Free(number=2e-12))
    last = normal_quantile(open_unit(words(derive(SEED, "initialise", "w", 63), 0, 50)))
    assert numbers(split, 50).tolist() == [1e-12 if z < 0.0 else 2e-12 for z in last]


GOLDEN = {
    ("uniform", "float64"): "87ddb2c90fd7b8525f9df69c2a747fdfd2794bf78473ae1bcd078952b52a756e",
    ("uniform", "float32"): "0f46ac35428d8626e97044f19eb769e460a507490dd27f9131476ae08661d664",
    ("uniform", "float16"): "91d3194c7dc3b52ed9bb36108c3b69688ea0490477090704021fc40bc715e78f",
    ("uniform", "bfloat16"): "e07b58468fc71657ed9d399959e513eb6a59d61d08d98e19b34ed3f2c36d05ac",
    ("normal", "float64"): "890b10de048b7b9814dbea9c7992b5ea272e117845509145c9e1eacf567429fb",
    ("normal", "float32"): "c6088558c28a5ad7d3d982bd2498d6c9b5c5b3637e815c3f37d150a529cd2960",
    ("normal", "float16"): "7124276fc13d4a6690ea6171766e618628f55175f0228ac6241a11e65368f126",
    ("normal", "bfloat16"): "2927f7f432b02cd89a811aefe35bbde871b13012853a69da5d431c5b8be98c2a",
    ("truncated normal", "float64"): "b6c2ed2c8736b240b235ef30292809f83f68cce92984bae684fe7ec2a21520ca",
    ("truncated normal", "float32"): "35b773eec524b8f5e1fafa148ddb25eb89fdfa1328e6ac7eaa9bacf461f825ff",
    ("truncated normal", "float16"): "d14d1da1d1d297f566f739cfd704e178341e9d6ff80283e7d0f997435ba925d4",
    ("truncated normal", "bfloat16"): "d6d2d6767aff3f4c991614f5f42881be18165be8bdfd55abcfb224d547dfc64f",
}


@pytest.mark.parametrize("rule", [UNIFORM, NORMAL, TRUNCATED])
@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_large_fills_keep_their_bytes(rule: Rule, dtype: str) -> None:
    filled = fill(rule, seed=SEED, name="layer.0.weight", shape=(300, 401), dtype=dtype)
    assert hashlib.sha256(filled).hexdigest() == GOLDEN[rule.kind, dtype]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("rule", [UNIFORM, NORMAL, TRUNCATED])
def test_narrow_types_are_rounded_by_way_of_float32(rule: Rule, dtype: str) -> None:
    wide = torch.frombuffer(
        bytearray(fill(rule, seed=SEED, name="w", shape=(5000,), dtype="float64")), dtype=torch.float64
    )
    narrow = wide.to(torch.float32).to(getattr(torch, dtype))
    expected = narrow.view(torch.uint8).numpy().tobytes()
    assert fill(rule, seed=SEED, name="w", shape=(5000,), dtype=dtype) == expected


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
def test_bfloat16_is_rounded_as_torch_does(patterns: list[int]) -> None:
    values = np.array(patterns, dtype=np.uint32).view(np.float32)
    values = np.where(np.isnan(values), np.float32(0.0), values)
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(to_bfloat16(values), expected)


def test_bfloat16_ties_go_to_even_and_large_values_to_infinity() -> None:
    patterns = [0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF, 0xFF800000, 0x80000001]
    rounded = to_bfloat16(np.array(patterns, dtype=np.uint32).view(np.float32)).tolist()
    assert rounded == [0x3F80, 0x3F82, 0x3F81, 0x7F80, 0xFF80, 0x8000]


@pytest.mark.parametrize("dtype", ["int64", "int32", "int16", "int8", "uint8", "bool"])
def test_integers_are_constant_and_exact(dtype: str) -> None:
    def filled(rule: Rule) -> bytes:
        return fill(rule, seed=SEED, name="w", shape=(2,), dtype=dtype)

    size = {"int64": 8, "int32": 4, "int16": 2}.get(dtype, 1)
    assert filled(Constant(number=ONE)) == 2 * (1).to_bytes(size, "little")
    for number in (0.5, 2.0**63, -math.inf, -129.0 if dtype in ("int8", "uint8", "bool") else 1e30):
        with pytest.raises(MalformedBundle, match="does not hold"):
            filled(Constant(number=Free(number=number)))
    with pytest.raises(MalformedBundle, match="does not fill"):
        filled(UNIFORM)


POSITIONS = Range(start=ZERO, step=ONE)


def test_a_range_counts_along_the_last_dimension() -> None:
    filled = fill(POSITIONS, seed=SEED, name="w", shape=(2, 3), dtype="int64")
    assert np.frombuffer(filled, "<i8").tolist() == [0, 1, 2, 0, 1, 2]
    down = Range(start=ONE, step=Free(number=-0.25))
    assert np.frombuffer(fill(down, seed=SEED, name="w", shape=(4,), dtype="float32"), "<f4").tolist() == [
        1.0,
        0.75,
        0.5,
        0.25,
    ]
    assert fill(POSITIONS, seed=SEED, name="w", shape=(3, 0), dtype="int64") == b""


def test_a_range_does_not_depend_on_its_chunks() -> None:
    shape = (3, CHUNK - 7)
    pieces = list(fill_chunks(POSITIONS, seed=SEED, name="w", shape=shape, dtype="int32"))
    assert len(pieces) == 3
    expected = np.tile(np.arange(CHUNK - 7, dtype="<i4"), 3)
    assert np.array_equal(np.frombuffer(b"".join(pieces), "<i4"), expected)


@pytest.mark.parametrize(
    ("rule", "shape", "dtype"),
    [
        (POSITIONS, (), "int64"),
        (POSITIONS, (2,), "bool"),
        (POSITIONS, (129,), "int8"),
        (POSITIONS, (257,), "uint8"),
        (Range(start=named("-1"), step=ONE), (2,), "uint8"),
        (Range(start=named("0.5"), step=ONE), (2,), "int32"),
        (Range(start=ZERO, step=named("0.5")), (3,), "int32"),
        (Range(start=Free(number=2.0**63), step=ZERO), (2,), "int64"),
        (Range(start=ZERO, step=Free(number=2.0**53)), (3,), "int64"),
        (Range(start=Free(number=1e308), step=Free(number=1e308)), (3,), "int64"),
    ],
)
def test_a_range_that_its_type_does_not_hold(rule: Rule, shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(MalformedBundle, match="range"):
        fill(rule, seed=SEED, name="w", shape=shape, dtype=dtype)


def test_a_range_is_found_again() -> None:
    filled = fill(POSITIONS, seed=SEED, name="w", shape=(1, 512), dtype="int64")
    assert range_of(filled, "int64", (1, 512), frozenset()) == POSITIONS
    changed = filled[:-8] + (7).to_bytes(8, "little")
    assert range_of(changed, "int64", (1, 512), frozenset()) is None


def test_two_elements_are_not_told_in_more_bytes_than_they_have() -> None:
    pair = np.array([0.3711, 0.9153], dtype="<f4").tobytes()
    assert range_of(pair, "float32", (2,), frozenset()) is None


@pytest.mark.parametrize("row", [0, 2])
def test_a_normal_but_a_row_is_a_normal_elsewhere(row: int) -> None:
    plain = np.frombuffer(fill(NORMAL, seed=SEED, name="w", shape=(3, 4), dtype="float32"), "<f4").copy()
    rule = NormalButRow(mean=NORMAL.mean, std=NORMAL.std, row=named(str(row)))
    own = np.frombuffer(fill(rule, seed=SEED, name="w", shape=(3, 4), dtype="float32"), "<f4")
    plain.reshape(3, 4)[row] = 0.0
    assert own.tobytes() == plain.tobytes()


def test_a_row_over_the_end_of_a_chunk_is_zero_throughout() -> None:
    rule = NormalButRow(mean=NORMAL.mean, std=NORMAL.std, row=ONE)
    shape = (3, CHUNK - 10)
    own = np.frombuffer(fill(rule, seed=SEED, name="w", shape=shape, dtype="float32"), "<f4").reshape(shape)
    assert [bool(np.all(r == 0.0)) for r in own] == [False, True, False]
    assert np.count_nonzero(own == 0.0) == CHUNK - 10


@pytest.mark.parametrize("row", [3.0, 0.5, -1.0, math.inf, 2.0**60])
def test_a_row_that_is_not_there(row: float) -> None:
    with pytest.raises(MalformedBundle, match="row"):
        rule = NormalButRow(mean=ZERO, std=ONE, row=Free(number=row))
        fill(rule, seed=SEED, name="w", shape=(3, 4), dtype="float32")


def test_unknown_types_and_shapes_are_refused() -> None:
    with pytest.raises(MalformedBundle, match="complex64"):
        fill(UNIFORM, seed=SEED, name="w", shape=(2,), dtype="complex64")
    with pytest.raises(MalformedBundle, match="shape"):
        fill(UNIFORM, seed=SEED, name="w", shape=(2, -1), dtype="float32")
    assert fill(UNIFORM, seed=SEED, name="w", shape=(2, 0), dtype="float32") == b""
    assert len(fill(UNIFORM, seed=SEED, name="w", shape=(), dtype="float32")) == 4


@given(SCALARS, st.sampled_from(FLOAT_DTYPES), st.integers(0, 3))
def test_a_constant_is_found_again(scalar: Scalar, dtype: str, count: int) -> None:
    raw = fill(Constant(number=scalar), seed=SEED, name="w", shape=(count,), dtype=dtype)
    fans = {scalar.fan} if isinstance(scalar, Formula) else {3, 64}
    found = constant_of(raw, dtype, fans)
    assert found is not None
    assert fill(found, seed=SEED, name="v", shape=(count,), dtype=dtype) == raw
    assert found.free_bytes() <= Constant(number=scalar).free_bytes()


@given(st.integers(-(2**63), 2**63 - 1))
def test_an_integer_is_a_constant_if_some_float64_equals_it(n: int) -> None:
    found = constant_of(2 * n.to_bytes(8, "little", signed=True), "int64", ())
    assert (found is not None) == (int(float(n)) == n)
    assert found is None or found.number.value() == n


def test_what_is_not_constant() -> None:
    assert constant_of(np.array([0.0, -0.0], dtype="<f4").tobytes(), "float32", ()) is None
    assert constant_of(np.full(2, np.nan, dtype="<f2").tobytes(), "float16", ()) is None
    assert constant_of(b"\x02\x02", "bool", ()) is None
    with pytest.raises(MalformedBundle, match="whole elements"):
        constant_of(b"\0\0\0", "float32", ())


def test_a_negative_zero_is_not_called_zero() -> None:
    found = constant_of(np.array([-0.0], dtype="<f4").tobytes(), "float32", ())
    assert found is not None and found.free_bytes() == 8


def test_rounded_constants_are_explained() -> None:
    def number(value: float, dtype: torch.dtype) -> Scalar:
        raw = torch.full((3,), value, dtype=dtype).view(torch.uint8).numpy().tobytes()
        found = constant_of(raw, str(dtype).removeprefix("torch."), {32, 40})
        assert found is not None
        return found.number

    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert number(0.1, dtype) == named("0.1")
        assert number(1 / math.sqrt(40), dtype) == plus(1, 1, 40)
    assert number(torch.finfo(torch.float32).min, torch.float32) == named("lowest float32")
    assert number(-math.inf, torch.float32) == named("-inf")
    assert number(50256, torch.int64) == Free(number=50256.0)
