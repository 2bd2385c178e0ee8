"""Models and optimizers as people use them: recorded both ways to one log, verified, computation shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bundles import KEY, check, statuses
from coverage_table import OPTIMIZERS
from gradseal.errors import CaptureError
from gradseal.program.initialise import initialise
from gradseal.record.recorder import record
from gradseal.record.run import Run
from models import EXAMPLES, Example, Recurrent, cross_entropy, sequences

SHOWN = {"integrity": "shown", "initialisation": "shown", "data": "shown", "computation": "shown"}


def begin(path: Path, example: Example, optimizer: str) -> tuple[Run, nn.Module, torch.optim.Optimizer]:
    with initialise():
        model = example.build()
    own = OPTIMIZERS[optimizer](example.groups(model))
    run = record(
        path,
        model,
        own,
        loss=example.loss,
        data=example.data(),
        batch_size=8,
        steps=4,
        every=2,
        key=KEY,
        seed=1,
        progress=False,
    )
    return run, model, own


def assert_shown(path: Path) -> None:
    verdict = check(path)
    assert {n: s for n, s in statuses(verdict).items() if n != "precedence"} == SHOWN, verdict.findings


def recorded_both_ways(tmp_path: Path, example: Example, optimizer: str) -> Path:
    for name in ("step", "wrap"):
        run, model, own = begin(tmp_path / name, example, optimizer)

        def own_step(batch: Any, model: nn.Module = model, own: torch.optim.Optimizer = own) -> torch.Tensor:
            own.zero_grad()
            loss = example.loss(model, batch)
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
            own.step()
            return loss

        with run:
            step = run.step if name == "step" else run.wrap(own_step)
            for batch in run:
                step(batch)
    logs = [(tmp_path / name / "checkpoint").read_bytes() for name in ("step", "wrap")]
    assert logs[0] == logs[1]
    return tmp_path / "step"


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_model_is_recorded_and_verified(tmp_path: Path, name: str) -> None:
    assert_shown(recorded_both_ways(tmp_path, EXAMPLES[name], "AdamW"))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimizer_is_recorded_and_verified(tmp_path: Path, optimizer: str) -> None:
    assert_shown(recorded_both_ways(tmp_path, EXAMPLES["frozen layer"], optimizer))


LSTM = Example(build=lambda: Recurrent(nn.LSTM), data=sequences, loss=cross_entropy)


def test_an_lstm_inside_onednn_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="oneDNN") as caught:
        begin(tmp_path / "b", LSTM, "AdamW")
    assert caught.value.where == "model.recurrent"
    assert "use a GRU" in caught.value.diagnostics()
    assert "torch.backends.mkldnn.enabled = False" in caught.value.diagnostics()


def test_an_lstm_outside_onednn_is_recorded(tmp_path: Path) -> None:
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]  # typed as a property of torch's
    try:
        run, _, _ = begin(tmp_path / "b", LSTM, "AdamW")
        with run:
            for batch in run:
                run.step(batch)
    finally:
        torch.backends.mkldnn.enabled = True  # type: ignore[assignment]
    assert_shown(tmp_path / "b")
