"""Jobs of a study: kept, gone on with, grouped, failed; and sections that survive JSON."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gradseal.errors import Error, StoreError
from gradseal.report.study import Study, study_markdown, study_page
from gradseal.study.jobs import Job, run_jobs
from gradseal.study.parts import NAMES, load_part
from gradseal.study.section import Plot, Section, Series, Table


def squared(number: int) -> Any:
    """A job of the tests."""
    if number < 0:
        raise Error("is below 0", where="number", advice="take another")
    if number == 13:
        raise ZeroDivisionError("thirteen")
    return {"square": number * number, "process": os.getpid()}


def job(number: int, group: str = "") -> Job:
    return Job(name=f"square of {number}", function=squared, arguments={"number": number}, group=group)


def test_results_come_by_name_and_are_kept(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    done = run_jobs([job(2), job(3), job(2)], tmp_path, progress=lambda what, n, of: told.append((n, of)))
    assert {name: one["square"] for name, one in done.results.items()} == {"square of 2": 4, "square of 3": 9}
    assert told[-1] == (2, 2)
    again = run_jobs([job(2), job(3)], tmp_path)
    assert again == done  # the process's number too: nothing was computed anew
    assert len(list((tmp_path / "cases").iterdir())) == 2


def test_a_group_runs_in_one_process(tmp_path: Path) -> None:
    done = run_jobs([job(n, "same") for n in range(4)], tmp_path, processes=2)
    assert len({one["process"] for one in done.results.values()}) == 1


def test_what_fails_is_said_and_the_rest_is_done(tmp_path: Path) -> None:
    done = run_jobs([job(n, "same") for n in (-1, 13, 2)], tmp_path)
    assert list(done.results) == ["square of 2"]
    assert done.failed["square of -1"].startswith("is below 0")
    assert done.failed["square of 13"] == "ZeroDivisionError: thirteen"


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    run_jobs([job(2)], tmp_path)
    (kept,) = (tmp_path / "cases").iterdir()
    kept.write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match="is no result of a study") as caught:
        run_jobs([job(2)], tmp_path)
    assert caught.value.where == str(kept)


def test_other_arguments_are_kept_elsewhere(tmp_path: Path) -> None:
    other = Job(name=job(2).name, function=squared, arguments={"number": 3})
    assert other.path(tmp_path) != job(2).path(tmp_path)


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        run_jobs([job(2)], tmp_path / "file")


def test_every_part_is_there() -> None:
    for name in NAMES:
        part = load_part(name)
        assert part.name == name
        assert part.title
        assert part.question.endswith("?")
    with pytest.raises(Error, match="no part 'nothing'"):
        load_part("nothing")


SECTION = Section(
    part="audits",
    title="Audits",
    said=("One <b> of two.",),
    tables=(Table(title="T", headings=("a", "b"), rows=(("x|y", "<i>"),), note="How."),),
    plots=(
        Plot(
            name="curve",
            title="Curve",
            description="From 1 to 0.",
            x="cost",
            y="rate",
            series=(
                Series(name="band", x=(0.1, 1.0), y=(1.0, 0.5), low=(0.9, 0.4), high=(1.0, 0.6)),
                Series(name="marks", x=(0.0, 0.5), y=(float("nan"), 0.5), points=True),
            ),
            log_x=True,
        ),
    ),
    figures={"rate": 0.5},
    notes=("Nothing else.",),
    failed=("job: error",),
)


def test_a_section_survives_json() -> None:
    plain = replace(SECTION, plots=(replace(SECTION.plots[0], series=SECTION.plots[0].series[:1]),))
    assert Section.from_json(json.loads(json.dumps(plain.to_json()))) == plain


def test_a_study_is_told_in_three_ways() -> None:
    study = Study(
        sections=(SECTION,),
        repeat="gradseal study <x>",
        made=datetime(2026, 1, 1, tzinfo=UTC),
        seconds=3.0,
        facts={"processes": "2"},
        effort={"full": False},
    )
    page = study_page(study)
    assert "One &lt;b&gt; of two." in page
    assert page.count("<svg") == 1
    assert "job: error" in page
    text = study_markdown(study)
    assert "- One &lt;b> of two." in text
    assert "| x\\|y | &lt;i> |" in text
    value = study.to_json()
    assert value["sections"][0]["plots"][0]["series"][1]["y"] == [None, 0.5]
    assert json.loads(json.dumps(value, allow_nan=False))["facts"] == {"processes": "2"}
