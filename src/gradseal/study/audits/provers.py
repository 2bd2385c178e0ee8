"""Simulated provers: whether what a verifier states is false no more often than he says.

A prover forges a set of segments; a verifier draws, with fresh randomness each time, and if nothing that he
drew is forged, he states his bounds. In trials by the thousand, the share in which what he states is false is
held against the error that he allows, by an exact binomial test: each bound by its own draws alone, at its
own error, and both by all draws at theirs. Sets are the worst ones: those that break a bound by as little as
can be, since a larger one is seen more often.

Draws are those of `verify.sampling` themselves, or of the same law by NumPy where a million segments would be
hashed and sorted; a test compares the two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from gradseal.study.audits.response import Array
from gradseal.verify.policy import Policy, Replay
from gradseal.verify.sampling import Sample, draw_sample
from gradseal.verify.statistics import detection_probability, forged_bound, length_bound

TRIALS = 10_000
SIGNIFICANCE = 1e-3
"""A bound is said to fail if so few simulations of a true one would have as many false statements."""

CASES = (
    ("number", "uniform"),
    ("length", "by length"),
    ("number", "all"),
    ("length", "all"),
    ("both", "all"),
)
"""Which bounds the prover breaks, and by which draws the verifier states them."""

_CHUNK = 1 << 22
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """What came of the trials of one prover against one verifier.

    Args:
        population: How many segments are not certain.
        lengths: The law of their lengths.
        confidence: Of both bounds together, as the verifier states it.
        breaks: Which bounds the prover breaks: `number`, `length` or `both`.
        draws: Those by which the verifier sees him: `uniform`, `by length` or `all`.
        hashed: Whether the verification's own draws were made, not ones of the same law.
        forged: How many segments are forged.
        share: Their share of the length.
        most_forged: The bound that the verifier states, of segments.
        most_length: The bound that he states, of length.
        trials: How many.
        false: In how many he stated what is false.
        expected: In what share he does, by the theory.
        allowed: In what share he may.
        p: The probability of as many false statements or more, if the share that he may were the true one.
    """

    population: int
    lengths: str
    confidence: float
    breaks: str
    draws: str
    hashed: bool
    forged: int
    share: float
    most_forged: int
    most_length: float
    trials: int
    false: int
    expected: float
    allowed: float
    p: float

    @property
    def holds(self) -> bool:
        """Whether the trials agree with the bound."""
        return self.p >= SIGNIFICANCE

    def to_json(self) -> dict[str, Any]:
        """Its JSON form."""
        return asdict(self)


LAWS: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "equal": lambda random, count: np.ones(count),
    "exponential": lambda random, count: random.exponential(size=count),
    "heavy-tailed": lambda random, count: 1 + random.pareto(1.1, size=count),
}
"""Laws of lengths, by name: the last has no variance."""


def policy_of(confidence: float, forged: float, length: float, longest: int = 0) -> Policy:
    """A policy that demands these bounds."""
    return Policy(
        name="simulated",
        replay=Replay.SAMPLE,
        confidence=confidence,
        tolerated_fraction=forged,
        tolerated_length=length,
        longest=longest,
    )


def simulate(
    policy: Policy,
    lengths: Sequence[float] | Array,
    *,
    law: str,
    seed: int,
    trials: int = TRIALS,
    hashed: bool = False,
) -> list[Simulated]:
    """Trials of the provers of `CASES` against one verifier, all of them on the same draws.

    Args:
        policy: The verifier's.
        lengths: Of all segments, first and last included, finite.
        law: The name of the lengths.
        seed: Of all randomness.
        trials: How many.
        hashed: Whether the verification's own draws are made.
    """
    own = np.asarray(lengths, dtype=np.float64)
    planned = draw_sample(policy, len(own), b"", b"", lengths=own.tolist())
    rest = np.setdiff1d(np.arange(len(own)), np.array(planned.certain, dtype=np.int64))
    most = forged_bound(planned.population, len(planned.uniform), policy.bound_confidence)
    share = length_bound(len(planned.weighted), policy.bound_confidence)
    sets = [rest[forge(own[rest], breaks, most, share)] for breaks, _ in CASES]
    bad = [np.isin(np.arange(len(own)), forged) for forged in sets]
    false = [0] * len(CASES)
    make = _hashed if hashed else _drawn
    for uniform, weighted in make(policy, own, planned, seed=seed, trials=trials):
        for number, (_, draws) in enumerate(CASES):
            seen = np.zeros(len(uniform), dtype=np.bool_)
            if draws != "by length":
                seen |= bad[number][uniform].any(axis=1)
            if draws != "uniform":
                seen |= bad[number][weighted].any(axis=1)
            false[number] += int(len(seen) - seen.sum())
    results = []
    for (breaks, draws), forged, count in zip(CASES, sets, false, strict=True):
        broken = float(own[forged].sum() / own[rest].sum())
        allowed = 1 - (policy.confidence if draws == "all" else policy.bound_confidence)
        seen_in = detection_probability(
            planned.population,
            len(forged),
            broken,
            uniform=len(planned.uniform) if draws != "by length" else 0,
            by_length=len(planned.weighted) if draws != "uniform" else 0,
        )
        results.append(
            Simulated(
                population=planned.population,
                lengths=law,
                confidence=policy.confidence,
                breaks=breaks,
                draws=draws,
                hashed=hashed,
                forged=len(forged),
                share=broken,
                most_forged=most,
                most_length=share,
                trials=trials,
                false=count,
                expected=1 - seen_in,
                allowed=allowed,
                p=float(binomtest(count, trials, allowed, alternative="greater").pvalue),
            )
        )
    return results


def forge(lengths: Array, breaks: str, most: int, share: float) -> Indices:
    """The places of a set that breaks a bound by as little as can be.

    `number`: one segment more than the bound, the shortest ones. `length`: few long ones, of a share of the
    length just above the bound. `both`: such a share, and as many short ones as the number takes.
    """
    ascending = np.argsort(lengths, kind="stable")
    number = ascending[: min(most + 1, len(lengths))]
    if breaks == "number":
        return number
    long = _just_above(lengths, ascending, share)
    return long if breaks == "length" else np.union1d(long, number)


def _just_above(lengths: Array, ascending: Indices, share: float) -> Indices:
    """Long segments first, each that fits below the share; then the shortest that exceeds it."""
    limit, total, taken = share * lengths.sum(), 0.0, []
    for place in ascending[::-1]:
        if total + lengths[place] <= limit:
            taken.append(int(place))
            total += float(lengths[place])
    left = np.setdiff1d(ascending, np.array(taken, dtype=np.int64))
    over = left[total + lengths[left] > limit]
    return np.array(sorted([*taken, int(over[np.argmin(lengths[over])])]), dtype=np.int64)


def _hashed(
    policy: Policy, lengths: Array, planned: Sample, *, seed: int, trials: int
) -> Iterator[tuple[Indices, Indices]]:
    """The verification's own draws: segments drawn uniformly and by length, a row for each trial."""
    del planned
    known = lengths.tolist()
    samples = [
        draw_sample(
            policy, len(known), hashlib.sha256(f"{seed} {trial}".encode()).digest(), b"", lengths=known
        )
        for trial in range(trials)
    ]
    yield np.array([one.uniform for one in samples]), np.array([one.weighted for one in samples])


def _drawn(
    policy: Policy, lengths: Array, planned: Sample, *, seed: int, trials: int
) -> Iterator[tuple[Indices, Indices]]:
    """Draws of the same law by NumPy, in chunks."""
    del policy
    random = np.random.default_rng(seed)
    rest = np.setdiff1d(np.arange(len(lengths)), np.array(planned.certain, dtype=np.int64))
    ends = np.cumsum(lengths[rest])
    chunk = max(1, _CHUNK // len(rest))
    for first in range(0, trials, chunk):
        some = min(chunk, trials - first)
        uniform = _without_replacement(random, some, len(rest), len(planned.uniform))
        points = random.random((some, len(planned.weighted))) * ends[-1]
        places = np.minimum(np.searchsorted(ends, points, side="right"), len(rest) - 1)
        yield rest[uniform], rest[places]


def _without_replacement(random: np.random.Generator, trials: int, population: int, count: int) -> Indices:
    """The places of the smallest of random keys, a row for each trial."""
    keys = random.random((trials, population), dtype=np.float32)
    if count >= population:
        return np.broadcast_to(np.arange(population), (trials, population))
    return np.argpartition(keys, count, axis=1)[:, :count]
