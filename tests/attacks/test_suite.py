"""The suite judges: it hands out what is granted, counts, measures, and asks the verifier."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from gradseal.attacks.attack import Attack, Hand, Need, NotGranted, Setting
from gradseal.attacks.catalogue import attack_names, load_attack
from gradseal.errors import Error
from gradseal.recipes.recipe import load_recipe
from gradseal.study.matrix.cases import Case, Judged
from gradseal.study.matrix.suite import Suite

SETTING = Setting(steps=20, every=5, batch_size=16)
POLICIES = ("quick", "standard", "full", "full-dated")


@pytest.fixture(scope="module")
def suite() -> Suite:
    return Suite(load_recipe("digits"), SETTING, POLICIES)


def attack(forge: object, needs: frozenset[Need] = frozenset({Need.DATA}), *, steals: bool = True) -> Attack:
    assert callable(forge)
    return Attack(
        name="tried", source="a test", idea="", needs=needs, aims="computation", forge=forge, steals=steals
    )


def honest(hand: Hand) -> None:
    run = hand.present()
    run.begin()
    for _ in range(run.planned):
        run.train()
    run.finish()


def by_policy(case: Case) -> dict[str, Judged]:
    return {one.policy: one for one in case.judged}


@pytest.fixture(scope="module")
def judged_honest(suite: Suite) -> Case:
    return suite.judge(attack(honest), seed=1, exact=False)


def test_an_honest_run_passes_and_costs_what_it_claims(judged_honest: Case) -> None:
    said = by_policy(judged_honest)
    assert [said[name].passed for name in POLICIES] == [True, True, True, False]
    assert (said["full-dated"].claim, said["full-dated"].check) == ("precedence", "")
    assert judged_honest.cost.gradients == judged_honest.claimed.gradients == 20 * 16
    assert judged_honest.cost.flops == judged_honest.victim.flops > 1e6
    assert (judged_honest.steps, judged_honest.segments) == (20, 4)


def test_an_independent_run_is_about_as_far_as_the_twin(judged_honest: Case) -> None:
    assert judged_honest.distance is not None
    assert 0.3 < judged_honest.distance < 3.0


def test_all_segments_of_a_bundle_are_kept(judged_honest: Case) -> None:
    replays = judged_honest.replays
    assert replays is not None
    assert replays.equal == (True,) * 4
    assert replays.errors == (0.0,) * 4
    assert all(update > 0 for update in replays.updates)
    # 1,500 samples in batches of 16: all steps are in the first epoch.
    assert replays.epochs == (0,) * 4


def test_a_bundle_whose_start_is_refuted_is_replayed_whole_all_the_same(suite: Suite) -> None:
    other = suite.under(delta=0.1, tau=0.2)
    assert other.victim(1, False) is suite.victim(1, False)
    case = other.judge(load_attack("infinitesimal update"), seed=1, exact=False)
    assert by_policy(case)["full"].replayed == 0
    assert case.replays is not None
    assert len(case.replays.errors) == case.segments
    assert SETTING.delta < max(case.replays.errors) / case.reference <= 0.1
    # Its replays stay where they begin.
    assert case.replays.errors == pytest.approx(case.replays.updates, rel=1e-4)


def test_a_case_survives_json(judged_honest: Case) -> None:
    assert Case.from_json(json.loads(json.dumps(judged_honest.to_json()))) == judged_honest


def test_a_jump_onto_the_stolen_weights_is_near_them_and_caught(suite: Suite) -> None:
    def jump(hand: Hand) -> None:
        run = hand.present()
        run.begin()
        for _ in range(run.planned - 1):
            run.train()
        run.present(hand.weights)
        run.finish()

    case = suite.judge(attack(jump, frozenset({Need.DATA, Need.WEIGHTS})), seed=1, exact=False)
    full = by_policy(case)["full"]
    assert case.distance == 0.0
    assert (full.outcome, full.check, full.claim) == ("rejected", "replay", "computation")
    assert "segment 3" in full.said
    assert case.replays is not None
    assert case.replays.equal == (True, True, True, False)
    assert case.cost.gradients == 15 * 16
    assert case.accuracy.endswith("are recognised")


def test_the_victim_in_exact_arithmetic(suite: Suite) -> None:
    case = suite.judge(attack(honest, steals=False), seed=1, exact=True)
    assert (case.arithmetic, case.distance) == ("exact", None)
    assert by_policy(case)["full"].passed


@pytest.mark.parametrize("need", sorted(set(Need) - {Need.SHORTCUT, Need.DATA}))
def test_what_is_not_granted_cannot_be_reached(suite: Suite, need: Need) -> None:
    reach = {Need.WEIGHTS: "weights", Need.BUNDLE: "victim", Need.TOLERANCE: "tolerance"}[need]

    def forge(hand: Hand) -> None:
        getattr(hand, reach)

    with pytest.raises(NotGranted, match="does not grant"):
        suite.judge(attack(forge), seed=1, exact=False)


def test_the_same_seed_gives_the_same_attack(suite: Suite) -> None:
    cases = [suite.judge(attack(honest), seed=2, exact=False) for _ in range(2)]
    first, second = (replace(c, cost=c.claimed, victim=c.claimed, judged=()) for c in cases)
    assert first == second


def test_every_attack_is_described_and_grants_only_what_there_is() -> None:
    for name in attack_names():
        own = load_attack(name)
        assert own.name == name
        assert own.source and own.idea and own.aims
        assert own.needs <= set(Need)


@pytest.mark.parametrize("written", ["blindfold-top-q", "Blindfold top-Q", "blindfold_top_q"])
def test_an_attack_is_found_however_its_name_is_written(written: str) -> None:
    assert load_attack(written) is load_attack("blindfold top-Q")


def test_an_attack_that_is_not_known_is_named() -> None:
    with pytest.raises(Error, match="no attack is called 'nothing'"):
        load_attack("nothing")


def test_threads_are_as_they_were(suite: Suite) -> None:
    before = torch.get_num_threads()
    suite.judge(attack(honest), seed=1, exact=False)
    assert torch.get_num_threads() == before
