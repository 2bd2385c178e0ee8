"""Peak memory with and without Gradseal, of a model whose state is large.

Each way runs in a process of its own, in which the most memory that was ever resident is read at the end.
The state, parameters and momentum, is large against all else, so that the difference of two peaks over the
state's size says how many copies of the state recording needs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from benchmarks.figure import Figure
from benchmarks.machine import peak_bytes
from torch import nn
from torch.nn import functional

from gradseal import SigningKey, initialise, record

_LAYERS = 8
_STEPS, _EVERY = 4, 2
_BATCH = 2


def measure(state_bytes: int) -> list[Figure]:
    """The extra peak memory of recording either way, in states."""
    peaks = {way: _peak(way, state_bytes) for way in ("plain", "step", "wrap")}
    state = _state_bytes(_width(state_bytes))
    extra = {way: (peaks[way] - peaks["plain"]) / state for way in ("step", "wrap")}
    return [
        Figure(name="state of the synthetic model", value=state, unit="bytes"),
        Figure(name="peak memory of plain training", value=peaks["plain"], unit="bytes"),
        Figure(name="extra peak memory, run.step", value=extra["step"], unit="states", at_most=2),
        Figure(name="extra peak memory, run.wrap", value=extra["wrap"], unit="states", at_most=2),
    ]


def _peak(way: str, state_bytes: int) -> int:
    """What the process for one way says."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", way, str(state_bytes)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    return int(done.stdout)


def main(way: str, state_bytes: int) -> None:
    """Trains, in this process, and prints its peak."""
    torch.set_num_threads(1)
    width = _width(state_bytes)
    with tempfile.TemporaryDirectory() as directory:
        if way == "plain":
            _plain(width)
        else:
            _recorded(width, Path(directory) / "bundle", way)
    print(peak_bytes())


def _plain(width: int) -> None:
    torch.manual_seed(0)
    model = _model(width)
    optimizer = _optimizer(model)
    batch = (_data(width).tensors[0][:_BATCH],)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        _loss(model, batch).backward()
        optimizer.step()


def _recorded(width: int, out: Path, way: str) -> None:
    with initialise():
        model = _model(width)
    optimizer = _optimizer(model)

    def own(batch: tuple[torch.Tensor]) -> torch.Tensor:
        optimizer.zero_grad()
        loss = _loss(model, batch)
        loss.backward()
        optimizer.step()
        return loss

    with record(
        out,
        model,
        optimizer,
        loss=_loss,
        data=_data(width),
        batch_size=_BATCH,
        steps=_STEPS,
        every=_EVERY,
        key=SigningKey.generate("bench.example"),
        progress=False,
    ) as run:
        step = run.step if way == "step" else run.wrap(own)
        for batch in run:
            step(batch)


def _model(width: int) -> nn.Module:
    return nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(_LAYERS)))


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)


def _loss(model: nn.Module, batch: tuple[torch.Tensor]) -> torch.Tensor:
    (inputs,) = batch
    return functional.mse_loss(model(inputs), inputs)


def _data(width: int) -> torch.utils.data.TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return torch.utils.data.TensorDataset(torch.randn(_BATCH * _STEPS, width, generator=generator))


def _width(state_bytes: int) -> int:
    """The least width with which parameters and momentum take so many bytes."""
    width = 64
    while _state_bytes(width) < state_bytes:
        width += 64
    return width


def _state_bytes(width: int) -> int:
    return 2 * 4 * _LAYERS * width * width


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
