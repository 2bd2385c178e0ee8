"""The example of a package with an attack and a policy: installed as a user would, and used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bundles import KEY, digits, linear, record_run

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", target, PLUGIN], check=True)
    return target


def gradseal(installed: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    command = [str(Path(sys.executable).with_name("gradseal")), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_its_attack_is_judged(installed: Path) -> None:
    size = ["--steps", "20", "--every", "5", "--batch-size", "16"]
    ended = gradseal(installed, "attack", "lazy owner", *size, "--json")
    assert ended.returncode == 0, ended.stderr
    case = json.loads(ended.stdout)
    said = {one["policy"]: one for one in case["judged"]}
    assert said["full"]["outcome"] == "rejected"
    assert said["full"]["check"] == "replay"
    assert case["cost"]["gradients"] == case["claimed"]["gradients"] / 2


def test_its_attack_and_policy_have_a_row_and_a_column(installed: Path, tmp_path: Path) -> None:
    chosen = ["--attack", "lazy owner", "--policy", "quick", "--policy", "sparing", "--seeds", "1"]
    ended = gradseal(installed, "study", "matrix", "--out", tmp_path, *chosen)
    assert ended.returncode == 0, ended.stderr
    matrix = json.loads((tmp_path / "matrix.json").read_text())
    assert list(matrix["rows"][0]["cells"]) == ["quick", "sparing"]
    assert "lazy owner" in (tmp_path / "matrix.html").read_text()
    assert "sparing" in (tmp_path / "matrix.md").read_text()


def test_its_policy_verifies(installed: Path, tmp_path: Path) -> None:
    record_run(tmp_path / "run", linear, data=digits(40), batch_size=4, steps=8, every=1)
    ended = gradseal(
        installed, "verify", tmp_path / "run", "--key", str(KEY.verification_key), "--policy", "sparing"
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "ACCEPTED" in ended.stdout
