"""The results in README and docs are those of the study that is kept, and nobody's hand."""

from __future__ import annotations

import json

import pytest

from study_pages import KEPT, MARK, PAGES, RESULTS, filled, results_page


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_says_what_was_measured(path: object) -> None:
    study = json.loads(KEPT.read_text(encoding="utf-8"))
    text = path.read_text(encoding="utf-8")  # type: ignore[attr-defined]
    assert MARK.search(text)
    assert filled(text, study) == text


def test_the_page_of_results_is_the_study_s() -> None:
    study = json.loads(KEPT.read_text(encoding="utf-8"))
    assert RESULTS.read_text(encoding="utf-8") == results_page(study)
    assert all(not section["failed"] for section in study["sections"])
