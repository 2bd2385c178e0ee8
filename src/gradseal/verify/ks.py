"""Tests of whether a tensor was drawn by its rule: Kolmogorov and Smirnov's, as it was used, and corrected.

Original: the two-sided test of each tensor against the rule's distribution function, refuted below 0.01, as
in Jia et al., "Proof-of-Learning: Definitions and Practice", 2021. Of m tensors that were honestly drawn one
or another fails with probability 1 − 0.99^m.

Corrected: at 0.01 for all tensors together, by the method of Holm, "A Simple Sequentially Rejective Multiple
Test Procedure", 1979. It allows for the rounding to the tensor's type, so that it keeps its level in types of
few digits; and a value outside the rule's bounds, by more than that rounding, refutes.

Neither sees which value sits where: a drawn tensor passes both however it is rearranged. Knows no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradseal.program.rules import Normal, NormalButRow, Rule, TruncatedNormal, Uniform
from gradseal.program.tensors import TensorSpec
from gradseal.verify.classical import InitialTest
from gradseal.verify.lengths import NUMPY, numbers

LEVEL = 0.01
"""The probability of refuting a tensor that was drawn; in the corrected test, any of them."""

LEAST_KEPT = 0.4
"""A truncated normal that keeps less of the normal has not its own distribution: see `fills.ATTEMPTS`."""

_DIGITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
_SMALLEST = {"float64": 2.0**-1074, "float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}
_CHUNK = 1 << 18

Floats = npt.NDArray[np.floating]
Distribution = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """One tensor, tested.

    Args:
        name: Its name.
        p: How probable so large a deviation is of a tensor that was drawn; NaN if a value is NaN.
        outside: How many of its values the rule never gives; counted by the corrected test alone.
    """

    name: str
    p: float
    outside: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialTested:
    """What the test of state zero covered.

    Args:
        test: Which test.
        tested: How many tensors.
        least: The one of the smallest p; None if none was tested.
        constant: How many have a rule that gives one number.
        untested: The names of parameters without a claimed distribution that can be tested.
    """

    test: InitialTest
    tested: int
    least: Examined | None
    constant: int
    untested: tuple[str, ...]


def is_random(rule: Rule) -> bool:
    """Whether a rule draws, and not the same number each time."""
    match rule:
        case Uniform():
            return rule.low.value() < rule.high.value()
        case Normal() | NormalButRow():
            return rule.std.value() > 0
        case TruncatedNormal():
            return rule.std.value() > 0 and rule.low.value() < rule.high.value()
    return False


def distribution_of(rule: Rule) -> Distribution | None:
    """The distribution function of a rule that draws; None for one that has none that can be tested."""
    from scipy.special import ndtr  # takes a moment to load, and only classical policies need it

    def normal(rule: Normal | NormalButRow | TruncatedNormal, x: Floats) -> Floats:
        values: Floats = ndtr((x - rule.mean.value()) / rule.std.value())
        return values

    match rule:
        case Uniform():
            low, high = rule.low.value(), rule.high.value()
            return lambda x: np.clip((x - low) / (high - low), 0.0, 1.0)
        case Normal() | NormalButRow():
            return lambda x: normal(rule, x)
        case TruncatedNormal():
            below, above = normal(rule, np.array([rule.low.value(), rule.high.value()]))
            if not above - below >= LEAST_KEPT:
                return None
            return lambda x: np.clip((normal(rule, x) - below) / (above - below), 0.0, 1.0)
    return None


def examine_tensor(rule: Rule, spec: TensorSpec, data: bytes, *, corrected: bool) -> Examined | None:
    """Tests one tensor; None if its rule has no distribution that can be tested.

    Args:
        rule: By which it is said to have been drawn.
        spec: Its name, type and shape.
        data: Its bytes, as many as that needs.
        corrected: Whether to allow for rounding and to count values outside the rule's bounds.
    """
    distribution = distribution_of(rule) if is_random(rule) and spec.dtype in NUMPY else None
    if distribution is None:
        return None
    values, outside = numbers(data, spec.dtype), 0
    if isinstance(rule, NormalButRow):
        values, row = _without_row(values, spec, int(rule.row.value()))
        outside = int(np.count_nonzero(row)) if corrected else 0
    with np.errstate(all="ignore"):
        if np.isnan(values).any():
            return Examined(name=spec.name, p=math.nan, outside=int(np.isnan(values).sum()))
        if corrected:
            outside += sum(_outside(part, rule, spec.dtype) for part in _parts(values))
        values = np.sort(values)
        largest = largest_deviation(values, distribution, spec.dtype if corrected else None)
    return Examined(name=spec.name, p=p_value(largest, len(values)), outside=outside)


def largest_deviation(values: Floats, distribution: Distribution, dtype: str | None) -> float:
    """The two-sided statistic: how far the values' own distribution function is from the claimed one.

    Args:
        values: In rising order, none NaN.
        distribution: What is claimed.
        dtype: A type to whose rounding each value may owe up to its last place; None for none. What is then
            returned is at most what it was before rounding.
    """
    largest, count = 0.0, len(values)
    for start in range(0, count, _CHUNK):
        part = values[start : start + _CHUNK].astype(np.float64)
        slack = _last_place(part, dtype) if dtype else 0.0
        below = np.arange(start, start + len(part)) / count
        above = below + 1 / count
        over, under = above - distribution(part + slack), distribution(part - slack) - below
        largest = max(largest, float(over.max()), float(under.max()))
    return largest


def p_value(largest: float, count: int) -> float:
    """The probability of so large a statistic among so many values that were drawn; 1 if there are none."""
    from scipy.stats import kstwo  # as in `distribution_of`

    return float(np.clip(kstwo.sf(largest, count), 0.0, 1.0)) if count else 1.0


def refuted(tested: Sequence[Examined], *, corrected: bool) -> list[tuple[Examined, float]]:
    """Those that fail, each with the least p that it would have passed with."""
    if not corrected:
        return [(one, LEVEL) for one in tested if not one.p >= LEVEL]
    failed, holds = [], False
    ranked = sorted(tested, key=lambda one: one.p if one.p >= 0 else -1.0)
    for number, one in enumerate(ranked):
        level = LEVEL / (len(ranked) - number)
        holds = holds or one.p >= level
        if not holds or one.outside:
            failed.append((one, level))
    return failed


def _without_row(values: Floats, spec: TensorSpec, row: int) -> tuple[Floats, Floats]:
    length = len(values) // spec.shape[0]
    first, end = row * length, (row + 1) * length
    return np.concatenate((values[:first], values[end:])), values[first:end]


def _parts(values: Floats) -> Iterator[Floats]:
    return (values[i : i + _CHUNK].astype(np.float64) for i in range(0, len(values), _CHUNK))


def _outside(values: Floats, rule: Rule, dtype: str) -> int:
    """How many values are not finite, or beyond the rule's bounds by more than rounding explains."""
    wrong = ~np.isfinite(values)
    if isinstance(rule, Uniform | TruncatedNormal):
        slack = _last_place(values, dtype)
        wrong |= (values - slack > rule.high.value()) | (values + slack < rule.low.value())
    return int(np.count_nonzero(wrong))


def _last_place(values: Floats, dtype: str) -> Floats:
    """What the last digit of each is worth: twice what rounding takes, which covers rounding twice."""
    _, exponents = np.frexp(values)
    places: Floats = np.ldexp(1.0, exponents - _DIGITS[dtype])
    return np.where(np.isfinite(values), np.maximum(places, _SMALLEST[dtype]), 0.0)
