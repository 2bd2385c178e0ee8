"""Runs in exact arithmetic: recorded, verified, refuted where altered, and the same under other settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import settings
from bundles import KEY, Forgery, check, cross_entropy, digits, findings, mlp, record_run, sgd, statuses
from coverage_table import OPTIMIZERS
from gradseal.errors import CaptureError, RecordError, ReplayError
from gradseal.program.batches import collate, encode_sample, schema_of
from gradseal.program.capture import capture
from gradseal.program.exact import fitness
from gradseal.program.initialise import initialise
from gradseal.program.interpret import Interpreter
from gradseal.program.randomness import words
from gradseal.proof.files import read_blob
from gradseal.record.recorder import record
from gradseal.verify.verdict import Check, Result
from models import EXAMPLES, Example

SHOWN = {"integrity": "shown", "initialisation": "shown", "data": "shown", "computation": "shown"}


def claims(path: Path) -> dict[str, str]:
    return {name: status for name, status in statuses(check(path)).items() if name != "precedence"}


def record_example(
    path: Path, example: Example, optimizer: str = "AdamW", *, arithmetic: str = "exact", **options: Any
) -> nn.Module:
    with initialise():
        model = example.build()
    chosen: dict[str, Any] = {"batch_size": 8, "steps": 4, "every": 2, **options}
    with record(
        path,
        model,
        OPTIMIZERS[optimizer](example.groups(model)),
        loss=example.loss,
        data=example.data(),
        key=KEY,
        seed=1,
        progress=False,
        arithmetic=arithmetic,
        **chosen,
    ) as run:
        for batch in run:
            run.step(batch)
    return model


EXACT_EXAMPLES = {name: example for name, example in EXAMPLES.items() if name != "bfloat16 autocast"}


@pytest.mark.parametrize("name", EXACT_EXAMPLES)
def test_a_model_is_recorded_and_verified(tmp_path: Path, name: str) -> None:
    record_example(tmp_path / "b", EXACT_EXAMPLES[name])
    assert claims(tmp_path / "b") == SHOWN


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimizer_is_recorded_and_verified(tmp_path: Path, optimizer: str) -> None:
    record_example(tmp_path / "b", EXAMPLES["frozen layer"], optimizer, clip=1.0, accumulate=2)
    assert claims(tmp_path / "b") == SHOWN


@pytest.mark.parametrize("name", EXACT_EXAMPLES)
def test_gradients_are_near_those_of_native_arithmetic(name: str) -> None:
    example = EXACT_EXAMPLES[name]
    torch.manual_seed(0)
    model = example.build()
    for module in model.modules():  # what is drawn differs
        for share in ("p", "dropout", "dropout_prob", "attn_dropout", "resid_dropout"):
            if isinstance(getattr(module, share, None), float):
                setattr(module, share, 0.0)
    schema = schema_of(example.data()[0])
    batch = collate(
        schema, [encode_sample(schema, example.data()[i], i) for i in range(8)], torch.device("cpu")
    )
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    captured = capture(model, example.loss, trained, schema, batch, exact=True)
    state = {f"parameters/{n}": p.detach() for n, p in model.named_parameters()}
    state |= {f"buffers/{n}": b for n, b in model.named_buffers()}
    native, exact = (
        Interpreter(
            captured.graph, captured.constants, torch.device("cpu"), guarded=True, exact=is_exact
        ).run(state, batch, lambda node: lambda count: words(bytes(16), 0, count))
        for is_exact in (False, True)
    )
    torch.testing.assert_close(exact.loss, native.loss, rtol=1e-5, atol=1e-6)
    largest = max(float(gradient.abs().max()) for gradient in native.gradients.values())
    for parameter, gradient in native.gradients.items():
        near = 1e-3 * float(gradient.abs().max()) + 1e-6 * largest
        torch.testing.assert_close(exact.gradients[parameter], gradient, rtol=1e-3, atol=near)


def test_the_manifest_names_the_definition_and_no_machine(tmp_path: Path) -> None:
    record_run(tmp_path / "b", arithmetic="exact")
    assert Forgery.of(tmp_path / "b", tmp_path / "copy").manifest.arithmetic == {
        "kind": "exact",
        "definition": 1,
    }


def test_the_log_is_the_same_with_two_threads_and_without_the_kernel(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from bundles import record_run\n"
        "record_run(__import__('pathlib').Path(sys.argv[1]), arithmetic='exact')\n"
    )
    notes = []
    for number, (threads, kernel) in enumerate([("1", "on"), ("2", "off")]):
        path = tmp_path / str(number)
        variables = {**os.environ, "OMP_NUM_THREADS": threads, "GRADSEAL_EXACT_KERNEL": kernel}
        subprocess.run([sys.executable, "-c", program, str(path)], check=True, env=variables, timeout=120)
        notes.append((path / "checkpoint").read_bytes())
    assert notes[0] == notes[1]


def test_a_difference_refutes_whatever_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_run(tmp_path / "b", arithmetic="exact")
    forged = Forgery.of(tmp_path / "b", tmp_path / "f")
    name = next(iter(forged.states[2]))
    data = read_blob(forged.copy.files, forged.states[2][name], 1 << 20)
    weights = np.frombuffer(data, dtype=np.uint32).copy()
    weights[0] ^= 1
    forged.put_tensor(2, name, weights.tobytes())
    forged.write()
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    verdict = check(tmp_path / "f")
    assert statuses(verdict)["computation"] == "refuted"
    assert findings(verdict, Result.REFUTED, Check.REPLAY)


def test_a_process_that_flushes_subnormals_is_found_unfit() -> None:
    assert torch.set_flush_denormal(True)
    try:
        with pytest.raises(ReplayError, match="does not compute exact arithmetic"):
            fitness.prove(torch.device("cpu"))
    finally:
        torch.set_flush_denormal(False)
    fitness.prove(torch.device("cpu"))


def test_a_recording_that_flushes_subnormals_is_refused(tmp_path: Path) -> None:
    assert torch.set_flush_denormal(True)
    try:
        with pytest.raises(CaptureError, match="denormal"):
            record_run(tmp_path / "b", arithmetic="exact")
    finally:
        torch.set_flush_denormal(False)


def test_settings_meet_in_few() -> None:
    assert len(settings.cover()) <= 10


def test_a_step_of_ones_own_is_refused(tmp_path: Path) -> None:
    with initialise():
        model = mlp()
    with (
        pytest.raises(RecordError, match=r"run\.step"),
        record(
            tmp_path / "b",
            model,
            sgd(model),
            loss=cross_entropy,
            data=digits(),
            batch_size=8,
            steps=2,
            every=2,
            key=KEY,
            progress=False,
            arithmetic="exact",
        ) as run,
    ):
        run.wrap(lambda batch: batch)


class Undefined(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Sines()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.inner(x)
        return result


class Sines(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(self.layer(x.flatten(1)))


def test_an_operator_without_a_definition_is_refused_by_name_and_module(tmp_path: Path) -> None:
    with pytest.raises(
        CaptureError, match=r"aten\.sin\.default is not defined in exact arithmetic"
    ) as caught:
        record_run(tmp_path / "b", Undefined, arithmetic="exact")
    assert caught.value.where == "model.inner"
    assert not (tmp_path / "b").exists()
    record_run(tmp_path / "b", Undefined)


def test_mixed_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="bfloat16"):
        record_example(tmp_path / "b", EXAMPLES["bfloat16 autocast"])


def test_an_unknown_arithmetic_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no arithmetic is called 'fast'"):
        record_run(tmp_path / "b", arithmetic="fast")


@pytest.mark.parametrize("definition", [0, 2])
def test_another_definition_leaves_the_bundle_undecided(tmp_path: Path, definition: int) -> None:
    record_run(tmp_path / "b", arithmetic="exact")
    forged = Forgery.of(tmp_path / "b", tmp_path / "f")
    forged.manifest = replace(forged.manifest, arithmetic={"kind": "exact", "definition": definition})
    forged.write()
    verdict = check(tmp_path / "f")
    assert statuses(verdict)["computation"] == "not shown"
    assert any("this version knows 1" in finding.message for finding in findings(verdict, Result.UNDECIDED))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exact") / "digits"
    settings.record_recipe(path, "digits", steps=6, every=3)
    return path


@pytest.mark.parametrize("setting", settings.cover(), ids=settings.named)
def test_no_setting_changes_a_bit(bundle: Path, setting: settings.Setting) -> None:
    found = settings.replay(bundle, setting, timeout_seconds=120)
    assert (found["computation"], found["wrong"]) == ("shown", []), json.dumps(found)
    assert found["threads"] == int(setting["threads"])
    assert found["onednn"] == (setting["onednn"] != "off")
    assert found["capability"] == setting["capability"].upper()
    if setting["blocking"] == "torch":
        assert found["kernel"] == "none"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
def test_a_gpu_changes_no_bit(bundle: Path) -> None:
    assert settings.replay(bundle, settings.cover()[0], timeout_seconds=120)["device"] == "cuda"


@pytest.mark.parametrize("name", ["mnist", "text"])
def test_a_recipe_is_recorded_and_verified(tmp_path: Path, name: str) -> None:
    settings.record_recipe(tmp_path / "b", name, steps=4, every=2, batch_size=8)
    assert claims(tmp_path / "b") == SHOWN
