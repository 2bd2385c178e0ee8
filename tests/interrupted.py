"""A small training that is killed at a chosen write, for tests of resuming; run in a process of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from bundles import KEY, cross_entropy, digits
from gradseal.program.initialise import initialise
from gradseal.record.recorder import record
from gradseal.store.files import FsspecFiles

STEPS = 10


def train(path: Path, *, resume: bool = False, mode: str = "step", seed: int | None = 7) -> nn.Module:
    """Records dropout, batch norm, AdamW, a schedule, clipping and accumulation, in five segments."""
    torch.set_num_threads(1)
    with initialise():
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10)
        )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

    def own(batches: Any) -> torch.Tensor:
        optimizer.zero_grad()
        total = torch.zeros(())
        for batch in batches:
            loss = cross_entropy(model, batch) / 2
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
            total = total + loss.detach()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return total

    with record(
        path,
        model,
        optimizer,
        loss=cross_entropy,
        data=digits(),
        batch_size=16,
        steps=STEPS,
        every=2,
        key=KEY,
        schedule=CosineAnnealingLR(optimizer, STEPS),
        clip=1.0,
        accumulate=2,
        seed=seed,
        resume=resume,
        progress=False,
    ) as run:
        step = run.step if mode == "step" else run.wrap(own)
        for batch in run:
            step(batch)
    return model


def count_writes(monkeypatch: Any, then: Callable[[int], None]) -> None:
    """Calls `then` before and after each durable change of a bundle, with how many moments there were."""
    moments = 0
    for name in ("write", "delete"):
        real = getattr(FsspecFiles, name)

        def counted(self: FsspecFiles, *args: Any, real: Any = real) -> None:
            nonlocal moments
            then(moments)
            real(self, *args)
            then(moments + 1)
            moments += 2

        monkeypatch(FsspecFiles, name, counted)


def train_until(path: Path, moment: int, *, resume: bool, mode: str) -> None:
    """Trains in this process, which is killed at a moment; a process of its own calls it."""

    def die(now: int) -> None:
        if now == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    count_writes(setattr, die)
    train(path, resume=resume, mode=mode)
