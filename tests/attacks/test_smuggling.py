"""Attacks whose runs are true, or sealed in time: each does what it is for, by the verifier's own word."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch

from gradseal.attacks import (
    abort_and_retry,
    backdating,
    commitment_copying,
    distillation,
    grinding_manifests,
    grinding_seeds,
    honest,
    honest_dated,
    late_shapes,
    lying_lengths,
    smuggled_constants,
    smuggled_data,
    smuggled_data_dated,
    smuggled_pull,
    squatting,
)
from gradseal.attacks.attack import Attack, Hand, Need, NotGranted, Setting
from gradseal.attacks.dated import Services
from gradseal.errors import AnchorError
from gradseal.recipes.recipe import load_recipe
from gradseal.study.matrix.cases import Case
from gradseal.study.matrix.suite import Suite

SETTING = Setting(steps=40, every=4, batch_size=16)
LENGTHS = Setting(steps=60, every=2, batch_size=16)
RANDOM = "jia2021-random-normalised"
POLICIES = ("jia2021-normalised", "quick", "full", "full-dated")
FREE = "free bytes, of at most"

Outcomes = dict[str, str]


@pytest.fixture(scope="module")
def suite() -> Suite:
    return Suite(load_recipe("digits"), SETTING, POLICIES)


def judge(suite: Suite, attack: Attack, *, exact: bool = False, seed: int = 1) -> tuple[Case, Outcomes]:
    """The case, and for each policy an empty text if it accepted, or what it said."""
    case = suite.judge(attack, seed=seed, exact=exact)
    return case, {one.policy: "" if one.passed else one.said for one in case.judged}


def near(case: Case, least: float) -> bool:
    return case.distance is not None and case.distance < least


def test_an_honest_run_passes_all_that_do_not_ask_for_its_time(suite: Suite) -> None:
    case, said = judge(suite, honest.ATTACK)
    assert [said[name] for name in ("jia2021-normalised", "quick", "full")] == ["", "", ""]
    assert "nothing that is pinned says by when" in said["full-dated"]
    assert case.cost.gradients == case.claimed.gradients


def test_smuggled_constants_are_reached_truly_and_counted(suite: Suite) -> None:
    case, said = judge(suite, smuggled_constants.ATTACK)
    assert said["jia2021-normalised"] == ""
    assert FREE in said["quick"] and FREE in said["full"]
    assert near(case, 1e-3)
    claims = case.judged[POLICIES.index("full")].claims
    assert (claims["computation"], claims["initialisation"]) == ("shown", "not shown")
    assert case.steps == 16


def test_smuggled_pull_comes_nearer_than_any_honest_run_and_is_counted(suite: Suite) -> None:
    case, said = judge(suite, smuggled_pull.ATTACK)
    assert said["jia2021-normalised"] == ""
    assert FREE in said["full"]
    unpulled, _ = judge(suite, replace(honest.ATTACK, steals=True))
    assert case.distance is not None and unpulled.distance is not None
    assert case.distance < 0.7 * unpulled.distance


@pytest.mark.parametrize("exact", [False, True], ids=["native", "exact"])
def test_smuggled_data_pass_our_full_policy(suite: Suite, exact: bool) -> None:
    """What no count of free bytes sees; the docs' limits say so."""
    case, said = judge(suite, smuggled_data.ATTACK, exact=exact)
    assert [said[name] for name in ("jia2021-normalised", "quick", "full")] == ["", "", ""]
    assert near(case, 1e-3)
    assert case.cost.gradients == case.claimed.gradients < case.victim.gradients


def test_distillation_is_near_in_function_and_not_in_weights(suite: Suite) -> None:
    case, said = judge(suite, distillation.ATTACK)
    assert [said[name] for name in ("jia2021-normalised", "quick", "full")] == ["", "", ""]
    assert case.distance is not None and case.distance > 0.3
    assert case.notes["same class as the stolen model"] > 0.8
    assert case.notes["total variation from the stolen model"] < 0.3


def test_late_shapes_jump_in_the_last_batch_of_the_epoch_and_are_counted(suite: Suite) -> None:
    case, said = judge(suite, late_shapes.ATTACK)
    assert said["jia2021-normalised"] == ""
    assert FREE in said["full"]
    assert near(case, 1e-3)
    assert case.judged[POLICIES.index("full")].claims["computation"] == "shown"


@pytest.mark.parametrize(
    ("there", "steps", "size", "expected"), [(1500, 500, 6, (500, 1499)), (1500, 40, 16, (40, 639))]
)
def test_late_shapes_end_with_an_epoch(there: int, steps: int, size: int, expected: tuple[int, int]) -> None:
    made = late_shapes.whole_epochs(there, steps, size)
    assert made == expected
    steps, samples = made
    assert samples <= there and samples % size == size - 1
    assert steps % -(-samples // size) == 0


def test_lying_lengths_hide_what_is_forged_below_the_longest() -> None:
    policies = ("jia2021", "jia2021-normalised", "jia2021-relative", RANDOM, "quick", "full")
    # Another seed: suites keep their victims in memory by their seeds, whatever the setting.
    case, said = judge(Suite(load_recipe("digits"), LENGTHS, policies), lying_lengths.ATTACK, seed=2)
    top = ("jia2021", "jia2021-normalised", "jia2021-relative", "quick")
    assert [said[name] for name in top] == ["", "", "", ""]
    assert "too far" in said[RANDOM]
    assert said["full"].startswith("segment 5:")
    assert near(case, 1e-3)


@pytest.mark.parametrize(
    ("module", "what"),
    [
        (grinding_seeds, "training loss"),
        (grinding_manifests, "distance to given weights"),
        (abort_and_retry, "loss when chosen"),
    ],
    ids=["seeds", "manifests", "abort"],
)
def test_grinding_shows_a_true_run_chosen_of_several(
    suite: Suite, module: ModuleType, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RUNS", 4)
    case, said = judge(suite, module.ATTACK)
    assert said["full"] == ""
    assert (case.notes["runs tried"], case.notes["bits of selection"]) == (4, 2.0)
    assert case.notes[f"{what}, chosen"] < case.notes[f"{what}, mean of all"]
    assert case.cost.gradients > 1.5 * case.claimed.gradients
    assert case.distance is None


def test_an_honest_dated_run_shows_its_time(suite: Suite) -> None:
    case, said = judge(suite, honest_dated.ATTACK)
    assert said == dict.fromkeys(POLICIES, "")
    assert case.judged[POLICIES.index("full-dated")].claims["precedence"] == "shown"


def test_backdating_is_true_but_for_its_time(suite: Suite) -> None:
    case, said = judge(suite, backdating.ATTACK)
    assert said["full"] == ""
    assert "the manifest is not shown to be from before slot 0's round" in said["full-dated"]
    assert near(case, 1e-3)


def test_smuggled_data_in_time_pass_a_demand_for_precedence(suite: Suite) -> None:
    """Nothing in it is false: the docs' limits say so."""
    case, said = judge(suite, smuggled_data_dated.ATTACK)
    assert said == dict.fromkeys(POLICIES, "")
    assert near(case, 0.05)


@pytest.mark.parametrize("attack", [squatting.ATTACK, commitment_copying.ATTACK], ids=lambda a: a.name)
def test_seals_open_to_what_they_were_made_of(suite: Suite, attack: Attack) -> None:
    case, said = judge(suite, attack)
    assert "its digests are not what the log's seal stands for" in said["quick"]
    assert "its digests are not what the log's seal stands for" in said["full-dated"]
    assert (case.distance, case.cost.gradients) == (0.0, 0.0)


def test_the_services_of_a_dated_run_give_no_round_of_tomorrow(suite: Suite) -> None:
    def forge(hand: Hand) -> None:
        services = Services.of(hand)
        services.slot(services.plan(), 0)

    with pytest.raises(AnchorError, match="not due yet"):
        judge(suite, replace(honest_dated.ATTACK, forge=forge))


@pytest.mark.parametrize(
    "attack",
    [smuggled_constants.ATTACK, smuggled_data.ATTACK, distillation.ATTACK, grinding_manifests.ATTACK],
    ids=lambda a: a.name,
)
def test_without_the_weights_there_is_nothing_to_smuggle(suite: Suite, attack: Attack) -> None:
    with pytest.raises(NotGranted, match="released weights"):
        suite.judge(replace(attack, needs=frozenset({Need.DATA})), seed=1, exact=False)


def test_without_the_bundle_there_is_nothing_to_copy(suite: Suite) -> None:
    attack = replace(commitment_copying.ATTACK, needs=frozenset({Need.DATA}))
    with pytest.raises(NotGranted, match="published bundle"):
        suite.judge(attack, seed=1, exact=False)


def test_rows_that_samples_carry_are_all_of_the_weights(suite: Suite) -> None:
    held: dict[str, Any] = {}

    def forge(hand: Hand) -> None:
        held["carried"] = smuggled_data.carrying(hand, 100)
        held["model"] = hand.model()
        held["stolen"] = hand.parameters
        honest.forge(hand)

    suite.judge(replace(smuggled_data.ATTACK, forge=forge), seed=1, exact=False)
    rows, places = held["carried"].more
    assert len(held["carried"]) == 100
    names = [f"parameters/{name}" for name, _ in held["model"].named_parameters()]
    numbers = torch.cat([held["stolen"][name].flatten() for name in names])
    put = torch.zeros(int(places.max()) + 1, rows.shape[1])
    put[places] = rows
    assert torch.equal(put.flatten()[: len(numbers)], numbers)
