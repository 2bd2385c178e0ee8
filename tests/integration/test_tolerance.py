"""Verification by a calibrated tolerance, where the recorded environment cannot be had."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bundles import Forgery, check, findings, record_run, statuses
from elsewhere import Elsewhere, calibration, manifest_of
from gradseal.proof.files import read_blob
from gradseal.report.page import render_page
from gradseal.verify.policy import Policy
from gradseal.verify.statistics import length_draws_needed
from gradseal.verify.verdict import Check, ClaimName, Outcome, Result, Verdict
from in_process import InProcess

HERE = Elsewhere(fields={})


class Normed(nn.Module):
    """Has buffers that have noise, and a counter that has none."""

    def __init__(self) -> None:
        super().__init__()
        # A bias before the norm would have a gradient of rounding errors alone, which Adam makes large.
        self.first = nn.Linear(64, 16, bias=False)
        self.norm, self.last = nn.BatchNorm1d(16), nn.Linear(16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.norm(self.first(images.flatten(1))).relu()
        out: torch.Tensor = self.last(hidden)
        return out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 segments of one step each."""
    path = tmp_path_factory.mktemp("tolerance") / "run"
    record_run(path, steps=24, every=1)
    return path


UNIFORM = replace(Policy.named("standard"), tolerated_length=None, longest=0)


def verified(
    path: Path,
    policy: str | Policy = "standard",
    cap: float = 0.1,
    executor: Any = None,
    draw: bytes | None = None,
    **changed: Any,
) -> Verdict:
    """By a calibration that fits, but for what is changed."""
    named = policy if isinstance(policy, Policy) else Policy.named(policy)
    named = replace(named, calibration=calibration(manifest_of(path), **changed), tau_cap=cap)
    return check(path, named, executor=executor or Elsewhere(), draw=draw)


def evidence(verdict: Verdict, claim: ClaimName = ClaimName.COMPUTATION) -> str:
    return "\n".join(verdict.claims[claim].evidence)


def said(verdict: Verdict, result: Result) -> str:
    return "\n".join(f.message for f in findings(verdict, result, Check.TOLERANCE))


def forged(source: Path, target: Path, state: int, change: float) -> Path:
    """A copy in whose state a parameter's first number is moved."""
    forgery = Forgery.of(source, target)
    name = next(name for name in forgery.states[state] if name.startswith("parameters/"))
    spec = next(spec for spec in forgery.program.layout if spec.name == name)
    data = bytearray(read_blob(forgery.copy.files, forgery.states[state][name], 1 << 20))
    (first,) = struct.unpack_from("<f", data)
    struct.pack_into("<f", data, 0, first + change)
    assert len(data) == spec.size_bytes
    forgery.put_tensor(state, name, bytes(data))
    forgery.write(refill=False)
    return target


def test_without_a_calibration_noise_leaves_it_undecided(run: Path) -> None:
    verdict = check(run, "standard", executor=Elsewhere())
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert findings(verdict, Result.UNDECIDED, Check.REPLAY)
    assert verdict.tolerance == {}


def test_an_honest_run_elsewhere_is_accepted_as_supported(run: Path) -> None:
    verdict = verified(run)
    assert verdict.outcome is Outcome.ACCEPTED
    assert (statuses(verdict)["computation"], statuses(verdict)["data"]) == ("supported", "supported")
    told = evidence(verdict)
    for part in ("within 0.0001 of their update", "calibrator.example", "90% confidence", "reach 0.00"):
        assert part in told
    assert "the rest of their state to within 0.0002 of its change" in told
    assert "losses are not compared" in told
    assert "all segments end within the tolerance for the rest of a state" in told
    assert (verdict.tolerance["false_rejection"], verdict.tolerance["state_tau"]) == (0.1, 2e-4)
    assert 0 < verdict.tolerance["largest_state_error"] < 2e-4
    assert verdict.tolerance["within"] > 0
    assert 0 < verdict.tolerance["largest_error"] < 1e-4
    assert 1e-4 <= verdict.tolerance["reach"] < 0.1
    assert verdict.to_json()["policy"]["calibration"]["tau"] == 1e-4


def test_a_tolerance_never_shows(run: Path) -> None:
    verdict = verified(run, "full")
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert (statuses(verdict)["computation"], statuses(verdict)["data"]) == ("supported", "supported")
    assert "all 24 segments passed whose update is from" in evidence(verdict)


def test_in_the_recorded_environment_only_bits_count(run: Path) -> None:
    verdict = verified(run, executor=HERE)
    assert verdict.outcome is Outcome.REJECTED
    assert findings(verdict, Result.REFUTED, Check.REPLAY)
    assert "not used" in said(verdict, Result.NOTED)


def test_in_the_recorded_environment_the_bits_show_it(run: Path) -> None:
    verdict = verified(run, "full", executor=InProcess())
    assert verdict.outcome is Outcome.ACCEPTED
    assert statuses(verdict)["computation"] == "shown"


def test_a_calibration_that_would_not_fit_is_told_where_it_is_not_used(run: Path) -> None:
    verdict = verified(run, "full", executor=InProcess(), every=5)
    assert verdict.outcome is Outcome.ACCEPTED
    assert "nor would it fit: it is of 5 steps in a segment, the run has 1" in said(verdict, Result.NOTED)
    assert "nor would" not in said(verified(run, "full", executor=InProcess()), Result.NOTED)


def test_one_forged_segment_is_beyond_and_undecided(run: Path, tmp_path: Path) -> None:
    verdict = verified(forged(run, tmp_path / "forged", 12, 1.0), "full")
    beyond = [f for f in findings(verdict, Result.UNDECIDED, Check.TOLERANCE) if f.segment is not None]
    assert {f.segment for f in beyond} == {11, 12}
    assert all(f.allowed == 1e-4 and f.measured is not None and f.measured > 0.1 for f in beyond)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert (statuses(verdict)["computation"], statuses(verdict)["data"]) == ("not shown", "not shown")
    assert verdict.tolerance["beyond"] == 2


def test_a_state_of_no_number_is_beyond(run: Path, tmp_path: Path) -> None:
    verdict = verified(forged(run, tmp_path / "forged", 12, float("nan")), "full")
    beyond = [f for f in findings(verdict, Result.UNDECIDED, Check.TOLERANCE) if f.segment is not None]
    assert {f.segment for f in beyond} == {11, 12}
    assert beyond[0].measured is None
    assert verdict.outcome is Outcome.INCONCLUSIVE


def test_more_beyond_than_the_rate_explains_is_said_and_refutes_nothing(run: Path) -> None:
    verdict = verified(run, tau=1e-12)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "noise that was measured hardly explains it" in said(verdict, Result.UNDECIDED)
    assert not findings(verdict, Result.REFUTED)


def test_updates_longer_than_those_measured_are_no_evidence(run: Path) -> None:
    verdict = verified(run, ceiling=1e-5)
    assert verdict.tolerance["within"] == 0
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.tolerance["reach"] >= 1


def test_a_cap_takes_the_rate_away(run: Path) -> None:
    verdict = verified(run, cap=1e-5)
    assert verdict.outcome is Outcome.ACCEPTED
    assert "no longer holds" in said(verdict, Result.NOTED)
    assert "no longer holds" in evidence(verdict)
    assert (verdict.tolerance["tau"], verdict.tolerance["false_rejection"]) == (1e-5, None)


def test_what_only_a_cap_excludes_refutes_nothing(run: Path) -> None:
    verdict = verified(run, cap=1e-12)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert not findings(verdict, Result.REFUTED)


def test_updates_below_the_floor_are_no_evidence(run: Path) -> None:
    verdict = verified(run, floor=1e3)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert statuses(verdict)["computation"] == "not shown"
    assert verdict.tolerance["within"] == 0
    assert verdict.tolerance["no_evidence"] > 0
    assert "no evidence" in said(verdict, Result.NOTED)


@pytest.mark.parametrize("draw", [bytes([i]) * 32 for i in range(6)])
def test_a_bound_counts_only_segments_with_evidence(run: Path, draw: bytes) -> None:
    updates = sorted(row.update or 0.0 for row in verified(run).segments.rows)
    verdict = verified(run, UNIFORM, draw=draw, floor=(updates[2] + updates[3]) / 2)
    assert statuses(verdict)["computation"] == "supported"
    drawn = next(line for line in verdict.claims[ClaimName.COMPUTATION].evidence if "drawn uniformly" in line)
    ends = {0, 23} - {r.number for r in verdict.segments.rows if (r.update or 0.0) <= updates[2]}
    assert f"of {21 - len(ends)} other segments with evidence" in drawn
    assert "3 of 24 updates are not from" in evidence(verdict)
    assert re.search(r"short updates too: with 95% .* of the 22 that were drawn from", evidence(verdict))
    plain = (1e-4 * sum(updates)) / (verdict.segments.distance or 1.0)
    assert verdict.tolerance["reach"] == pytest.approx(
        plain + (1 - 1e-4) * sum(updates[:3]) / (verdict.segments.distance or 1.0)
    )


@pytest.mark.parametrize("draw", [bytes([i]) * 32 for i in range(4)])
def test_draws_by_length_are_as_many_of_segments_with_evidence(run: Path, draw: bytes) -> None:
    policy = replace(UNIFORM, tolerated_length=0.3, tolerated_fraction=0.2)
    updates = sorted(row.update or 0.0 for row in verified(run).segments.rows)
    wanted = length_draws_needed(0.3, policy.bound_confidence)
    # The five longest have no evidence, and are drawn before others.
    verdict = verified(run, policy, draw=draw, tau=1e-5, ceiling=(updates[-6] + updates[-5]) / 2)
    assert f"{wanted} draws by length, of " in evidence(verdict)
    assert "5 of 24 updates are not from" in evidence(verdict)
    assert "no bound on the segments" not in evidence(verdict)


def test_at_a_reach_of_1_nothing_is_supported(run: Path) -> None:
    verdict = verified(run, tau=0.9, cap=1.0)
    assert verdict.tolerance["reach"] >= 1
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "could have gone anywhere" in evidence(verdict)
    assert statuses(verdict)["data"] == "not shown"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"program": bytes(32)}, "program 0000000000000000…"),
        ({"every": 5}, "5 steps in a segment, the run has 1"),
        ({"batch_size": 4}, "4 samples in a batch, the run has 16"),
        ({"accumulate": 2}, "2 batches in a step, the run has 1"),
    ],
)
def test_a_calibration_of_something_else_leaves_it_undecided(run: Path, changed: Any, told: str) -> None:
    verdict = verified(run, **changed)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert told in said(verdict, Result.UNDECIDED)
    assert statuses(verdict)["computation"] == "not shown"


def test_a_calibration_made_in_another_environment_is_named(run: Path) -> None:
    other = replace(calibration(manifest_of(run)).environment, threads=9)
    assert "threads '9'" in said(verified(run, environment=other), Result.NOTED)


def test_the_page_tells_tolerance_and_reach(run: Path) -> None:
    from datetime import UTC, datetime

    verdict = verified(run)
    page = render_page(verdict, title="t", repeat="r", made=datetime(2026, 1, 1, tzinfo=UTC))
    for part in (
        "Tolerance of replays",
        "calibrator.example",
        "reach",
        "within, by",
        "or within the tolerance",
    ):
        assert part in page
    assert '<strong class="refuted">differs' not in page


def optimizer_named(name: str) -> Any:
    """One that keeps a momentum, or moments."""
    if name == "sgd":
        return lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3)


def moved(source: Path, target: Path, key: str, change: Any, state: int = 12) -> Path:
    """A copy in whose state a tensor that the name ends in is another, and all is sealed again."""
    forgery = Forgery.of(source, target)
    name = next(name for name in forgery.states[state] if name.endswith(key))
    spec = next(spec for spec in forgery.program.layout if spec.name == name)
    kept = torch.frombuffer(
        bytearray(read_blob(forgery.copy.files, forgery.states[state][name], 1 << 20)),
        dtype=getattr(torch, spec.dtype),
    )
    forgery.put_tensor(state, name, change(kept.clone()).numpy().tobytes())
    forgery.write(refill=False)
    return target


@pytest.mark.parametrize("factor", [0.0, -1.0, 1.01])
def test_a_false_momentum_is_beyond_though_the_next_segment_replays_honestly(
    run: Path, tmp_path: Path, factor: float
) -> None:
    path = moved(run, tmp_path / "forged", "/momentum_buffer", lambda kept: kept * factor)
    verdict = verified(path, "full")
    beyond = [f for f in findings(verdict, Result.UNDECIDED, Check.TOLERANCE) if f.segment == 11]
    assert ["momentum_buffer ends" in f.message for f in beyond] == [True]
    assert beyond[0].allowed == 2e-4
    assert beyond[0].measured is not None
    assert beyond[0].measured > 2e-3
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert statuses(verdict)["computation"] == "not shown"
    assert verdict.tolerance["state_group"] == "momentum_buffer"


def test_a_false_momentum_is_beyond_below_the_floor_too(run: Path, tmp_path: Path) -> None:
    path = moved(run, tmp_path / "forged", "/momentum_buffer", torch.zeros_like)
    verdict = verified(path, "full", floor=1e3)
    (beyond,) = [f for f in findings(verdict, Result.UNDECIDED, Check.TOLERANCE) if f.segment == 11]
    assert "momentum_buffer ends" in beyond.message
    assert verdict.tolerance["within"] == 0


def test_what_a_group_may_drift_is_told(run: Path, tmp_path: Path) -> None:
    """The limit that docs/guide/calibrate.md states."""
    path = moved(run, tmp_path / "forged", "/momentum_buffer", lambda kept: kept + 1e-9)
    verdict = verified(path, "full")
    assert statuses(verdict)["computation"] == "supported"
    assert "compared in groups: momentum_buffer; drift" in evidence(verdict)
    assert "the reach does not know of it" in evidence(verdict)


@pytest.mark.parametrize("cap", [1e-5, 1e-12])
def test_the_cap_holds_for_the_rest_of_a_state(run: Path, cap: float) -> None:
    verdict = verified(run, "full", cap=cap, tau=1e-12 if cap < 1e-9 else 1e-5)
    assert (verdict.tolerance["state_tau"], verdict.tolerance["capped"]) == (cap, True)
    assert ("rest of a state" in said(verdict, Result.UNDECIDED)) == (cap == 1e-12)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_honest_buffers_moments_and_counters_are_within_and_false_ones_are_not(
    tmp_path: Path, name: str
) -> None:
    record_run(tmp_path / "run", Normed, steps=12, every=2, optimizer=optimizer_named(name))
    verdict = verified(tmp_path / "run", "full", tau=1e-3, state_tau=1e-3)
    assert statuses(verdict)["computation"] == "supported", said(verdict, Result.UNDECIDED)
    assert 0 < verdict.tolerance["largest_state_error"] < 1e-3
    assert verdict.tolerance["within"] == 6
    assert "all segments end within the tolerance for the rest of a state" in evidence(verdict)
    false = {"num_batches_tracked": lambda kept: kept + 1, "running_var": lambda kept: kept * 1.5}
    for key, change in false.items():
        path = moved(tmp_path / "run", tmp_path / key, key, change, state=3)
        verdict = verified(path, "full", tau=1e-3, state_tau=1e-3)
        (beyond,) = [f for f in findings(verdict, Result.UNDECIDED, Check.TOLERANCE) if f.segment == 2]
        counter = key == "num_batches_tracked"
        assert (f"{key} differs where" if counter else "buffers ends") in beyond.message
        assert (beyond.measured is None) == counter
        assert json.loads(json.dumps(verdict.to_json(), allow_nan=False))


def test_without_a_rest_only_parameters_are_told(tmp_path: Path) -> None:
    record_run(
        tmp_path / "run",
        steps=8,
        every=1,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.05),
    )
    verdict = verified(tmp_path / "run", "full", state_tau=0.0)
    assert statuses(verdict)["computation"] == "supported"
    assert verdict.tolerance["state_tau"] is None
    assert (verdict.tolerance["false_rejection"], verdict.tolerance["confidence"]) == (0.05, 0.95)
    assert "rest of" not in evidence(verdict)
