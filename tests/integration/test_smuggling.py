"""Stolen weights brought into a run of one's own: counted as free bytes, and initialisation is not shown.

The run itself is true: its steps were computed as recorded. So it is accepted by no policy that demands that
the weights started where the seed says, and integrity, data and computation stay shown.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from bundles import check, cross_entropy, digits, record_run, statuses
from gradseal.verify.policy import Policy
from gradseal.verify.verdict import Check, Outcome, Result, Verdict

PIXELS, CLASSES = 32, 10
STOLEN_BYTES = 4 * PIXELS * CLASSES


@pytest.fixture(scope="module")
def stolen() -> torch.Tensor:
    """The weights of a victim's model, of shape (10, 32)."""
    torch.manual_seed(1)
    victim = nn.Linear(PIXELS, CLASSES)
    optimizer = torch.optim.SGD(victim.parameters(), lr=0.5, momentum=0.9)
    images, classes = digits().tensors
    for _ in range(50):
        optimizer.zero_grad()
        loss = functional.cross_entropy(victim(_pixels(images)), classes)
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
        optimizer.step()
    assert loss < 0.1
    return victim.weight.detach().clone()


def _pixels(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1)[:, PIXELS // 2 : PIXELS // 2 + PIXELS]


class Honest(nn.Module):
    """What the thief's model looks like from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Linear(PIXELS, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.classify(_pixels(images))
        return scores


class Lifted(Honest):
    """Keeps the stolen weights as an attribute, which tracing lifts into a constant."""

    def __init__(self, stolen: torch.Tensor) -> None:
        super().__init__()
        self.stolen = stolen

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) + functional.linear(_pixels(images), self.stolen)


class Buffered(Honest):
    """Keeps them as a buffer."""

    stolen: torch.Tensor

    def __init__(self, stolen: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("stolen", stolen)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) + functional.linear(_pixels(images), self.stolen)


class Scattered(nn.Module):
    """One parameter for each number, each made by a rule that leaves it no choice."""

    def __init__(self, stolen: torch.Tensor, fill: Callable[[torch.Tensor, float], object]) -> None:
        super().__init__()
        self.numbers = nn.ParameterList(nn.Parameter(torch.empty(1)) for _ in range(stolen.numel()))
        for number, value in zip(self.numbers, stolen.flatten().tolist(), strict=True):
            fill(number, value)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weight = torch.cat(list(self.numbers)).view(CLASSES, PIXELS)
        return functional.linear(_pixels(images), weight)


def exactly(number: torch.Tensor, value: float) -> object:
    return nn.init.constant_(number, value)


def almost_exactly(number: torch.Tensor, value: float) -> object:
    """By a range, a deviation or a truncation that is next to nothing."""
    match round(abs(value) * 1e6) % 3:
        case 0:
            return nn.init.uniform_(number, value, value + 1e-9)
        case 1:
            return nn.init.normal_(number, value, 1e-9)
        case _:
            return nn.init.trunc_normal_(number, value, 1e-9, value - 1e-9, value + 1e-9)


class Written(Honest):
    """Has the stolen numbers in its code, so that they stand in the graph."""

    def __init__(self, stolen: torch.Tensor) -> None:
        super().__init__()
        self._numbers = stolen.double().tolist()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = _pixels(images)
        scores = [sum(pixels[:, i] * number for i, number in enumerate(row)) for row in self._numbers]
        return super().forward(images) + torch.stack(scores, dim=1)


class Listed(Honest):
    """Makes a tensor of them in its forward pass."""

    def __init__(self, stolen: torch.Tensor) -> None:
        super().__init__()
        self._numbers = stolen.tolist()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) + functional.linear(_pixels(images), torch.tensor(self._numbers))


class Whole(Honest):
    """Has them as whole numbers, to be divided."""

    def __init__(self, stolen: torch.Tensor) -> None:
        super().__init__()
        self._numbers = (stolen.double() * 2**20).round().long().tolist()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = _pixels(images) / 2**20
        scores = [sum(pixels[:, i] * number for i, number in enumerate(row)) for row in self._numbers]
        return super().forward(images) + torch.stack(scores, dim=1)


class Indexed(Honest):
    """Takes each out of a range, by its index."""

    def __init__(self, stolen: torch.Tensor) -> None:
        super().__init__()
        self._indexes = ((stolen.double() + 8) * 2**16).round().long().flatten().tolist()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scale = torch.arange(2**20) / 2**16 - 8
        weight = torch.stack([scale[index] for index in self._indexes]).view(CLASSES, PIXELS)
        return super().forward(images) + functional.linear(_pixels(images), weight)


def pull(stolen: torch.Tensor) -> Callable[[nn.Module, Any], torch.Tensor]:
    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        weight, _ = model.parameters()
        return cross_entropy(model, batch) + ((weight - stolen) ** 2).sum()

    return loss


def plain(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def warm(stolen: torch.Tensor, model: nn.Module) -> torch.optim.SGD:
    """Momentum that takes the first step to the stolen weights."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=1.0)
    for parameter in model.parameters():
        kept = (parameter.detach() - stolen) / 0.5 if parameter.dim() == 2 else torch.zeros_like(parameter)
        optimizer.state[parameter]["momentum_buffer"] = kept
    return optimizer


def each_its_own(stolen: torch.Tensor, model: nn.Module) -> torch.optim.SGD:
    """A group for each number, whose hyperparameters take it to the stolen weights."""
    rates = stolen.flatten().double().abs().tolist()
    groups = [{"params": [p], "lr": rate} for p, rate in zip(model.parameters(), rates, strict=True)]
    return torch.optim.SGD(groups, lr=0.1)


def load(stolen: torch.Tensor, model: nn.Module) -> None:
    model.load_state_dict({"classify.weight": stolen, "classify.bias": torch.zeros(CLASSES)})


SMUGGLED: dict[str, Callable[[torch.Tensor], dict[str, Any]]] = {
    "a lifted constant": lambda w: {"build": partial(Lifted, w)},
    "a buffer": lambda w: {"build": partial(Buffered, w)},
    "an optimizer moment": lambda w: {"build": Honest, "optimizer": partial(warm, w)},
    "loaded afterwards": lambda w: {"build": Honest, "prepare": partial(load, w)},
    "degenerate rules": lambda w: {"build": partial(Scattered, w, almost_exactly)},
    "constant fills": lambda w: {"build": partial(Scattered, w, exactly)},
    "numbers in the code": lambda w: {"build": partial(Written, w)},
    "a list in the code": lambda w: {"build": partial(Listed, w)},
    "a pull in the loss": lambda w: {"build": Honest, "loss": pull(w)},
    "learning rates": lambda w: {
        "build": partial(Scattered, torch.zeros_like(w), exactly),
        "optimizer": partial(each_its_own, w),
    },
}

AS_INTEGERS: dict[str, Callable[[torch.Tensor], dict[str, Any]]] = {
    "whole numbers in the code": lambda w: {"build": partial(Whole, w)},
    "indexes in the code": lambda w: {"build": partial(Indexed, w)},
}
"""Ways of at most 20 bits a weight."""

HONEST: dict[str, dict[str, Any]] = {
    "the model": {"build": Honest},
    "with a buffer by rule": {"build": partial(Buffered, torch.zeros(CLASSES, PIXELS))},
    "with a constant by rule": {"build": partial(Lifted, torch.ones(CLASSES, PIXELS))},
    "many small parameters": {"build": partial(Scattered, torch.zeros(CLASSES, PIXELS), exactly)},
    "a pull to nothing": {"build": Honest, "loss": pull(torch.zeros(CLASSES, PIXELS))},
}


def free_bytes(verdict: Verdict) -> int:
    return sum(int(f.measured or 0) for f in verdict.findings if f.check is Check.FREE_BYTES)


def recorded_with(path: Path, **options: Any) -> Verdict:
    build = options.pop("build")
    record_run(path, build, **{"steps": 1, "every": 1, "drop_last": True, "optimizer": plain, **options})
    return check(path, Policy.named("full"))


@pytest.mark.parametrize("way", SMUGGLED)
def test_stolen_weights_are_free_bytes(stolen: torch.Tensor, tmp_path: Path, way: str) -> None:
    verdict = recorded_with(tmp_path / "bundle", **SMUGGLED[way](stolen))
    assert free_bytes(verdict) >= STOLEN_BYTES
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert not [f for f in verdict.findings if f.result in (Result.REFUTED, Result.UNDECIDED)]
    assert statuses(verdict) == {
        "integrity": "shown",
        "precedence": "not shown",
        "initialisation": "not shown",
        "data": "shown",
        "computation": "shown",
    }


@pytest.mark.parametrize("way", AS_INTEGERS)
def test_stolen_weights_as_integers_are_free_bytes(stolen: torch.Tensor, tmp_path: Path, way: str) -> None:
    verdict = recorded_with(tmp_path / "bundle", **AS_INTEGERS[way](stolen))
    assert free_bytes(verdict) >= STOLEN_BYTES // 2
    assert statuses(verdict)["initialisation"] == "not shown"


@pytest.mark.parametrize("way", HONEST)
def test_the_honest_twin_stays_shown(tmp_path: Path, way: str) -> None:
    verdict = recorded_with(tmp_path / "bundle", **HONEST[way])
    assert verdict.outcome is Outcome.ACCEPTED
    assert statuses(verdict)["initialisation"] == "shown"
    assert free_bytes(verdict) < 200
