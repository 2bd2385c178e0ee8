"""Attacks that compute gradients: synthesised data, undone steps, pulls, other batches, other data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch.utils.data import default_collate

from gradseal.attacks import batch_forging, directed_retraining, synthesis, zhang_1, zhang_2, zhang_3
from gradseal.attacks.attack import Attack, Hand, Need, NotGranted, Setting, length
from gradseal.attacks.data_addition import ATTACK as DATA_ADDITION
from gradseal.attacks.data_subtraction import ATTACK as DATA_SUBTRACTION
from gradseal.attacks.inverse_gradient import ATTACK as INVERSE_GRADIENT
from gradseal.attacks.inverse_gradient import fixed_point
from gradseal.attacks.paths import drawn, sgd
from gradseal.errors import Error
from gradseal.proof.note import SigningKey
from gradseal.recipes.recipe import load_recipe
from gradseal.study.matrix.cases import Case
from gradseal.study.matrix.suite import Suite

NOT_BY_RULE = "state zero is not what the rule"
POLICIES = ("jia2021", "jia2021-normalised", "quick", "full")


@pytest.fixture(scope="module")
def suite() -> Suite:
    """Few and short steps, since one of the recipe's own is longer than the tolerance at first."""
    recipe = replace(load_recipe("digits"), optimizer=sgd(0.001))
    return Suite(recipe, Setting(steps=24, every=4, batch_size=8), POLICIES)


@pytest.fixture(scope="module")
def far() -> Suite:
    """A victim some way from where he began; attackers take the tolerance for wider, so intervals are few."""
    setting = Setting(steps=40, every=2, batch_size=8, delta=0.02)
    return Suite(load_recipe("digits"), setting, ("jia2021", "full"))


@pytest.fixture
def quick_synthesis(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate that makes intervals few where it counts, and few iterations."""
    for module in (synthesis, zhang_1):
        monkeypatch.setattr(module, "RATE", 0.1)
    for module in (zhang_1, zhang_2, zhang_3):
        monkeypatch.setattr(module, "RULE", replace(module.RULE, iterations=2, retries=2))


def judge(suite: Suite, attack: Attack) -> tuple[Case, dict[str, str]]:
    """The case, and for each policy what decided against the bundle; empty if it passed."""
    case = suite.judge(attack, seed=1, exact=False)
    return case, {one.policy: "" if one.passed else one.said or one.claim for one in case.judged}


@pytest.fixture
def hand(suite: Suite) -> Iterator[Hand]:
    """What an attacker to whom everything is granted has in hand."""
    victim = suite.victim(1, exact=False)
    made = Hand(
        recipe=suite.recipe,
        setting=suite.setting,
        stolen=victim.weights,
        bundle=victim.bundle,
        reference=victim.reference,
        granted=frozenset(Need),
        target="memory://test-gradients",
        signer=SigningKey(name="attacker.example", seed=bytes(32)),
        seed=1,
    )
    yield made
    made.close()


def test_synthesised_samples_have_a_smaller_gradient_and_stay_pictures(hand: Hand) -> None:
    rule = synthesis.Rule(iterations=10, weight=0.0, retries=1)
    maker = synthesis.Synthesis(hand, rule)
    maker.stand_at(drawn(hand))
    zero = {name: torch.zeros_like(tensor) for name, tensor in maker.state.items()}
    untouched = maker.gradient(*default_collate([hand.data[i] for i in range(8)]))
    made = maker.make(zero, 8)
    assert made.fit == pytest.approx(length(made.gradient) ** 2)
    assert length(made.gradient) < 0.8 * length(untouched)
    assert made.noise > 0
    assert made.images.min() >= 0
    assert made.images.max() <= 1
    assert hand.meter.gradients > 10 * 3 * 8


def test_what_is_out_of_bounds_is_drawn_again_until_retries_are_used_up(hand: Hand) -> None:
    rule = synthesis.Rule(iterations=1, weight=1.0, gradient=0.0, retries=3)
    maker = synthesis.Synthesis(hand, rule)
    maker.stand_at(drawn(hand))
    maker.make(maker.state, 4)
    assert hand.meter.notes == {"draws": 3.0, "optimisations out of retries": 1.0}


def test_what_has_no_pixels_cannot_be_perturbed(hand: Hand) -> None:
    labels_only = replace(hand.recipe, data=[(torch.tensor(1), torch.tensor(2))])
    with pytest.raises(Error, match="no pixels"):
        synthesis.Synthesis(replace(hand, recipe=labels_only), zhang_1.RULE)


@pytest.mark.parametrize("module", [zhang_1, zhang_2, zhang_3])
def test_synthesised_data_lead_along_the_line(far: Suite, quick_synthesis: None, module: ModuleType) -> None:
    case, said = judge(far, module.ATTACK)
    assert case.distance == 0.0
    if (
        module is not zhang_3
    ):  # in so small a run, one of its intervals may end just beyond the absolute limit
        assert said["jia2021"] == ""
    assert NOT_BY_RULE in said["full"]
    assert case.notes["batches"] == case.steps
    made = [case.notes.get(f"optimisations {how}", 0.0) for how in ("within the rule", "out of retries")]
    assert made[0] > 0
    assert made[0] + 2 * made[1] <= case.notes["draws"] <= 2 * sum(made)
    assert case.cost.gradients > 3 * case.claimed.gradients


def test_a_fixed_point_is_found_where_plain_iteration_diverges() -> None:
    matrix = torch.diag(torch.tensor([-3.0, 0.5, 2.0], dtype=torch.float64))
    start, shift = torch.ones(3, dtype=torch.float64), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    found, residual = fixed_point(lambda x: matrix @ x + shift, start, enough=1e-9, most=20)
    assert residual <= 1e-9
    assert torch.allclose(found, torch.linalg.solve(torch.eye(3, dtype=torch.float64) - matrix, shift))


def test_steps_are_undone_but_lead_to_no_initialisation(far: Suite) -> None:
    case, said = judge(far, INVERSE_GRADIENT)
    assert case.distance == 0.0
    assert said["jia2021"] == ""
    assert NOT_BY_RULE in said["full"]
    assert case.notes["steps solved"] > 0
    assert case.notes["distance gone backwards"] > 0
    assert case.cost.gradients >= 2 * far.setting.batch_size * case.notes["steps solved"]


def test_a_pull_that_is_not_declared_brings_one_nearer(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directed_retraining, "_WAYS", 0.1)
    case, said = judge(suite, directed_retraining.ATTACK)
    assert (said["jia2021"], said["jia2021-normalised"]) == ("", "")
    assert "replay differs" in said["full"]
    assert case.notes["share of the way left"] < 0.97


def test_denied_samples_are_replaced_within_the_tolerance(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_forging, "DENIED_SHARE", 0.05)
    case, said = judge(suite, batch_forging.ATTACK)
    assert case.distance is None
    assert said["jia2021-normalised"] == ""
    assert case.notes["batches forged"] > 0
    assert NOT_BY_RULE in said["full"]


def test_hidden_samples_move_the_model_within_the_tolerance(suite: Suite) -> None:
    case, said = judge(suite, DATA_ADDITION)
    assert (said["jia2021"], said["jia2021-normalised"]) == ("", "")
    assert "replay differs" in said["full"]
    assert case.notes["hidden steps"] > 0
    assert case.cost.gradients > case.claimed.gradients


def test_declared_batches_are_left_out_within_the_tolerance(suite: Suite) -> None:
    case, said = judge(suite, DATA_SUBTRACTION)
    assert (said["jia2021"], said["jia2021-normalised"]) == ("", "")
    assert "replay differs" in said["full"]
    assert case.notes["steps left out"] > 0
    assert case.cost.gradients < case.claimed.gradients


def test_without_the_weights_there_is_nothing_to_go_back_from(suite: Suite) -> None:
    with pytest.raises(NotGranted, match="released weights"):
        judge(suite, replace(INVERSE_GRADIENT, needs=frozenset({Need.DATA, Need.TOLERANCE})))
