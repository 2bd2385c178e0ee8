"""The names of a released proof's checkpoints, and which steps they say.

Matched strictly: digits without leading zeros, nothing before or after; none missing, none too many.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from gradseal.errors import MalformedBundle, MissingFile
from gradseal.proof.manifest import MAX_SEGMENT_STEPS

MAX_ENTRIES = 200_000
"""How many names the folder may have."""

MAX_CHECKPOINTS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How checkpoints are named.

    Args:
        before: What stands before the step's number.
        after: What stands after it.
    """

    before: str
    after: str = ""

    def path(self, folder: Path, step: int) -> Path:
        """The checkpoint's file."""
        return folder / f"{self.before}{step}{self.after}"

    def steps_in(self, folder: Path) -> list[int]:
        """The numbers in the checkpoints' names, rising.

        Raises:
            MissingFile: There is none.
            MalformedBundle: There are too many files, or one that is nearly named so.
        """
        pattern = re.compile(f"{re.escape(self.before)}(0|[1-9][0-9]{{0,11}}){re.escape(self.after)}")
        steps = []
        for number, path in enumerate(folder.iterdir()):
            if number >= MAX_ENTRIES:
                raise MalformedBundle(f"has more than {MAX_ENTRIES:,} files", where=str(folder))
            if not path.name.startswith(self.before):
                continue
            named = pattern.fullmatch(path.name)
            if named is None:
                first, second = self.path(folder, 0).name, self.path(folder, 100).name
                raise MalformedBundle(
                    "is not named as the released code names a checkpoint",
                    where=str(path),
                    advice=f"it writes {first}, {second} and so on, without leading zeros or more letters",
                )
            steps.append(int(named[1]))
        if not steps:
            raise MissingFile(
                f"has no {self.before}0{self.after}",
                where=str(folder),
                advice=f"name the folder in which the released code put its {self.before}… files",
            )
        if len(steps) > MAX_CHECKPOINTS:
            raise MalformedBundle(
                f"{len(steps):,} checkpoints, over the limit of {MAX_CHECKPOINTS:,}", where=str(folder)
            )
        return sorted(steps)

    def interval(self, folder: Path, steps: int | None = None) -> tuple[int, int]:
        """The steps in all and between checkpoints, of which none may be missing and none too many.

        Args:
            folder: Where they are.
            steps: How many steps there are; if not given, the last checkpoint's number.

        Raises:
            MissingFile: A checkpoint is missing.
            MalformedBundle: One is too many.
        """
        found = self.steps_in(folder)
        steps = found[-1] if steps is None else steps
        if found[0] != 0:
            raise MissingFile("is not there", where=str(self.path(folder, 0)))
        if len(found) == 1:
            raise MissingFile("has one checkpoint, and a proof has two or more", where=str(folder))
        every = found[1]
        if every > MAX_SEGMENT_STEPS:
            raise MalformedBundle(
                f"{every:,} steps between checkpoints, over the limit of {MAX_SEGMENT_STEPS:,}",
                where=str(folder),
            )
        there = set(found)
        # Step by step up to the first that is missing: the last may be any number.
        for step in chain(range(0, steps, every), [steps]):
            if step not in there:
                raise MissingFile(
                    f"is not there, though there are {steps} steps, and {every} between the first two",
                    where=str(self.path(folder, step)),
                )
        if extra := sorted(there.difference(range(0, steps, every), [steps])):
            raise MalformedBundle(
                f"is beyond the {steps} steps that there are, or not one of every {every}",
                where=str(self.path(folder, extra[0])),
            )
        return steps, every


RELEASED = Naming(before="model_step_")
"""Of the code of Jia et al. 2021."""

ATTACKS = Naming(before="model_", after=".pt")
"""Of the code of Fang et al. 2023."""
