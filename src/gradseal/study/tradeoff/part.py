"""Part 2 of the study, the trade-off: what is falsely rejected against what is falsely accepted.

The claim is that of Fang et al. 2023, "Proof-of-Learning is Currently More Broken Than You Think": training
is noisy, so every threshold trades honest proofs that it rejects against forged ones that it accepts.
Measured:

1. Honest runs, every segment replayed under other numerics: how far honest replays end away.
2. Every attack of the matrix, every segment replayed where it was made: what a verifier without noise sees.
3. Attacks forged anew for other thresholds. A threshold is public, and an attack is made for it: one bundle's
   curve says when *that* bundle is caught, not whether the threshold stops the attack.

Of a verifier only the comparison of replays counts here, not its test of state zero or its bounds. A
threshold is δ as a share of d_ref, or τ as a share of the segment's update, both by l2.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from gradseal.attacks.attack import Setting
from gradseal.attacks.catalogue import load_attack
from gradseal.program.native import current_environment
from gradseal.recipes.recipe import load_recipe
from gradseal.study.jobs import Job
from gradseal.study.matrix.cases import Case
from gradseal.study.matrix.part import plan as matrix_jobs
from gradseal.study.matrix.suite import Suite
from gradseal.study.noise.measure import measure
from gradseal.study.noise.numerics import REDUCED, variants_for
from gradseal.study.part import Effort, Part
from gradseal.study.section import Section
from gradseal.study.tradeoff.data import Forged, Honest, Measured, forged, honest_runs
from gradseal.study.tradeoff.told import told

RECIPE = "digits"
NONE = 1e9
"""A tolerance that forbids nothing."""

NUMERICS = ("width default", "tf32", "bf16")
"""Under which honest runs are replayed; each is a process, and a quick study has no more time."""

FULL_NUMERICS = (*NUMERICS, "threads 2", "width avx2", "onednn off", "mkl compatible", "order", "float64")

DELTAS = (4.0, 2.0, 0.5)
"""Thresholds for which the infinitesimal update is made anew, as multiples of the setting's δ."""

FIRST_DELTAS = (*DELTAS, 0.25)
"""Those for the first victim: the smallest is the dearest."""

FULL_DELTAS = (*FIRST_DELTAS, 0.125, 0.03125)
DRIFT_DELTAS = (0.25,)
"""And drift, without a limit relative to the update."""

DRIFT_TAUS = (0.3, 0.01)
"""And drift without a limit relative to d_ref: values of τ."""


def plan(effort: Effort) -> list[Job]:
    """The matrix's cases, honest runs under other numerics, and attacks made for other thresholds."""
    jobs = matrix_jobs(effort)
    for number in range(effort.seeds):
        seed = effort.seed + number
        same = {"seed": seed, "setting": asdict(effort.setting)}
        group = f"tradeoff {seed}"
        jobs.append(
            Job(
                name=f"tradeoff honest {seed}",
                function=measure_honest,
                arguments={**same, "numerics": list(FULL_NUMERICS if effort.full else NUMERICS)},
                group=group,
            )
        )
        for name, delta, tau in _anew(effort, first=not number):
            jobs.append(
                Job(
                    name=f"tradeoff {name} {delta:g} {tau:g} {seed}",
                    function=forge_anew,
                    arguments={**same, "attack": name, "delta": delta, "tau": tau},
                    group=group,
                )
            )
    return jobs


def tell(effort: Effort, results: Mapping[str, Any]) -> Section:
    """What came of them."""
    top, usual = effort.setting.top, effort.setting
    honest: list[Honest] = []
    cases: dict[str, list[Forged]] = {}
    exact, anew, missing = [], [], []
    left_out: dict[str, list[str]] = {}
    for job in plan(effort):
        value = results.get(job.name)
        if value is None:
            missing.append(job.name)
        elif job.function is measure_honest:
            honest += honest_runs(job.arguments["seed"], value, top)
            for name, reason in value.get("left_out", {}).items():
                left_out.setdefault(name, []).append(f"run {job.arguments['seed']}: {reason}")
        elif job.function is forge_anew:
            delta, tau = job.arguments["delta"], job.arguments["tau"]
            anew.append(forged(value, delta=delta, tau=tau, top=top))
        elif (case := Case.from_json(value)).arithmetic == "exact":
            exact.append(case)
        elif own := forged(value, delta=usual.delta, tau=usual.tau, top=top):
            cases.setdefault(case.attack, []).append(own)
        else:
            missing.append(f"{job.name} (its bundle cannot be replayed whole)")
    made = [one for one in anew if one is not None]
    measured = Measured(honest=honest, cases=cases, anew=made, effort=effort, left_out=left_out)
    return told(measured, exact, part=PART.name, title=PART.title, missing=missing)


def measure_honest(seed: int, setting: Mapping[str, Any], numerics: Sequence[str]) -> dict[str, Any]:
    """An honest run, each segment replayed under each of these numerics that this machine can have.

    Returns:
        `reference`, d_ref; `epochs`, by segment; `equal`, how many segments the run's own environment
        replayed with its bits; `variants`, for each its products' precision (empty for the run's own), and by
        segment the errors and the updates (l2); `left_out`, with the reason.
    """
    size = Setting(**setting)
    with tempfile.TemporaryDirectory() as directory:
        url = str(Path(directory) / "honest")
        case = _suite(**setting).judge(load_attack("honest"), seed=seed, exact=False, target=url)
        offered, lacking = variants_for(current_environment(), REDUCED)
        variants = [own for own in offered if own.name in numerics]
        ends = {i: [min(size.every, case.steps - i * size.every)] for i in range(case.segments)}
        found = measure(url, segments=list(ends), variants=variants, marks=ends)
    by_variant: dict[str, dict[str, Any]] = {
        own.name: {"operators": own.operators, "errors": [], "updates": []} for own in found.variants
    }
    for one in sorted(found.measured, key=lambda one: one.segment):
        by_variant[one.variant]["errors"].append(_known(one.error.l2))
        by_variant[one.variant]["updates"].append(one.update.l2)
    return {
        "reference": case.reference,
        "epochs": list(case.replays.epochs) if case.replays else [],
        "variants": by_variant,
        "equal": found.equal,
        "left_out": {name: why for name, why in lacking.items() if name in numerics} | dict(found.left_out),
    }


def _known(error: float) -> float:
    return math.inf if math.isnan(error) else error


def forge_anew(
    attack: str, seed: int, delta: float, tau: float, setting: Mapping[str, Any]
) -> dict[str, Any]:
    """An attack that knows these tolerances; as `Case.to_json`."""
    suite = _suite(**setting).under(delta=delta, tau=tau)
    return suite.judge(load_attack(attack), seed=seed, exact=False).to_json()


def _anew(effort: Effort, *, first: bool) -> list[tuple[str, float, float]]:
    """Which attacks are made for which tolerances; in a quick study drift has one victim."""
    usual = effort.setting.delta
    factors = FULL_DELTAS if effort.full else FIRST_DELTAS if first else DELTAS
    wanted = [("infinitesimal update", usual * factor, effort.setting.tau) for factor in factors]
    if first or effort.full:
        wanted += [("drift within tolerance", usual * factor, NONE) for factor in DRIFT_DELTAS]
        wanted += [("drift within tolerance", NONE, tau) for tau in DRIFT_TAUS]
    if effort.full:
        wanted += [("directed retraining", usual * factor, NONE) for factor in (4.0, 0.5)]
    return wanted


@lru_cache(maxsize=1)
def _suite(**setting: Any) -> Suite:
    """The judge of this process; its victims serve all jobs of a group."""
    return Suite(load_recipe(RECIPE), replace(Setting(), **setting), ("jia2021-normalised",))


PART = Part(
    name="tradeoff",
    title="The trade-off",
    question="As the threshold of a comparison varies, which honest runs does it reject, and which forged "
    "ones does it accept?",
    plan=plan,
    tell=tell,
)
