"""Exact arithmetic against PyTorch's own, in turn, in one process and one thread: operators, and whole steps.

A figure is the median over rounds of the ratio within a round. With products of matrices stands what limits
them, a float64 product of the same size, what exactness by a fixed order costs, and each one's error: the
root of the mean square of the difference to a float64 product, for operands from a normal distribution.
"""

from __future__ import annotations

import ctypes
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from benchmarks.figure import Figure
from torch import Tensor

from gradseal import SigningKey, initialise, record
from gradseal.program.exact import products
from gradseal.program.exact.operators import EXACT
from gradseal.program.interpret import overload
from gradseal.recipes.recipe import Recipe

_SIZES = (256, 512, 1024, 2048)
_ORDERED = 512
_LEAST_SECONDS = 0.3
_AT_MOST = {"matmul": 1.5, "text": 3.0, "fashion": 5.0}

Work = Callable[[], Any]


def ratio(own: Work, other: Work, *, rounds: int) -> float:
    """How much longer `own` takes than `other`: the median over rounds, each of both in turn."""
    found = []
    for work in (own, other):
        work()
    for _ in range(rounds):
        found.append(_seconds(own) / _seconds(other))
    return statistics.median(found)


def _seconds(work: Work) -> float:
    """The shortest time of several runs that take `_LEAST_SECONDS` together, at most a hundred."""
    best, begun = float("inf"), time.perf_counter()
    for _ in range(100):
        before = time.perf_counter()
        work()
        now = time.perf_counter()
        best = min(best, now - before)
        if now - begun > _LEAST_SECONDS:
            break
    return best


def matmuls(*, rounds: int) -> list[Figure]:
    """Products of square matrices: times and errors."""
    figures = []
    for n in _SIZES:
        generator = torch.Generator().manual_seed(n)
        a, b = (torch.randn(n, n, generator=generator) for _ in range(2))
        wide = a.double(), b.double()
        target = _AT_MOST["matmul"] if n >= 1024 else None
        exact = ratio(lambda: products.matmul(a, b), lambda: a @ b, rounds=rounds)  # noqa: B023 - called at once
        bare = ratio(lambda: wide[0] @ wide[1], lambda: a @ b, rounds=rounds)  # noqa: B023
        truth = wide[0] @ wide[1]
        own, native = (_rms(result, truth) for result in (products.matmul(a, b), a @ b))
        figures += [
            Figure(name=f"exact matmul, n = {n}", value=exact, unit="×", at_most=target),
            Figure(name=f"  its limit: a float64 matmul, n = {n}", value=bare, unit="×"),
            Figure(
                name=f"  its error, of native's, n = {n}",
                value=own / native,
                unit="×",
                at_most=1.0 if n >= 1024 else None,
            ),
        ]
    return figures


def _rms(result: Tensor, truth: Tensor) -> float:
    return float((result.double() - truth).square().mean().sqrt())


def ordered(*, rounds: int) -> list[Figure]:
    """The loop in a fixed order; nothing where there is no C compiler."""
    with _ordered() as loop:
        if loop is None:
            return []
        n = _ORDERED
        a, b = torch.randn(n, n), torch.randn(n, n)
        out = torch.empty(n, n)

        def work() -> None:
            loop(a.data_ptr(), b.data_ptr(), out.data_ptr(), *[ctypes.c_size_t(n)] * 3)

        value = ratio(work, lambda: a @ b, rounds=max(1, rounds // 2))
        return [Figure(name=f"a loop of fused multiply-adds in order, n = {n}", value=value, unit="×")]


@contextmanager
def _ordered() -> Iterator[Callable[..., Any] | None]:
    compiler = next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as directory:
        made = Path(directory) / "ordered.so"
        source = Path(__file__).with_name("ordered.c")
        options = ["-O3", "-march=native", "-shared", "-fPIC", "-ffp-contract=off"]
        subprocess.run([compiler, *options, str(source), "-o", str(made), "-lm"], check=True)
        function = ctypes.CDLL(str(made)).ordered
        function.argtypes = [*[ctypes.c_void_p] * 3, *[ctypes.c_size_t] * 3]
        yield function


def _operators() -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    """What is shown, the operator, and its arguments."""
    x = torch.randn(4096, 256)
    for name in ("exp", "log", "tanh", "sigmoid", "erf", "gelu", "rsqrt", "sqrt", "silu"):
        yield (
            f"{name}, 1M numbers",
            f"aten.{name}.default",
            (x.abs() if name in ("log", "rsqrt", "sqrt") else x,),
        )
    yield "gelu_backward, 1M numbers", "aten.gelu_backward.default", (x, x)
    yield "sum of rows, 4096 × 256", "aten.sum.dim_IntList", (x, [1])
    yield "sum of columns, 4096 × 256", "aten.sum.dim_IntList", (x, [0])
    yield "softmax, 4096 × 256", "aten._softmax.default", (x, 1, False)
    y = torch.softmax(x, 1)
    yield "softmax backward, 4096 × 256", "aten._softmax_backward_data.default", (x, y, 1, torch.float32)
    w = torch.randn(256)
    yield "layer norm, 4096 × 256", "aten.native_layer_norm.default", (x, [256], w, w, 1e-5)
    _, mean, rstd = torch.ops.aten.native_layer_norm.default(x, [256], w, w, 1e-5)
    arguments = (x, x, [256], mean, rstd, w, w, [True, True, True])
    yield "layer norm backward, 4096 × 256", "aten.native_layer_norm_backward.default", arguments
    image = torch.randn(128, 16, 28, 28)
    v = torch.ones(16)
    statistics_ = (v.clone(), v.clone())
    yield (
        "batch norm, 128 × 16 × 28 × 28",
        "aten.native_batch_norm.default",
        (image, v, v, *statistics_, True, 0.1, 1e-5),
    )
    _, mean, rstd = torch.ops.aten.native_batch_norm.default(image, v, v, *statistics_, True, 0.1, 1e-5)
    yield (
        "batch norm backward, 128 × 16 × 28 × 28",
        "aten.native_batch_norm_backward.default",
        (image, image, v, *statistics_, mean, rstd, True, 1e-5, [True, True, True]),
    )
    for channels, side in ((16, 28), (32, 14), (64, 7)):
        image, weight = torch.randn(128, channels, side, side), torch.randn(channels, channels, 3, 3)
        rest = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
        shape = f"{channels} channels of {side} × {side}"
        yield f"convolution, {shape}", "aten.convolution.default", (image, weight, None, *rest)
        yield (
            f"convolution backward, {shape}",
            "aten.convolution_backward.default",
            (image, image, weight, None, *rest, [True, True, False]),
        )
    heads = torch.randn(64, 128, 32)
    yield "bmm, 64 of 128 × 32 × 128", "aten.bmm.default", (heads, heads.transpose(1, 2).contiguous())


def operators(*, rounds: int) -> list[Figure]:
    """Operator by operator."""
    figures = []
    for shown, name, arguments in _operators():
        own, native = EXACT[name], overload(name)
        value = ratio(lambda: own(*arguments), lambda: native(*arguments), rounds=rounds)  # noqa: B023
        figures.append(Figure(name=f"exact {shown}", value=value, unit="×"))
    return figures


def steps(name: str, recipe: Recipe, *, count: int) -> list[Figure]:
    """Whole steps: the user's own loop without Gradseal, and `run.step` in exact arithmetic, in turn.

    Args:
        name: The recipe's.
        recipe: What is trained; by itself and under record.
        count: How many steps of each are timed.
    """
    with initialise():
        plain, model = recipe.build(), recipe.build()
    own, optimizer = recipe.optimizer(plain), recipe.optimizer(model)
    times: dict[str, list[float]] = {"native": [], "exact": []}
    warm = 2
    with (
        tempfile.TemporaryDirectory() as directory,
        record(
            Path(directory) / "bundle",
            model,
            optimizer,
            loss=recipe.loss,
            data=recipe.data,
            batch_size=recipe.batch_size,
            steps=count + warm,
            every=count + warm,
            key=SigningKey.generate("bench.example"),
            clip=recipe.clip,
            accumulate=recipe.accumulate,
            arithmetic="exact",
            progress=False,
        ) as run,
    ):
        for batch in run:
            parts = batch if recipe.accumulate > 1 else [batch]
            begun = time.perf_counter()
            own.zero_grad()
            for part in parts:
                loss = recipe.loss(plain, part)
                loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
            if recipe.clip is not None:
                torch.nn.utils.clip_grad_norm_(plain.parameters(), recipe.clip)
            own.step()
            between = time.perf_counter()
            run.step(batch)
            times["native"].append(between - begun)
            times["exact"].append(time.perf_counter() - between)
    native, exact = (statistics.median(times[way][warm:-1] or times[way]) for way in times)
    return [
        Figure(name=f"native step of {name}", value=1000 * native, unit="ms"),
        Figure(name=f"exact step of {name}", value=exact / native, unit="×", at_most=_AT_MOST.get(name)),
    ]
