"""Every snippet and command in README, tutorial and guide runs, in its page's order; so do the examples."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pages import OUTPUT, ROOT, blocks, matches, pages, reader_environment, run_page

PAGES = pages()
EXAMPLES = {
    "plain_pytorch.py": ["train_with_step", "accepted", "train_with_wrap", "accepted"],
    "long_training.py": ["after step 0 of 60", "stopped after step 34", "after step 30 of 60", "accepted: 6"],
}
TESTED_ELSEWHERE = {"check_bundle.py"}


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_a_kind_that_is_run_or_shown(page: str) -> None:
    assert [b.where for b in blocks(page) if b.kind not in ("python", "sh", "text", "json")] == []
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(blocks(page))


def test_few_blocks_are_not_run() -> None:
    assert sum(bool(b.why_not_run) for page in PAGES for b in blocks(page)) <= 1


@pytest.mark.parametrize("page", PAGES)
def test_a_file_that_a_reader_saves_is_run_below(page: str) -> None:
    own = blocks(page)
    for number, block in enumerate(own):
        if block.title and block.title != OUTPUT:
            assert block.title.endswith(".py")
            assert any(f"python {block.title}" in below.code for below in own[number:]), block.where


@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs_and_prints_what_is_shown(page: str, tmp_path: Path) -> None:
    printed = run_page(page, tmp_path)
    assert printed
    for block in blocks(page):
        if block.is_output:
            was = printed[block.after]
            assert matches(block.code, was), f"{block.where} shows\n{block.code}\nbut this is printed\n{was}"


def test_every_step_of_the_tutorial_says_what_it_prints() -> None:
    """So that a command whose output is no longer true is noticed."""
    own = blocks("docs/tutorial.md")
    for number, block in enumerate(own):
        if block.kind == "sh":
            assert own[number + 1].is_output, block.where


def test_the_error_object_in_the_guide_is_what_is_printed(tmp_path: Path) -> None:
    (shown,) = [b for b in blocks("docs/guide/verify.md") if b.kind == "json"]
    ended = subprocess.run(
        ["gradseal", "verify", "runs/none", "--json"],
        cwd=tmp_path,
        env=reader_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, shown.code)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a … c\n", "a b c\n", True),
        ("a … c\n", "a b d\n", False),
        ("a\n…\nd\n", "a\nb\nc\nd\n", True),
        ("a\n…\nd\n", "a\nd\n", True),
        ("a\n…\nd\n", "a\nb\n", False),
        ("a\n", "a\nb\n", False),
        ("a.c\n", "abc\n", False),
        ("a … c\n", "a b\nb c\n", False),
    ],
)
def test_an_ellipsis_stands_for_what_differs_and_nothing_else(shown: str, printed: str, same: bool) -> None:
    assert matches(shown, printed) is same


def test_no_example_is_left_out() -> None:
    assert {p.name for p in (ROOT / "examples").glob("*.py")} - TESTED_ELSEWHERE == set(EXAMPLES)


@pytest.mark.parametrize(("example", "said"), EXAMPLES.items(), ids=EXAMPLES)
def test_every_example_runs(example: str, said: list[str], tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(ROOT / "examples" / example), str(tmp_path)],
        cwd=tmp_path,
        env=reader_environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rest = ended.stdout
    for words in said:
        assert words in rest, ended.stdout
        rest = rest.partition(words)[2]
