"""Schedules: read strictly, evaluated, made of values, and what could hide in them counted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradseal.errors import MalformedBundle
from gradseal.program.curves import TOLERANCE, pieces_of
from gradseal.program.optimizers import SGD, SGDGroup
from gradseal.program.schedule import MAX_PIECES, MAX_VALUES, Column, Piece, Schedule
from gradseal.proof.canonical import float_to_bits
from gradseal.proof.fields import Fields

GROUPS = [("lr", "momentum"), ("lr",)]
ONE, HALF = float_to_bits(1.0), float_to_bits(0.5)
SMALLEST = 5e-324


def said(**changes: Any) -> dict[str, Any]:
    return {"columns": [column(groups=[0, 1]), column("momentum", [0])], "every": 3} | changes


def column(
    field: str = "lr", groups: Any = (0,), pieces: Any = ((2, [ONE]), (1, [HALF, ONE]))
) -> dict[str, Any]:
    return {"field": field, "groups": list(groups), "pieces": [list(p) for p in pieces]}


def read(value: dict[str, Any]) -> Schedule:
    return Schedule.from_fields(Fields(value, "program", "schedule"), GROUPS)


def schedule(*columns: Any) -> Schedule:
    """One that has these values, a list for each column."""
    return Schedule(
        every=1,
        columns=tuple(
            Column(field=f"f{i}", groups=(i,), pieces=pieces_of(np.asarray(values, dtype=np.float64)))
            for i, values in enumerate(columns)
        ),
    )


def values_of(own: Column) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.concatenate(list(own.values()))


def test_what_a_program_says_is_read_back() -> None:
    own = read(said())
    assert own.to_json() == said()
    pieces = (Piece(length=2, coefficients=(1.0,)), Piece(length=1, coefficients=(0.5, 1.0)))
    assert own.columns == (
        Column(field="lr", groups=(0, 1), pieces=pieces),
        Column(field="momentum", groups=(0,), pieces=pieces),
    )


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
    "no pieces": said(columns=[column(pieces=[])]),
    "a piece of no value": said(columns=[column(pieces=[(0, [ONE])])]),
    "a piece too long": said(columns=[column(pieces=[(MAX_VALUES + 1, [ONE])])]),
    "a length that is a truth value": said(columns=[column(pieces=[(True, [ONE])])]),
    "a piece without coefficients": said(columns=[column(pieces=[(1, [])])]),
    "nine coefficients": said(columns=[column(pieces=[(1, [ONE] * 9)])]),
    "a coefficient that is a number": said(columns=[column(pieces=[(1, [1])])]),
    "a coefficient that is infinite": said(columns=[column(pieces=[(1, [float_to_bits(math.inf)])])]),
    "a piece with more": said(columns=[column(pieces=[(1, [ONE], 0)])]),
    "values that hold for no step": said(every=0),
    "pieces over the limit": said(
        columns=[column(pieces=[(1, [ONE])] * (MAX_PIECES // 2 + 1), groups=[g]) for g in (0, 1)]
    ),
    "a field too many": said(rate=1),
}


@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG)
def test_what_is_malformed(value: dict[str, Any]) -> None:
    with pytest.raises(MalformedBundle, match=r"^program: schedule"):
        read(value)


def test_a_value_is_the_written_polynomial() -> None:
    piece = Piece(length=4, coefficients=(0.3, -0.7, 0.11))
    for i in range(4):
        t = (2 * i - 4) / 4
        assert piece.at(i) == (0.11 * t + -0.7) * t + 0.3


@given(
    length=st.integers(1, 200),
    coefficients=st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=8),
)
def test_one_value_and_all_have_the_same_bits(length: int, coefficients: list[float]) -> None:
    piece = Piece(length=length, coefficients=tuple(coefficients))
    with np.errstate(all="ignore"):
        together = piece.values(0, length)
    assert together.tobytes() == np.array([piece.at(i) for i in range(length)]).tobytes()


def test_a_step_has_the_value_that_holds_there() -> None:
    own = read(said())
    rates = [own.at(step)[(1, "lr")] for step in range(9)]
    assert rates == [1.0] * 6 + [0.5 - 1.0] * 3
    assert own.at(0) == {(0, "lr"): 1.0, (1, "lr"): 1.0, (0, "momentum"): 1.0}


SGD_OF_TWO = SGD(
    groups=(SGDGroup(parameters=("a",), lr=1.0, momentum=0.9), SGDGroup(parameters=("b",), lr=1.0))
)


def in_optimizer(*pieces: Piece, field: str = "momentum", group: int = 0, every: int = 1) -> Schedule:
    return Schedule(every=every, columns=(Column(field=field, groups=(group,), pieces=pieces),))


def test_a_schedule_that_fits_run_and_optimizer() -> None:
    in_optimizer(Piece(length=5, coefficients=(0.5, 0.25))).check(SGD_OF_TWO, 5, where="s")
    in_optimizer(Piece(length=3, coefficients=(0.5,)), every=2).check(SGD_OF_TWO, 5, where="s")


@pytest.mark.parametrize(
    "wrong",
    [
        in_optimizer(Piece(length=4, coefficients=(0.5,))),
        in_optimizer(Piece(length=6, coefficients=(0.5,))),
        in_optimizer(Piece(length=5, coefficients=(0.5,)), every=2),
        in_optimizer(Piece(length=5, coefficients=(0.5, 0.75))),
        in_optimizer(Piece(length=4, coefficients=(0.5,)), Piece(length=1, coefficients=(0.0,))),
        in_optimizer(Piece(length=5, coefficients=(0.5,)), group=1),
        in_optimizer(Piece(length=5, coefficients=(0.0, 1e308, 1e308, 1e308)), field="lr"),
    ],
    ids=["short", "long", "by another cadence", "negative", "momentum goes", "momentum comes", "infinite"],
)
def test_one_that_does_not(wrong: Schedule) -> None:
    with pytest.raises(MalformedBundle, match=r"^s: columns\[0\]"):
        wrong.check(SGD_OF_TWO, 5, where="s")


def test_a_schedule_is_bounded_before_it_is_evaluated() -> None:
    long = in_optimizer(*[Piece(length=MAX_VALUES, coefficients=(0.5,))] * 2)
    with pytest.raises(MalformedBundle, match="more than"):
        long.check(SGD_OF_TWO, 2 * MAX_VALUES, where="s")


STEPS = np.arange(1000)
SMOOTH: dict[str, Any] = {
    "constant": np.full(1000, 0.1),
    "linear": 0.1 * (1 - STEPS / 1000),
    "cosine": 0.05 * (1 + np.cos(np.pi * STEPS / 1000)),
    "a long cosine": 0.05 * (1 + np.cos(np.pi * np.arange(50_000) / 50_000)),
    "exponential": 0.1 * 0.999**STEPS,
    "in stairs": 0.1 * 0.1 ** (STEPS // 250),
}


@pytest.mark.parametrize("values", SMOOTH.values(), ids=SMOOTH)
def test_a_smooth_schedule_takes_few_numbers(values: Any) -> None:
    own = schedule(values)
    assert own.free_bytes() <= 40
    assert np.abs(values_of(own.columns[0]) - values).max() <= TOLERANCE * np.abs(values).max()


def test_warm_up_and_decay() -> None:
    values = np.minimum((STEPS + 1) ** -0.5, (STEPS + 1) * 100**-1.5)
    assert schedule(values).free_bytes() <= 150


def test_equal_values_are_kept_to_the_bit() -> None:
    values = np.repeat([0.1, 1 / 3, 0.0, 1e-9], 50)
    assert np.array_equal(values_of(schedule(values).columns[0]), values)


@given(values=st.lists(st.floats(0, 1e6) | st.sampled_from([0.0, SMALLEST, 0.1]), min_size=1, max_size=60))
def test_any_values_are_met_and_never_turn_negative(values: list[float]) -> None:
    wanted = np.array(values)
    pieces = pieces_of(wanted)
    first = 0
    for piece in pieces:
        own, there = piece.values(0, piece.length), wanted[first : first + piece.length]
        assert np.abs(own - there).max() <= TOLERANCE * there.max()
        assert (own >= 0).all()
        first += piece.length
    assert first == len(values)


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12, 1e-310])
def test_arbitrary_values_count_about_four_bytes_each(scale: float) -> None:
    values = np.random.default_rng(1).random(1000) * scale
    assert schedule(values).free_bytes() >= 3900


def test_what_is_below_the_tolerance_is_not_kept() -> None:
    """So that it carries nothing, rather than being carried and not counted."""
    noise = np.random.default_rng(2).random(1000) * 2.0**-24
    assert schedule(1 + noise).free_bytes() <= 40


def test_the_lengths_of_equal_runs_count() -> None:
    lengths = np.random.default_rng(3).integers(1, 200, 100)
    values = np.repeat(np.where(np.arange(100) % 2, 0.1, 0.2), lengths)
    assert schedule(values).free_bytes() >= 100 * 7 / 8


def test_what_a_schedule_holds_is_counted_number_by_number() -> None:
    shared = Piece(length=300, coefficients=(0.1, 0.5))  # 8 bytes and 4
    own = Schedule(
        every=1,  # 1 byte
        columns=(
            Column(field="lr", groups=(0, 4), pieces=(shared, Piece(length=7, coefficients=(0.0,)))),
            Column(field="lr", groups=(2,), pieces=(shared, shared)),
        ),
    )
    # Lengths of 2 bytes and 1; for each of 4 pieces 1 + 2 bits of choice, and 5 + 3 for the groups.
    assert own.free_bytes() == 8 + 4 + 1 + 2 + 1 + (4 * 3 + 8 + 7) // 8
