"""Each optimizer has the bits of its namesake in torch, and its JSON form is strict."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gradseal
from gradseal.errors import MalformedBundle, ReplayError, UnknownKind
from gradseal.program.capture_optimizer import capture_optimizer, kept_of, set_hyperparameter
from gradseal.program.memory import to_bytes
from gradseal.program.optimizers import (
    SGD,
    Adagrad,
    AdagradGroup,
    Adam,
    AdamGroup,
    AdamW,
    AdamWGroup,
    Kept,
    Lion,
    LionGroup,
    NAdam,
    NAdamGroup,
    Optimizer,
    RMSprop,
    RMSpropGroup,
    SGDGroup,
    kept_name,
    optimizer_from_fields,
)
from gradseal.program.program import Program
from gradseal.program.tensors import TensorSpec
from gradseal.proof.canonical import decode, encode, float_to_bits
from gradseal.proof.fields import Fields

SHAPES: dict[str, tuple[int, ...]] = {
    "scalar": (),
    "odd": (17,),
    "matrix": (5, 7),
    "wide": (33, 65),
    "empty": (0,),
    "idle": (3,),
}
CASES: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p, **o: torch.optim.SGD(p, lr=0.1, **o),
    "sgd momentum": lambda p, **o: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.1, **o),
    "sgd nesterov": lambda p, **o: torch.optim.SGD(
        p, lr=0.03, momentum=0.9, nesterov=True, weight_decay=5e-4, **o
    ),
    "sgd nesterov without decay": lambda p, **o: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, **o),
    "sgd integers": lambda p, **o: torch.optim.SGD(p, lr=1, momentum=2, weight_decay=1, **o),
    "adam": torch.optim.Adam,
    "adam decay": lambda p, **o: torch.optim.Adam(p, lr=0.01, weight_decay=0.1, amsgrad=True, **o),
    "adam decoupled": lambda p, **o: torch.optim.Adam(
        p, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1, decoupled_weight_decay=True, **o
    ),
    "adam without memory": lambda p, **o: torch.optim.Adam(p, betas=(0.0, 0.0), eps=0.0, **o),
    "adamw": lambda p, **o: torch.optim.AdamW(p, lr=0.01, **o),
    "adamw amsgrad": lambda p, **o: torch.optim.AdamW(p, weight_decay=0.5, amsgrad=True, **o),
    "rmsprop": torch.optim.RMSprop,
    "rmsprop all": lambda p, **o: torch.optim.RMSprop(
        p, lr=0.02, alpha=0.9, momentum=0.5, centered=True, weight_decay=0.1, eps=0.1, **o
    ),
    "rmsprop momentum": lambda p, **o: torch.optim.RMSprop(p, momentum=0.5, **o),
    "rmsprop centered": lambda p, **o: torch.optim.RMSprop(p, centered=True, eps=1e-2, **o),
    "adagrad": torch.optim.Adagrad,
    "adagrad all": lambda p, **o: torch.optim.Adagrad(
        p, lr=0.3, lr_decay=0.07, weight_decay=0.1, initial_accumulator_value=0.3, eps=1e-3, **o
    ),
    "nadam": torch.optim.NAdam,
    "nadam decay": lambda p, **o: torch.optim.NAdam(
        p, lr=0.01, betas=(0.7, 0.9), weight_decay=0.1, momentum_decay=0.1, **o
    ),
    "nadam decoupled": lambda p, **o: torch.optim.NAdam(
        p, weight_decay=0.1, decoupled_weight_decay=True, **o
    ),
    "lion": lambda p, **_: gradseal.Lion(p, lr=0.01),
    "lion decay": lambda p, **_: gradseal.Lion(p, lr=0.01, betas=(0.8, 0.95), weight_decay=0.3),
}


class Model(nn.Module):
    """Parameters of every kind of shape, `idle` never with a gradient."""

    def __init__(self, dtype: torch.dtype = torch.float32, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        for name, shape in SHAPES.items():
            self.register_parameter(
                name, nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype))
            )

    def gradients(self, step: int) -> dict[str, torch.Tensor]:
        """Gradients of different sizes, some exactly zero."""
        generator = torch.Generator().manual_seed(1000 + step)
        found = {}
        for number, (name, p) in enumerate(self.named_parameters()):
            values = torch.randn(p.shape, generator=generator, dtype=torch.float64) * 10.0 ** (-number)
            values[values.abs() < 0.1 * 10.0 ** (-number)] = 0.0
            found[name] = values.to(p.dtype)
        del found["idle"]
        return found


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer, named: Optimizer) -> dict[str, torch.Tensor]:
    parameters = dict(model.named_parameters())
    state = {f"parameters/{n}": p.detach().clone() for n, p in parameters.items()}
    for kept in named.tensors():
        own = kept_of(optimizer, parameters[kept.parameter], kept.key)
        state[kept.name] = fresh(kept, parameters[kept.parameter]) if own is None else own.clone()
    return state


def fresh(kept: Kept, parameter: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(parameter.detach()) if kept.shape_like_parameter else torch.ones(())


def user_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, gradients: Mapping[str, torch.Tensor]
) -> None:
    for name, p in model.named_parameters():
        p.grad = gradients[name].clone() if name in gradients else None
    optimizer.step()


def check_same(
    model: nn.Module, optimizer: torch.optim.Optimizer, named: Optimizer, state: Mapping[str, torch.Tensor]
) -> None:
    parameters = dict(model.named_parameters())
    for name, p in parameters.items():
        assert to_bytes(p) == to_bytes(state[f"parameters/{name}"]), name
    for kept in named.tensors():
        own = kept_of(optimizer, parameters[kept.parameter], kept.key)
        if own is not None:
            assert to_bytes(own) == to_bytes(state[kept.name]), kept.name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("foreach", [None, False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_bits_of_torch_with_a_schedule(case: str, foreach: bool | None, dtype: torch.dtype) -> None:
    model = Model(dtype)
    halves = [[model.scalar, model.wide, model.idle], [model.odd, model.matrix, model.empty]]
    groups = [{"params": halves[0]}, {"params": halves[1], "lr": 0.02}]
    optimizer = CASES[case](groups, foreach=foreach)
    named = capture_optimizer(optimizer, model)
    state = state_of(model, optimizer, named)
    for step in range(20):
        values = {(0, "lr"): 0.1 / (step + 1)} if step % 3 else {(1, "lr"): 0.01 * step}
        for (group, field), value in values.items():
            set_hyperparameter(optimizer, group, field, value)
        gradients = model.gradients(step)
        user_step(model, optimizer, gradients)
        named = named.at(values)
        named.update(state, gradients, step)
        check_same(model, optimizer, named, state)


@pytest.mark.parametrize("case", CASES)
def test_going_on_from_steps_before(case: str) -> None:
    model = Model()
    trained = [p for name, p in model.named_parameters() if name != "idle"]
    optimizer = CASES[case](trained, foreach=False)
    for step in range(3):
        user_step(model, optimizer, model.gradients(step))
    named = capture_optimizer(optimizer, model)
    state = state_of(model, optimizer, named)
    for step in range(3):
        gradients = model.gradients(step)
        user_step(model, optimizer, gradients)
        named.update(state, gradients, step)
        check_same(model, optimizer, named, state)


@pytest.mark.parametrize("case", ["adam", "nadam decay", "rmsprop momentum", "lion", "sgd momentum"])
def test_a_schedule_of_every_field(case: str) -> None:
    model = Model()
    optimizer = CASES[case](model.parameters(), foreach=True)
    named = capture_optimizer(optimizer, model)
    state = state_of(model, optimizer, named)
    for step in range(8):
        values = {
            (0, field): 0.3 + 0.05 * step + 0.01 * number
            for number, field in enumerate(named.GROUP.SCHEDULABLE)
        }
        for (group, field), value in values.items():
            set_hyperparameter(optimizer, group, field, value)
        user_step(model, optimizer, model.gradients(step))
        named.at(values).update(state, model.gradients(step), step)
        check_same(model, optimizer, named, state)


@pytest.mark.parametrize("case", ["adam", "adagrad all", "nadam"])
def test_the_counter_of_torch_stops(case: str) -> None:
    model = Model()
    trained = [p for name, p in model.named_parameters() if name != "idle"]
    optimizer = CASES[case](trained)
    user_step(model, optimizer, model.gradients(0))
    for p in trained:
        optimizer.state[p]["step"].fill_(2.0**24 - 2)
    named = capture_optimizer(optimizer, model)
    assert named.steps_before == 2**24 - 2
    state = state_of(model, optimizer, named)
    for step in range(5):
        user_step(model, optimizer, model.gradients(step))
        named.update(state, model.gradients(step), step)
        check_same(model, optimizer, named, state)


FLOATS = st.one_of(
    st.floats(width=32, allow_nan=False),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), 1e-40]),
)


@settings(max_examples=60)
@given(
    numbers=st.lists(FLOATS, min_size=12, max_size=12),
    case=st.sampled_from(sorted(CASES)),
    foreach=st.booleans(),
)
def test_any_numbers(numbers: list[float], case: str, foreach: bool) -> None:
    model = nn.Module()
    model.register_parameter("a", nn.Parameter(torch.tensor(numbers[:3])))
    optimizer = CASES[case](model.parameters(), foreach=foreach)
    named = capture_optimizer(optimizer, model)
    state = state_of(model, optimizer, named)
    for step in range(3):
        gradients = {"a": torch.tensor(numbers[3 + 3 * step : 6 + 3 * step])}
        user_step(model, optimizer, gradients)
        named.update(state, gradients, step)
        check_same(model, optimizer, named, state)


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_only_read(case: str) -> None:
    model = Model()
    optimizer = CASES[case](model.parameters(), foreach=True)
    named = capture_optimizer(optimizer, model)
    state = state_of(model, optimizer, named)
    gradients = model.gradients(0)
    before = {name: gradient.clone() for name, gradient in gradients.items()}
    for step in range(2):
        named.update(state, gradients, step)
    assert all(torch.equal(gradients[name], before[name]) for name in before)


def test_a_transposed_gradient_is_laid_out_as_its_parameter() -> None:
    model = nn.Linear(37, 53)
    optimizer = torch.optim.Adam(model.parameters())
    named = capture_optimizer(optimizer, model)
    state = state_of(model, optimizer, named)
    generator = torch.Generator().manual_seed(0)
    for step in range(4):
        gradients = {"weight": torch.randn(37, 53, generator=generator).T}
        user_step(model, optimizer, {"weight": gradients["weight"].contiguous()})
        named.update(state, gradients, step)
        check_same(model, optimizer, named, state)


def test_lion_by_its_formula() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    optimizer = gradseal.Lion([weight], lr=0.5, betas=(0.5, 0.75), weight_decay=0.25)
    mean, own = [0.0, 0.0, 0.0], [1.0, -2.0, 0.5]
    for gradient in ([0.5, -1.0, 0.0], [-1.0, -0.25, 2.0]):
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        for i, g in enumerate(gradient):
            direction = 0.5 * mean[i] + 0.5 * g
            sign = (direction > 0) - (direction < 0)
            own[i] = own[i] * (1 - 0.5 * 0.25) - 0.5 * sign
            mean[i] = 0.75 * mean[i] + 0.25 * g
    assert weight.tolist() == own
    assert optimizer.state[weight]["exp_avg"].tolist() == mean


def test_lion_refuses_what_makes_no_sense() -> None:
    weight = [nn.Parameter(torch.ones(2))]
    for options in ({"lr": -1.0}, {"betas": (0.9, 1.0)}, {"weight_decay": float("nan")}):
        with pytest.raises(ValueError, match=r"is below 0|are not from 0"):
            gradseal.Lion(weight, **options)


def test_lion_takes_a_closure() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = gradseal.Lion([weight], lr=0.5)

    def closure() -> float:
        loss = weight.sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    assert optimizer.step(closure) == 2.0
    assert weight.tolist() == [0.5, 0.5]


ALL: list[Optimizer] = [
    SGD(groups=(SGDGroup(parameters=("a", "b"), lr=-0.0, momentum=0.9, nesterov=True),), steps_before=1),
    Adam(groups=(AdamGroup(parameters=("a", "b"), lr=0.1, amsgrad=True),), steps_before=1 << 40),
    AdamW(groups=(AdamWGroup(parameters=("a",), lr=0.1), AdamWGroup(parameters=("b",), lr=1.0))),
    RMSprop(groups=(RMSpropGroup(parameters=("a", "b"), lr=0.1, momentum=0.5, centered=True),)),
    Adagrad(groups=(AdagradGroup(parameters=("a", "b"), lr=0.1, foreach=True),)),
    NAdam(groups=(NAdamGroup(parameters=("a", "b"), lr=0.1),)),
    Lion(groups=(LionGroup(parameters=("a", "b"), lr=0.1),)),
]


def read(value: Any) -> Optimizer:
    return optimizer_from_fields(Fields(decode(encode(value), where="o", max_bytes=10**6), "o"))


@pytest.mark.parametrize("own", ALL, ids=lambda own: own.name)
def test_json_round_trip(own: Optimizer) -> None:
    assert read(own.to_json()) == own
    assert encode(read(own.to_json()).to_json()) == encode(own.to_json())


def test_tensors_in_the_written_order() -> None:
    names = {own.name: [kept.name for kept in own.tensors()] for own in ALL}
    keys = {
        "sgd": ["momentum_buffer"],
        "adam": ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"],
        "adamw": ["exp_avg", "exp_avg_sq"],
        "rmsprop": ["square_avg", "momentum_buffer", "grad_avg"],
        "adagrad": ["sum"],
        "nadam": ["mu_product", "exp_avg", "exp_avg_sq"],
        "lion": ["exp_avg"],
    }
    assert names == {name: [kept_name(p, key) for p in "ab" for key in own] for name, own in keys.items()}
    odd = [kept for own in ALL for kept in own.tensors() if not kept.shape_like_parameter]
    assert {(kept.key, kept.dtype) for kept in odd} == {("mu_product", "float32")}


@pytest.mark.parametrize("own", ALL, ids=lambda own: own.name)
@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(more=1),
        lambda v: v.update(steps_before=-1),
        lambda v: v.update(steps_before=2**40 + 1),
        lambda v: v.update(steps_before=True),
        lambda v: v.pop("steps_before"),
        lambda v: v["groups"][0].update(more=1),
        lambda v: v["groups"][0].update(lr=1),
        lambda v: v["groups"][0].update(lr=float_to_bits(float("nan"))),
        lambda v: v["groups"][0].update(weight_decay=float_to_bits(float("inf"))),
        lambda v: v["groups"][0].update(weight_decay=float_to_bits(-1.0)),
        lambda v: v["groups"][0].update(parameters=[1]),
        lambda v: v["groups"][0].update(parameters=["a", "a"]),
        lambda v: v["groups"].append(v["groups"][0]),
        lambda v: v["groups"][0].pop("lr"),
    ],
)
def test_malformed_json(own: Optimizer, change: Any) -> None:
    value = own.to_json()
    change(value)
    with pytest.raises(MalformedBundle):
        read(value)


@pytest.mark.parametrize("own", [own for own in ALL if not own.COUNTS], ids=lambda own: own.name)
def test_what_counts_no_updates_has_none_or_one_before(own: Optimizer) -> None:
    for count in (0, 1):
        assert read({**own.to_json(), "steps_before": count}).steps_before == count
    with pytest.raises(MalformedBundle):
        read({**own.to_json(), "steps_before": 2})


@pytest.mark.parametrize(
    ("own", "field", "value"),
    [
        (ALL[1], "beta1", 1.0),
        (ALL[1], "beta2", -0.1),
        (ALL[1], "eps", -1e-9),
        (ALL[3], "alpha", -0.5),
        (ALL[4], "lr_decay", -1.0),
        (ALL[5], "momentum_decay", -1e300),
        (ALL[6], "beta1", float("nan")),
    ],
)
def test_hyperparameters_that_torch_refuses_too(own: Optimizer, field: str, value: float) -> None:
    json: Any = own.to_json()
    json["groups"][0][field] = float_to_bits(value)
    with pytest.raises(MalformedBundle, match=field):
        read(json)


def test_an_unknown_optimizer() -> None:
    with pytest.raises(UnknownKind, match="shampoo"):
        read({**ALL[0].to_json(), "name": "shampoo"})


def test_a_schedule_keeps_within_bounds() -> None:
    own = ALL[1]
    assert own.at({(0, "lr"): -1e-20}).groups[0].lr == -1e-20
    with pytest.raises(ReplayError, match="beta1"):
        own.at({(0, "beta1"): 1.0})
    with pytest.raises(ReplayError, match="come or go"):
        ALL[0].at({(0, "momentum"): 0.0})


def test_what_cannot_be_computed_is_a_replay_error() -> None:
    state = {"parameters/a": torch.ones(2), kept_name("a", "sum"): torch.ones(2)}
    group = AdagradGroup(parameters=("a",), lr=1e300)
    with pytest.raises(ReplayError, match="cannot be computed"):
        Adagrad(groups=(group,)).update(state, {"a": torch.ones(2)}, 0)
    state = {"parameters/a": torch.ones(2)} | {
        kept_name("a", key): torch.ones(() if key == "mu_product" else 2)
        for key in ("mu_product", "exp_avg", "exp_avg_sq")
    }
    # A product that stays 1 divides by zero.
    one = NAdamGroup(
        parameters=("a",), lr=0.1, beta1=dataclasses.replace(NAdamGroup(parameters=(), lr=0.0)).beta1
    )
    state[kept_name("a", "mu_product")].fill_(1 / one._momentum(1.0))
    with pytest.raises(ReplayError, match="division"):
        NAdam(groups=(one,)).update(state, {"a": torch.ones(2)}, 0)


def program_of(own: Optimizer, layout: list[TensorSpec]) -> bytes:
    graphs = {1: bytes(32)}
    return Program(layout=tuple(layout), constants=(), graphs=graphs, optimizer=own).encode()


def layout_of(own: Optimizer) -> list[TensorSpec]:
    parameters = [TensorSpec(name=f"parameters/{p}", dtype="bfloat16", shape=(2, 3)) for p in "ab"]
    return parameters + [
        TensorSpec(
            name=kept.name,
            dtype=kept.dtype or "bfloat16",
            shape=(2, 3) if kept.shape_like_parameter else (),
        )
        for kept in own.tensors()
    ]


@pytest.mark.parametrize("own", ALL, ids=lambda own: own.name)
def test_a_program_has_exactly_the_tensors_that_are_kept(own: Optimizer) -> None:
    layout = layout_of(own)
    assert Program.decode(program_of(own, layout), where="p").optimizer == own
    last, stray = layout[-1], TensorSpec(name="optimizer/a/more", dtype="bfloat16", shape=(2, 3))
    for wrong, message in (
        (layout[:-1], "has no"),
        ([*layout[:-1], dataclasses.replace(last, shape=(3, 2))], "type and shape"),
        ([*layout[:-1], dataclasses.replace(last, dtype="float64")], "type and shape"),
        ([*layout, stray], "does not keep"),
        ([*layout[:2], last, *layout[2:-1]], "another order"),
    ):
        with pytest.raises(MalformedBundle, match=message):
            Program.decode(program_of(own, wrong), where="p")
