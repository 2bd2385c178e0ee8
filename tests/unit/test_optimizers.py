"""SGD has the bits of `torch.optim.SGD`, and its JSON form is strict."""

from __future__ import annotations

import struct
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gradseal.errors import CaptureError, MalformedBundle
from gradseal.program.capture_optimizer import capture_optimizer, momentum_of
from gradseal.program.memory import to_bytes
from gradseal.program.optimizers import SGD, SGDGroup, momentum_name, optimizer_from_fields
from gradseal.proof.canonical import decode, encode
from gradseal.proof.fields import Fields


class Three(nn.Module):
    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(values[:5]))
        self.b = nn.Parameter(torch.tensor(values[5:9]).view(2, 2))
        self.idle = nn.Parameter(torch.tensor(values[9:]))


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer, named: SGD) -> dict[str, torch.Tensor]:
    parameters = dict(model.named_parameters())
    state = {f"parameters/{n}": p.detach().clone() for n, p in parameters.items()}
    for name, owner in named.tensors():
        kept = momentum_of(optimizer, parameters[owner])
        state[name] = torch.zeros_like(parameters[owner].detach()) if kept is None else kept.clone()
    return state


def same_steps(
    model: nn.Module,
    optimizer: torch.optim.SGD,
    gradients: list[dict[str, torch.Tensor]],
) -> None:
    named = capture_optimizer(optimizer, model)
    state = state_of(model, optimizer, named)
    for step, given_ in enumerate(gradients):
        for name, p in model.named_parameters():
            p.grad = given_[name].clone() if name in given_ else None
        optimizer.step()
        named.update(state, given_, step)
        for name, p in model.named_parameters():
            assert to_bytes(p) == to_bytes(state[f"parameters/{name}"]), (step, name)
            kept = momentum_of(optimizer, p)
            if kept is not None and momentum_name(name) in state:
                assert to_bytes(kept) == to_bytes(state[momentum_name(name)]), (step, name)


FLOATS = st.one_of(
    st.floats(width=32, allow_nan=False),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), 1e-40]),
)
SETTINGS = st.fixed_dictionaries(
    {
        "lr": st.sampled_from([0.0, 0.1, 1e-3, 3.0]),
        "momentum": st.sampled_from([0.0, 0.9, 0.5]),
        "dampening": st.sampled_from([0.0, 0.25]),
        "weight_decay": st.sampled_from([0.0, 5e-4, 0.1]),
        "nesterov": st.booleans(),
    }
)


def legal(options: dict[str, Any]) -> dict[str, Any]:
    nesterov = options["nesterov"] and options["momentum"] > 0 and options["dampening"] == 0
    return options | {"nesterov": nesterov}


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(FLOATS, min_size=12, max_size=12),
    numbers=st.lists(FLOATS, min_size=27, max_size=27),
    first=SETTINGS,
    second=SETTINGS,
    foreach=st.sampled_from([None, True, False]),
    warm=st.booleans(),
)
def test_the_bits_of_torch(
    values: list[float],
    numbers: list[float],
    first: dict[str, Any],
    second: dict[str, Any],
    foreach: bool | None,
    warm: bool,
) -> None:
    model = Three(values)
    groups: list[dict[str, Any]] = [{"params": [model.a]}, {"params": [model.b, model.idle]}]
    groups = [group | legal(options) for group, options in zip(groups, (first, second), strict=True)]
    optimizer = torch.optim.SGD(groups, foreach=foreach)
    if warm:
        for p in model.parameters():
            p.grad = torch.full_like(p, 0.25)
        optimizer.step()
    steps = [
        {"a": torch.tensor(numbers[i : i + 5]), "b": torch.tensor(numbers[i + 5 : i + 9]).view(2, 2)}
        for i in (0, 9, 18)
    ]
    same_steps(model, optimizer, steps)


def test_a_wide_tensor_and_a_transposed_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(37, 53)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4, nesterov=True)
    steps = [
        {
            "weight": torch.randn(37, 53, generator=generator).T,
            "bias": torch.randn(53, generator=generator),
        }
        for _ in range(4)
    ]
    named = capture_optimizer(optimizer, model)
    state = state_of(model, optimizer, named)
    for step, given_ in enumerate(steps):
        model.weight.grad, model.bias.grad = given_["weight"].contiguous(), given_["bias"]
        optimizer.step()
        named.update(state, given_, step)
    assert to_bytes(model.weight) == to_bytes(state["parameters/weight"])


def test_gradients_are_only_read() -> None:
    group = SGDGroup(parameters=("a",), lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True)
    gradient = torch.tensor([1.0, 2.0])
    state = {"parameters/a": torch.ones(2), momentum_name("a"): torch.zeros(2)}
    for step in range(2):
        SGD(groups=(group,)).update(state, {"a": gradient}, step)
    assert gradient.tolist() == [1.0, 2.0]


def test_warm_is_noticed() -> None:
    model = Three([1.0] * 12)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    assert not capture_optimizer(optimizer, model).warm
    model.a.grad = torch.ones(5)
    optimizer.step()
    with pytest.raises(CaptureError, match="some parameters and not for others"):
        capture_optimizer(optimizer, model)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert capture_optimizer(optimizer, model).warm


def test_names_and_groups() -> None:
    model = Three([1.0] * 12)
    model.idle.requires_grad_(False)
    groups: list[dict[str, Any]] = [{"params": [model.b], "lr": 0.5}, {"params": [model.a, model.idle]}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    named = capture_optimizer(optimizer, model)
    assert list(named.parameters()) == ["b", "a"]
    assert [g.lr for g in named.groups] == [0.5, 0.1]
    assert list(named.tensors()) == []


@pytest.mark.parametrize("option", [{"maximize": True}, {"differentiable": True}, {"fused": True}])
def test_options_without_a_replay(option: dict[str, bool]) -> None:
    model = Three([1.0] * 12)
    with pytest.raises(CaptureError, match=next(iter(option))) as e:
        capture_optimizer(torch.optim.SGD(model.parameters(), lr=0.1, **option), model)
    assert e.value.where == "optimizer.param_groups[0]"
    assert e.value.advice


def test_optimizers_that_are_refused() -> None:
    model = Three([1.0] * 12)
    with pytest.raises(CaptureError, match="Adam"):
        capture_optimizer(torch.optim.Adam(model.parameters()), model)
    with pytest.raises(CaptureError, match="lr is a tensor"):
        capture_optimizer(torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1)), model)
    with pytest.raises(CaptureError, match="no parameter of the model"):
        capture_optimizer(torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1), model)
    for p in model.parameters():
        p.requires_grad_(False)
    with pytest.raises(CaptureError, match="trains no parameter"):
        capture_optimizer(torch.optim.SGD(model.parameters(), lr=0.1), model)


def read(value: Any) -> SGD:
    return optimizer_from_fields(Fields(decode(encode(value), where="o", max_bytes=10**6), "o"))


def test_json_round_trip() -> None:
    nan = struct.unpack(">d", bytes.fromhex("7ff8000000000001"))[0]
    group = SGDGroup(parameters=("a", "b"), lr=-0.0, momentum=0.9, dampening=nan, nesterov=True)
    own = SGD(groups=(group, SGDGroup(parameters=("c",), lr=0.1)), warm=True)
    assert encode(read(own.to_json()).to_json()) == encode(own.to_json())


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(name="adam"),
        lambda v: v.update(more=1),
        lambda v: v.update(warm=1),
        lambda v: v["groups"][0].update(lr=1),
        lambda v: v["groups"][0].update(parameters=[1]),
        lambda v: v["groups"][0].update(parameters=["a", "a"]),
        lambda v: v["groups"].append(v["groups"][0]),
        lambda v: v["groups"][0].pop("nesterov"),
    ],
)
def test_malformed_json(change: Any) -> None:
    value = SGD(groups=(SGDGroup(parameters=("a",), lr=0.1),)).to_json()
    change(value)
    with pytest.raises(MalformedBundle):
        read(value)
