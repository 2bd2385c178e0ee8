"""The tests of state zero's distribution: as scipy has them, at their levels, and what they cannot see."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from gradseal.program.fills import fill
from gradseal.program.rules import Constant, Normal, NormalButRow, Range, Rule, TruncatedNormal, Uniform
from gradseal.program.scalars import Free
from gradseal.program.tensors import TensorSpec
from gradseal.study.ks import random_tensors, study_ks
from gradseal.verify.ks import LEVEL, Examined, examine_tensor, refuted

UNIFORM = Uniform(low=Free(number=-0.3), high=Free(number=0.7))
NORMAL = Normal(mean=Free(number=0.5), std=Free(number=0.02))
TRUNCATED = TruncatedNormal(
    mean=Free(number=0.0), std=Free(number=0.02), low=Free(number=-0.03), high=Free(number=0.04)
)
CLAIMED: list[tuple[Rule, Any]] = [
    (UNIFORM, stats.uniform(-0.3, 1.0)),
    (NORMAL, stats.norm(0.5, 0.02)),
    (TRUNCATED, stats.truncnorm(-1.5, 2.0, 0.0, 0.02)),
]
ROW = NormalButRow(mean=Free(number=0.0), std=Free(number=1.0), row=Free(number=2.0))


def spec(*shape: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name="parameters/w", dtype=dtype, shape=shape)


def drawn(rule: Rule, own: TensorSpec, number: int = 0) -> bytes:
    seed = number.to_bytes(32, "big")
    return fill(rule, seed=seed, name=own.name, shape=own.shape, dtype=own.dtype)


def examined(rule: Rule, own: TensorSpec, data: bytes, *, corrected: bool) -> Examined:
    tested = examine_tensor(rule, own, data, corrected=corrected)
    assert tested is not None
    return tested


@pytest.mark.parametrize(("rule", "claimed"), CLAIMED, ids=lambda x: getattr(x, "kind", ""))
@pytest.mark.parametrize("count", [1, 5, 1000, 300_000])
def test_the_original_is_scipys(rule: Rule, claimed: Any, count: int) -> None:
    own = spec(count)
    data = drawn(rule, own)
    expected = stats.kstest(np.frombuffer(data, "<f4").astype(np.float64), claimed.cdf).pvalue
    assert examined(rule, own, data, corrected=False).p == pytest.approx(expected, rel=1e-6)


def test_a_rearrangement_passes_and_a_shift_does_not() -> None:
    own = spec(64, 32)
    values = np.sort(np.frombuffer(drawn(NORMAL, own), "<f4"))
    for corrected in (False, True):
        assert not refuted(
            [examined(NORMAL, own, values.tobytes(), corrected=corrected)], corrected=corrected
        )
        shifted = (values + np.float32(0.01)).tobytes()
        assert refuted([examined(NORMAL, own, shifted, corrected=corrected)], corrected=corrected)


@pytest.mark.parametrize("rule", [UNIFORM, TRUNCATED], ids=lambda rule: rule.kind)
def test_few_values_that_a_rule_never_gives_pass_the_original_alone(rule: Uniform | TruncatedNormal) -> None:
    own = spec(5000)
    values = np.frombuffer(drawn(rule, own), "<f4").copy()
    values[:3] = [rule.high.value() + 0.1, rule.low.value() - 0.1, 50.0]
    original = examined(rule, own, values.tobytes(), corrected=False)
    assert refuted([original], corrected=False) == []
    careful = examined(rule, own, values.tobytes(), corrected=True)
    assert careful.outside == 3
    assert refuted([careful], corrected=True)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_rounding_is_no_reason_to_refute(dtype: str) -> None:
    """By half-width types the original fails whatever is drawn; bounds are reached by rounding."""
    own = spec(1 << 20, dtype=dtype)
    tested = examined(UNIFORM, own, drawn(UNIFORM, own), corrected=True)
    assert tested.outside == 0
    assert refuted([tested], corrected=True) == []


def test_values_of_few_digits_fail_the_original() -> None:
    own = spec(1 << 22, dtype="bfloat16")
    assert examined(UNIFORM, own, drawn(UNIFORM, own), corrected=False).p < LEVEL


def test_no_number_and_infinity_do_not_raise() -> None:
    own = spec(100)
    values = np.frombuffer(drawn(NORMAL, own), "<f4").copy()
    for wrong in (math.nan, math.inf, -math.inf):
        values[7] = wrong
        careful = examined(NORMAL, own, values.tobytes(), corrected=True)
        assert careful.outside == 1
        assert refuted([careful], corrected=True)
    values[7] = math.nan
    assert refuted([examined(NORMAL, own, values.tobytes(), corrected=False)], corrected=False)


def test_a_row_of_zeros_is_left_out_and_looked_at_by_the_corrected_test() -> None:
    own = spec(5, 4000)
    values = np.frombuffer(drawn(ROW, own), "<f4").reshape(own.shape).copy()
    assert not values[2].any()
    good = examined(ROW, own, values.tobytes(), corrected=False)
    assert good.p >= LEVEL
    values[2, 0] = 1.0
    assert examined(ROW, own, values.tobytes(), corrected=False).p == good.p
    assert examined(ROW, own, values.tobytes(), corrected=True).outside == 1


@pytest.mark.parametrize(
    "rule",
    [
        Constant(number=Free(number=1.0)),
        Range(start=Free(number=0.0), step=Free(number=1.0)),
        Uniform(low=Free(number=1.0), high=Free(number=1.0)),
        Normal(mean=Free(number=1.0), std=Free(number=0.0)),
        # Almost all draws are rejected, and what is left are bounds.
        TruncatedNormal(
            mean=Free(number=0.0), std=Free(number=1.0), low=Free(number=30.0), high=Free(number=31.0)
        ),
    ],
    ids=lambda rule: rule.kind,
)
def test_what_has_no_distribution_is_not_tested(rule: Rule) -> None:
    own = spec(4)
    assert examine_tensor(rule, own, drawn(rule, own), corrected=True) is None


def with_p(*ps: float, outside: int = 0) -> list[Examined]:
    return [Examined(name=str(i), p=p, outside=outside) for i, p in enumerate(ps)]


def test_the_corrected_level_is_shared() -> None:
    """Holm: the smallest p at 0.01/3, and the next at 0.01/2 once the first is refuted."""
    assert [one.name for one, _ in refuted(with_p(0.009, 0.5, 0.004), corrected=False)] == ["0", "2"]
    assert refuted(with_p(0.009, 0.5, 0.004), corrected=True) == []
    failed = refuted(with_p(0.0045, 0.5, 0.003), corrected=True)
    assert [(one.name, level) for one, level in failed] == [("2", LEVEL / 3), ("0", LEVEL / 2)]
    assert len(refuted(with_p(0.5, outside=1), corrected=True)) == 1
    assert len(refuted(with_p(math.nan, 0.5), corrected=True)) == 1
    assert refuted([], corrected=True) == []


def test_the_study_draws_what_a_recording_would() -> None:
    rules = random_tensors()
    assert len(rules) == 20
    assert {rule.kind for rule, _ in rules} == {"normal"}
    result = study_ks(3, seed=1)
    assert result == study_ks(3, seed=1)
    assert (result.draws, result.tensors) == (3, 20)
    assert 0 <= result.original.low <= result.original.rate <= result.original.high <= 1
    assert result.to_json()["corrected"]["rejected"] == result.corrected.rejected <= result.original.rejected
