"""The kernel of exact arithmetic gives the bits of PyTorch's steps, in each build that runs here."""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gradseal.program.exact import activation_functions, functions, fused_norms, fused_softmax, kernel, series
from gradseal.program.exact.sums import mean_along, sum_along, sum_by_index, sum_by_indices
from vectors.make_functions import FUNCTIONS

PACKAGE = Path(kernel.__file__).parent
BUILDS = {"DEFAULT": ["baseline"], "AVX2": ["baseline", "avx2"], "AVX512": ["baseline", "avx2", "avx512"]}
RUNS = BUILDS.get(torch.backends.cpu.get_cpu_capability(), ["baseline"])
NAN = 0x7FC00000
STEP = 1021
EDGES = [
    *(0.0, 1.0, 2.0**-149, 2.0**-126, 3.4028234663852886e38, math.inf, math.nan, 0.5, 1.5, 2.0**-24),
    *(16.0, 20.0, 3.9375, 128.0, 88.72, 87.33, 103.97, 104.0),
]

Made = Tensor | None | tuple[Tensor | None, ...]


@pytest.fixture(params=RUNS)
def build(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    path = PACKAGE / f"_kernel_{request.param}.so"
    if not path.is_file():
        pytest.skip("was not built")
    loaded = _loaded(path)
    monkeypatch.setattr(kernel, "library", lambda: loaded)
    return str(request.param)


@cache
def _loaded(path: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(path))


def without(call: Callable[..., Made], *args: Any, **kwargs: Any) -> Made:
    """What PyTorch's steps give."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "library", lambda: None)
        return call(*args, **kwargs)


def words(x: Tensor) -> Tensor:
    """Bits, with one NaN."""
    return torch.where(x.isnan(), NAN, x.contiguous().view(torch.int32))


def agree(call: Callable[..., Made], *args: Any, **kwargs: Any) -> bool:
    """Whether the kernel and PyTorch's steps give the same."""
    ours, plain = call(*args, **kwargs), without(call, *args, **kwargs)
    ours = ours if isinstance(ours, tuple) else (ours,)
    plain = plain if isinstance(plain, tuple) else (plain,)
    return len(ours) == len(plain) and all(map(same, ours, plain))


def same(a: Made, b: Made) -> bool:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return a is b
    return a.shape == b.shape and torch.equal(words(a), words(b))


def function(name: str) -> Callable[[Tensor], Tensor]:
    own: Callable[[Tensor], Tensor] = getattr(
        functions if hasattr(functions, name) else activation_functions, name
    )
    return own


def compiled(name: str, x: Tensor) -> Tensor:
    """The kernel's loop, whether or not the function uses it."""
    result = torch.empty_like(x)
    loop = kernel.function(name, "ppn")
    assert loop is not None
    loop(x.data_ptr(), result.data_ptr(), x.numel())
    return result


def patterns(*shape: int, seed: int = 3) -> Tensor:
    drawn = np.random.default_rng(seed).integers(0, 1 << 32, shape, dtype=np.uint32)
    return torch.from_numpy(drawn.view(np.float32))


def normal(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def edges() -> Tensor:
    """Each edge, its neighbours, and all their negatives."""
    bits = torch.tensor(EDGES).view(torch.int32)
    near = torch.cat([bits, bits + 1, (bits - 1).clamp(min=0)]).view(torch.float32)
    return torch.cat([near, -near])


@cache
def plain(name: str) -> tuple[Tensor, Tensor]:
    """Every 1021st pattern, with the bits of PyTorch's steps."""
    dense = np.arange(0, 1 << 32, STEP, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = torch.cat([torch.from_numpy(dense), edges()])
    result = without(function(name), x)
    assert isinstance(result, Tensor)
    return x, result.view(torch.int32)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_the_bits_of_pytorch_s_steps(build: str, name: str) -> None:
    x, expected = plain(name)
    # NaN too has its one pattern.
    assert torch.equal(compiled(name, x).view(torch.int32), expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_them_at_every_length_place_and_number_of_threads(build: str, name: str) -> None:
    own = function(name)
    for length in range(41):
        for start in (0, 1, 3):
            x = patterns(50, seed=length)[start : start + length]
            assert same(compiled(name, x), without(own, x))
    x = patterns(300, 401)
    assert agree(own, x.t())
    assert agree(own, x[::2, 3::5])
    whole = own(x)
    torch.set_num_threads(2)
    assert same(own(x), whole)


LAYOUTS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    *(((length,), (0,)) for length in (1, 2, 3, 4, 31, 1000)),
    *(((9, width), (1,)) for width in (1, 2, 3, 7, 8, 10, 33, 130)),
    *(((rows, width), (0,)) for rows in (1, 2, 3, 40) for width in (1, 2, 5, 127, 128, 129, 513)),
    *(((6, 5, 7), dims) for dims in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), ())),
    *(((2, 6, 3, 4), dims) for dims in ((0, 2, 3), (1, 3), (0, 2), (1, 2), (3, 0))),
    ((2, 3, 2, 3, 2), (0, 2, 4)),
    ((2, 3, 2, 3, 2), (1, 3)),
]


def kinds(*shape: int) -> list[Tensor]:
    """Any floats; of one size; with one that is not finite, in some sums only; zeros."""
    close, poor = normal(*shape), normal(*shape, seed=6)
    poor.view(-1)[:: max(2, poor.numel() // 3)] = math.inf
    poor.view(-1)[-1] = -math.inf
    return [patterns(*shape), close, poor, torch.zeros(shape).neg()]


def arranged(x: Tensor) -> list[Tensor]:
    """The same numbers, laid out in other ways."""
    order = list(range(x.dim()))[::-1]
    apart = torch.stack([x, x], dim=-1)[..., 0]
    return [x, x.permute(order).contiguous().permute(order), apart]


@pytest.mark.parametrize(("shape", "dims"), LAYOUTS)
def test_sums_and_means_have_the_bits_of_pytorch_s_steps(
    build: str, shape: tuple[int, ...], dims: tuple[int, ...]
) -> None:
    for x in kinds(*shape):
        for y in arranged(x):
            assert agree(sum_along, y, dims)
            assert agree(mean_along, y, dims, keepdim=True)
            assert sum_along(y, dims).stride() == y.sum(dims).stride()


def test_a_large_sum_in_parts_has_them_too(build: str) -> None:
    x = normal(300_001)
    whole = sum_along(x), mean_along(x)
    torch.set_num_threads(2)
    assert same(sum_along(x), whole[0])
    assert same(mean_along(x), whole[1])
    for poor in (math.inf, math.nan):
        x[250_000] = poor
        assert agree(sum_along, x) and agree(mean_along, x)
    y = normal(300, 700)
    assert agree(sum_along, y, (0,)) and agree(sum_along, y, (1,))


@pytest.mark.parametrize("dims", [(2,), (-3,), (0, 0), (0, -2)])
def test_dimensions_that_torch_refuses_are_refused(build: str, dims: tuple[int, ...]) -> None:
    with pytest.raises((IndexError, RuntimeError)):
        sum_along(torch.ones(2, 3), dims)


def test_sums_into_places_have_the_bits_of_pytorch_s_steps(build: str) -> None:
    for shape, dim in (((50, 7), 0), ((7, 50), 1), ((3, 40, 5), 1), ((1, 9), 0), ((2, 1, 3), 1), ((30,), 0)):
        index = torch.randint(0, 6, (shape[dim],), generator=torch.Generator().manual_seed(2))
        lines = torch.randint(0, 6, shape, generator=torch.Generator().manual_seed(3))
        into = [6 if d == dim else size for d, size in enumerate(shape)]
        for number in (1, 2):
            torch.set_num_threads(number)
            for x in kinds(*shape):
                for y in arranged(x):
                    assert agree(sum_by_index, y, dim, index, 6)
                    assert agree(sum_by_indices, y, dim, lines, into)
                    assert agree(sum_by_indices, y, dim, lines, [n + 1 for n in into])


@pytest.mark.parametrize("place", [5, -6, 1 << 40])
def test_a_place_that_does_not_exist_is_refused(build: str, place: int) -> None:
    x, index = torch.ones(3, 2), torch.tensor([0, place, 1])
    with pytest.raises((IndexError, RuntimeError)):
        sum_by_index(x, 0, index, 5)
    with pytest.raises((IndexError, RuntimeError)):
        sum_by_indices(x, 0, index[:, None].expand(3, 2), (5, 2))


def awkward(rows: int, width: int) -> Tensor:
    """Rows of ordinary numbers, and some with infinities, NaN, zeros and any floats."""
    x = normal(rows, width) * 5
    x[0], x[1], x[2], x[3] = math.inf, -math.inf, 0.0, -0.0
    x[4, 0], x[5, 0], x[6, -1] = math.nan, -math.inf, math.inf
    x[7:10] = patterns(3, width)
    return x


@pytest.mark.parametrize("width", [1, 2, 3, 7, 8, 10, 33, 300])
def test_softmax_has_the_bits_of_pytorch_s_steps(build: str, width: int) -> None:
    x, grad = awkward(20, width), awkward(20, width).flip(0)
    for y in (x, torch.stack([x, x], dim=-1)[..., 0]):
        for dim in (1, -1, 0):
            assert agree(fused_softmax.shares, y, dim)
            assert agree(fused_softmax.log_shares, y, dim)
            assert agree(fused_softmax.shares_gradient, grad, y, dim)
            assert agree(fused_softmax.log_shares_gradient, grad, y, dim)


SHAPES = [(4, 6, 5, 7), (8, 6), (3, 6, 9), (2, 6, 1, 1), (2, 6, 3, 3, 2), (1, 6, 2, 2)]


def statistic(shape: Sequence[int], seed: int) -> Tensor:
    return normal(*shape, seed=seed).to(torch.float64) / 3


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_normalisation_has_the_bits_of_pytorch_s_steps(
    build: str, shape: tuple[int, ...], last: bool
) -> None:
    x, grad = normal(*shape) * 3, normal(*shape, seed=8)
    x.view(-1)[:3] = patterns(3)
    if last and len(shape) == 4:
        x, grad = (t.contiguous(memory_format=torch.channels_last) for t in (x, grad))
    ones = [1] * (len(shape) - 2)
    across, rows, ends = [1, 6, *ones], [shape[0], *[1] * (len(shape) - 1)], [1, *shape[1:]]
    for stats, weights in ((across, across), (rows, ends), (rows, across), ([shape[0], 6, *ones], across)):
        centre, level, slope, inverse = (statistic(stats, seed) for seed in range(4))
        row = normal(*weights, seed=9)
        for weight, bias in ((row, row), (None, row), (row, None), (None, None)):
            assert agree(fused_norms.normal, x, centre, inverse, weight, bias)
            assert agree(fused_norms.gradient, grad, weight, level, x, centre, slope=slope, inverse=inverse)


@pytest.mark.parametrize("dims", [(0, 2, 3), (1, 2, 3), (2, 3), (0,), (0, 1)])
def test_sums_of_deviations_have_the_bits_of_pytorch_s_steps(build: str, dims: tuple[int, ...]) -> None:
    for x in (*kinds(3, 4, 5, 6), *kinds(2, 3, 1, 20)):
        mean, factor = mean_along(normal(*x.shape, seed=2), dims, keepdim=True), x.flip(0)
        for y in (*arranged(x), x.contiguous(memory_format=torch.channels_last)):
            assert agree(fused_norms.mean_of_squares, y, dims)
            assert agree(fused_norms.means_away, y, mean, dims)
            assert agree(fused_norms.sum_away_times, y, mean, factor, dims)
            assert agree(fused_norms.sum_away_times, y, mean.flatten()[:1].view([1] * y.dim()), factor, dims)


@pytest.mark.parametrize("width", [1, 2, 3, 8, 33, 300])
def test_a_layer_s_gradient_has_the_bits_of_pytorch_s_steps(build: str, width: int) -> None:
    x, grad = awkward(90, width), normal(90, width, seed=4)
    mean, inverse = normal(90, 1, seed=1), normal(90, 1, seed=2).abs()
    for weight in (None, normal(1, width, seed=3)):
        for products in (False, True):
            assert agree(fused_norms.layer_gradient, grad, x, mean, inverse, weight, products)


def test_threads_change_no_bit(build: str) -> None:
    x, grad = normal(12, 9000), normal(12, 9000, seed=2)
    rows, row = normal(12, 1).to(torch.float64), normal(1, 9000)
    calls: list[Callable[[], Made]] = [
        lambda: fused_softmax.shares(x, 1),
        lambda: fused_softmax.shares(x, 0),
        lambda: fused_softmax.log_shares(x, 1),
        lambda: fused_softmax.shares_gradient(grad, x, 1),
        lambda: fused_softmax.log_shares_gradient(grad, x, 1),
        lambda: fused_norms.normal(x, rows, rows, row, row),
        lambda: fused_norms.gradient(grad, row, rows, x, rows, slope=rows, inverse=rows),
        lambda: fused_norms.layer_gradient(grad, x, rows.float(), rows.float(), row, True),
        lambda: fused_norms.means_away(x, rows.float(), (1,)),
        lambda: fused_norms.sum_away_times(x, row, grad, (0,)),
    ]
    ones = [call() for call in calls]
    torch.set_num_threads(2)
    for call, one in zip(calls, ones, strict=True):
        two = call()
        pairs = (
            zip(two, one, strict=True) if isinstance(two, tuple) and isinstance(one, tuple) else [(two, one)]
        )
        assert all(same(a, b) for a, b in pairs)


def header(name: str) -> str:
    return (PACKAGE / "c" / name).read_text(encoding="utf-8")


def test_the_kernel_s_coefficients_are_those_of_the_definition() -> None:
    found = {
        name: tuple(map(float.fromhex, re.findall(r"-?0x[0-9a-f.]+p[+-]\d+", body)))
        for name, body in re.findall(r"static const double (\w+)\[\] = \{([^}]+)\}", header("series.h"))
    }
    numerator, denominator = series._ERF
    assert found == {
        "EXPM1": series._EXPM1,
        "ATANH": series._ATANH,
        "ERF_NUMERATOR": numerator,
        "ERF_DENOMINATOR": denominator,
        "TAIL": series.TAIL,
    }


def test_the_kernel_s_constants_are_those_of_the_definition() -> None:
    text = header("series.h") + header("functions.h")
    found = dict(re.findall(r"^#define (\w+) \(?(-?[0-9][0-9a-zA-Z.+-]*)\)?$", text, re.MULTILINE))
    assert {name: number_of(text) for name, text in found.items()} == {
        "LOG_2": series._LOG_2,
        "LOG2_E": series._LOG2_E,
        "ROUNDER": series._ROUNDER,
        "SQRT_HALF_BITS": series._SQRT_HALF_BITS,
        "NO_FRACTION": series._NO_FRACTION,
        "TAIL_CENTRE": series.TAIL_CENTRE,
        "TAIL_END": series.TAIL_END,
        "EXP_END": functions.EXP_END,
        "TANH_END": functions._TANH_END,
        "ERF_END": functions._ERF_END,
        "GELU_LINEAR": functions.GELU_LINEAR,
        "GELU_CUBIC": functions.GELU_CUBIC,
        "GELU_SLOPE": activation_functions._GELU_SLOPE,
        "DENSITY": activation_functions._DENSITY,
    }


def number_of(text: str) -> float:
    if "x" not in text:
        return float(text)
    return float.fromhex(text) if "p" in text else int(text, 16)


def test_a_library_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "ABI", 0)
    kernel.library.cache_clear()
    try:
        assert kernel.library() is None
    finally:
        kernel.library.cache_clear()


def test_without_a_kernel_everything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernel.VARIABLE, "off")
    kernel.library.cache_clear()
    try:
        assert kernel.library() is None
        assert kernel.function("exp", "ppn") is None
        assert sum_along(torch.ones(3)).item() == 3.0
        assert fused_softmax.shares(torch.zeros(1, 2), 1)[0].tolist() == [[0.5, 0.5]]
    finally:
        kernel.library.cache_clear()
