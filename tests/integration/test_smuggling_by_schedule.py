"""Stolen weights spelled out in the last bits of a schedule, as a review once brought them in.

With a weight decay of one, a rate of 1 + δ multiplies a parameter by −δ: what is next to nothing beside one
is a whole number of single precision beside zero. A schedule that kept such bits uncounted passed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import Dataset

from bundles import KEY, check, statuses
from gradseal.program.initialise import initialise
from gradseal.program.schedule import Piece
from gradseal.record.recorder import record
from gradseal.verify.verdict import Check, Verdict

STOLEN = 100
AMPLIFIED = 2.0**27


class Channel(nn.Module):
    """A number through which each weight passes on its way in."""

    def __init__(self) -> None:
        super().__init__()
        self.channel = nn.Parameter(torch.zeros(()))
        self.weights = nn.Parameter(torch.zeros(STOLEN))


class OneHot(Dataset[Any]):
    """In turn, set the channel and read it into a weight; holds nothing of the weights themselves."""

    def __len__(self) -> int:
        return 2 * STOLEN + 2

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        where = torch.zeros(STOLEN)
        if index % 2 == 0 and index >= 2:
            where[index // 2 - 1] = 1.0
        return torch.tensor(float(index % 2 == 0)), where


def loss(model: nn.Module, batch: Any) -> torch.Tensor:
    flag, where = batch
    channel, weights = model.parameters()
    value: torch.Tensor = -(flag.sum() * channel) + (where * weights).sum() * (channel.detach() * AMPLIFIED)
    return value


def brought_in(path: Path, stolen: torch.Tensor) -> torch.Tensor:
    """The weights that are released by a run whose rates spell out the stolen ones."""
    small = (stolen.double() / (1 - stolen.double().abs()) / AMPLIFIED).tolist()

    def rate(step: int) -> float:
        return 1.0 + small[step // 2] if step % 2 and step // 2 < STOLEN else 1.0

    with initialise():
        model = Channel()
    groups = [
        {"params": [model.channel], "weight_decay": 1.0},
        {"params": [model.weights], "weight_decay": 0.0, "eps": 1.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.0, 0.0))
    with record(
        path,
        model,
        optimizer,
        loss=loss,
        data=OneHot(),
        batch_size=1,
        steps=len(OneHot()),
        every=len(OneHot()) // 2,
        key=KEY,
        seed=3,
        shuffle=False,
        schedule=lr_scheduler.LambdaLR(optimizer, [rate, lambda step: 1.0]),
        progress=False,
    ) as run:
        for batch in run:
            run.step(batch)
    released: torch.Tensor = safetensors.torch.load_file(path / "weights.safetensors")["weights"]
    return released


def free_bytes(verdict: Verdict) -> int:
    return sum(int(f.measured or 0) for f in verdict.findings if f.check is Check.FREE_BYTES)


@pytest.fixture
def stolen() -> torch.Tensor:
    return torch.rand(STOLEN, generator=torch.Generator().manual_seed(7)) * 1.6 - 0.8


def test_the_recorder_keeps_no_such_bits(tmp_path: Path, stolen: torch.Tensor) -> None:
    released = brought_in(tmp_path / "bundle", stolen)
    assert (released - stolen).abs().mean() > 0.1
    assert free_bytes(check(tmp_path / "bundle")) < STOLEN


def test_a_prover_who_writes_them_himself_pays_for_each(
    tmp_path: Path, stolen: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def every_bit(values: Any) -> Iterator[Piece]:
        ends = np.append(np.flatnonzero(np.diff(values)) + 1, len(values))
        for first, end in zip(np.append(0, ends[:-1]).tolist(), ends.tolist(), strict=True):
            yield Piece(length=end - first, coefficients=(float(values[first]),))

    monkeypatch.setattr(
        "gradseal.program.capture_schedule.pieces_of", lambda values: tuple(every_bit(values))
    )
    released = brought_in(tmp_path / "bundle", stolen)
    # The attack works, and its run is true; but it is seen for what it is.
    assert (released - stolen).abs().max() < 1e-6
    verdict = check(tmp_path / "bundle")
    assert free_bytes(verdict) >= 4 * STOLEN
    assert statuses(verdict) == {
        "integrity": "shown",
        "precedence": "not shown",
        "initialisation": "not shown",
        "data": "shown",
        "computation": "shown",
    }
