"""Times for people: UTC, to a second, never nearer to what would flatter a run than they are.

What no calendar has, as a round number out of a hostile manifest may give, is not known rather than an error.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from itertools import pairwise
from typing import TypeGuard

_YEAR_10000 = 253402300800
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def usable(time: float | None) -> TypeGuard[float]:
    """Whether it is a time that a calendar has."""
    return time is not None and math.isfinite(time) and 0 <= time < _YEAR_10000 - 1


def not_before(time: float | None, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A time before which nothing was: rounded down."""
    return _written(math.floor(time), form) if usable(time) else "not known"


def not_after(time: float | None, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A time after which nothing was: rounded up."""
    return _written(math.ceil(time), form) if usable(time) else "not known"


def utc(time: float | None) -> str:
    """A time by which something was, for a sentence."""
    return f"{not_after(time)} UTC" if usable(time) else "a time that is not known"


def between(first: float, last: float) -> str:
    """Two usable times, the date only once if it is one."""
    start, end = not_before(first), not_after(last)
    return f"{start} to {end.removeprefix(start[:11])} UTC"


def lasting(seconds: float) -> str:
    """A length of time, rounded down, in its largest unit and the next."""
    whole = int(seconds)
    for (size, unit), (smaller, next_unit) in pairwise(_UNITS):
        if whole >= size:
            rest = whole % size // smaller
            return counted(whole // size, unit) + (f" and {counted(rest, next_unit)}" if rest else "")
    return counted(whole, "second") if whole else "less than a second"


def counted(count: int, what: str) -> str:
    """The number with a noun in the singular or the plural."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _written(second: int, form: str) -> str:
    return datetime.fromtimestamp(second, UTC).strftime(form)
