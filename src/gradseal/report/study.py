"""A study as one page of HTML, as Markdown, and as one JSON object. Nothing is measured or judged here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any

from markupsafe import Markup

from gradseal.report.curves import curve
from gradseal.report.template import template
from gradseal.report.words import finite, printable
from gradseal.study.section import Section, Table

FORM = 1
"""Of the JSON object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What a study found, and how it was made.

    Args:
        sections: A part each, in order.
        repeat: The command that makes it again.
        made: When it was made, with its time zone.
        seconds: How long this took; less than all, if it went on with what was kept.
        facts: The machine, by name.
        effort: How much was measured.
    """

    sections: tuple[Section, ...]
    repeat: str
    made: datetime
    seconds: float
    facts: Mapping[str, str]
    effort: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """One object; infinities and what is no number become null."""
        value: dict[str, Any] = finite(
            {
                "form": FORM,
                "gradseal": version("gradseal"),
                "made": self.made.isoformat(timespec="seconds"),
                "repeat": self.repeat,
                "seconds": round(self.seconds, 1),
                "facts": dict(self.facts),
                "effort": dict(self.effort),
                "sections": [section.to_json() for section in self.sections],
            }
        )
        return value


def study_page(study: Study) -> str:
    """One HTML page that needs nothing else."""
    drawings = {s.part: [(p, Markup(c.svg)) for p in s.plots for c in [curve(p)]] for s in study.sections}
    return template("study.html").render(
        study=study,
        drawings=drawings,
        made=study.made.strftime("%Y-%m-%d %H:%M:%S %Z"),
        version=version("gradseal"),
    )


def study_markdown(study: Study) -> str:
    """The same without plots, for documents."""
    return "\n".join(section_markdown(section) for section in study.sections)


def section_markdown(section: Section, level: int = 2) -> str:
    """One part: its sentences, tables and notes."""
    hashes = "#" * level
    lines = [f"{hashes} {section.title}", "", *(f"- {_text(said)}" for said in section.said), ""]
    for table in section.tables:
        lines += [f"{hashes}# {table.title}", "", table_markdown(table)]
    if section.notes:
        lines += ["What this does not say:", "", *(f"- {_text(note)}" for note in section.notes), ""]
    if section.failed:
        lines += ["These failed, and are missing:", "", *(f"- {_text(line)}" for line in section.failed), ""]
    return "\n".join(lines)


def table_markdown(table: Table) -> str:
    """A table, with its note before it."""
    rows = [table.headings, tuple("---" for _ in table.headings), *table.rows]
    text = "".join("| " + " | ".join(_cell(cell) for cell in row) + " |\n" for row in rows)
    return f"{_text(table.note)}\n\n{text}" if table.note else text


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|")


def _text(text: str) -> str:
    """One line, in which nothing is taken for markup of HTML."""
    return re.sub(r"\s+", " ", printable(text)).replace("<", "&lt;").strip()


def summary_lines(sections: Sequence[Section]) -> list[str]:
    """What was found, for a terminal."""
    lines: list[str] = []
    for section in sections:
        lines += [section.title, *(f"  - {said}" for said in section.said), ""]
    return lines[:-1]
