"""Part 6, the endpoint: does it help to know W_T, once every segment must replay exactly?

Data on what Fang et al. 2023, "Proof-of-Learning is Currently More Broken Than You Think", leave open:
whether directed retraining can reach a given endpoint for less than its training cost, if no tolerance is
granted. Measured on digits: how near honest retraining comes by chance, how near a declared pull and at which
price in free bytes, how near an undeclared one for each tolerance, what distillation reaches, and how often
the permutation test of `verify.pull` errs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gradseal.study.endpoint.errors import TESTS, errors_told
from gradseal.study.endpoint.permutations import honest, pulled, related
from gradseal.study.endpoint.runs import declared, distilled, retrained, undeclared, verified
from gradseal.study.endpoint.told import Found, plots, victims_told
from gradseal.study.jobs import Job
from gradseal.study.part import Effort, Part
from gradseal.study.section import Section

PULLS = (0.005, 0.05, 0.5)
TOLERANCES = (0.03, 0.1, 0.3)
TEST_PULLS = (0.0002, 0.001, 0.005, 0.05)
VERIFIED_PULL = 0.05


def plan(effort: Effort) -> list[Job]:
    """The jobs: those of one victim after another, and the tests."""
    seeds = range(effort.seed, effort.seed + (effort.seeds if effort.full else 1))
    jobs = [job for seed in seeds for job in _of_victim(effort, seed)]
    size: dict[str, Any] = {"seed": effort.seed, "batch_size": 16, "steps": 300 if effort.full else 60}
    runs = (400, 40, 40) if effort.full else (40, 6, 6)
    tests: tuple[tuple[Any, dict[str, Any]], ...] = (
        (honest, {}),
        (pulled, {"pulls": list(TEST_PULLS)}),
        (related, {}),
    )
    return jobs + [
        Job(name=name, function=function, arguments={**size, "runs": count, **further})
        for name, (function, further), count in zip(TESTS, tests, runs, strict=True)
    ]


def _of_victim(effort: Effort, seed: int) -> list[Job]:
    base: dict[str, Any] = {"setting": asdict(effort.setting), "seed": seed}
    pulls = (*PULLS, 0.0005, 5.0) if effort.full else PULLS
    tolerances = (*TOLERANCES, 0.01, 0.5, 0.9) if effort.full else TOLERANCES
    steps = effort.setting.steps
    short = steps if effort.full else max(effort.setting.every, steps // 5)
    wanted: list[tuple[str, Any, dict[str, Any]]] = [
        *(("retraining", retrained, {"other": i}) for i in range(3 if effort.full else 1)),
        *(("declared", declared, {"pull": c}) for c in sorted(pulls)),
        *(("undeclared", undeclared, {"tolerance": tau}) for tau in sorted(tolerances)),
        ("distilled", distilled, {}),
        ("verified", verified, {"pull": VERIFIED_PULL, "steps": short}),
    ]
    return [
        Job(
            name=" ".join(["endpoint", what, str(seed), *(f"{value:g}" for value in more.values())]),
            function=function,
            arguments={**base, **more},
            group=f"endpoint {seed}",
        )
        for what, function, more in wanted
    ]


def tell(effort: Effort, results: Mapping[str, Any]) -> Section:
    """What the results say."""
    found = Found({job.name: job.arguments for job in plan(effort)}, results)
    told = [*victims_told(found), *errors_told(results)]
    return Section(
        part=PART.name,
        title=PART.title,
        said=tuple(one for part in told for one in part.said),
        tables=tuple(one for part in told for one in part.tables),
        plots=plots(found),
        figures={name: value for part in told for name, value in part.figures.items()},
        notes=(
            f"One small model (digits{_size(found)}). Nothing here says that no cheaper way to W_T "
            "exists: these are the ways that we tried. The question stays open.",
            "The undeclared pull moves at the ends of segments. A forger who chooses learning rate, data and "
            "segments anew for each tolerance may get nearer, as the attacks drift and best response do.",
            "Matched distances are from a local optimum of the order of hidden units, so upper bounds.",
        ),
    )


def _size(found: Found) -> str:
    """How large the model is, where a result says it."""
    sizes = {result["parameter_bytes"] for _, result in found.of("verified")}
    return "".join(f", {size:,} bytes of parameters" for size in sorted(sizes))


PART = Part(
    name="endpoint",
    title="The endpoint: does knowing W_T help?",
    question="How near to given weights W_T can a run be led, at which cost, and at which tolerance?",
    plan=plan,
    tell=tell,
)
