"""The permutation test on made-up numbers, and which hidden units a layout suggests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from gradseal.program.tensors import TensorSpec
from gradseal.verify.pull import NotApplicable, align
from gradseal.verify.symmetry import (
    MOST_GROUPS,
    Axis,
    Group,
    candidates,
    groups_from_json,
    groups_to_json,
)

UNITS = 8
GROUP = Group(
    units=UNITS,
    axes=(
        Axis(tensor="parameters/0.weight", axis=0, block=1),
        Axis(tensor="parameters/1.weight", axis=1, block=2),
    ),
)
SHAPES = {"parameters/0.weight": (UNITS, 5), "parameters/1.weight": (3, 2 * UNITS)}
DRAW = bytes(range(32))


def drawn(seed: int) -> dict[str, npt.NDArray[np.float64]]:
    generator = np.random.default_rng(seed)
    return {name: generator.normal(size=shape) for name, shape in SHAPES.items()}


def layout(*rows: tuple[str, tuple[int, ...]]) -> list[TensorSpec]:
    return [TensorSpec(name=name, dtype="float32", shape=shape) for name, shape in rows]


def test_an_update_towards_the_weights_has_the_least_p() -> None:
    weights, own = drawn(1), drawn(2)
    pulled = {name: own[name] + weights[name] for name in own}
    found = align(pulled, weights, (GROUP,), draw=DRAW)
    assert found.p == 1 / 200
    assert found.cosine > found.largest


def test_p_of_unrelated_weights_is_uniform() -> None:
    p = sorted(align(drawn(2 * i), drawn(2 * i + 1), (GROUP,), draw=DRAW).p for i in range(60))
    # A Kolmogorov-Smirnov distance that sixty uniform numbers exceed once in a thousand.
    assert max(abs(value - (i + 0.5) / 60) for i, value in enumerate(p)) < 0.25


def test_weights_away_from_the_update_are_no_sign() -> None:
    weights = drawn(1)
    away = {name: -values for name, values in weights.items()}
    assert align(away, weights, (GROUP,), draw=DRAW).p > 0.9


def test_a_common_factor_changes_nothing() -> None:
    weights, update = drawn(1), drawn(2)
    huge = {name: 1e300 * values for name, values in weights.items()}
    tiny = {name: 1e-300 * values for name, values in update.items()}
    assert align(tiny, huge, (GROUP,), draw=DRAW).p == align(update, weights, (GROUP,), draw=DRAW).p


def test_the_draw_decides_and_repeats() -> None:
    own, other = drawn(1), drawn(2)
    first, again = (align(own, other, (GROUP,), draw=DRAW) for _ in range(2))
    assert first == again
    assert first.largest != align(own, other, (GROUP,), draw=bytes(32)).largest


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 1])
def test_no_finite_number_is_said(value: float, where: int) -> None:
    both = [drawn(1), drawn(2)]
    both[where]["parameters/0.weight"][3, 1] = value
    with pytest.raises(NotApplicable, match="not a finite number"):
        align(both[0], both[1], (GROUP,), draw=DRAW)


@pytest.mark.parametrize("where", [0, 1])
def test_nothing_but_zeros_is_said(where: int) -> None:
    both = [drawn(1), drawn(2)]
    both[where] = {name: 0 * values for name, values in both[where].items()}
    with pytest.raises(NotApplicable, match="all zero"):
        align(both[0], both[1], (GROUP,), draw=DRAW)


def test_a_block_of_inputs_moves_together() -> None:
    assert Axis(tensor="w", axis=1, block=2).places([2, 0, 1]).tolist() == [4, 5, 0, 1, 2, 3]


def test_a_layer_with_norm_before_a_flattened_map_is_a_candidate() -> None:
    (group,) = candidates(
        layout(
            ("parameters/conv.weight", (4, 1, 3, 3)),
            ("parameters/norm.weight", (4,)),
            ("parameters/norm.bias", (4,)),
            ("parameters/other", (7,)),
            ("parameters/line.weight", (10, 4 * 9)),
            ("parameters/line.bias", (10,)),
            ("buffers/norm.running_mean", (4,)),
            ("buffers/norm.num_batches_tracked", ()),
            ("buffers/far.running_mean", (4,)),
        )
    )
    assert group.units == 4
    assert [(axis.tensor, axis.axis, axis.block) for axis in group.axes] == [
        ("parameters/conv.weight", 0, 1),
        ("parameters/norm.weight", 0, 1),
        ("parameters/norm.bias", 0, 1),
        ("buffers/norm.running_mean", 0, 1),
        ("parameters/line.weight", 1, 9),
    ]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [("parameters/a", (4, 3))],
        [("parameters/a", (4, 3)), ("parameters/b", (2, 5))],
        [("parameters/a", (1, 3)), ("parameters/b", (2, 5))],
        [("parameters/a", (0, 3)), ("parameters/b", (2, 0))],
    ],
)
def test_shapes_that_do_not_follow_are_no_candidates(rows: list[tuple[str, tuple[int, ...]]]) -> None:
    assert candidates(layout(*rows)) == ()


def test_candidates_are_bounded() -> None:
    rows = [(f"parameters/{i}", (2, 2)) for i in range(3 * MOST_GROUPS)]
    assert len(candidates(layout(*rows))) == MOST_GROUPS


def test_groups_survive_the_way_to_a_worker() -> None:
    assert tuple(groups_from_json(groups_to_json([GROUP]))) == (GROUP,)
