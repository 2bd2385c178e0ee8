"""What is printed of a hostile bundle moves no cursor and runs in no browser; JSON stays JSON."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Literal

import pytest

from gradseal.report.page import save_page, verdict_section
from gradseal.report.terminal import Terminal, print_verdict
from gradseal.report.words import finite, printable
from gradseal.verify.policy import Policy
from gradseal.verify.verdict import Check, Claim, ClaimName, Cost, Finding, Outcome, Result, Status, Verdict

HOSTILE = "<script>alert(1)</script> \x1b[2J\x07 \u202eback [bold]x[/bold]"


def verdict(findings: int = 1, outcome: Outcome = Outcome.REJECTED) -> Verdict:
    status = Status.REFUTED if outcome is Outcome.REJECTED else Status.NOT_SHOWN
    result = Result.REFUTED if outcome is Outcome.REJECTED else Result.UNDECIDED
    return Verdict(
        outcome=outcome,
        claims={name: Claim(status=status, evidence=(HOSTILE,)) for name in ClaimName},
        findings=tuple(
            Finding(
                check=Check.REPLAY,
                result=result,
                message=f"{HOSTILE} {i}",
                where=HOSTILE,
                measured=float("nan"),
            )
            for i in range(findings)
        ),
        policy=Policy.named("full"),
        cost=Cost(segments_replayed=0, segments=1, steps_replayed=0, bytes_hashed=0, seconds=0.0),
        bundle={"origin": HOSTILE, "size": 1, "root": "00", "owner": HOSTILE},
        draw="00" * 32,
    )


def printed(shown: Verdict, *, terminal: bool, width: int = 80) -> str:
    out = io.StringIO()
    colours: Literal["standard"] | None = "standard" if terminal else None
    print_verdict(shown, Terminal(file=out, force_terminal=terminal, width=width, color_system=colours))
    return out.getvalue()


@pytest.mark.parametrize("outcome", Outcome)
def test_a_terminal_sees_no_control_character_of_a_bundle(outcome: Outcome) -> None:
    said = printed(verdict(outcome=outcome), terminal=False)
    assert [c for c in said if not c.isprintable() and c != "\n"] == []
    assert "[bold]x[/bold]" in said


def test_colours_only_on_a_terminal() -> None:
    assert "\x1b[1;31mREJECTED" in printed(verdict(), terminal=True)
    assert "\x1b" not in printed(verdict(), terminal=False)


def test_many_findings_are_counted_rather_than_listed() -> None:
    said = printed(verdict(findings=500), terminal=False)
    assert said.count("- replay: ") == 10
    assert "and 490 more" in said


def test_printable_keeps_line_ends_and_letters() -> None:
    assert printable("ü × 漢\n\t\x00") == "ü × 漢\n\\t\\x00"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, dict[str, str | None]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.setdefault(tag, dict(attrs))


def test_the_page_holds_no_markup_of_a_bundle_and_loads_nothing(tmp_path: Path) -> None:
    save_page(tmp_path / "page.html", HOSTILE, [verdict_section(HOSTILE, verdict())])
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert set(tags.seen) & {"script", "img", "link", "iframe", "a"} == set()
    assert "&lt;script&gt;" in text
    assert "url(" not in text
    assert "\x1b" not in text
    assert tags.seen["html"]["lang"] == "en"
    assert "width=device-width" in text
    assert "prefers-color-scheme: dark" in text


def test_numbers_that_json_has_not_become_null() -> None:
    said = finite(verdict().to_json())
    assert json.loads(json.dumps(said, allow_nan=False))["findings"][0]["measured"] is None
