"""The part *noise*: how far native replays end apart, by source, and whether a calibrated tolerance holds.

Quick, it takes a small net on digits; with everything, ResNet-20 on Fashion-MNIST and a transformer on text
too, and the products of reduced precision that accelerators have. Each with SGD and AdamW.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradseal.recipes.fashion import DIRECTORY
from gradseal.study.jobs import Job
from gradseal.study.noise.numerics import FLOAT32, REDUCED
from gradseal.study.noise.run import OPTIMIZERS, SEGMENTS, run_noise
from gradseal.study.noise.told import Case, tell_cases
from gradseal.study.part import Effort, Part
from gradseal.study.section import Section

TITLE = "The noise of native replay"
_QUICK = {"segments": 2 * SEGMENTS, "every": 2, "batch_size": 16, "followed": 2, "steps_followed": 20}
_FULL = {"segments": 2 * SEGMENTS, "every": 5, "batch_size": 16, "followed": 4, "steps_followed": 50}
_LARGE = {"segments": 2 * SEGMENTS, "every": 3, "batch_size": 8, "followed": 2, "steps_followed": 20}
_NO_FASHION = (
    "ResNet-20 was not measured: Fashion-MNIST is not on this machine (apt install dataset-fashion-mnist)."
)
_QUICKLY = (
    "Measured on digits alone, and with numerics of float32; with --full ResNet-20, the text transformer and "
    "reduced precision come too."
)


def cases(effort: Effort) -> list[Case]:
    """The runs that are measured."""
    recipes = {"digits": _FULL if effort.full else _QUICK}
    if effort.full:
        recipes |= {"fashion": _LARGE} if _has_fashion() else {}
        recipes |= {"text": _LARGE}
    return [
        Case(recipe=recipe, optimizer=optimizer, sizes=sizes)
        for recipe, sizes in recipes.items()
        for optimizer in OPTIMIZERS
    ]


def _has_fashion() -> bool:
    return DIRECTORY.is_dir()


def _plan(effort: Effort) -> list[Job]:
    family = REDUCED if effort.full else FLOAT32
    return [
        Job(
            name=case.name,
            function=run_noise,
            arguments={
                "recipe": case.recipe,
                "optimizer": case.optimizer,
                "seed": effort.seed,
                "family": family,
                **case.sizes,
            },
        )
        for case in cases(effort)
    ]


def _tell(effort: Effort, results: Mapping[str, Any]) -> Section:
    notes = [] if effort.full else [_QUICKLY]
    if effort.full and not _has_fashion():
        notes.append(_NO_FASHION)
    found = {case: results[case.name] for case in cases(effort) if case.name in results}
    return tell_cases(PART.name, TITLE, found, notes)


PART = Part(
    name="noise",
    title=TITLE,
    question="How far do honest replays end apart under other numerics, and does a tolerance that was "
    "calibrated on some segments hold on others?",
    plan=_plan,
    tell=_tell,
)
