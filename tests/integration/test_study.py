"""`gradseal attack` and `gradseal study`, as a user calls them, in runs of a few steps."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gradseal.attacks.attack import Setting
from gradseal.cli.attack import command as attack
from gradseal.cli.main import gradseal
from gradseal.report.matrix import matrix_markdown, matrix_page, square
from gradseal.study.matrix.table import Cell, Matrix, Plan, run_matrix
from gradseal.study.proportions import proportion_bounds

SMALL = ["--steps", "20", "--every", "5", "--batch-size", "16"]
SETTING = Setting(steps=20, every=5, batch_size=16)


def called(*arguments: str | Path) -> Result:
    return CliRunner().invoke(gradseal, [str(a) for a in arguments], catch_exceptions=True)


def test_attacks_are_listed_with_what_they_do() -> None:
    listed = called("attack", "--list").output
    assert "infinitesimal update\n" in listed
    assert len(listed.splitlines()) >= 60


def test_an_attack_is_judged_and_its_bundle_kept(tmp_path: Path) -> None:
    ended = called("attack", "head start, ruled", *SMALL, "--out", tmp_path / "forged", "--json")
    assert ended.exit_code == 0, ended.output
    case = json.loads(ended.stdout)
    assert {one["policy"]: one["outcome"] for one in case["judged"]}["full"] == "rejected"
    assert (tmp_path / "forged" / "checkpoint").is_file()
    assert case["reference"] > 0
    assert case["key"].startswith("head-start,-ruled.example+")
    again = called("attack", "head start, ruled", *SMALL, "--out", tmp_path / "forged")
    assert "already exists" in str(again.exception)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "name an attack, or use --list"), (["nothing"], "no attack is called 'nothing'")],
)
def test_a_wrong_call_says_what_to_do(arguments: list[str], said: str) -> None:
    ended = called("attack", *arguments)
    assert ended.exit_code
    assert said in ended.output + str(ended.exception)
    assert attack.name == "attack"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


PLAN = Plan(
    attacks=("honest", "jump in mid-run"),
    policies=("jia2021", "full"),
    arithmetics=("native",),
    seeds=1,
    setting=SETTING,
)


@pytest.fixture(scope="module")
def matrix(directory: Path) -> Matrix:
    return run_matrix(PLAN, directory)


def test_every_attack_has_a_row_and_every_policy_a_column(matrix: Matrix) -> None:
    assert [(row.attack, row.arithmetic, row.seeds) for row in matrix.rows] == [
        ("honest", "native", 1),
        ("jump in mid-run", "native", 1),
    ]
    honest, jump = matrix.rows
    assert (honest.cells["full"].passed, jump.cells["full"].passed) == (1, 0)
    assert jump.cells["full"].check == "replay"
    assert honest.distance is None
    assert jump.distance is not None
    assert matrix.failed == ()


def test_a_study_goes_on_where_it_was(matrix: Matrix, directory: Path) -> None:
    (directory / "cases" / next(p.name for p in (directory / "cases").glob("matrix-jump-*"))).unlink()
    before = {p: p.stat().st_mtime_ns for p in (directory / "cases").iterdir()}
    told: list[tuple[int, int]] = []
    again = run_matrix(PLAN, directory, progress=lambda what, done, total: told.append((done, total)))
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert [row.cells for row in again.rows] == [row.cells for row in matrix.rows]
    assert told[-1] == (2, 2)


def test_another_setting_has_cases_of_its_own(directory: Path) -> None:
    other = Plan(attacks=("honest",), setting=Setting(steps=40))
    assert other.jobs()[0].path(directory) != PLAN.jobs()[0].path(directory)


def test_the_matrix_survives_json(matrix: Matrix) -> None:
    assert Matrix.from_json(json.loads(json.dumps(matrix.to_json()))) == matrix


def test_an_attack_that_fails_is_said_and_its_cells_lack_a_seed(tmp_path: Path) -> None:
    tiny = Plan(
        attacks=("honest",),
        policies=("full",),
        arithmetics=("native",),
        seeds=1,
        setting=Setting(steps=20, every=5, batch_size=5000),
    )
    failed = run_matrix(tiny, tmp_path)
    assert failed.rows == ()
    assert failed.failed == (
        "matrix honest native 101: a batch of 5000 samples, but the data has 1500\n"
        "  where: batch_size\n  what to do: use at most 1500",
    )


def test_the_page_and_the_tables_say_the_same(matrix: Matrix) -> None:
    page = matrix_page(matrix, repeat="gradseal study <b>", made=datetime(2026, 1, 1, tzinfo=UTC))
    assert "gradseal study &lt;b&gt;" in page
    assert page.count('<td class="passed"') == sum(
        cell.passed == cell.of for row in matrix.rows for cell in row.cells.values()
    )
    text = matrix_markdown(matrix)
    assert "| jump in mid-run | native |" in text
    assert "`full`" in text


def test_a_cell_says_what_decided() -> None:
    cell = Cell(passed=2, of=5, low=0.05, high=0.85, outcomes={}, check="replay", said="", replayed=3)
    assert square(cell).text == "passed 2/5, else replay"
    assert square(cell).kind == "mixed"


def test_the_interval_of_a_rate_is_exact() -> None:
    low, high = proportion_bounds(0, 5)
    assert low == 0.0
    assert high == pytest.approx(1 - 0.025 ** (1 / 5))
    assert proportion_bounds(0, 0) == (0.0, 1.0)
