"""Handwritten digits: 1,797 images of 8 × 8 pixels, as scikit-learn ships them.

The first 1,500 are trained on, the rest tell how good the net is. Source of the data: E. Alpaydin and
C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from gradseal.recipes.recipe import Recipe

TRAINED_ON = 1500


class Net(nn.Module):
    """Two convolutions with batch norm, dropout, one linear layer; 29,162 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classify = nn.Sequential(nn.Flatten(), nn.Dropout(0.25), nn.Linear(64 * 4 * 4, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores of the ten digits, shape (batch, 10), for images of shape (batch, 1, 8, 8)."""
        scores: torch.Tensor = self.classify(self.features(images))
        return scores


def recipe() -> Recipe:
    """600 steps of SGD with Nesterov momentum, 64 images each, sealed every 5 steps."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    classes = torch.tensor(labels, dtype=torch.int64)
    held_out = images[TRAINED_ON:], classes[TRAINED_ON:]

    def evaluate(model: nn.Module) -> str:
        model.eval()
        with torch.no_grad():
            right = (model(held_out[0]).argmax(1) == held_out[1]).float().mean().item()
        model.train()
        return f"{right:.1%} of {len(held_out[0])} digits it never saw are recognised"

    return Recipe(
        build=Net,
        optimizer=lambda model: torch.optim.SGD(
            model.parameters(), lr=0.02, momentum=0.9, nesterov=True, weight_decay=1e-4
        ),
        loss=_loss,
        data=TensorDataset(images[:TRAINED_ON], classes[:TRAINED_ON]),
        batch_size=64,
        steps=600,
        every=5,
        evaluate=evaluate,
    )


def _loss(model: nn.Module, batch: Any) -> torch.Tensor:
    images, classes = batch
    return functional.cross_entropy(model(images), classes)
