"""The page of a verdict as the command line writes it: tried before the work, written after it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gradseal.errors import StoreError
from gradseal.proof.note import VerificationKey
from gradseal.verify.verdict import Verdict

if TYPE_CHECKING:
    from gradseal.report.page import Story


@contextmanager
def page_at(path: Path | None) -> Iterator[None]:
    """Makes sure, before what takes long, that a page can be written there; leaves none if that fails.

    Raises:
        StoreError: It cannot.
    """
    if path is None:
        yield
        return
    new = not path.exists()
    try:
        with open(path, "ab"):  # keeps the report that is there until there is another
            pass
    except OSError as e:
        raise StoreError(
            f"the report cannot be written: {e.strerror}", where=str(path), advice="name another file"
        ) from e
    try:
        yield
    except BaseException:
        if new:
            path.unlink(missing_ok=True)
        raise


def write_page(
    path: Path,
    verdict: Verdict,
    repeat: str,
    *,
    title: str = "Gradseal: a training run's record, verified",
    stories: Sequence[Story] = (),
) -> None:
    """Writes the page.

    Raises:
        StoreError: It cannot be written.
    """
    # Templates and plots take a moment to load, and few verifications want a page.
    from gradseal.report.page import render_page, save_page

    save_page(path, render_page(verdict, title=title, repeat=repeat, made=datetime.now(UTC), stories=stories))


def repeated_options(
    policy: str,
    keys: Sequence[VerificationKey],
    *,
    trust: Path | None = None,
    require: Sequence[str] = (),
    free_bytes: int | None = None,
    weights: Path | None = None,
    other_seed: str | None = None,
    others: Sequence[str] = (),
) -> list[str]:
    """The options of a verification; a key itself rather than the file it was read from."""
    options = ["--policy", policy]
    for key in keys:
        options += ["--key", str(key)]
    if trust is not None:
        options += ["--trust", str(trust)]
    for claim in require:
        options += ["--require", claim]
    if free_bytes is not None:
        options += ["--free-bytes", str(free_bytes)]
    if weights is not None:
        options += ["--weights", str(weights)]
    if other_seed is not None:
        options += ["--other-seed", other_seed]
    return [*options, *others]


def repeat_command(bundle: str, verdict: Verdict, options: Sequence[str]) -> str:
    """The command that makes the same verification again, with the same draw."""
    return shlex.join(["gradseal", "verify", bundle, *options, "--draw", verdict.draw])
