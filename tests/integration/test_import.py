"""A released proof becomes a bundle, which is replayed as the released verifier would replay the folder."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR

from bundles import KEY, check, findings, statuses
from gradseal.cli.main import main
from gradseal.errors import CaptureError, MalformedBundle, MissingFile, RecordError
from gradseal.precede.log import read_log
from gradseal.proof.bundle import open_bundle
from gradseal.proof.manifest import Manifest
from gradseal.recipes.digits import Net, recipe
from gradseal.record.imported import import_released
from gradseal.record.released_inputs import read_proof
from gradseal.record.released_state import SLACK_BYTES
from gradseal.store.files import FsspecFiles
from gradseal.verify.contents import read_contents
from gradseal.verify.outcomes import SegmentResult, Task
from gradseal.verify.replay import Replayer
from gradseal.verify.verdict import Check, Result
from in_process import InProcess
from released_proofs import BATCH, EVERY, STEPS, Trained

SEGMENTS = 3
"""Of 5, 5 and 2 steps."""


def replays(bundle: Path) -> list[SegmentResult]:
    """Every segment replayed from its sealed state."""
    opened = open_bundle(FsspecFiles(str(bundle)))
    entries = opened.all_entries()
    manifest = Manifest.decode(entries[0])
    log = read_log(manifest, entries)
    seeds = log.seeds()
    assert seeds is not None
    contents = read_contents(opened.files, manifest, log.programs())
    replayer = Replayer(
        opened.files, manifest, contents, seeds, device=torch.device("cpu"), alive=lambda: None
    )
    return [
        replayer.replay(Task(segment=i, start=log.seals[i], end=log.seals[i + 1], losses=s.losses))
        for i, s in enumerate(log.segments)
    ]


def wrong_states(bundle: Path) -> set[str]:
    """The tensors in which any replay differs; losses, of which the folder states none, left out."""
    return {name for result in replays(bundle) for name in result.differing if "loss" not in name}


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-3)


def plain(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def nadam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.NAdam(model.parameters(), lr=1e-3)


def milestones(optimizer: torch.optim.Optimizer) -> LRScheduler:
    return MultiStepLR(optimizer, [3, 7, 7, 10], gamma=0.3)


def normed() -> nn.Module:
    """Buffers, one of them whole numbers."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))


TRAININGS: dict[str, dict[str, Any]] = {
    "momentum": {},
    "no momentum": {"optimizer": plain},
    "counts and scalars": {"optimizer": nadam},
    "adam": {"optimizer": adam},
    "milestones within and between": {"scheduler": milestones},
    "buffers": {"build": normed},
    "every step": {"every": 1, "steps": 4},
}


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    return Trained(folder=tmp_path / "proof").run()


@pytest.mark.parametrize("training", TRAININGS)
def test_an_honest_folder_replays_to_the_bit_on_the_machine_that_made_it(
    tmp_path: Path, training: str
) -> None:
    trained = Trained(folder=tmp_path / "proof", **TRAININGS[training]).run()
    imported = trained.imported(tmp_path / "bundle")
    segments = -(-trained.steps // trained.every)
    assert (imported.steps, imported.segments, imported.batch_size) == (trained.steps, segments, BATCH)
    assert len(replays(tmp_path / "bundle")) == segments
    assert wrong_states(tmp_path / "bundle") == set()


def test_whoever_imports_signs_and_the_claimed_initialisation_is_refuted(
    tmp_path: Path, trained: Trained
) -> None:
    trained.imported(tmp_path / "bundle")
    verdict = check(tmp_path / "bundle", executor=InProcess())
    assert verdict.outcome == "rejected"
    assert statuses(verdict) | {"integrity": "shown", "initialisation": "refuted"} == statuses(verdict)
    assert verdict.bundle["owner"] == str(KEY.verification_key)
    assert {f.check for f in findings(verdict, Result.REFUTED)} == {Check.INITIALISATION}


def test_what_the_folder_says_of_the_order_is_what_is_committed(tmp_path: Path, trained: Trained) -> None:
    table = np.load(trained.folder / "indices.npy")
    trained.imported(tmp_path / "bundle")
    table[7, 0], table[7, 1] = table[7, 1], (table[7, 0] + 1) % 40
    np.save(trained.folder / "indices.npy", table)
    trained.imported(tmp_path / "other")
    assert wrong_states(tmp_path / "bundle") == set()
    results = replays(tmp_path / "other")
    assert [result.error.l2 > 0 for result in results] == [False, True, False]


def test_the_last_interval_may_be_shorter_and_the_last_batch_too(tmp_path: Path, trained: Trained) -> None:
    flat = np.load(trained.folder / "indices.npy").reshape(-1)
    np.save(trained.folder / "indices.npy", flat[:-3])
    imported = trained.imported(tmp_path / "bundle", batch_size=BATCH)
    assert (imported.steps, imported.segments) == (STEPS, SEGMENTS)
    assert [result.error.l2 > 0 for result in replays(tmp_path / "bundle")] == [False, False, True]


def test_a_data_parallel_run_is_read_as_if_it_were_none(tmp_path: Path, trained: Trained) -> None:
    for step in (0, 5, 10, 12):
        trained.change(step, lambda c: c.update(net={f"module.{n}": t for n, t in c["net"].items()}))
    trained.imported(tmp_path / "bundle")
    assert wrong_states(tmp_path / "bundle") == set()


def test_momentum_of_before_the_first_step_counts(tmp_path: Path, trained: Trained) -> None:
    """As a proof that goes on from an earlier training has it."""
    later = trained.checkpoint(5)["optimizer"]["state"]
    trained.change(0, lambda c: c["optimizer"].update(state=later))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of initial momentum, which is the folder's and not the importer's
        imported = trained.imported(tmp_path / "bundle")
    assert "had taken steps before the first" in imported.notes[0]
    assert [result.error.l2 > 0 for result in replays(tmp_path / "bundle")] == [True, False, False]


def test_momentum_that_is_not_there_starts_afresh_as_the_released_verifier_starts_it(
    tmp_path: Path, trained: Trained
) -> None:
    trained.change(5, lambda c: c["optimizer"].update(state={}))
    trained.imported(tmp_path / "bundle")
    model = trained.build()
    held = trained.checkpoint(5)
    model.load_state_dict(held["net"])
    optimizer = trained.optimizer(model)
    optimizer.load_state_dict(held["optimizer"])
    for numbers in np.load(trained.folder / "indices.npy")[5:10]:
        optimizer.zero_grad()
        images, classes = (tensor[torch.from_numpy(numbers)] for tensor in trained.data.tensors)
        nn.functional.cross_entropy(model(images), classes).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    end = trained.checkpoint(10)["net"]
    away = sum(float((t - end[n]).double().square().sum()) for n, t in model.state_dict().items()) ** 0.5
    # The momentum sealed at step 5 is zero, so the segment before ends elsewhere in that alone.
    results = replays(tmp_path / "bundle")
    assert results[0].error.l2 == 0
    assert all("optimizer/" in name or "loss" in name for name in results[0].differing)
    assert results[1].error.l2 == pytest.approx(away, rel=1e-6)


def test_hyperparameters_are_those_of_each_checkpoint(tmp_path: Path, trained: Trained) -> None:
    """A prover may say another rate afterwards; the replay takes it, as the released verifier does."""
    trained.change(5, lambda c: c["optimizer"]["param_groups"][0].update(lr=0.04, weight_decay=0.1))
    trained.imported(tmp_path / "bundle")
    assert [result.error.l2 > 0 for result in replays(tmp_path / "bundle")] == [False, True, False]


def test_a_scheduler_of_another_kind_is_told(tmp_path: Path) -> None:
    trained = Trained(folder=tmp_path / "proof", scheduler=lambda o: CosineAnnealingLR(o, STEPS)).run()
    assert "not MultiStepLR" in trained.imported(tmp_path / "bundle").notes[0]
    assert all(result.error.l2 > 0 for result in replays(tmp_path / "bundle"))


def test_checkpoints_without_an_optimizer_need_a_rate(tmp_path: Path) -> None:
    trained = Trained(folder=tmp_path / "proof", optimizer=plain).run()
    for step in (0, 5, 10, 12):
        trained.change(step, lambda c: c.pop("optimizer"))
    with pytest.raises(CaptureError, match="has no 'optimizer'") as raised:
        trained.imported(tmp_path / "bundle")
    assert "--lr" in raised.value.advice
    imported = trained.imported(tmp_path / "bundle", lr=0.1)
    assert "begins with a fresh one, at rate 0.1" in imported.notes[0]
    assert wrong_states(tmp_path / "bundle") == set()
    trained.imported(tmp_path / "other", lr=0.11)
    assert all(result.error.l2 > 0 for result in replays(tmp_path / "other"))


def test_a_rate_of_nothing_makes_every_replay_stay_where_it_was(tmp_path: Path, trained: Trained) -> None:
    """So each interval is off by its own length, however long the training that is claimed."""
    trained.forge().imported(tmp_path / "bundle")
    for result in replays(tmp_path / "bundle"):
        assert result.error.l2 == pytest.approx(result.update.l2, rel=1e-4)


def test_a_folder_of_the_released_attacks_has_its_own_samples(tmp_path: Path) -> None:
    trained = Trained(folder=tmp_path / "proof", optimizer=plain).run().with_own_samples()
    imported = trained.imported(tmp_path / "bundle", lr=0.1)
    assert (imported.steps, imported.segments, imported.batch_size) == (STEPS, SEGMENTS, BATCH)
    assert wrong_states(tmp_path / "bundle") == set()
    images = np.load(tmp_path / "proof" / "data_5.npy")
    images[0, 0] += 1
    np.save(tmp_path / "proof" / "data_5.npy", images)
    trained.imported(tmp_path / "other", lr=0.1)
    assert [result.error.l2 > 0 for result in replays(tmp_path / "other")] == [False, True, False]


OWN_SAMPLES: dict[str, tuple[str, Any, str]] = {
    "missing": ("data_10.npy", None, "data_10.npy: is not there"),
    "one step less": (
        "label_10.npy",
        np.zeros((1, 8), np.int64),
        "label_10.npy: has 1 steps of 8 samples, not 2",
    ),
    "a smaller batch": (
        "data_5.npy",
        np.zeros((5, 7, 1, 8, 8), np.float32),
        "has 5 steps of 7 samples, not 5 of 8",
    ),
    "shape": ("data_0.npy", np.zeros((5, 8, 3, 8, 8), np.float32), "data_0.npy: is float32 of shape"),
    "type": ("data_0.npy", np.zeros((5, 8, 1, 8, 8)), "data_0.npy: is float64 of shape"),
    "labels": ("label_0.npy", np.zeros((5, 8), np.float32), "label_0.npy: is float32 of shape"),
    "no sample": (
        "label_0.npy",
        np.zeros((5, 0), np.int64),
        "has 0 samples|has 5 steps of 8 samples, not 5 of 0",
    ),
    "objects": ("label_0.npy", np.array([[None] * 8] * 5), "label_0.npy: numpy cannot load"),
}


@pytest.mark.parametrize("case", OWN_SAMPLES)
def test_samples_of_a_folder_that_are_not_as_they_should_be_are_refused(tmp_path: Path, case: str) -> None:
    name, array, message = OWN_SAMPLES[case]
    trained = Trained(folder=tmp_path / "proof", optimizer=plain, hashed=False).run().with_own_samples()
    (trained.folder / name).unlink()
    if array is not None:
        np.save(trained.folder / name, array, allow_pickle=True)
    with pytest.raises((MalformedBundle, MissingFile), match=message) as raised:
        trained.imported(tmp_path / "bundle", lr=0.1)
    assert str(trained.folder) in raised.value.where


def test_exact_arithmetic_replays_near_what_native_arithmetic_made(tmp_path: Path, trained: Trained) -> None:
    proof = read_proof(trained.folder, trained.data)
    import_released(proof, trained.training(), target=tmp_path / "bundle", signer=KEY, exact=True)
    for result in replays(tmp_path / "bundle"):
        assert 0 < result.error.l2 < 1e-5 * result.update.l2


def test_progress_is_told_to_the_end(tmp_path: Path, trained: Trained) -> None:
    told: dict[str, tuple[int, int]] = {}
    import_released(
        read_proof(trained.folder, trained.data),
        trained.training(),
        target=tmp_path / "bundle",
        signer=KEY,
        hashed=False,
        progress=lambda what, done, total: told.update({what: (done, total)}),
    )
    assert told == {
        "checking checkpoints": (4, 4),
        "committing to samples": (STEPS * BATCH, STEPS * BATCH),
        "sealing checkpoints": (4, 4),
    }


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran"),))


def test_code_in_a_checkpoint_is_refused_before_anything_is_written(
    tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    held = trained.checkpoint(10)
    torch.save({**held, "scheduler": Hostile()}, trained.path(10))
    with pytest.raises(MalformedBundle, match="which is no part of a state dict") as raised:
        trained.imported(tmp_path / "bundle")
    assert str(trained.path(10)) in raised.value.where
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "bundle").exists()
    torch.load(trained.path(10), weights_only=False)  # what the released verifier does
    assert (tmp_path / "ran").exists()


# What does not fit the model, the optimizer or the checkpoint before.


def net(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    return lambda checkpoint: change(checkpoint["net"])


def group(**options: Any) -> Callable[[dict[str, Any]], object]:
    return lambda checkpoint: checkpoint["optimizer"]["param_groups"][0].update(options)


def state(change: Callable[[dict[Any, Any]], object]) -> Callable[[dict[str, Any]], object]:
    return lambda checkpoint: change(checkpoint["optimizer"]["state"])


MISFITS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "missing": (net(lambda n: n.pop("1.bias")), "net: has no '1.bias'"),
    "too many": (net(lambda n: n.update(more=torch.zeros(1))), "net: has 'more', which the model has not"),
    "shape": (net(lambda n: n.update({"1.bias": torch.zeros(17)})), r"net\[1.bias\]: is .* of shape \(17,\)"),
    "dtype": (net(lambda n: n.update({"1.bias": torch.zeros(16).double()})), "is torch.float64 of shape"),
    "no tensor": (net(lambda n: n.update({"1.bias": 3})), r"net\[1.bias\]: is no tensor"),
    "no dict": (lambda c: c.update(net=[]), "net: is no state dict"),
    "no groups": (lambda c: c["optimizer"].pop("param_groups"), "optimizer: is no optimizer's state dict"),
    "two groups": (
        lambda c: c["optimizer"].update(param_groups=c["optimizer"]["param_groups"] * 2),
        "has 2 parameter groups",
    ),
    "other parameters": (group(params=[0, 1, 2]), r"param_groups\[0\]: params: has other parameters"),
    "true for one": (group(params=[0, True, 2, 3]), "has other parameters"),
    "option": (group(betas=(0.9, 0.99)), "has the option 'betas'"),
    "no rate": (lambda c: c["optimizer"]["param_groups"][0].pop("lr"), "lacks the option 'lr'"),
    "text": (group(lr="0.1"), r"param_groups\[0\]: lr: is no number"),
    "a tensor": (group(lr=torch.tensor(0.1)), "lr: is no number"),
    "a flag": (group(nesterov=1), "nesterov: is neither true nor false"),
    "no finite rate": (group(lr=float("nan")), "lr is nan, not finite"),
    "decay": (group(weight_decay=-1.0), "weight_decay is -1.0, below 0"),
    "momentum goes": (group(momentum=0.0), "keeps 'momentum_buffer'|momentum may not come or go"),
    "look-ahead comes": (group(nesterov=True), "nesterov is True, and False before"),
    "no state": (lambda c: c["optimizer"].update(state=[]), "state: is not a table"),
    "a fifth parameter": (state(lambda s: s.update({4: {}})), "'4' is no parameter's state"),
    "a parameter below": (state(lambda s: s.update({-1: {}})), "'-1' is no parameter's state"),
    "other state": (
        state(lambda s: s[0].update(exp_avg=torch.zeros(16, 64))),
        r"state\[0\]: keeps 'exp_avg'",
    ),
    "momentum's shape": (
        state(lambda s: s[1].update(momentum_buffer=torch.zeros(3))),
        r"state\[1\]\[momentum_buffer\]: is torch.float32 of shape \(3,\)",
    ),
    "no optimizer": (lambda c: c.pop("optimizer"), "has no 'optimizer', and model_step_0 has one"),
    "schedule": (
        lambda c: c.update(scheduler={"milestones": {6: 1}, "gamma": "a", "last_epoch": 5}),
        "scheduler: gamma: is no number",
    ),
    "a rate that a milestone makes infinite": (
        lambda c: c.update(scheduler={"milestones": {6: 1}, "gamma": float("inf"), "last_epoch": 5}),
        "model_step_5: scheduler: .*lr is inf",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_checkpoint_that_does_not_fit_is_refused_by_file_and_field(tmp_path: Path, case: str) -> None:
    trained = Trained(folder=tmp_path / "proof", hashed=False).run()
    change, message = MISFITS[case]
    trained.change(5, change)
    with pytest.raises(MalformedBundle, match=message) as raised:
        trained.imported(tmp_path / "bundle")
    assert str(trained.path(5)) in raised.value.where
    assert not (tmp_path / "bundle").exists()


def test_counts_of_updates_must_be_the_checkpoints(tmp_path: Path) -> None:
    trained = Trained(folder=tmp_path / "proof", optimizer=adam, hashed=False).run()
    trained.change(5, lambda c: c["optimizer"]["state"][2]["step"].fill_(4))
    with pytest.raises(MalformedBundle, match="does not count 5 updates"):
        trained.imported(tmp_path / "bundle")


def test_tied_weights_that_differ_are_refused(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)
            self.second.weight = self.first.weight

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.second(torch.tanh(self.first(images.flatten(1))))
            return scores

    trained = Trained(folder=tmp_path / "proof", build=Tied, hashed=False).run()
    trained.imported(tmp_path / "bundle")
    assert wrong_states(tmp_path / "bundle") == set()
    trained.change(5, net(lambda n: n.update({"second.weight": n["second.weight"] + 1})))
    with pytest.raises(MalformedBundle, match=r"second.weight\]: differs from the tensor that it is tied to"):
        trained.imported(tmp_path / "other")


def test_a_checkpoint_far_larger_than_the_model_is_not_opened(tmp_path: Path, trained: Trained) -> None:
    trained.change(5, lambda c: c["optimizer"].update(more=torch.zeros(SLACK_BYTES)))
    with pytest.raises(MalformedBundle, match="over the limit of") as raised:
        trained.imported(tmp_path / "bundle")
    assert raised.value.where == str(trained.path(5))


def test_files_at_the_target_stay(tmp_path: Path, trained: Trained) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "mine").write_text("")
    with pytest.raises(RecordError, match="already exists"):
        trained.imported(tmp_path / "bundle")
    assert [p.name for p in (tmp_path / "bundle").iterdir()] == ["mine"]


# The classical verifier, and the command.


@pytest.mark.parametrize("forged", [False, True])
def test_jia2021_takes_an_honest_folder_and_a_forged_one_and_full_neither(
    tmp_path: Path, forged: bool
) -> None:
    trained = Trained(folder=tmp_path / "proof", optimizer=plain, steps=60, every=4).run()
    if forged:
        trained.forge()
    trained.imported(tmp_path / "bundle")
    assert check(tmp_path / "bundle", "jia2021", executor=InProcess()).outcome == "accepted"
    assert check(tmp_path / "bundle", "full", executor=InProcess()).outcome == "rejected"


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, said.out, said.err


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "me.key"
    path.write_text(KEY.encode())
    return path


def test_the_command_says_what_it_read_and_what_to_do_next(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = recipe().data
    trained = Trained(
        folder=tmp_path / "proof", build=Net, optimizer=recipe().optimizer, data=data, hashed=False
    ).run()
    out = tmp_path / "bundle"
    status, said, problems = run(
        capsys, "import", trained.folder, "--recipe", "digits", "--out", out, "--key", key
    )
    assert (status, problems) == (0, "")
    assert f"{out}: {STEPS} steps in {SEGMENTS} segments, {BATCH} samples each" in said
    assert "note: hash.txt cannot be compared: it is not there" in said
    assert f"gradseal verify {out} --key {KEY.verification_key} --policy jia2021" in said
    status, said, _ = run(capsys, "show", out, "--json")
    assert (status, json.loads(said)["manifest"]["plan"]["every"]) == (0, EVERY)


WRONG_COMMANDS: dict[str, tuple[dict[str, str], str]] = {
    "no folder": ({"folder": "nowhere"}, "there is no such folder"),
    "a file": ({"folder": "me.key"}, "is a file"),
    "no checkpoints": ({"folder": "empty"}, "has no model_step_0"),
    "another model": ({}, r"has no 'features.0.weight'(.|\n)*proof/model_step_0: net(.|\n)*name the recipe"),
    "no recipe": ({"--recipe": "cifar"}, "no recipe is called 'cifar'"),
    "target": ({"--out": "empty/.."}, "already exists and is not empty"),
    "a file at the target": ({"--out": "me.key"}, "is a file|already exists"),
    "batch": ({"--batch-size": "7"}, "has batches of 8 samples, not of 7"),
    "rate": ({"--lr": "nan"}, "no finite number"),
    "key": ({"--key": "none.key"}, "no signing key can be read"),
}


@pytest.mark.parametrize("case", WRONG_COMMANDS)
def test_a_fresh_users_mistakes_are_named(
    tmp_path: Path,
    key: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    case: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    Trained(folder=tmp_path / "proof", hashed=False).run()
    changed, message = WRONG_COMMANDS[case]
    options = {"--recipe": "digits", "--out": "bundle", "--key": str(key), **changed}
    folder = options.pop("folder", "proof")
    status, said, problems = run(capsys, "import", folder, *[part for o in options.items() for part in o])
    assert (status, said) == (2, "")
    assert re.search(message, problems), problems
    assert "Traceback" not in problems
    assert not (tmp_path / "bundle").exists()
