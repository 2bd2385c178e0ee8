"""How often the permutation test errs: runs without relation, runs with a pull, and runs related otherwise.

Short runs of a recipe, trained by plain loops of PyTorch with its loss, optimizer and data: the test looks at
W_0, W_end and the other weights only. Hidden units are those that the recipe's captured graph was shown to
have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import default_collate

from gradseal.attacks.attack import Setting
from gradseal.recipes.recipe import Recipe, load_recipe
from gradseal.study.endpoint.matching import hidden_units
from gradseal.study.endpoint.runs import RECIPE, hand_of
from gradseal.verify.pull import align
from gradseal.verify.symmetry import Group

Loss = Callable[[nn.Module, Any], torch.Tensor]
Numbers = dict[str, npt.NDArray[np.float64]]

NEIGHBOURS = 4
"""With how many other honest runs each is compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run's ends: parameters by their names in a state, and the model it ended as."""

    who: str
    first: Numbers
    last: Numbers
    model: nn.Module

    @property
    def update(self) -> Numbers:
        """W_end − W_0."""
        return {name: self.last[name] - own for name, own in self.first.items()}


@dataclass(kw_only=True)
class Trainer:
    """Trains the recipe for a number of steps.

    Args:
        seed: Of the study.
        steps: Of each run.
        batch_size: Samples in a batch.
    """

    seed: int
    steps: int
    batch_size: int
    recipe: Recipe = field(default_factory=lambda: load_recipe(RECIPE))

    def run(self, who: str, *, start: str = "", loss: Loss | None = None, after: Run | None = None) -> Run:
        """A run.

        Args:
            who: Decides its order and dropout.
            start: Decides its initialisation; by default `who` does.
            loss: Its loss, if not the recipe's.
            after: A run to go on from, in place of an initialisation.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._number(f"start of {start or who}"))
            model = self.recipe.build()
            if after is not None:
                model.load_state_dict(after.model.state_dict())
            first = _parameters(model)
            torch.manual_seed(self._number(f"order of {who}"))
            self._train(model, loss or self.recipe.loss)
        return Run(who=who, first=first, last=_parameters(model), model=model)

    def groups(self) -> tuple[Group, ...]:
        """The recipe's hidden units that may be permuted."""
        setting = Setting(steps=self.steps, every=self.steps, batch_size=self.batch_size)
        with closing(hand_of(self.recipe, setting, "groups", self.seed, {})) as hand:
            return hidden_units(hand.present(scratch=True))

    def draw(self, who: str) -> bytes:
        """The verifier's randomness for one test."""
        return hashlib.sha256(f"endpoint test {self.seed} {who}".encode()).digest()

    def _train(self, model: nn.Module, loss: Loss) -> None:
        optimizer = self.recipe.optimizer(model)
        order: list[int] = []
        for _ in range(self.steps):
            if len(order) < self.batch_size:
                order = torch.randperm(len(self.recipe.data)).tolist()
            batch = [self.recipe.data[order.pop()] for _ in range(self.batch_size)]
            optimizer.zero_grad()
            torch.autograd.backward(loss(model, default_collate(batch)))
            optimizer.step()

    def _number(self, who: str) -> int:
        return int.from_bytes(self.draw(who)[:7], "big")


def honest(*, seed: int, steps: int, batch_size: int, runs: int) -> dict[str, Any]:
    """The p of each honest run against some others: the next `NEIGHBOURS` of a ring."""
    trainer = Trainer(seed=seed, steps=steps, batch_size=batch_size)
    groups = trainer.groups()
    trained = [trainer.run(f"honest {i}") for i in range(runs)]
    pairs = [(i, (i + k) % runs) for i in range(runs) for k in range(1, min(NEIGHBOURS, runs - 1) + 1)]
    return {"runs": runs, "tests": [[i, j, _p(trainer, groups, trained[i], trained[j])] for i, j in pairs]}


def pulled(
    *, seed: int, steps: int, batch_size: int, runs: int, pulls: Sequence[float]
) -> list[dict[str, Any]]:
    """The p of runs that are each pulled to another's weights, by c·‖W − W_T‖² in the loss, for each c.

    Also what is left at the end of the way from the start to these weights; pulled runs of one number have
    the same target, start and order, whatever c.
    """
    trainer = Trainer(seed=seed, steps=steps, batch_size=batch_size)
    groups = trainer.groups()
    targets = [trainer.run(f"target {i}") for i in range(runs)]
    found = []
    for pull in pulls:
        p, left = [], []
        for i, target in enumerate(targets):
            own = trainer.run(f"pulled {i}", loss=_pulled(trainer.recipe.loss, target.model, pull))
            p.append(_p(trainer, groups, own, target))
            left.append(_distance(own.last, target.last) / _distance(own.first, target.last))
        found.append({"pull": pull, "p": p, "left": left})
    return found


def related(*, seed: int, steps: int, batch_size: int, runs: int) -> dict[str, Any]:
    """The p of runs that are related to the weights in other ways, by the way."""
    trainer = Trainer(seed=seed, steps=steps, batch_size=batch_size)
    groups = trainer.groups()
    found: dict[str, list[float]] = {}
    for i in range(runs):
        target = trainer.run(f"related target {i}")
        student = _soft(target.model)
        others = {
            "the very same run": target,
            "the same state zero, another order": trainer.run(f"twin {i}", start=f"related target {i}"),
            "fine-tuned from these weights": trainer.run(f"tuned {i}", after=target),
            "these weights distilled": trainer.run(f"student {i}", loss=student),
        }
        for how, own in others.items():
            found.setdefault(how, []).append(_p(trainer, groups, own, target))
    return {"p": found}


def _p(trainer: Trainer, groups: tuple[Group, ...], own: Run, other: Run) -> float:
    names = {axis.tensor for group in groups for axis in group.axes} & own.first.keys()
    update, target = ({name: held[name] for name in sorted(names)} for held in (own.update, other.last))
    return align(update, target, groups, draw=trainer.draw(f"{own.who} against {other.who}")).p


def _pulled(loss: Loss, target: nn.Module, pull: float) -> Loss:
    held = [parameter.detach() for parameter in target.parameters()]

    def with_pull(model: nn.Module, batch: Any) -> torch.Tensor:
        away = [(own - other).square().sum() for own, other in zip(model.parameters(), held, strict=True)]
        return loss(model, batch) + pull * torch.stack(away).sum()

    return with_pull


def _soft(teacher: nn.Module) -> Loss:
    """The cross entropy with a teacher's probabilities, as it says them of the batch at hand."""

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        with _evaluating(teacher), torch.no_grad():
            soft = teacher(batch[0]).softmax(-1)
        return functional.cross_entropy(model(batch[0]), soft)

    return loss


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    model.eval()
    try:
        yield
    finally:
        model.train()


def _parameters(model: nn.Module) -> Numbers:
    return {
        f"parameters/{name}": parameter.detach().double().numpy().copy()
        for name, parameter in model.named_parameters()
    }


def _distance(one: Numbers, other: Numbers) -> float:
    return float(np.sqrt(sum(float(np.square(one[name] - other[name]).sum()) for name in one)))
