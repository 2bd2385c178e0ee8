"""Fills are noted as rules, and whatever else wrote a tensor makes it given."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
from torch import nn

from gradseal.program.initialise import initialise, rule_for
from gradseal.program.memory import dtype_name
from gradseal.program.rules import Constant, Normal, NormalButRow, Range, Rule, TruncatedNormal, Uniform
from gradseal.program.scalars import Named
from gradseal.program.tensors import TensorSpec


def built(make: Callable[[], nn.Module]) -> nn.Module:
    with initialise():
        return make()


def rules_of(model: nn.Module) -> dict[str, Rule | None]:
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    shapes = [tuple(t.shape) for t in tensors.values()]
    return {
        n: rule_for(TensorSpec(name=n, dtype=dtype_name(t.dtype), shape=tuple(t.shape)), t.detach(), shapes)
        for n, t in tensors.items()
    }


def free(rules: dict[str, Rule | None]) -> int:
    return sum(rule.free_bytes() for rule in rules.values() if rule is not None)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(12, 5),
        lambda: nn.Linear(2, 1),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv1d(2, 2, 5, bias=False)),
        lambda: nn.Embedding(9, 4),
        lambda: nn.Embedding(9, 4, padding_idx=0),
        lambda: nn.LSTM(5, 6, 2),
        lambda: nn.GRU(5, 6, 2),
        lambda: nn.MultiheadAttention(8, 2),
        lambda: nn.TransformerEncoderLayer(8, 2, 16),
        lambda: nn.ConvTranspose2d(3, 4, 3),
        lambda: nn.Sequential(nn.PReLU(), nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.Bilinear(3, 4, 5)),
    ],
)
def test_layers_follow_from_rules_without_free_bytes(make: Callable[[], nn.Module]) -> None:
    rules = rules_of(built(make))
    assert [n for n, rule in rules.items() if rule is None] == []
    assert free(rules) == 0


def test_kinds_of_fills() -> None:
    rules = rules_of(built(lambda: nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 3), nn.BatchNorm1d(3))))
    assert rules["0.weight"] == Normal(mean=Named(name="0"), std=Named(name="1"))
    assert isinstance(rules["1.weight"], Uniform)
    assert rules["2.running_var"] == Constant(number=Named(name="1"))
    assert rules["2.num_batches_tracked"] == Constant(number=Named(name="0"))


def test_one_element_keeps_the_rule_it_was_drawn_by() -> None:
    rules = rules_of(built(lambda: nn.Linear(2, 1)))
    assert isinstance(rules["bias"], Uniform)


def test_one_element_drawn_with_more_free_numbers_is_a_constant() -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.empty(1))
            nn.init.uniform_(self.w, 0.137, 0.731)

    assert isinstance(rules_of(built(One))["w"], Constant)


def test_a_truncated_normal_is_one_fill() -> None:
    def make() -> nn.Module:
        layer = nn.Linear(40, 30)
        nn.init.trunc_normal_(layer.weight, std=0.02, a=-0.04, b=0.04)
        return layer

    zero, std = Named(name="0"), Named(name="0.02")
    assert rules_of(built(make))["weight"] == TruncatedNormal(
        mean=zero, std=std, low=Named(name="-0.04"), high=Named(name="0.04")
    )
    before = nn.init._no_grad_trunc_normal_
    with initialise():
        assert nn.init._no_grad_trunc_normal_ is not before
    assert nn.init._no_grad_trunc_normal_ is before


@pytest.mark.parametrize("moved", [torch.float64, torch.bfloat16, torch.float16])
def test_a_model_cast_inside_keeps_its_rules(moved: torch.dtype) -> None:
    plain = rules_of(built(lambda: nn.Linear(12, 5)))
    assert rules_of(built(lambda: nn.Linear(12, 5).to(moved))) == plain
    assert rules_of(built(lambda: nn.Linear(12, 5).to("cpu"))) == plain


def test_an_embedding_keeps_its_padding_at_zero() -> None:
    rules = rules_of(built(lambda: nn.Embedding(9, 4, padding_idx=3)))
    assert rules["weight"] == NormalButRow(mean=Named(name="0"), std=Named(name="1"), row=Named(name="3"))
    rules = rules_of(built(lambda: nn.Embedding(9, 4, padding_idx=8)))
    assert free(rules) == 8


def test_positions_are_a_range_whoever_counted() -> None:
    model = nn.Module()
    model.register_buffer("positions", torch.arange(512).expand(1, -1).contiguous())
    assert rules_of(model)["positions"] == Range(start=Named(name="0"), step=Named(name="1"))


def test_the_last_fill_counts() -> None:
    def make() -> nn.Module:
        layer = nn.Linear(12, 5)
        nn.init.normal_(layer.weight, std=0.02)
        return layer

    assert rules_of(built(make))["weight"] == Normal(mean=Named(name="0"), std=Named(name="0.02"))


@torch.no_grad()
def _scaled(layer: nn.Linear) -> None:
    layer.weight.mul_(0.5)


@torch.no_grad()
def _partial(layer: nn.Linear) -> None:
    layer.weight[0].normal_()


@torch.no_grad()
def _copied(layer: nn.Linear) -> None:
    layer.weight.copy_(torch.arange(60.0).view(5, 12))


@torch.no_grad()
def _one_element(layer: nn.Linear) -> None:
    layer.weight[2, 3] = 0.25


@torch.no_grad()
def _zeroed_column(layer: nn.Linear) -> None:
    layer.weight[:, 2].zero_()


@torch.no_grad()
def _two_zeroed_rows(layer: nn.Linear) -> None:
    nn.init.normal_(layer.weight)
    layer.weight[1].zero_()
    layer.weight[2].zero_()


@torch.no_grad()
def _row_of_ones(layer: nn.Linear) -> None:
    nn.init.normal_(layer.weight)
    layer.weight[1].fill_(1.0)


@torch.no_grad()
def _part_of_a_row(layer: nn.Linear) -> None:
    nn.init.normal_(layer.weight)
    layer.weight[1, :3].zero_()


CHANGES: list[Callable[[nn.Linear], object]] = [
    _scaled,
    _partial,
    _copied,
    _one_element,
    _zeroed_column,
    _two_zeroed_rows,
    _row_of_ones,
    _part_of_a_row,
    lambda layer: nn.init.orthogonal_(layer.weight),
    lambda layer: layer.load_state_dict({"weight": torch.arange(60.0).view(5, 12), "bias": torch.ones(5)}),
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("inside", [True, False])
def test_whatever_else_writes_makes_it_given(change: Callable[[nn.Linear], object], inside: bool) -> None:
    layer = nn.Linear(1, 1)

    def make() -> nn.Module:
        nonlocal layer
        layer = nn.Linear(12, 5)
        if inside:
            change(layer)
        return layer

    model = built(make)
    if not inside:
        change(layer)
    assert rules_of(model)["weight"] is None


def test_constants_go_by_content_whoever_wrote_them() -> None:
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.copy_(torch.zeros(2))
    rules = rules_of(layer)
    assert rules["weight"] == Constant(number=Named(name="1"))
    assert rules["bias"] == Constant(number=Named(name="0"))
    with torch.no_grad():
        layer.weight.fill_(0.7311)
    assert free(rules_of(layer)) == 8


def test_models_built_outside_are_given() -> None:
    assert rules_of(nn.Linear(12, 5))["weight"] is None


def test_memory_that_is_used_again_keeps_no_rule() -> None:
    model = built(lambda: nn.Linear(64, 64))
    del model
    gc.collect()
    assert all(rules_of(nn.Linear(64, 64))[n] is None for n in ("weight", "bias"))


def test_free_scalars_are_kept_exactly() -> None:
    def make() -> nn.Module:
        layer = nn.Linear(12, 5)
        nn.init.uniform_(layer.weight, 0.7311, 0.7312)
        return layer

    rule = rules_of(built(make))["weight"]
    assert isinstance(rule, Uniform)
    assert (rule.low.value(), rule.high.value(), rule.free_bytes()) == (0.7311, 0.7312, 16)
