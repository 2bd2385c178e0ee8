from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact.norms import TABLE
from layer_oracle import Float, bits, compare, floats, mean, of, rsqrt, tensors, total

BATCH = TABLE["aten.native_batch_norm.default"]
BATCH_BACKWARD = TABLE["aten.native_batch_norm_backward.default"]
LAYER = TABLE["aten.native_layer_norm.default"]
LAYER_BACKWARD = TABLE["aten.native_layer_norm_backward.default"]
GROUP = TABLE["aten.native_group_norm.default"]
GROUP_BACKWARD = TABLE["aten.native_group_norm_backward.default"]
RMS = TABLE["aten._fused_rms_norm.default"]
ALL = [True, True, True]


def randn(*shape: int, seed: int = 0, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale + shift


@dataclass(frozen=True)
class Statistics:
    """Of a row; `centre` and `fine` are float64."""

    mean: Float
    centre: float
    variance: Float
    inverse: Float
    fine: float


def statistics(row: list[Float], eps: float) -> Statistics:
    middle = mean(row)
    deviations = [x - middle for x in row]
    rest = mean(deviations).value
    variance = mean(d * d for d in deviations).value - rest * rest
    variance = 0.0 if variance < 0 else variance
    return Statistics(middle, middle.value + rest, of(variance), *inverses(variance, eps))


def inverses(variance: float, eps: float) -> tuple[Float, float]:
    moved = variance + of(eps).value
    coarse = rsqrt(of(moved))
    fine = (1.5 - moved * coarse.value * coarse.value * 0.5) * coarse.value
    return coarse, coarse.value if math.isnan(fine) else fine


def normal(x: Float, centre: float, inverse: float, weight: Float, bias: Float) -> Float:
    """In Python's own numbers, rounded at the end."""
    return of((x.value - centre) * inverse * weight.value + bias.value)


def gradient(
    g: Float, x: Float, centre: Float, weight: Float, line: tuple[float, float], inverse: Float
) -> Float:
    slope, level = line
    deviation = x.value - centre.value
    return of((g.value * weight.value - level - deviation * slope) * inverse.value)


def line_of(along: Float, total: Float, count: int, inverse: Float) -> tuple[float, float]:
    """Slope and level."""
    return along.value / count * inverse.value * inverse.value, total.value / count


EPS = st.sampled_from([1e-5, 0.0, 1e-3])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_batch_norm_is_its_formula(data: st.DataObject) -> None:
    n, c, length = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 3)))
    x, w, b, r, v = (data.draw(tensors(*s)) for s in ((n, c, length), (c,), (c,), (c,), (c,)))
    eps, momentum = data.draw(EPS), data.draw(st.sampled_from([0.1, 0.0, 1.0, 0.3]))
    moved = (r.clone(), v.clone())
    result, saved_mean, saved_inverse = BATCH(x, w, b, *moved, True, momentum, eps)
    for channel in range(c):
        wc, bc, rc, vc = (floats(t)[channel] for t in (w, b, r, v))
        row = floats(x[:, channel])
        own = statistics(row, eps)
        assert bits(saved_mean[channel]) == bits([own.mean])
        assert bits(saved_inverse[channel]) == bits([own.inverse])
        expected = [normal(v, own.centre, own.fine, wc, bc) for v in row]
        assert bits(result[:, channel]) == bits(expected)
        kept, new = of(1.0 - momentum), of(momentum)
        unbiased = own.variance * (of(len(row)) / of(len(row) - 1))
        assert bits(moved[0][channel]) == bits([rc * kept + own.mean * new])
        assert bits(moved[1][channel]) == bits([vc * kept + unbiased * new])
    evaluated, *empty = BATCH(x, w, b, r, v, False, momentum, eps)
    for channel in range(c):
        wc, bc, rc, vc = (floats(t)[channel] for t in (w, b, r, v))
        expected = [normal(d, rc.value, inverses(vc.value, eps)[1], wc, bc) for d in floats(x[:, channel])]
        assert bits(evaluated[:, channel]) == bits(expected)
    assert [e.shape for e in empty] == [(0,), (0,)]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_batch_norm_backward_is_its_formula(data: st.DataObject) -> None:
    n, c, length = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 3)))
    shapes = ((n, c, length), (n, c, length), (c,), (c,), (c,))
    g, x, w, m, s = (data.draw(tensors(*shape)) for shape in shapes)
    to_x, to_w, to_b = BATCH_BACKWARD(g, x, w, None, None, m, s, True, 1e-5, ALL)
    eval_x, eval_w, eval_b = BATCH_BACKWARD(g, x, w, m, s, None, None, False, 1e-5, ALL)
    for channel in range(c):
        wc, mc, inverse = (floats(t)[channel] for t in (w, m, s))
        grads, row = floats(g[:, channel]), floats(x[:, channel])
        along = total((v - mc) * a for a, v in zip(grads, row, strict=True))
        line = line_of(along * wc, total(grads) * wc, len(row), inverse)
        expected = [gradient(a, v, mc, wc, line, inverse) for a, v in zip(grads, row, strict=True)]
        assert bits(to_x[:, channel]) == bits(expected)
        assert bits(to_w[channel]) == bits([along * inverse])
        assert bits(to_b[channel]) == bits(eval_b[channel]) == bits([total(grads)])
        inverse, fine = inverses(inverse.value, 1e-5)
        assert bits(eval_x[:, channel]) == bits([of(a.value * wc.value * fine) for a in grads])
        assert bits(eval_w[channel]) == bits([along * inverse])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_layer_norm_and_its_gradients_are_their_formulas(data: st.DataObject) -> None:
    n, width = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 4)))
    x, g, w, b = (data.draw(tensors(*shape)) for shape in ((n, width), (n, width), (width,), (width,)))
    eps = data.draw(EPS)
    result, means, saved = LAYER(x, [width], w, b, eps)
    to_x, to_w, to_b = LAYER_BACKWARD(g, x, [width], means, saved, w, b, ALL)
    weights, normals = floats(w), []
    for i in range(n):
        row, own = floats(x[i]), statistics(floats(x[i]), eps)
        assert bits(means[i]) + bits(saved[i]) == bits([own.mean, own.inverse])
        triples = list(zip(row, weights, floats(b), strict=True))
        assert bits(result[i]) == bits([normal(v, own.centre, own.fine, wi, bi) for v, wi, bi in triples])
        normals.append([(v - own.mean) * own.inverse for v in row])
        weighted = [a * wi for a, wi in zip(floats(g[i]), weights, strict=True)]
        slope = mean(v * a for a, v in zip(weighted, normals[i], strict=True)).value * own.inverse.value
        line = (slope, mean(weighted).value)
        fours = zip(floats(g[i]), row, weights, strict=True)
        grads = [gradient(a, v, own.mean, wi, line, own.inverse) for a, v, wi in fours]
        assert bits(to_x[i]) == bits(grads)
    for j in range(width):
        column = floats(g[:, j])
        assert bits(to_w[j]) == bits([total(a * v[j] for a, v in zip(column, normals, strict=True))])
        assert bits(to_b[j]) == bits([total(column)])


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_rms_norm_is_its_formula(data: st.DataObject) -> None:
    x, w = data.draw(tensors(2, 3)), data.draw(tensors(3))
    result, saved = RMS(x, [3], w, 1e-5)
    bare, _ = RMS(x, [3], None, None)
    for i in range(2):
        row = floats(x[i])
        square = mean(v * v for v in row)
        coarse, fine = inverses(square.value, 1e-5)
        assert bits(saved[i]) == bits([coarse])
        expected = [v.value * fine * wi.value for v, wi in zip(row, floats(w), strict=True)]
        assert bits(result[i]) == bits([of(v) for v in expected])
        assert bits(bare[i]) == bits([of(v.value * inverses(square.value, 2.0**-23)[1]) for v in row])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_group_norm_and_its_gradients_are_their_formulas(data: st.DataObject) -> None:
    n, groups, each, places = data.draw(st.tuples(*[st.integers(1, 2)] * 3, st.integers(1, 3)))
    c = groups * each
    x, g, w, b = (data.draw(tensors(*s)) for s in ((n, c, places), (n, c, places), (c,), (c,)))
    result, means, saved = GROUP(x, w, b, n, c, places, groups, 1e-5)
    to_x, to_w, to_b = GROUP_BACKWARD(g, x, means, saved, w, n, c, places, groups, ALL)
    weights, biases = floats(w), floats(b)
    by_weight: list[list[Float]] = [[] for _ in range(c)]
    by_bias: list[list[Float]] = [[] for _ in range(c)]
    for i in range(n):
        for group in range(groups):
            channels = range(group * each, (group + 1) * each)
            own = statistics(floats(x[i, channels.start : channels.stop]), 1e-5)
            assert bits(means[i, group]) + bits(saved[i, group]) == bits([own.mean, own.inverse])
            pairs = {k: list(zip(floats(g[i, k]), floats(x[i, k]), strict=True)) for k in channels}
            along = {k: total((v - own.mean) * a for a, v in pairs[k]) for k in channels}
            sums = {k: total(a for a, _ in pairs[k]) for k in channels}
            both = [total(part[k] * weights[k] for k in channels) for part in (along, sums)]
            line = line_of(both[0], both[1], each * places, own.inverse)
            for k in channels:
                row = [normal(v, own.centre, own.fine, weights[k], biases[k]) for _, v in pairs[k]]
                assert bits(result[i, k]) == bits(row)
                grads = [gradient(a, v, own.mean, weights[k], line, own.inverse) for a, v in pairs[k]]
                assert bits(to_x[i, k]) == bits(grads)
                by_weight[k].append(along[k] * own.inverse)
                by_bias[k].append(sums[k])
    assert bits(to_w) == bits([total(column) for column in by_weight])
    assert bits(to_b) == bits([total(column) for column in by_bias])


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


X = randn(4, 6, 5, 3, scale=2.0, shift=1.0)
G = randn(4, 6, 5, 3, seed=1)
W, B = randn(6, seed=2), randn(6, seed=3)
M, V, S = randn(6, seed=4), randn(6, seed=5).abs() + 0.1, randn(6, seed=6).abs() + 0.1
LAYOUTS = {
    "plain": (X, G),
    "channels last": (_last(X), _last(G)),
    "of two kinds": (_last(X), G),
    "sliced": (randn(4, 12, 10, 3)[:, ::2, ::2], randn(4, 6, 5, 6, seed=1)[..., ::2]),
    "expanded": (X[:1].expand(4, -1, -1, -1), G[:1, :, :1].expand(4, -1, 5, -1)),
    "large mean": (X * 1e-3 + 50.0, G),
    "one number": (torch.full_like(X, 0.3), G),
}


def _cases(x: Tensor, g: Tensor) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Every operator and option, on this input and gradient."""
    for w, b in ((W, B), (None, None), (W, None), (None, B)):
        for name in ("native_batch_norm.default", "_native_batch_norm_legit.default"):
            yield name, (x, w, b, M, V, True, 0.1, 1e-5)
            yield name, (x, w, b, M, V, False, 0.1, 1e-5)
        yield "native_batch_norm.default", (x, w, b, None, None, True, 0.1, 1e-5)
        yield "_native_batch_norm_legit.no_stats", (x, w, b, True, 0.1, 1e-5)
    for shape, masks in (([3], ALL), ([5, 3], ALL), ([6, 5, 3], ALL), ([4, 6, 5, 3], ALL), ([5, 3], [])):
        w = randn(*shape, seed=7)
        rows = [*x.shape[: 4 - len(shape)], *[1] * len(shape)]
        middle, inverse = randn(*rows, seed=8), randn(*rows, seed=9).abs() + 0.5
        if masks:
            yield "native_layer_norm.default", (x, shape, w, randn(*shape, seed=8), 1e-5)
            yield (
                "native_layer_norm_backward.default",
                (g, x, shape, middle, inverse, w, w, [True, True, True]),
            )
            yield "_fused_rms_norm.default", (x, shape, w, 1e-5)
            continue
        yield "native_layer_norm.default", (x, shape, None, None, 1e-5)
        yield "_fused_rms_norm.default", (x, shape, None, None)
        for mask in ([True, False, False], [False, True, False], [False, False, True], [True, True, False]):
            yield "native_layer_norm_backward.default", (g, x, shape, middle, inverse, w, w, mask)


def _dense_cases(x: Tensor, g: Tensor) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Those whose guards want both laid out alike, without gaps."""
    for mask in (ALL, [True, False, False], [False, True, False], [False, False, True], [True, False, True]):
        for w in (W, None):
            yield "native_batch_norm_backward.default", (g, x, w, M, V, M, S, True, 1e-5, mask)
            yield "native_batch_norm_backward.default", (g, x, w, M, V, None, None, False, 1e-5, mask)
    for groups in (1, 2, 6):
        middle, inverse = randn(4, groups, seed=8), randn(4, groups, seed=9).abs() + 0.5
        yield "native_group_norm.default", (x, W, B, 4, 6, 15, groups, 1e-5)
        yield "native_group_norm.default", (x, None, None, 4, 6, 15, groups, 1e-5)
        for w, mask in ((W, ALL), (None, [True, False, False]), (W, [False, True, True])):
            if not mask[0] and not x.is_contiguous():
                continue  # with the channels last, ATen writes to the result that it was not to make
            yield (
                "native_group_norm_backward.default",
                (g, x, middle, inverse, w, 4, 6, 15, groups, mask),
            )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_are_as_close_as_those_of_aten(layout: str) -> None:
    x, g = LAYOUTS[layout]
    seen = set()
    cases = list(_cases(x, g))
    if layout not in ("sliced", "expanded", "of two kinds"):
        cases += _dense_cases(x, g)
    for operator, args in cases:
        name = f"aten.{operator}"
        compare(TABLE[name], name, args)
        seen.add(name)
    assert layout != "plain" or seen == set(TABLE)


def test_other_numbers_of_dimensions() -> None:
    for shape in ((8, 6), (8, 6, 4), (2, 6, 3, 2, 2)):
        x, g = randn(*shape), randn(*shape, seed=1)
        places = math.prod(shape[2:])
        middle, inverse = randn(shape[0], 3), randn(shape[0], 3).abs()
        name = "aten.native_batch_norm.default"
        compare(BATCH, name, (x, W, B, M, V, True, 0.1, 1e-5))
        name = "aten.native_batch_norm_backward.default"
        compare(BATCH_BACKWARD, name, (g, x, W, M, V, M, S, True, 1e-5, ALL))
        name = "aten.native_group_norm.default"
        compare(GROUP, name, (x, W, B, shape[0], 6, places, 3, 1e-5))
        name = "aten.native_group_norm_backward.default"
        compare(GROUP_BACKWARD, name, (g, x, middle, inverse, W, shape[0], 6, places, 3, ALL))


def test_empty_batches_are_those_of_aten() -> None:
    x, none = torch.empty(0, 6, 5, 3), torch.empty(0, 6, 1, 1)
    compare(BATCH, "aten.native_batch_norm.default", (x, W, B, M, V, False, 0.1, 1e-5))
    shape = randn(5, 3)
    compare(LAYER, "aten.native_layer_norm.default", (x, [5, 3], shape, shape, 1e-5))
    args = (x, x, [5, 3], none, none, shape, shape, ALL)
    compare(LAYER_BACKWARD, "aten.native_layer_norm_backward.default", args)
    compare(GROUP, "aten.native_group_norm.default", (x, W, B, 0, 6, 15, 2, 1e-5))
    none = torch.empty(0, 2)
    name = "aten.native_group_norm_backward.default"
    compare(GROUP_BACKWARD, name, (x, x, none, none, W, 0, 6, 15, 2, ALL))
    compare(RMS, "aten._fused_rms_norm.default", (x, [5, 3], shape, 1e-5))


def _rms(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt())


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1.0, 1e3), (1e-2, 1e2), (1e-2, 1e4), (1e3, -1.0)])
def test_errors_are_no_greater_than_those_of_aten(scale: float, shift: float) -> None:
    x = randn(32, 6, 14, 14, scale=scale, shift=shift)
    for own, aten, args in (
        (BATCH, torch.ops.aten.native_batch_norm, (W, B, None, None, True, 0.1, 1e-5)),
        (LAYER, torch.ops.aten.native_layer_norm, ([14, 14], None, None, 1e-5)),
        (GROUP, torch.ops.aten.native_group_norm, (W, B, 32, 6, 196, 3, 1e-5)),
    ):
        exact = aten(x.double(), *(a.double() if isinstance(a, Tensor) else a for a in args))[0]
        assert _rms(own(x, *args)[0] - exact) <= _rms(aten(x, *args)[0] - exact)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1.0, 1e2), (1e-2, 1e2), (1e3, -1.0)])
def test_errors_of_gradients_are_no_greater_than_those_of_aten(scale: float, shift: float) -> None:
    x, g = randn(32, 6, 14, 14, scale=scale, shift=shift), randn(32, 6, 14, 14, seed=1)
    aten, wide = torch.ops.aten, randn(14, 14, seed=2)
    _, m, s = BATCH(x, W, B, None, None, True, 0.1, 1e-5)
    _, n, r = LAYER(x, [14, 14], None, None, 1e-5)
    _, p, q = GROUP(x, W, B, 32, 6, 196, 3, 1e-5)
    for own, other, args in (
        (BATCH_BACKWARD, aten.native_batch_norm_backward, (g, x, W, None, None, m, s, True, 1e-5, ALL)),
        (LAYER_BACKWARD, aten.native_layer_norm_backward, (g, x, [14, 14], n, r, wide, wide, ALL)),
        (GROUP_BACKWARD, aten.native_group_norm_backward, (g, x, p, q, W, 32, 6, 196, 3, ALL)),
    ):
        exact = other(*(a.double() if isinstance(a, Tensor) else a for a in args))
        for mine, theirs, true in zip(own(*args), other(*args), exact, strict=True):
            # That of a sum is a matter of a few roundings.
            assert _rms(mine - true) <= _rms(theirs - true) + (0.0 if mine.dim() == 4 else 1e-7 * _rms(true))


@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_gradients_are_those_of_autograd_in_float64(shift: float) -> None:
    x, g = randn(8, 6, 5, 5, shift=shift), randn(8, 6, 5, 5, seed=1)
    shape = [6, 5, 5]
    rows, affine = randn(*shape, seed=2), (W.double().requires_grad_(), B.double().requires_grad_())
    wide = (rows.double().requires_grad_(), rows.double().requires_grad_())
    functional = torch.nn.functional
    _, m, s = BATCH(x, W, B, None, None, True, 0.1, 1e-5)
    batch = BATCH_BACKWARD(g, x, W, None, None, m, s, True, 1e-5, ALL)
    _, m, s = LAYER(x, shape, rows, rows, 1e-5)
    layer = LAYER_BACKWARD(g, x, shape, m, s, rows, rows, ALL)
    _, m, s = GROUP(x, W, B, 8, 6, 25, 2, 1e-5)
    group = GROUP_BACKWARD(g, x, m, s, W, 8, 6, 25, 2, ALL)
    at = x.double().requires_grad_()
    for results, value, parameters in (
        (batch, functional.batch_norm(at, None, None, *affine, True, 0.1, 1e-5), affine),
        (layer, functional.layer_norm(at, shape, *wide, 1e-5), wide),
        (group, functional.group_norm(at, 2, *affine, 1e-5), affine),
    ):
        expected = torch.autograd.grad(value, (at, *parameters), g.double())
        for own, true in zip(results, expected, strict=True):
            assert (own - true).abs().max() <= (2e-6 if shift == 0.0 else 2e-5) * true.abs().max()


def test_neither_threads_nor_layout_change_a_bit() -> None:
    x, g = randn(48, 6, 20, 20), randn(48, 6, 20, 20, seed=1)

    def everything(a: Tensor, b: Tensor) -> list[int]:
        r, v = M.clone(), V.clone()
        forward = BATCH(a, W, B, r, v, True, 0.1, 1e-5)
        backward = BATCH_BACKWARD(b, a, W, None, None, forward[1], forward[2], True, 1e-5, ALL)
        grouped = GROUP(a, W, B, 48, 6, 400, 2, 1e-5)
        back = GROUP_BACKWARD(b, a, *grouped[1:], W, 48, 6, 400, 2, ALL)
        layer = LAYER(a, [20], None, None, 1e-5)
        rest = LAYER_BACKWARD(b, a, [20], *layer[1:], None, None, [True, False, False])[:1]
        return [p for t in (r, v, *forward, *backward, *grouped, *back, *layer, *rest) for p in bits(t)]

    plain = everything(x, g)
    assert everything(_last(x), _last(g)) == plain
    assert everything(_last(x), g) == plain
    torch.set_num_threads(2)
    assert everything(x, g) == plain


def test_samples_with_statistics_of_their_own_do_not_meet() -> None:
    x, g = randn(48, 6, 20, 20), randn(48, 6, 20, 20, seed=1)

    def everything(a: Tensor, b: Tensor) -> list[Tensor]:
        grouped = GROUP(a, W, B, len(a), 6, 400, 2, 1e-5)
        layer = LAYER(a, [20, 20], None, None, 1e-5)
        return [
            BATCH(a, W, B, M, V, False, 0.1, 1e-5)[0],
            BATCH_BACKWARD(b, a, W, M, V, None, None, False, 1e-5, ALL)[0],
            *grouped,
            GROUP_BACKWARD(b, a, *grouped[1:], W, len(a), 6, 400, 2, ALL)[0],
            *layer,
            LAYER_BACKWARD(b, a, [20, 20], *layer[1:], None, None, [True, False, False])[0],
        ]

    alone = [everything(x[i : i + 1], g[i : i + 1]) for i in range(48)]
    for whole, parts in zip(everything(x, g), zip(*alone, strict=True), strict=True):
        assert bits(whole) == bits(torch.cat(parts))


def test_what_does_not_fit_is_refused() -> None:
    half = X.half()
    calls: list[Callable[[], Any]] = [
        lambda: BATCH(half, W, B, None, None, True, 0.1, 1e-5),
        lambda: BATCH(X, W.double(), B, None, None, True, 0.1, 1e-5),
        lambda: BATCH(X[:0], W, B, None, None, True, 0.1, 1e-5),
        lambda: BATCH(X, W, B, None, None, False, 0.1, 1e-5),
        lambda: BATCH(W, W, B, None, None, True, 0.1, 1e-5),
        lambda: BATCH_BACKWARD(G, X, W, None, None, None, None, True, 1e-5, ALL),
        lambda: BATCH_BACKWARD(G[1:], X, W, None, None, M, S, True, 1e-5, ALL),
        lambda: LAYER(X, [5], None, None, 1e-5),
        lambda: LAYER(half, [3], None, None, 1e-5),
        lambda: RMS(X, [], None, 1e-5),
        lambda: GROUP(X, W, B, 4, 6, 15, 4, 1e-5),
        lambda: GROUP(X, W, B, 6, 4, 15, 2, 1e-5),
        lambda: GROUP_BACKWARD(G, X, V, V.double(), W, 4, 6, 15, 2, ALL),
    ]
    for call in calls:
        with pytest.raises(ReplayError):
            call()
