"""Writes what a study found into README and docs: `python tests/study_pages.py STUDY [PART.json ...]`.

STUDY is the directory of a `gradseal study --out STUDY`; a part that was made by itself, with more effort,
may take the place of the study's own. What a page wants stands between a line
`<!-- measured: NAME -->` and the next `<!-- end -->`; docs/reference/results.md has everything, and
docs/reference/results.json the same without its plots, from which a test makes the pages again.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradseal.report.study import section_markdown, table_markdown
from gradseal.study.matrix.part import FIRST_ATTACKS
from gradseal.study.section import Section, Table

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "docs" / "reference" / "results.json"
RESULTS = ROOT / "docs" / "reference" / "results.md"
PAGES = (
    ROOT / "README.md",
    ROOT / "docs" / "theory" / "paper.md",
    ROOT / "docs" / "theory" / "precedence.md",
)
MARK = re.compile(r"<!-- measured: ([^>]+) -->\n(?:.*?)<!-- end -->\n", re.DOTALL)
LINES = 4
"""So many sentences of a part README has: the first ones, whatever they say."""

SHOWN = {
    "jia2021": "`jia2021`, absolute",
    "jia2021-normalised": "`jia2021`, a share of d_ref",
    "jia2021-random-normalised": "as many segments at random",
    "jia2021-relative": "relative limit",
    "jia2021-bounded": "learning rates bounded too",
    "standard": "`standard`",
    "full": "`full`",
}
ATTACKS = {"attack 1": "infinitesimal update", "attack 2": "blindfold top-Q"}


def kept(study: Mapping[str, Any]) -> dict[str, Any]:
    """A study without its plots, small enough to keep."""
    sections = [{**section, "plots": []} for section in study["sections"]]
    return {**study, "sections": sections}


def with_parts(study: dict[str, Any], parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A study in which some parts are those of others."""
    own = {section["part"]: (section, part["repeat"]) for part in parts for section in part["sections"]}
    sections = [own.get(section["part"], (section, ""))[0] for section in study["sections"]]
    return {**study, "sections": sections, "apart": {name: repeat for name, (_, repeat) in own.items()}}


def sections_of(study: Mapping[str, Any]) -> dict[str, Section]:
    """Its parts by name."""
    return {one["part"]: Section.from_json(one) for one in study["sections"]}


def filled(page: str, study: Mapping[str, Any]) -> str:
    """A page whose marks have what was measured between them."""
    sections = sections_of(study)

    def between(found: re.Match[str]) -> str:
        return f"<!-- measured: {found[1]} -->\n{measured(found[1], study, sections)}<!-- end -->\n"

    return MARK.sub(between, page)


def measured(name: str, study: Mapping[str, Any], sections: Mapping[str, Section]) -> str:
    """What stands under one mark."""
    if name == "results":
        apart = "".join(f" The part `{part}` is of `{by}`." for part, by in study["apart"].items())
        text = f"\n{_made(study)}{apart}\n\n{_first(sections['matrix'])}\n"
        return text + "".join(f"\n**{s.title}**\n\n{_first_of(s)}" for s in sections.values()) + "\n"
    if name in ATTACKS:
        return f"\n{_row(sections['matrix'], ATTACKS[name])}\n"
    return f"\n{_list(sections[name].said)}\n"


def results_page(study: Mapping[str, Any]) -> str:
    """The page with everything."""
    text = f"# Results of the study\n\n{_made(study)} How to make it: [Measure](../guide/study.md).\n"
    for name, repeat in study["apart"].items():
        text += f"\nThe part `{name}` was made by itself: `{repeat}`.\n"
    facts = "; ".join(f"{name} {value}" for name, value in study["facts"].items())
    text += f"\nThe machine: {facts}. It took {study['seconds']:.0f} seconds.\n\n"
    return text + "\n".join(section_markdown(section) for section in sections_of(study).values()) + "\n"


def _made(study: Mapping[str, Any]) -> str:
    size = study["effort"]
    setting = size["setting"]
    return (
        f"Made by `{'gradseal study --full' if size['full'] else 'gradseal study'} --out study`, then "
        f"`python tests/study_pages.py study`: {size['seeds']} victims of the recipe `digits`, "
        f"{setting['steps']} steps of {setting['batch_size']} samples, k = {setting['every']}, "
        f"Q = {setting['top']}, δ = {setting['delta']:g} of d_ref."
    )


def _list(lines: tuple[str, ...]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _first_of(section: Section) -> str:
    more = len(section.said) - LINES
    rest = f"- … and {more} more, with all numbers, in [the report](docs/reference/results.md).\n"
    return _list(section.said[:LINES]) + (rest if more > 0 else "")


def _first(matrix: Section) -> str:
    """The first attacks against some policies, and what they cost."""
    cells, dear = matrix.tables
    costs = {row[:2]: row[dear.headings.index("gradients / claimed")] for row in dear.rows}
    columns = [cells.headings.index(policy) for policy in SHOWN]
    rows = tuple(
        (*row[:2], *(_bold(row[at]) for at in columns), costs[row[:2]])
        for row in cells.rows
        if row[0] in FIRST_ATTACKS
    )
    headings = ("", "arithmetic", *SHOWN.values(), "gradients, of those claimed")
    return table_markdown(Table(title="", headings=headings, rows=rows))


def _row(matrix: Section, attack: str) -> str:
    """One attack against all policies, a line each."""
    cells = matrix.tables[0]
    rows = [row for row in cells.rows if row[0] == attack]
    told = tuple(
        (f"`{policy}`", *(_bold(row[at]) for row in rows))
        for at, policy in enumerate(cells.headings)
        if at > 1
    )
    return table_markdown(Table(title="", headings=("policy", *(row[1] for row in rows)), rows=told))


def _bold(cell: str) -> str:
    return f"**{cell}**" if cell.startswith("passed") else cell


def main() -> int:
    """Fills all pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("parts", type=Path, nargs="*")
    given = parser.parse_args()
    parts = [json.loads(path.read_text(encoding="utf-8")) for path in given.parts]
    whole = json.loads((given.study / "study.json").read_text(encoding="utf-8"))
    study = kept(with_parts(whole, parts))
    KEPT.write_text(json.dumps(study, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    RESULTS.write_text(results_page(study), encoding="utf-8")
    for path in PAGES:
        path.write_text(filled(path.read_text(encoding="utf-8"), study), encoding="utf-8")
        print(f"written: {path.relative_to(ROOT)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
