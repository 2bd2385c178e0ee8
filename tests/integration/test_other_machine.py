"""Exact arithmetic gives the recorded bits on processors of another kind, emulated."""

from __future__ import annotations

from pathlib import Path

import pytest

from other_machine import MACHINES, missing, record, replay, same


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    record(folder / "bundle", folder / "key", timeout_seconds=120)
    return folder / "bundle"


# The others, by hand: `python tests/other_machine.py`.
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["x86-64 without AVX", "AArch64"])
def test_another_processor_gives_the_same_bits(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    machine = MACHINES[name]
    if why := missing(machine):
        pytest.skip(why)
    found = replay(request.getfixturevalue("bundle"), machine, tmp_path, timeout_seconds=400)
    assert same(found, machine), found
