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
from gradseal.program.exact.attention import TABLE
from layer_oracle import Float, bits, compare, exp, floats, largest, log, of, tensors, times, total

FORWARD_NAME = "aten._scaled_dot_product_flash_attention_for_cpu.default"
BACKWARD_NAME = "aten._scaled_dot_product_flash_attention_for_cpu_backward.default"
FORWARD, BACKWARD = TABLE[FORWARD_NAME], TABLE[BACKWARD_NAME]
INF = math.inf

Matrix = list[list[Float]]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def matrix(x: Tensor) -> Matrix:
    return [floats(row) for row in x]


def transposed(a: Matrix) -> Matrix:
    return [list(column) for column in zip(*a, strict=True)]


def flat(a: Matrix) -> list[int]:
    return bits([x for row in a for x in row])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_attention_and_its_gradients_are_their_formulas(data: st.DataObject) -> None:
    length, keys, width = data.draw(st.tuples(*[st.integers(1, 3)] * 3))
    q, k, v, g = (data.draw(tensors(1, 1, n, width)) for n in (length, keys, keys, length))
    scale = data.draw(st.sampled_from([None, 0.3]))
    causal = data.draw(st.booleans())
    mask = data.draw(st.none() | tensors(length, keys, elements=st.sampled_from([0.0, -INF, 1.5, -1e30])))
    factor = of(1.0 / math.sqrt(width) if scale is None else scale)
    out, logarithms = FORWARD(q, k, v, 0.0, causal, attn_mask=mask, scale=scale)
    own = BACKWARD(g, q, k, v, out, logarithms, 0.0, causal, attn_mask=mask, scale=scale)

    query, key, value, grad = (matrix(t[0, 0]) for t in (q, k, v, g))
    scaled = [[x * factor for x in row] for row in query]
    scores = times(scaled, transposed(key))
    if mask is not None:
        scores = [
            [s + m for s, m in zip(*rows, strict=True)] for rows in zip(scores, matrix(mask), strict=True)
        ]
    if causal:
        scores = [[s if j <= i else Float(-INF) for j, s in enumerate(row)] for i, row in enumerate(scores)]
    weights, expected = [], []
    for row in scores:
        top = largest(row)
        powers = [exp(s - top) for s in row]
        whole = total(powers)
        blind = top.value == -INF
        weights.append([Float(0.0) if blind else p / whole for p in powers])
        expected.append(Float(0.0) if blind else log(whole) + top)
    assert bits(logarithms) == bits(expected)
    assert bits(out) == flat(times(weights, value))
    assert bits(own[2]) == flat(times(transposed(weights), grad))
    slopes = []
    for row, shares in zip(times(grad, transposed(value)), weights, strict=True):
        middle = total(a * p for a, p in zip(row, shares, strict=True))
        slopes.append([(a - middle) * p for a, p in zip(row, shares, strict=True)])
    assert bits(own[0]) == flat([[x * factor for x in row] for row in times(slopes, key)])
    assert bits(own[1]) == flat(times(transposed(slopes), scaled))


Q, K, V, G = (
    randn(2, 3, 7, 8),
    randn(2, 3, 5, 8, seed=1),
    randn(2, 3, 5, 8, seed=2),
    randn(2, 3, 7, 8, seed=3),
)
BLIND = (
    randn(7, 5, seed=4).masked_fill(randn(7, 5, seed=5) > 0.0, -INF).index_fill(0, torch.tensor([2]), -INF)
)
MASKS = {
    "none": None,
    "of one head": randn(7, 5, seed=4),
    "of all": randn(2, 3, 7, 5, seed=4),
    "broadcast": randn(2, 1, 1, 5, seed=4),
    "a row": randn(1, 5, seed=4),
    "with infinities": BLIND,
}


def _turned(x: Tensor) -> Tensor:
    return x.transpose(1, 2).contiguous().transpose(1, 2)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": lambda x: x,
    "heads last": _turned,
    "apart": lambda x: torch.cat([x, x], -1)[..., : x.shape[-1]],
    "expanded": lambda x: x[:, :1].expand(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("scale", [None, 0.25])
def test_results_are_as_close_as_those_of_aten(
    layout: str, mask: str, causal: bool, scale: float | None
) -> None:
    q, k, v, g = (LAYOUTS[layout](x) for x in (Q, K, V, G))
    options = {"attn_mask": MASKS[mask], "scale": scale}
    compare(FORWARD, FORWARD_NAME, (q, k, v, 0.0, causal), **options)
    out, logarithms = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, 0.0, causal, **options
    )
    compare(BACKWARD, BACKWARD_NAME, (g, q, k, v, out, logarithms, 0.0, causal), **options)


def test_gradients_are_those_of_autograd_in_float64() -> None:
    points = [x.double().requires_grad_() for x in (Q, K, V)]
    mask = MASKS["of all"]
    assert mask is not None
    scores = points[0] @ points[1].transpose(2, 3) / math.sqrt(8) + mask.double()
    true = torch.softmax(scores, -1) @ points[2]
    own = FORWARD(Q, K, V, attn_mask=mask)
    assert (own[0] - true).abs().max() <= 1e-6
    gradients = BACKWARD(G, Q, K, V, *own, 0.0, False, attn_mask=mask)
    for one, expected in zip(gradients, torch.autograd.grad(true, points, G.double()), strict=True):
        assert (one - expected).abs().max() <= 2e-6 * expected.abs().max()


def test_neither_threads_nor_layout_change_a_bit() -> None:
    q, k, v, g = (randn(2, 4, 33, 16, seed=s) for s in range(4))

    def everything(turn: Callable[[Tensor], Tensor]) -> list[int]:
        own = [turn(x) for x in (q, k, v, g)]
        forward = FORWARD(*own[:3], 0.0, True)
        backward = BACKWARD(own[3], *own[:3], *forward, 0.0, True)
        return [p for t in (*forward, *backward) for p in bits(t)]

    plain = everything(lambda x: x)
    assert everything(_turned) == plain
    torch.set_num_threads(2)
    assert everything(lambda x: x) == plain


def test_what_the_forward_pass_gave_is_not_used() -> None:
    nothing = torch.full_like(Q, math.nan), torch.full((2, 3, 7), math.nan)
    given = FORWARD(Q, K, V)
    for own, same in zip(
        BACKWARD(G, Q, K, V, *nothing, 0.0, False), BACKWARD(G, Q, K, V, *given, 0.0, False), strict=True
    ):
        assert torch.equal(own, same)


def test_what_does_not_fit_is_refused() -> None:
    calls: list[Callable[[], Any]] = [
        lambda: FORWARD(Q, K, V, 0.1),
        lambda: FORWARD(Q.half(), K.half(), V.half()),
        lambda: FORWARD(Q, K, V, attn_mask=torch.ones(7, 5, dtype=torch.bool)),
        lambda: FORWARD(Q, K, V, attn_mask=torch.ones(7, 4)),
        lambda: FORWARD(Q, K, V, attn_mask=torch.ones(1, 2, 3, 7, 5)),
        lambda: FORWARD(Q, K[:, :2], V),
        lambda: FORWARD(Q, K, V[:, :, :4]),
        lambda: FORWARD(Q, K[..., :7], V),
        lambda: FORWARD(Q[0], K[0], V[0]),
        lambda: FORWARD(Q[:0], K[:0], V[:0]),
        lambda: BACKWARD(G.double(), Q, K, V, Q, Q[..., 0], 0.0, False),
        lambda: BACKWARD(G[:, :, :6], Q, K, V, Q, Q[..., 0], 0.0, False),
        lambda: BACKWARD(G, Q, K, V, Q, Q[..., 0], 0.5, False),
    ]
    for call in calls:
        with pytest.raises(ReplayError):
            call()
