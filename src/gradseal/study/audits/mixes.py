"""Which mixes of draws cost how much, and the cheapest that sees a prover often enough.

Costs are numbers of different segments, expected in a run in which nothing is forged, besides the first and
the last, which are always replayed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gradseal.study.audits.response import Array, Ground, Mix, missed_uniformly

KINDS = ("uniform", "by length", "longest", "mixed")

_MOST_DRAWS = 1 << 24
Indices = npt.NDArray[np.int64]


def cheapest(ground: Ground, detection: float, *, points: int = 40) -> tuple[Mix, float]:
    """The cheapest mix that sees the prover's best response at least so often, of those tried, and its cost.

    Tried are, of the longest and of uniform draws, none, one, all, and numbers in a geometric row between; to
    each the fewest draws by length that suffice are found. Uniform draws alone are tried too.

    Args:
        ground: What the prover has.
        detection: Below 1.
        points: How many numbers there are in a row.
    """
    lengths, count = ground.lengths, ground.segments
    best, least = Mix(uniform=count), float(count)
    forged = np.arange(1, count + 1)
    for longest in _row(count, points):
        open_, miss = ground.missed_by_length(Mix(longest=longest))
        alone = _uniform_alone(count - longest, forged[open_], 1 - detection)
        for uniform in sorted({*_row(count - longest, points), alone}):
            if longest + uniform >= least:
                break
            missed = missed_uniformly(count - longest, forged, uniform)
            needed = _needed(missed[open_], miss[open_], 1 - detection)
            if needed is None:
                continue
            mix = Mix(longest=longest, uniform=uniform, by_length=needed)
            cost = float(replayed_probabilities(lengths, mix).sum())
            if cost < least:
                best, least = mix, cost
    return best, least


def _uniform_alone(population: int, forged: Indices, allowed: float) -> int:
    """The fewest uniform draws that miss the fewest forged segments no more often than is allowed."""
    if not len(forged):
        return 0
    low, high = -1, population
    while high - low > 1:
        middle = (low + high) // 2
        enough = missed_uniformly(population, forged[:1], middle)[0] <= allowed
        low, high = (low, middle) if enough else (middle, high)
    return high


def _row(most: int, points: int) -> list[int]:
    return sorted({0, *np.geomspace(1, most, points).round().astype(int).tolist()}) if most > 0 else [0]


def _needed(missed: Array, miss: Array, allowed: float) -> int | None:
    """Draws by length that bring every probability to what is allowed; None if none or too many do."""
    often = missed > allowed
    if not often.any():
        return 0
    if (miss[often] >= 1).any():
        return None
    with np.errstate(divide="ignore"):  # a draw that never misses: one is enough
        needed = float(np.ceil(np.log(allowed / missed[often]) / np.log(miss[often])).max())
    return max(1, int(needed)) if needed <= _MOST_DRAWS else None


def replayed_probabilities(lengths: Array, mix: Mix) -> Array:
    """For each segment, the probability that the audit of a true run replays it; first and last not counted.

    Args:
        lengths: As the segments are, in any order.
        mix: The audit.
    """
    count, top = len(lengths), min(mix.longest, len(lengths))
    found = np.ones(count)
    rest = np.argsort(-lengths, kind="stable")[top:]
    if len(rest):
        own = lengths[rest] / max(lengths[rest[0]], np.finfo(float).tiny)  # whose sum does not overflow
        one = own / own.sum() if own.any() else own
        found[rest] = 1 - (1 - min(1.0, mix.uniform / len(rest))) * (1 - one) ** mix.by_length
    return found


def of_cost(lengths: Array, kind: str, segments: float) -> Mix:
    """The audit of one kind that replays about so many segments of a true run, besides first and last.

    Args:
        lengths: Of the run.
        kind: `uniform`, `by length`, `longest`, or `mixed`: a third of the cost for each.
        segments: How many.
    """
    count = min(round(segments), len(lengths))
    if kind == "uniform":
        return Mix(uniform=count)
    if kind == "longest":
        return Mix(longest=count)
    if kind == "by length":
        return Mix(by_length=_draws(lengths, Mix(), count))
    top, uniform = count // 3, (count - count // 3) // 2
    mix = Mix(longest=top, uniform=uniform)
    return Mix(longest=top, uniform=uniform, by_length=_draws(lengths, mix, count))


def _draws(lengths: Array, mix: Mix, count: int) -> int:
    """How many draws by length bring an audit to a cost, as nearly as one draw less or more does."""
    reachable = mix.longest + int(np.count_nonzero(np.sort(lengths)[::-1][mix.longest :]))
    count = min(count, reachable)

    def cost(draws: int) -> float:
        own = Mix(longest=mix.longest, uniform=mix.uniform, by_length=draws)
        return float(replayed_probabilities(lengths, own).sum())

    low, high = 0, 1
    while cost(high) < count - 0.5 and high < 1 << 24:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) < count - 0.5 else (low, middle)
    return high if count and cost(0) < count - 0.5 else 0
