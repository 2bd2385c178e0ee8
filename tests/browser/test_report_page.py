"""The report in a browser: it fits, can be read in light and dark, prints, and asks nobody for anything."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from bundles import KEY, record_run
from gradseal.report.page import render_page
from gradseal.verify.policy import Policy
from gradseal.verify.verifier import verify
from made_windows import gap, made_windows
from seen import CONTRASTS, SCHEMES, SIZES, show


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("report")
    record_run(directory / "bundle")
    verdict = verify(directory / "bundle", Policy.named("full"), keys=[KEY.verification_key])
    # Not those of this run, whose seed was declared: with all that a time-line can show.
    windows = made_windows(
        40, dependent=range(0, 40, 3), anchored=range(38), gaps=(gap(5, 8), gap(38, 39, seeds=None))
    )
    verdict = replace(verdict, windows=windows)
    text = render_page(verdict, title="A training", repeat="gradseal verify bundle", made=datetime.now(UTC))
    (directory / "report.html").write_text(text, encoding="utf-8")
    return (directory / "report.html").as_uri()


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_fits_and_the_verdict_is_seen_first(
    browser: webdriver.Chrome, page: str, scheme: str, size: tuple[int, int]
) -> None:
    show(browser, page, scheme, size)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= size[0]
    outcome = browser.find_element(By.CSS_SELECTOR, ".outcome")
    assert outcome.text == "Accepted"
    assert outcome.rect["y"] + outcome.rect["height"] < size[1]
    for drawing in browser.find_elements(By.TAG_NAME, "svg"):
        assert 250 < drawing.rect["width"] <= size[0]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_text_stands_out_from_its_ground(browser: webdriver.Chrome, page: str, scheme: str) -> None:
    """By WCAG 2.1, success criterion 1.4.3: at least 4.5 to 1."""
    show(browser, page, scheme, SIZES["a desk"])
    contrasts: list[Any] = browser.execute_script(CONTRASTS)
    assert len(contrasts) > 50
    assert [what for ratio, what in contrasts if ratio < 4.5] == []


def test_light_and_dark_differ(browser: webdriver.Chrome, page: str) -> None:
    grounds = set()
    for scheme in SCHEMES:
        show(browser, page, scheme, SIZES["a desk"])
        grounds.add(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2


def test_nothing_else_is_loaded_and_nothing_is_wrong(browser: webdriver.Chrome, page: str) -> None:
    show(browser, page, "light", SIZES["a desk"])
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]  # selenium does not type it
    assert browser.find_elements(By.TAG_NAME, "script") == []


def test_the_table_of_segments_opens(browser: webdriver.Chrome, page: str) -> None:
    show(browser, page, "light", SIZES["a telephone"])
    row = browser.find_element(By.CSS_SELECTOR, "table.numbers tbody tr")
    assert not row.is_displayed()
    browser.find_element(By.CSS_SELECTOR, "details:has(.numbers) summary").click()
    assert row.is_displayed()
    # The wide table scrolls within its box; the page does not.
    assert browser.execute_script("return document.documentElement.scrollWidth") <= SIZES["a telephone"][0]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_time_line_fits_a_telephone_and_its_anchors_open(
    browser: webdriver.Chrome, page: str, scheme: str
) -> None:
    show(browser, page, scheme, SIZES["a telephone"])
    for label in browser.find_elements(By.CSS_SELECTOR, ".timeline svg text"):
        assert label.rect["x"] >= 0
        assert label.rect["x"] + label.rect["width"] <= SIZES["a telephone"][0], label.text
    keys = browser.find_elements(By.CSS_SELECTOR, ".timeline .key")
    shades = {key.value_of_css_property("background-color") for key in keys}
    assert len(keys) == 4 and len(shades) == 3  # a window, whole or pale; a gap; a tick
    row = browser.find_element(By.CSS_SELECTOR, "details .rows tbody tr")
    assert not row.is_displayed()
    browser.find_element(By.CSS_SELECTOR, "details:has(.rows) summary").click()
    assert row.is_displayed()
    assert browser.execute_script("return document.documentElement.scrollWidth") <= SIZES["a telephone"][0]


def test_it_prints_on_a_few_pages(browser: webdriver.Chrome, page: str, tmp_path: Path) -> None:
    show(browser, page, "dark", SIZES["a desk"])
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
    data = base64.b64decode(printed["data"])
    assert data.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 6
