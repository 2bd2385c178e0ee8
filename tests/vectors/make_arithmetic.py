"""Vectors of docs/spec/arithmetic.md: `arithmetic.json`."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from gradseal.program.exact.convolution import (
    Window,
    conv2d,
    conv2d_input_gradient,
    conv2d_weight_gradient,
)
from gradseal.program.exact.digits import digits, fixed_point, leading
from gradseal.program.exact.products import matmul
from gradseal.proof.canonical import Json

ONE, MINUS_ONE, HALF, TENTH = "3f800000", "bf800000", "3f000000", "3dcccccd"
ZERO, MINUS_ZERO, INFINITY, MINUS_INFINITY, NAN = "00000000", "80000000", "7f800000", "ff800000", "ffc00001"
LEAST, SUBNORMAL, NORMAL, LARGEST = "00000001", "807fffff", "00800000", "7f7fffff"

VECTORS = (
    (),
    (ZERO, MINUS_ZERO),
    (ONE,),
    (LEAST,),
    (LEAST, SUBNORMAL, "00000400"),
    (LARGEST, "ff7fffff", ONE, LEAST),
    (NORMAL, SUBNORMAL, "80000001"),
    ("3f7fffff", "bf7fffff", TENTH, "bdcccccd", HALF),
    # Ties of the rounding to an integer: 1/2, 3/2, 5/2 and −1/2, −3/2 units beside 1.
    (ONE, "32000000", "32c00000", "33200000", "b2000000", "b2c00000"),
    # Each digit at its bounds: 63 and −64, and the carry between them.
    (HALF, "3defdfbf", "be081020", "34fc0000", "35000000", "b5000000", "b5020000"),
)
NOT_FINITE = ((INFINITY,), (MINUS_INFINITY, ONE), (ZERO, NAN), (INFINITY, MINUS_INFINITY))

Rows = Sequence[Sequence[str]]
PRODUCTS: tuple[tuple[Rows, Rows], ...] = (
    (((ONE, TENTH), ("c0490fdb", "402df854")), ((TENTH, ONE, ZERO), (HALF, MINUS_ONE, MINUS_ZERO))),
    # Cancellation: exact in fixed point, to +0.
    (((ONE, MINUS_ONE),), ((TENTH,), (TENTH,))),
    # Zeros of either sign give +0.
    (((MINUS_ZERO, ZERO), (MINUS_ZERO, MINUS_ONE)), ((ONE,), (ZERO,))),
    # What is far below its row's largest element is lost.
    (((LARGEST, ONE),), ((ZERO,), (ONE,))),
    # Overflow, of either sign, and the largest float32.
    (((LARGEST, LARGEST), (LARGEST, ZERO)), ((ONE, MINUS_ONE), (ONE, MINUS_ONE))),
    # Subnormal results, ties to even, and what is rounded to zero from below.
    (((NORMAL,), ("80800001",), ("00800003",)), ((HALF, "3e800000", "34000000", "33000000", "01000000"),)),
    # A result of rows and columns that are not finite.
    (((INFINITY, ONE), (ONE, ONE), (ZERO, NAN)), ((ONE, ZERO), (ONE, MINUS_INFINITY))),
    (((INFINITY, MINUS_ZERO),), ((ZERO,), (ONE,))),
    # 64 · 64 in the first digit, for units that saturate.
    (((LARGEST,) * 64, ("ff7fffff",) * 64), (("3f7fffff", "bf7fffff"),) * 64),
)

LONG = (
    # Sums beyond 2^53: 2^53 + 2^29 + 1 is no tie, and the next integer below it would be.
    (
        ((2**20, "4cffffff"), (1, "4c000000"), (1, "4c000000"), (1, "4a000000")),
        ((2**20, "4cffffff"), (1, "4c800000"), (1, "4c000000"), (1, ONE)),
    ),
    (((3000, TENTH), (2000, "bf19999a")), ((1, ONE), (4999, "3eaaaaab"))),
)


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


def _vectors() -> list[Json]:
    cases: list[Json] = []
    for elements in VECTORS:
        own = fixed_point(tensor(elements, len(elements)), 0)
        columns = [d.tolist() for d in digits(leading(own.integers))]
        cases.append(
            {
                "elements": list(elements),
                "exponent": int(own.exponents[0]),
                "integers": own.integers.tolist(),
                "digits": [list(row) for row in zip(*columns, strict=True)],
            }
        )
    return cases


def _products() -> list[Json]:
    pairs = [(_flat(a), _flat(b), (len(a), len(b), len(b[0]))) for a, b in PRODUCTS]
    pairs += [
        (mixed(m * k, start=m), mixed(k * n, start=n + 1000), (m, k, n))
        for m, k, n in ((3, 7, 4), (2, 70, 3))
    ]
    pairs.append(([], [], (2, 0, 1)))
    return [
        {"shape": list(shape), "a": list(a), "b": list(b), "result": bits(_product(a, b, shape))}
        for a, b, shape in pairs
    ]


def _flat(rows: Rows) -> list[str]:
    return [element for row in rows for element in row]


def _product(a: Sequence[str], b: Sequence[str], shape: tuple[int, int, int]) -> Tensor:
    m, k, n = shape
    return matmul(tensor(a, m, k), tensor(b, k, n))


def _long() -> list[Json]:
    cases: list[Json] = []
    for a, b in LONG:
        row, column = (torch.cat([tensor([e], 1).expand(count) for count, e in runs]) for runs in (a, b))
        result = matmul(row[None], column[:, None])
        cases.append({"a": [list(r) for r in a], "b": [list(r) for r in b], "result": bits(result)})
    return cases


def _convolutions() -> list[Json]:
    cases: list[Json] = []
    for stride, padding, dilation, groups in (
        ((1, 1), (1, 1), (1, 1), 1),
        ((2, 1), (0, 2), (1, 2), 2),
        ((2, 3), (3, 1), (1, 1), 1),
    ):
        shape, kernel = (2, 2, 5, 6), (2, 2 // groups, 2, 3)
        window = Window(stride=stride, padding=padding, dilation=dilation, groups=groups)
        x, weight = (tensor(mixed(prod(s), start=7 * i), *s) for i, s in ((1, shape), (2, kernel)))
        result = conv2d(x, weight, window)
        gradient = tensor(mixed(result.numel(), start=21), *result.shape)
        back = conv2d_input_gradient(gradient, weight, window, (5, 6))
        own = conv2d_weight_gradient(gradient, x, window, (2, 3))
        tensors = {"x": x, "weight": weight, "result": result, "gradient": gradient}
        tensors |= {"input_gradient": back, "weight_gradient": own}
        cases.append(
            {
                "stride": list(stride),
                "padding": list(padding),
                "dilation": list(dilation),
                "groups": groups,
                **{name: {"shape": list(t.shape), "elements": bits(t)} for name, t in tensors.items()},
            }
        )
    return cases


def arithmetic() -> Json:
    """The contents of `arithmetic.json`."""
    return {
        "about": (
            "docs/spec/arithmetic.md. A float32 is 8 hexadecimal digits, its bits; tensors are row-major. "
            "`fixed_point` (section 2): a vector's exponent, its integers, and the four digits of each. "
            "`not_finite`: vectors without. `products` (section 3): a of shape (m, k), b of shape (k, n), "
            "`shape` is [m, k, n]. `long_products`: a row times a column, each a list of [count, element]. "
            "`convolutions`: with the gradients of the image x and of the weight; `gradient` is the result's."
        ),
        "fixed_point": _vectors(),
        "not_finite": [list(elements) for elements in NOT_FINITE],
        "products": _products(),
        "long_products": _long(),
        "convolutions": _convolutions(),
    }
