"""Bundles judged as the classical protocol would, and by its repairs: what passes, and what does not."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.optim.lr_scheduler import LinearLR

from bundles import KEY, Forgery, check, cross_entropy, digits, findings, linear, mlp, record_run, statuses
from gradseal.cli import main
from gradseal.program.initialise import initialise
from gradseal.proof.files import read_blob
from gradseal.record.recorder import record
from gradseal.report import facts, meaning
from gradseal.verify.classical import Limits
from gradseal.verify.in_process import InProcess
from gradseal.verify.policy import Policy, policy_names
from gradseal.verify.verdict import Check, ClaimName, Outcome, Result, Verdict

JIA2021 = [name for name in policy_names() if name.startswith("jia2021")]
WEIGHT = "parameters/1.weight"
STEPS, EVERY = 12, 1
"""Epochs of three steps: four of them, of three segments each."""


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("honest") / "run"
    record_run(path, mlp, steps=STEPS, every=EVERY)
    return path


def judged(path: Path, policy: str | Policy, **options: Any) -> Verdict:
    return check(path, policy, executor=InProcess(), **options)


def with_top(name: str, top: int) -> Policy:
    policy = Policy.named(name)
    return replace(policy, classical=replace(policy.require_classical(), top=top))


def forged(source: Path, target: Path, change: Callable[[Forgery], None]) -> Path:
    forgery = Forgery.of(source, target)
    change(forgery)
    forgery.write(refill=False)
    return target


def values(forgery: Forgery, state: int, name: str = WEIGHT) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.frombuffer(read_blob(forgery.copy.files, forgery.states[state][name], 1 << 20), "<f4").copy()


def moved(state: int, by: float) -> Callable[[Forgery], None]:
    """One element of a state moved by so much."""

    def change(forgery: Forgery) -> None:
        own = values(forgery, state)
        own[0] += by
        forgery.put_tensor(state, WEIGHT, own.tobytes())

    return change


@pytest.mark.parametrize("policy", JIA2021)
def test_an_honest_run_is_accepted(honest: Path, policy: str) -> None:
    verdict = judged(honest, policy)
    assert verdict.outcome is Outcome.ACCEPTED
    assert statuses(verdict) == {
        "integrity": "shown",
        "precedence": "not shown",
        "initialisation": "supported",
        "data": "not shown",
        "computation": "supported",
    }
    assert verdict.cost.segments_replayed == 12, "the five largest of three are all"
    said = " ".join(verdict.claims[ClaimName.COMPUTATION].evidence)
    assert "12 of 12 segments replay to near" in said
    assert "cannot see which value sits where" in verdict.claims[ClaimName.INITIALISATION].evidence[1]
    plain = verdict.to_json()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert "classical" in facts.policy(verdict.policy)["protocol"]
    assert "no evidence against a forger" in meaning.amounts_to(verdict)
    assert "classical protocol" in meaning.asked(verdict)


@pytest.mark.parametrize("policy", ["jia2021", "jia2021-bounded"])
def test_an_exact_run_is_accepted(tmp_path: Path, policy: str) -> None:
    record_run(tmp_path / "run", linear, arithmetic="exact", steps=3, every=1)
    assert judged(tmp_path / "run", policy).outcome is Outcome.ACCEPTED


def test_the_largest_updates_of_each_epoch_are_replayed(honest: Path) -> None:
    verdict = judged(honest, with_top("jia2021", 1))
    updates = [row.update or 0.0 for row in verdict.segments.rows]
    epochs = [updates[i : i + 3] for i in range(0, 12, 3)]
    largest = [3 * number + own.index(max(own)) for number, own in enumerate(epochs)]
    assert [row.number for row in verdict.segments.rows if row.replayed] == largest
    drawn = judged(honest, with_top("jia2021-random", 1), draw=bytes(32))
    assert drawn.cost.segments_replayed == 4
    assert "of 12 segments lie beyond" in " ".join(drawn.claims[ClaimName.COMPUTATION].evidence)


def test_a_large_jump_is_refuted_and_named(honest: Path, tmp_path: Path) -> None:
    path = forged(honest, tmp_path / "forged", moved(6, 30.0))
    verdict = judged(path, with_top("jia2021-random", 0))
    assert verdict.outcome is Outcome.REJECTED
    refuted = findings(verdict, Result.REFUTED)
    assert {f.check for f in refuted} == {Check.DISTANCE}
    assert refuted[0].segment == 5 and "linf 30" in refuted[0].message
    assert refuted[0].measured == pytest.approx(30.0, rel=1e-3)
    assert refuted[0].allowed == 10.0
    assert statuses(verdict)["computation"] == "refuted"


def test_a_small_drift_passes_distances_and_not_bits(honest: Path, tmp_path: Path) -> None:
    path = forged(honest, tmp_path / "forged", moved(6, 0.005))
    absolute = judged(path, with_top("jia2021", 0))
    assert absolute.outcome is Outcome.ACCEPTED
    nearest = absolute.claims[ClaimName.COMPUTATION].evidence[1]
    assert nearest.startswith("nearest to a limit: segment ") and "of 0.1 allowed" in nearest
    assert not [f for f in absolute.findings if f.check is Check.REPLAY]
    assert judged(path, "full").outcome is Outcome.REJECTED


def test_a_normalised_limit_is_a_share_of_the_reference(honest: Path, tmp_path: Path) -> None:
    path = forged(honest, tmp_path / "forged", moved(6, 0.05))
    policy = with_top("jia2021", 0)
    assert judged(path, policy.normalised(100.0)).outcome is Outcome.ACCEPTED
    assert judged(path, policy.normalised(1.0)).outcome is Outcome.REJECTED
    assert judged(path, policy.normalised(1.0, delta=0.1, distance="linf")).outcome is Outcome.ACCEPTED


def test_a_relative_limit_is_a_share_of_the_update(honest: Path, tmp_path: Path) -> None:
    """Half of an update fails, however small it is beside the absolute limits."""
    path = forged(honest, tmp_path / "forged", moved(6, 0.05))
    assert judged(path, with_top("jia2021", 0)).outcome is Outcome.ACCEPTED
    verdict = judged(path, with_top("jia2021-relative", 0))
    assert verdict.outcome is Outcome.REJECTED
    assert {f.segment for f in findings(verdict, Result.REFUTED)} <= {5, 6}


def test_weights_that_are_no_numbers_are_refuted(honest: Path, tmp_path: Path) -> None:
    path = forged(honest, tmp_path / "forged", moved(6, float("nan")))
    for name in JIA2021:
        verdict = judged(path, with_top(name, 1) if name.endswith("relative") else with_top(name, 0))
        refuted = findings(verdict, Result.REFUTED, Check.DISTANCE)
        if name != "jia2021-random-relative":
            assert {f.segment for f in refuted} & {5, 6}, "an update that is no number counts as the largest"
        assert all(f.measured is None for f in refuted)


def test_losses_and_optimizer_state_are_not_compared(honest: Path, tmp_path: Path) -> None:
    def change(forgery: Forgery) -> None:
        forgery.losses[3] = forgery.losses[4]

    path = forged(honest, tmp_path / "forged", change)
    assert judged(path, "full").outcome is Outcome.REJECTED
    assert judged(path, with_top("jia2021", 0)).outcome is Outcome.ACCEPTED


def permuted(forgery: Forgery) -> None:
    """State zero in the rank order of the last state, which is nearer to it than any that was drawn."""
    for name in (WEIGHT, "parameters/3.weight"):
        zero, last = values(forgery, 0, name), values(forgery, -1, name)
        matched = np.empty_like(zero)
        matched[np.argsort(last, kind="stable")] = np.sort(zero)
        forgery.put_tensor(0, name, matched.tobytes())


def shifted(forgery: Forgery) -> None:
    forgery.put_tensor(0, WEIGHT, (values(forgery, 0) + np.float32(0.02)).tobytes())


def outside(forgery: Forgery) -> None:
    own = values(forgery, 0)
    own[:2] = 0.2
    forgery.put_tensor(0, WEIGHT, own.tobytes())


@pytest.mark.parametrize(
    ("change", "original", "corrected"),
    [(permuted, True, True), (shifted, False, False), (outside, True, False)],
)
def test_what_the_tests_of_state_zero_see(
    honest: Path, tmp_path: Path, change: Callable[[Forgery], None], original: bool, corrected: bool
) -> None:
    path = forged(honest, tmp_path / "forged", change)
    for name, passes in (("jia2021", original), ("jia2021-bounded", corrected)):
        verdict = judged(path, with_top(name, 1))
        refuted = findings(verdict, Result.REFUTED, Check.DISTRIBUTION)
        assert (refuted == []) is passes
        assert statuses(verdict)["initialisation"] == ("supported" if passes else "refuted")
        assert passes or refuted[0].where == f"state zero: {WEIGHT}"
    assert statuses(judged(path, "quick"))["initialisation"] == "refuted"


def test_constant_rules_are_compared(tmp_path: Path) -> None:
    """Else a prover would claim constants for what should be drawn, and have nothing tested."""
    record_run(
        tmp_path / "run",
        lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LayerNorm(64), linear()[1]),  # type: ignore[index]
        seed=8,  # with 7 the original test rejects an honest tensor, at p = 0.0097
    )

    def change(forgery: Forgery) -> None:
        forgery.put_tensor(0, WEIGHT, (values(forgery, 0) * np.float32(1.5)).tobytes())

    path = forged(tmp_path / "run", tmp_path / "forged", change)
    said = judged(tmp_path / "run", "jia2021").claims[ClaimName.INITIALISATION].evidence[-1]
    assert said == "2 tensors have the one number that their rule gives"
    for name in ("jia2021", "jia2021-bounded"):
        (found,) = findings(judged(path, name), Result.REFUTED, Check.DISTRIBUTION)
        assert found.where == f"state zero: {WEIGHT}" and "'constant'" in found.message


def test_a_tensor_that_was_given_cannot_be_tested(tmp_path: Path) -> None:
    def start(model: torch.nn.Module) -> None:
        with torch.no_grad():
            model[1].weight.add_(1.0)  # type: ignore[index]

    record_run(tmp_path / "run", linear, prepare=start)
    verdict = judged(tmp_path / "run", "jia2021")
    assert verdict.outcome is Outcome.INCONCLUSIVE
    claim = verdict.claims[ClaimName.INITIALISATION]
    assert claim.status == "not shown" and WEIGHT in claim.evidence[0]


@pytest.mark.parametrize(("rate", "accepted"), [(0.05, True), (1e-5, False), (1.5, False)])
def test_bounds_of_the_learning_rate(tmp_path: Path, rate: float, accepted: bool) -> None:
    def optimizer(model: torch.nn.Module) -> torch.optim.SGD:
        return torch.optim.SGD(model.parameters(), lr=rate)

    record_run(tmp_path / "run", linear, optimizer=optimizer, steps=2)
    verdict = judged(tmp_path / "run", "jia2021-bounded")
    assert (verdict.outcome is Outcome.ACCEPTED) is accepted
    assert bool(findings(verdict, Result.REFUTED, Check.HYPERPARAMETERS)) is not accepted
    assert judged(tmp_path / "run", "jia2021-random-relative").outcome is Outcome.ACCEPTED


def test_bounds_hold_for_every_step_of_a_schedule(tmp_path: Path) -> None:
    with initialise():
        model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = LinearLR(optimizer, start_factor=1e-4, total_iters=4)
    plan: dict[str, Any] = {"batch_size": 16, "steps": 4, "every": 2, "seed": 7, "progress": False}
    with record(
        tmp_path / "run",
        model,
        optimizer,
        loss=cross_entropy,
        data=digits(),
        schedule=schedule,
        key=KEY,
        **plan,
    ) as run:
        for batch in run:
            run.step(batch)
    (found,) = findings(judged(tmp_path / "run", "jia2021-bounded"), Result.REFUTED)
    assert found.check is Check.HYPERPARAMETERS and found.where == "steps 0 to 3: group 0"
    assert found.measured == pytest.approx(1e-5, rel=1e-3) and found.allowed == 1e-4


def test_it_does_not_look_at_time_unless_that_is_demanded(honest: Path) -> None:
    verdict = judged(honest, Policy.named("jia2021").requiring({"precedence": "shown"}))
    assert verdict.outcome is Outcome.INCONCLUSIVE


def test_integrity_is_not_demanded_and_still_computed(honest: Path, tmp_path: Path) -> None:
    verdict = judged(honest, "jia2021", keys=[])
    assert (verdict.outcome, statuses(verdict)["integrity"]) == (Outcome.ACCEPTED, "not shown")
    shutil.copytree(honest, tmp_path / "copy")
    weights = tmp_path / "copy" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x99")
    assert judged(tmp_path / "copy", "jia2021").outcome is Outcome.REJECTED


# The command line.


def verified(path: Path, *options: str) -> tuple[int, str]:
    """The verb's status, and all that it prints."""
    said = io.StringIO()
    with pytest.raises(SystemExit) as ended, redirect_stdout(said), redirect_stderr(said):
        main(["verify", str(path), "--key", str(KEY.verification_key), *options])
    assert isinstance(ended.value.code, int)
    return ended.value.code, said.getvalue()


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("short") / "run"
    record_run(path, linear, steps=2, every=1, data=digits(16))
    return path


def test_the_verb_takes_the_reference_from_a_file_and_repeats_its_options(
    short: Path, tmp_path: Path
) -> None:
    own = load_file(short / "weights.safetensors")
    twin = {name: tensor + 0.5 for name, tensor in own.items()} | {"other": torch.zeros(3)}
    save_file(twin, tmp_path / "twin.safetensors")
    options = ["--policy", "jia2021", "--reference", str(tmp_path / "twin.safetensors"), "--top", "-1"]
    status, said = verified(
        short,
        *options,
        "--distance",
        "l1",
        "--delta",
        "0.25",
        "--json",
        "--report",
        str(tmp_path / "page.html"),
    )
    assert status == 0, said
    verdict = json.loads(said[said.index("{") : said.rindex("}") + 1])
    limits = verdict["policy"]["classical"]["limits"]
    assert limits["reference"] == pytest.approx(0.5 * sum(t.numel() for t in own.values()))
    assert (limits["factors"], limits["scale"]) == ({"l1": 0.25}, "normalised")
    assert verdict["policy"]["classical"]["top"] == -1
    page = (tmp_path / "page.html").read_text()
    assert f"--reference={tmp_path / 'twin.safetensors'} --delta=0.25 --distance=l1 --top=-1" in page


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--policy", "full", "--top", "3"], "compares bits"),
        (["--policy", "standard", "--reference", "3"], "compares bits"),
        (["--policy", "jia2021-relative", "--reference", "3"], "relative to the update"),
        (["--policy", "jia2021", "--reference", "0"], "above 0"),
        (["--policy", "jia2021", "--reference", "nowhere.safetensors"], "neither a number nor a file"),
        (["--policy", "jia2021", "--reference", "inf"], "neither a number nor a file"),
        (["--policy", "jia2021", "--delta", "1"], "which distance"),
        (["--policy", "lax"], "jia2021-bounded"),
    ],
)
def test_options_that_mean_nothing_are_errors(short: Path, options: list[str], said: str) -> None:
    status, output = verified(short, *options)
    assert status == 2
    assert said in output


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"1.weight": torch.zeros(10, 64)}, "'1.bias'"),
        ({"1.weight": torch.zeros(64, 10), "1.bias": torch.zeros(10)}, "shape (64, 10)"),
    ],
)
def test_a_reference_of_another_model_is_an_error(
    short: Path, tmp_path: Path, tensors: dict[str, torch.Tensor], said: str
) -> None:
    save_file(tensors, tmp_path / "other.safetensors")
    status, output = verified(
        short, "--policy", "jia2021", "--reference", str(tmp_path / "other.safetensors")
    )
    assert status == 2
    assert said in output


def test_limits_are_read_only() -> None:
    factors = {"l2": 1.0}
    limits = Limits(factors=factors)  # type: ignore[arg-type]  # text of an enumeration
    factors["l2"] = 9.0
    assert limits.factors == {"l2": 1.0}
