"""The endpoint part of the study: its measures on tiny runs, and what it says of results."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
import torch

from gradseal.attacks.attack import Setting, distance
from gradseal.study.endpoint.errors import TESTS
from gradseal.study.endpoint.matching import matched_distance
from gradseal.study.endpoint.part import PART, PULLS, TOLERANCES
from gradseal.study.endpoint.permutations import honest, pulled
from gradseal.study.endpoint.runs import declared, retrained, undeclared, victim_of
from gradseal.study.part import Effort
from gradseal.study.section import Section

SETTING = asdict(Setting(steps=4, every=2, batch_size=4))
SEED = 5


def test_matching_undoes_a_renumbering() -> None:
    victim = victim_of(SETTING, SEED)
    order = torch.randperm(32, generator=torch.Generator().manual_seed(1))
    moved = dict(victim.parameters)
    for name in ("features.0.weight", "features.1.weight", "features.1.bias"):
        moved[f"parameters/{name}"] = moved[f"parameters/{name}"][order]
    moved["parameters/features.3.weight"] = moved["parameters/features.3.weight"][:, order]
    assert len(victim.groups) == 2
    assert distance(victim.parameters, moved) > 1
    assert matched_distance(victim.parameters, moved, victim.groups) < 1e-6


def test_matching_never_leads_away() -> None:
    (point, *_) = retrained(setting=SETTING, seed=SEED, other=0)["curve"]
    assert point["matched"] < point["away"]


def test_an_undeclared_pull_stays_within_its_tolerance() -> None:
    small, large = (undeclared(setting=SETTING, seed=SEED, tolerance=tau) for tau in (0.1, 0.5))
    assert 0.05 < small["error"] <= 0.1
    assert 0.25 < large["error"] <= 0.5
    assert large["curve"][-1]["away"] < small["curve"][-1]["away"]


def test_a_declared_pull_leads_nearer() -> None:
    result = declared(setting=SETTING, seed=SEED, pull=0.5)
    assert result["curve"][-1]["away"] < result["curve"][0]["away"]
    assert result["curve"][-1]["cost"] == 1.0


def test_tests_repeat() -> None:
    size: dict[str, Any] = {"seed": SEED, "steps": 2, "batch_size": 4, "runs": 3}
    first, again = honest(**size), honest(**size)
    assert first == again
    assert {(i, j) for i, j, _ in first["tests"]} == {(i, j) for i in range(3) for j in range(3) if i != j}
    strong, weak = pulled(**{**size, "runs": 1}, pulls=[1.0, 0.0])
    assert strong["left"][0] < weak["left"][0]
    assert strong["p"] == [0.005]


def made_up() -> dict[str, Any]:
    """Results as jobs give them, with numbers that are easily found again."""
    curve = [{"cost": 0.0, "away": 0.8, "matched": 0.7}, {"cost": 1.0, "away": 0.25, "matched": 0.2}]
    results: dict[str, Any] = {}
    for job in PART.plan(Effort()):
        what = job.name.split()[1]
        results[job.name] = {"curve": curve, "weights": "good", "error": job.arguments.get("tolerance")}
        if what == "distilled":
            results[job.name] = {**curve[1], "same class as the stolen model": 0.5}
    results[TESTS[0]] = {"runs": 2, "tests": [[0, 1, 0.04], [1, 0, 0.6]]}
    results[TESTS[1]] = [{"pull": 0.1, "p": [0.005, 0.5], "left": [0.1, 0.2]}]
    results[TESTS[2]] = {"p": {"these weights distilled": [0.3]}}
    results.pop(next(name for name in results if name.startswith("endpoint verified")))
    return results


def test_it_tells_what_was_measured() -> None:
    section = PART.tell(Effort(), made_up())
    assert section.figures["endpoint_declared_distance"] == 0.25
    assert section.figures["endpoint_undeclared_0.1"] == 0.25
    assert section.figures["endpoint_distilled_agreement"] == 0.5
    assert section.figures["endpoint_false_alarms"] == 0.5
    assert section.figures["endpoint_detected_0.1"] == 0.5
    assert {plot.name for plot in section.plots} == {"endpoint-cost", "endpoint-tolerance"}
    assert len(section.plots[0].series) == 1 + len(PULLS) + len(TOLERANCES)
    assert Section.from_json(json.loads(json.dumps(section.to_json()))) == section


def test_what_failed_is_left_out() -> None:
    results = made_up()
    for name in list(results):
        left = {one: result for one, result in results.items() if one != name}
        assert PART.tell(Effort(), left).said
    assert PART.tell(Effort(), {}).said == ()


@pytest.mark.parametrize("full", [False, True])
def test_jobs_have_names_of_their_own_and_plain_arguments(full: bool) -> None:
    jobs = PART.plan(Effort(full=full, seeds=5))
    assert len({job.name for job in jobs}) == len(jobs)
    for job in jobs:
        assert json.loads(json.dumps(dict(job.arguments))) == dict(job.arguments)
