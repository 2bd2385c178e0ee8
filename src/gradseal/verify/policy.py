"""What a verifier demands and spends.

A policy is the verifier's own and is echoed whole into the verdict; nothing of it comes from the bundle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

from gradseal.errors import Error
from gradseal.verify.calibration import Calibration
from gradseal.verify.classical import (
    DELTA,
    LEARNING_RATES,
    TAU,
    Classical,
    InitialTest,
    Limits,
    Scale,
    Selection,
)
from gradseal.verify.distances import Distance
from gradseal.verify.statistics import split_confidence

GROUP = "gradseal.policies"
"""The group of entry points by which other packages offer policies."""


class Replay(StrEnum):
    """Which segments are replayed: the first and the last, those and a uniform sample, or all."""

    ENDS = "ends"
    SAMPLE = "sample"
    ALL = "all"


MOST_CONFIDENCE = 1 - 1e-9
"""Nearer to 1 the error that is left cannot be told from the rounding of a float."""

ALWAYS_FREE_BYTES = 64
ALWAYS_GRAPH_BYTES = 4096

_QUICK = {"integrity": "shown", "initialisation": "shown"}
_STANDARD = {**_QUICK, "data": "supported", "computation": "supported"}
_FULL = {**_QUICK, "data": "shown", "computation": "shown"}
_CLASSICAL = {"initialisation": "supported", "computation": "supported"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a verifier demands and spends.

    Args:
        name: Its name in reports.
        replay: Which segments are replayed.
        require: For each claim demanded, the least status that is enough: `shown` or `supported`.
        confidence: Of what a sample bounds; where it bounds both, the error is split evenly between them.
        tolerated_fraction: The share of forged segments that a sample is to rule out, of those that are not
            replayed for certain.
        tolerated_length: The share of their length, the sum of how far each moved the parameters, that draws
            in proportion to length are to rule out; None for no such draws.
        longest: How many of the longest updates are always replayed.
        dependence: Which of the replayed segments of a run with a beacon's seeds are replayed once more
            under another seed, to see that they depend on it: the first and the last, a uniform sample
            besides, or all.
        seed_floor: How far such a replay must end from the sealed state, as a share of its update, for all
            parameter tensors but some with a twentieth of the elements, to show that the segment depends on
            its seed. A segment whose update is below this share of the median one is no evidence either way.
        gap_share: The largest share of segments off the plan's cadence with which precedence can still be
            shown.
        grinding_bits: The most that all gaps together may be worth to an owner who grinds, in bits, with
            which precedence can still be shown.
        free_bytes: The most bytes that no rule derives with which initialisation can still be shown.
        free_share: The most of them as a share of the parameters' bytes, or None for no such cap; 64 bytes
            are always allowed.
        graph_share: The most bytes that program and graphs may compress to, as a share of the parameters'
            bytes, or None; 4,096 bytes are always allowed. Sizes, axes and indexes in a graph can spell out
            weights, and are not counted one by one.
        step_timeout_seconds: How long a worker may go without finishing a step.
        replay_timeout_seconds: How long all replays together may take, or None for no limit.
        memory_bytes: How much address space a worker may use.
        max_threads: The most threads that a bundle may ask a worker to use.
        calibration: Judges native replays outside the recorded environment; without one, only bits count.
        tau_cap: The largest tolerance that a calibration may bring, as a share of the update.
        classical: Judge as the classical protocol does, or a repair of it: by distances. Then `replay`,
            `dependence` and what follows to `graph_share` are without effect, but for `confidence`.
    """

    name: str
    replay: Replay
    require: Mapping[str, str] = field(default_factory=dict)
    confidence: float = 0.95
    tolerated_fraction: float = 0.05
    tolerated_length: float | None = None
    longest: int = 0
    dependence: Replay = Replay.ALL
    seed_floor: float = 0.01
    gap_share: float = 0.25
    grinding_bits: float = 40.0
    free_bytes: int = 1024
    free_share: float | None = 1 / 8
    graph_share: float | None = 1 / 16
    step_timeout_seconds: float = 600.0
    replay_timeout_seconds: float | None = None
    memory_bytes: int = 16 << 30
    max_threads: int = 64
    calibration: Calibration | None = None
    tau_cap: float = 0.1
    classical: Classical | None = None

    def __post_init__(self) -> None:
        """Refuses numbers for which no bound can be stated.

        Raises:
            Error: One is out of range; names it.
        """
        ranges = {
            "confidence": 0 < self.confidence <= MOST_CONFIDENCE,
            "tolerated_fraction": 0 <= self.tolerated_fraction <= 1,
            "tolerated_length": self.tolerated_length is None or 0 <= self.tolerated_length <= 1,
            "tau_cap": 0 < self.tau_cap < math.inf,
        }
        for field_name, held in ranges.items():
            if not held:
                said = getattr(self, field_name)
                raise Error(f"{said!r} is out of range", where=f"policy {self.name!r}: {field_name}")

    @classmethod
    def named(cls, name: str) -> Policy:
        """A policy of `policy_names`: `quick`, `standard`, `full`, those of `jia2021`, or another package's.

        Raises:
            Error: There is no such policy, or what another package offers is none.
        """
        if name in POLICIES:
            return POLICIES[name]
        point = next((point for point in _points() if point.name == name), None)
        if point is None:
            raise Error(
                f"no policy is called {name!r}",
                where="policy",
                advice=f"use one of {', '.join(policy_names())}",
            )
        return _offered(point)

    def normalised(self, reference: float, delta: float = DELTA, distance: str = "l2") -> Policy:
        """The same classical policy with one limit: a share of the distance of two independent models.

        Args:
            reference: The distance of two models that were trained independently, d_ref.
            delta: The share.
            distance: `l1`, `l2`, `linf` or `cosine`.

        Raises:
            Error: The policy is not classical, or its limit is relative to the update; or a number is out of
                range, or there is no such distance.
        """
        return replace(self, classical=self.require_classical().normalised(reference, delta, distance))

    def require_classical(self) -> Classical:
        """Its classical protocol.

        Raises:
            Error: It has none.
        """
        if self.classical is None:
            raise Error(
                f"the policy {self.name!r} compares bits, and has no distances to set",
                where="policy",
                advice="use jia2021 or a repair of it",
            )
        return self.classical

    @property
    def bound_confidence(self) -> float:
        """The confidence of each bound that a sample gives.

        Whether a bundle's lengths are known is no matter: one that hides them is not drawn from less.
        """
        return split_confidence(self.confidence, 1 if self.tolerated_length is None else 2)

    def requiring(self, claims: Mapping[str, str]) -> Policy:
        """The same policy with other demands."""
        return replace(self, require=MappingProxyType(dict(claims)))

    def allowed_free_bytes(self, parameter_bytes: int) -> int:
        """The most free bytes for a model with parameters of so many bytes."""
        if self.free_share is None:
            return self.free_bytes
        return min(self.free_bytes, max(ALWAYS_FREE_BYTES, int(self.free_share * parameter_bytes)))

    def allowed_graph_bytes(self, parameter_bytes: int) -> int | None:
        """The most bytes that such a model's graphs may compress to; None for any."""
        if self.graph_share is None:
            return None
        return max(ALWAYS_GRAPH_BYTES, int(self.graph_share * parameter_bytes))

    def to_json(self) -> dict[str, Any]:
        """All of it, for the verdict."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            **values,
            "replay": self.replay.value,
            "dependence": self.dependence.value,
            "require": dict(self.require),
            "calibration": self.calibration.to_json() if self.calibration else None,
            "classical": self.classical.to_json() if self.classical else None,
        }


def _classical(name: str, classical: Classical) -> Policy:
    demanded = MappingProxyType(_CLASSICAL)
    return Policy(name=name, replay=Replay.SAMPLE, require=demanded, classical=classical)


_RELATIVE = Limits(factors={Distance.L2: TAU}, scale=Scale.RELATIVE)
_JIA2021 = (
    _classical("jia2021", Classical()),
    _classical("jia2021-random", Classical(selection=Selection.RANDOM)),
    _classical("jia2021-relative", Classical(limits=_RELATIVE)),
    _classical("jia2021-random-relative", Classical(selection=Selection.RANDOM, limits=_RELATIVE)),
    _classical(
        "jia2021-bounded",
        Classical(
            initial=InitialTest.KS_CORRECTED,
            selection=Selection.RANDOM,
            limits=_RELATIVE,
            learning_rates=LEARNING_RATES,
        ),
    ),
)
POLICIES: Mapping[str, Policy] = MappingProxyType(
    {
        "quick": Policy(name="quick", replay=Replay.ENDS, require=MappingProxyType(_QUICK)),
        "standard": Policy(
            name="standard",
            replay=Replay.SAMPLE,
            require=MappingProxyType(_STANDARD),
            tolerated_length=0.1,
            longest=10,
        ),
        "full": Policy(name="full", replay=Replay.ALL, require=MappingProxyType(_FULL)),
        **{policy.name: policy for policy in _JIA2021},
    }
)
"""Gradseal's own, by name."""


def policy_names() -> list[str]:
    """The names of all policies, Gradseal's own first; loads none."""
    return [*POLICIES, *sorted({point.name for point in _points()} - set(POLICIES))]


def _points() -> list[EntryPoint]:
    return list(entry_points(group=GROUP))


def _offered(point: EntryPoint) -> Policy:
    """What another package's entry point leads to: a policy, or a function that returns one.

    Raises:
        Error: It cannot be loaded, fails, or is neither.
    """
    where = f"policy {point.name!r} of the package {point.dist.name if point.dist else point.value!r}"
    try:
        found = point.load()
        if callable(found):
            found = found()
    except Exception as e:  # foreign code may raise anything
        raise Error(
            f"cannot be loaded: {type(e).__name__}: {e}", where=where, advice="mend or uninstall that package"
        ) from e
    if not isinstance(found, Policy):
        raise Error(f"is {type(found).__name__}, not a Policy", where=where, advice="see Policy")
    return found
