"""A store so slow that a seal is still being written when a step is to be run again: the log is the same."""

from __future__ import annotations

import secrets
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from bundles import record_run
from gradseal.record.sealing import Sealing
from gradseal.store.files import FsspecFiles

STEPS, EVERY = 7, 2  # four segments; the last has one step, which is its first and its last
SEGMENTS = 4


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("undisturbed") / "bundle"
    record_run(path, mode="wrap", steps=STEPS, every=EVERY)
    return content(path)


@pytest.fixture
def interrupted_seals(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Lets a seal be written only while somebody waits for it; gets whether each step's copy found one."""
    gate = threading.Event()
    found: list[bool] = []
    real_wait, real_copy, real_write = Sealing.wait, Sealing.copy_of, FsspecFiles.write

    def wait(self: Sealing) -> None:
        gate.set()
        real_wait(self)
        gate.clear()

    def copy_of(self: Sealing, state: Any) -> dict[str, torch.Tensor]:
        found.append(self._pending is not None and not self._pending.done())
        return real_copy(self, state)

    def write(self: FsspecFiles, path: str, data: Any) -> None:
        if threading.current_thread().name.startswith("gradseal-sealing"):
            gate.wait(10)
        real_write(self, path, data)

    monkeypatch.setattr(Sealing, "wait", wait)
    monkeypatch.setattr(Sealing, "copy_of", copy_of)
    monkeypatch.setattr(FsspecFiles, "write", write)
    return found


def content(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("drawn", ["first", "last", "last, then first of the next"])
def test_a_step_that_is_run_again_beside_a_seal_leaves_the_log_as_it_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: dict[str, bytes],
    interrupted_seals: list[bool],
    drawn: str,
) -> None:
    segments = iter(range(SEGMENTS))

    def draw(steps: int) -> int:
        first = drawn == "first" or (drawn != "last" and next(segments) % 2 == 1)
        return 0 if first else steps - 1

    monkeypatch.setattr(secrets, "randbelow", draw)
    record_run(tmp_path / "bundle", mode="wrap", steps=STEPS, every=EVERY)
    assert content(tmp_path / "bundle") == undisturbed
    assert interrupted_seals == [False] + [True] * (SEGMENTS - 1)
