"""Every attack has a page, and every page what was measured."""

from __future__ import annotations

import pytest

from attack_pages import PAGES, listed, marks, page_of
from gradseal.attacks.catalogue import MODULES, load_attack


@pytest.mark.parametrize("name", MODULES)
def test_every_attack_has_a_page_with_what_was_measured(name: str) -> None:
    page = page_of(name).read_text("utf-8")
    assert marks(page) == [name]
    assert "\n## Measured\n" in page
    assert "<!-- end -->" in page


def test_the_index_lists_all_of_them() -> None:
    page = (PAGES / "index.md").read_text("utf-8")
    assert listed() in page
    quick = [name for name in MODULES if not load_attack(name).slow]
    assert all(f"\n| {name} | native |" in page for name in quick)


def test_there_is_no_page_without_an_attack() -> None:
    assert {p.name for p in PAGES.glob("*.md")} - {"index.md"} == {page_of(name).name for name in MODULES}
