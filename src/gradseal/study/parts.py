"""The parts of the study, in the order of the report, and how they are made together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from gradseal.errors import Error
from gradseal.study.jobs import Done, Job, Progress, run_jobs
from gradseal.study.part import Effort, Part
from gradseal.study.section import Section

NAMES = ("noise", "tradeoff", "matrix", "precedence", "audits", "endpoint")
"""Each is a package of this one, whose module `part` has it."""


def load_part(name: str) -> Part:
    """The part of this name.

    Raises:
        Error: There is none.
    """
    if name not in NAMES:
        there = ", ".join(NAMES)
        raise Error(f"the study has no part {name!r}", where="part", advice=f"there are: {there}")
    part: Part = import_module(f"gradseal.study.{name}.part").PART
    return part


def run_parts(
    names: Sequence[str],
    effort: Effort,
    directory: Path,
    *,
    processes: int = 1,
    progress: Progress | None = None,
) -> list[Section]:
    """What these parts found; their jobs, some of them shared, in one pool of processes.

    Args:
        names: The parts.
        effort: How much is measured.
        directory: Where the jobs' results are kept.
        processes: How many at once, each with one thread.
        progress: Told how many jobs are done, and of how many.

    Raises:
        Error: There is no such part.
        StoreError: The directory cannot be written, or a file in it is none of a study's.
    """
    parts = [load_part(name) for name in names]
    planned = [part.plan(effort) for part in parts]
    jobs = [job for own in planned for job in own]
    done = run_jobs(_longest_first(jobs), directory, processes=processes, progress=progress)
    return [_told(part, effort, own, done) for part, own in zip(parts, planned, strict=True)]


def _longest_first(jobs: Sequence[Job]) -> list[Job]:
    """The groups with most jobs first, so that no process is left with a long one at the end."""
    sizes: dict[str, int] = {}
    for job in jobs:
        sizes[job.group] = sizes.get(job.group, 0) + bool(job.group)
    return sorted(jobs, key=lambda job: -sizes[job.group])


def _told(part: Part, effort: Effort, jobs: Sequence[Job], done: Done) -> Section:
    names = {job.name for job in jobs}
    section = part.tell(effort, {name: done.results[name] for name in names & done.results.keys()})
    failed = tuple(f"{name}: {said}" for name, said in done.failed.items() if name in names)
    return replace(section, failed=(*section.failed, *failed))
