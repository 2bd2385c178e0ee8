"""The seed of every segment: one for the whole run, or another from each slot's beginning on.

A stretch is what is drawn from one seed: consecutive segments, from a slot's beginning to the next. State
zero and the constants are drawn from the first. Knows no beacon; see `precede.slots`.
Format: docs/spec/randomness.md, section 1.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Consecutive segments that draw from one seed.

    Args:
        first_segment: The first of them; the last is the one before the next stretch.
        seed: 32 bytes.
    """

    first_segment: int
    seed: bytes


class Seeds:
    """The seeds of a run, in order; while it is recorded, some are still to come.

    Args:
        every: Steps in a segment.
        accumulate: Batches in a step.
        stretches: At least one. Of several that begin with one segment the last counts for it.
    """

    def __init__(self, *, every: int, accumulate: int, stretches: Sequence[Stretch]) -> None:
        self._every = every
        self._accumulate = accumulate
        self._stretches = list(stretches)

    @property
    def initial(self) -> bytes:
        """The seed of state zero and the constants."""
        return self._stretches[0].seed

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """All so far."""
        return tuple(self._stretches)

    def begin(self, segment: int, seed: bytes) -> None:
        """Lets a stretch begin, not before the last one did."""
        if segment < self._stretches[-1].first_segment:
            raise ValueError(f"segment {segment} has its seed already")
        self._stretches.append(Stretch(first_segment=segment, seed=seed))

    def of_segment(self, segment: int) -> bytes:
        """The seed of a segment."""
        return self._stretches[self._number(segment)].seed

    def of_step(self, step: int) -> bytes:
        """The seed of a step."""
        return self.of_segment(step // self._every)

    def diverted(self, segment: int, seed: bytes) -> Seeds:
        """The same seeds up to a segment, and another one from it on."""
        before = [s for s in self._stretches if s.first_segment < segment] or self._stretches[:1]
        return Seeds(
            every=self._every,
            accumulate=self._accumulate,
            stretches=[*before, Stretch(first_segment=segment, seed=seed)],
        )

    def of_batches(self, first: int, last: int) -> list[tuple[int, bytes]]:
        """The seed of batch number `first`, and each that comes up to batch number `last`.

        Returns:
            For each seed the first of these batches that draws from it.
        """
        per_segment = self._every * self._accumulate
        own = self._number(first // per_segment)
        found = [(first, self._stretches[own].seed)]
        for number in range(own + 1, self._number(last // per_segment) + 1):
            begins = self._stretches[number].first_segment
            if number + 1 < len(self._stretches) and self._stretches[number + 1].first_segment == begins:
                continue  # no batch is drawn from it
            found.append((begins * per_segment, self._stretches[number].seed))
        return found

    def _number(self, segment: int) -> int:
        # Before the first stretch nothing is drawn but what the first one gives.
        return max(0, bisect_right(self._stretches, segment, key=lambda s: s.first_segment) - 1)
