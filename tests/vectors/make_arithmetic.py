"""Vectors of docs/spec/arithmetic.md: `arithmetic.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from gradseal.program.exact.convolution import (
    Window,
    conv2d,
    conv2d_input_gradient,
    conv2d_weight_gradient,
)
from gradseal.program.exact.digits import digits, fixed_point
from gradseal.program.exact.products import Realisation, bmm, matmul
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
    # Ties of the rounding to an integer, 1/2, 3/2, 5/2, −1/2 and −3/2 units beside 1; next to a tie.
    (ONE, "33800000", "34400000", "34a00000", "b3800000", "b4400000", "33800001", "337fffff"),
    # Each digit at its bounds: 63 and −64, and the carry between them.
    ("3f7fffff", "3d7dfbf0", "bd810200", "36800000", "367c0000", "b6800000", "b6820000", "3a010000"),
)
NOT_FINITE = ((INFINITY,), (MINUS_INFINITY, ONE), (ZERO, NAN), (INFINITY, MINUS_INFINITY))

HOW = Realisation.FLOAT64

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
    # Sums halfway between two floats, to even; and with 2^-46 more, or less.
    (
        ((ONE, "39800000", "34000000"), ("3f800001", "39800000", "34000000"), ("bf800000", "b9800000", ZERO)),
        ((ONE, ONE, ONE), ("39800000", "39800000", "39800000"), (ZERO, "34000000", "b4000000")),
    ),
    # A result of rows and columns that are not finite.
    (((INFINITY, ONE), (ONE, ONE), (ZERO, NAN)), ((ONE, ZERO), (ONE, MINUS_INFINITY))),
    (((INFINITY, MINUS_ZERO),), ((ZERO,), (ONE,))),
    # More than 32 products of the largest integers, of equal and of alternating signs.
    (((LARGEST,) * 33, (LARGEST, "ff7fffff", LARGEST) * 11), (("3f7fffff", "bf7fffff"),) * 33),
)

Runs = tuple[tuple[int, str], ...]
POWERS: Mapping[int, str] = {0: ONE, 18: "48800000", 23: "4b000000"}
LONG: tuple[tuple[Runs, Runs], ...] = (
    # 2^60 + 2^36 and 1, 0 or −1 more: as a float64 first, each would be a tie.
    *(
        (((2**14, POWERS[23]), (1, POWERS[18]), (1, last)), ((2**14, POWERS[23]), (1, POWERS[18]), (1, ONE)))
        for last in (ONE, ZERO, MINUS_ONE)
    ),
    # The same below zero.
    (
        ((2**14, POWERS[23]), (1, POWERS[18]), (1, ONE)),
        ((2**14, "cb000000"), (1, "c8800000"), (1, MINUS_ONE)),
    ),
    # The largest integers, and their cancellation to one product.
    (((1000, "3f7fffff"),), ((1000, "3f7fffff"),)),
    (((1000, "3f7fffff"), (999, "bf7fffff")), ((1999, "3f7fffff"),)),
    (((3000, TENTH), (2000, "bf19999a")), ((1, ONE), (4999, "3eaaaaab"))),
)

# Shape and strides of each operand, in the elements of a sequence.
BATCHES = (
    ((2, 3, 5), (17, 5, 1), (2, 5, 4), (23, 1, 5)),
    ((3, 2, 4), (1, 0, 3), (3, 4, 3), (0, 2, 7)),
    ((2, 5, 6), (30, 1, 5), (2, 6, 13), (78, 13, 1)),
)


Shape = tuple[int, int, int, int]
Pair = tuple[int, int]
Changes = tuple[tuple[str, Shape, str], ...]


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
        own = fixed_point(tensor(elements, len(elements)), (0,))
        columns = [d.tolist() for d in digits(own.integers)]
        cases.append(
            {
                "elements": list(elements),
                "exponent": int(own.exponents[0]),
                "integers": [int(q) for q in own.integers.tolist()],
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
    return matmul(tensor(a, m, k), tensor(b, k, n), realisation=HOW)


def _long() -> list[Json]:
    cases: list[Json] = []
    for a, b in LONG:
        row, column = (torch.cat([tensor([e], 1).expand(count) for count, e in runs]) for runs in (a, b))
        result = matmul(row[None], column[:, None], realisation=HOW)
        cases.append({"a": [list(r) for r in a], "b": [list(r) for r in b], "result": bits(result)})
    return cases


def _batches() -> list[Json]:
    cases: list[Json] = []
    for (a, a_strides, b, b_strides), start in zip(BATCHES, (1, 301, 601), strict=True):
        sides = []
        for shape, strides, first in ((a, a_strides, start), (b, b_strides, start + 100)):
            size = 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
            sides.append((mixed(size, start=first), shape, strides))
        left, right = (tensor(e, len(e)).as_strided(shape, strides) for e, shape, strides in sides)
        case: dict[str, Json] = {
            name: {"elements": list(elements), "shape": list(shape), "strides": list(strides)}
            for name, (elements, shape, strides) in zip("ab", sides, strict=True)
        }
        cases.append({**case, "result": bits(bmm(left, right, realisation=HOW))})
    return cases


CONVOLUTIONS = (
    # x, kernel, stride, padding, dilation, groups.
    ((2, 2, 5, 6), (2, 2, 2, 3), (1, 1), (1, 1), (1, 1), 1),
    ((2, 2, 5, 6), (2, 1, 2, 3), (2, 1), (0, 2), (1, 2), 2),
    ((2, 2, 5, 6), (2, 2, 2, 3), (2, 3), (3, 1), (1, 1), 1),
    ((1, 4, 4, 4), (6, 2, 1, 1), (2, 2), (0, 0), (1, 1), 2),
    ((1, 3, 1, 9), (2, 3, 1, 3), (1, 2), (0, 4), (1, 3), 1),
    ((1, 1, 2, 40), (1, 1, 2, 34), (1, 1), (0, 0), (1, 1), 1),
)

# Put into the first of these convolutions: operand, position, element.
CORNERS = (
    (
        ("x", (1, 1, 0, 0), INFINITY),
        ("weight", (0, 1, 1, 2), NAN),
        ("gradient", (0, 1, 2, 2), MINUS_INFINITY),
    ),
    (("x", (0, 0, 2, 2), LARGEST), ("weight", (1, 0, 0, 0), LARGEST), ("gradient", (1, 0, 0, 0), LARGEST)),
    (("x", (0, 1, 2, 2), LEAST), ("weight", (1, 0, 0, 0), MINUS_ZERO), ("gradient", (1, 0, 0, 0), SUBNORMAL)),
)


def _convolutions() -> list[Json]:
    cases = [_convolution(*geometry, ()) for geometry in CONVOLUTIONS]
    return cases + [_convolution(*CONVOLUTIONS[0], changes) for changes in CORNERS]


def _convolution(
    shape: Shape, kernel: Shape, stride: Pair, padding: Pair, dilation: Pair, groups: int, changes: Changes
) -> Json:
    window = Window(stride=stride, padding=padding, dilation=dilation, groups=groups)
    operands = {"x": tensor(mixed(prod(shape), start=7), *shape)}
    operands["weight"] = tensor(mixed(prod(kernel), start=14), *kernel)
    out = conv2d(operands["x"], operands["weight"], window, realisation=HOW).shape
    operands["gradient"] = tensor(mixed(out.numel(), start=21), *out)
    for name, position, element in changes:
        operands[name][position] = tensor([element], 1)[0]
    x, weight, gradient = operands["x"], operands["weight"], operands["gradient"]
    sides, places = (shape[2], shape[3]), (kernel[2], kernel[3])
    results = {
        "result": conv2d(x, weight, window, realisation=HOW),
        "input_gradient": conv2d_input_gradient(gradient, weight, window, sides, realisation=HOW),
        "weight_gradient": conv2d_weight_gradient(gradient, x, window, places, realisation=HOW),
    }
    return {
        "stride": list(stride),
        "padding": list(padding),
        "dilation": list(dilation),
        "groups": groups,
        **{
            name: {"shape": list(t.shape), "elements": bits(t)} for name, t in {**operands, **results}.items()
        },
    }


def arithmetic() -> Json:
    """The contents of `arithmetic.json`."""
    return {
        "about": (
            "docs/spec/arithmetic.md. A float32 is 8 hexadecimal digits, its bits; tensors are row-major. "
            "`fixed_point` (section 2): a vector's exponent, its integers, and the four digits of each. "
            "`not_finite`: vectors without. `products` (section 3): a of shape (m, k), b of shape (k, n), "
            "`shape` is [m, k, n]. `batches`: element (i, j, k) of an operand is the one at i, j and k times "
            "its strides. `long_products`: a row times a column, each a list of [count, element]. "
            "`convolutions`: with the gradients of the image x and of the weight; `gradient` is the result's."
        ),
        "fixed_point": _vectors(),
        "not_finite": [list(elements) for elements in NOT_FINITE],
        "products": _products(),
        "batches": _batches(),
        "long_products": _long(),
        "convolutions": _convolutions(),
    }
