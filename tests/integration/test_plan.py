"""`gradseal plan`: what an audit takes and proves, of a bundle and of segments that nobody recorded."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from bundles import check, digits, linear, record_run
from gradseal.cli.main import gradseal, main
from gradseal.errors import Error
from gradseal.study.audits.audited import MAX_PLANNED, Audited, alike, read_audited
from gradseal.study.audits.planning import SHARE_OF_PATH, Price, plan_audit
from gradseal.verify.policy import POLICIES, Policy
from gradseal.verify.sampling import draw_sample
from gradseal.verify.statistics import draws_needed, forged_bound, length_bound

STANDARD = POLICIES["standard"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 segments of two steps each, but for the last one of one."""
    path = tmp_path_factory.mktemp("plan") / "bundle"
    record_run(path, linear, steps=79, every=2, data=digits(8), batch_size=4)
    return path


def told(*arguments: str) -> Any:
    ended = CliRunner().invoke(gradseal, ["plan", *arguments, "--json"])
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout)


def test_a_bundle_is_planned_for_as_a_verification_replays_it(bundle: Path) -> None:
    run = read_audited(bundle)
    assert (run.segments, run.steps.tolist()) == (40, [2.0] * 39 + [1.0])
    verdict = check(bundle, "standard", draw=bytes(32))
    rows = verdict.segments.rows
    assert run.lengths.tolist() == [row.update for row in rows]
    assert run.displacement == verdict.segments.distance
    assert run.path == pytest.approx(verdict.segments.path_length)
    plan = plan_audit(run, STANDARD)
    (uniform, by_length) = verdict.claims[
        next(n for n in verdict.claims if n.value == "computation")
    ].evidence[1:3]
    assert f"{plan.uniform} of {plan.population} other segments drawn uniformly" in uniform
    assert f"at most {plan.most_forged} are forged" in uniform
    assert f"{plan.by_length} draws by length" in by_length
    assert plan.reach is not None
    assert f"at most {plan.reach:.2g} of ‖W_T − W_0‖" in by_length
    # Whatever the draw, all draws differ and so does the number of segments: about what was expected.
    assert abs(verdict.cost.segments_replayed - plan.expected_segments) < 4


def test_the_expected_cost_is_the_mean_of_verifications(bundle: Path) -> None:
    run = read_audited(bundle)
    policy = replace(STANDARD, tolerated_fraction=0.3, tolerated_length=0.4, longest=2)
    plan = plan_audit(run, policy, price=Price(seconds=0.5, money=2.0))
    samples = [
        draw_sample(policy, 40, bytes([i, j]) * 16, b"", lengths=run.lengths.tolist(), last=run.last).segments
        for i in range(20)
        for j in range(20)
    ]
    assert np.mean([len(s) for s in samples]) == pytest.approx(plan.expected_segments, abs=0.3)
    steps = np.mean([run.steps[s].sum() for s in samples])
    assert steps == pytest.approx(plan.expected_steps, abs=0.6)
    assert plan.share == pytest.approx(plan.expected_steps / 79)
    assert (plan.seconds, plan.money) == (plan.expected_steps * 0.5, plan.expected_steps * 2.0)


def test_segments_that_nobody_recorded(bundle: Path) -> None:
    plan = plan_audit(alike(10_000, 10), STANDARD, price=Price(seconds=0.2))
    assert (plan.certain, plan.uniform, plan.by_length, plan.population) == (11, 72, 36, 9989)
    assert plan.most_forged == forged_bound(9989, 72, 0.975)
    assert plan.most_length == length_bound(36, STANDARD.bound_confidence)
    assert plan.reach is None
    assert plan.money is None
    assert plan.displacement == pytest.approx(SHARE_OF_PATH * 10_000)
    own, uniform = plan.answered["this plan"], plan.answered["uniform"]
    assert own.as_they_are is not None
    assert uniform.as_they_are is not None
    assert own.as_they_are.detection > 0.99
    assert uniform.as_they_are.detection < 0.02
    # Where lengths are made long, uniform draws are all that is left.
    assert own.inflated.detection == pytest.approx(72 / 9989, abs=1e-3)
    assert plan.answered["by length"].inflated.detection == 0.0
    assert plan.answered["longest"].inflated.detection == 0.0
    for one in plan.answered.values():
        assert one.segments == pytest.approx(plan.expected_segments, abs=1.5)


@pytest.mark.parametrize("segments", [1, 2, 3, 12, 13])
def test_a_short_run_is_replayed_whole_or_nearly(segments: int) -> None:
    plan = plan_audit(alike(segments, 5), STANDARD)
    assert segments - 1 <= plan.expected_segments <= segments
    assert plan.answered["this plan"].inflated.detection in {0.0, 1.0}


def test_without_draws_by_length_there_is_no_statement_on_it() -> None:
    plan = plan_audit(alike(500, 1), replace(STANDARD, tolerated_length=None, longest=0))
    assert (plan.by_length, plan.most_length) == (0, None)
    assert plan.bound_confidence == pytest.approx(0.95)
    assert plan.uniform == draws_needed(498, 0.05, 0.95)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_lengths_that_are_not_known_are_not_guessed(wrong: float) -> None:
    lengths = np.ones(200)
    lengths[20:60] = wrong
    run = Audited(lengths=lengths, steps=np.ones(200), displacement=5.0)
    plan = plan_audit(run, STANDARD)
    assert (plan.by_length, plan.most_length, plan.reach) == (0, None, None)
    assert plan.uniform > 0
    assert plan.answered["this plan"].as_they_are is None
    assert set(plan.answered) == {"this plan", "uniform"}
    with pytest.raises(Error, match="no share of it"):
        plan_audit(run, STANDARD, displacement=0.3)


@pytest.mark.parametrize("length", [0.0, 5e-324, 1.7e308])
def test_hostile_lengths_end_in_a_plan(length: float) -> None:
    run = Audited(lengths=np.full(100, length), steps=np.ones(100), displacement=1.0)
    text = json.dumps(plan_audit(run, STANDARD).to_json())
    assert json.loads(text)["segments"] == 100


def test_a_plan_has_a_limit() -> None:
    with pytest.raises(Error, match=f"1 to {MAX_PLANNED} segments"):
        alike(MAX_PLANNED + 1, 1)


def test_a_bundle_that_contradicts_itself_is_not_planned_for(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    blob = max((copy / "blobs").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(bytes(data))
    ended = CliRunner().invoke(gradseal, ["plan", str(copy)])
    assert isinstance(ended.exception, Error)
    assert "verify it to see what is wrong" in ended.exception.diagnostics()


def test_the_command_says_what_the_plan_is(bundle: Path) -> None:
    ended = CliRunner().invoke(gradseal, ["plan", str(bundle), "--step-seconds", "60", "--price", "0.5"])
    assert ended.exit_code == 0, ended.output
    value = told(str(bundle), "--step-seconds", "60", "--price", "0.5")
    assert value["segments"] == 40
    for words in (
        "An audit of 40 segments\n",
        f"{value['uniform']} of the {value['population']} others, without replacement",
        f"{value['by_length']} draws of these, with replacement",
        f"at most {value['most_forged']} of {value['population']} are forged, with 97.5%",
        f"{value['money']:.2f}",
        f"{value['seconds'] / 60:.1f} minutes",
        "both with 95%",
        "of the whole way",
    ):
        assert words in ended.stdout, ended.stdout
    *lines, command = ended.stdout.splitlines()
    assert all(len(line) <= 100 for line in lines)
    assert command == f"To do it: {value['verify']}"


def test_options_reach_the_plan() -> None:
    value = told("--segments", "5000", "--every", "3", "--confidence", "0.99", "--forged", "0.01")
    policy = Policy(
        name="own",
        replay=STANDARD.replay,
        confidence=0.99,
        tolerated_fraction=0.01,
        tolerated_length=0.1,
        longest=10,
    )
    plan = plan_audit(alike(5000, 3), policy)
    assert value.pop("verify").startswith("gradseal verify BUNDLE --policy standard --confidence=0.99 ")
    assert value == json.loads(json.dumps(plan.to_json()))
    other = told("--segments", "5000", "--forged-length", "1", "--longest", "0", "--displacement", "0.1")
    assert (other["by_length"], other["longest"], other["displacement"]) == (0, 0, pytest.approx(500))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["runs/none"],
        ["runs/none", "--segments", "3"],
        ["runs/none", "--every", "3"],
        ["--segments", "0"],
        ["--segments", "5", "--forged", "nan"],
        ["--segments", "5", "--forged", "0"],
        ["--segments", "5", "--forged-length", "0"],
        ["--segments", "5", "--confidence", "1"],
        ["--segments", "5", "--price", "inf"],
        ["--segments", "5", "--step-seconds", "-1"],
        ["--segments", "5", "--displacement", "nan"],
    ],
)
def test_wrong_usage_ends_in_two(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["plan", *arguments, "--json"])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert "error" in json.loads(said.out)
    assert "Traceback" not in said.err
