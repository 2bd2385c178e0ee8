"""What a verifier of the classical protocol checks, as settings.

The protocol, its distances, its top-Q choice and the figures 0.01, 0.008 and 5 are those of Jia et al.,
"Proof-of-Learning: Definitions and Practice", 2021; the absolute limits are the defaults of their released
verifier. Random choice, a tolerance relative to the update, bounds of hyperparameters and the corrected test
are repairs that were proposed since, or are plain. `distribution`, `sampling`, `hyperparameters` and
`nearness` do what is said here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from gradseal.errors import Error
from gradseal.verify.distances import Distance, Distances

RELEASED_LIMITS: Mapping[Distance, float] = MappingProxyType(
    {Distance.L1: 1000.0, Distance.L2: 10.0, Distance.LINF: 0.1, Distance.COSINE: 0.01}
)
DELTA = 0.008
TAU = 0.1
LEARNING_RATES = (1e-4, 1.0)


class InitialTest(StrEnum):
    """The test of state zero: tensor by tensor at 1 % each, or at 1 % for all tensors together."""

    KS = "ks"
    KS_CORRECTED = "ks-corrected"


class Selection(StrEnum):
    """Which segments are replayed: those of the largest updates of each epoch, or as many drawn uniformly."""

    TOP = "top"
    RANDOM = "random"


class Scale(StrEnum):
    """What a limit is a multiple of: nothing, the distance of two independent models, or the update."""

    ABSOLUTE = "absolute"
    NORMALISED = "normalised"
    RELATIVE = "relative"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How far a replay may end from the sealed state. All that are given must hold.

    Args:
        factors: For each distance that is compared, what its limit is, on this scale.
        scale: What the factors are multiplied with.
        reference: The distance of two independently trained models, for normalised limits.
    """

    factors: Mapping[Distance, float]
    scale: Scale = Scale.ABSOLUTE
    reference: float | None = None

    def __post_init__(self) -> None:
        known = {Distance(name): float(factor) for name, factor in self.factors.items()}
        object.__setattr__(self, "factors", MappingProxyType(known))
        if not known or not all(math.isfinite(f) and f >= 0 for f in known.values()):
            raise Error("a limit is a number, not below 0, of at least one distance", where="limits")
        if self.scale is Scale.NORMALISED and not _positive(self.reference):
            raise Error("a reference distance is a finite number above 0", where="reference")

    @property
    def ranked_by(self) -> Distance:
        """The distance that updates are ranked by: the one that is compared, or l2 of several."""
        return next(iter(self.factors)) if len(self.factors) == 1 else Distance.L2

    def allowed(self, distance: Distance, update: Distances) -> float:
        """The limit of a distance, for a segment with this update."""
        factor = self.factors[distance]
        if self.scale is Scale.NORMALISED:
            return factor * (self.reference or 0.0)
        return factor * update.by(distance) if self.scale is Scale.RELATIVE else factor

    def within(self, error: Distances, update: Distances) -> dict[Distance, bool]:
        """For each distance compared, whether a replay so far away keeps its limit; no NaN does."""
        return {
            d: math.isfinite(error.by(d)) and error.by(d) <= self.allowed(d, update) for d in self.factors
        }

    def said(self) -> str:
        """In words."""
        of = {Scale.RELATIVE: " of the update", Scale.NORMALISED: f" of {self.reference or 0:g}"}
        return ", ".join(f"{d} at most {f:g}{of.get(self.scale, '')}" for d, f in self.factors.items())

    def to_json(self) -> dict[str, Any]:
        """For the verdict."""
        factors = {distance.value: factor for distance, factor in self.factors.items()}
        return {"factors": factors, "scale": self.scale.value, "reference": self.reference}


@dataclass(frozen=True, slots=True, kw_only=True)
class Classical:
    """The classical protocol, or a repair of it.

    Args:
        initial: The test of state zero.
        selection: Which segments are replayed.
        top: How many of each epoch, by `Selection.TOP`; as many in all are drawn by `Selection.RANDOM`.
            With 0 or less, all segments are replayed.
        limits: How far a replay may end from the sealed state.
        learning_rates: The least and the largest that any group may have at any step, or None for any.
    """

    initial: InitialTest = InitialTest.KS
    selection: Selection = Selection.TOP
    top: int = 5
    limits: Limits = field(default_factory=lambda: Limits(factors=RELEASED_LIMITS))
    learning_rates: tuple[float, float] | None = None

    def normalised(self, reference: float, delta: float = DELTA, distance: str = "l2") -> Classical:
        """The same with one limit, a share of the distance of two independently trained models.

        Raises:
            Error: Its limits are relative to the update, the distance is none, or a number is out of range.
        """
        if self.limits.scale is Scale.RELATIVE:
            raise Error(
                "its limit is relative to the update, so no reference distance counts",
                where="reference",
                advice="give --delta and --distance alone, or use a policy with absolute limits",
            )
        factors = {distance_named(distance): delta}
        return replace(self, limits=Limits(factors=factors, scale=Scale.NORMALISED, reference=reference))

    def limited(self, delta: float | None = None, distance: str | None = None) -> Classical:
        """The same with one limit, on the scale that it has.

        Args:
            delta: The limit; by default the one that the distance has.
            distance: What is limited; by default the only one that is compared.

        Raises:
            Error: One is missing, or out of range.
        """
        factors = self.limits.factors
        if distance is None and len(factors) > 1:
            raise Error("a limit of which distance?", where="distance", advice=f"one of {', '.join(factors)}")
        named = distance_named(distance) if distance is not None else next(iter(factors))
        if delta is None and named not in factors:
            raise Error(f"no limit of {named} is known", where="delta", advice="give a delta too")
        chosen = factors[named] if delta is None else delta
        return replace(self, limits=replace(self.limits, factors={named: chosen}))

    def to_json(self) -> dict[str, Any]:
        """For the verdict."""
        return {
            "initial": self.initial.value,
            "selection": self.selection.value,
            "top": self.top,
            "limits": self.limits.to_json(),
            "learning_rates": list(self.learning_rates) if self.learning_rates else None,
        }


def distance_named(name: str) -> Distance:
    """The distance of a name.

    Raises:
        Error: There is none.
    """
    if name not in list(Distance):
        advice = f"one of {', '.join(Distance)}"
        raise Error(f"no distance is called {name!r}", where="distance", advice=advice)
    return Distance(name)


def _positive(number: float | None) -> bool:
    return number is not None and math.isfinite(number) and number > 0
