"""Pieces out of values: a schedule that was evaluated step by step, written with few numbers.

Runs of equal values stay as they are, to the bit. Whatever else is smooth becomes polynomials that differ
from the values by at most a millionth of the largest of them in a piece, whose coefficients are rounded to
single precision. What is not smooth takes a number for each value. Knows no torch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gradseal.program.schedule import MAX_COEFFICIENTS, Piece

TOLERANCE = 2.0**-20
"""How far a polynomial may be from the values, in parts of the largest of them in its piece."""

_SAMPLES = 128
_OVERHEAD_BYTES = 3

Floats = npt.NDArray[np.float64]


def pieces_of(values: Floats) -> tuple[Piece, ...]:
    """The pieces of a column with these values.

    Args:
        values: At least one, all finite; of shape (values,).
    """
    pieces: list[Piece] = []
    first = 0
    ends = np.append(np.flatnonzero(values[1:] != values[:-1]) + 1, len(values))
    while first < len(values):
        equal = int(ends[np.searchsorted(ends, first, side="right")]) - first
        constant = Piece(length=equal, coefficients=(float(values[first]),))
        curve = _longest(values[first:], equal)
        best = constant if curve is None or _cost(constant) <= _cost(curve) else curve
        pieces.append(best)
        first += best.length
    return tuple(pieces)


def _cost(piece: Piece) -> float:
    """Bytes for each value."""
    numbers = 8 if len(piece.coefficients) == 1 else 4 * len(piece.coefficients)
    return (numbers + _OVERHEAD_BYTES) / piece.length


def _longest(values: Floats, equal: int) -> Piece | None:
    """The longest polynomial from the first value on, beyond its equal ones; None if there is none."""
    fitted: Piece | None = None
    good, bad = equal, len(values) + 1
    # First the lengths double, then what lies between a length that fits and one that does not is halved.
    length = min(max(2 * equal, 2), len(values))
    while good < length < bad:
        if (piece := _fit(values[:length])) is not None:
            fitted, good = piece, length
        else:
            bad = length
        length = min(2 * good, len(values)) if bad > len(values) else (good + bad) // 2
    return fitted


def _fit(values: Floats) -> Piece | None:
    """The polynomial of the least degree that is near all values; None if none is."""
    length = len(values)
    places = np.unique(np.linspace(0, length - 1, min(length, _SAMPLES)).round().astype(np.int64))
    t = (2.0 * places - length) / length
    most = min(MAX_COEFFICIENTS, len(places))
    fitted = np.polynomial.chebyshev.chebfit(t, values[places], most - 1)
    for count in _counts(most):
        series = fitted if count == most else np.polynomial.chebyshev.chebfit(t, values[places], count - 1)
        powers = np.polynomial.chebyshev.cheb2poly(series).astype(np.float32).astype(np.float64)
        if not np.isfinite(powers).all():
            return None
        piece = Piece(length=length, coefficients=tuple(powers.tolist()))
        if _is_near(piece, values):
            return piece
        if count == most:
            return None
    return None


def _counts(most: int) -> list[int]:
    """How many coefficients are tried: the most first asked, whether any will do, then the fewest."""
    return [n for n in (2, 4) if n < most] + [most]


def _is_near(piece: Piece, values: Floats) -> bool:
    own = piece.values(0, piece.length)
    allowed = TOLERANCE * float(np.abs(values).max())
    # A rate or a decay may not turn negative by a rounding.
    return bool((np.abs(own - values) <= allowed).all() and not (own[values >= 0] < 0).any())
