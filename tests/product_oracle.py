"""Sums of products of exact arithmetic in Python's integers and fractions, and every way to compute them.

Shares no code with the package: it follows docs/spec/arithmetic.md, one element at a time. A float32 is its
bits, an integer.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import torch
from hypothesis import strategies as st
from torch import Tensor

from gradseal.program.exact import kernel
from gradseal.program.exact.products import Realisation

NAN = 0x7FC00000
LARGEST = 0x7F7FFFFF


def number(bits: int) -> Fraction | None:
    """The value of a float32; None of what is not finite."""
    sign, biased, fraction = bits >> 31, bits >> 23 & 0xFF, bits & 0x7FFFFF
    if biased == 0xFF:
        return None
    magnitude = fraction if biased == 0 else (fraction | 0x800000) << (biased - 1)
    return Fraction(-magnitude if sign else magnitude, 2**149)


def written(vector: Sequence[int]) -> tuple[int, list[int]] | None:
    """Section 2: the exponent of a vector and its elements as integers."""
    numbers = [number(bits) for bits in vector]
    finite = [x for x in numbers if x is not None]
    if len(finite) < len(numbers):
        return None
    exponent, largest = -149, max(map(abs, finite), default=Fraction(0))
    while largest >= Fraction(2) ** exponent:
        exponent += 1
    return exponent, [round(x * Fraction(2) ** (24 - exponent)) for x in finite]


def rounded(value: Fraction) -> int:
    """The bits of the nearest float32, ties to even; a zero is positive."""
    if value == 0:
        return 0
    quantum = Fraction(1, 2**149)
    while abs(value) >= quantum * 2**24:
        quantum *= 2
    count = round(value / quantum)
    if abs(count) * quantum >= 2**128:
        return 0x7F800000 if value > 0 else 0xFF800000
    if count == 0:
        return 0
    # What a float32 holds is not rounded by its conversion.
    return int.from_bytes(struct.pack(">f", float(count * quantum)), "big")


def dot(row: Sequence[int], column: Sequence[int]) -> int:
    """Section 3: one result."""
    a, b = written(row), written(column)
    if a is None or b is None:
        return NAN
    total = sum(x * y for x, y in zip(a[1], b[1], strict=True))
    return rounded(total * Fraction(2) ** (a[0] + b[0] - 48))


def tensor(words: Sequence[int], *shape: int) -> Tensor:
    """float32 of these bits."""
    signed = [w - 2**32 if w >= 2**31 else w for w in words]
    return torch.tensor(signed, dtype=torch.int32).view(torch.float32).reshape(shape)


def bits(x: Tensor) -> list[int]:
    """The bits of a float32 tensor's elements in row-major order."""
    assert x.dtype is torch.float32
    return [word & 0xFFFFFFFF for word in x.contiguous().view(torch.int32).flatten().tolist()]


def words(elements: Sequence[str]) -> list[int]:
    """The bits that hexadecimal digits write."""
    return [int(e, 16) for e in elements]


# Neighbours of what matters: zeros, subnormals, ones, the largest; any magnitude; and what is not finite.
PATTERNS = st.one_of(
    st.integers(0, 2**32 - 1),
    st.floats(-8, 8, width=32).map(lambda x: int.from_bytes(struct.pack(">f", x), "big")),
    st.sampled_from(
        [0, 1, 0x7FFFFF, 0x800000, 0x3F800000, 0x3F7FFFFF, LARGEST, 0x7F800000, 0x7FC00001]
    ).flatmap(lambda word: st.sampled_from([word, word | 0x80000000])),
)


def finite(word: int) -> int:
    """A float32 with another exponent, if it is not finite."""
    return word & 0xBFFFFFFF if word & 0x7F800000 == 0x7F800000 else word


def spread_out(seed: int, *shape: int) -> Tensor:
    """Numbers over 60 binary orders of magnitude, a tenth of them the largest in magnitude."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 2**23, shape, generator=generator, dtype=torch.int32)
    x |= torch.randint(70, 130, shape, generator=generator, dtype=torch.int32) << 23
    x = torch.where(torch.rand(shape, generator=generator) < 0.1, 0x417FFFFF, x)
    x |= torch.randint(0, 2, shape, generator=generator, dtype=torch.int32) << 31
    return x.view(torch.float32)


def extreme(kind: str, seed: int, *shape: int) -> Tensor:
    """Operands whose sums of products are as large as can be, or cancel, or vary much.

    Args:
        kind: `largest`, `alternating`, `signs`, `uniform`, `heavy` or `normal`.
        seed: Of what is random.
        shape: Of the result.
    """
    generator = torch.Generator().manual_seed(seed)
    largest = torch.full(shape, 2.0 - 2.0**-23)
    normal = torch.randn(shape, generator=generator)
    if kind == "largest":
        return largest
    if kind == "alternating":
        return largest * (1 - 2 * (torch.arange(largest.numel()) % 2)).reshape(shape)
    if kind == "signs":
        return largest * normal.sign()
    if kind == "uniform":
        return torch.rand(shape, generator=generator)
    return (3 * normal).exp() * normal.sign() if kind == "heavy" else normal


EXTREMES = ["largest", "alternating", "signs", "uniform", "heavy", "normal"]


def _builds() -> list[str]:
    widths = {"AVX512": ["avx512", "avx2", "baseline"], "AVX2": ["avx2", "baseline"]}
    return [
        name
        for name in widths.get(torch.backends.cpu.get_cpu_capability(), ["baseline"])
        if _library(name).is_file()
    ]


def _library(name: str) -> Path:
    return Path(kernel.__file__).with_name(f"_kernel_{name}.so")


WAYS = ["float64", "int8", *_builds()]
"""The realisations, of the kernel each build that this processor can run."""


@contextmanager
def way(name: str) -> Iterator[Realisation]:
    """One of the ways, as what to ask for; of the kernel, that build is what is loaded."""
    if name in {"float64", "int8"}:
        yield Realisation(name)
        return
    before, own = kernel.library, ctypes.CDLL(str(_library(name)))
    kernel.library = lambda: own  # type: ignore[assignment]  # it is cached
    try:
        yield Realisation.KERNEL
    finally:
        kernel.library = before


@contextmanager
def threads(count: int) -> Iterator[None]:
    """PyTorch's operators, and the kernel, with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
