"""Calibration from bundles to the signed file, on errors that a test makes up."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from bundles import KEY, record_run
from elsewhere import CALIBRATOR
from gradseal.cli.main import gradseal
from gradseal.errors import Error, KeyFileError
from gradseal.program.native import current_environment
from gradseal.report.calibration import calibration_lines, variants
from gradseal.study import calibrating
from gradseal.study.calibrating import Wanted, calibrate, open_source
from gradseal.study.noise.measure import Measured, Measurement
from gradseal.study.noise.numerics import Variant
from gradseal.verify.calibration import read_calibration
from gradseal.verify.distances import Distances

NAMES = ("order", "float64")
Errors = Callable[[int, str, int], float]


def made_up(
    error: Errors, *, equal: bool = True, every: int = 2, state: Errors = lambda *_: 0.0
) -> Callable[..., Measurement]:
    """In place of `measure`: updates of length 2, errors as a function of segment, variant and steps."""

    def measure(url: str, *, segments: Sequence[int], family: str, progress: Any) -> Measurement:
        marks = [(segment, step) for segment in segments for step in range(1, every + 1)]
        measured = [
            Measured(
                segment=segment,
                variant=name,
                step=step,
                error=Distances(l2=2 * error(segment, name, step)),
                update=Distances(l2=2.0),
                state=state(segment, name, step) if step == every else None,
                state_group="exp_avg" if step == every and state(segment, name, step) else "",
            )
            for segment, step in marks
            for name in NAMES
        ]
        return Measurement(
            base=current_environment(),
            equal=len(segments) if equal else 0,
            of=len(segments),
            updates={mark: Distances(l2=2.0) for mark in marks},
            measured=tuple(measured),
            variants=tuple(Variant(name=name) for name in NAMES if any(m.error.l2 for m in measured)),
            left_out={"cuda": "there is no CUDA device"},
        )

    return measure


def slight(segment: int, name: str, step: int) -> float:
    """Grows with the square root of the steps; the largest of a segment is 1e-6 times its number and 1."""
    return (segment + 1) * 1e-6 * math.sqrt(step / 2) * (1.0 if name == "order" else 0.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 segments of two steps."""
    path = tmp_path_factory.mktemp("calibrate") / "run"
    record_run(path, steps=60, every=2)
    return path


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrating, "measure", made_up(slight))


def test_the_tolerance_is_the_margin_times_the_largest_score_of_too_few(run: Path) -> None:
    made = calibrate([open_source(str(run))], Wanted(margin=3.0))
    own = made.calibration
    assert own.tau == pytest.approx(3 * 30e-6)
    assert (own.segments, own.variants, own.every, own.batch_size) == (30, NAMES, 2, 16)
    assert own.false_rejection == pytest.approx(1 - 0.05 ** (1 / 30))
    assert own.floor == pytest.approx(2.0)
    assert own.floor < 2.0
    assert own.exponent == pytest.approx(0.5)
    assert own.coefficient == pytest.approx(own.tau / 3 / 30 * 15.5 * 0.75 / math.sqrt(2), rel=0.2)
    assert "too few" in "\n".join(calibration_lines(made))


def test_the_rest_of_a_state_has_a_tolerance_of_its_own(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = calibrate([open_source(str(run))], Wanted(margin=3.0))
    assert without.calibration.state_tau == 0.0
    assert "state tau  0: nothing else in a state differed" in "\n".join(calibration_lines(without))
    monkeypatch.setattr(
        calibrating, "measure", made_up(slight, state=lambda segment, name, _: (30 - segment) * 1e-5)
    )
    made = calibrate([open_source(str(run))], Wanted(margin=3.0))
    assert made.calibration.state_tau == pytest.approx(3 * 30e-5)
    assert made.calibration.tau == without.calibration.tau
    assert (made.state_bound.rank, made.state_bound.rate) == (made.bound.rank, made.bound.rate)
    lines = "\n".join(calibration_lines(made))
    for part in ("state tau  0.0009: 3 times the largest score", "at most twice as many", "exp_avg"):
        assert part in lines


def test_a_group_that_nothing_bounds_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def state(segment: int, name: str, step: int) -> float:
        return math.inf if (segment, name) == (7, "float64") else 1e-6

    monkeypatch.setattr(calibrating, "measure", made_up(slight, state=state))
    with pytest.raises(Error, match=r"bounds exp_avg: under float64 .* in segment 7") as raised:
        calibrate([open_source(str(run))], Wanted())
    assert "exact arithmetic" in raised.value.advice
    some = calibrate([open_source(str(run))], Wanted(false_rejection=0.3, segments=30))
    assert some.calibration.state_tau == 1e-6
    assert "in 1 segments nothing bounds exp_avg" in "\n".join(calibration_lines(some))


def test_with_enough_scores_the_rate_is_that_asked_for(run: Path) -> None:
    made = calibrate([open_source(str(run))], Wanted(false_rejection=0.2))
    assert (made.bound.rank, made.bound.scores) == (14, 14)
    assert made.calibration.false_rejection <= 0.2
    assert "too few" not in "\n".join(calibration_lines(made))


def test_the_draw_is_the_seeds_and_uniform(run: Path) -> None:
    source = open_source(str(run))

    def drawn(seed: int) -> set[int]:
        made = calibrate([source], Wanted(segments=10, seed=seed))
        return {segment for segment, _ in made.measurements[0].updates}

    assert drawn(1) == drawn(1) != drawn(2)
    counts = [sum(segment in drawn(seed) for seed in range(24)) for segment in range(30)]
    assert min(counts) > 1
    assert max(counts) < 17


def test_segments_of_several_bundles_count_together(run: Path, tmp_path: Path) -> None:
    record_run(tmp_path / "other", steps=60, every=2, seed=8)
    made = calibrate([open_source(str(run)), open_source(str(tmp_path / "other"))], Wanted(segments=60))
    assert made.calibration.segments == 60
    assert len(made.calibration.runs) == 2
    assert made.bound.value == pytest.approx(30e-6 if made.bound.rank > 58 else 29e-6, rel=0.05)


def test_one_bundle_does_not_count_twice(run: Path) -> None:
    with pytest.raises(Error, match="given twice"):
        calibrate([open_source(str(run))] * 2, Wanted())


def test_bundles_that_differ_are_refused(run: Path, tmp_path: Path) -> None:
    record_run(tmp_path / "other", steps=60, every=3)
    with pytest.raises(Error, match="another number of steps in a segment"):
        calibrate([open_source(str(run)), open_source(str(tmp_path / "other"))], Wanted())


def test_segments_that_moved_nothing_are_not_drawn(run: Path) -> None:
    some = replace(open_source(str(run)), moving=(1, 2, 4, 5, 7))
    made = calibrate([some], Wanted())
    assert {segment for segment, _ in made.measurements[0].updates} == {1, 2, 4, 5, 7}
    assert made.still == 25


def test_a_run_that_moved_nothing_has_nothing_to_measure(tmp_path: Path) -> None:
    record_run(tmp_path / "run", optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.0))
    source = open_source(str(tmp_path / "run"))
    assert source.moving == ()
    with pytest.raises(Error, match="0 segments that moved"):
        calibrate([source], Wanted())


def test_too_few_segments_are_refused(tmp_path: Path) -> None:
    record_run(tmp_path / "run", steps=4, every=1)
    with pytest.raises(Error, match="4 segments that moved") as raised:
        calibrate([open_source(str(tmp_path / "run"))], Wanted())
    assert "measure 5 or more, better 59" in raised.value.advice


def test_an_open_bundle_is_refused(tmp_path: Path) -> None:
    record_run(tmp_path / "run", stop_after=4)
    with pytest.raises(Error, match="not whole"):
        open_source(str(tmp_path / "run"))


def test_exact_arithmetic_is_refused(tmp_path: Path) -> None:
    record_run(tmp_path / "run", arithmetic="exact", steps=2, every=1)
    with pytest.raises(Error, match="nothing to calibrate"):
        open_source(str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (lambda *_: 0.0, "no variant of numerics gave other bits"),
        (lambda *_: math.nan, "no tolerance bounds"),
    ],
)
def test_errors_without_bound_are_refused(
    run: Path, monkeypatch: pytest.MonkeyPatch, error: Errors, said: str
) -> None:
    monkeypatch.setattr(calibrating, "measure", made_up(error))
    with pytest.raises(Error, match=said):
        calibrate([open_source(str(run))], Wanted())


def test_a_margin_below_1_is_refused(run: Path) -> None:
    with pytest.raises(Error, match="below 1"):
        calibrate([open_source(str(run))], Wanted(margin=0.5))


def test_the_table_tells_medians_by_third(run: Path) -> None:
    order, float64 = variants(calibrate([open_source(str(run))], Wanted()))
    assert order["median"] == pytest.approx(15.5e-6)
    assert order["largest"] == pytest.approx(30e-6)
    assert order["thirds"] == pytest.approx([5.5e-6, 15.5e-6, 25.5e-6])
    assert float64["largest"] == pytest.approx(15e-6)


def test_a_baseline_without_the_sealed_bits_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrating, "measure", made_up(slight, equal=False))
    lines = "\n".join(calibration_lines(calibrate([open_source(str(run))], Wanted())))
    assert "0 of 30 replays had the sealed bits" in lines
    assert "errors are against our own replay" in lines


def test_the_command_writes_a_signed_file_and_prints_json(run: Path, tmp_path: Path) -> None:
    (tmp_path / "k.key").write_text(CALIBRATOR.encode())
    out = tmp_path / "c.txt"
    arguments = [str(run), "--out", str(out), "--key", str(tmp_path / "k.key"), "--json"]
    ended = CliRunner().invoke(gradseal, ["calibrate", *arguments], catch_exceptions=False)
    assert ended.exit_code == 0
    own = read_calibration(out.read_bytes(), keys=[CALIBRATOR.verification_key], where="c.txt")
    told = json.loads(ended.stdout)
    assert told["calibration"]["tau"] == own.tau
    assert told["segments"][0]["numbers"] == list(range(30))
    assert told["left_out"] == {"cuda": "there is no CUDA device"}
    with pytest.raises(KeyFileError):
        read_calibration(out.read_bytes(), keys=[KEY.verification_key], where="c.txt")
