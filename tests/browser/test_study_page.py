"""The study's page in a browser: it fits a telephone, can be read in light and dark, and asks nobody."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from gradseal.report.study import Study, study_page
from gradseal.study.section import Plot, Section, Series, Table
from seen import CONTRASTS, SCHEMES, SIZES, show


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    curve = tuple(0.1 * i for i in range(1, 20))
    sections = tuple(
        Section(
            part=f"part{number}",
            title=f"Part {number}",
            said=(
                "A sentence with a long number of 12,345,678 in it, and more words to fill two lines of it.",
            ),
            tables=(
                Table(
                    title=f"A wide table {number}",
                    headings=tuple(f"jia2021-random-normalised {i}" for i in range(12)),
                    rows=tuple(tuple(f"passed {i}/5, else distance" for i in range(12)) for _ in range(3)),
                    note="How to read it.",
                ),
            ),
            plots=(
                Plot(
                    name=f"curve-{number}",
                    title="A curve",
                    description="Rises.",
                    x="steps",
                    y="probability that the best response to an audit is seen",
                    series=tuple(
                        Series(
                            name=f"series {i}", x=curve, y=curve, low=(0.0,) * 19, high=curve, points=i == 2
                        )
                        for i in range(7)
                    ),
                    log_x=True,
                ),
            ),
            notes=("Nothing more.",),
            failed=("a job: an error",),
        )
        for number in range(2)
    )
    study = Study(
        sections=sections,
        repeat="gradseal study --out study",
        made=datetime.now(UTC),
        seconds=1.0,
        facts={"processes": "2"},
        effort={},
    )
    path = tmp_path_factory.mktemp("study") / "study.html"
    path.write_text(study_page(study), encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_it_fits_and_a_wide_table_scrolls_by_itself(
    browser: webdriver.Chrome, page: str, size: tuple[int, int]
) -> None:
    show(browser, page, "light", size)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= size[0]
    for drawing in browser.find_elements(By.TAG_NAME, "svg"):
        assert 250 < drawing.rect["width"] <= size[0]
        top, bottom = drawing.rect["y"], drawing.rect["y"] + drawing.rect["height"]
        for label in drawing.find_elements(By.TAG_NAME, "text"):
            assert top <= label.rect["y"] and label.rect["y"] + label.rect["height"] <= bottom + 1, label.text


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_text_stands_out_from_its_ground(browser: webdriver.Chrome, page: str, scheme: str) -> None:
    show(browser, page, scheme, SIZES["a desk"])
    contrasts: list[Any] = browser.execute_script(CONTRASTS)
    assert len(contrasts) > 50
    assert [what for ratio, what in contrasts if ratio < 4.5] == []


def test_nothing_else_is_loaded(browser: webdriver.Chrome, page: str) -> None:
    show(browser, page, "light", SIZES["a desk"])
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.find_elements(By.TAG_NAME, "script") == []
