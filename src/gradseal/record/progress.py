"""Progress of a recording, on standard error."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars


class Progress:
    """Shows how far a recording is, or nothing.

    Args:
        wanted: Whether to show it; None for only on a terminal.
    """

    def __init__(self, wanted: bool | None) -> None:
        shown = sys.stderr.isatty() if wanted is None else wanted
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            disable=not shown,
        )
        self._steps = self._bars.add_task("training", total=None, note="", visible=False)

    def committed(self, samples: int) -> None:
        """So many samples are committed."""
        self._bars.console.quiet = self._bars.disable

    def begin(self, steps: int) -> None:
        """Training begins."""
        self._bars.update(self._steps, total=steps, visible=True)
        self._bars.start()

    def step(self, done: int, loss: float) -> None:
        """So many steps are done."""
        self._bars.update(self._steps, completed=done, note=f"loss {loss:.4f}")

    def end(self) -> None:
        """Training ended, one way or another."""
        self._bars.stop()
