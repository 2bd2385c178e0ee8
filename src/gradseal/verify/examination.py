"""What one verification knows so far, and how what goes wrong in it becomes findings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from gradseal.errors import CorruptBlob, MalformedBundle, MissingFile, ReplayError, StoreError, UnknownKind
from gradseal.precede.log import Log
from gradseal.program.native import Environment
from gradseal.program.sources import FreeBytes
from gradseal.verify.chronology import Chronology
from gradseal.verify.contents import Contents
from gradseal.verify.ks import InitialTested
from gradseal.verify.lengths import Lengths
from gradseal.verify.losses import LossCurve
from gradseal.verify.outcomes import SegmentResult
from gradseal.verify.policy import Policy
from gradseal.verify.sampling import Sample
from gradseal.verify.tolerance import Tolerance
from gradseal.verify.verdict import Check, Finding, Result

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how far it is and how far it goes; 0 where that is not known."""


class Ended(Exception):
    """No later check can be made."""


@dataclass(slots=True, kw_only=True)
class Examination:
    """What is known so far, filled in from top to bottom.

    Of the states between the first and the last, only a digest of their parameters is kept: a small bundle
    may have many states of many tensors.
    """

    policy: Policy
    findings: list[Finding] = field(default_factory=list)
    pinned: bool = False
    log: Log | None = None
    contents: Contents | None = None
    state_zero: tuple[bytes, ...] = ()
    last_state: tuple[bytes, ...] = ()
    parameter_digests: list[bytes] = field(default_factory=list)
    data_checked: bool = False
    weights_checked: bool = False
    state_zero_checked: bool = False
    free: tuple[FreeBytes, ...] = ()
    graph_bytes: int = 0
    graphs_compressed: bool = True
    initial_tested: InitialTested | None = None
    sample: Sample | None = None
    environment: Environment | None = None
    tolerance: Tolerance | None = None
    results: list[SegmentResult] = field(default_factory=list)
    bytes_hashed: int = 0
    lengths: Lengths | None = None
    distance: float | None = None
    curve: LossCurve | None = None
    chronology: Chronology | None = None

    @property
    def parameter_bytes(self) -> int:
        """How many bytes the model's parameters have."""
        layout = self.contents.program.layout if self.contents else ()
        return sum(s.size_bytes for s in layout if s.name.startswith("parameters/"))

    def found(self, check: Check, result: Result, message: str, where: str = "") -> None:
        """Adds a finding."""
        self.findings.append(Finding(check=check, result=result, message=message, where=where))

    def found_in(
        self,
        segment: int,
        check: Check,
        result: Result,
        message: str,
        *,
        measured: float | None = None,
        allowed: float | None = None,
    ) -> None:
        """Adds a finding on one segment; a number that JSON has not is left out of it."""
        self.findings.append(
            Finding(
                check=check,
                result=result,
                message=message,
                where=f"segment {segment}",
                segment=segment,
                measured=_finite(measured),
                allowed=_finite(allowed),
            )
        )

    def moving(self) -> list[int]:
        """The segments that changed a parameter."""
        states = self.parameter_digests
        return [i for i in range(len(states) - 1) if states[i] != states[i + 1]]

    def undecided(self, *checks: Check) -> list[str]:
        """What is undecided in some checks, one line for each finding."""
        return [f.line for f in self.findings if f.result is Result.UNDECIDED and f.check in checks]

    @contextmanager
    def checking(self, check: Check, held: str = "") -> Iterator[None]:
        """Turns what is raised inside into a finding of `check`, which ends the examination."""
        try:
            yield
        except (CorruptBlob, MalformedBundle) as e:
            self.found(check, Result.REFUTED, e.message, e.where)
            raise Ended from e
        except (MissingFile, UnknownKind, StoreError, ReplayError) as e:
            self.found(check, Result.UNDECIDED, e.message, e.where)
            raise Ended from e
        if held:
            self.found(check, Result.HELD, held)


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
