"""A training as long ones are: AdamW, one cycle of rates, clipping, accumulation; stopped and resumed.

    python examples/long_training.py [DIRECTORY]

Needs scikit-learn, for its handwritten digits. The first attempt is stopped on purpose; the second goes on
from the last sealed state. Writes a bundle below DIRECTORY, or into a temporary one.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import TensorDataset

import gradseal

KEY = gradseal.SigningKey.generate("example.org/models")
STEPS, EVERY, ACCUMULATED, LARGEST_NORM = 60, 10, 2, 1.0
STOPPED_AFTER = 34


def loss(model: nn.Module, batch: Any) -> torch.Tensor:
    """The mean cross entropy of one batch; of pictures as bytes, which become numbers here."""
    images, digits = batch
    return functional.cross_entropy(model(images.float() / 16), digits)


def data() -> TensorDataset:
    """1,797 images of 8 × 8 pixels, a byte each."""
    pixels, labels = load_digits(return_X_y=True)
    return TensorDataset(torch.tensor(pixels, dtype=torch.uint8), torch.tensor(labels, dtype=torch.int64))


def train(bundle: Path, *, stop_after: int | None = None) -> None:
    """Records the training, from the beginning or from where an earlier attempt was stopped.

    Args:
        bundle: Where the record goes, or is already.
        stop_after: After how many steps to fail, as a machine would.
    """
    with gradseal.initialise():
        model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Dropout(0.1), nn.Linear(128, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.05)
    schedule = OneCycleLR(optimizer, max_lr=0.01, total_steps=STEPS)

    def train_step(batches: Sequence[Any]) -> torch.Tensor:
        optimizer.zero_grad()
        total = torch.zeros(())
        for batch in batches:  # in their order, for dropout's sake
            share = loss(model, batch) / len(batches)
            share.backward()  # type: ignore[no-untyped-call] # torch's own
            total = total + share.detach()
        nn.utils.clip_grad_norm_(model.parameters(), LARGEST_NORM)
        optimizer.step()
        return total

    with gradseal.record(
        bundle,
        model,
        optimizer,
        loss=loss,
        data=data(),
        batch_size=32,
        steps=STEPS,
        every=EVERY,
        key=KEY,
        schedule=schedule,  # sets the rates, so that nobody need call its step
        clip=LARGEST_NORM,
        accumulate=ACCUMULATED,
        resume=True,
    ) as run:
        print(f"begins after step {run.steps_done} of {run.steps}")
        recorded_step = run.wrap(train_step)
        for batches in run:
            if run.steps_done == stop_after:
                raise TimeoutError("the machine was taken away")
            recorded_step(batches)


def main(directory: Path) -> int:
    """Trains in two attempts and verifies what came of them; 0 if it is accepted."""
    torch.set_num_threads(1)
    bundle = directory / "long_training"
    try:
        train(bundle, stop_after=STOPPED_AFTER)
    except TimeoutError as e:
        print(f"stopped after step {STOPPED_AFTER}: {e}")
    train(bundle)
    verdict = gradseal.verify(bundle, keys=[KEY.verification_key])
    print(f"{verdict.outcome}: {verdict.cost.segments_replayed} segments replayed")
    return 0 if verdict.outcome == "accepted" else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as made:
        sys.exit(main(Path(made)))
