"""Attacks that present weights on a path: each does what it is for, by the verifier's own word."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gradseal.attacks import (
    best_response,
    blindfold_top_q,
    concatenation,
    drift,
    gluing,
    head_start,
    head_start_ruled,
    infinitesimal_update,
    interpolation,
    jump,
    rank_matched_start,
)
from gradseal.attacks.attack import Attack, Hand, Need, NotGranted, Setting, distance
from gradseal.attacks.paths import rank_matched, sgd
from gradseal.recipes.recipe import load_recipe
from gradseal.study.matrix.cases import Case
from gradseal.study.matrix.suite import Suite
from gradseal.verify.policy import Policy
from gradseal.verify.verifier import verify
from in_process import InProcess

SETTING = Setting(steps=40, every=4, batch_size=16)
POLICIES = ("jia2021", "jia2021-normalised", "jia2021-random", "jia2021-random-relative", "quick", "full")
NOT_BY_RULE = "state zero is not what the rule"

Outcomes = dict[str, str]


@pytest.fixture(scope="module")
def suite() -> Suite:
    return Suite(load_recipe("digits"), SETTING, POLICIES)


def judge(suite: Suite, attack: Attack, *, exact: bool = False) -> tuple[Case, Outcomes]:
    """The case, and for each policy an empty text if it accepted, or what it said."""
    case = suite.judge(attack, seed=1, exact=exact)
    return case, {one.policy: "" if one.passed else one.said for one in case.judged}


def test_infinitesimal_update_passes_what_has_an_absolute_tolerance_without_a_gradient(suite: Suite) -> None:
    case, said = judge(suite, infinitesimal_update.ATTACK)
    assert (said["jia2021"], said["jia2021-normalised"], said["jia2021-random"]) == ("", "", "")
    assert "too far" in said["jia2021-random-relative"]
    assert NOT_BY_RULE in said["full"]
    assert (case.distance, case.cost.gradients) == (0.0, 0.0)
    assert 0 < case.cost.flops < 0.01 * case.claimed.flops


def test_blindfold_top_q_shows_real_steps_and_hides_the_others(suite: Suite) -> None:
    case, said = judge(suite, blindfold_top_q.ATTACK)
    assert (said["jia2021"], said["jia2021-normalised"]) == ("", "")
    assert "too far" in said["jia2021-random"]
    assert NOT_BY_RULE in said["full"]
    assert case.distance == 0.0
    # Five segments of four steps, of the 93 steps of an epoch.
    assert case.cost.gradients == 20 * 16
    assert case.claimed.gradients == 93 * 16


def test_rank_matched_start_is_true_but_for_its_beginning(suite: Suite) -> None:
    case, said = judge(suite, rank_matched_start.ATTACK)
    assert said["jia2021-random-relative"] == ""
    assert NOT_BY_RULE in said["full"]
    assert case.distance is not None and case.distance < 0.6
    assert case.cost.gradients == case.claimed.gradients


def test_concatenation_is_one_long_jump(suite: Suite) -> None:
    case, said = judge(suite, concatenation.ATTACK)
    assert "too far" in said["jia2021-normalised"]
    assert said["full"].startswith("segment 1")
    assert (case.distance, case.steps, case.cost.gradients) == (0.0, 8, 4 * 16)


def test_gluing_is_false_in_the_middle_alone(suite: Suite) -> None:
    case, said = judge(suite, gluing.ATTACK)
    assert said["quick"] == ""
    assert said["full"].startswith("segment 5")
    assert case.distance is not None and 0.0 < case.distance < 0.3


def test_interpolation_ends_in_the_stolen_weights(suite: Suite) -> None:
    case, said = judge(suite, interpolation.ATTACK)
    assert said["full"].startswith("segment 5")
    assert (case.distance, case.cost.gradients) == (0.0, 20 * 16)


def test_jump_replays_but_in_the_middle_and_ends_at_the_stolen_weights(suite: Suite) -> None:
    case, said = judge(suite, jump.ATTACK)
    assert said["quick"] == ""
    assert said["full"].startswith("segment 5")
    assert case.distance is not None and case.distance < 1e-3


def test_head_start_is_true_and_given(suite: Suite) -> None:
    case, said = judge(suite, head_start.ATTACK)
    assert "no distribution is claimed" in said["jia2021"]
    assert "free bytes" in said["full"]
    assert case.distance is not None and case.distance < 1e-3


def test_head_start_ruled_is_not_what_the_rules_give(suite: Suite) -> None:
    case, said = judge(suite, head_start_ruled.ATTACK)
    assert NOT_BY_RULE in said["full"]
    assert case.distance is not None and case.distance < 1e-3


def test_drift_stays_below_every_tolerance_and_comes_nearer(suite: Suite) -> None:
    case, said = judge(suite, drift.ATTACK)
    classical = {name: what for name, what in said.items() if name.startswith("jia2021")}
    assert classical == dict.fromkeys(classical, "")
    assert said["full"].startswith("segment 0")
    honest, _ = judge(suite, replace(concatenation.ATTACK, forge=_undisturbed))
    assert case.distance is not None and honest.distance is not None
    assert case.distance < 0.9 * honest.distance


def _undisturbed(hand: Hand) -> None:
    """What drift does, without the displacement."""
    run = hand.present(optimizer=sgd(drift.RATE), every=1, batch_size=5)
    run.begin()
    for _ in range(run.planned):
        run.train()
    run.finish()


def test_best_response_forges_one_segment_that_is_not_among_the_longest(suite: Suite) -> None:
    case, said = judge(suite, best_response.ATTACK)
    assert (said["jia2021"], said["jia2021-normalised"], said["quick"]) == ("", "", "")
    assert said["full"].startswith("segment 18:")
    assert (case.segments, case.cost.gradients) == (20, 19 * 16)
    assert case.distance is not None and case.distance < 1e-3


def test_all_true_steps_of_the_best_response_are_longer_than_its_jump(suite: Suite, tmp_path: Path) -> None:
    suite.judge(best_response.ATTACK, seed=1, exact=False, target=str(tmp_path / "bundle"))
    verdict = verify(tmp_path / "bundle", Policy.named("quick"), executor=InProcess())
    updates = [row.update or 0.0 for row in verdict.segments.rows]
    assert min(updates[:18]) > 1.5 * updates[18] > 0
    # Less than a draw of one of the 18 others as likely as itself.
    assert updates[18] / sum(updates[1:19]) < 1 / 18


@pytest.mark.parametrize(
    "attack", [infinitesimal_update.ATTACK, blindfold_top_q.ATTACK], ids=lambda a: a.name
)
def test_both_attacks_of_the_seed_paper_in_exact_arithmetic(suite: Suite, attack: Attack) -> None:
    case, said = judge(suite, attack, exact=True)
    assert (said["jia2021-normalised"], case.distance) == ("", 0.0)
    assert NOT_BY_RULE in said["full"]


def test_without_the_tolerance_there_is_no_infinitesimal_update(suite: Suite) -> None:
    attack = replace(infinitesimal_update.ATTACK, needs=frozenset({Need.WEIGHTS, Need.DATA}))
    with pytest.raises(NotGranted, match="tolerance"):
        suite.judge(attack, seed=1, exact=False)


def test_rank_matching_keeps_the_values_and_takes_the_order() -> None:
    generator = torch.Generator().manual_seed(3)
    own, other = (torch.randn(6, 7, generator=generator) for _ in range(2))
    start, target = {"parameters/w": own, "buffers/b": own}, {"parameters/w": other, "buffers/b": other}
    matched = rank_matched(start, target)
    assert torch.equal(matched["parameters/w"].flatten().sort().values, own.flatten().sort().values)
    assert torch.equal(matched["parameters/w"].flatten().argsort(), other.flatten().argsort())
    assert torch.equal(matched["buffers/b"], own)
    assert distance(matched, {**target, "buffers/b": own}) < distance(start, {**target, "buffers/b": own})


@pytest.mark.parametrize(
    ("steps", "per_epoch", "expected"), [(500, 250, 498), (40, 93, 38), (252, 250, 249), (260, 250, 258)]
)
def test_the_forged_step_is_where_longer_ones_fit_into_its_epoch(
    steps: int, per_epoch: int, expected: int
) -> None:
    assert best_response.place(steps, per_epoch, 6) == expected
