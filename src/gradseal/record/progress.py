"""Progress of a recording, on standard error: first the pass over the data, then the training."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars


class Progress:
    """Shows how far a recording is, or nothing.

    Args:
        wanted: Whether to show it; None for only on a terminal.
    """

    def __init__(self, wanted: bool | None) -> None:
        self._shown = sys.stderr.isatty() if wanted is None else wanted
        self._bars: dict[str, tuple[Bars, TaskID]] = {}

    def committed(self, done: int, samples: int) -> None:
        """`done` of all samples are committed."""
        self._show("committing to the data", done, samples, "")

    def trained(self, done: int, steps: int, loss: float) -> None:
        """`done` of all steps are done, the last one with this loss."""
        self._show("training", done, steps, f"loss {loss:.4f}")

    def waiting(self, seconds: float) -> None:
        """Nothing is done for so long, until the first seed is there."""
        if self._shown:
            self.end()
            Console(stderr=True).print(f"the manifest is sealed; slot 0 begins in {max(0.0, seconds):.0f} s")

    def end(self) -> None:
        """Nothing more comes; leaves the terminal as it should be, after an error too."""
        for bars, _ in self._bars.values():
            bars.stop()

    def _show(self, what: str, done: int, total: int, note: str) -> None:
        if not self._shown:
            return
        if what not in self._bars:
            self.end()
            self._bars[what] = _begin(what, total)
        bars, task = self._bars[what]
        bars.update(task, completed=done, note=note)


def _begin(what: str, total: int) -> tuple[Bars, TaskID]:
    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )
    task = bars.add_task(what, total=total, note="")
    bars.start()
    return bars, task
