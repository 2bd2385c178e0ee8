"""Replays judged by how near they come to the sealed state, as the classical protocol does.

Only parameters are compared: losses, buffers and the optimizer's state may be anything, and where the replay
ran does not matter. A distance that is no number is beyond any limit.
"""

from __future__ import annotations

import math

from gradseal.verify.classical import Limits
from gradseal.verify.distances import Distance
from gradseal.verify.examination import Examination
from gradseal.verify.outcomes import SegmentResult
from gradseal.verify.verdict import Check, Result


def judge_distance(examination: Examination, answer: SegmentResult, limits: Limits) -> None:
    """Takes the result of a replay, and adds a finding if it ends too far away."""
    examination.results.append(answer)
    beyond = [distance for distance, held in _within(answer, limits).items() if not held]
    if not beyond:
        return
    said = "; ".join(
        f"{d} {answer.error.by(d):.3g}, at most {limits.allowed(d, answer.update):.3g}" for d in beyond
    )
    examination.found_in(
        answer.segment,
        Check.DISTANCE,
        Result.REFUTED,
        f"the replay ends too far from the sealed state: {said}",
        measured=answer.error.by(beyond[0]),
        allowed=limits.allowed(beyond[0], answer.update),
    )


def near(answer: SegmentResult, limits: Limits) -> bool:
    """Whether a replay ends within every limit."""
    return all(_within(answer, limits).values())


def nearest_to_limit(results: list[SegmentResult], limits: Limits) -> tuple[SegmentResult, Distance] | None:
    """Of replays within the limits the one that came nearest to one, and which; None if all were equal."""
    found = [(_share(r, d, limits), r, d) for r in results for d in limits.factors if r.error.by(d) > 0]
    if not found:
        return None
    _, result, distance = max(found, key=lambda one: one[0])
    return result, distance


def _within(answer: SegmentResult, limits: Limits) -> dict[Distance, bool]:
    return limits.within(answer.error, answer.update)


def _share(answer: SegmentResult, distance: Distance, limits: Limits) -> float:
    allowed = limits.allowed(distance, answer.update)
    return answer.error.by(distance) / allowed if allowed else math.inf
