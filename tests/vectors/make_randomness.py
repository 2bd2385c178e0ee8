"""Vectors of docs/spec/randomness.md: `randomness.json`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gradseal.program import randomness
from gradseal.program.fills import constant_of, fill, range_of
from gradseal.program.rules import (
    Constant,
    Normal,
    NormalButRow,
    Range,
    Rule,
    TruncatedNormal,
    Uniform,
)
from gradseal.program.scalars import Formula, Free, Named, explain, fans_of
from gradseal.proof.canonical import Json, float_to_bits

SEED = bytes(range(32))
KEY = bytes(range(16))

ZERO, ONE = Named(name="0"), Named(name="1")
BOUND = {negative: Formula(negative=negative, p=6, q=1, fan=48) for negative in (False, True)}
RULES: tuple[Rule, ...] = (
    Constant(number=Named(name="0.1")),
    Constant(number=Formula(negative=True, p=25, q=9, fan=7)),
    Uniform(low=BOUND[True], high=BOUND[False]),
    Uniform(low=ZERO, high=Free(number=1e-9)),
    Normal(mean=ZERO, std=Named(name="0.02")),
    Normal(mean=ONE, std=Formula(negative=False, p=2, q=1, fan=27)),
    NormalButRow(mean=ZERO, std=Named(name="0.02"), row=Named(name="2")),
    Range(start=Named(name="-1"), step=Named(name="0.1")),
    TruncatedNormal(mean=ZERO, std=ONE, low=Named(name="-0.5"), high=Named(name="1")),
    # Two draws in a million lie inside, so that after 64 of them an element ends at a bound.
    TruncatedNormal(mean=ZERO, std=ONE, low=Free(number=4.5), high=Free(number=4.75)),
)
EXPLAINED = (1.0, 0.1, -0.2, 0.125, -0.0, 1 / math.sqrt(288), 0.02 / math.sqrt(24))
SHAPES = ((64, 32, 3, 3), (64,), (10, 64), ())


def _floats(values: npt.ArrayLike) -> list[Json]:
    return [float_to_bits(float(x)) for x in np.asarray(values, dtype=np.float64)]


def _words(values: Sequence[int] | npt.NDArray[np.uint64]) -> list[Json]:
    return [f"{int(word):016x}" for word in values]


def _uint64s(values: Sequence[int]) -> npt.NDArray[np.uint64]:
    return np.array(values, dtype=np.uint64)


def _run_seeds() -> list[Json]:
    cases = ((b"\x00", bytes(32)), (bytes(range(48)), bytes(range(32, 64))))
    return [
        {"declared": a.hex(), "manifest_digest": b.hex(), "seed": randomness.run_seed(a, b).hex()}
        for a, b in cases
    ]


def _slot_seeds() -> list[Json]:
    value, digest = bytes(range(32)), bytes(range(32, 64))
    cases = ((value, 0, digest), (value, 1, digest), (value, (1 << 24) - 1, digest), (value, 1, value))
    return [
        {
            "value": value.hex(),
            "slot": slot,
            "manifest_digest": digest.hex(),
            "seed": randomness.slot_seed(value, slot, digest).hex(),
        }
        for value, slot, digest in cases
    ]


def _derivations() -> list[Json]:
    cases: tuple[tuple[tuple[str | int, ...], int], ...] = (
        ((), 16),
        (("initialise", "layer.0.weight", 0), 16),
        (("initialise", "layer.0.weight", 1), 16),
        (("1",), 16),
        ((1,), 16),
        (("ab", "c"), 32),
        (("a", "bc"), 32),
        (("Gewichte ä", 2**64 - 1), 40),
    )
    return [
        {
            "seed": SEED.hex(),
            "labels": [{"text": x} if isinstance(x, str) else {"integer": f"{x:016x}"} for x in labels],
            "size": size,
            "bytes": randomness.derive(SEED, *labels, size=size).hex(),
        }
        for labels, size in cases
    ]


def _streams() -> list[Json]:
    cases = ((bytes(16), 0, 8), (KEY, 0, 6), (KEY, 5, 6), (KEY, 2**34 + 3, 3))
    return [
        {"key": key.hex(), "start": start, "words": _words(randomness.words(key, start, count))}
        for key, start, count in cases
    ]


def _function(f: Callable[..., npt.NDArray[np.float64]], inputs: npt.NDArray[np.float64]) -> Json:
    return {"input": _floats(inputs), "output": _floats(f(inputs))}


def _numbers() -> dict[str, Json]:
    drawn = _uint64s([0, 1, 2**11, 2**12, 2**63, 2**64 - 1, 0x0123456789ABCDEF])
    units = randomness.open_unit(np.concatenate([randomness.words(KEY, 0, 24), drawn]))
    tiny = float(np.finfo(np.float64).tiny)
    logs = np.concatenate([units, [1.0, 0.5, 2.0, 10.0, tiny, float(np.finfo(np.float64).max)]])
    quantiles = np.concatenate([units, [0.5, 0.075, 0.925, 1e-11, 1e-12, 1e-300, tiny]])
    return {
        "unit": {"words": _words(drawn), "output": _floats(randomness.unit(drawn))},
        "open_unit": {"words": _words(drawn), "output": _floats(randomness.open_unit(drawn))},
        "log": _function(randomness.log_, logs),
        "normal_quantile": _function(randomness.normal_quantile, quantiles),
    }


def _permutations() -> list[Json]:
    return [
        {"key": KEY.hex(), "n": n, "order": [int(i) for i in randomness.permutation(KEY, n)]}
        for n in (0, 1, 2, 17)
    ]


def _step_generator_seeds() -> list[Json]:
    cases = ((0, 0), (1, 0), (0, 1), (10**6, 3))
    return [
        {
            "seed": SEED.hex(),
            "step": step,
            "micro_batch": micro_batch,
            "generator_seed": f"{randomness.step_generator_seed(SEED, step, micro_batch):016x}",
        }
        for step, micro_batch in cases
    ]


def _explained() -> list[Json]:
    fans = fans_of(SHAPES)
    return [
        {
            "fans": [*sorted(fans)],
            "value": float_to_bits(value),
            "scalar": explain(value, fans).to_json(),
        }
        for value in EXPLAINED
    ]


def _fill(rule: Rule, dtype: str) -> Json:
    filled = fill(rule, seed=SEED, name="layer.0.weight", shape=(3, 4), dtype=dtype)
    fields: dict[str, Json] = {"seed": SEED.hex(), "name": "layer.0.weight", "shape": [3, 4]}
    return fields | {"rule": rule.to_json(), "dtype": dtype, "bytes": filled.hex()}


def _fills() -> list[Json]:
    floats = [_fill(rule, dtype) for rule in RULES for dtype in ("float64", "float32", "float16", "bfloat16")]
    whole: tuple[Rule, ...] = (Constant(number=Named(name="2")), Range(start=ONE, step=Named(name="3")))
    types = ("int64", "int32", "int16", "int8", "uint8")
    integers = [_fill(rule, dtype) for rule in whole for dtype in types]
    return [*floats, *integers, _fill(Constant(number=ONE), "bool")]


def _ranges() -> list[Json]:
    fans = fans_of(SHAPES)
    cases: tuple[tuple[str, tuple[int, ...], npt.NDArray[Any]], ...] = (
        ("int64", (1, 8), np.arange(8, dtype="<i8")),
        ("int64", (2, 4), np.tile(np.arange(4, dtype="<i8"), 2)),
        ("int32", (4,), np.array([10, 7, 4, 1], dtype="<i4")),
        ("int32", (4,), np.array([0, 1, 2, 4], dtype="<i4")),
        ("int64", (2,), np.array([7, 9], dtype="<i8")),
        ("float32", (8,), np.arange(8, dtype="<f4")),
        ("float32", (3,), np.array([0.0, np.nan, 1.0], dtype="<f4")),
        ("bfloat16", (3,), np.array([0, 0x3F80, 0x4000], dtype="<u2")),
    )
    found: list[Json] = []
    for dtype, shape, values in cases:
        rule = range_of(values.tobytes(), dtype, shape, fans)
        case: dict[str, Json] = {"fans": [*sorted(fans)], "dtype": dtype, "shape": [*shape]}
        found.append(
            case | {"bytes": values.tobytes().hex(), "rule": None if rule is None else rule.to_json()}
        )
    return found


def _constants() -> list[Json]:
    fans = fans_of(SHAPES)
    cases = (
        ("float32", np.full(3, 0.1, dtype="<f4").tobytes()),
        ("float32", np.full(2, 1 / math.sqrt(288), dtype="<f4").tobytes()),
        ("float32", np.full(2, 0.3, dtype="<f4").tobytes()),
        ("float32", np.array([0.0, -0.0], dtype="<f4").tobytes()),
        ("float32", np.full(2, np.nan, dtype="<f4").tobytes()),
        ("bfloat16", bytes.fromhex("cd3dcd3d")),
        ("int64", np.full(2, 2**53 + 1, dtype="<i8").tobytes()),
        ("int64", np.full(2, 2**60, dtype="<i8").tobytes()),
        ("bool", b"\x01\x01"),
    )
    found: list[Json] = []
    for dtype, raw in cases:
        rule = constant_of(raw, dtype, fans)
        case: dict[str, Json] = {"fans": [*sorted(fans)], "dtype": dtype, "bytes": raw.hex()}
        found.append(case | {"rule": None if rule is None else rule.to_json()})
    return found


def randomness_vectors() -> dict[str, Json]:
    """The file."""
    return {
        "about": (
            "Each list has the cases of one function of the page, arguments first; a float is the 16 "
            "hexadecimal digits of its IEEE-754 bits, a word or integer of 64 bits likewise, most "
            "significant first. explain: the scalar that a number is explained by, given the model's fans. "
            "constant_of and range_of: the rule that a tensor's bytes are explained by; null where there is "
            "none. fill: the bytes of a tensor by a rule."
        ),
        "run_seed": _run_seeds(),
        "slot_seed": _slot_seeds(),
        "derive": _derivations(),
        "words": _streams(),
        **_numbers(),
        "permutation": _permutations(),
        "step_generator_seed": _step_generator_seeds(),
        "explain": _explained(),
        "constant_of": _constants(),
        "range_of": _ranges(),
        "fill": _fills(),
    }
