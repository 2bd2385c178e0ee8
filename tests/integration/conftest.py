"""Bundles that several tests read, recorded once in each test process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bundles import MODELS, record_run

Recorded = Callable[..., Path]


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A closed bundle by model and mode; tests must copy it before they change anything."""
    made: dict[tuple[str, str], Path] = {}

    def bundle(model: str = "mlp", mode: str = "step") -> Path:
        if (model, mode) not in made:
            path = tmp_path_factory.mktemp("recorded") / f"{model}-{mode}"
            record_run(path, MODELS[model], mode=mode)
            made[model, mode] = path
        return made[model, mode]

    return bundle
