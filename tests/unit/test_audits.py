"""The study's part on audits: its jobs, and what is said of their results."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gradseal.study.audits import jobs as auditing
from gradseal.study.audits.jobs import INFLATIONS, SHARES, long_lengths, simulate_law
from gradseal.study.audits.mixes import KINDS
from gradseal.study.audits.part import PART
from gradseal.study.part import Effort
from gradseal.study.section import Section


@pytest.fixture(scope="module")
def results() -> dict[str, object]:
    """Of short runs, with the names of the true jobs."""
    lengths = long_lengths(200)
    measured = auditing._measured(lengths, 0.2 * float(lengths.sum()))
    law = simulate_law("exponential", 40, 3, (0.9, 0.2, 0.3, 2), hashed=False)
    return {"audits digits": measured, "audits long": measured, "audits simulated exponential 1000 0": law}


def test_jobs_are_named_apart_and_take_json() -> None:
    for effort in (Effort(), Effort(full=True)):
        jobs = PART.plan(effort)
        assert len({job.name for job in jobs}) == len(jobs)
        for job in jobs:
            assert json.loads(json.dumps(job.arguments)) == job.arguments
            assert getattr(auditing, job.function.__name__) is job.function
    assert PART.plan(Effort()) == PART.plan(Effort())
    assert PART.plan(Effort(seed=1)) != PART.plan(Effort(seed=2))


def test_the_sentences_have_the_measured_numbers(results: dict[str, object]) -> None:
    section = PART.tell(Effort(), json.loads(json.dumps(results)))
    cheapest = section.figures["its share, digits"]
    assert isinstance(cheapest, float)
    assert 0 < cheapest < 0.5
    assert any(f"replays {cheapest:.2%} of the segments" in line for line in section.said)
    assert any("5 combinations" in line and "0 contradict" in line for line in section.said)
    assert any("chance would make 0.005 of them" in line for line in section.said)
    assert Section.from_json(json.loads(json.dumps(section.to_json(), allow_nan=False))) == section
    assert len({plot.name for plot in section.plots}) == 3
    for plot in section.plots:
        assert [one.name for one in plot.series] == list(KINDS)
        for series in plot.series:
            assert list(series.x) == sorted(set(series.x))


def test_a_false_bound_is_told(results: dict[str, object]) -> None:
    own = json.loads(json.dumps(results))
    own["audits simulated exponential 1000 0"][0]["p"] = 1e-9
    section = PART.tell(Effort(), own)
    assert section.figures["simulations that contradict"] == 1.0
    assert any("1 contradict" in line for line in section.said)


def test_what_failed_is_left_out(results: dict[str, object]) -> None:
    assert PART.tell(Effort(), {}).tables == ()
    only = PART.tell(Effort(), {"audits long": results["audits long"]})
    assert only.plots
    assert "its share, digits" not in only.figures


def test_detection_grows_with_cost_and_falls_with_what_the_prover_may(results: dict[str, object]) -> None:
    curves = json.loads(json.dumps(results["audits long"]))["curves"]
    for kind in KINDS:
        seen = np.array([[point[1] for point in curves[name][kind]] for name in INFLATIONS])
        assert seen.shape == (len(INFLATIONS), len(SHARES))
        # The mixed one has one draw less of a kind here and there where it has one more of another.
        assert (np.diff(seen, axis=1) > -0.02).all()
        assert (np.diff(seen, axis=0) < 1e-9).all()
    assert curves["as they are"]["by length"][5][1] > curves["as they are"]["uniform"][5][1]
    assert curves["without limit"]["uniform"][5][1] > curves["without limit"]["by length"][5][1]


def test_a_real_run_is_measured() -> None:
    measured = auditing.measure_digits(seed=5, steps=12)
    assert measured["segments"] == 12
    assert 0 < measured["displacement"] <= 1
