"""A verdict as one HTML page that needs nothing else: no script, no font, no other file or host.

Everything that comes from a verdict is escaped and made printable on its way into the template, in one place.
The page follows the reader's choice of light or dark, fits a narrow screen, and prints. It is made for every
outcome, however early a verification ended.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from markupsafe import Markup

from gradseal.errors import StoreError
from gradseal.report import facts, meaning, when, words
from gradseal.report.drawing import Plot
from gradseal.report.plots import plots_of
from gradseal.report.template import template
from gradseal.report.timeline import timeline_of
from gradseal.verify.verdict import Outcome, Verdict

_MOST = 200
_MOST_ROWS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A tampered copy of the run: what was touched and done, how its verification ended, and by what."""

    name: str
    done: str
    found: str
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A section that is told beside the verdict.

    Args:
        heading: Its heading.
        paragraphs: Plain text.
        copies: Tampered copies that were verified, if it is about those.
    """

    heading: str
    paragraphs: Sequence[str]
    copies: Sequence[Copy] = ()


def save_page(path: Path, page: str) -> None:
    """Writes a page.

    Raises:
        StoreError: It cannot be written.
    """
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as e:
        raise StoreError(f"the report cannot be written: {e.strerror}", where=str(path)) from e


def render_page(
    verdict: Verdict, *, title: str, repeat: str, made: datetime, stories: Sequence[Story] = ()
) -> str:
    """The page.

    Args:
        verdict: What it is about.
        title: Its title and heading.
        repeat: The command that makes this verification again.
        made: When it was made, with its time zone.
        stories: What else it tells.
    """
    plots = plots_of(verdict.segments)
    return template("page.html").render(
        title=title,
        verdict=verdict,
        asked=meaning.asked(verdict),
        reason=words.reason(verdict),
        amounts_to=meaning.amounts_to(verdict),
        not_said=meaning.not_said(verdict),
        claims=_claims(verdict),
        statuses={status.value: said for status, said in meaning.STATUS_MEANING.items()},
        found=_found(verdict),
        evidence=facts.evidence(verdict),
        stories=stories,
        when=when.paragraphs(verdict.windows),
        timeline=_timeline(verdict),
        gaps=when.gaps_table(verdict.windows),
        anchors=when.anchors_table(verdict.windows),
        plots=[(plot, Markup(plot.svg)) for plot in plots],  # of numbers and our own words
        segments=verdict.segments,
        rows=verdict.segments.rows if verdict.segments.count <= _MOST_ROWS else (),
        any_passed=any(row.passed for row in verdict.segments.rows),
        any_wrong=any(row.passed is False for row in verdict.segments.rows),
        tolerated=bool(verdict.tolerance),
        policy=facts.policy(verdict.policy),
        cost=words.cost(verdict),
        repeat=repeat,
        versions={**_versions(), "report made": made.strftime("%Y-%m-%d %H:%M:%S %Z")},
    )


def _timeline(verdict: Verdict) -> tuple[Plot, Markup] | None:
    plot = timeline_of(verdict.windows)
    return (plot, Markup(plot.svg)) if plot else None  # of numbers and our own words


def _claims(verdict: Verdict) -> list[dict[str, Any]]:
    return [
        {
            "name": name.value,
            "meaning": meaning.CLAIM_MEANING[name],
            "status": claim.status.value,
            "evidence": words.evidence(claim, _MOST),
        }
        for name, claim in verdict.claims.items()
    ]


def _found(verdict: Verdict) -> dict[str, list[str]]:
    lists = {
        "What is wrong": words.wrong(verdict, _MOST),
        "What could not be checked": words.undecided(verdict, _MOST),
        "Worth knowing": words.notes(verdict, _MOST),
    }
    return {heading: lines for heading, lines in lists.items() if lines}


def _versions() -> Mapping[str, str]:
    versions = {"Python": platform.python_version(), "system": platform.platform()}
    for package in ("gradseal", "torch", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed as a package"
    return {name: versions[name] for name in ("gradseal", "torch", "numpy", "Python", "system")}
