"""What is printed of a hostile bundle moves no cursor and runs in no browser; JSON stays JSON."""

from __future__ import annotations

import io
import json
import re
import sys
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

import click.testing
import matplotlib
import pytest

from bundles import KEY, OTHER_KEY, record_run
from gradseal.cli.main import gradseal
from gradseal.errors import MissingFile, StoreError
from gradseal.report.page import Copy, Story, render_page
from gradseal.report.plots import _spans, plots_of
from gradseal.report.terminal import Terminal, print_verdict
from gradseal.report.words import finite, printable
from gradseal.verify.policy import Policy
from gradseal.verify.segments import Losses, SegmentRow, Segments
from gradseal.verify.verdict import Check, Claim, ClaimName, Cost, Finding, Outcome, Result, Status, Verdict
from made_windows import gap, made_windows

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


def test_a_terminal_says_when_the_run_was_made() -> None:
    assert "\nmade " not in printed(verdict(), terminal=False)
    said = printed(
        replace(verdict(), windows=made_windows(9, by=(HOSTILE,), gaps=(gap(2, 3),))), terminal=False
    )
    assert "\nmade   2026-11-25 19:20:03 to 19:25:24 UTC\ngaps   1; worth 2.0 bits; recorded" in said


def test_printable_keeps_line_ends_and_letters() -> None:
    assert printable("ü × 漢\n\t\x00") == "ü × 漢\n\\t\\x00"


class Page(HTMLParser):
    """A page's elements, which must be closed in order, and its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: dict[str, dict[str, str | None]] = {}
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.setdefault(tag, dict(attrs))
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag != "meta":
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.setdefault(tag, dict(attrs))
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += data

    def all(self, name: str) -> list[str]:
        return [value for own, value in self.attributes if own == name]


MADE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def page_of(shown: Verdict, **options: Any) -> str:
    return render_page(shown, **{"title": HOSTILE, "repeat": HOSTILE, "made": MADE, **options})


def row(number: int, **more: Any) -> SegmentRow:
    known: dict[str, Any] = {
        "first_loss": 2.0,
        "last_loss": 1.0,
        "mean_loss": 1.5,
        "update": 0.5 / (number + 1),
    }
    return SegmentRow(number=number, first_step=2 * number, steps=2, **{**known, **more})


def segments(count: int = 4, **more: Any) -> Segments:
    """Segments of two steps, of which the second did not replay and the last was not replayed."""
    rows = [row(i, replayed=i < count - 1, equal=None, seconds=None) for i in range(count)]
    rows = [replace(r, equal=r.number != 1, seconds=0.25) if r.replayed else r for r in rows]
    losses = Losses(mean=tuple(2.0 / (i + 1) for i in range(2 * count)))
    return replace(
        Segments(
            count=count, replayed=count - 1, rows=tuple(rows), losses=losses, path_length=1.0, distance=0.5
        ),
        **more,
    )


RECORD: dict[str, Any] = {
    "closed": True,
    "seed": {"source": "declared", "value": "ab" * 32},
    "data": {"samples": 1500, "root": "cd" * 32},
    "plan": {
        "steps": 8,
        "every": 2,
        "batch_size": 4,
        "drop_last": False,
        "order": HOSTILE,
        "collation": HOSTILE,
    },
    "program": HOSTILE,
    "initialisation": "x" * 5000,
    "release": "00" * 32,
    "weights": None,
    "parameters": {"tensors": 2, "numbers": 10},
    "environment": {
        "recorded": {"torch": HOSTILE, "onednn": True},
        "replayed": {"torch": "2", "onednn": True},
    },
    "free_bytes": {"counted": 75, "allowed": 1024},
}


@pytest.mark.parametrize("known", [False, True], ids=["ended early", "read whole"])
@pytest.mark.parametrize("outcome", Outcome)
def test_the_page_holds_no_markup_of_a_bundle_and_loads_nothing(outcome: Outcome, known: bool) -> None:
    shown = verdict(outcome=outcome)
    if known:
        windows = made_windows(4, by=(HOSTILE,), gaps=(gap(1, 2),))
        shown = replace(shown, record=RECORD, segments=segments(), windows=windows)
    story = Story(
        heading=HOSTILE,
        paragraphs=[HOSTILE],
        copies=[Copy(name=HOSTILE, done=HOSTILE, found=HOSTILE, outcome=Outcome.REJECTED)],
    )
    text = page_of(shown, stories=[story])
    page = Page(text)
    assert (
        set(page.seen) & {"script", "img", "link", "iframe", "a", "object", "embed", "base", "form"} == set()
    )
    assert page.text.count("<script>alert(1)</script>") > 10
    assert [c for c in text if not c.isprintable() and c != "\n"] == []
    assert "\\u202eback" in text
    assert [name for name, _ in page.attributes if name.startswith("on")] == []
    assert not page.all("src")
    assert all(href.startswith("#") for href in page.all("href"))
    assert "http:" not in text and "https:" not in text and "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []
    assert page.seen["html"]["lang"] == "en"
    assert "width=device-width" in text
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    assert outcome.value in page.text
    assert all(name.value in page.text for name in ClaimName)
    assert ("svg" in page.seen) is known


def test_a_seed_of_beacons_is_told_with_its_chains() -> None:
    chains = [{"chain": {"hash": digit * 64}, "first_round": 657413} for digit in "ab"]
    seed = {"source": "beacon", "cadence_seconds": 90, "chains": [*chains, {"chain": {}, "first_round": 1}]}
    page = Page(page_of(replace(verdict(), record={**RECORD, "seed": seed}, segments=segments())))
    assert f"{'a' * 64} from round 657,413 on; {'b' * 64} from round 657,413 on" in page.text
    assert "each 1 minute and 30 seconds long" in page.text


def test_ids_are_unique_and_all_that_is_referred_to_is_there() -> None:
    text = page_of(replace(verdict(), record=RECORD, segments=segments(), windows=made_windows(4)))
    page = Page(text)
    ids = page.all("id")
    assert len(ids) == len(set(ids))
    referred = [h[1:] for h in page.all("href")] + re.findall(r"url\(#([^)]+)\)", text)
    assert set(referred + " ".join(page.all("aria-labelledby")).split()) <= set(ids)
    assert len(page.all("aria-labelledby")) == 4


def test_a_page_is_the_same_for_the_same_verdict_and_leaves_matplotlib_as_it_was() -> None:
    shown = replace(verdict(), record=RECORD, segments=segments())
    before = dict(matplotlib.rcParams)
    assert page_of(shown) == page_of(shown)
    assert dict(matplotlib.rcParams) == before


def test_plots_take_the_colours_of_the_page_and_their_text_stays_text() -> None:
    for plot in plots_of(segments()):
        assert re.findall(r"#[0-9a-f]{6}", plot.svg) == []
        assert "var(--series)" in plot.svg and "var(--good)" in plot.svg and "currentColor" in plot.svg
        assert plot.title in plot.svg
        assert "<text" in plot.svg and "<metadata" not in plot.svg and "<style" not in plot.svg
        assert "var(--bad)" in plot.svg and "Other bits than sealed: segment 1." in plot.description
    equal = segments(rows=tuple(replace(r, equal=True if r.replayed else None) for r in segments().rows))
    assert not any("var(--bad)" in plot.svg for plot in plots_of(equal))


@pytest.mark.parametrize(
    ("replayed", "green", "red"),
    [
        (
            1000,
            [(0, 100), (300, 300), (998, 999)],
            [(101, 299), (301, 599), (600, 900), (901, 997)],
        ),
        (
            999,
            [(0, 0), (100, 100), (300, 300), (998, 999)],
            [(101, 299), (301, 599), (600, 600), (601, 899), (900, 900), (901, 997)],
        ),
    ],
    ids=["all replayed", "not all"],
)
def test_no_strip_is_green_over_segments_with_other_bits_that_are_not_told(
    replayed: int, green: list[tuple[int, int]], red: list[tuple[int, int]]
) -> None:
    ends = {0: True, 100: True, 300: True, 600: False, 900: False, 998: True, 999: True}
    rows = tuple(row(i, replayed=True, equal=equal) for i, equal in ends.items())
    told = Segments(count=1000, replayed=replayed, rows=rows, unequal_after=(0, 1, 2, 3, 4, 0, 0))
    spans = list(_spans(told, steps=False))
    for drawn, equal in ((green, True), (red, False)):
        assert [(a + 0.5, a + width - 0.5) for a, width, same in spans if same is equal] == drawn
    assert list(_spans(told, steps=True)) == [(2 * a + 0.5, 2 * width, same) for a, width, same in spans]
    assert "segments 600, 900 and 10 more" in plots_of(told)[0].description


def test_what_was_not_measured_is_not_drawn() -> None:
    rows = tuple(row(i, update=None) for i in range(3))
    (plot,) = plots_of(segments(3, rows=rows, replayed=0))
    assert plot.title == "Loss by step"
    assert plots_of(Segments()) == []


@pytest.mark.parametrize("loss", [0.0, 5e-324, 1e300, -1e-9, None])
def test_losses_of_any_size_are_drawn_or_left_out(loss: float | None) -> None:
    drawn = plots_of(segments(losses=Losses(mean=(loss, loss, 1.0, loss))))
    assert drawn[0].title == "Loss by step"


def test_few_segments_have_a_table_and_many_do_not_make_a_large_page() -> None:
    few = Page(page_of(replace(verdict(), segments=segments(150))))
    assert "details" in few.seen and "differs" in few.text
    rows = tuple(row(i * 500, replayed=True, equal=True, seconds=0.1) for i in range(2000))
    curve = tuple(1.0 + i % 7 for i in range(2000))
    losses = Losses(steps_per_point=1000, mean=curve, low=curve, high=curve)
    many = page_of(
        replace(verdict(), segments=Segments(count=1_000_000, replayed=1_000_000, rows=rows, losses=losses))
    )
    assert "details" not in Page(many).seen
    assert "2000 of 1000000 segments are drawn" in many
    assert "Each point stands for 1000 steps" in many
    assert len(many) < 1_000_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "run"
    record_run(path)
    return path


def verified(*arguments: str | Path) -> click.testing.Result:
    return click.testing.CliRunner().invoke(
        gradseal, ["verify", *map(str, arguments), "--key", str(KEY.verification_key)]
    )


def test_verify_writes_a_page_that_says_how_to_repeat_it_and_says_where_it_is(
    bundle: Path, tmp_path: Path
) -> None:
    ended = verified(bundle, "--report", tmp_path / "report.html", "--json")
    assert ended.exit_code == 0, ended.output
    told = json.loads(ended.stdout)
    assert f"report: {tmp_path / 'report.html'}" in ended.stderr
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    repeat = f"gradseal verify {bundle} --policy full --key {KEY.verification_key} --draw {told['draw']}"
    assert repeat in page.text
    assert told["bundle"]["root"] in page.text and told["record"]["program"] in page.text
    assert len(page.all("aria-labelledby")) == 3

    rows = told["segments"]["rows"]
    assert [r["number"] for r in rows] == [0, 1, 2]
    assert all(r["equal"] and r["seconds"] > 0 and r["update"] > 0 for r in rows)
    assert len(told["segments"]["losses"]["mean"]) == 6
    assert told["segments"]["distance"] <= told["segments"]["path_length"]
    assert told["segments"]["path_length"] == pytest.approx(sum(r["update"] for r in rows))


def test_verify_measures_every_update_though_it_replays_few(bundle: Path, tmp_path: Path) -> None:
    ended = verified(bundle, "--policy", "quick", "--json")
    rows = json.loads(ended.stdout)["segments"]["rows"]
    assert [r["replayed"] for r in rows] == [True, False, True]
    assert all(r["update"] > 0 for r in rows)
    assert [r["seconds"] is None for r in rows] == [False, True, False]


def test_a_rejected_run_has_a_page_too_in_the_place_of_an_older_one(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("an older report")
    other = str(OTHER_KEY.verification_key)
    ended = click.testing.CliRunner().invoke(
        gradseal, ["verify", str(bundle), "--key", other, "--report", str(tmp_path / "report.html")]
    )
    assert ended.exit_code == 1
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "rejected" in page.text and "What is wrong" in page.text and "an older report" not in page.text


def test_a_report_that_cannot_be_written_ends_before_the_verification(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["gradseal.verify.verifier"], "verify", pytest.fail)
    ended = verified(bundle, "--report", tmp_path / "none" / "report.html")
    assert isinstance(ended.exception, StoreError)
    assert "cannot be written" in ended.exception.message
    assert verified(bundle, "--report", tmp_path).exit_code == 2


def test_no_empty_report_stays_of_what_is_no_bundle(tmp_path: Path) -> None:
    ended = verified(tmp_path / "nothing", "--report", tmp_path / "report.html")
    assert isinstance(ended.exception, MissingFile)
    assert not (tmp_path / "report.html").exists()


def test_numbers_that_json_has_not_become_null() -> None:
    said = finite(verdict().to_json())
    assert json.loads(json.dumps(said, allow_nan=False))["findings"][0]["measured"] is None
