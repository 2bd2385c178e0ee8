"""The trade-off's rates, thresholds and tables, on bundles whose answers are known."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from scipy.stats import hypergeom

from gradseal.study.matrix.cases import Case, Cost, Replays
from gradseal.study.part import Effort
from gradseal.study.proportions import proportion_bounds
from gradseal.study.section import Section
from gradseal.study.tradeoff import part as tradeoff
from gradseal.study.tradeoff import told as tradeoff_told
from gradseal.study.tradeoff.data import Measured, forged, honest_runs, separated
from gradseal.study.tradeoff.rates import (
    Picked,
    absolute,
    acceptance,
    drawn_within,
    least_threshold,
    relative,
)
from gradseal.verify.classical import Scale

COST = Cost(gradients=10.0, flops=1e6, seconds=1.0)
TWO_EPOCHS = Replays(
    epochs=(0, 0, 0, 1, 1, 1),
    equal=(True, False, False, True, False, True),
    errors=(0.0, 0.2, 0.4, 0.0, 1.0, 0.0),
    updates=(5.0, 1.0, 4.0, 5.0, 2.0, 0.0),
)


def case(attack: str, errors: list[float], *, seed: int = 101, arithmetic: str = "native") -> Case:
    """A case of one epoch whose updates are 1, and d_ref 2."""
    return Case(
        attack=attack,
        arithmetic=arithmetic,
        seed=seed,
        steps=len(errors) * 10,
        segments=len(errors),
        distance=0.0,
        accuracy="",
        cost=COST,
        claimed=COST,
        victim=COST,
        judged=(),
        reference=2.0,
        key="",
        replays=Replays(
            epochs=(0,) * len(errors),
            equal=tuple(not error for error in errors),
            errors=tuple(errors),
            updates=(1.0,) * len(errors),
        ),
    )


def honest(errors: list[float], operators: str = "") -> dict[str, object]:
    own = {"operators": operators, "errors": errors, "updates": [1.0] * len(errors)}
    return {"reference": 2.0, "epochs": [0] * len(errors), "equal": len(errors), "variants": {"a": own}}


def measured(**attacks: list[float]) -> Measured:
    runs = [*honest_runs(101, honest([1e-6, 2e-6]), 5), *honest_runs(102, honest([0.02, 0.3], "bf16"), 5)]
    own = {
        name: [one] if (one := forged(case(name, errors).to_json(), delta=0.008, tau=0.1, top=5)) else []
        for name, errors in attacks.items()
    }
    return Measured(honest=runs, cases=own, anew=(), effort=Effort())


def test_scores_are_shares_of_the_reference_or_of_the_segments_own_update() -> None:
    own = absolute(TWO_EPOCHS, 2.0, 2)
    assert own.every == (0.0, 0.0, 0.0, 0.1, 0.2, 0.5)
    # The two longest updates of each epoch: segments 0 and 2, then 3 and 4.
    assert own.top == (0.0, 0.0, 0.2, 0.5)
    assert list(relative(TWO_EPOCHS, 2).every) == pytest.approx([0.0, 0.0, 0.0, 0.1, 0.2, 0.5])


def test_an_error_without_an_update_is_beyond_any_relative_threshold() -> None:
    still = replace(TWO_EPOCHS, errors=(0.0, 0.0, 0.0, 0.0, 0.0, 0.1))
    assert relative(still, 2).acceptance(Picked.ALL, 1e300) == 0.0
    assert relative(still, 2).acceptance(Picked.TOP, 0.0) == 1.0
    lost = replace(TWO_EPOCHS, updates=(math.inf,) * 6)
    assert relative(lost, 2).acceptance(Picked.ALL, 1e300) == 0.0


@pytest.mark.parametrize(
    ("picked", "threshold", "expected"),
    [
        (Picked.ALL, 0.5, 1.0),
        (Picked.ALL, 0.49, 0.0),
        (Picked.TOP, 0.2, 0.0),
        (Picked.TOP, 0.5, 1.0),
        (Picked.UNIFORM, 0.49, 5 / 15),
        (Picked.UNIFORM, 0.1, 1 / 15),
        (Picked.UNIFORM, 0.0, 0.0),
    ],
)
def test_the_probability_to_be_accepted_is_that_of_the_draw(
    picked: Picked, threshold: float, expected: float
) -> None:
    assert absolute(TWO_EPOCHS, 2.0, 2).acceptance(picked, threshold) == pytest.approx(expected)


def test_a_draw_is_hypergeometric() -> None:
    for good in range(8):
        assert drawn_within(good, 12, 4) == pytest.approx(hypergeom(12, good, 4).pmf(4))
    assert drawn_within(3, 3, 0) == 0.0


def test_the_least_threshold_is_where_the_mean_acceptance_gets_there() -> None:
    two = [absolute(TWO_EPOCHS, 2.0, 2), absolute(TWO_EPOCHS, 1.0, 2)]
    assert least_threshold(two, Picked.ALL, 0.5) == 0.5
    assert least_threshold(two, Picked.ALL, 0.51) == 1.0
    for share in (0.05, 0.3, 0.9):
        place = least_threshold(two, Picked.UNIFORM, share)
        assert acceptance(two, Picked.UNIFORM, place) >= share
        assert acceptance(two, Picked.UNIFORM, math.nextafter(place, 0.0)) < share
    assert least_threshold([], Picked.ALL, 0.5) == math.inf


def test_a_threshold_separates_unless_a_bundle_passes_below_honest_noise() -> None:
    found = measured(line=[0.5, 0.5], near=[0.1, 0.1], true=[0.0, 0.0])
    apart = {
        (name, reduced): separated(found, name, Scale.NORMALISED, Picked.ALL, reduced=reduced)
        for name in found.attacks
        for reduced in (False, True)
    }
    assert apart == {
        ("line", False): True,
        ("line", True): True,
        ("near", False): True,
        ("near", True): False,
        ("true", False): False,
        ("true", True): False,
    }


def test_honest_rates_count_runs_of_the_precision_that_is_asked_for() -> None:
    found = measured()
    assert found.rejected(Scale.NORMALISED, Picked.ALL, 0.1, reduced=False)[0] == 0.0
    assert found.rejected(Scale.NORMALISED, Picked.ALL, 0.1, reduced=True) == (
        0.5,
        *proportion_bounds(1, 2),
    )
    none = replace(found, honest=())
    assert math.isnan(none.rejected(Scale.RELATIVE, Picked.ALL, 0.1, reduced=True)[0])


def test_a_run_counts_once_as_rejected_if_some_variant_rejects_it() -> None:
    value = honest([0.3, 1e-6])
    value["variants"] = {
        name: {"operators": "", "errors": errors, "updates": [1.0, 1.0]}
        for name, errors in (("a", [0.3, 1e-6]), ("b", [1e-6, 0.3]), ("c", [1e-6, 1e-6]))
    }
    quiet = honest_runs(102, honest([1e-6, 1e-6]), 1)
    found = replace(measured(), honest=[*honest_runs(101, value, 1), *quiet])
    for picked in (Picked.ALL, Picked.TOP):
        assert found.rejected(Scale.NORMALISED, picked, 0.1, reduced=False) == (0.5, *proportion_bounds(1, 2))
    # One of two segments is drawn, and each is beyond under some variant: a mean of probabilities, no count.
    rate, low, high = found.rejected(Scale.NORMALISED, Picked.UNIFORM, 0.1, reduced=False)
    assert rate == 0.5 and math.isnan(low) and math.isnan(high)
    assert found.numerics(reduced=False) == "a, b, c"


EFFORT = Effort(seeds=1)


def results() -> dict[str, object]:
    """Results by the names of the jobs that a study of one seed has."""
    found: dict[str, object] = {}
    for job in tradeoff.plan(EFFORT):
        if job.function is tradeoff.measure_honest:
            found[job.name] = honest([1e-6, 0.05], "tf32")
        elif job.function is tradeoff.forge_anew:
            errors = [job.arguments["delta"] * 1.9, 0.0]
            made = case(job.arguments["attack"], errors if errors[0] < 1 else [job.arguments["tau"] * 0.9])
            found[job.name] = made.to_json()
    errors = [0.015, 0.015]
    found["matrix honest native 101"] = case("honest", [0.0, 0.0]).to_json()
    found["matrix infinitesimal update native 101"] = case("infinitesimal update", errors).to_json()
    found["matrix honest exact 101"] = case("honest", [0.0, 0.0], arithmetic="exact").to_json()
    found["matrix infinitesimal update exact 101"] = case(
        "infinitesimal update", errors, arithmetic="exact"
    ).to_json()
    broken = replace(case("gluing", errors), replays=None)
    found["matrix gluing native 101"] = broken.to_json()
    return found


@pytest.fixture(scope="module")
def section() -> Section:
    return tradeoff.tell(EFFORT, results())


def test_the_section_says_where_an_attack_passes_and_what_honest_runs_suffer_there(section: Section) -> None:
    tables = {table.title: table for table in section.tables}
    row = next(t for title, t in tables.items() if title.endswith("absolute limits")).rows
    assert [cells[:3] for cells in row] == [("infinitesimal update", "1", "0.0075")]
    assert any("accepts, of 1 attacks" in said and "1 by top-Q" in said for said in section.said)
    assert section.figures["accepted, absolute, infinitesimal update, top-Q"] == 1.0
    assert section.figures["accepted, relative, made for the threshold"] == 1.0
    # In TF32 the honest run's largest segment is 0.05 / 2 = 0.025 of d_ref, above δ = 0.008.
    assert section.figures["honest rejected, absolute, any precision"] == 1.0
    assert "2 of 2 segments of honest runs replay bit for bit" in section.said[-1]


def test_numerics_are_named_as_they_were_measured(section: Section) -> None:
    text = " ".join(section.said) + " ".join(table.note for table in section.tables)
    assert "elsewhere" not in text
    assert "bfloat16" not in text
    assert "chosen after the fact for each attack, splits the 1 honest replays measured (a)" in text
    # Nothing was measured in single precision, and nothing is said of it.
    assert sum("Honest runs, all segments" in said for said in section.said) == 2
    assert not any("; under" in said for said in section.said if said.startswith("Honest runs"))
    own = results()
    name = next(name for name, value in own.items() if name.startswith("tradeoff honest"))
    own[name] = {**own[name], "left_out": {"threads 2": "one processor"}}  # type: ignore[dict-item]
    notes = tradeoff.tell(EFFORT, own).notes
    assert any("threads 2 (run" in note and "one processor" in note for note in notes)


def test_attacks_are_true_runs_only_if_all_their_bundles_are(section: Section) -> None:
    own = results()
    native = tradeoff.tell(EFFORT, own).said[-1]
    assert "All bundles of 1 of 1 attacks" in native and "refuse: none." in native
    mixed = [
        case("honest", [0.0], arithmetic="exact"),
        case("gluing", [0.0], arithmetic="exact"),
        case("gluing", [0.1], seed=102, arithmetic="exact"),
        case("distillation", [0.0], arithmetic="exact"),
    ]
    said = tradeoff_told._in_exact(mixed)[0]
    assert "refuse: distillation. In some bundles and not in others: gluing." in said
    assert "All bundles of 0 of 2 attacks" in said


def test_what_was_not_measured_is_said(section: Section) -> None:
    assert "matrix gluing native 101 (its bundle cannot be replayed whole)" in section.notes[-1]
    assert "matrix zhang 1" not in section.notes[-1]
    assert tradeoff.tell(EFFORT, {}).tables == ()


def test_curves_rise_for_attacks_and_fall_for_honest_runs(section: Section) -> None:
    plots = {plot.name: plot for plot in section.plots}
    series = {one.name: one for one in plots["tradeoff-absolute"].series}
    rejected, accepted = (
        series["honest rejected: any precision"],
        series["accepted: infinitesimal update, top-Q"],
    )
    assert rejected.y == tuple(sorted(rejected.y, reverse=True))
    assert accepted.y == tuple(sorted(accepted.y))
    for one in (rejected, accepted):
        assert all(low <= y <= high for low, y, high in zip(one.low, one.y, one.high, strict=True))
    assert series["accepted: infinitesimal update, made for the threshold"].y == (1.0,) * 4
    assert Section.from_json(json.loads(json.dumps(section.to_json()))) == section
