"""Two runs of the part *noise*: recorded, then replayed under variants of numerics.

Segments of the first are drawn uniformly, for a tolerance, and segments of the second, of another seed, for a
test of it on what it has not seen. A few of the first run, from its beginning and its last third, are
followed far beyond their end, to see how an error grows when training is fresh and when it is warmed up.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradseal.errors import Error
from gradseal.program.initialise import initialise
from gradseal.program.randomness import derive, permutation
from gradseal.proof.note import SigningKey
from gradseal.recipes.recipe import Recipe, load_recipe
from gradseal.record.recorder import record
from gradseal.study.noise.measure import Measurement, measure, round_marks

OPTIMIZERS = ("sgd", "adamw")
SEGMENTS = 59
"""Calibrated on, the fewest whose largest bounds a rate of 5 % with confidence 95 %; and as many held out."""

OTHER_RUN = 1000
"""What is added to the seed for the run that is held out."""

_KEY = SigningKey(name="study.example", seed=bytes(32))


def run_noise(
    *,
    recipe: str,
    optimizer: str,
    seed: int,
    segments: int,
    every: int,
    batch_size: int,
    followed: int,
    steps_followed: int,
    family: str,
) -> dict[str, Any]:
    """Records and measures; the result is for `told`.

    Args:
        recipe: What is trained.
        optimizer: `sgd` or `adamw`; the recipe's own where it is of that kind.
        seed: Of the run, and of the draw.
        segments: How many a run has; at least `SEGMENTS`.
        every: Steps in a segment.
        batch_size: Samples in a batch.
        followed: How many segments are followed beyond their end, fresh and warmed up.
        steps_followed: How far.
        family: Of numerics.

    Returns:
        `rows` of segment, variant, step and relative l2 error (None where that is not finite); which segments
        were `calibration`, `held_out`, `fresh` and `warmed`; the `variants` with whether each is of reduced
        precision, those `left_out`, how many of how many segments were `equal`, and the environment.
    """
    drawn, others = (_drawn(own, segments) for own in (seed, seed + OTHER_RUN))
    fresh = list(range(followed))
    ends = segments - -(-steps_followed // every)
    later = range(2 * segments // 3, ends + 1)
    warmed = [later[i * len(later) // followed] for i in range(followed)] if later else []
    marks = {segment: round_marks(every) for segment in drawn}
    far = (*round_marks(steps_followed), every)
    marks |= dict.fromkeys(fresh + warmed, far)
    found: list[Measurement] = []
    for own, asked in ((seed, marks), (seed + OTHER_RUN, dict.fromkeys(others, (every,)))):
        with tempfile.TemporaryDirectory(prefix="gradseal-noise-run-") as directory:
            bundle = Path(directory) / "run"
            _record(bundle, load_recipe(recipe), optimizer, segments * every, every, batch_size, own)
            variants = found[0].variants if found else None
            found.append(measure(bundle, segments=list(asked), marks=asked, family=family, variants=variants))
    first, other = found
    return {
        **_json(first),
        "rows": [*_rows(first, 0), *_rows(other, segments)],
        "equal": first.equal + other.equal,
        "of": first.of + other.of,
        "calibration": drawn,
        "held_out": [segments + i for i in others],
        "fresh": fresh,
        "warmed": warmed,
        "every": every,
    }


def _drawn(seed: int, segments: int) -> list[int]:
    """The segments of a run, drawn uniformly, for a tolerance or for its test."""
    key = derive(seed.to_bytes(32, "big"), "noise", 0)
    return [int(i) for i in permutation(key, segments)[:SEGMENTS]]


def _record(  # noqa: PLR0917 - what a run is
    path: Path, recipe: Recipe, optimizer: str, steps: int, every: int, batch_size: int, seed: int
) -> None:
    with initialise():
        model = recipe.build()
    chosen = optimizer_of(recipe, optimizer, model)
    with record(
        path,
        model,
        chosen,
        loss=recipe.loss,
        data=recipe.data,
        batch_size=batch_size,
        steps=steps,
        every=every,
        key=_KEY,
        seed=seed,
        schedule=recipe.schedule(chosen, steps) if recipe.schedule else None,
        clip=recipe.clip,
        progress=False,
    ) as run:
        for batch in run:
            run.step(batch)


def optimizer_of(recipe: Recipe, name: str, model: nn.Module) -> torch.optim.Optimizer:
    """The recipe's own optimizer, if it is of the kind named; else one with usual hyperparameters.

    Raises:
        Error: No such kind.
    """
    own = recipe.optimizer(model)
    match name:
        case "sgd":
            usual = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
            return own if isinstance(own, torch.optim.SGD) else usual
        case "adamw":
            return own if isinstance(own, torch.optim.AdamW) else torch.optim.AdamW(model.parameters())
    raise Error(f"the study has no optimizer {name!r}", where="optimizer")


def _json(measured: Measurement) -> dict[str, Any]:
    return {
        "variants": {v.name: v.operators in ("tf32", "bf16") for v in measured.variants},
        "left_out": dict(measured.left_out),
        "environment": asdict(measured.base),
    }


def _rows(measured: Measurement, before: int) -> list[list[Any]]:
    """Segment, variant, step and relative error, of a run whose segments are numbered from `before` on."""
    return [
        [before + m.segment, m.variant, m.step, m.relative if math.isfinite(m.relative) else None]
        for m in measured.measured
    ]
