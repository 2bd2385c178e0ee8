"""Runs for attacks on how the movement of weights is measured: what moves at random hides what does not.

In each the weights that count are known before any seed, and something else depends on the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import TensorDataset

from bundles import BATCH, KEY, SAMPLES, digits
from gradseal.program.initialise import initialise
from gradseal.record.recorder import record

Factor = Callable[[int], float]

_LONG = 20
_MOVES_IN = 5
_FAR_BEFORE = 18
_WIDTH = 256
"""So wide that chance has little to say of how long a step is."""
_SMALL = 1e-165
"""Its square is zero in double precision."""


class Classifier(nn.Module):
    """A linear classifier, and a parameter beside it that nothing reads.

    Args:
        beside: The elements of that parameter.
    """

    def __init__(self, beside: int = 16) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(64, 10))
        self.beside = nn.Parameter(torch.zeros(beside))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ self.weight


class Infinite(nn.Module):
    """With a number between the two that leaves the range of its dtype: what sorts by it sorts wrongly."""

    def __init__(self) -> None:
        super().__init__()
        self.beside = nn.Parameter(torch.zeros(40))
        self.number = nn.Parameter(torch.full((1,), 3e38))
        self.weight = nn.Parameter(torch.zeros(64, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ self.weight


class Tiny(nn.Module):
    """Weights in double precision whose squares vanish; the scores are of their usual size."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(64, 10, dtype=torch.float64))
        self.beside = nn.Parameter(torch.zeros(16))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1).double() @ (self.weight * (1 / _SMALL))


class Buffered(nn.Module):
    """Weights in a buffer, which the forward pass moves by the data; the only parameter is beside them."""

    weight: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(64, 10))
        self.beside = nn.Parameter(torch.zeros(16))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = images.flatten(1)
        scores = flat @ self.weight
        if self.training:
            self.weight.add_(flat.T @ (1.0 - scores.detach()), alpha=0.001)
        return scores


class Point(nn.Module):
    """Weights that samples pull at, begun far away from all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(_WIDTH))
        nn.init.normal_(self.weight, std=250.0)


def with_noise(model: Any, batch: Any) -> torch.Tensor:
    """The loss of a classifier; what is added has a gradient of the parameter beside it alone."""
    images, classes = batch
    return nn.functional.cross_entropy(model(images), classes) + _noise(model)


def _to_infinity(model: Any, batch: Any) -> torch.Tensor:
    unread: torch.Tensor = model.number
    return with_noise(model, batch) - unread.sum()


def _tiny(model: Any, batch: Any) -> torch.Tensor:
    images, classes = batch
    return nn.functional.cross_entropy(model(images), classes) * _SMALL + _noise(model).double()


def _of_the_batch(model: Any, batch: Any) -> torch.Tensor:
    """The noise is as loud as the images, since some gradient must depend on the data."""
    images, classes = batch
    loudness: torch.Tensor = images.square().mean()
    return nn.functional.cross_entropy(model(images), classes) + _noise(model) * loudness


def _noise(model: Any) -> torch.Tensor:
    noise = nn.functional.dropout(torch.ones_like(model.beside), 0.5)
    added: torch.Tensor = (model.beside * noise).sum()
    return added


def _pulled(model: Any, batch: Any) -> torch.Tensor:
    """A step of rate one ends at the mean of the batch's own targets, which are scattered."""
    scattered, _ = batch
    return _pull(model.weight, scattered)


def _pulled_home(model: Any, batch: Any) -> torch.Tensor:
    """A step of rate one ends at the target that all samples have, whichever they are."""
    _, exact = batch
    return _pull(model.weight, exact)


def _pull(weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return 0.5 * (weight - targets.mean(0)).square().sum()


def _targets() -> TensorDataset:
    generator = torch.Generator().manual_seed(3)
    target = torch.randn(_WIDTH, generator=generator)
    scatter = 13.0 * torch.randn(400, _WIDTH, generator=generator)
    return TensorDataset(target + scatter, target.expand(400, _WIDTH).clone())


def _recorded(
    build: Callable[[], nn.Module],
    rates: Mapping[str, float],
    loss: Callable[[Any, Any], torch.Tensor] = with_noise,
    factors: Sequence[Factor] = (),
    **options: Any,
) -> Callable[[Path], nn.Module]:
    """Records a run whose steps are segments.

    Args:
        build: Makes the model.
        rates: The learning rate of each parameter, by its name.
        loss: Of a batch.
        factors: Of each rate, by the step; without any, rates stay as they are.
        options: Of `record`.
    """
    usual = {"data": digits(), "batch_size": SAMPLES, "steps": 4, "every": 1, "key": KEY, "seed": 7}

    def made(path: Path) -> nn.Module:
        torch.manual_seed(0)
        with initialise():
            model = build()
        groups = [{"params": [model.get_parameter(name)], "lr": rate} for name, rate in rates.items()]
        optimizer = torch.optim.SGD(groups)
        if factors:
            options["schedule"] = LambdaLR(optimizer, list(factors))
        with record(path, model, optimizer, loss=loss, progress=False, **{**usual, **options}) as run:
            for batch in run:
                run.step(batch)
        return model

    return made


def _point(loss: Callable[[Any, Any], torch.Tensor]) -> Callable[[Path], nn.Module]:
    """With rate two a step goes as far beyond a target as it was before it, and so never nearer."""
    factors = [lambda step: 2.0 if step < _FAR_BEFORE else 1.0]
    return _recorded(Point, {"weight": 1.0}, loss, factors, data=_targets(), batch_size=BATCH, steps=_LONG)


MOVING: dict[str, Callable[[Path], nn.Module]] = {
    "far out": _point(_pulled),
    "homing": _point(_pulled_home),
    "moved once": _recorded(
        lambda: Classifier(beside=33),
        {"weight": 1.0, "beside": 1000.0},
        factors=[lambda step: float(step == _MOVES_IN), lambda step: float(step != _MOVES_IN)],
        steps=_LONG,
    ),
    "infinite beside": _recorded(Infinite, {"weight": 0.05, "beside": 0.05, "number": 3.3e38}, _to_infinity),
    "tiny weights": _recorded(Tiny, {"weight": _SMALL, "beside": 0.05}, _tiny),
    "weights in a buffer": _recorded(Buffered, {"beside": 0.05}, _of_the_batch),
}
"""Recorded with a declared seed, as those of `attack_world`."""
