"""What a prover answers to an audit, and how often it sees him even so.

He has to move the parameters by a given displacement in segments that nobody computes: m of them, each as
long as an m-th of the way, in the place of the shortest true ones, and never the first or the last. He knows
the audit, though not its draw, and takes the m that is seen least. Other segments are true; they may be as
long as they are, or longer, by learning rates and weight decay that he chooses: up to a multiple of their
length in all, or without limit (`attacks.lying_lengths`, `attacks.best_response`). Proofs: S6 in
docs/theory/sampling.md.

Where a rule leaves room it is in his favour, so no prover of this kind is seen less often than what is said
here. One who finds other ways than straight pieces of equal length is not, for a fixed number of segments:
unequal pieces are no shorter together, and the longest of them is longer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from gradseal.errors import Error

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """An audit.

    Args:
        longest: How many of the longest segments are always replayed, besides the first and the last.
        uniform: Draws of the rest without replacement.
        by_length: Draws of the rest in proportion to length, with replacement.
    """

    longest: int = 0
    uniform: int = 0
    by_length: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """The prover's best answer to an audit.

    Args:
        detection: The probability that a forged segment is replayed.
        forged: How many segments he forges.
        length: How long each of them is; infinite lengths of the others count as none.
    """

    detection: float
    forged: int
    length: float


class Ground:
    """The segments of a run that a prover has to answer with.

    Args:
        lengths: Of the true segments, finite; without the first and the last, which are always replayed.
        displacement: How far forged segments must move the parameters together, above 0.
        inflation: By how much all true segments together may be longer than they are; 1 for as they are,
            infinite for no limit.

    Raises:
        Error: The displacement is no number above 0, or a length is no number.
    """

    def __init__(self, lengths: Sequence[float] | Array, displacement: float, inflation: float = 1.0) -> None:
        self.lengths = np.sort(np.asarray(lengths, dtype=np.float64))[::-1]
        self.displacement = float(displacement)
        self.inflation = inflation
        if not self.displacement > 0 or np.isnan(self.lengths).any():
            raise Error(
                "a prover's displacement must be above 0, and lengths be numbers", where="displacement"
            )
        self._before = np.concatenate([[0.0], np.cumsum(self.lengths)])

    @property
    def segments(self) -> int:
        """How many there are."""
        return len(self.lengths)

    def missed_by_length(self, mix: Mix) -> tuple[npt.NDArray[np.bool_], Array]:
        """For each number of forged segments from 1: whether none is certain, and one draw's chance to miss.

        The longest are the certain ones. For a forged segment not to be among them, as many true ones must be
        as long; what they lack is taken from what the true ones may be longer.
        """
        count, top = self.segments, min(mix.longest, self.segments)
        forged = np.arange(1, count + 1)
        each = self.displacement / forged
        kept = count - forged
        if math.isinf(self.inflation):
            # Where all true ones are certain, only forged ones are left to draw.
            return kept >= top, np.where(kept > top, 1.0, 0.0)
        extra = (self.inflation - 1) * self._before[-1]
        # Of the longest ones, those that are shorter than a forged one come last.
        longer = np.minimum(np.searchsorted(-self.lengths, -each, side="right"), top)
        lacking = (top - longer) * each - (self._before[top] - self._before[longer])
        open_ = (kept >= top) & (lacking <= extra * (1 + 1e-12))
        true = self._before[np.maximum(kept, top)] - self._before[top] + np.maximum(extra - lacking, 0.0)
        # Where all true ones are certain, none is left to be drawn, however long.
        true = np.where(kept > top, true, 0.0)
        return open_, true / (true + self.displacement)


def best_response(ground: Ground, mix: Mix) -> Response:
    """The number of forged segments that this audit sees least often; of equals the fewest."""
    if not ground.segments:
        return Response(detection=1.0, forged=0, length=0.0)
    open_, miss = ground.missed_by_length(mix)
    rest = ground.segments - min(mix.longest, ground.segments)
    forged = np.arange(1, ground.segments + 1)
    missed = np.where(open_, missed_uniformly(rest, forged, mix.uniform) * miss**mix.by_length, 0.0)
    best = int(np.argmax(missed))
    length = ground.displacement / (best + 1)
    return Response(detection=float(1 - missed[best]), forged=best + 1, length=length)


def missed_uniformly(population: int, forged: npt.NDArray[np.int64], drawn: int) -> Array:
    """C(N - m, n) / C(N, n) for each m, in floating point; exact to about nine digits."""
    drawn = min(drawn, population)
    if not drawn:
        return np.ones(len(forged))
    left = np.maximum(population - forged - drawn, 0)
    kept = np.maximum(population - forged, 0)
    logs = gammaln(kept + 1) + gammaln(population - drawn + 1) - gammaln(left + 1) - gammaln(population + 1)
    missed: Array = np.where(forged + drawn > population, 0.0, np.exp(np.minimum(logs, 0.0)))
    return missed
