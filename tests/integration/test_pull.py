"""`--pulled-to`: the permutation test as a finding, on real bundles and hostile files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bundles import Twice, check, cross_entropy, findings, mlp, record_run
from gradseal.errors import MalformedBundle, StoreError
from gradseal.recipes.digits import Net
from gradseal.verify import in_process, pull
from gradseal.verify.executors import LocalProcess, Request
from gradseal.verify.in_process import InProcess
from gradseal.verify.policy import Policy
from gradseal.verify.verdict import Check, Finding, Outcome, Result

DRAW = bytes(range(32))
QUICK = replace(Policy.named("quick"), free_bytes=1 << 20, free_share=None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs without relation, and one that is pulled to another's weights by its loss."""
    root = tmp_path_factory.mktemp("pull")
    record_run(root / "one", seed=7, steps=24, every=6)
    record_run(root / "other", seed=9, steps=24, every=6)
    target = load_file(root / "other" / "weights.safetensors")

    def pulled(model: nn.Module, batch: Any) -> torch.Tensor:
        away = [(own - target[name]).square().sum() for name, own in model.named_parameters()]
        return cross_entropy(model, batch) + 0.2 * torch.stack(away).sum()

    record_run(root / "pulled", seed=11, steps=24, every=6, loss=pulled)
    return root


def found(bundle: Path, weights: Path, executor: Any = None, policy: Policy = QUICK) -> Finding:
    verdict = check(bundle, policy, pulled_to=weights, draw=DRAW, executor=executor or InProcess())
    (finding,) = [f for f in verdict.findings if f.check is Check.PULL]
    assert finding.result is Result.NOTED
    assert "heuristic" in finding.message
    assert "distillation" in finding.message
    return finding


def test_a_pulled_run_is_told_and_an_honest_one_is_not(runs: Path) -> None:
    weights = runs / "other" / "weights.safetensors"
    assert found(runs / "pulled", weights).measured == 0.005
    honest = found(runs / "one", weights)
    assert honest.measured is not None
    assert honest.measured > 0.05
    assert "no sign" in honest.message


def test_the_runs_own_weights_are_told_as_such(runs: Path, tmp_path: Path) -> None:
    own = runs / "one" / "weights.safetensors"
    said = found(runs / "one", own).message
    assert said.startswith("the run ends in exactly these weights")
    assert "more aligned" not in said
    tensors = load_file(own)
    tensors["1.weight"][0, 0] += 1e-3
    save_file(tensors, tmp_path / "w")
    assert "exactly these weights" not in found(runs / "one", tmp_path / "w").message


def test_it_runs_the_graph_in_a_worker_and_decides_nothing(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Apart(InProcess):
        """Replays here, and tries permutations where hostile bundles are replayed."""

        def run(self, request: Request) -> Any:
            return LocalProcess().run(request) if request.probe else super().run(request)

    def here(*arguments: Any, **named: Any) -> None:
        raise AssertionError("the owner's graph was tried in the verifier's process")

    monkeypatch.setattr(in_process, "probe_groups", here)
    weights = runs / "other" / "weights.safetensors"
    verdict = check(runs / "pulled", QUICK, pulled_to=weights, draw=DRAW, executor=Apart())
    (finding,) = findings(verdict, Result.NOTED, Check.PULL)
    assert finding.measured == 0.005
    plain = check(runs / "pulled", QUICK, draw=DRAW, executor=InProcess())
    assert verdict.outcome is plain.outcome is Outcome.ACCEPTED
    assert verdict.claims == plain.claims
    assert [f for f in verdict.findings if f is not finding] == list(plain.findings)


def test_a_classical_policy_makes_it_too(runs: Path) -> None:
    weights = runs / "other" / "weights.safetensors"
    assert found(runs / "pulled", weights, policy=Policy.named("jia2021")).measured == 0.005


def test_other_types_of_numbers_are_read(runs: Path, tmp_path: Path) -> None:
    target = load_file(runs / "other" / "weights.safetensors")
    for dtype in (torch.float64, torch.bfloat16):
        save_file({name: tensor.to(dtype) for name, tensor in target.items()}, tmp_path / "w")
        assert found(runs / "pulled", tmp_path / "w").measured == 0.005


Change = Callable[[dict[str, torch.Tensor]], None]


def other_names(tensors: dict[str, torch.Tensor]) -> None:
    tensors |= {f"model.{name}": tensors.pop(name) for name in list(tensors)}


def zeros(tensors: dict[str, torch.Tensor]) -> None:
    for tensor in tensors.values():
        tensor.zero_()


HOSTILE: dict[str, tuple[Change, str]] = {
    "another shape": (lambda t: t.update({"1.weight": torch.zeros(15, 64)}), "has shape (15, 64)"),
    "transposed": (lambda t: t.update({"1.weight": t["1.weight"].T.contiguous()}), "has shape (64, 16)"),
    "no number": (lambda t: t["1.weight"].__setitem__((0, 0), torch.nan), "not a finite number"),
    "infinite": (lambda t: t["3.weight"].__setitem__((0, 0), torch.inf), "not a finite number"),
    "zeros": (zeros, "all zero"),
    "whole numbers": (lambda t: t.update({"1.weight": t["1.weight"].to(torch.int32)}), "is of type int32"),
    "other names": (other_names, "the file has no tensor for parameters/1.weight"),
    "nothing": (lambda t: t.clear(), "the file has no tensor for parameters/1.weight"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_weights_that_do_not_fit_do_not_apply(runs: Path, tmp_path: Path, case: str) -> None:
    change, said = HOSTILE[case]
    tensors = load_file(runs / "other" / "weights.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "w")
    finding = found(runs / "one", tmp_path / "w")
    assert finding.measured is None
    assert "does not apply" in finding.message
    assert said in finding.message


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff" * 100, (1 << 40).to_bytes(8, "little") + b"{}", b"\x80\x04K\x01."],
    ids=["empty", "noise", "a huge header", "a pickle"],
)
def test_what_is_no_safetensors_file_is_an_error(runs: Path, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "w").write_bytes(data)
    with pytest.raises(MalformedBundle, match="w"):
        found(runs / "one", tmp_path / "w")


def test_a_file_too_large_for_the_model_is_not_read(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "MAX_HEADER_BYTES", 1 << 10)
    with open(tmp_path / "w", "wb") as file:
        file.truncate(1 << 34)  # sparse
    with pytest.raises((MalformedBundle, StoreError)):
        found(runs / "one", tmp_path / "w")


def test_an_executor_that_knows_no_probe_is_told(runs: Path) -> None:
    class Old(InProcess):
        def run(self, request: Request) -> Any:
            return super().run(replace(request, probe=None))

    assert "permutes nothing" in found(runs / "one", runs / "other" / "weights.safetensors", Old()).message


def test_units_are_tried_with_dropout_batch_norm_and_a_flattened_map(tmp_path: Path) -> None:
    for arithmetic in ("native", "exact"):
        path = tmp_path / arithmetic
        record_run(path, Net, steps=1, every=1, arithmetic=arithmetic)
        said = found(path, path / "weights.safetensors").message
        assert "units of 2 layers" in said


class Residual(nn.Module):
    """Its middle layer's units are also its input's, so that they have their places."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(64, 12)
        self.middle = nn.Linear(12, 12)
        self.leave = nn.Linear(12, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = torch.tanh(self.enter(images.flatten(1)))
        scores: torch.Tensor = self.leave(features + torch.tanh(self.middle(features)))
        return scores


@pytest.mark.parametrize("build", [Twice, Residual])
def test_units_that_may_not_be_permuted_are_left_alone(
    tmp_path: Path, build: Callable[[], nn.Module]
) -> None:
    record_run(tmp_path / "run", build, steps=2, every=1)
    finding = found(tmp_path / "run", tmp_path / "run" / "weights.safetensors")
    assert finding.measured is None
    assert "none could be shown" in finding.message


def test_each_hidden_layer_is_permuted(tmp_path: Path) -> None:
    record_run(tmp_path / "run", lambda: nn.Sequential(mlp(), nn.ReLU(), nn.Linear(10, 10)), steps=1, every=1)
    assert "units of 2 layers" in found(tmp_path / "run", tmp_path / "run" / "weights.safetensors").message


def test_permutations_are_uniform_and_independent() -> None:
    from gradseal.verify.symmetry import Group, orders

    generator = np.random.default_rng(3)
    groups = [Group(units=3, axes=()), Group(units=3, axes=())]
    drawn = [tuple(map(tuple, orders(groups, generator))) for _ in range(3600)]
    counts = np.unique(np.array(drawn).reshape(len(drawn), -1), axis=0, return_counts=True)[1]
    assert len(counts) == 36
    assert ((counts - 100) ** 2 / 100).sum() < 66  # chi-square with 35 degrees of freedom at 0.001
