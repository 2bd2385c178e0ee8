"""What is taken from a user's optimizer, what is refused by name, and what is put back into it."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

import gradseal
from gradseal.errors import CaptureError
from gradseal.program.capture_optimizer import (
    capture_optimizer,
    get_hyperparameter,
    kept_of,
    set_hyperparameter,
    set_steps,
    settings_of,
)
from gradseal.program.memory import to_bytes
from gradseal.record.live import LiveState

FAMILIES: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, amsgrad=True),
    "adamw": torch.optim.AdamW,
    "rmsprop": lambda p: torch.optim.RMSprop(p, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr_decay=0.1, initial_accumulator_value=0.5),
    "nadam": torch.optim.NAdam,
    "lion": lambda p: gradseal.Lion(p, weight_decay=0.1),
}


class Three(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.arange(5.0) - 2)
        self.b = nn.Parameter(torch.ones(2, 2))
        self.idle = nn.Parameter(torch.ones(()))


def give(model: Three, step: int, *, idle: bool = False) -> dict[str, torch.Tensor]:
    """Gradients of a step, which are also put where torch looks for them."""
    generator = torch.Generator().manual_seed(step)
    found = {}
    for name, p in model.named_parameters():
        p.grad = torch.randn(p.shape, generator=generator) if idle or name != "idle" else None
        if p.grad is not None:
            found[name] = p.grad
    return found


def same(a: Three, b: Three) -> bool:
    return all(to_bytes(p) == to_bytes(q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_torch_goes_on_from_our_own_steps(family: str) -> None:
    model, ours = Three(), Three()
    optimizer, users = FAMILIES[family](model.parameters()), FAMILIES[family](ours.parameters())
    named = capture_optimizer(users, ours)
    live = LiveState(ours, users, named)
    for step in range(6):
        give(model, step)
        optimizer.step()
        gradients = give(ours, step)
        if step in (1, 2, 4):
            with torch.no_grad():
                named.update(live.tensors(), gradients, step)
            live.install_kept(gradients, step + 1)
        else:
            live.settle(step)
            users.step()
        assert same(model, ours)
    live.settle(6)
    state, own = optimizer.state_dict()["state"], users.state_dict()["state"]
    assert {n: {k: v.tolist() for k, v in s.items()} for n, s in own.items()} == {
        n: {k: v.tolist() for k, v in s.items()} for n, s in state.items()
    }
    assert {k: v.dtype for s in own.values() for k, v in s.items()} == {
        k: v.dtype for s in state.values() for k, v in s.items()
    }


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_state_is_loaded(family: str, steps: int) -> None:
    model = Three()
    optimizer = FAMILIES[family](model.parameters())
    live = LiveState(model, optimizer, capture_optimizer(optimizer, model))
    for step in range(steps):
        give(model, step)
        optimizer.step()
    saved = {name: tensor.clone() for name, tensor in live.tensors().items()}

    other = Three()
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    again = FAMILIES[family](other.parameters())
    named = capture_optimizer(again, other)
    resumed = LiveState(other, again, named)
    resumed.load(saved, steps)
    loaded = resumed.tensors()
    assert {name: to_bytes(t) for name, t in loaded.items()} == {n: to_bytes(t) for n, t in saved.items()}
    for step in range(steps, steps + 3):
        give(model, step)
        optimizer.step()
        gradients = give(other, step)
        if step == steps + 1:
            with torch.no_grad():
                named.update(resumed.tensors(), gradients, step)
            resumed.install_kept(gradients, step + 1)
        else:
            resumed.settle(step)
            again.step()
        assert same(model, other)


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_before_are_counted(family: str) -> None:
    model = Three()
    optimizer = FAMILIES[family](model.parameters())
    assert capture_optimizer(optimizer, model).steps_before == 0
    for step in range(3):
        give(model, step, idle=True)
        optimizer.step()
    named = capture_optimizer(optimizer, model)
    assert named.steps_before == (3 if named.COUNTS else 1)
    live = LiveState(model, optimizer, named)
    assert all(
        live.tensors()[kept.name] is kept_of(optimizer, getattr(model, kept.parameter), kept.key)
        for kept in named.tensors()
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_state_for_some_parameters_only(family: str) -> None:
    model = Three()
    optimizer = FAMILIES[family](model.parameters())
    give(model, 0)
    optimizer.step()
    with pytest.raises(
        CaptureError, match=r"some parameters and not for others|has taken 0 steps for idle"
    ) as e:
        capture_optimizer(optimizer, model)
    assert e.value.advice


def test_unequal_counters() -> None:
    model = Three()
    optimizer = torch.optim.Adam(model.parameters())
    give(model, 0, idle=True)
    optimizer.step()
    give(model, 1)
    optimizer.step()
    with pytest.raises(CaptureError, match="has taken 1 steps for idle and 2 for a"):
        capture_optimizer(optimizer, model)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("step", torch.tensor(1.5), "1.5 steps"),
        ("step", torch.tensor(-1.0), "-1.0 steps"),
        ("step", torch.tensor(float("nan")), "nan steps"),
        ("step", torch.tensor(1.0, dtype=torch.float64), "counter"),
        ("step", 1, "counter"),
        ("exp_avg", torch.zeros(6), "not float32"),
        ("exp_avg", torch.zeros(5, dtype=torch.float64), "not float32"),
        ("exp_avg", 3.0, "not float32"),
    ],
)
def test_state_that_torch_did_not_make(key: str, value: object, message: str) -> None:
    model = Three()
    optimizer = torch.optim.Adam(model.parameters())
    give(model, 0, idle=True)
    optimizer.step()
    for p in model.parameters():
        optimizer.state[p][key] = value
    with pytest.raises(CaptureError, match=message):
        capture_optimizer(optimizer, model)


def test_names_groups_and_options() -> None:
    model = Three()
    model.idle.requires_grad_(False)
    groups: list[dict[str, Any]] = [{"params": [model.b], "lr": 0.5}, {"params": [model.a, model.idle]}]
    named = capture_optimizer(
        torch.optim.Adam(groups, lr=1, betas=(0.8, 0.9), foreach=True, decoupled_weight_decay=True), model
    )
    assert named.name == "adam"
    assert list(named.parameters()) == ["b", "a"]
    assert [g.lr for g in named.groups] == [0.5, 1.0]
    assert named.groups[0].to_json() == {**named.groups[0].to_json(), "foreach": True}
    assert all(
        (g.beta1, g.beta2, g.decoupled_weight_decay, g.foreach) == (0.8, 0.9, True, True)  # type: ignore[union-attr]
        for g in named.groups
    )


@pytest.mark.parametrize("option", ["maximize", "differentiable", "fused", "capturable"])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.NAdam])
def test_options_without_a_replay(kind: Any, option: str) -> None:
    model = Three()
    optimizer = kind(model.parameters())
    optimizer.param_groups[0][option] = True
    with pytest.raises(CaptureError, match=option) as e:
        capture_optimizer(optimizer, model)
    assert e.value.where == "optimizer.param_groups[0]"
    assert e.value.advice


class MyAdam(torch.optim.Adam):
    """A subclass may do anything."""


@pytest.mark.parametrize("kind", [torch.optim.Adadelta, torch.optim.RAdam, MyAdam])
def test_other_optimizers(kind: Any) -> None:
    model = Three()
    with pytest.raises(CaptureError, match=kind.__name__) as e:
        capture_optimizer(kind(model.parameters()), model)
    assert "AdamW" in e.value.advice


def test_numbers_that_are_tensors_or_out_of_bounds() -> None:
    model = Three()
    with pytest.raises(CaptureError, match="lr is a tensor"):
        capture_optimizer(torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1)), model)
    betas: Any = (torch.tensor(0.9), torch.tensor(0.99))
    optimizer = torch.optim.Adam(model.parameters())
    optimizer.param_groups[0]["betas"] = betas
    with pytest.raises(CaptureError, match="beta1 is a tensor"):
        capture_optimizer(optimizer, model)
    for option, value in (("lr", float("inf")), ("betas", (0.9, 1.0)), ("eps", -1.0), ("lr", "fast")):
        optimizer = torch.optim.Adam(model.parameters())
        optimizer.param_groups[0][option] = value
        with pytest.raises(CaptureError, match=r"lr|beta2|eps"):
            capture_optimizer(optimizer, model)


def test_parameters_that_cannot_be_trained() -> None:
    model = Three()
    with pytest.raises(CaptureError, match="no parameter of the model"):
        capture_optimizer(torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1), model)
    sparse = nn.Embedding(3, 2, sparse=True)
    with pytest.raises(CaptureError, match="sparse gradients"):
        capture_optimizer(torch.optim.SGD(sparse.parameters(), lr=0.1), sparse)
    waves = nn.Linear(2, 2, dtype=torch.complex64)
    with pytest.raises(CaptureError, match="complex"):
        capture_optimizer(torch.optim.Adam(waves.parameters()), waves)
    for p in model.parameters():
        p.requires_grad_(False)
    with pytest.raises(CaptureError, match="trains no parameter"):
        capture_optimizer(torch.optim.SGD(model.parameters(), lr=0.1), model)


def test_hooks() -> None:
    model = Three()
    optimizer = torch.optim.Adam(model.parameters())
    optimizer.register_step_pre_hook(lambda *_: None)
    with pytest.raises(CaptureError, match="hooks on its step"):
        capture_optimizer(optimizer, model)


def test_settings_name_every_option_and_do_not_change_with_it() -> None:
    model = Three()
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.5, 0.9))
    before = settings_of(optimizer)
    assert before["optimizer.param_groups[0].lr"] == 1e-3
    assert before["optimizer.param_groups[0].betas"] == (0.5, 0.9)
    kept = deepcopy(before)
    lr: Any = torch.tensor(0.1)
    optimizer.param_groups[0].update(lr=lr, betas=[0.6, 0.9])
    assert before == kept
    now = settings_of(optimizer)
    assert {name for name in now if now[name] != before[name]} == {
        "optimizer.param_groups[0].lr",
        "optimizer.param_groups[0].betas",
    }
    lr.fill_(0.2)
    assert settings_of(optimizer) != now


def test_hyperparameters_by_the_names_of_our_fields() -> None:
    model = Three()
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.5, 0.9))
    set_hyperparameter(optimizer, 0, "beta1", 0.25)
    set_hyperparameter(optimizer, 0, "lr", 0.125)
    assert optimizer.param_groups[0]["betas"] == (0.25, 0.9)
    assert [get_hyperparameter(optimizer, 0, field) for field in ("beta1", "beta2", "lr")] == [
        0.25,
        0.9,
        0.125,
    ]


def test_counters_are_set_only_where_there_is_state() -> None:
    model = Three()
    optimizer = torch.optim.Adam(model.parameters())
    named = capture_optimizer(optimizer, model)
    set_steps(optimizer, named, dict(model.named_parameters()), 7)
    assert not optimizer.state
    give(model, 0)
    optimizer.step()
    set_steps(optimizer, named, dict(model.named_parameters()), 2**30)
    assert optimizer.state[model.a]["step"].item() == 2.0**24
    assert model.idle not in optimizer.state
