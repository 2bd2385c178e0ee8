"""Writes what a matrix measured into the pages on attacks: `python tests/attack_pages.py STUDY [FIRST]`.

STUDY is the directory of a `gradseal study matrix`, FIRST that of one of the first attacks with more victims.
A page has a line `<!-- measured: NAME -->`; what follows it, up to `<!-- end -->`, is made here.
`docs/attacks/index.md` has both tables whole.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from gradseal.attacks.catalogue import MODULES, load_attack
from gradseal.report.matrix import matrix_markdown, page_table
from gradseal.study.matrix.table import Matrix

PAGES = Path(__file__).parent.parent / "docs" / "attacks"
MARK = re.compile(r"<!-- measured: ([^>]+) -->\n(?:.*?<!-- end -->\n)?", re.DOTALL)


def filled(page: str, matrix: Matrix, first: Matrix | None = None) -> str:
    """A page whose marks are followed by what was measured; what this matrix has not stays as it is.

    Args:
        page: The page.
        matrix: Of all attacks.
        first: Of the first ones, with more victims.
    """
    had = {"all", "what there is", *(row.attack for row in matrix.rows)}

    def after(found: re.Match[str]) -> str:
        if found[1] == "first" and first is not None:
            return f"<!-- measured: first -->\n{_measured('all', first)}<!-- end -->\n"
        if found[1] not in had:
            return found[0]
        return f"{found[0].splitlines()[0]}\n{_measured(found[1], matrix)}<!-- end -->\n"

    return MARK.sub(after, page)


def page_of(name: str) -> Path:
    """The page of one of our attacks."""
    return PAGES / f"{MODULES[name].replace('_', '-')}.md"


def listed() -> str:
    """A table of all of our attacks, each with its page."""
    text = "| attack | what it does | source | aims at |\n|---|---|---|---|\n"
    for name in MODULES:
        own = load_attack(name)
        text += f"| [{name}]({page_of(name).name}) | {own.idea} | {own.source} | {own.aims} |\n"
    return text


def marks(page: str) -> list[str]:
    """What a page wants measured."""
    return [found[1] for found in MARK.finditer(page)]


def _measured(name: str, matrix: Matrix) -> str:
    if name == "all":
        return f"\n{_setting(matrix)}\n\n{matrix_markdown(matrix)}\n"
    if name == "what there is":
        return f"\n{listed()}\n"
    rows = [row for row in matrix.rows if row.attack == name]
    text = "\n## Measured\n\nBy `gradseal study matrix`; see [all attacks](index.md#the-matrix).\n"
    for row in rows:
        text += f"\nIn {row.arithmetic} arithmetic:\n\n{page_table(row, matrix.plan.policies)}"
    return text + "\n"


def _setting(matrix: Matrix) -> str:
    plan, setting = matrix.plan, matrix.plan.setting
    exact = plan.seeds if plan.exact_seeds is None else min(plan.seeds, plan.exact_seeds)
    return (
        f"Made by `gradseal study matrix`: {plan.seeds} victims of the recipe `{plan.recipe}` in native "
        f"arithmetic, {exact} in exact, {plan.slow_seeds} for the slow attacks; {setting.steps} steps of "
        f"{setting.batch_size} samples, k = {setting.every}, Q = {setting.top}, δ = {setting.delta} · d_ref."
    )


def _read(directory: Path) -> Matrix:
    return Matrix.from_json(json.loads((directory / "matrix.json").read_text("utf-8")))


def main(arguments: list[str]) -> int:
    """Fills every page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("first", type=Path, nargs="?")
    given = parser.parse_args(arguments)
    matrix, first = (_read(one) if one else None for one in (given.study, given.first))
    for path in sorted(PAGES.glob("*.md")):
        if matrix is not None:
            path.write_text(filled(path.read_text("utf-8"), matrix, first), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
