"""Variants of numerics: rounding to the bit, order within a batch, what is offered and what is left out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from gradseal.errors import Error
from gradseal.program import native
from gradseal.program.graph import Graph, Input, Node, Ref
from gradseal.program.native import attainable, current_environment
from gradseal.study.noise.measure import round_marks
from gradseal.study.noise.numerics import (
    BFLOAT16_BITS,
    TF32_BITS,
    Products,
    reordered,
    rounded,
    variants_for,
)

ENVIRONMENT = replace(current_environment(), threads=1, cpu_capability="DEFAULT")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.0, 1.0),
        (1 + 2**-10, 1 + 2**-10),
        (1 + 2**-11, 1.0),  # a tie, to even
        (1 + 3 * 2**-11, 1 + 2 * 2**-10),  # a tie, to even: up
        (1 + 2**-11 + 2**-23, 1 + 2**-10),
        (-(1 + 3 * 2**-11), -(1 + 2**-9)),
        (2 - 2**-23, 2.0),  # carries into the exponent
        (3.4028234663852886e38, math.inf),
        (0.0, 0.0),
        (math.inf, math.inf),
        (-math.inf, -math.inf),
        (2**-149, 0.0),
    ],
)
def test_tf32_rounds_to_ten_bits_ties_to_even(value: float, expected: float) -> None:
    assert rounded(torch.tensor([value]), TF32_BITS).item() == expected


def test_not_a_number_stays_one_and_other_types_stay_as_they_are() -> None:
    payload = torch.tensor([0x7F800001], dtype=torch.int32).view(torch.float32)  # its low bits would vanish
    assert rounded(payload, TF32_BITS).isnan().all()
    wide = torch.tensor([1 + 2**-20], dtype=torch.float64)
    assert rounded(wide, TF32_BITS) is wide


def test_bfloat16_rounds_as_torch_does() -> None:
    numbers = torch.randn(10_000, generator=torch.Generator().manual_seed(3)) * 1e3
    assert torch.equal(rounded(numbers, BFLOAT16_BITS), numbers.bfloat16().float())


def test_products_are_rounded_and_nothing_else() -> None:
    fine = torch.tensor([[1 + 2**-12]])
    one = torch.ones(1, 1)
    with Products("tf32"):
        product, total, biased = fine @ one, fine + one, torch.addmm(fine, one, fine)
    assert product.item() == 1.0
    assert total.item() == fine.item() + 1
    assert biased.item() == fine.item() + 1.0  # what is added is not multiplied


def test_float64_products_are_rounded_once() -> None:
    a = torch.tensor([[1.0, 2**-30, -1.0]])
    b = torch.ones(3, 1)
    with Products("float64"):
        product = a @ b
    assert product.dtype is torch.float32
    assert product.item() == 2**-30


@pytest.mark.parametrize("precision", ["float64", "tf32", "bf16"])
def test_convolutions_and_their_gradients_go_through_the_mode(precision: str) -> None:
    images = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    weights = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(2))
    forward = (None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)

    def both() -> tuple[torch.Tensor, ...]:
        out = torch.ops.aten.convolution.default(images, weights, *forward)
        back = torch.ops.aten.convolution_backward.default(
            out, images, weights, None, *forward[1:], [True, True, False]
        )
        return out, back[0], back[1]

    plain = both()
    with Products(precision):
        changed = both()
    for a, b in zip(plain, changed, strict=True):
        assert b.dtype is torch.float32
        assert 0 < float((a - b).norm() / a.norm()) < 0.02


def test_a_batch_keeps_its_samples_and_their_leaves_together() -> None:
    images, classes = torch.arange(12.0).view(6, 2), torch.arange(6)
    first = reordered([images, classes], 4)
    assert sorted(first[1].tolist()) == list(range(6))
    assert first[1].tolist() != list(range(6))
    assert torch.equal(first[0], images[first[1]])
    assert torch.equal(reordered([images, classes], 4)[1], first[1])
    assert any(not torch.equal(reordered([images, classes], n)[1], first[1]) for n in range(3))


def _graph(*operators: str) -> Graph:
    nodes = [Node(operator=name, args=(Ref(0),), kwargs={}) for name in operators]
    return Graph(inputs=(Input(kind="batch", key=0),), nodes=tuple(nodes), loss=0, gradients={}, buffers={})


def test_another_order_is_left_out_where_the_graph_draws() -> None:
    offered, left_out = variants_for(ENVIRONMENT, graphs=[_graph("aten.relu.default")])
    assert "order" in [v.name for v in offered]
    offered, left_out = variants_for(ENVIRONMENT, graphs=[_graph("aten.bernoulli.default")])
    assert "order" not in [v.name for v in offered]
    assert "aten.bernoulli.default draws" in left_out["order"]


def test_what_is_the_base_itself_or_not_here_is_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(native, "_flags", lambda: frozenset(["avx2", "fma"]))
    offered, left_out = variants_for(ENVIRONMENT)
    names = [v.name for v in offered]
    assert left_out["threads 1"] == "is the base itself"
    assert left_out["width avx512"] == "the processor does not have it"
    assert "width avx2" in names
    assert "float64" in names
    assert not {"tf32", "bf16"} & {*names, *left_out}
    assert {"tf32", "bf16"} <= {v.name for v in variants_for(ENVIRONMENT, "reduced")[0]}


def test_a_width_that_is_not_here_becomes_the_widest_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = replace(ENVIRONMENT, cpu_capability="AVX512")
    monkeypatch.setattr(native, "_flags", lambda: frozenset(["avx2", "fma"]))
    assert attainable(wide).cpu_capability == "AVX2"
    monkeypatch.setattr(native, "_flags", lambda: frozenset(["sse2"]))
    assert attainable(wide).cpu_capability == "DEFAULT"
    monkeypatch.setattr(native, "_flags", lambda: None)  # nobody says: it is tried
    assert attainable(wide) == wide


def test_a_family_that_is_none_is_refused() -> None:
    with pytest.raises(Error, match="no family of numerics is called 'half'"):
        variants_for(ENVIRONMENT, "half")


def test_marks_are_round_numbers_and_the_end() -> None:
    assert round_marks(1) == (1,)
    assert round_marks(5) == (1, 2, 5)
    assert round_marks(10) == (1, 2, 5, 10)
    assert round_marks(30) == (1, 2, 5, 10, 20, 30)
