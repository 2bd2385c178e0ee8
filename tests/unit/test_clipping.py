"""Clipping has the bits of `torch.nn.utils.clip_grad_norm_`, and its JSON form is strict."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gradseal.errors import MalformedBundle, ReplayError, UnknownKind
from gradseal.program.clipping import ClipNorm, clip_from_fields
from gradseal.program.memory import to_bytes
from gradseal.proof.canonical import decode, encode, float_to_bits
from gradseal.proof.fields import Fields

SHAPES = [(), (17,), (5, 7), (0,), (33, 65), (2, 3, 5), (300, 301)]


def of_torch(gradients: dict[str, torch.Tensor], max_norm: float) -> dict[str, torch.Tensor]:
    parameters = {}
    for name, gradient in gradients.items():
        parameters[name] = nn.Parameter(torch.zeros_like(gradient))
        parameters[name].grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_(parameters.values(), max_norm)
    return {name: p.grad for name, p in parameters.items() if p.grad is not None}


def check(gradients: dict[str, torch.Tensor], max_norm: float) -> None:
    before = {name: gradient.clone() for name, gradient in gradients.items()}
    clipped = ClipNorm(max_norm=max_norm).apply(gradients)
    expected = of_torch(gradients, max_norm)
    assert list(clipped) == list(expected)
    for name, gradient in expected.items():
        assert clipped[name].dtype == gradient.dtype
        assert to_bytes(clipped[name]) == to_bytes(gradient), name
        assert to_bytes(gradients[name]) == to_bytes(before[name]), name


def random(shapes: list[tuple[int, ...]], dtypes: list[torch.dtype]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(len(shapes))
    return {
        str(i): torch.randn(shape, generator=generator).to(dtypes[i % len(dtypes)])
        for i, shape in enumerate(shapes)
    }


@pytest.mark.parametrize("max_norm", [1e-9, 0.1, 1.0, 3.0, 250.0, 1e9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_bits_of_torch(dtype: torch.dtype, max_norm: float) -> None:
    check(random(SHAPES, [dtype]), max_norm)
    check(random([(17,)] * 40, [dtype]), max_norm)


@settings(max_examples=60)
@given(
    numbers=st.lists(st.floats(width=32), min_size=1, max_size=9),
    max_norm=st.floats(min_value=1e-6, max_value=1e6),
)
def test_any_numbers_infinite_ones_included(numbers: list[float], max_norm: float) -> None:
    half = len(numbers) // 2
    check({"b": torch.tensor(numbers[:half]), "a": torch.tensor(numbers[half:])}, max_norm)


def test_a_transposed_gradient_counts_as_laid_out() -> None:
    gradient = torch.randn(40, 50, generator=torch.Generator().manual_seed(0))
    clipped = ClipNorm(max_norm=0.1).apply({"a": gradient.T})
    assert to_bytes(clipped["a"]) == to_bytes(of_torch({"a": gradient.T.contiguous()}, 0.1)["a"])


def test_without_gradients() -> None:
    assert ClipNorm(max_norm=1.0).apply({}) == {}


def test_what_has_no_norm() -> None:
    with pytest.raises(ReplayError, match="cannot be clipped"):
        ClipNorm(max_norm=1.0).apply({"a": torch.ones(2, dtype=torch.int64)})


def read(value: Any) -> ClipNorm:
    return clip_from_fields(Fields(decode(encode(value), where="c", max_bytes=1000), "c"))


def test_json_round_trip() -> None:
    own = ClipNorm(max_norm=0.3)
    assert own.to_json() == {"kind": "norm", "max": float_to_bits(0.3)}
    assert read(own.to_json()) == own


@pytest.mark.parametrize("number", [0.0, -1.0, float("nan"), float("inf")])
def test_bounds(number: float) -> None:
    with pytest.raises(MalformedBundle, match="not positive and finite"):
        read({"kind": "norm", "max": float_to_bits(number)})


def test_malformed_json() -> None:
    with pytest.raises(UnknownKind):
        read({"kind": "value", "max": float_to_bits(1.0)})
    for value in ({"kind": "norm"}, {"kind": "norm", "max": 1}, {**ClipNorm(max_norm=1.0).to_json(), "p": 2}):
        with pytest.raises(MalformedBundle):
            read(value)
