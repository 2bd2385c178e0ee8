from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact.softmax import TABLE
from layer_oracle import Float, bits, compare, exp, floats, largest, log, tensors, total

SOFTMAX = TABLE["aten._softmax.default"]
SAFE = TABLE["aten._safe_softmax.default"]
LOG_SOFTMAX = TABLE["aten._log_softmax.default"]
SOFTMAX_BACKWARD = TABLE["aten._softmax_backward_data.default"]
LOG_SOFTMAX_BACKWARD = TABLE["aten._log_softmax_backward_data.default"]
LOGSUMEXP = TABLE["aten.logsumexp.default"]
INF, NAN = math.inf, math.nan


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3.0


def shares(row: list[Float]) -> tuple[list[Float], list[Float]]:
    """And their logarithms."""
    shifted = [x - largest(row) for x in row]
    powers = [exp(d) for d in shifted]
    whole = total(powers)
    return [p / whole for p in powers], [d - log(whole) for d in shifted]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_softmax_and_its_gradients_are_their_formulas(data: st.DataObject) -> None:
    rows, width = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 4)))
    x, g, y = (data.draw(tensors(rows, width)) for _ in range(3))
    results = (SOFTMAX(x, 1, False), LOG_SOFTMAX(x, -1, False), SAFE(x, 1))
    turned = (SOFTMAX(x.t(), 0, False), LOG_SOFTMAX(x.t(), 0, False), SAFE(x.t(), -2))
    gradient = SOFTMAX_BACKWARD(g, y, 1, torch.float32)
    log_gradient = LOG_SOFTMAX_BACKWARD(g, y, 1, torch.float32)
    for result, other in zip(results, turned, strict=True):
        assert bits(result) == bits(other.t())
    for i in range(rows):
        row, grads, outputs = floats(x[i]), floats(g[i]), floats(y[i])
        plain, logarithms = shares(row)
        blind = all(v.value == -INF for v in row)
        safe = [Float(0.0)] * width if blind else plain
        for result, expected in zip(results, (plain, logarithms, safe), strict=True):
            assert bits(result[i]) == bits(expected)
        pairs = list(zip(grads, outputs, strict=True))
        middle = total(a * p for a, p in pairs)
        assert bits(gradient[i]) == bits([(a - middle) * p for a, p in pairs])
        whole = total(grads)
        assert bits(log_gradient[i]) == bits([a - exp(p) * whole for a, p in pairs])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_logsumexp_is_its_formula(data: st.DataObject) -> None:
    x = data.draw(tensors(2, 3))
    both, rows = LOGSUMEXP(x, [0, 1]), LOGSUMEXP(x, 1, True)
    for result, values in ((both, x), (rows[0], x[0]), (rows[1], x[1])):
        top = largest(floats(values))
        offset = Float(0.0) if math.isinf(top.value) else top
        assert bits(result) == bits([log(total(exp(v - offset) for v in floats(values))) + offset])


@pytest.mark.parametrize(
    ("row", "plain", "safe", "logarithms", "logsumexp"),
    [
        ([0.0], [1.0], [1.0], [0.0], 0.0),
        ([-0.0], [1.0], [1.0], [0.0], 0.0),
        ([0.0, -0.0], [0.5, 0.5], [0.5, 0.5], [-math.log(2)] * 2, math.log(2)),
        ([3e38, -3e38], [1.0, 0.0], [1.0, 0.0], [0.0, -INF], 3e38),
        ([1.0, -INF], [1.0, 0.0], [1.0, 0.0], [0.0, -INF], 1.0),
        ([-INF, -INF], [NAN, NAN], [0.0, 0.0], [NAN, NAN], -INF),
        ([INF, 1.0], [NAN, NAN], [NAN, NAN], [NAN, NAN], INF),
        ([INF, -INF], [NAN, NAN], [NAN, NAN], [NAN, NAN], INF),
        ([NAN, 1.0], [NAN, NAN], [NAN, NAN], [NAN, NAN], NAN),
        ([NAN, -INF], [NAN, NAN], [NAN, NAN], [NAN, NAN], NAN),
        ([NAN, INF], [NAN, NAN], [NAN, NAN], [NAN, NAN], NAN),
    ],
)
def test_corners(
    row: list[float], plain: list[float], safe: list[float], logarithms: list[float], logsumexp: float
) -> None:
    x = torch.tensor(row)
    for own, expected in (
        (SOFTMAX(x, 0, False), plain),
        (SAFE(x, 0), safe),
        (LOG_SOFTMAX(x, 0, False), logarithms),
        (LOGSUMEXP(x, [0]), [logsumexp]),
    ):
        assert bits(own) == bits(torch.tensor(expected))


X, G = randn(4, 6, 5, 3), randn(4, 6, 5, 3, seed=1)
INPUTS = {
    "plain": X,
    "channels last": X.contiguous(memory_format=torch.channels_last),
    "turned": randn(5, 4, 3, 6).permute(1, 3, 0, 2),
    "sliced": randn(4, 12, 10, 3)[:, ::2, ::2],
    "expanded": X[:1].expand(4, -1, -1, -1),
    "with infinities": X.masked_fill(G > 3.0, -INF).index_fill(0, torch.tensor([1]), -INF),
    "far apart": X * 40.0,
    "long": randn(3, 5000),
    "one number": torch.tensor(2.5),
    "no row": torch.empty(0, 3),
    "empty rows": torch.empty(3, 0),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_results_are_as_close_as_those_of_aten(kind: str) -> None:
    x = INPUTS[kind]
    grad = torch.empty_like(x).copy_(randn(*x.shape, seed=2))
    seen = set()
    for dim in range(-max(x.dim(), 1), max(x.dim(), 1)):
        logarithms = torch.log_softmax(x, dim)
        for name, args in (
            ("_softmax", (x, dim, False)),
            ("_safe_softmax", (x, dim)),
            ("_safe_softmax", (x, dim, torch.float32)),
            ("_log_softmax", (x, dim, False)),
            ("_softmax_backward_data", (grad, torch.softmax(x, dim), dim, torch.float32)),
            ("_log_softmax_backward_data", (grad, logarithms, dim, torch.float32)),
            ("logsumexp", (x, [dim])),
            ("logsumexp", (x, [dim], True)),
        ):
            compare(TABLE[f"aten.{name}.default"], f"aten.{name}.default", args)
            seen.add(f"aten.{name}.default")
    if x.dim() == 4:
        compare(LOGSUMEXP, "aten.logsumexp.default", (x, [0, -1]))
        compare(LOGSUMEXP, "aten.logsumexp.default", (x, [3, 1, 2, 0], True))
    assert seen == set(TABLE)


def test_gradients_are_those_of_autograd_in_float64() -> None:
    for dim in (0, 1):
        at = randn(40, 30).double().requires_grad_()
        x, g = at.detach().float(), randn(40, 30, seed=1)
        for forward, backward, true in (
            (SOFTMAX, SOFTMAX_BACKWARD, torch.softmax),
            (LOG_SOFTMAX, LOG_SOFTMAX_BACKWARD, torch.log_softmax),
        ):
            own = backward(g, forward(x, dim, False), dim, torch.float32)
            (expected,) = torch.autograd.grad(true(at, dim), at, g.double())
            assert (own - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_neither_threads_nor_layout_change_a_bit() -> None:
    x, g = randn(60, 700), randn(60, 700, seed=1)

    def everything(a: Tensor, b: Tensor) -> list[int]:
        plain, logarithms = SOFTMAX(a, 1, False), LOG_SOFTMAX(a, 1, False)
        gradients = (
            SOFTMAX_BACKWARD(b, plain, 1, torch.float32),
            LOG_SOFTMAX_BACKWARD(b, logarithms, 1, torch.float32),
        )
        return [p for t in (plain, logarithms, *gradients, LOGSUMEXP(a, [1])) for p in bits(t)]

    plain = everything(x, g)
    assert everything(x.t().contiguous().t(), torch.stack([g, x], -1)[..., 0]) == plain
    torch.set_num_threads(2)
    assert everything(x, g) == plain


def test_what_does_not_fit_is_refused() -> None:
    half, x = X.half(), X
    calls: list[Callable[[], Any]] = [
        lambda: SOFTMAX(half, 1, False),
        lambda: SOFTMAX(half, 1, True),
        lambda: SOFTMAX(x, 1, True),
        lambda: LOG_SOFTMAX(x.double(), 1, False),
        lambda: SAFE(x, 1, torch.float64),
        lambda: SOFTMAX_BACKWARD(x, x, 1, torch.float16),
        lambda: SOFTMAX_BACKWARD(x, half, 1, torch.float32),
        lambda: LOG_SOFTMAX_BACKWARD(x, half, 1, torch.float32),
        lambda: LOGSUMEXP(half, [1]),
        lambda: LOGSUMEXP(x, []),
    ]
    for call in calls:
        with pytest.raises(ReplayError):
            call()
