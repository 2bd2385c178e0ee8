"""How often a verifier that goes by distances accepts: exactly, from what every segment's replay was away.

A score is what a replay is away on some scale; a segment is accepted at a threshold that its score does not
exceed, and a bundle if all segments that are replayed are. Which are, follows the classical protocol (Jia et
al. 2021, "Proof-of-Learning: Definitions and Practice"), its repair by a uniform draw, or is all. Of a draw
the probability is computed, not sampled.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from gradseal.study.matrix.cases import Replays


class Picked(StrEnum):
    """Which segments are replayed: the largest updates of each epoch, as many drawn uniformly, or all."""

    TOP = "top-Q"
    UNIFORM = "uniform"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One bundle's segments on one scale.

    Args:
        every: The scores of all segments, ascending.
        top: Those of the segments that top-Q replays, ascending; a uniform draw takes as many.
    """

    every: tuple[float, ...]
    top: tuple[float, ...]

    def acceptance(self, picked: Picked, threshold: float) -> float:
        """The probability, over the verifier's draw, that every replayed segment is within."""
        if picked is Picked.TOP:
            return float(bool(self.top) and self.top[-1] <= threshold)
        good = bisect_right(self.every, threshold)
        if picked is Picked.ALL:
            return float(bool(self.every) and good == len(self.every))
        return drawn_within(good, len(self.every), len(self.top))


def acceptance(bundles: Sequence[Scored], picked: Picked, threshold: float) -> float:
    """The mean of the bundles' probabilities to be accepted; 0 of none."""
    return sum(one.acceptance(picked, threshold) for one in bundles) / max(1, len(bundles))


def least_threshold(bundles: Sequence[Scored], picked: Picked, share: float) -> float:
    """The least threshold at which the mean acceptance is at least this; infinite if it is at none."""
    places = sorted({score for one in bundles for score in one.every})
    least = bisect_left(places, share, key=lambda place: acceptance(bundles, picked, place))
    return places[least] if least < len(places) else math.inf


def absolute(replays: Replays, reference: float, top: int) -> Scored:
    """Scores as shares of the distance of two independently trained models."""
    return _scored(replays, [error / reference for error in replays.errors], top)


def relative(replays: Replays, top: int) -> Scored:
    """Scores as shares of the segment's own update; of no update any error is infinite."""
    pairs = zip(replays.errors, replays.updates, strict=True)
    return _scored(replays, [_share(error, update) for error, update in pairs], top)


def drawn_within(good: int, of: int, draws: int) -> float:
    """The probability that all of so many drawn without replacement are good ones; 0 if nothing is drawn."""
    return math.comb(good, draws) / math.comb(of, draws) if draws else 0.0


def _scored(replays: Replays, scores: Sequence[float], top: int) -> Scored:
    epochs: dict[int, list[int]] = {}
    for i, epoch in enumerate(replays.epochs):
        epochs.setdefault(epoch, []).append(i)
    largest = [i for own in epochs.values() for i in sorted(own, key=lambda i: -replays.updates[i])[:top]]
    return Scored(every=tuple(sorted(scores)), top=tuple(sorted(scores[i] for i in largest)))


def _share(error: float, update: float) -> float:
    if not error:
        return 0.0
    return error / update if update and math.isfinite(update) else math.inf
