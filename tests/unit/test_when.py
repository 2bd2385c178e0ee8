"""What a report says of when a run was made: no more than is known, and rounded to nobody's advantage."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from gradseal.report import when
from gradseal.verify import times
from gradseal.verify.windows import AnchorRow, Windows
from made_windows import START, gap, made_windows

NO_TIMES = [None, math.nan, math.inf, -math.inf, -1.0, 1e300, 253402300799.5, 2.0**40 * 86400]


def test_times_are_rounded_to_no_advantage_of_the_run() -> None:
    assert times.not_before(START + 0.9) == "2026-11-25 19:20:03"
    assert times.not_after(START + 0.1) == "2026-11-25 19:20:04"
    assert times.not_after(START) == "2026-11-25 19:20:03"
    assert times.between(START + 0.9, START + 60.1) == "2026-11-25 19:20:03 to 19:21:04 UTC"
    assert times.between(START, START + 86400) == "2026-11-25 19:20:03 to 2026-11-26 19:20:03 UTC"


@pytest.mark.parametrize("time", NO_TIMES)
def test_what_no_calendar_has_is_not_known(time: float | None) -> None:
    assert not times.usable(time)
    assert times.not_before(time) == times.not_after(time) == "not known"
    hostile = made_windows(3, manifest=time, start=time, close=time, dependent=(), anchored=())
    assert not when.known(hostile)
    assert "found nothing that says when" in " ".join(when.paragraphs(hostile))
    assert when.lines(hostile) == {}


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.5, "less than a second"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "1 minute"),
        (3599, "59 minutes and 59 seconds"),
        (3601, "1 hour"),
        (90000, "1 day and 1 hour"),
        (86400 * 1200, "1,200 days"),
    ],
)
def test_lengths_of_time_are_told_in_two_units(seconds: float, said: str) -> None:
    assert times.lasting(seconds) == said


def test_a_run_with_all_its_windows_is_told_in_a_line() -> None:
    assert when.lines(made_windows(10)) == {"made": "2026-11-25 19:20:03 to 19:25:54 UTC"}


def test_what_is_open_is_told_as_open() -> None:
    no_close = made_windows(10, anchored=range(5), close=None)
    assert when.lines(no_close)["made"] == "2026-11-25 19:20:03 to 19:22:43 UTC, up to segment 4"
    assert "Nothing says by when the rest was" in when.paragraphs(no_close)[0]
    late = made_windows(10, dependent=(3, 9))
    assert when.lines(late)["made"] == "2026-11-25 19:21:33 to 19:25:54 UTC, from segment 3 on"
    assert when.paragraphs(late)[0].startswith("From segment 3 on, the training was not made before")
    declared = made_windows(3, dependent=(), source="declared", start=None)
    assert when.lines(declared)["made"] == "not after 2026-11-25 19:22:24 UTC; not before: not known"
    assert "the owner's own choice" in when.paragraphs(declared)[0]
    unsealed = made_windows(3, anchored=(), close=None, manifest=None)
    assert when.lines(unsealed) == {"made": "not before 2026-11-25 19:20:03 UTC; not after: not known"}


def test_windows_that_contradict_are_called_so() -> None:
    wrong = made_windows(3, close=START - 100)
    assert "a contradiction" in when.lines(wrong)["made"]
    assert "contradict each other" in when.paragraphs(wrong)[0]


def test_a_manifest_counts_only_if_sealed_before_slot_0() -> None:
    assert "12 seconds before slot 0's round" in when.paragraphs(made_windows(3))[1]
    for sealed in (START, START + 5):
        said = when.paragraphs(made_windows(3, manifest=sealed))[1]
        assert "could have been fitted" in said and "was not fitted" not in said
    assert "not known to have been sealed" in when.paragraphs(made_windows(3, manifest=None))[1]


def test_segments_and_anchors_are_counted() -> None:
    windows = made_windows(10, dependent=(0, 9), anchored=range(9))
    few = replace(windows, anchors=(*windows.anchors, AnchorRow(size=14, not_after=None, by=("other",))))
    said = " ".join(when.paragraphs(few))
    assert "Of 10 segments told here, 2 are known to depend on a seed" in said
    assert "9 are known to have been sealed" in said
    assert "10 slots, each 30 seconds long" in said
    assert "Of 10 anchored checkpoints told here, 9 have as many anchors" in said
    assert "witness.example, tsa.example, whom the verifier chose" in said and "other" not in said
    assert "off the plan's cadence" not in said


def test_gaps_are_told_with_what_they_are_worth() -> None:
    assert "No segment is off the plan's cadence" in " ".join(when.paragraphs(made_windows(5)))
    two = made_windows(10, gaps=(gap(1, 1), gap(4, 6, recorded=False, seeds=9)))
    assert when.lines(two)["gaps"] == "2; worth 5.0 bits together; 1 not recorded by the log"
    assert when.gaps_table(two).first == [("1", "yes", "5", "2.0"), ("4 to 6", "no", "9", "3.0")]
    lost = made_windows(10, gaps=(gap(1, 1), gap(9, 9, seeds=None)), gaps_left_out=3)
    assert when.lines(lost)["gaps"] == (
        "5, of which 2 are told; 1 never anchored, so that nothing bounds what they are worth; "
        "recorded by the log"
    )
    assert when.gaps_table(lost).first[1] == ("9", "yes", "never anchored", "not bounded")
    assert when.gaps_table(lost).left_out == 3


def test_no_cadence_is_judged_where_nothing_is_anchored() -> None:
    windows = made_windows(3, anchored=(), close=None, manifest=None, gaps=(gap(0, 2, seeds=None),))
    assert "gaps" not in when.lines(windows)
    assert when.gaps_table(windows).first == ()
    assert "cadence" not in " ".join(when.paragraphs(windows))
    assert "No checkpoint is anchored." in when.paragraphs(windows)


def test_tables_and_names_are_bounded() -> None:
    names = tuple(f"witness {i}" for i in range(100))
    windows = made_windows(2000, by=names, gaps=tuple(gap(i, i) for i in range(2000)))
    for table in (when.anchors_table(windows), when.gaps_table(windows)):
        assert (len(table.first), table.left_out, len(table.last)) == (20, 1960, 20)
    assert when.anchors_table(windows).last[-1][0] == "2,003"
    assert when.named(names).endswith("witness 7 and 92 more")
    assert "and 92 more" in when.paragraphs(windows)[-1]
    assert when.named(("a", "a", "b")) == "a, b"


def test_nothing_known_is_a_sentence() -> None:
    (said,) = when.paragraphs(Windows())
    assert said.startswith("This verification found nothing that says when the run was made")
    assert when.anchors_table(Windows()).first == []


def test_the_pace_is_what_the_window_leaves_room_for() -> None:
    told = " ".join(when.paragraphs(made_windows(10)))
    assert "The pace: 50 steps within 5 minutes and 50 seconds, at least one in 7.0 seconds" in told
    assert "At most 1 segment drew from one slot." in told
    fast = " ".join(when.paragraphs(made_windows(10, steps=70_000)))
    assert "70,000 steps" in fast
    assert "at least 199.9 a second" in fast
    for windows in (made_windows(10, steps=0), made_windows(10, dependent=()), made_windows(3, close=1.0)):
        assert "The pace" not in " ".join(when.paragraphs(windows))
