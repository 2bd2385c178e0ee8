"""What precedence costs a verifier: a long run with many slots, each with an anchored checkpoint.

The run is forged, see `anchored_run`, lies on a disk and is read from there. Timed is all that a verification
does for precedence before it replays, but for reading and hashing the log, which integrity does anyway: the
typed log, the slots' signatures, the anchors, the windows.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.anchored_run import ANCHORED_BY, forge
from benchmarks.figure import Figure

from gradseal.precede.log import Log, read_log
from gradseal.precede.slots import check_signatures
from gradseal.precede.trust import Trust
from gradseal.proof.bundle import open_bundle
from gradseal.proof.manifest import Manifest
from gradseal.store.files import FsspecFiles
from gradseal.verify.anchors import check_anchors
from gradseal.verify.chronology import Chronology, windows_of
from gradseal.verify.examination import Examination
from gradseal.verify.policy import Policy
from gradseal.verify.precedence import check_precedence

SEGMENTS = 10_000
SLOTS = 500

_AT_MOST_SECONDS = 5
_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long one verification took for precedence, in seconds: the whole, its CPU time, and parts of it."""

    whole: float
    cpu: float
    log: float
    slots: float
    anchors: float


def measure(segments: int, slots: int) -> list[Figure]:
    """The medians of three verifications.

    Args:
        segments: How many the run has; a multiple of `slots`.
        slots: How many slots, and how many anchored checkpoints besides the manifest's.
    """
    with tempfile.TemporaryDirectory() as directory:
        trust = forge(Path(directory), segments, slots)
        found = [_times(Path(directory), trust, slots) for _ in range(_ROUNDS)]
    size = f"{segments:,} segments, {slots:,} slots and anchors"
    names = {
        "cpu": "CPU time",
        "log": "reading the log",
        "slots": "the slots' signatures",
        "anchors": "the anchors",
    }
    return [
        Figure(
            name=f"precedence of {size}",
            value=statistics.median(times.whole for times in found),
            unit="s",
            at_most=_AT_MOST_SECONDS,
        ),
        *(
            Figure(name=f"of it {name}", value=statistics.median(getattr(t, part) for t in found), unit="s")
            for part, name in names.items()
        ),
    ]


def _times(directory: Path, trust: Trust, slots: int) -> Times:
    """One verification's precedence; then the slots and the anchors again, to time them alone."""
    files = FsspecFiles(str(directory))
    bundle = open_bundle(files)
    entries = bundle.all_entries()
    tree = bundle.check_log(entries)
    manifest = Manifest.decode(entries[0])
    now = datetime.now(UTC)
    examination = Examination(policy=Policy.named("full"))
    began, cpu_began = time.perf_counter(), time.process_time()
    log = read_log(manifest, entries)
    read = time.perf_counter()
    own = check_precedence(examination, files, tree, log, trust=trust, now=now)
    own.always_replayed(log)
    windows_of(own, log)
    checked, cpu_ended = time.perf_counter(), time.process_time()
    _check(own, log, slots)
    plan = own.plan
    if plan is None:
        raise RuntimeError("the run has no slots")
    check_signatures(plan, [slot.entry for slot in log.slots])
    signed = time.perf_counter()
    check_anchors(Examination(policy=examination.policy), files, log, tree, trust=trust, now=now)
    ended = time.perf_counter()
    return Times(
        whole=checked - began,
        cpu=cpu_ended - cpu_began,
        log=read - began,
        slots=signed - checked,
        anchors=ended - signed,
    )


def _check(own: Chronology, log: Log, slots: int) -> None:
    """That all was looked at, and held: what is refused early would be fast."""
    shown = sum(len(row.by) == ANCHORED_BY for row in own.anchors)
    counted = (shown, len(log.slots)) == (slots + 1, slots)
    if not (counted and own.manifest_in_time) or own.gaps:
        raise RuntimeError("the forged run does not show precedence")
