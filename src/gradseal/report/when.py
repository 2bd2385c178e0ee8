"""When a run was made, in words and tables: for the terminal, and for a section of the page.

Says no more than the windows do, and whose word it is. Names are made printable and escaped where they are
shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gradseal.verify.times import between, counted, lasting, not_after, not_before, usable
from gradseal.verify.windows import GapRow, SegmentWindow, Windows

_NAMES = 8
_ROWS = 40
_NOTHING = (
    "This verification found nothing that says when the run was made: no anchor that the verifier trusts, "
    "and no beacon round that a replay depends on. The record's own word does not count, nor do the dates of "
    "its files."
)
_DECLARED = (
    "Its seed is the owner's own choice, so nothing says before when the run was not made; anchors say by "
    "when it was there."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What a table shows.

    Args:
        first: The first rows, as cells of text.
        left_out: How many rows are not shown between the first and the last.
        last: The last rows; none if all are among the first.
    """

    first: Sequence[tuple[str, ...]] = ()
    left_out: int = 0
    last: Sequence[tuple[str, ...]] = ()


def known(windows: Windows) -> bool:
    """Whether anything at all bounds when the run was made."""
    bounds = [windows.manifest, windows.close, *(anchor.not_after for anchor in windows.anchors)]
    bounds += [time for row in windows.segments for time in (row.not_before, row.not_after)]
    return any(map(usable, bounds))


def lines(windows: Windows) -> dict[str, str]:
    """What a terminal shows, by name; nothing if nothing is known."""
    if not known(windows):
        return {}
    said = {"made": _made(windows), "gaps": _gaps_briefly(windows) if gaps_of(windows) else ""}
    return {name: line for name, line in said.items() if line}


def paragraphs(windows: Windows) -> list[str]:
    """The whole story, a sentence or a few in each."""
    if not known(windows):
        return [_NOTHING]
    told = (
        _when(windows),
        _manifest(windows),
        _segments(windows),
        _pace(windows),
        _cadence(windows),
        _whose(windows),
    )
    return [paragraph for paragraph in told if paragraph]


def anchors_table(windows: Windows) -> Table:
    """The anchored checkpoints: how many entries, sealed by when, by whose anchors."""
    return _table(
        [
            (f"{row.size:,}", not_after(row.not_after), named(row.by) or "none that counts")
            for row in windows.anchors
        ]
    )


def gaps_table(windows: Windows) -> Table:
    """The gaps: which segments, whether recorded, how many seeds were public, and what it is worth."""
    if not gaps_of(windows):
        return Table()
    table = _table([_gap(gap) for gap in windows.gaps])
    return Table(first=table.first, left_out=table.left_out + windows.gaps_left_out, last=table.last)


def gaps_of(windows: Windows) -> tuple[GapRow, ...]:
    """The gaps; none if nothing at all is anchored, since no cadence can be judged then."""
    return windows.gaps if any(usable(anchor.not_after) for anchor in windows.anchors) else ()


def named(names: Iterable[str]) -> str:
    """The names, each once, and no more than a few."""
    each = list(dict.fromkeys(names))
    more = len(each) - _NAMES
    return ", ".join(each[:_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def _begin(windows: Windows) -> SegmentWindow | None:
    """The first segment of which it is known before when it was not made; later ones go on from it."""
    return next((row for row in windows.segments if usable(row.not_before)), None)


def _sealed(windows: Windows) -> SegmentWindow | None:
    """The last segment of which it is known by when it was sealed; earlier ones were sealed with it."""
    return next((row for row in reversed(windows.segments) if usable(row.not_after)), None)


def _end(windows: Windows) -> float | None:
    """By when the whole run was sealed, or else the last segment that was."""
    if usable(windows.close):
        return windows.close
    sealed = _sealed(windows)
    return sealed.not_after if sealed else None


def _made(windows: Windows) -> str:
    begin, end = _begin(windows), _end(windows)
    start = begin.not_before if begin else None
    only = f", from segment {begin.segment:,} on" if begin and begin.segment else ""
    if not usable(windows.close) and (sealed := _sealed(windows)):
        only += f", up to segment {sealed.segment:,}"
    if usable(start) and usable(end):
        if start > end:
            return f"not before {not_before(start)}, yet by {not_after(end)} UTC: a contradiction"
        return between(start, end) + only
    if usable(end):
        return f"not after {not_after(end)} UTC{only}; not before: not known"
    if usable(start):
        return f"not before {not_before(start)} UTC{only}; not after: not known"
    return ""


def _pace(windows: Windows) -> str:
    """How much was done in how long: a wide window leaves room for much."""
    begin, end = _begin(windows), _end(windows)
    start = begin.not_before if begin else None
    if not usable(start) or not usable(end) or not start < end or not windows.steps:
        return ""
    rate = windows.steps / (end - start)
    said = f"{rate:,.1f} a second" if rate >= 1 else f"one in {1 / rate:,.1f} seconds"
    most = f" At most {counted(windows.densest, 'segment')} drew from one slot." if windows.densest else ""
    return (
        f"The pace: {counted(windows.steps, 'step')} within {lasting(end - start)}, at least {said} on "
        f"average.{most}"
    )


def _when(windows: Windows) -> str:
    begin, end = _begin(windows), _end(windows)
    said = []
    if begin:
        what = f"From segment {begin.segment:,} on, the training" if begin.segment else "The training"
        said.append(
            f"{what} was not made before {not_before(begin.not_before)} UTC: segment {begin.segment:,} draws "
            "from a beacon round that nobody could know until then, and what comes out depends on it."
        )
    elif windows.source == "declared":
        said.append(_DECLARED)
    else:
        said.append("Of no segment was it seen that it depends on its seed, so that it can be older.")
    if usable(windows.close):
        said.append(f"All of it was there by {not_after(end)} UTC, when its last entry was sealed.")
    elif sealed := _sealed(windows):
        said.append(
            f"Its segments up to {sealed.segment:,} were there by {not_after(end)} UTC. Nothing says by when "
            "the rest was."
        )
    else:
        said.append("Nothing says by when its segments were there.")
    if begin and usable(begin.not_before) and usable(end) and begin.not_before > end:
        said.append("These contradict each other.")
    return " ".join(said)


def _manifest(windows: Windows) -> str:
    sealed, start = windows.manifest, windows.start
    what = "The manifest, which fixes program, data and plan,"
    if not usable(sealed):
        known_not = f"{what} is not known to have been sealed before the training."
        return (
            f"{known_not} Slot 0's round was due at {not_before(start)} UTC." if usable(start) else known_not
        )
    said = f"{what} was sealed by {not_after(sealed)} UTC"
    if not usable(start):
        return f"{said}."
    if sealed < start:
        return (
            f"{said}, {lasting(start - sealed)} before slot 0's round, the first randomness, was due "
            f"({not_before(start)} UTC). So what it fixes was not fitted to that randomness, unless "
            "somebody had the beacon's key."
        )
    return (
        f"{said}, as far as is known, and slot 0's round, the first randomness, was due at "
        f"{not_before(start)} UTC already. So what it fixes could have been fitted to that randomness."
    )


def _segments(windows: Windows) -> str:
    rows = windows.segments
    if not rows:
        return ""
    depend = sum(usable(row.not_before) for row in rows)
    sealed = sum(usable(row.not_after) for row in rows)
    said = f"Of {counted(len(rows), 'segment')} told here, "
    if windows.source != "declared":
        said += f"{depend:,} {'is' if depend == 1 else 'are'} known to depend on a seed and be no older, and "
    said += f"{sealed:,} {'is' if sealed == 1 else 'are'} known to have been sealed by some time."
    if windows.slots and windows.cadence_seconds:
        said += (
            f" The seeds are of {counted(windows.slots, 'slot')}, each {lasting(windows.cadence_seconds)} "
            "long."
        )
    return said


def _cadence(windows: Windows) -> str:
    if gaps_of(windows):
        return (
            f"Gaps in the plan's cadence: {_gaps_briefly(windows)}. A segment in a gap was not fixed before "
            "further seeds were public, so that its owner could have tried several and kept what suited: "
            "a gap of n bits is a choice among 2ⁿ."
        )
    sealed = all(usable(row.not_after) for row in windows.segments)
    if windows.source == "declared" or windows.gaps or not windows.segments or not sealed:
        return ""
    return (
        "No segment is off the plan's cadence: each was sealed before the second seed after its own was "
        "public."
    )


def _whose(windows: Windows) -> str:
    counting = [anchor for anchor in windows.anchors if usable(anchor.not_after)]
    if not windows.anchors:
        return "No checkpoint is anchored."
    said = f"Of {counted(len(windows.anchors), 'anchored checkpoint')} told here, {len(counting):,} "
    said += "has" if len(counting) == 1 else "have"
    said += " as many anchors as the verifier demands."
    names = named(name for anchor in counting for name in anchor.by)
    return f"{said} They are of {names}, whom the verifier chose to trust." if names else said


def _gaps_briefly(windows: Windows) -> str:
    gaps, count = windows.gaps, len(windows.gaps) + windows.gaps_left_out
    bits = [gap.bits for gap in gaps if gap.bits is not None]
    said = [f"{count:,}, of which {len(gaps):,} are told" if windows.gaps_left_out else f"{count:,}"]
    if len(bits) < len(gaps):
        said.append(f"{len(gaps) - len(bits):,} never anchored, so that nothing bounds what they are worth")
    else:
        said.append(f"worth {math.fsum(bits):.1f} bits{' together' if len(bits) > 1 else ''}")
    unrecorded = sum(not gap.recorded for gap in gaps)
    said.append(f"{unrecorded:,} not recorded by the log" if unrecorded else "recorded by the log")
    return "; ".join(said)


def _gap(gap: GapRow) -> tuple[str, ...]:
    first, last = gap.first_segment, gap.last_segment
    return (
        f"{first:,}" if first == last else f"{first:,} to {last:,}",
        "yes" if gap.recorded else "no",
        "never anchored" if gap.seeds is None else f"{gap.seeds:,}",
        "not bounded" if gap.bits is None else f"{gap.bits:.1f}",
    )


def _table(rows: Sequence[tuple[str, ...]]) -> Table:
    if len(rows) <= _ROWS:
        return Table(first=rows)
    half = _ROWS // 2
    return Table(first=rows[:half], left_out=len(rows) - 2 * half, last=rows[-half:])
