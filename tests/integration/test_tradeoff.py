"""The trade-off's jobs, in runs of a few steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

import pytest

from gradseal.attacks.attack import Setting
from gradseal.study.matrix.cases import Case
from gradseal.study.tradeoff import part as tradeoff
from gradseal.study.tradeoff.data import forged, honest_runs
from gradseal.study.tradeoff.rates import Picked
from gradseal.verify.classical import Scale

SETTING = asdict(Setting(steps=18, every=5, batch_size=16))


@pytest.fixture(scope="module", autouse=True)
def _victims() -> Iterator[None]:
    """The victims of this file's jobs, freed at its end."""
    yield
    tradeoff._suite(**SETTING).close()
    tradeoff._suite.cache_clear()


def test_an_honest_run_under_other_numerics_is_rejected_only_below_their_noise() -> None:
    result = tradeoff.measure_honest(seed=1, setting=SETTING, numerics=["bf16"])
    assert result["equal"] == 4
    (run,) = honest_runs(1, json.loads(json.dumps(result)), 5)
    assert (run.variant, run.reduced) == ("bf16", True)
    own = run.scored[Scale.RELATIVE]
    assert len(own.every) == 4
    assert 1e-4 < own.every[0] <= own.every[-1] < 0.5
    assert own.acceptance(Picked.ALL, own.every[-1]) == 1.0
    assert own.acceptance(Picked.ALL, 1e-6) == 0.0


@pytest.mark.parametrize("delta", [0.08, 0.04])
def test_the_infinitesimal_update_passes_whatever_threshold_it_is_made_for(delta: float) -> None:
    value = tradeoff.forge_anew("infinitesimal update", seed=1, delta=delta, tau=0.1, setting=SETTING)
    own = forged(value, delta=delta, tau=0.1, top=5)
    assert own is not None
    assert own.scored[Scale.NORMALISED].acceptance(Picked.ALL, delta) == 1.0
    assert own.scored[Scale.RELATIVE].acceptance(Picked.TOP, 0.5) == 0.0
    # The verifier itself says so too, and of another threshold the opposite.
    assert [one.passed for one in own.case.judged] == [True]
    assert own.scored[Scale.NORMALISED].acceptance(Picked.TOP, delta / 2) == 0.0


def test_drift_made_for_a_relative_limit_stays_below_it() -> None:
    value = tradeoff.forge_anew(
        "drift within tolerance", seed=1, delta=tradeoff.NONE, tau=0.3, setting=SETTING
    )
    case = Case.from_json(value)
    own = forged(value, delta=tradeoff.NONE, tau=0.3, top=5)
    assert own is not None
    assert case.segments == SETTING["steps"]
    assert own.scored[Scale.RELATIVE].acceptance(Picked.ALL, 0.3) == 1.0
    assert own.scored[Scale.RELATIVE].acceptance(Picked.ALL, 0.1) == 0.0
