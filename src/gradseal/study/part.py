"""A part of the study: a question, the jobs that answer it, and how their results are told.

What is computed is split from what is said of it, so that all parts' jobs share one pool of processes, a
study that was stopped goes on, and one that failed in places still tells the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gradseal.attacks.attack import Setting
from gradseal.study.jobs import Job
from gradseal.study.section import Section

FIRST_SEED = 101
"""Of the victims; attacks were tuned on others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is measured.

    Args:
        full: Everything, which takes hours; otherwise what minutes on two processors allow.
        seed: The first victim's; whatever is random in a study follows from it.
        seeds: How many victims.
        setting: The size of a run.
    """

    full: bool = False
    seed: int = FIRST_SEED
    seeds: int = 2
    setting: Setting = field(default_factory=Setting)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part.

    Args:
        name: One word; also that of the command.
        title: Its heading.
        question: What it answers, in a sentence.
        plan: The jobs that it needs; two parts may need the same one.
        tell: What their results say, by the jobs' names; a job that failed is missing.
    """

    name: str
    title: str
    question: str
    plan: Callable[[Effort], list[Job]]
    tell: Callable[[Effort, Mapping[str, Any]], Section]
