"""What the trade-off measured: honest runs under other numerics, attacks, and the rates that follow.

A rate of honest runs counts runs: one is rejected if its replay under some of the numerics is, since replays
of one run are not independent. Only numerics that gave other bits are in it. A rate of an attack is a mean
over victims of exact probabilities; its band goes from the least victim to the largest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gradseal.study.matrix.cases import Case, Replays
from gradseal.study.part import Effort
from gradseal.study.proportions import proportion_bounds
from gradseal.study.tradeoff.rates import Picked, Scored, absolute, acceptance, least_threshold, relative
from gradseal.verify.classical import TAU, Scale

SCALES = (Scale.NORMALISED, Scale.RELATIVE)
HONEST = ("honest", "honest dated")
"""Not attacks."""

ERROR = 0.05
"""A threshold splits replays from bundles if at most so much of either is on the wrong side."""

REDUCED = ("tf32", "bf16")
"""Precisions of products that are below float32's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Honest:
    """One honest run, replayed under one variant of the numerics.

    Args:
        seed: Of the run.
        variant: Which.
        reduced: Whether the variant's products have less than single precision.
        replays: What it found.
        reference: d_ref.
        top: How many segments of an epoch top-Q replays.
        scored: On each scale.
    """

    seed: int
    variant: str
    reduced: bool
    replays: Replays
    reference: float
    top: int
    scored: Mapping[Scale, Scored]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forged:
    """One bundle of an attack.

    Args:
        case: The attack, judged.
        delta: What it was made for, as a share of d_ref.
        tau: And as a share of the update.
        scored: On each scale.
    """

    case: Case
    delta: float
    tau: float
    scored: Mapping[Scale, Scored]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All that was measured.

    Args:
        honest: Runs and variants.
        cases: The matrix's bundles, in native arithmetic.
        anew: Bundles made for other tolerances.
        effort: How much was asked for.
        left_out: Numerics under which nothing was measured, by name, with the reasons.
    """

    honest: Sequence[Honest]
    cases: Mapping[str, Sequence[Forged]]
    anew: Sequence[Forged]
    effort: Effort
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def runs(self, *, reduced: bool) -> list[Honest]:
        """Honest runs under variants of single precision or better, or under those of less too."""
        return [one for one in self.honest if reduced or not one.reduced]

    def numerics(self, *, reduced: bool) -> str:
        """The variants that those were replayed under, by name."""
        return ", ".join(dict.fromkeys(one.variant for one in self.runs(reduced=reduced)))

    def precisions(self) -> list[bool]:
        """Values of `reduced` that give different runs, and some."""
        return [r for r in (False, True) if any(one.reduced is r for one in self.honest)]

    def worst(self, scale: Scale, *, reduced: bool) -> list[Scored]:
        """Of each honest run what a segment's farthest replay was away, of all these variants."""
        by_seed: dict[int, list[Honest]] = {}
        for one in self.runs(reduced=reduced):
            by_seed.setdefault(one.seed, []).append(one)
        found = []
        for own in by_seed.values():
            errors = tuple(map(max, zip(*(one.replays.errors for one in own), strict=True)))
            replays = replace(own[0].replays, equal=tuple(not e for e in errors), errors=errors)
            found.append(scored(replays, own[0].reference, own[0].top)[scale])
        return found

    def rejected(
        self, scale: Scale, picked: Picked, threshold: float, *, reduced: bool
    ) -> tuple[float, float, float]:
        """The rate of honest runs that some variant rejects, and its interval at 95 %.

        NaN and all that is possible without a run. Ends are NaN where a draw decides, as then the rate is a
        mean of probabilities and no count.
        """
        own = self.worst(scale, reduced=reduced)
        if not own:
            return math.nan, 0.0, 1.0
        hits = sum(1 - one.acceptance(picked, threshold) for one in own)
        ends = proportion_bounds(int(hits), len(own)) if picked is not Picked.UNIFORM else (math.nan,) * 2
        return hits / len(own), *ends

    def accepted(self, attack: str, scale: Scale, picked: Picked, threshold: float) -> float:
        """The rate of false acceptance of the matrix's bundles of an attack."""
        return acceptance([one.scored[scale] for one in self.cases[attack]], picked, threshold)

    @property
    def attacks(self) -> list[str]:
        """The attacks that the matrix has."""
        return [name for name in self.cases if name not in HONEST]

    def usual(self, scale: Scale) -> float:
        """The threshold that the matrix's policies have on this scale."""
        return self.effort.setting.delta if scale is Scale.NORMALISED else TAU


def scored(replays: Replays, reference: float, top: int) -> dict[Scale, Scored]:
    """A bundle's segments on both scales."""
    return {Scale.NORMALISED: absolute(replays, reference, top), Scale.RELATIVE: relative(replays, top)}


def forged(value: Mapping[str, Any], *, delta: float, tau: float, top: int) -> Forged | None:
    """A case from its JSON form; None if its bundle could not be replayed whole."""
    case = Case.from_json(value)
    if case.replays is None or not case.replays.errors:
        return None
    return Forged(case=case, delta=delta, tau=tau, scored=scored(case.replays, case.reference, top))


def honest_runs(seed: int, value: Mapping[str, Any], top: int) -> list[Honest]:
    """One run's variants from the result of its job."""
    found = []
    for name, own in value["variants"].items():
        replays = Replays(
            epochs=tuple(value["epochs"]),
            equal=tuple(error == 0 for error in own["errors"]),
            errors=tuple(own["errors"]),
            updates=tuple(own["updates"]),
        )
        found.append(
            Honest(
                seed=seed,
                variant=name,
                reduced=own["operators"] in REDUCED,
                replays=replays,
                reference=value["reference"],
                top=top,
                scored=scored(replays, value["reference"], top),
            )
        )
    return found


def separated(measured: Measured, name: str, scale: Scale, picked: Picked, *, reduced: bool) -> bool:
    """Whether some threshold splits the honest replays measured from an attack's bundles in the matrix.

    It is chosen after the fact, with at most 5 % of either on the wrong side: a statement on these replays
    and bundles, and no error rate for others.
    """
    honest = [one.scored[scale] for one in measured.runs(reduced=reduced)]
    own = [one.scored[scale] for one in measured.cases[name]]
    above = math.nextafter(ERROR, 1.0)
    return least_threshold(honest, picked, 1 - ERROR) < least_threshold(own, picked, above)


def tuning(one: Forged) -> tuple[Scale, float]:
    """The scale that limits an attack made anew, and its threshold there."""
    return (Scale.NORMALISED, one.delta) if one.delta < 1 else (Scale.RELATIVE, one.tau)
