"""Vectors of docs/spec/arithmetic.md, functions and sums: `functions.json`."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from gradseal.program.exact import activation_functions, functions
from gradseal.program.exact.sums import mean_along, sum_along, sum_by_index, sum_by_indices
from gradseal.proof.canonical import Json

ONE, MINUS_ONE, HALF, TENTH = "3f800000", "bf800000", "3f000000", "3dcccccd"
ZERO, MINUS_ZERO, INFINITY, MINUS_INFINITY, NAN = "00000000", "80000000", "7f800000", "ff800000", "ffc00001"
LEAST, SUBNORMAL, NORMAL, LARGEST = "00000001", "807fffff", "00800000", "7f7fffff"


def tensor(elements: Sequence[str], *shape: int) -> Tensor:
    """float32 of these bits."""
    words = [int.from_bytes(bytes.fromhex(e), "big", signed=True) for e in elements]
    return torch.tensor(words, dtype=torch.int32).view(torch.float32).reshape(shape)


def bits(x: Tensor) -> list[Json]:
    """The bits of a float32 tensor's elements in row-major order."""
    return [f"{word & 0xFFFFFFFF:08x}" for word in x.contiguous().view(torch.int32).flatten().tolist()]


def mixed(size: int, *, start: int) -> list[str]:
    """Finite float32 from 2^-8 to 2^8 in magnitude, of either sign: bits of a multiplicative sequence."""
    words = (((start + i) * 2654435761) % 2**32 for i in range(size))
    return [f"{(w & 0x807FFFFF) | ((119 + (w >> 23) % 16) << 23):08x}" for w in words]


FUNCTIONS = (
    *("sqrt", "rsqrt", "exp", "sigmoid", "tanh", "log", "log1p", "softplus", "erf", "gelu", "gelu_tanh"),
    *("silu", "silu_derivative", "gelu_derivative", "gelu_tanh_derivative", "mish", "mish_derivative"),
    *("expm1", "logit"),
)
_CORNERS = (
    *(ZERO, MINUS_ZERO, ONE, MINUS_ONE, HALF, TENTH, INFINITY, MINUS_INFINITY, NAN, "7f800001"),
    *(LEAST, "80000001", SUBNORMAL, NORMAL, LARGEST, "ff7fffff"),
    # About 88.7, −87.3 and −103.97, where exp overflows, becomes subnormal, and vanishes.
    *("42b17217", "42b17218", "c2aeac4f", "c2aeac50", "c2cff1b4", "c2cff1b5"),
    # 3.9375, 16, 20 and 128, of either sign: where functions are taken to have reached their ends.
    *("407c0000", "c07c0001", "41800000", "c1800000", "c1a00000", "41a00000", "43000000", "c3000000"),
    # Just below and above 1, and next to the zeros of derivatives.
    *("3f7fffff", "3f800001", "bf7fffff", "bfa39610", "bf407b1f", "bf409f3e", "bf98930c"),
)
_SUMS: tuple[tuple[tuple[int, ...], tuple[int, ...], tuple[str, ...]], ...] = (
    ((0,), (0,), ()),
    ((1,), (0,), (MINUS_ZERO,)),
    ((2,), (0,), (ONE, MINUS_ONE)),
    ((2,), (0,), (LEAST, LEAST)),
    ((2,), (0,), (LARGEST, LARGEST)),
    ((3,), (0,), (LARGEST, LARGEST, "ff7fffff")),
    ((3,), (0,), (ONE, "33800000", "26800000")),
    # Half a unit goes to the even zero, more than half does not.
    ((3,), (0,), (ONE, "33800000", "26000000")),
    ((3,), (0,), (ONE, "33800000", "26400000")),
    ((4,), (0,), (LEAST, LEAST, LEAST, ZERO)),
    ((3, 4), (1,), (INFINITY, ONE, LARGEST, ONE, INFINITY, MINUS_INFINITY, ONE, ONE, NAN, ONE, ONE, ONE)),
    ((3, 5, 4), (0, 2), tuple(mixed(60, start=9))),
    ((3, 5, 4), (1,), tuple(mixed(60, start=99))),
    ((6, 7), (0,), tuple(mixed(42, start=7))),
    ((2, 40), (), tuple(mixed(80, start=70))),
)


def _function(name: str, x: Tensor) -> Tensor:
    result: Tensor = getattr(functions if hasattr(functions, name) else activation_functions, name)(x)
    return result


def _functions() -> Json:
    arguments = [*_CORNERS, *mixed(48, start=5)]
    x = tensor(arguments, len(arguments))
    return {"arguments": list(arguments), "results": {name: bits(_function(name, x)) for name in FUNCTIONS}}


def _sums() -> list[Json]:
    cases: list[Json] = []
    for shape, dims, elements in _SUMS:
        x = tensor(elements, *shape)
        made: dict[str, Json] = {"shape": list(shape), "dims": list(dims), "elements": list(elements)}
        cases.append(made | {"sum": bits(sum_along(x, dims)), "mean": bits(mean_along(x, dims))})
    return cases


def _into_places() -> list[Json]:
    cases: list[Json] = []
    for shape, dim, index, size in (
        ((5, 3), 0, (2, 0, 2, 2, 0), 4),
        ((2, 4, 3), 1, (1, 1, 0, 1), 2),
        ((3,), 0, (0, 0, 0), 1),
    ):
        x = tensor(mixed(prod(shape), start=dim + 31), *shape)
        places = torch.tensor(index)
        result = sum_by_index(x, dim, places, size)
        each = places.view([-1 if d == dim else 1 for d in range(len(shape))]).expand(shape)
        each = (each + torch.arange(prod(shape)).view(shape)) % size
        into = [size if d == dim else n for d, n in enumerate(shape)]
        cases.append(
            {
                "shape": list(shape),
                "elements": bits(x),
                "dim": dim,
                "size": size,
                "index": list(index),
                "by_index": bits(result),
                "indices": each.flatten().tolist(),
                "by_indices": bits(sum_by_indices(x, dim, each, into)),
            }
        )
    return cases


def function_vectors() -> Json:
    """The contents of `functions.json`."""
    return {
        "about": (
            "docs/spec/arithmetic.md. A float32 is 8 hexadecimal digits, its bits; tensors are row-major. "
            "`functions`: each function's results at all `arguments`, in their order. `sums`: the sum and "
            "the mean along `dims`; no dims stand for all. `into_places`: slices along `dim` added up at the "
            "positions of `index`, and elements at those of `indices`, which has the shape of the elements; "
            "`size` is that of `dim` in the result."
        ),
        "functions": _functions(),
        "sums": _sums(),
        "into_places": _into_places(),
    }
