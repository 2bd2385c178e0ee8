from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact import functions
from gradseal.program.exact.losses import TABLE
from layer_oracle import Float, bits, by, compare, floats, log, mean, of, tensors, total

INF, NAN = math.inf, math.nan
ONE, HALF, TWO = Float(1.0), Float(0.5), Float(2.0)


def operator(name: str) -> Callable[..., Any]:
    return TABLE[f"aten.{name}.default"]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def reduced(values: list[Float], reduction: int) -> list[Float]:
    return [values, [mean(values)], [total(values)]][reduction]


def positive(x: Float) -> Float:
    return x if x.value > 0 or math.isnan(x.value) else Float(0.0)


def at_least(x: Float, bound: float) -> Float:
    return of(bound) if x.value < bound else x


def smooth_l1(x: Float, t: Float, beta: float) -> Float:
    z, b = Float(abs((x - t).value)), of(beta)
    return HALF * z * z / b if z.value < b.value else z - HALF * b


def smooth_l1_slope(x: Float, t: Float, beta: float) -> Float:
    d, b = x - t, of(beta)
    return -ONE if d.value <= -b.value else ONE if d.value >= b.value else d / b


def huber(x: Float, t: Float, delta: float) -> Float:
    z, b = Float(abs((x - t).value)), of(delta)
    return HALF * z * z if z.value < b.value else b * (z - HALF * b)


def huber_slope(x: Float, t: Float, delta: float) -> Float:
    d, b = x - t, of(delta)
    return -b if d.value < -b.value else b if d.value > b.value else d


def soft_margin(x: Float, t: Float) -> Float:
    return by(functions.softplus, -(x * t))


def soft_margin_slope(x: Float, t: Float) -> Float:
    return -t * by(functions.sigmoid, -(x * t))


def cross_entropy(x: Float, t: Float) -> Float:
    missed = at_least(by(functions.log1p, -x), -100.0)
    return (t - ONE) * missed - t * at_least(log(x), -100.0)


def cross_entropy_slope(x: Float, t: Float) -> Float:
    return (x - t) / at_least((ONE - x) * x, of(1e-12).value)


UNIT = st.floats(width=32, min_value=0.0, max_value=1.0) | st.sampled_from([0.0, 1.0, 2.0**-149])
Each = Callable[..., Float]
# Name, loss, slope, options, elements.
LOSSES: list[tuple[str, Each, Each, tuple[float, ...], st.SearchStrategy[float] | None]] = [
    ("mse_loss", lambda x, t: (x - t) * (x - t), lambda x, t: x - t, (), None),
    *(("smooth_l1_loss", smooth_l1, smooth_l1_slope, (b,), None) for b in (1.0, 0.3, 0.0)),
    *(("huber_loss", huber, huber_slope, (d,), None) for d in (1.0, 0.3)),
    ("soft_margin_loss", soft_margin, soft_margin_slope, (), None),
    ("binary_cross_entropy", cross_entropy, cross_entropy_slope, (), UNIT),
]


@pytest.mark.parametrize("number", range(len(LOSSES)))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_losses_and_their_gradients_are_their_formulas(number: int, data: st.DataObject) -> None:
    name, loss, slope, options, elements = LOSSES[number]
    count, reduction = data.draw(st.tuples(st.integers(1, 4), st.integers(0, 2)))
    x, t = (data.draw(tensors(count, elements=elements)) for _ in range(2))
    g = data.draw(tensors(count) if reduction == 0 else tensors())
    weight = data.draw(st.none() | tensors(count)) if elements is not None else None
    given_weight = (weight,) if elements is not None else ()
    own = operator(name)(x, t, *given_weight, reduction, *options)
    gradient = operator(f"{name}_backward")(g, x, t, *given_weight, reduction, *options)
    pairs = list(zip(floats(x), floats(t), strict=True))
    weights = [ONE] * count if weight is None else floats(weight)
    losses = [loss(*p, *options) * w for p, w in zip(pairs, weights, strict=True)]
    assert bits(own) == bits(reduced(losses, reduction))
    grads = floats(g.expand(count))
    if name == "mse_loss":
        grads = [a * (TWO / of(count) if reduction == 1 else TWO) for a in grads]
    elif reduction == 1:
        grads = [a / of(count) for a in grads]
    expected = [slope(*p, *options) * a * w for p, a, w in zip(pairs, grads, weights, strict=True)]
    assert bits(gradient) == bits(expected)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_cross_entropy_of_logits_is_its_formula(data: st.DataObject) -> None:
    count, reduction = data.draw(st.tuples(st.integers(1, 4), st.integers(0, 2)))
    x, t = data.draw(tensors(count)), data.draw(tensors(count, elements=UNIT) | tensors(count))
    weight, positives = (data.draw(st.none() | tensors(count)) for _ in range(2))
    own = operator("binary_cross_entropy_with_logits")(x, t, weight, positives, reduction)
    losses = []
    for i, (a, b) in enumerate(zip(floats(x), floats(t), strict=True)):
        common = by(functions.softplus, Float(-abs(a.value)))
        if positives is None:
            loss = positive(a) - b * a + common
        else:
            missed = (positive(-a) + common) * (b * floats(positives)[i])
            loss = (positive(a) + common) * (ONE - b) + missed
        losses.append(loss if weight is None else loss * floats(weight)[i])
    assert bits(own) == bits(reduced(losses, reduction))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_likelihood_and_its_gradient_are_their_formulas(data: st.DataObject) -> None:
    n, classes, places = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2)))
    reduction = data.draw(st.integers(0, 2))
    x = data.draw(tensors(n, classes, places))
    drawn = st.lists(st.sampled_from([*range(classes), -7]), min_size=n * places, max_size=n * places)
    t = torch.tensor(data.draw(drawn)).reshape(n, places)
    weight = data.draw(st.none() | tensors(classes))
    g = data.draw(tensors(n, places) if reduction == 0 else tensors())
    own, whole = operator("nll_loss2d_forward")(x[..., None], t[..., None], weight, reduction, -7)
    losses, counting = [], []
    for i, j in itertools.product(range(n), range(places)):
        target = int(t[i, j])
        w = ONE if weight is None or target < 0 else floats(weight)[target]
        losses.append(Float(0.0) if target < 0 else -floats(x[i, :, j])[target] * w)
        counting.append(Float(0.0) if target < 0 else w)
    expected = [losses, [total(losses) / total(counting)], [total(losses)]][reduction]
    assert bits(own) == bits(expected)
    assert bits(whole) == bits([total(counting) if reduction else Float(0.0)])
    back = (x[..., None], t[..., None], weight, reduction, -7, whole)
    gradient = operator("nll_loss2d_backward")(g if reduction else g[..., None], *back)
    grads = floats(g.expand(n, places))
    for number, (i, j) in enumerate(itertools.product(range(n), range(places))):
        slope = -(grads[number] / floats(whole)[0] if reduction == 1 else grads[number])
        column = [Float(0.0)] * classes
        target = int(t[i, j])
        if target >= 0:
            column[target] = slope if weight is None else slope * floats(weight)[target]
        assert bits(gradient[i, :, j, 0]) == bits(column)


X, T, G = randn(6, 5, 4), randn(6, 5, 4, seed=1), randn(6, 5, 4, seed=2)
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": lambda x: x,
    "turned": lambda x: x.transpose(0, 2).contiguous().transpose(0, 2),
    "apart": lambda x: torch.stack([x, x], -1)[..., 0],
    "expanded": lambda x: x[:1].expand(x.shape),
    "empty": lambda x: x[:0],
    "one number": lambda x: x[0, 0, 0],
    "wide": lambda x: x * 1e4,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("reduction", [0, 1, 2])
def test_results_are_as_close_as_those_of_aten(layout: str, reduction: int) -> None:
    x, t = LAYOUTS[layout](X), LAYOUTS[layout](T)
    g = LAYOUTS[layout](G) if reduction == 0 else torch.tensor(1.7)
    seen = set()

    def check(name: str, *args: Any) -> None:
        name = f"aten.{name}.default"
        compare(TABLE[name], name, args)
        seen.add(name)

    check("mse_loss", x, t, reduction)
    check("mse_loss_backward", g, x, t, reduction)
    for bound in (1.0, 0.1, 3):
        for kind in ("smooth_l1_loss", "huber_loss"):
            check(kind, x, t, reduction, bound)
            check(f"{kind}_backward", g, x, t, reduction, bound)
    check("smooth_l1_loss", x, t, reduction, 0.0)
    check("smooth_l1_loss_backward", g, x, t, reduction, 0.0)
    sign, p, u = t.sign(), x.sigmoid(), t.sigmoid()
    if layout != "wide":  # where ATen's exponentials overflow, and this does not
        check("soft_margin_loss", x, sign, reduction)
        check("soft_margin_loss_backward", g, x, sign, reduction)
    row = randn(4, seed=3).abs()
    for w in (None, row if x.dim() else row[0], u):
        check("binary_cross_entropy", p, u, w, reduction)
        check("binary_cross_entropy_backward", g, p, u, w, reduction)
        for positives in (None, row if x.dim() else row[0]):
            check("binary_cross_entropy_with_logits", x, u, w, positives, reduction)
    assert seen == {name for name in TABLE if "nll" not in name} or layout == "wide"


@pytest.mark.parametrize("reduction", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_likelihoods_are_as_close_as_those_of_aten(reduction: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = randn(5, seed=3).abs()
    shapes: list[tuple[int, ...]] = [(5,), (7, 5), (0, 5), (2, 5, 3, 4), (0, 5, 3, 4)]
    seen = set()
    for shape, ignored, w in itertools.product(shapes, (-100, 2), (None, weight)):
        if dtype is torch.uint8 and len(shape) == 4:
            continue  # ATen's operator for images takes int64 only
        x = randn(*shape).log_softmax(0 if len(shape) == 1 else 1)
        t = torch.randint(0, 5, (shape[:1] + shape[2:]) if len(shape) > 1 else (), generator=generator).to(
            dtype
        )
        name = f"aten.nll_loss{'2d' if len(shape) == 4 else ''}"
        compare(TABLE[f"{name}_forward.default"], f"{name}_forward.default", (x, t, w, reduction, ignored))
        g = randn(*t.shape, seed=4) if reduction == 0 else torch.tensor(1.3)
        args = (g, x, t, w, reduction, ignored, torch.tensor(4.2))
        compare(TABLE[f"{name}_backward.default"], f"{name}_backward.default", args)
        seen |= {f"{name}_forward.default", f"{name}_backward.default"}
    assert dtype is torch.uint8 or seen == {name for name in TABLE if "nll" in name}


def test_all_ignored_is_as_in_aten() -> None:
    x, t = randn(3, 5), torch.full((3,), -1)
    for reduction in range(3):
        compare(operator("nll_loss_forward"), "aten.nll_loss_forward.default", (x, t, None, reduction, -1))
        g = randn(3) if reduction == 0 else torch.tensor(1.0)
        args = (g, x, t, None, reduction, -1, torch.tensor(0.0))
        compare(operator("nll_loss_backward"), "aten.nll_loss_backward.default", args)


def test_arguments_that_broadcast() -> None:
    for name in ("mse_loss", "smooth_l1_loss", "huber_loss"):
        compare(operator(name), f"aten.{name}.default", (randn(3, 1), randn(4, seed=1), 0))


def test_no_weight_is_written_to() -> None:
    weight = torch.ones(5)
    operator("nll_loss_forward")(randn(5), torch.tensor(2), weight, 2, 2)
    assert torch.equal(weight, torch.ones(5))


def test_a_confident_logit_loses_no_digits() -> None:
    x, t = torch.tensor([-30.0, 30.0, -50.0]), torch.tensor([0.0, 1.0, 0.0])
    for positives in (None, torch.tensor(1.0)):
        own = operator("binary_cross_entropy_with_logits")(x, t, None, positives, 0)
        assert (own.double() / torch.exp(-x.double().abs()) - 1.0).abs().max() < 1e-6


def test_gradients_are_those_of_autograd_in_float64() -> None:
    functional = torch.nn.functional
    p, u = X.sigmoid(), T.sigmoid()
    cases: list[tuple[str, Callable[..., Tensor], Tensor, Tensor, tuple[Any, ...]]] = [
        ("mse_loss", functional.mse_loss, X, T, ()),
        ("smooth_l1_loss", lambda x, t: functional.smooth_l1_loss(x, t, beta=0.7), X, T, (0.7,)),
        ("huber_loss", lambda x, t: functional.huber_loss(x, t, delta=0.7), X, T, (0.7,)),
        ("soft_margin_loss", functional.soft_margin_loss, X, T.sign(), ()),
        ("binary_cross_entropy", functional.binary_cross_entropy, p, u, ()),
    ]
    for name, true, x, t, options in cases:
        at = x.double().requires_grad_()
        (expected,) = torch.autograd.grad(true(at, t.double()), at)
        given_weight = (None,) if name == "binary_cross_entropy" else ()
        own = operator(f"{name}_backward")(torch.tensor(1.0), x, t, *given_weight, 1, *options)
        assert (own - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_what_does_not_fit_is_refused() -> None:
    x, t, classes = randn(3, 5), randn(3, 5, seed=1), torch.tensor([0, 1, 2])
    nll, back = operator("nll_loss_forward"), operator("nll_loss_backward")
    calls: list[Callable[[], Any]] = [
        lambda: operator("mse_loss")(x.half(), t),
        lambda: operator("mse_loss")(x, t.double()),
        lambda: operator("mse_loss")(x, t, 3),
        lambda: operator("mse_loss_backward")(x[0], x, t, 0),
        lambda: operator("mse_loss_backward")(x, x, t[0], 0),
        lambda: operator("smooth_l1_loss")(x, t, 1, -1.0),
        lambda: operator("smooth_l1_loss")(x, t, 1, NAN),
        lambda: operator("huber_loss")(x, t, 1, 0.0),
        lambda: operator("huber_loss_backward")(x, x, t, 0, 1e-60),
        lambda: operator("binary_cross_entropy")(x, t),
        lambda: operator("binary_cross_entropy")(x * NAN, t),
        lambda: operator("binary_cross_entropy_with_logits")(x, t[0]),
        lambda: operator("binary_cross_entropy_with_logits")(x, t, t.double()),
        lambda: operator("soft_margin_loss")(x, t[0]),
        lambda: nll(x, classes.int(), None, 1, -100),
        lambda: nll(x, classes[:2], None, 1, -100),
        lambda: nll(x, classes + 3, None, 1, -100),
        lambda: nll(x, classes - 1, None, 1, -100),
        lambda: nll(x, classes, torch.ones(4), 1, -100),
        lambda: nll(x, classes, torch.ones(5).double(), 1, -100),
        lambda: nll(x.double(), classes, None, 1, -100),
        lambda: back(x, x, classes, None, 0, -100, x[0, 0]),
        lambda: back(x[0, 0], x, classes, None, 1, -100, x[0, 0].double()),
    ]
    for call in calls:
        with pytest.raises(ReplayError):
            call()
