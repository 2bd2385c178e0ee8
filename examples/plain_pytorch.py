"""A training loop of one's own, recorded twice and verified: with `run.step`, and with `run.wrap`.

    python examples/plain_pytorch.py [DIRECTORY]

Needs scikit-learn, for its handwritten digits. Writes two bundles below DIRECTORY, or into a temporary one.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

import gradseal

KEY = gradseal.SigningKey.generate("example.org/models")
OPTIONS: dict[str, Any] = {"batch_size": 64, "steps": 40, "every": 10, "key": KEY}


class Net(nn.Module):
    """An MLP with dropout for images of 8 × 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores of the ten digits, shape (batch, 10), for images of shape (batch, 64)."""
        scores: torch.Tensor = self.layers(images)
        return scores


def loss(model: nn.Module, batch: Any) -> torch.Tensor:
    """The mean cross entropy of a batch: what `record` captures."""
    images, digits = batch
    return functional.cross_entropy(model(images), digits)


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Images to train on, and images to test with."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32) / 16
    classes = torch.tensor(labels, dtype=torch.int64)
    return TensorDataset(images[:1500], classes[:1500]), TensorDataset(images[1500:], classes[1500:])


def new_model() -> tuple[nn.Module, torch.optim.Optimizer]:
    """A net whose initialisation a verifier can recompute, and its optimizer."""
    with gradseal.initialise():
        model = Net()
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def accuracy(model: nn.Module, data: TensorDataset) -> float:
    """The share of images that the model recognises."""
    images, classes = data.tensors
    model.eval()
    with torch.no_grad():
        right = (model(images).argmax(1) == classes).float().mean()
    model.train()
    return float(right)


def train_with_step(bundle: Path, data: TensorDataset) -> nn.Module:
    """Gradseal does the step: zeroes the gradients, runs the captured graph, updates."""
    model, optimizer = new_model()
    with gradseal.record(bundle, model, optimizer, loss=loss, data=data, **OPTIONS) as run:
        for batch in run:
            run.step(batch)
    return model


def train_with_wrap(bundle: Path, data: TensorDataset) -> nn.Module:
    """The step stays one's own; one in each segment is run again from the captured graph."""
    model, optimizer = new_model()

    def train_step(batch: Any) -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(model, batch)
        value.backward()  # type: ignore[no-untyped-call] # torch's own
        optimizer.step()
        return value

    with gradseal.record(bundle, model, optimizer, loss=loss, data=data, **OPTIONS) as run:
        recorded_step = run.wrap(train_step)
        for batch in run:
            recorded_step(batch)
    return model


def main(directory: Path) -> int:
    """Records and verifies both; 0 if both are accepted."""
    torch.set_num_threads(1)
    train_data, test_data = digits()
    accepted = True
    for train in (train_with_step, train_with_wrap):
        bundle = directory / train.__name__
        model = train(bundle, train_data)
        verdict = gradseal.verify(bundle, keys=[KEY.verification_key])
        print(f"{train.__name__}: {accuracy(model, test_data):.1%} right on new digits; {verdict.outcome}")
        for name, claim in verdict.claims.items():
            print(f"  {name:<16}{claim.status}")
        accepted &= verdict.outcome == "accepted"
    return 0 if accepted else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as made:
        sys.exit(main(Path(made)))
