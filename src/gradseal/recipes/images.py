"""What recipes on pictures share: pictures as bytes, their loss, and the share of them that is recognised."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

_AT_ONCE = 500


def loss(model: nn.Module, batch: Any) -> torch.Tensor:
    """Mean cross entropy for images of bytes, shape (batch, 1, rows, columns), and classes, integers."""
    # Bytes until here: samples are stored in the bundle as they are, and floats take four times the room.
    images, classes = batch
    return functional.cross_entropy(model(images.float() / 255), classes.long())


def accuracy(model: nn.Module, images: torch.Tensor, classes: torch.Tensor) -> float:
    """The share of images, of bytes, whose class has the highest score; leaves the model in training mode."""
    model.eval()
    with torch.no_grad():
        right = [
            model(some.float() / 255).argmax(1) == of
            for some, of in zip(torch.split(images, _AT_ONCE), torch.split(classes, _AT_ONCE), strict=True)
        ]
    model.train()
    return torch.cat(right).float().mean().item()
