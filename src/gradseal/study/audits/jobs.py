"""The measurements of the study's part on audits: jobs, each a function that returns JSON values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from gradseal.attacks.attack import Setting
from gradseal.errors import Error
from gradseal.recipes.recipe import load_recipe
from gradseal.store.files import FsspecFiles
from gradseal.study.audits.audited import audited
from gradseal.study.audits.mixes import KINDS, cheapest, of_cost, replayed_probabilities
from gradseal.study.audits.provers import LAWS, policy_of, simulate
from gradseal.study.audits.response import Array, Ground, Mix, best_response
from gradseal.study.matrix.suite import Suite

DETECTION = 0.95
INFLATIONS = {"as they are": 1.0, "twice as long": 2.0, "ten times as long": 10.0, "without limit": math.inf}
"""How long true segments may be made in all, of their own length."""

LONG_SEGMENTS, LONG_DISPLACEMENT = 10_000, 0.05
"""The long run, and how far a prover of it must get, as a share of the path: in a walk that share falls with
the root of the number of steps."""

SHARES = tuple(float(one) for one in np.geomspace(0.005, 1.0, 20))
"""The costs at which audits are measured, as shares of the segments."""

_BATCH = 16


def measure_digits(seed: int, steps: int) -> dict[str, Any]:
    """Audits of a run of digits, a segment a step."""
    lengths, displacement = _digits(seed, steps)
    return _measured(np.array(lengths), displacement)


def measure_long() -> dict[str, Any]:
    """Audits of the long run."""
    lengths = long_lengths(LONG_SEGMENTS)
    return _measured(lengths, LONG_DISPLACEMENT * float(lengths.sum()))


def simulate_law(law: str, segments: int, seed: int, policy: Sequence[float], hashed: bool) -> list[Any]:
    """Simulated provers on lengths of one law."""
    lengths = LAWS[law](np.random.default_rng(seed), segments)
    return _simulated(lengths, law, seed, policy, hashed=hashed)


def simulate_digits(seed: int, steps: int, policy: Sequence[float]) -> list[Any]:
    """Simulated provers on the lengths of a run of digits."""
    return _simulated(np.array(_digits(seed, steps)[0]), "digits", seed, policy)


def long_lengths(segments: int) -> Array:
    """A long run's lengths, made up: they fall with the root of time, with log-normal noise of a third."""
    noise = np.random.default_rng(7).lognormal(0.0, 0.3, segments)
    lengths: Array = noise / np.sqrt(1 + np.arange(segments) / 200)
    return lengths


@cache
def _digits(seed: int, steps: int) -> tuple[tuple[float, ...], float]:
    """The lengths of a run of digits, and how far it went."""
    suite = Suite(load_recipe("digits"), Setting(steps=steps, every=1, batch_size=_BATCH))
    try:
        run = audited(FsspecFiles(suite.victim(seed, False).bundle))
    finally:
        suite.close()
    if not run.displacement:
        raise Error("the run's way from start to end is not known, or none", where="digits")
    return tuple(run.lengths.tolist()), run.displacement


def _simulated(
    lengths: Array, law: str, seed: int, policy: Sequence[float], *, hashed: bool = False
) -> list[Any]:
    confidence, forged, length, longest = policy
    demanded = policy_of(confidence, forged, length, int(longest))
    return [one.to_json() for one in simulate(demanded, lengths, law=law, seed=seed, hashed=hashed)]


def _measured(lengths: Array, displacement: float) -> dict[str, Any]:
    """Curves of detection against cost by kind and inflation, and the cheapest mixes."""
    inner, grounds = lengths[1:-1], {}
    for name, inflation in INFLATIONS.items():
        grounds[name] = Ground(inner, displacement, inflation)
    mixes = {kind: [of_cost(inner, kind, share * len(inner)) for share in SHARES] for kind in KINDS}
    return {
        "segments": len(lengths),
        "displacement": displacement / float(lengths.sum()),
        "curves": {
            name: {kind: [_point(inner, ground, mix) for mix in own] for kind, own in mixes.items()}
            for name, ground in grounds.items()
        },
        "cheapest": {name: _cheapest(ground, len(lengths)) for name, ground in grounds.items()},
    }


def _point(lengths: Array, ground: Ground, mix: Mix) -> list[float]:
    """Which share of segments is replayed, how often the best response is seen, and what it forges."""
    response = best_response(ground, mix)
    cost = 2 + float(replayed_probabilities(lengths, mix).sum())
    return [cost / (len(lengths) + 2), response.detection, response.forged]


def _cheapest(ground: Ground, segments: int) -> dict[str, float]:
    mix, cost = cheapest(ground, DETECTION, points=24)
    return {
        "longest": mix.longest,
        "uniform": mix.uniform,
        "by length": mix.by_length,
        "share": (cost + 2) / segments,
    }
