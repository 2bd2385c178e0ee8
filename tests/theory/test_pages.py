"""Each proposition of docs/theory names tests or parts of the study that check it, and these exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from gradseal.attacks.catalogue import MODULES, attack_names
from gradseal.study import parts

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted((ROOT / "docs" / "theory").glob("*.md"))
PARTS = {*parts.NAMES, "ks"}

_PROPOSITION = re.compile(r"^### ([PVSEO]\d+)\. (.+)$", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
_PART = re.compile(r"`gradseal study ([\w-]+)[^`]*`")
_SECTION = re.compile(r"^## ", re.MULTILINE)


def propositions(text: str) -> dict[str, str]:
    """The numbers of a page's propositions, each with its text up to the next heading."""
    heads = list(_PROPOSITION.finditer(text))
    ends = [*(head.start() for head in heads[1:]), len(text)]
    parts = {head[1]: text[head.end() : end] for head, end in zip(heads, ends, strict=False)}
    return {number: _SECTION.split(part)[0] for number, part in parts.items()}


def page(name: str) -> str:
    return (ROOT / "docs" / "theory" / name).read_text(encoding="utf-8")


@cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_every_proposition_that_is_wanted_is_there_once() -> None:
    numbers = [number for path in PAGES for number in propositions(path.read_text(encoding="utf-8"))]
    wanted = {"P": 8, "V": 4, "S": 6, "E": 4, "O": 8}
    assert sorted(numbers) == sorted(f"{letter}{i}" for letter, n in wanted.items() for i in range(1, n + 1))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_what_a_page_names_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for file, test in _TEST.findall(text):
        assert (ROOT / file).is_file(), file
        assert not test or test in functions_of(file), f"{file}::{test}"
    assert set(_PART.findall(text)) <= PARTS


@pytest.mark.parametrize("name", ["precedence.md", "validity.md", "sampling.md", "exactness.md"])
def test_each_proposition_names_a_test_that_checks_it(name: str) -> None:
    for number, text in propositions(page(name)).items():
        last = text.strip().rpartition("\n\n")[2]
        assert last.startswith("Checked by: "), f"{number} does not end with what checks it"
        assert any(test for _, test in _TEST.findall(last)), f"{number} names no test"


def test_each_open_problem_says_whether_it_is_measured() -> None:
    for number, text in propositions(page("open.md")).items():
        last = text.strip().rpartition("\n\n")[2]
        if number == "O8":
            last = text
        named = _PART.findall(last) or _TEST.findall(last)
        assert named or "Not measured." in last, number


@pytest.mark.parametrize("name", ["validity.md", "sampling.md", "exactness.md"])
def test_each_limit_names_an_attack_or_says_that_there_is_none(name: str) -> None:
    known = {name.replace(",", "").replace(" ", "-") for name in attack_names()}
    _, found, rest = page(name).partition("What is not shown\n")
    rows = [line.split("|") for line in rest.splitlines() if line.startswith("| ")]
    assert found and len(rows) > 3
    for row in rows[1:]:
        named = set(re.findall(r"\.\./attacks/([\w-]+)\.md", row[2]))
        assert named or row[2].strip().startswith("none"), row[1]
        assert all((ROOT / "docs" / "attacks" / f"{attack}.md").is_file() for attack in named)
        # Pages have the names of the modules, or those of the catalogue.
        assert named <= known | {module.replace("_", "-") for module in MODULES.values()}


def test_a_proposition_without_a_test_would_be_noticed() -> None:
    text = (
        "### V9. A claim\n\nTrue.\n\n## 4. Rest\n\n### S9. Another\n\nChecked by: `tests/none.py::test_x`.\n"
    )
    assert propositions(text) == {
        "V9": "\n\nTrue.\n\n",
        "S9": "\n\nChecked by: `tests/none.py::test_x`.\n",
    }
    assert _TEST.findall(text) == [("tests/none.py", "test_x")]
