"""Fashion-MNIST: 70,000 pictures of clothes, 28 × 28 pixels in ten classes, from files on this machine.

60,000 are trained on, the other 10,000 tell how good the net is. Source of the data: H. Xiao, K. Rasul and
R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms", 2017.
Nothing is downloaded: Debian's and Ubuntu's package dataset-fashion-mnist brings the files.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import TensorDataset

from gradseal.errors import Error
from gradseal.recipes.idx import read_idx
from gradseal.recipes.images import accuracy, loss
from gradseal.recipes.recipe import DIRECTORY_VARIABLES, Recipe
from gradseal.recipes.resnet import ResNet20

DIRECTORY = Path("/usr/share/datasets/fashion-mnist")
"""Where the Debian package puts the files."""

SIDE = 28
CLASSES = 10


def recipe(directory: str | Path = DIRECTORY) -> Recipe:
    """469 steps of SGD with Nesterov momentum on ResNet-20: each picture once, sealed every 20 steps.

    Args:
        directory: Holds the four files that Fashion-MNIST consists of, gzipped.

    Raises:
        Error: A file is missing, or is not what it should be.
    """
    images, classes = read(Path(directory), "train", at_most=60_000)
    held_out = read(Path(directory), "t10k", at_most=10_000)

    def evaluate(model: nn.Module) -> str:
        right = accuracy(model, *held_out)
        return f"{right:.1%} of {len(held_out[0])} pictures of clothes that it never saw are recognised"

    return Recipe(
        build=ResNet20,
        optimizer=lambda model: torch.optim.SGD(
            model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
        ),
        schedule=CosineAnnealingLR,
        loss=loss,
        data=TensorDataset(images, classes),
        batch_size=128,
        steps=469,
        every=20,
        evaluate=evaluate,
    )


def read(directory: Path, part: str, at_most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The images, shape (items, 1, 28, 28), and classes, shape (items,), of a part; both as bytes.

    Raises:
        Error: A file is missing, or is not what it should be.
    """
    paths = [directory / f"{part}-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1")]
    for path in paths:
        if not path.is_file():
            raise Error(
                "this file of Fashion-MNIST is missing, and nothing is downloaded",
                where=str(path),
                advice="apt install dataset-fashion-mnist, or set the environment variable "
                f"{DIRECTORY_VARIABLES['fashion']} to the directory that has its four files",
            )
    images = read_idx(paths[0], at_most=at_most, shape=(SIDE, SIDE))
    classes = read_idx(paths[1], at_most=at_most)
    if len(classes) != len(images):
        raise Error(f"has {len(classes)} labels for {len(images)} images", where=str(paths[1]))
    if classes.max() >= CLASSES:
        raise Error(f"has a label {classes.max()}, beyond the {CLASSES} classes", where=str(paths[1]))
    # Copied, since what was read is not writable.
    return torch.tensor(images).unsqueeze(1), torch.tensor(classes)
