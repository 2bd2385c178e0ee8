"""Optimizers in exact arithmetic: the bits of their formulas, one rounding a step, near to torch's.

The second implementation works on single numbers: fractions for what is rounded to float32, and Python's
floats for hyperparameters.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradseal.errors import CaptureError, ReplayError
from gradseal.program.exact import series, updates
from gradseal.program.optimizers import (
    MAX_COUNT,
    SGD,
    Adagrad,
    AdagradGroup,
    Adam,
    AdamGroup,
    AdamW,
    AdamWGroup,
    Lion,
    LionGroup,
    NAdam,
    NAdamGroup,
    Optimizer,
    RMSprop,
    RMSpropGroup,
    SGDGroup,
    check_exact,
)

NAN_BITS = 0x7FC00000
A: Any = {"parameters": ("a",)}
CASES: dict[str, Optimizer] = {
    "sgd": SGD(groups=(SGDGroup(**A, lr=0.1),)),
    "sgd decay": SGD(groups=(SGDGroup(**A, lr=0.1, weight_decay=0.3),)),
    "sgd momentum": SGD(groups=(SGDGroup(**A, lr=0.1, momentum=0.9, dampening=0.1),)),
    "sgd nesterov": SGD(groups=(SGDGroup(**A, lr=0.03, momentum=0.9, nesterov=True, weight_decay=5e-4),)),
    "sgd nesterov without decay": SGD(groups=(SGDGroup(**A, lr=0.1, momentum=0.7, nesterov=True),)),
    "sgd going on": SGD(groups=(SGDGroup(**A, lr=0.1, momentum=0.9),), steps_before=1),
    "sgd still": SGD(groups=(SGDGroup(**A, lr=0.0, momentum=0.9),)),
    "adam": Adam(groups=(AdamGroup(**A, lr=1e-3),)),
    "adam decay": Adam(groups=(AdamGroup(**A, lr=0.01, weight_decay=0.1, amsgrad=True),)),
    "adam decoupled": Adam(
        groups=(
            AdamGroup(
                **A, lr=0.01, beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.1, decoupled_weight_decay=True
            ),
        )
    ),
    "adam without memory": Adam(groups=(AdamGroup(**A, lr=0.01, beta1=0.0, beta2=0.0, eps=0.0),)),
    "adam half": Adam(groups=(AdamGroup(**A, lr=0.01, beta1=0.5, beta2=0.5),)),
    "adam late": Adam(groups=(AdamGroup(**A, lr=0.01, beta2=0.9999999),), steps_before=MAX_COUNT - 2),
    "adamw": AdamW(groups=(AdamWGroup(**A, lr=0.01),)),
    "adamw amsgrad": AdamW(groups=(AdamWGroup(**A, lr=0.01, amsgrad=True, weight_decay=0.5),)),
    "rmsprop": RMSprop(groups=(RMSpropGroup(**A, lr=0.01),)),
    "rmsprop all": RMSprop(
        groups=(
            RMSpropGroup(**A, lr=0.02, alpha=0.9, momentum=0.5, centered=True, weight_decay=0.1, eps=0.1),
        )
    ),
    "rmsprop momentum": RMSprop(groups=(RMSpropGroup(**A, lr=0.01, momentum=0.5),)),
    "rmsprop centered": RMSprop(groups=(RMSpropGroup(**A, lr=0.01, centered=True, alpha=0.3, eps=1e-2),)),
    "adagrad": Adagrad(groups=(AdagradGroup(**A, lr=0.01),)),
    "adagrad all": Adagrad(groups=(AdagradGroup(**A, lr=0.3, lr_decay=0.07, weight_decay=0.1, eps=1e-3),)),
    "nadam": NAdam(groups=(NAdamGroup(**A, lr=2e-3),)),
    "nadam decay": NAdam(
        groups=(NAdamGroup(**A, lr=0.01, beta1=0.7, beta2=0.9, weight_decay=0.1, momentum_decay=0.1),)
    ),
    "nadam decoupled": NAdam(
        groups=(NAdamGroup(**A, lr=2e-3, weight_decay=0.1, decoupled_weight_decay=True),),
        steps_before=1 << 20,
    ),
    "lion": Lion(groups=(LionGroup(**A, lr=0.01),)),
    "lion decay": Lion(groups=(LionGroup(**A, lr=0.01, beta1=0.8, beta2=0.4, weight_decay=0.3),)),
}


# --- The formulas again, on single numbers.


def nearest(q: Fraction) -> float:
    """The float32 next to a fraction that is not 0, ties to even; a zero has its sign."""
    exponent = abs(q.numerator).bit_length() - q.denominator.bit_length()
    exponent -= abs(q) < Fraction(2) ** exponent
    unit = Fraction(2) ** (max(exponent, -126) - 23)
    value = round(q / unit) * unit
    return math.copysign(math.inf if abs(value) >= 2**128 else float(value), q)


def number(x: float) -> float:
    return nearest(Fraction(x)) if x else x


def finite(*numbers: float) -> bool:
    return all(math.isfinite(x) for x in numbers)


def plus(a: float, b: float) -> float:
    exact = Fraction(a) + Fraction(b) if finite(a, b) else Fraction(0)
    return nearest(exact) if exact else a + b


def minus(a: float, b: float) -> float:
    return plus(a, -b)


def times(a: float, b: float) -> float:
    return nearest(Fraction(a) * Fraction(b)) if finite(a, b) and a and b else a * b


def over(a: float, b: float) -> float:
    if finite(a, b) and a and b:
        return nearest(Fraction(a) / Fraction(b))
    if b == 0:
        return math.copysign(math.inf, a) * math.copysign(1.0, b) if abs(a) > 0 else math.nan
    return a / b


def root(a: float) -> float:
    if not a > 0:
        return a if a == 0 else math.nan
    if math.isinf(a):
        return a
    scaled = Fraction(a) * 4**200
    assert scaled.denominator == 1
    floor = math.isqrt(scaled.numerator)
    return nearest(Fraction(2 * floor + (floor * floor != scaled), 2**201))


def power(base: float, count: int) -> float:
    factors = []
    for digit in reversed(f"{count:b}"):
        if digit == "1":
            factors.append(base)
        base = base * base
    return math.prod(factors, start=1.0)


def power_of_096(exponent: float) -> float:
    x = max(exponent * float.fromhex("-0x1.4e69ed6d80eb3p-5"), -128.0)
    k = round(x * float.fromhex("0x1.71547652b82fep+0"))
    r = x - k * float.fromhex("0x1.62e42fefa39efp-1")
    total = 0.0
    for c in reversed(series._EXPM1):
        total = total * r + c
    return math.ldexp(total * r + 1.0, k)


def mean(a: float, b: float, share: float) -> float:
    if 1 - share < 0.5:
        return plus(a, times(minus(b, a), number(1 - share)))
    return minus(b, times(minus(b, a), number(share)))


def mean_square(a: float, b: float, share: float) -> float:
    return plus(times(a, number(share)), times(times(b, number(1 - share)), b))


def decay(h: Any, w: float, g: float, decoupled: bool) -> tuple[float, float]:
    if h.weight_decay == 0:
        return w, g
    if decoupled:
        return times(w, number(1 - h.lr * h.weight_decay)), g
    return w, plus(g, times(w, number(h.weight_decay)))


def add_quotient(w: float, b: float, d: float, factor: float) -> float:
    return plus(w, over(times(b, number(factor)), d))


def expected(h: Any, w: float, g: float, kept: list[float], t: int) -> tuple[float, list[float]]:
    """A weight and its kept numbers after an update."""
    match h:
        case SGDGroup():
            w, g = decay(h, w, g, False)
            if h.momentum != 0:
                rest = number(1 - h.dampening)
                m = g if t == 1 else plus(times(kept[0], number(h.momentum)), times(g, rest))
                g = plus(g, times(m, number(h.momentum))) if h.nesterov else m
                kept = [m]
            return plus(w, times(g, number(-h.lr))), kept
        case AdamGroup():
            w, g = decay(h, w, g, h.decoupled_weight_decay)
            m, v = mean(kept[0], g, h.beta1), mean_square(kept[1], g, h.beta2)
            largest = [math.nan if math.isnan(v + kept[2]) else max(kept[2], v)] if h.amsgrad else []
            correction = number(math.sqrt(1 - power(h.beta2, t)))
            d = plus(over(root([v, *largest][-1]), correction), number(h.eps))
            return add_quotient(w, m, d, -(h.lr / (1 - power(h.beta1, t)))), [m, v, *largest]
        case RMSpropGroup():
            w, g = decay(h, w, g, False)
            v = mean_square(kept[0], g, h.alpha)
            averages = [mean(kept[-1], g, h.alpha)] if h.centered else []
            spread = minus(v, times(averages[0], averages[0])) if h.centered else v
            d = plus(root(spread), number(h.eps))
            if h.momentum == 0:
                return add_quotient(w, g, d, -h.lr), [v, *averages]
            m = plus(times(kept[1], number(h.momentum)), over(g, d))
            return plus(w, times(m, number(-h.lr))), [v, m, *averages]
        case AdagradGroup():
            w, g = decay(h, w, g, False)
            v = plus(kept[0], times(g, g))
            d = plus(root(v), number(h.eps))
            return add_quotient(w, g, d, -h.lr / (1 + (t - 1) * h.lr_decay)), [v]
        case NAdamGroup():
            w, g = decay(h, w, g, h.decoupled_weight_decay)
            mu, mu_next = (h.beta1 * (1 - 0.5 * power_of_096(n * h.momentum_decay)) for n in (t, t + 1))
            p = times(kept[0], number(mu))
            m, v = mean(kept[1], g, h.beta1), mean_square(kept[2], g, h.beta2)
            d = plus(over(root(v), number(math.sqrt(1 - power(h.beta2, t)))), number(h.eps))
            w = add_quotient(w, g, d, -h.lr * (1 - mu) / (1 - p))
            return add_quotient(w, m, d, -h.lr * mu_next / (1 - p * mu_next)), [p, m, v]
        case LionGroup():
            w, g = decay(h, w, g, True)
            c = plus(times(kept[0], number(h.beta1)), times(g, number(1 - h.beta1)))
            w = plus(w, times(float((c > 0) - (c < 0)), number(-h.lr)))
            return w, [plus(times(kept[0], number(h.beta2)), times(g, number(1 - h.beta2)))]
    raise AssertionError(h)


# --- The comparison.


def bits(x: Tensor) -> list[int]:
    values: list[int] = (x.contiguous().view(-1).view(torch.int32).to(torch.int64) & 0xFFFFFFFF).tolist()
    return values


def bits_of(x: float) -> int:
    return NAN_BITS if math.isnan(x) else int(struct.unpack(">I", struct.pack(">f", x))[0])


def fresh(optimizer: Optimizer, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    state = {f"parameters/{name}": weight.clone() for name, weight in weights.items()}
    for kept in optimizer.tensors():
        like = weights[kept.parameter]
        state[kept.name] = torch.zeros_like(like) if kept.shape_like_parameter else torch.ones(())
    return state


def check(optimizer: Optimizer, weight: Tensor, gradients: list[Tensor]) -> None:
    state = fresh(optimizer, {"a": weight})
    h: Any = optimizer.groups[0]
    tensors = list(optimizer.tensors())
    names = [kept.name for kept in tensors]
    scalars = [not kept.shape_like_parameter for kept in tensors]
    for step, gradient in enumerate(gradients):
        before = {name: tensor.clone() for name, tensor in state.items()}
        optimizer.update(state, {"a": gradient}, step, exact=True)
        t = min(optimizer.steps_before + step + 1, MAX_COUNT)
        found = zip(*(bits(state[n].expand(weight.shape)) for n in ("parameters/a", *names)), strict=True)
        for i, values in enumerate(found):
            kept = [
                before[name].item() if scalar else before[name].view(-1)[i].item()
                for name, scalar in zip(names, scalars, strict=True)
            ]
            w, own = expected(
                h, before["parameters/a"].view(-1)[i].item(), gradient.view(-1)[i].item(), kept, t
            )
            assert list(values) == [bits_of(x) for x in (w, *own)], (step, i)


@pytest.mark.parametrize("case", CASES)
def test_the_bits_of_the_formula(case: str) -> None:
    generator = torch.Generator().manual_seed(1)
    sizes = 10.0 ** torch.randint(-6, 3, (6, 41), generator=generator)
    numbers = torch.randn(6, 41, generator=generator) * sizes
    numbers[:, ::13] = 0.0
    check(CASES[case], numbers[0], list(numbers[1:]))


FLOATS = st.one_of(
    st.floats(width=32),
    st.floats(width=32, min_value=-(2.0**-66), max_value=2.0**-66),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e-40, 1e30, 3.4e38]),
)


@settings(max_examples=150)
@given(numbers=st.lists(FLOATS, min_size=12, max_size=12), case=st.sampled_from(sorted(CASES)))
def test_any_numbers(numbers: list[float], case: str) -> None:
    rows = torch.tensor(numbers, dtype=torch.float64).to(torch.float32).view(4, 3)
    check(CASES[case], rows[0], list(rows[1:]))


@settings(max_examples=100)
@given(
    share=st.floats(0, 1, exclude_max=True),
    lr=st.floats(-1e30, 1e30),
    eps=st.floats(0, 1e30),
    weight_decay=st.floats(0, 2),
    seed=st.integers(0, 99),
    case=st.sampled_from(sorted(CASES)),
)
def test_any_hyperparameters(
    share: float, lr: float, eps: float, weight_decay: float, seed: int, case: str
) -> None:
    group: Any = CASES[case].groups[0]
    has = {field.name for field in dataclasses.fields(group)}
    wanted = {
        "lr": lr,
        "eps": eps,
        "weight_decay": weight_decay,
        "beta1": share,
        "beta2": share,
        "alpha": share,
    }
    changed = dataclasses.replace(group, **{name: value for name, value in wanted.items() if name in has})
    numbers = torch.randn(3, 2, generator=torch.Generator().manual_seed(seed))
    try:
        optimizer: Any = CASES[case]
        check(dataclasses.replace(optimizer, groups=(changed,)), numbers[0], list(numbers[1:]))
    except ReplayError as e:
        assert "not a finite float32" in e.message


@pytest.mark.parametrize("case", CASES)
def test_near_to_torch(case: str) -> None:
    optimizer = CASES[case]
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(500, generator=generator)
    states = [fresh(optimizer, {"a": weight}) for _ in range(2)]
    for step in range(20):
        gradient = {"a": torch.randn(500, generator=generator)}
        # The native form has the bits of torch.optim.
        optimizer.update(states[0], gradient, step)
        optimizer.update(states[1], gradient, step, exact=True)
    for name, native in states[0].items():
        torch.testing.assert_close(states[1][name], native, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("case", CASES)
def test_foreach_layout_pieces_and_threads_change_nothing(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    numbers = torch.randn(3, 300, 701, generator=generator)
    optimizer: Any = CASES[case]

    def run(*, transposed: bool = False, foreach: bool = False) -> list[list[int]]:
        own = optimizer
        if foreach and hasattr(own.groups[0], "foreach"):
            own = dataclasses.replace(own, groups=(dataclasses.replace(own.groups[0], foreach=True),))
        rows = [n.T.contiguous().T if transposed else n for n in numbers]
        state = fresh(own, {"a": rows[0]})
        assert state["parameters/a"].is_contiguous() != transposed
        for step, gradient in enumerate(rows[1:]):
            own.update(state, {"a": gradient}, step, exact=True)
        return [bits(tensor) for tensor in state.values()]

    plain = run()
    assert run(foreach=True) == plain
    assert run(transposed=True) == plain
    monkeypatch.setattr(updates, "PIECE", 1009)
    assert run() == plain
    monkeypatch.undo()
    torch.set_num_threads(2)
    assert run() == plain


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3)])
def test_shapes_and_gradients_that_are_only_read(case: str, shape: tuple[int, ...]) -> None:
    optimizer = CASES[case]
    state = fresh(optimizer, {"a": torch.ones(shape)})
    gradient = torch.full(shape, 0.5)
    for step in range(2):
        optimizer.update(state, {"a": gradient}, step, exact=True)
    assert state["parameters/a"].shape == shape
    assert torch.equal(gradient, torch.full(shape, 0.5))


@pytest.mark.parametrize("case", CASES)
def test_every_nan_is_written_as_one(case: str) -> None:
    optimizer = CASES[case]
    payload = torch.tensor([0x7F800001, -1, 0x3F800000], dtype=torch.int32).view(torch.float32)
    weight = torch.tensor([1.0, 2.0, 3.0])
    for start, gradient in ((weight, payload), (payload, weight)):
        state = fresh(optimizer, {"a": start})
        optimizer.update(state, {"a": gradient}, 0, exact=True)
        for name, tensor in state.items():
            values = [value for value in bits(tensor) if value & 0x7FFFFFFF > 0x7F800000]
            assert set(values) <= {NAN_BITS}, name


def test_a_nan_beside_infinities_and_overflow_is_found() -> None:
    payload = torch.tensor([-1], dtype=torch.int32).view(torch.float32)
    for others in ([math.inf, -math.inf], [2.0**127, 2.0**127, -(2.0**127)], []):
        x = torch.cat([torch.tensor(others), payload])
        assert bits(updates.canonical_(x))[-1] == NAN_BITS
        assert x[:-1].tolist() == others


def test_lion_of_nothing_moves_nothing() -> None:
    state = fresh(CASES["lion"], {"a": torch.tensor([-0.0, 0.0, 1.0])})
    CASES["lion"].update(state, {"a": torch.tensor([0.0, -0.0, math.nan])}, 0, exact=True)
    assert bits(state["parameters/a"]) == [0x80000000, 0, 0x3F800000]


def test_powers() -> None:
    assert updates.power(0.9, 0) == 1.0
    assert updates.power(0.9, 1) == 0.9
    assert updates.power(0.0, 5) == 0.0
    assert updates.power(0.999, 1 << 24) == 0.0
    for count in (2, 3, 10, 1000, 9999):
        assert updates.power(0.999, count) == pytest.approx(0.999**count, rel=1e-12)
    assert updates.power_of_096(0.0) == 1.0
    for exponent in (1e-9, 0.004, 0.5, 1.0, 17.3, 1000.0):
        assert updates.power_of_096(exponent) == pytest.approx(0.96**exponent, rel=1e-13)
    assert 0 < updates.power_of_096(math.inf) < 1e-50


def test_numbers_keep_the_sign_of_zero() -> None:
    like = torch.zeros(())
    assert [bits(updates.number(x, like))[0] for x in (0.0, -0.0, 0.0)] == [0, 0x80000000, 0]


@pytest.mark.parametrize("lr", [1e39, 3.4028235677973366e38, 1e308])
def test_a_number_that_is_no_float32(lr: float) -> None:
    optimizers: list[Optimizer] = [
        SGD(groups=(SGDGroup(**A, lr=lr),)),
        # Also a number that this step does not use.
        SGD(groups=(SGDGroup(**A, lr=0.1, dampening=lr),)),
        Adam(groups=(AdamGroup(**A, lr=lr),)),
        AdamW(groups=(AdamWGroup(**A, lr=0.1, eps=lr),)),
    ]
    for optimizer in optimizers:
        state = fresh(optimizer, {"a": torch.ones(2)})
        with pytest.raises(ReplayError, match="not a finite float32") as caught:
            optimizer.update(state, {"a": torch.ones(2)}, 0, exact=True)
        assert caught.value.where == "optimizer: a"


def test_a_division_by_zero() -> None:
    state = fresh(CASES["nadam"], {"a": torch.ones(2)})
    state["optimizer/a/mu_product"] = torch.tensor(math.nan)
    with pytest.raises(ReplayError, match="cannot be computed"):
        CASES["nadam"].update(state, {"a": torch.ones(2)}, 0, exact=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types_are_refused(dtype: torch.dtype) -> None:
    optimizer = CASES["adam"]
    state = fresh(optimizer, {"a": torch.ones(2, dtype=dtype)})
    with pytest.raises(ReplayError, match="takes float32, not") as caught:
        optimizer.update(state, {"a": torch.ones(2, dtype=dtype)}, 0, exact=True)
    assert caught.value.where == "optimizer: a"
    state = fresh(optimizer, {"a": torch.ones(2)})
    with pytest.raises(ReplayError, match="takes float32, not"):
        optimizer.update(state, {"a": torch.ones(2, dtype=dtype)}, 0, exact=True)


def test_what_exact_arithmetic_trains() -> None:
    check_exact(CASES["adam"], {"a": "float32", "idle": "bfloat16"})
    with pytest.raises(CaptureError, match="trains float32, not bfloat16") as caught:
        check_exact(CASES["adam"], {"a": "bfloat16"})
    assert caught.value.where == "optimizer: a"
