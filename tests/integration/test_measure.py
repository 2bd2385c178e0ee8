"""Measuring the noise of replay: a baseline and variants, what is left out, what hostile answers end in."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from bundles import Forgery, mlp, record_run
from gradseal.errors import CorruptBlob, Error
from gradseal.proof.files import blob_path
from gradseal.study.noise import processes as numerics_run
from gradseal.study.noise import run as noise_run
from gradseal.study.noise.measure import Measurement, measure
from gradseal.study.noise.numerics import Variant
from gradseal.study.noise.run import run_noise
from gradseal.study.noise.told import Case, Noise, tell_cases, try_tolerance
from gradseal.study.noise.worker import _serve
from gradseal.verify.executors import WorkerDied
from gradseal.verify.policy import Policy

FLOAT64 = Variant(name="float64", operators="float64")
TF32 = Variant(name="tf32", operators="tf32")
ORDER = Variant(name="order", reorder=True)


def _here(
    module: str, message: Mapping[str, Any], variables: object, **limits: Any
) -> Generator[bytes, None, None]:
    """What `converse` gives, without a process."""
    lines: list[bytes] = []

    def say(kind: str, **content: Any) -> None:
        lines.append(json.dumps({"kind": kind, **content}).encode())

    try:
        _serve(json.loads(json.dumps(message)), say)
    except Error as e:
        say("error", error=type(e).__name__, message=e.message, where=e.where)
    yield from lines
    raise WorkerDied("ended", where="worker")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics_run, "converse", _here)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four segments of three steps."""
    path = tmp_path_factory.mktemp("noise") / "run"
    record_run(path, mlp, steps=12, every=3)
    return path


def _errors(measured: Measurement, variant: str) -> dict[tuple[int, int], float]:
    return {(m.segment, m.step): m.relative for m in measured.measured if m.variant == variant}


def test_variants_end_near_the_baseline_and_coarser_ones_farther(bundle: Path, here: None) -> None:
    marks = {0: [1, 3, 5], 3: [1, 3, 5]}
    measured = measure(bundle, segments=[3, 0], variants=[FLOAT64, TF32, ORDER], marks=marks)
    assert (measured.equal, measured.of) == (2, 2)
    asked = {(0, 1), (0, 3), (0, 5), (3, 1), (3, 3)}  # the run ends three steps after segment 3 begins
    assert set(measured.updates) == asked
    float64, tf32 = _errors(measured, "float64"), _errors(measured, "tf32")
    assert set(float64) == set(tf32) == set(_errors(measured, "order")) == asked
    assert all(0 <= error < 1e-5 for error in float64.values())
    assert all(1e-5 < error < 1e-1 for error in tf32.values())
    assert measured.scores(3) == {0: tf32[0, 3], 3: tf32[3, 3]}
    assert max(measured.scores(3, without="tf32").values()) < 1e-5


def test_the_rest_of_a_state_is_compared_at_a_segments_end(tmp_path: Path, here: None) -> None:
    """AdamW, whose two moments differ by noise, each by a share of its own change."""
    record_run(
        tmp_path / "run",
        mlp,
        steps=8,
        every=2,
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3),
    )
    measured = measure(tmp_path / "run", segments=[0, 2], variants=[FLOAT64, TF32], marks=[1, 2, 3, 4])
    ends = {(m.segment, m.variant): m for m in measured.measured if m.step == 2}
    assert len(ends) == 4
    assert all(m.state is None and not m.state_group for m in measured.measured if m.step != 2)
    assert {m.state_group for m in ends.values()} <= {"exp_avg", "exp_avg_sq"}
    for segment in (0, 2):
        fine, coarse = (ends[segment, name].state or 0.0 for name in ("float64", "tf32"))
        assert 0 < fine < 1e-5 < coarse < 1e-1
    assert measured.state_scores(2) == {s: ends[s, "tf32"].state for s in (0, 2)}


def test_a_process_is_started_for_each_variant(bundle: Path) -> None:
    two = Variant(name="threads 2", environment={"threads": 2, "onednn": False})
    told: list[tuple[str, int, int]] = []
    measured = measure(
        bundle, segments=[1], variants=[two], progress=lambda what, done, of: told.append((what, done, of))
    )
    assert measured.equal == 1
    assert measured.base.threads == 1
    # Whether its bits are others is for the machine to say; that it had two threads is not.
    assert "not to be had" not in measured.left_out.get("threads 2", "")
    assert told == [("replaying: baseline", 1, 1), ("replaying: threads 2", 2, 2)]


def test_what_a_process_did_not_get_is_left_out(bundle: Path, here: None) -> None:
    lacking = Variant(name="version", environment={"torch": "1.0"})
    measured = measure(bundle, segments=[1], variants=[lacking])
    assert measured.left_out["version"].startswith("torch 1.0 is not to be had here")
    assert not measured.measured


def _placed(model: nn.Module, batch: Any) -> torch.Tensor:
    images, classes = batch
    losses = functional.cross_entropy(model(images), classes, reduction="none")
    return (losses * torch.arange(len(losses))).sum()


def test_another_order_is_left_out_where_the_loss_depends_on_places(tmp_path: Path, here: None) -> None:
    record_run(tmp_path / "run", mlp, loss=_placed, steps=2)
    measured = measure(tmp_path / "run", segments=[0], variants=[ORDER, FLOAT64])
    assert "the loss depends on places in the batch" in measured.left_out["order"]
    assert [v.name for v in measured.variants] == ["float64"]


def test_a_variant_that_changes_no_bit_is_left_out(bundle: Path, here: None) -> None:
    measured = measure(bundle, segments=[0, 1], variants=[Variant(name="same")])
    assert measured.left_out == {"same": "gave the baseline's bits at all 6 marks"}
    assert measured.scores(3) == {0: 0.0, 1: 0.0}


def test_a_forged_end_is_not_equal_and_does_not_count(bundle: Path, tmp_path: Path, here: None) -> None:
    forgery = Forgery.of(bundle, tmp_path / "forged")
    name = next(name for name in forgery.states[2] if name.startswith("parameters/"))
    spec = next(s for s in forgery.program.layout if s.name == name)
    forgery.put_tensor(2, name, bytes(spec.size_bytes))
    forgery.write()
    measured = measure(tmp_path / "forged", segments=[1, 3], variants=[FLOAT64])
    assert (measured.equal, measured.of) == (1, 2)
    assert _errors(measured, "float64")[1, 3] < 1e-5  # from the baseline, not from what was sealed


def test_an_altered_state_ends_it(bundle: Path, tmp_path: Path, here: None) -> None:
    forgery = Forgery.of(bundle, tmp_path / "altered")
    digest = next(iter(forgery.states[0].values()))
    path = tmp_path / "altered" / blob_path(digest)
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(CorruptBlob):
        measure(tmp_path / "altered", segments=[0], variants=[])


def test_a_worker_that_dies_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics_run, "WORKER", "gradseal.study.no_such_worker")
    with pytest.raises(WorkerDied, match=r"baseline: ended with status 1.*no_such_worker"):
        measure(bundle, segments=[0], variants=[])


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[]",
        b'{"kind": "mark", "segment": 0, "step": 2, "error": {}, "update": {}}',
        b'{"kind": "mark", "segment": 7, "step": 3, "error": {}, "update": {}}',
        b'{"kind": "mark", "segment": 0, "step": 3, "error": {"l1": -1.0}, "update": {}}',
        b'{"kind": "environment", "environment": {"threads": 1}}',
        b'{"kind": "error"}',
    ],
)
def test_an_answer_that_was_not_asked_for_ends_it(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, line: bytes
) -> None:
    monkeypatch.setattr(numerics_run, "converse", lambda *a, **b: (one for one in [line]))
    with pytest.raises(WorkerDied, match="baseline: its answer cannot be read"):
        measure(bundle, segments=[0], variants=[], marks=[3])


def test_what_cannot_be_measured_is_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(Error, match="there is no segment 4, but 4"):
        measure(bundle, segments=[4])
    with pytest.raises(Error, match="no segment to measure"):
        measure(bundle, segments=[])
    with pytest.raises(Error, match="1 threads; the policy allows 0"):
        measure(bundle, segments=[0], policy=replace(Policy.named("full"), max_threads=0))
    record_run(tmp_path / "exact", mlp, steps=2, arithmetic="exact")
    with pytest.raises(Error, match="exact arithmetic, whose replays have no noise"):
        measure(tmp_path / "exact", segments=[0])


def test_a_run_of_the_part_is_recorded_measured_and_told(monkeypatch: pytest.MonkeyPatch, here: None) -> None:
    monkeypatch.setattr(noise_run, "SEGMENTS", 3)
    monkeypatch.setattr(noise_run, "measure", _only([FLOAT64, TF32]))
    sizes = {"segments": 6, "every": 1, "batch_size": 16, "followed": 1, "steps_followed": 2}
    case = Case(recipe="digits", optimizer="adamw", sizes=sizes)
    result = run_noise(recipe="digits", optimizer="adamw", seed=5, family="reduced", **sizes)
    assert len(set(result["calibration"]) & set(range(6))) == 3
    assert len(set(result["held_out"]) & set(range(6, 12))) == 3  # of another run
    assert result["equal"] == result["of"] >= 6
    section = tell_cases("noise", "Noise", {case: json.loads(json.dumps(result))}, [])
    assert section.figures["digits_adamw_equal"] == result["of"]
    taus = [section.figures[f"digits_adamw_{name}"] for name in ("tau", "reduced_tau")]
    assert 0 < float(taus[0] or 0) < float(taus[1] or 0)
    assert [plot.name for plot in section.plots] == ["noise-digits-adamw-fresh", "noise-digits-adamw-warmed"]
    assert [s.x for s in section.plots[0].series] == [(1.0, 2.0), (1.0, 2.0)]


def _only(variants: list[Variant]) -> Callable[..., Measurement]:
    return lambda url, **options: measure(url, **{**options, "variants": variants})


def test_a_tolerance_is_tried_on_held_out_segments_with_and_without_each_variant() -> None:
    """59 for either: one variant's errors are 1 to 59, the other's half of it, held out three of them 60."""
    calibration, held_out = list(range(59)), list(range(59, 118))
    errors: dict[str, Callable[[int], float]] = {
        "a": lambda s: s % 59 + 1.0,
        "b": lambda s: 60.0 if s >= 115 else (s % 59 + 1) / 2,
    }
    rows = [[s, v, 5, error(s)] for s in range(118) for v, error in errors.items()]
    noise = Noise(
        {
            "rows": rows,
            "variants": {"a": False, "b": False},
            "calibration": calibration,
            "held_out": held_out,
            "fresh": [],
            "warmed": [],
            "every": 5,
        }
    )
    together, a, b = try_tolerance(noise, reduced=False)
    assert together.tau == 59.0
    assert together.rate == pytest.approx(1 - 0.05 ** (1 / 59))
    assert (together.rejected, a.rejected, b.rejected) == (3, 0, 3)
    assert together.within  # 3 of 59 may well happen at 5 %
    assert a.unseen == 30  # those of 30 to 59: the largest of b's that was calibrated on is 29.5
    assert b.unseen == 3
