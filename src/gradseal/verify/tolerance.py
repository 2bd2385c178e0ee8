"""What a calibrated tolerance says of one replay, and of a whole run: no more than arithmetic on its numbers.

A replay is within if its parameters end within tau of the sealed update's length, and each group of the rest
of its state within a second tolerance, of the group's own sealed change. What a calibration measured has a
least update: a shorter one is no evidence, as nothing is known of its noise. Used by `tolerating`, and for
claims by `tolerance_claim`. Source: docs/guide/calibrate.md, docs/spec/calibration.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from gradseal.proof.manifest import Manifest
from gradseal.verify.calibration import Calibration
from gradseal.verify.outcomes import SegmentResult

UNLIKELY = 0.001
"""A verdict says so where as many segments beyond the calibrated tolerance have a smaller probability than
this, by the calibrated rate. It refutes nothing: the rate is of other segments, and of numerics that were
tried."""


class Standing(StrEnum):
    """What a replay is worth."""

    EQUAL = "equal"
    WITHIN = "within"
    NO_EVIDENCE = "no evidence"
    BEYOND = "beyond"


PASSED = frozenset({Standing.EQUAL, Standing.WITHIN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """A calibration that fits the run, under a policy's cap.

    Args:
        calibration: What was measured.
        cap: The largest tolerance that the policy allows.
        groups: Of the rest of a state, those that are compared; see `state_error`.
    """

    calibration: Calibration
    cap: float
    groups: tuple[str, ...] = ()

    @property
    def tau(self) -> float:
        """The tolerance in force, of parameters."""
        return min(self.calibration.tau, self.cap)

    @property
    def state_tau(self) -> float:
        """The tolerance in force, of the rest of a state."""
        return min(self.calibration.state_tau, self.cap)

    @property
    def capped(self) -> bool:
        """Whether the cap is the lower for one of them, so that the calibrated rate does not hold."""
        return self.cap < max(self.calibration.tau, self.calibration.state_tau if self.groups else 0.0)

    @property
    def false_rejection(self) -> float:
        """The share of honest segments that lies beyond at most: beyond one of two, at most the sum."""
        return min(1.0, self._bounds * self.calibration.false_rejection)

    @property
    def confidence(self) -> float:
        """Of that: each bound of one sample may fail with the rest of its own."""
        return max(0.0, 1 - self._bounds * (1 - self.calibration.confidence))

    @property
    def _bounds(self) -> int:
        return 2 if self.groups else 1

    def standing(self, result: SegmentResult) -> Standing:
        """What a replay is worth.

        One whose update is below the floor or above the ceiling may end as far away as one there, and is no
        evidence then. The rest of its state has no floor: what it leaves behind moves segments that are
        evidence.
        """
        if result.equal:
            return Standing.EQUAL
        if self.parameters_beyond(result) or self.state_beyond(result):
            return Standing.BEYOND
        return Standing.WITHIN if self.covers(result.update.l2) else Standing.NO_EVIDENCE

    def covers(self, update: float) -> bool:
        """Whether updates of this length were measured; none that is no number was."""
        return self.calibration.covers(update)

    def improbable(self, results: Iterable[SegmentResult]) -> tuple[int, int, float]:
        """How many of how many segments with evidence lie beyond what was calibrated, whatever the cap.

        And the probability of as many or more, by the calibrated rate: the binomial law's tail, for segments
        drawn as the calibrated ones were, whose errors are independent.
        """
        # Loaded here, since few verifications need it and it takes a moment.
        from scipy import stats

        counted = [r for r in results if r.equal or self.covers(r.update.l2) or math.isnan(r.update.l2)]
        own = self.calibration
        beyond = sum(
            not r.equal and (self._beyond(r, own.tau) or not r.state <= own.state_tau) for r in counted
        )
        tail = stats.binom.sf(beyond - 1, len(counted), self.false_rejection)
        return beyond, len(counted), float(tail) if beyond else 1.0

    def parameters_beyond(self, result: SegmentResult) -> bool:
        """Whether a replay's parameters end beyond the tolerance in force."""
        return not result.equal and self._beyond(result, self.tau)

    def state_beyond(self, result: SegmentResult) -> bool:
        """Whether the rest of its state does."""
        return not result.equal and not result.state <= self.state_tau

    def _beyond(self, result: SegmentResult, tau: float) -> bool:
        """No number and no infinity is within anything, an infinite update's share included."""
        error, update = result.error.l2, result.update.l2
        if not (math.isfinite(error) and math.isfinite(update)):
            return True
        return error > tau * min(max(update, self.calibration.floor), self.calibration.ceiling)


def evident(calibration: Calibration, updates: Sequence[float], count: int) -> set[int]:
    """The segments that count: whose update has a length that was measured.

    Args:
        calibration: What was measured.
        updates: The length of each segment's update; one that is missing or no number must pass, and counts.
        count: How many segments there are.
    """
    known = len(updates)
    return {i for i in range(count) if i >= known or math.isnan(updates[i]) or calibration.covers(updates[i])}


def relative(result: SegmentResult) -> float:
    """A replay's error as a share of its update."""
    error, update = result.error.l2, result.update.l2
    return error / update if update else math.inf if error else 0.0


def misfits(calibration: Calibration, manifest: Manifest, programs: Sequence[bytes]) -> tuple[str, ...]:
    """What a calibration was measured with that the run has not; nothing if it fits.

    Args:
        calibration: It.
        manifest: The run's entry 0.
        programs: The digests of all programs that are in force in it.
    """
    own, plan = calibration, manifest.plan
    said = [
        f"program {own.program.hex()[:16]}…, the run's is {program.hex()[:16]}…"
        for program in dict.fromkeys(programs)
        if program != own.program
    ]
    pairs = {
        "steps in a segment": (own.every, plan.every),
        "samples in a batch": (own.batch_size, plan.batch_size),
        "batches in a step": (own.accumulate, plan.accumulate),
    }
    said += [f"{a} {name}, the run has {b}" for name, (a, b) in pairs.items() if a != b]
    return tuple(said)


def reach_of(updates: Sequence[float], distance: float | None, tolerance: Tolerance) -> float | None:
    """How far drift within the tolerance could have gone, as a share of how far the run went.

    (tau · the lengths of all updates that were measured + the lengths of all others) / ‖W_T − W_0‖. At 1 or
    more, the run could have ended anywhere.

    Args:
        updates: Each segment's length of update, replayed or not.
        distance: ‖W_T − W_0‖.
        tolerance: Has tau, and says which lengths were measured.

    Returns:
        None if a length is not known, or no finite number, or the run went nowhere.
    """
    if distance is None or not 0 < distance < math.inf or not all(map(math.isfinite, updates)):
        return None
    drift = math.fsum(tolerance.tau * u if tolerance.covers(u) else u for u in updates)
    return drift / distance
