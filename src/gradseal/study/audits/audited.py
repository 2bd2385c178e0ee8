"""What an audit is planned for: a bundle's segments, or as many of one length that nobody has recorded.

A bundle is read as a verification reads it, up to the replays: every digest is checked, no byte of it is
believed before, and whatever contradicts ends the reading. Nothing is replayed.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from gradseal.errors import Error
from gradseal.precede.trust import Trust
from gradseal.proof.bundle import open_bundle
from gradseal.proof.files import Files
from gradseal.proof.manifest import BeaconSeed, Plan
from gradseal.store.files import FsspecFiles
from gradseal.study.audits.response import Array
from gradseal.verify.examination import Ended, Examination, Progress
from gradseal.verify.integrity import check_integrity
from gradseal.verify.policy import Policy
from gradseal.verify.precedence import check_precedence
from gradseal.verify.verdict import Result

MAX_PLANNED = 1 << 20
"""The most segments that an audit is planned for: a plan looks at each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Audited:
    """A run, as far as an audit needs to know it.

    Args:
        lengths: How far each segment moved the parameters; where that is not known, no finite number.
        steps: How many steps each has.
        displacement: ‖W_T − W_0‖; None if it is not known.
        always: Segments that are replayed whatever the draw, besides the first, the last and the longest.
        last: The last segment that moved the parameters.
        replays: How often a segment is replayed: twice with a beacon's seeds, once under another seed.
        measured: Whether the lengths are a bundle's.
    """

    lengths: Array
    steps: Array
    displacement: float | None = None
    always: tuple[int, ...] = ()
    last: int | None = None
    replays: int = 1
    measured: bool = True

    @property
    def segments(self) -> int:
        """How many there are."""
        return len(self.lengths)

    @property
    def path(self) -> float | None:
        """The sum of all lengths; None if it is not known, or if they move nothing."""
        total = total_of(self.lengths)
        return total if total is not None and total > 0 else None


def total_of(lengths: Array) -> float | None:
    """The sum; None if one of them is not known, or if float64 does not hold it."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(np.sum(lengths))
    return total if math.isfinite(total) else None


def alike(segments: int, every: int) -> Audited:
    """A run of so many segments of equal length, of so many steps each.

    Raises:
        Error: There are too many.
    """
    if not 0 < segments <= MAX_PLANNED:
        raise Error(f"a plan is for 1 to {MAX_PLANNED} segments, not {segments}", where="segments")
    return Audited(lengths=np.ones(segments), steps=np.full(segments, float(every)), measured=False)


def read_audited(path: str | Path, progress: Progress | None = None) -> Audited:
    """A bundle's segments.

    Args:
        path: The bundle: a directory, or an fsspec URL.
        progress: Told how far the reading is.

    Raises:
        Error: It is no bundle, contradicts itself, lacks a file or has no segment.
        StoreError: The storage could not be read.
    """
    url = str(path) if "://" in str(path) else str(Path(path).absolute())
    return audited(FsspecFiles(url), progress)


def audited(files: Files, progress: Progress | None = None) -> Audited:
    """As `read_audited`, from a bundle's files."""
    bundle = open_bundle(files)
    examination = Examination(policy=Policy.named("quick"))
    try:
        log, _, tree = check_integrity(examination, bundle, (), progress or (lambda what, done, total: None))
    except Ended as e:
        wrong = [f for f in examination.findings if f.result in (Result.REFUTED, Result.UNDECIDED)][-1]
        raise Error(wrong.message, where=wrong.where, advice="verify it to see what is wrong") from e
    with suppress(Ended):  # what contradicts in time is for a verification to say
        check_precedence(examination, files, tree, log, trust=Trust(), now=datetime.now(UTC))
    plan, sealed = log.manifest.plan, len(log.segments)
    if not 0 < sealed <= MAX_PLANNED:
        raise Error(f"a plan is for 1 to {MAX_PLANNED} segments, not {sealed}", where="log")
    own, lengths = examination.chronology, examination.lengths
    known = list(lengths.updates) if lengths else []
    return Audited(
        lengths=np.array([*known[:sealed], *[math.nan] * (sealed - len(known))]),
        steps=_steps(plan, sealed),
        displacement=_moved(examination.distance),
        always=tuple(own.always_replayed(log)) if own else (),
        last=max(examination.moving(), default=None),
        replays=2 if isinstance(plan.seed, BeaconSeed) else 1,
    )


def _steps(plan: Plan, sealed: int) -> Array:
    return np.array([float(len(plan.steps_of(i))) for i in range(sealed)])


def _moved(distance: float | None) -> float | None:
    return distance if distance is not None and 0 < distance < math.inf else None
