"""The rest of a state against the sealed one: by groups of floating point, all else to the bit."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from gradseal.verify.executors import WorkerDied, _answer, read_state_error
from gradseal.verify.state_error import StateError, length, state_error
from gradseal.verify.state_groups import groups_of

State = dict[str, torch.Tensor]
MEAN, SQUARE, NORM, SEEN = (
    "optimizer/a.w/exp_avg",
    "optimizer/a.w/exp_avg_sq",
    "buffers/norm.mean",
    "buffers/norm.seen",
)


def state(**changed: Any) -> State:
    """One whose groups moved by 5, 1 and 2 from `BEFORE`."""
    own = {
        "parameters/a.w": torch.tensor([1.0]),
        NORM: torch.tensor([2.0, 0.0], dtype=torch.float64),
        SEEN: torch.tensor(3),
        MEAN: torch.tensor([3.0]),
        "optimizer/b/exp_avg": torch.tensor([4.0]),
        SQUARE: torch.tensor([1.0]),
    }
    return {**own, **changed}


BEFORE: State = {name: torch.zeros_like(tensor) for name, tensor in state().items()}


def test_groups_are_buffers_and_an_optimizers_keys() -> None:
    assert groups_of(state()) == {
        "buffers": [NORM, SEEN],
        "exp_avg": [MEAN, "optimizer/b/exp_avg"],
        "exp_avg_sq": [SQUARE],
    }


def test_the_largest_share_of_a_groups_own_change_is_told() -> None:
    other = state() | {
        MEAN: torch.tensor([3.5]),
        SQUARE: torch.tensor([0.75]),
        NORM: torch.tensor([2.0, 0.0]),
    }
    found = state_error(state() | {NORM: torch.tensor([2.0, 0.0])}, other, BEFORE)
    assert found.group == "exp_avg_sq"
    assert found.ratio == pytest.approx(0.25 / 0.75)
    own = state() | {MEAN: torch.tensor([3.5])}
    assert state_error(own, state(), BEFORE) == StateError(ratio=0.1, group="exp_avg")


def test_parameters_do_not_count_and_equal_bits_are_no_error() -> None:
    nothing = {NORM: torch.tensor([math.nan, 0.0], dtype=torch.float64)}
    own = state() | nothing | {"parameters/a.w": torch.tensor([9.0])}
    assert state_error(own, state() | nothing, BEFORE) == StateError()


@pytest.mark.parametrize(
    ("own", "other", "before"),
    [
        (1.0, 0.0, 0.0),  # did not move, and the replay did
        (math.nan, 1.0, 0.0),
        (1.0, math.nan, 0.0),
        (1.0, math.inf, 0.0),
        (math.inf, 1.0, 0.0),
        (1.0, 2.0, math.nan),
        (1.0, 2.0, -math.inf),
    ],
)
def test_what_nothing_bounds_is_infinite(own: float, other: float, before: float) -> None:
    replayed, sealed = (state() | {SQUARE: torch.tensor([value])} for value in (own, other))
    found = state_error(replayed, sealed, BEFORE | {SQUARE: torch.tensor([before])})
    assert found == StateError(ratio=math.inf, group="exp_avg_sq")


def test_what_is_no_number_in_one_tensor_is_none_beside_equal_ones() -> None:
    """A group's maximum must not lose it, wherever it stands."""
    a, b = (
        {"x": torch.zeros(2), "y": torch.zeros(2)},
        {"x": torch.zeros(2), "y": torch.tensor([0.0, math.nan])},
    )
    assert math.isnan(length(a, b, ["x", "y"]))
    assert math.isnan(length(a, b, ["y", "x"]))


def test_a_counter_has_to_be_equal() -> None:
    found = state_error(state(), state() | {SEEN: torch.tensor(4)}, BEFORE)
    assert found == StateError(ratio=math.inf, group=SEEN)


def test_small_and_large_numbers_neither_vanish_nor_overflow() -> None:
    def scaled(by: float) -> float:
        own, other = ({NORM: torch.tensor([x * by], dtype=torch.float64)} for x in (1.0, 2.0))
        return state_error(own, other, {NORM: torch.zeros(1, dtype=torch.float64)}).ratio

    assert scaled(1e-200) == scaled(1e200) == 0.5


def answer(**changed: Any) -> bytes:
    distances = dict.fromkeys(("l1", "l2", "linf", "cosine"), 0.0)
    said = {"kind": "segment", "segment": 0, "equal": False, "differing": [], "moved": [], "independent": []}
    said |= {"error": distances, "update": distances, "seconds": 1.0, "dependence": None}
    said |= {"least_dependent": "", "state": 0.0, "state_group": ""}
    return json.dumps({**said, **changed}).encode()


def test_what_a_worker_says_of_it_is_read() -> None:
    found: Any = _answer(answer(state=math.inf, state_group="buffers"))
    assert (found.state, found.state_group) == (math.inf, "buffers")
    assert read_state_error(0.0, "") == (0.0, "")


@pytest.mark.parametrize(
    ("ratio", "group"),
    [
        (-1.0, "buffers"),
        (math.nan, "buffers"),
        (1, "buffers"),
        ("1", "buffers"),
        (None, ""),
        (1.0, ""),
        (0.0, "buffers"),
        (1.0, 1),
    ],
)
def test_what_is_no_such_error_ends_the_worker(ratio: Any, group: Any) -> None:
    with pytest.raises(WorkerDied, match="cannot be read"):
        _answer(answer(state=ratio, state_group=group))
