"""What a verdict tells besides its claims: what the record says of itself, and its segments one by one.

Gathered from an examination however far it came. Decides nothing.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from gradseal.verify.examination import Examination
from gradseal.verify.outcomes import SegmentResult
from gradseal.verify.segments import MAX_ROWS, Losses, SegmentRow, Segments
from gradseal.verify.tolerance import Standing

_ALWAYS = 200


def record_of(examination: Examination) -> dict[str, Any]:
    """What the record says, and where its segments were replayed; empty if its log could not be read."""
    log, contents = examination.log, examination.contents
    if log is None:
        return {}
    manifest, plan = log.manifest, log.manifest.plan
    said: dict[str, Any] = {
        "closed": log.close is not None,
        "seed": plan.seed.to_json(),
        "data": {"samples": manifest.data.samples, "root": manifest.data.root.hex()},
        "plan": {name: value for name, value in plan.to_json().items() if name != "seed"},
        "program": manifest.program.hex(),
        "initialisation": manifest.initialisation.hex(),
        "release": manifest.release.hex(),
        "weights": log.close.weights.hex() if log.close else None,
    }
    if contents is not None:
        parameters = [s for s in contents.program.layout if s.name.startswith("parameters/")]
        said["parameters"] = {"tensors": len(parameters), "numbers": sum(s.elements for s in parameters)}
        had = examination.environment
        said["environment"] = {
            "recorded": contents.arithmetic.to_json(),
            "replayed": asdict(had) if had else None,
        }
    if examination.state_zero_checked:
        allowed = examination.policy.allowed_free_bytes(examination.parameter_bytes)
        counted = sum(item.size_bytes for item in examination.free)
        said["free_bytes"] = {"counted": counted, "allowed": allowed}
    return said


def segments_of(examination: Examination) -> Segments:
    """What an examination knows of the segments, however far it came."""
    log, lengths = examination.log, examination.lengths
    if log is None:
        return Segments()
    results = {result.segment: result for result in examination.results}
    judged = _judged(examination)
    told = chosen(len(log.segments), judged)
    updates = lengths.updates if lengths else ()
    return Segments(
        count=len(log.segments),
        replayed=len(results),
        rows=tuple(_row(examination, number, results.get(number)) for number in told),
        unequal_after=unequal_after(told, judged),
        losses=_losses(examination),
        path_length=_path(updates, len(log.segments)),
        distance=_known(examination.distance),
    )


def chosen(count: int, results: Sequence[SegmentResult], most: int = MAX_ROWS) -> list[int]:
    """The numbers of the segments that are told: evenly spaced if there are too many, and what matters."""
    if count <= most:
        return list(range(count))
    wrong = [result.segment for result in results if not result.equal][:_ALWAYS]
    replayed = [result.segment for result in results] if len(results) <= _ALWAYS else []
    spread = most - 2 * _ALWAYS
    even = (i * (count - 1) // (spread - 1) for i in range(spread))
    return sorted({*even, *wrong, *replayed})


def unequal_after(told: Sequence[int], results: Sequence[SegmentResult]) -> tuple[int, ...]:
    """How many segments behind each told one, and before the next, gave other bits; empty if none did."""
    counts, known = [0] * len(told), set(told)
    for result in results:
        if not result.equal and result.segment not in known:
            counts[bisect(told, result.segment) - 1] += 1
    return tuple(counts) if any(counts) else ()


def _judged(examination: Examination) -> list[SegmentResult]:
    """The results, those within a tolerance or without evidence as if they were equal."""
    tolerance = examination.tolerance
    if tolerance is None:
        return examination.results
    return [replace(r, equal=tolerance.standing(r) is not Standing.BEYOND) for r in examination.results]


def _row(examination: Examination, number: int, result: SegmentResult | None) -> SegmentRow:
    entry = examination.log.segments[number] if examination.log else None
    curve, lengths, tolerance = examination.curve, examination.lengths, examination.tolerance
    return SegmentRow(
        number=number,
        first_step=entry.first_step if entry else 0,
        steps=entry.steps if entry else 0,
        first_loss=_at(curve.first, number) if curve else None,
        last_loss=_at(curve.last, number) if curve else None,
        mean_loss=_at(curve.mean, number) if curve else None,
        update=_at(lengths.updates, number) if lengths else None,
        replayed=result is not None,
        equal=result.equal if result else None,
        error=_known(result.error.l2) if result else None,
        standing=tolerance.standing(result).value if tolerance and result else "",
        seconds=_known(result.seconds) if result else None,
    )


def _losses(examination: Examination) -> Losses:
    if examination.curve is None:
        return Losses()
    mean, low, high = (tuple(map(_known, values)) for values in examination.curve.points())
    return Losses(steps_per_point=examination.curve.steps_per_point, mean=mean, low=low, high=high)


def _at(values: Sequence[float], number: int) -> float | None:
    return _known(values[number]) if number < len(values) else None


def _known(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _path(updates: Sequence[float], count: int) -> float | None:
    """The sum, if every segment's update is known."""
    whole = len(updates) == count and all(map(math.isfinite, updates))
    return math.fsum(updates) if whole else None
