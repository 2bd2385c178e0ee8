"""The table of a schedule: reading it strictly, and counting what could hide in it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gradseal.errors import CorruptBlob, MalformedBundle
from gradseal.program.schedule import MAX_TABLE_BYTES, Column, Schedule, Scheduled
from gradseal.proof.fields import Fields

GROUPS = [("lr", "momentum"), ("lr",)]
DIGEST = "ab" * 32


def said(**changes: Any) -> dict[str, Any]:
    columns: list[Any] = [{"field": "lr", "groups": [0, 1]}, {"field": "momentum", "groups": [0]}]
    return {"columns": columns, "table": DIGEST} | changes


def column(field: str = "lr", groups: Any = (0,)) -> dict[str, Any]:
    return {"field": field, "groups": list(groups)}


def read(value: dict[str, Any]) -> Scheduled:
    return Scheduled.from_fields(Fields(value, "program", "schedule"), GROUPS)


def schedule(values: Any) -> Schedule:
    table = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    columns = tuple(Column(field=f"f{i}", groups=(0,)) for i in range(table.shape[1]))
    return Schedule(columns=columns, table=table)


def test_what_a_program_says_is_read_back() -> None:
    scheduled = read(said())
    assert scheduled.to_json() == said()
    assert scheduled.columns == (Column(field="lr", groups=(0, 1)), Column(field="momentum", groups=(0,)))


WRONG: dict[str, Any] = {
    "no columns": said(columns=[]),
    "no groups": said(columns=[column(groups=[])]),
    "groups that fall": said(columns=[column(groups=[1, 0])]),
    "a group twice": said(columns=[column(groups=[0, 0])]),
    "a group that is no number": said(columns=[column(groups=["0"])]),
    "a group that is a truth value": said(columns=[column(groups=[True])]),
    "a group that the optimizer has not": said(columns=[column(groups=[2])]),
    "what the group has not": said(columns=[column("momentum", [1])]),
    "one hyperparameter in two columns": said(columns=[column(groups=[0, 1]), column(groups=[1])]),
    "a digest that is none": said(table="ab"),
    "a field too many": said(rate=1),
}


@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG)
def test_what_is_malformed(value: dict[str, Any]) -> None:
    with pytest.raises(MalformedBundle, match=r"^program: schedule"):
        read(value)


def test_a_table_is_read_back() -> None:
    scheduled = read(said())
    data = np.array([[0.1, 0.9], [0.05, 0.95]]).astype("<f8").tobytes()
    own = Schedule.from_table(scheduled, data, 2, where="table")
    assert own.table_file() == data
    assert own.at(1) == {(0, "lr"): 0.05, (1, "lr"): 0.05, (0, "momentum"): 0.95}


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_a_table_of_another_size_is_corrupt(size: int) -> None:
    with pytest.raises(CorruptBlob, match="rows"):
        Schedule.from_table(read(said()), bytes(size), 1, where="table")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_table_holds_finite_numbers(value: float) -> None:
    data = np.array([0.1, value]).astype("<f8").tobytes()
    with pytest.raises(MalformedBundle, match="finite"):
        Schedule.from_table(read(said()), data, 1, where="table")


def test_a_table_is_bounded_before_it_is_read() -> None:
    scheduled = read(said())
    assert scheduled.table_bytes(1000) == 16_000
    with pytest.raises(MalformedBundle, match="over the limit"):
        scheduled.table_bytes(MAX_TABLE_BYTES // 16 + 1)


STEPS = np.arange(1000)
SMOOTH: dict[str, Any] = {
    "constant": np.full(1000, 0.1),
    "linear": 0.1 * (1 - STEPS / 1000),
    "cosine": 0.05 * (1 + np.cos(np.pi * STEPS / 1000)),
    "exponential": 0.1 * 0.999**STEPS,
    "by epoch": 0.05 * (1 + np.cos(np.pi * (STEPS // 50) / 20)),
    "in stairs": 0.1 * 0.1 ** (STEPS // 250),
}


@pytest.mark.parametrize("values", SMOOTH.values(), ids=SMOOTH)
def test_a_smooth_schedule_hides_next_to_nothing(values: Any) -> None:
    assert schedule(values).free_bytes() <= 64


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_an_arbitrary_table_counts_about_three_bytes_a_value(scale: float) -> None:
    values = np.random.default_rng(1).random(1000) * scale
    assert 2800 <= schedule(values).free_bytes() <= 3800


def test_single_precision_noise_on_a_smooth_schedule_counts() -> None:
    """What is hidden in the low bits of rates would still steer weights of single precision."""
    noise = np.random.default_rng(2).integers(0, 1 << 12, 1000) * 2.0**-24
    assert schedule(SMOOTH["linear"] * (1 + noise)).free_bytes() >= 1000


def test_the_lengths_of_equal_runs_count() -> None:
    lengths = np.random.default_rng(3).integers(1, 200, 100)
    values = np.repeat(np.where(np.arange(100) % 2, 0.1, 0.2), lengths)
    assert schedule(values).free_bytes() >= 100 * 7 / 8


def test_every_column_counts() -> None:
    values = np.random.default_rng(4).random((100, 2))
    one = schedule(values[:, 0]).free_bytes() + schedule(values[:, 1]).free_bytes()
    assert schedule(values).free_bytes() == one
