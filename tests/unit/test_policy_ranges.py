"""Policies whose numbers state no bound are refused, from whichever package they come."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from gradseal.errors import Error
from gradseal.verify.policy import Policy


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("confidence", (0.0, 1.0, 1 - 1e-16, -1.0, math.nan)),
        ("tolerated_fraction", (-0.1, 1.1, math.nan)),
        ("tolerated_length", (-1.0, 1.5, math.nan, math.inf)),
        ("tau_cap", (0.0, -1.0, math.nan, math.inf)),
    ],
)
def test_a_number_out_of_range_is_refused(field: str, values: tuple[float, ...]) -> None:
    for value in values:
        with pytest.raises(Error, match="is out of range") as caught:
            replace(Policy.named("standard"), **{field: value})  # type: ignore[arg-type]
        assert field in caught.value.where


def test_no_length_need_be_tolerated() -> None:
    assert replace(Policy.named("standard"), tolerated_length=None).bound_confidence == 0.95
