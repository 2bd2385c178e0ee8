"""Folders as the released proof-of-learning code leaves them, honest, forged and hostile."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import TensorDataset

from bundles import KEY, Build, cross_entropy, digits, mlp, sgd
from gradseal.program.initialise import initialise
from gradseal.record.imported import Imported, Training, import_released
from gradseal.record.released_inputs import read_proof

STEPS, EVERY, BATCH = 12, 5, 8

MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]


@dataclass(kw_only=True)
class Trained:
    """A plain training, which leaves a folder behind.

    Args:
        folder: Where.
        build: Makes the model.
        optimizer: Makes the optimizer.
        scheduler: Makes the scheduler, if there is to be one.
        steps: How many.
        every: Steps between checkpoints.
        data: What is trained on.
        hashed: Whether to write `hash.txt`.
    """

    folder: Path
    build: Build = mlp
    optimizer: MakeOptimizer = sgd
    scheduler: Callable[[Any], LRScheduler] | None = None
    steps: int = STEPS
    every: int = EVERY
    data: TensorDataset = field(default_factory=digits)
    hashed: bool = True

    def run(self) -> Trained:
        """Trains, and saves a checkpoint before every so many steps and after the last."""
        self.folder.mkdir(parents=True)
        torch.manual_seed(3)
        generator = np.random.default_rng(3)
        epochs = -(-self.steps * BATCH // len(self.data))
        numbers = np.concatenate([generator.permutation(len(self.data)) for _ in range(epochs)])
        sequence = numbers[: self.steps * BATCH].reshape(self.steps, BATCH)
        np.save(self.folder / "indices.npy", sequence)
        if self.hashed:
            self.write_hash()
        model = self.build()
        optimizer = self.optimizer(model)
        scheduler = self.scheduler(optimizer) if self.scheduler else None
        for step, numbers in enumerate(sequence):
            if step % self.every == 0:
                self.save(step, model, optimizer, scheduler)
            optimizer.zero_grad()
            chosen = torch.from_numpy(numbers)
            loss = cross_entropy(model, tuple(tensor[chosen] for tensor in self.data.tensors))
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
            optimizer.step()
            if scheduler:
                scheduler.step()
        self.save(self.steps, model, optimizer, scheduler)
        return self

    def save(
        self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: LRScheduler | None
    ) -> None:
        """Writes one checkpoint."""
        state: dict[str, Any] = {"net": model.state_dict(), "optimizer": optimizer.state_dict()}
        if scheduler is not None:
            state["scheduler"] = scheduler.state_dict()
        torch.save(state, self.path(step))

    def write_hash(self) -> None:
        """Writes the digest of the data as they print."""
        digest = hashlib.sha256("".join(str(image) for image in self.data.tensors[0]).encode())
        (self.folder / "hash.txt").write_text(digest.hexdigest())

    def forge(self, *, lr: float = 1e-12) -> Trained:
        """Puts checkpoints on the straight line from a fresh start to the trained weights, at a rate of no
        effect: the infinitesimal update of Fang et al. 2023, "Proof-of-Learning is Currently More Broken Than
        You Think", without its rank matching.
        """
        end = self.checkpoint(self.steps)["net"]
        torch.manual_seed(7)  # the classical test rejects some honest starts, those of 4 and 5 among them
        model = self.build()
        start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        optimizer = self.optimizer(model)
        for group in optimizer.param_groups:
            group["lr"] = lr
        for step in (*range(0, self.steps, self.every), self.steps):
            share = step / self.steps
            mixed = {
                n: t + share * (end[n] - t) if t.is_floating_point() else end[n] for n, t in start.items()
            }
            torch.save({"net": mixed, "optimizer": optimizer.state_dict()}, self.path(step))
        return self

    def with_own_samples(self) -> Trained:
        """Makes it a folder as the released attacks leave it: weights alone, and the samples themselves."""
        sequence = np.load(self.folder / "indices.npy")
        for start in range(0, self.steps, self.every):
            numbers = torch.from_numpy(sequence[start : start + self.every])
            for name, tensor in zip(("data", "label"), self.data.tensors, strict=True):
                np.save(self.folder / f"{name}_{start}.npy", tensor[numbers].numpy())
        for step in (*range(0, self.steps, self.every), self.steps):
            torch.save({"net": self.checkpoint(step)["net"]}, self.folder / f"model_{step}.pt")
            self.path(step).unlink()
        (self.folder / "indices.npy").unlink()
        return self

    def path(self, step: int) -> Path:
        """A checkpoint's file."""
        return self.folder / f"model_step_{step}"

    def checkpoint(self, step: int) -> dict[str, Any]:
        """What a checkpoint holds."""
        held: dict[str, Any] = torch.load(self.path(step), weights_only=True)
        return held

    def change(self, step: int, change: Callable[[dict[str, Any]], object]) -> None:
        """Changes what a checkpoint holds."""
        held = self.checkpoint(step)
        change(held)
        torch.save(held, self.path(step))

    def training(self, **options: Any) -> Training:
        """What the importer brings."""
        with initialise():
            model = self.build()
        optimizer = self.optimizer(model)
        return Training(model=model, optimizer=optimizer, loss=cross_entropy, data=self.data, **options)

    def imported(self, target: Path, *, batch_size: int | None = None, **options: Any) -> Imported:
        """Imports the folder at `target`."""
        proof = read_proof(self.folder, self.data, batch_size=batch_size)
        return import_released(proof, self.training(**options), target=target, signer=KEY, seed=bytes(32))
