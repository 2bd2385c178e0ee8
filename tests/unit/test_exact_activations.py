from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mpmath  # type: ignore[import-untyped]
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact import activation_functions
from gradseal.program.exact.activations import TABLE
from gradseal.program.interpret import overload

INF = math.inf
NAN = math.nan
NAN_BITS = 0x7FC00000
SMALLEST = 2.0**-149
LARGEST = 2.0**128 - 2.0**104
SPEC = (Path(__file__).parents[2] / "docs/spec/arithmetic.md").read_text(encoding="utf-8")
CONTEXT = mpmath.MPContext()
CONTEXT.prec = 160

CORNERS = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 3.0, -3.0, 6.0, 20.0, 128.0, -128.0, 16.0, -16.0, -104.0, 89.0]
CORNERS += [SMALLEST, -SMALLEST, LARGEST, -LARGEST, 2.0**-126, INF, -INF, NAN]
ANY = st.floats(width=32) | st.sampled_from(CORNERS) | st.floats(width=32, min_value=-20.0, max_value=20.0)


# A second implementation, of Python's floats: a product, sum or quotient of two float32 that is rounded to
# float64 and then to float32 is the one rounded at once.


def f(x: float) -> float:
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", x))[0]
    except OverflowError:
        return math.copysign(INF, x)
    return rounded


def quotient(a: float, b: float) -> float:
    if b != 0:
        return a / b
    if a == 0 or math.isnan(a) or math.isnan(b):
        return NAN
    return math.copysign(INF, a) * math.copysign(1.0, b)


def bits_of(x: float) -> int:
    return NAN_BITS if math.isnan(x) else int.from_bytes(struct.pack(">f", f(x)), "big")


def bits(x: Tensor) -> list[int]:
    same = torch.where(x.isnan(), torch.tensor(NAN), x).contiguous().reshape(-1).view(torch.int32)
    values: list[int] = (same.to(torch.int64) & 0xFFFFFFFF).tolist()
    return values


def coefficients(name: str) -> list[float]:
    row = re.search(rf"^\| {name} \| (.*) \|$", SPEC, re.M)
    if row is None:
        raise LookupError(name)
    return [float.fromhex(word) for word in row[1].split()]


EXPM1, ATANH, TAIL = (coefficients(name) for name in ("EXPM1", "ATANH", "TAIL"))
LOG_2 = float.fromhex("0x1.62e42fefa39efp-1")


def poly(c: Sequence[float], x: float) -> float:
    total = c[-1]
    for coefficient in c[-2::-1]:
        total = total * x + coefficient
    return total


def bounded(x: float, end: float) -> float:
    return min(max(x, -end), end)


def exp_parts(x: float) -> tuple[float, float]:
    x = bounded(x, 128.0)
    k = round(x * float.fromhex("0x1.71547652b82fep+0"))
    r = x - k * LOG_2
    return poly(EXPM1, r) * r, math.ldexp(1.0, k)


def exp(x: float) -> float:
    q, scale = exp_parts(x)
    return (q + 1.0) * scale


def expm1(x: float) -> float:
    q, scale = exp_parts(x)
    return math.copysign(q * scale + (scale - 1.0), x)


def log(x: float) -> float:
    number: int = struct.unpack("<q", struct.pack("<d", x))[0]
    k = (number - 0x3FE6A09E667F3BCD) >> 52
    m = math.ldexp(x, -k)
    g = m - 1.0
    s = g / (m + 1.0)
    z = s * s
    return k * LOG_2 + (poly(ATANH, z) * z + 2.0) * s


def log1p(x: float) -> float:
    u = 1.0 + x
    return log(u) + (x - (u - 1.0)) / u


def sigmoid(x: float) -> float:
    return 1.0 / (exp(-x) + 1.0)


def softplus(x: float) -> float:
    return log1p(exp(-min(abs(x), 128.0))) + max(x, 0.0)


def silu(x: float) -> float:
    b = max(x, -128.0)
    return b / (exp(-b) + 1.0)


def gated(v: float, inner: float) -> float:
    r = v + 1.0
    return (v / r * inner + 1.0) / r


def silu_derivative(x: float) -> float:
    b = bounded(x, 128.0)
    return gated(exp(-b), b)


def tail(a: float) -> float:
    v = a + 6.0
    return poly(TAIL, (a - 6.0) / v) / v * exp(a * a * -0.5)


def gelu(x: float) -> float:
    p = tail(min(abs(x), 16.0))
    return (p if x < 0 else 1.0 - p) * max(x, -16.0)


def gelu_derivative(x: float) -> float:
    a = min(abs(x), 16.0)
    v = a + 6.0
    h = (poly(TAIL, (a - 6.0) / v) / v - a * float.fromhex("0x1.9884533d43651p-2")) * exp(a * a * -0.5)
    return h if x < 0 else 1.0 - h


LINEAR, CUBIC = float.fromhex("0x1.9884533d43651p+0"), float.fromhex("0x1.2444f2a4d8b4bp-4")


def gelu_tanh(x: float) -> float:
    b = max(x, -16.0)
    return b / (exp(-((b * b * CUBIC + LINEAR) * b)) + 1.0)


def gelu_tanh_derivative(x: float) -> float:
    b = bounded(x, 16.0)
    z = b * b
    inner = (z * float.fromhex("0x1.b6676bf7450f0p-3") + LINEAR) * b
    return gated(exp(-((z * CUBIC + LINEAR) * b)), inner)


def mish(x: float) -> float:
    e = exp(x)
    n = (e + 2.0) * e
    return n / (n + 2.0) * max(x, -128.0)


def mish_derivative(x: float) -> float:
    e = exp(x)
    n = (e + 2.0) * e
    r = n + 2.0
    return ((e + 1.0) * e * 4.0 / r * bounded(x, 128.0) + n) / r


def logit(x: float) -> float:
    if x in (0.0, 1.0):
        return INF if x else -INF
    return log(x / (1.0 - x)) if 0 < x < 1 else NAN


def of(function: Callable[[float], float], x: float) -> float:
    return NAN if math.isnan(x) else f(function(x))


FUNCTIONS: Mapping[str, Callable[[float], float]] = {
    "silu": silu,
    "silu_derivative": silu_derivative,
    "gelu_derivative": gelu_derivative,
    "gelu_tanh_derivative": gelu_tanh_derivative,
    "mish": mish,
    "mish_derivative": mish_derivative,
    "expm1": expm1,
    "logit": logit,
}


@given(st.sampled_from(sorted(FUNCTIONS)), st.lists(ANY, min_size=1, max_size=20))
@settings(max_examples=200)
def test_a_function_is_its_formula(name: str, values: list[float]) -> None:
    result = getattr(activation_functions, name)(torch.tensor(values))
    assert bits(result) == [bits_of(of(FUNCTIONS[name], x)) for x in values]


# Operators, element by element. The oracle takes what the operator takes, by the names of its schema.


def larger_than(x: float, bound: float, yes: float, no: float) -> float:
    return yes if x > bound else no


def threshold(self: float, threshold: float, value: float) -> float:
    return f(value) if self <= f(threshold) else self


def threshold_backward(grad_output: float, self: float, threshold: float) -> float:
    return 0.0 if self <= f(threshold) else grad_output


def leaky_relu(self: float, negative_slope: float) -> float:
    return larger_than(self, 0.0, self, f(self * f(negative_slope)))


def leaky_relu_backward(
    grad_output: float, self: float, negative_slope: float, self_is_result: bool
) -> float:
    return larger_than(self, 0.0, grad_output, f(grad_output * f(negative_slope)))


def elu(self: float, alpha: float, scale: float, input_scale: float) -> float:
    depth = f(f(alpha) * f(scale))
    if self < 0:
        return f(of(expm1, f(self * f(input_scale))) * depth)
    return f(self * f(scale))


def elu_backward(
    grad_output: float,
    alpha: float,
    scale: float,
    input_scale: float,
    is_result: bool,
    self_or_result: float,
) -> float:
    x, depth = self_or_result, f(f(alpha) * f(scale))
    if not x <= 0:
        return f(grad_output * f(scale))
    slope = f(x + depth) if is_result else f(of(exp, f(x * f(input_scale))) * depth)
    return f(grad_output * f(slope * f(input_scale)))


def softplus_steps(self: float, beta: float, threshold: float) -> float:
    scaled = f(self * f(beta))
    return self if scaled > f(threshold) else f(of(softplus, scaled) / f(beta))


def softplus_backward(grad_output: float, self: float, beta: float, threshold: float) -> float:
    scaled = f(self * f(beta))
    return grad_output if scaled > f(threshold) else f(grad_output * of(sigmoid, scaled))


def hardtanh(self: float, min_val: float, max_val: float) -> float:
    if self <= f(min_val):
        return f(min_val)
    return f(max_val) if self >= f(max_val) else self


def hardtanh_backward(grad_output: float, self: float, min_val: float, max_val: float) -> float:
    return 0.0 if self <= f(min_val) or self >= f(max_val) else grad_output


def hardsigmoid(self: float) -> float:
    return f(hardtanh(f(self + 3.0), 0.0, 6.0) / 6.0)


def hardsigmoid_backward(grad_output: float, self: float) -> float:
    return f(grad_output / 6.0) if -3 < self < 3 else 0.0


def hardswish_backward(grad_output: float, self: float) -> float:
    slope = f(f(self / 3.0) + 0.5)
    slope = 0.0 if self <= -3 else 1.0 if self >= 3 else slope
    return f(grad_output * slope)


def softshrink(self: float, lambd: float) -> float:
    if abs(self) <= f(lambd):
        return 0.0
    return f(self - f(lambd)) if self > 0 else f(self + f(lambd))


def hardshrink(own: float, self: float, lambd: float) -> float:
    return 0.0 if abs(self) <= f(lambd) else own


def shrink_backward(*, self: float, lambd: float, **gradient: float) -> float:
    (own,) = gradient.values()
    return hardshrink(own, self, lambd)


def logit_backward(grad_output: float, self: float, eps: float | None) -> float:
    low = 0.0 if eps is None else f(eps)
    if not low <= self <= f(1.0 - low):
        return NAN if eps is None else 0.0
    return f(quotient(grad_output, f(self * f(1.0 - self))))


def logit_steps(self: float, eps: float | None) -> float:
    if eps is not None and not math.isnan(self):
        self = min(max(self, f(eps)), f(1.0 - f(eps)))
    return of(logit, self)


def derived(derivative: Callable[[float], float]) -> Callable[..., float]:
    return lambda grad_output, self, **_: f(grad_output * of(derivative, self))


@dataclass(frozen=True)
class Case:
    """An operator with some of its options, and what it gives for numbers in place of tensors."""

    name: str
    oracle: Callable[..., float]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def function(self) -> Callable[..., Any]:
        return TABLE[f"aten.{self.name}.default"]

    @property
    def tensors(self) -> list[str]:
        return tensors_of(self.name)

    def __str__(self) -> str:
        return f"{self.name} {self.options}"


def tensors_of(name: str) -> list[str]:
    arguments = overload(f"aten.{name}.default")._schema.arguments
    return [a.name for a in arguments if str(a.type) == "Tensor" and a.name != "buffer"]


def each(name: str, oracle: Callable[..., float], *options: Mapping[str, Any]) -> list[Case]:
    return [Case(name, oracle, option) for option in options or ({},)]


SLOPES = [{"negative_slope": slope} for slope in (0.01, 0.2, 1, 0.0, -0.3)]
BENDS = [{"alpha": a, "scale": s, "input_scale": i} for a, s, i in ((1, 1, 1), (0.3, 1.7, 0.9), (2, 1.05, 3))]
BOUNDS = [{"min_val": low, "max_val": high} for low, high in ((-1, 1), (0.0, 6.0), (-0.1, 0.3))]
CURVES = [{"beta": b, "threshold": t} for b, t in ((1, 20), (0.7, 5), (3.0, 0.1))]
SHRINKS = [{"lambd": bound} for bound in (0.5, 0.0, 0.1, 2)]
ENDS: list[dict[str, Any]] = [{"eps": None}, {"eps": 0.1}, {"eps": 1e-6}]
CASES: list[Case] = [
    *each("relu", lambda self: threshold(self, 0.0, 0.0)),
    *each("threshold", threshold, {"threshold": 0.1, "value": 20}, {"threshold": 0, "value": -0.1}),
    *each("threshold_backward", threshold_backward, {"threshold": 0}, {"threshold": 0.1}),
    *each("leaky_relu", leaky_relu, *SLOPES),
    *each("leaky_relu_backward", leaky_relu_backward, *({**o, "self_is_result": False} for o in SLOPES)),
    *each("leaky_relu_backward", leaky_relu_backward, {**SLOPES[1], "self_is_result": True}),
    *each("elu", elu, *BENDS),
    *each("celu", lambda self, alpha: elu(self, alpha, 1.0, 1.0 / alpha), {"alpha": 1}, {"alpha": 0.3}),
    *each("elu_backward", elu_backward, *({**o, "is_result": r} for o in BENDS for r in (False, True))),
    *each("gelu", lambda self, approximate: of(gelu, self), {"approximate": "none"}),
    *each("gelu", lambda self, approximate: of(gelu_tanh, self), {"approximate": "tanh"}),
    *each("gelu_backward", derived(gelu_derivative), {"approximate": "none"}),
    *each("gelu_backward", derived(gelu_tanh_derivative), {"approximate": "tanh"}),
    *each("silu", lambda self: of(silu, self)),
    *each("silu_backward", derived(silu_derivative)),
    *each("mish", lambda self: of(mish, self)),
    *each("mish_backward", derived(mish_derivative)),
    *each("sigmoid_backward", lambda grad_output, output: f(f(grad_output * f(1.0 - output)) * output)),
    *each("tanh_backward", lambda grad_output, output: f(grad_output * f(1.0 - f(output * output)))),
    *each("softplus", softplus_steps, *CURVES),
    *each("softplus_backward", softplus_backward, *CURVES),
    *each("hardtanh", hardtanh, *BOUNDS),
    *each("hardtanh_backward", hardtanh_backward, *BOUNDS),
    *each("hardsigmoid", hardsigmoid),
    *each("hardsigmoid_backward", hardsigmoid_backward),
    *each("hardswish", lambda self: f(self * hardsigmoid(self))),
    *each("hardswish_backward", hardswish_backward),
    *each("log_sigmoid_forward", lambda self: -of(softplus, -self)),
    *each("log_sigmoid_backward", derived(lambda x: sigmoid(-x))),
    *each("softshrink", softshrink, *SHRINKS),
    *each("softshrink_backward", shrink_backward, *SHRINKS),
    *each("hardshrink", lambda self, lambd: hardshrink(self, self, lambd), *SHRINKS),
    *each("hardshrink_backward", shrink_backward, *SHRINKS),
    *each("_prelu_kernel", lambda self, weight: larger_than(self, 0.0, self, f(self * weight))),
    *each(
        "_prelu_kernel_backward",
        lambda grad_output, self, weight: larger_than(self, 0.0, grad_output, f(grad_output * weight)),
    ),
    *each(
        "native_dropout_backward",
        lambda grad_output, mask, scale: f(grad_output * (f(scale) if mask else 0.0)),
        {"scale": 1 / 0.9},
        {"scale": 1.0},
    ),
    *each("logit", logit_steps, *ENDS),
    *each("logit_backward", logit_backward, *ENDS),
]
APART = {"glu", "glu_backward"}


def arguments(case: Case, values: Mapping[str, Tensor]) -> dict[str, Any]:
    own = {name: value > 0 if name == "mask" else value for name, value in values.items()}
    if case.name == "log_sigmoid_backward":
        own["buffer"] = torch.exp(-values["self"].abs())
    return {**own, **case.options}


def first(result: Any) -> Tensor:
    chosen: Tensor = result if isinstance(result, Tensor) else result[0]
    return chosen


def test_every_operator_is_tested_here() -> None:
    plain = {case.name for case in CASES} | APART
    twins = {name for name in (f"{name}_" for name in plain) if f"aten.{name}.default" in TABLE}
    assert {f"aten.{name}.default" for name in plain | twins} == set(TABLE)
    assert len(twins) == 8


@given(st.sampled_from(CASES), st.data())
@settings(max_examples=600, deadline=None)
def test_an_operator_is_its_steps(case: Case, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.tuples(*[ANY for _ in case.tensors]), min_size=1, max_size=8))
    operands = dict(zip(case.tensors, map(torch.tensor, zip(*rows, strict=True)), strict=True))
    result = first(case.function(**arguments(case, operands)))
    expected = []
    for row in rows:
        own = dict(zip(case.tensors, row, strict=True))
        own = {name: x > 0 if name == "mask" else x for name, x in own.items()}
        expected.append(bits_of(case.oracle(**own, **case.options)))
    assert bits(result) == expected


def random_operands(case: Case, *shape: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    operands = {name: torch.randn(shape, generator=generator) * 3 for name in case.tensors}
    if "output" in operands or case.name.startswith("logit"):
        name = "output" if "output" in operands else "self"
        operands[name] = torch.rand(shape, generator=generator) * 0.98 + 0.01
    return operands


@pytest.mark.parametrize("case", CASES, ids=str)
def test_results_are_close_to_those_of_torch(case: Case) -> None:
    taken = arguments(case, random_operands(case, 40, 30))
    expected, result = overload(f"aten.{case.name}.default")(**taken), case.function(**taken)
    if isinstance(expected, Tensor):
        expected, result = (expected,), (result,)
    assert len(result) == len(expected)
    count = 1 if case.name == "log_sigmoid_forward" else len(expected)
    for own, other in zip(result[:count], expected[:count], strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_neither_layout_nor_blocks_change_a_bit_and_results_lie_as_those_of_torch(case: Case) -> None:
    operands = random_operands(case, 2, 3, 5, 4)
    whole = first(case.function(**arguments(case, operands)))
    assert whole.is_contiguous()
    layouts: list[Callable[[Tensor], Tensor]] = [
        lambda x: x.to(memory_format=torch.channels_last),
        lambda x: x.mT.contiguous().mT,
    ]
    for layout in layouts:
        moved = arguments(case, {name: layout(x) for name, x in operands.items()})
        result = first(case.function(**moved))
        assert bits(result) == bits(whole)
        assert result.stride() == first(overload(f"aten.{case.name}.default")(**moved)).stride()
    repeated = {name: x[:, :1].expand(-1, 3, -1, -1) for name, x in operands.items()}
    apart = {name: x.clone(memory_format=torch.contiguous_format) for name, x in repeated.items()}
    assert bits(first(case.function(**arguments(case, repeated)))) == bits(
        first(case.function(**arguments(case, apart)))
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_elements_and_other_types(case: Case) -> None:
    for shape in ((0, 3), ()):
        taken = arguments(case, random_operands(case, *shape))
        assert first(case.function(**taken)).shape == shape
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        taken = arguments(case, {n: x.to(dtype) for n, x in random_operands(case, 2).items()})
        with pytest.raises(ReplayError, match=str(dtype).removeprefix("torch.")):
            case.function(**taken)


@pytest.mark.parametrize("case", [c for c in CASES if f"aten.{c.name}_.default" in TABLE], ids=str)
def test_what_writes_in_place_writes_the_same(case: Case) -> None:
    operands = random_operands(case, 7, 5)
    expected = case.function(**arguments(case, operands))
    own = torch.zeros(5, 7).t().copy_(operands["self"])
    result = TABLE[f"aten.{case.name}_.default"](own, **case.options)
    assert result is own
    assert bits(own) == bits(expected)


@pytest.mark.parametrize("dim", [-1, 0, 1])
def test_glu_is_its_steps(dim: int) -> None:
    x = torch.randn(4, 6, 2, generator=torch.Generator().manual_seed(1)) * 9
    x.view(-1)[: len(CORNERS)] = torch.tensor(CORNERS)
    value, gate = x.chunk(2, dim)
    gradient = torch.flip(value, (0,))
    triples = zip(*(t.reshape(-1).tolist() for t in (value, gate, gradient)), strict=True)
    result, to_value, to_gate = [], [], []
    for v, g, d in triples:
        s = of(sigmoid, g)
        result.append(bits_of(f(v * s)))
        to_value.append(bits_of(f(d * s)))
        to_gate.append(bits_of(f(f(f(d * s) * f(1.0 - s)) * v)))
    own = TABLE["aten.glu.default"](x, dim)
    backward = TABLE["aten.glu_backward.default"](gradient, x, dim)
    assert bits(own) == result
    assert [bits(half) for half in backward.chunk(2, dim)] == [to_value, to_gate]


def test_glu_is_close_to_that_of_torch() -> None:
    x = torch.randn(4, 6, 2)
    for dim in (-1, 0, 1):
        expected = overload("aten.glu.default")(x, dim)
        torch.testing.assert_close(TABLE["aten.glu.default"](x, dim), expected)
        gradient = torch.randn_like(expected)
        own = TABLE["aten.glu_backward.default"](gradient, x, dim)
        torch.testing.assert_close(own, overload("aten.glu_backward.default")(gradient, x, dim))
    with pytest.raises(ReplayError, match="halved"):
        TABLE["aten.glu.default"](torch.ones(3), 0)
    assert TABLE["aten.glu.default"](torch.ones(0, 4), 0).shape == (0, 4)


def test_the_gradient_of_prelus_weight_is_a_product_or_zero() -> None:
    x, gradient = torch.tensor([-2.0, -0.0, 3.0, NAN, -INF]), torch.tensor([0.5, 2.0, INF, 1.0, 0.0])
    _, own = TABLE["aten._prelu_kernel_backward.default"](gradient, x, torch.tensor([0.25]))
    assert bits(own) == [bits_of(v) for v in (-1.0, -0.0, 0.0, NAN, NAN)]


def test_what_torch_refuses_is_refused() -> None:
    x = torch.ones(2)
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("hardtanh", (x, 2.0, 1.0)),
        ("softshrink", (x, -1.0)),
        ("celu", (x, 0.0)),
        ("elu_backward", (x, -1.0, 1, 1, True, x)),
        ("leaky_relu_backward", (x, x, -0.1, True)),
    ]
    for name, taken in calls:
        with pytest.raises(ReplayError):
            TABLE[f"aten.{name}.default"](*taken)
    for name, taken in (("gelu", (x,)), ("gelu_backward", (x, x))):
        with pytest.raises(ReplayError, match="approximate"):
            TABLE[f"aten.{name}.default"](*taken, approximate="some")


def logistic(x: mpmath.mpf) -> mpmath.mpf:
    return 1 / (1 + CONTEXT.exp(-x))


def tanh_gelu(x: mpmath.mpf) -> mpmath.mpf:
    return x * logistic(2 * CONTEXT.sqrt(2 / CONTEXT.pi) * (x + CONTEXT.mpf(44715) / 10**6 * x**3))


EXACT: Mapping[str, Callable[[mpmath.mpf], mpmath.mpf]] = {
    "silu": lambda x: x * logistic(x),
    "gelu": lambda x: x * CONTEXT.ncdf(x),
    "gelu_tanh": tanh_gelu,
    "mish": lambda x: x * CONTEXT.tanh(CONTEXT.log1p(CONTEXT.exp(x))),
}


@pytest.mark.parametrize("name", sorted(EXACT))
def test_derivatives_are_accurate(name: str) -> None:
    zero = float(CONTEXT.findroot(lambda x: CONTEXT.diff(EXACT[name], x), -1.0))
    next_to_it = torch.tensor(zero).view(torch.int32) + torch.arange(-20, 21, dtype=torch.int32)
    points = torch.cat([torch.linspace(-9.0, 9.0, 301), next_to_it.view(torch.float32)])
    results = getattr(activation_functions, f"{name}_derivative")(points)
    for x, own in zip(points.tolist(), results.tolist(), strict=True):
        exact = CONTEXT.diff(EXACT[name], CONTEXT.mpf(x))
        place = CONTEXT.mpf(2) ** max(CONTEXT.frexp(exact)[1] - 24, -149)
        assert abs(own - exact) <= CONTEXT.mpf("0.500001") * place + CONTEXT.mpf(2) ** -50
