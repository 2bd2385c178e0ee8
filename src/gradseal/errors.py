"""The errors that Gradseal raises.

Bad evidence is data and becomes a `Finding`; malformed bytes and a broken world are exceptions, and all of
them derive from `Error`. Each says what happened, where, and, when there is something to do, what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Error(Exception):
    """What went wrong, where (a file, field, module or tensor), and what to do about it.

    Args:
        message: One sentence, what happened.
        where: The file and field, module, operator or tensor concerned.
        advice: What the reader can do, if there is anything.
    """

    def __init__(self, message: str, *, where: str = "", advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.advice = advice
        if advice:
            # So that a traceback says it too.
            self.add_note(f"what to do: {advice}")

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.where, self.advice))

    def diagnostics(self) -> str:
        """What happened, where and what to do, as a few lines for a person."""
        lines = [self.message]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.advice:
            lines.append(f"  what to do: {self.advice}")
        return "\n".join(lines)


def _rebuild(kind: type[Error], message: str, where: str, advice: str) -> Error:
    return kind(message, where=where, advice=advice)


class MalformedBundle(Error):
    """Bytes that are not what the format says, or that exceed its limits."""


class UnknownKind(Error):
    """Well-formed, but of a kind, rule or operator that this version does not know."""


class KeyFileError(Error):
    """A signing or verification key that cannot be read or does not parse."""


class StoreError(Error):
    """The storage could not do what was asked."""


class MissingFile(StoreError):
    """A file or blob that is named but is not there."""


class CorruptBlob(StoreError):
    """A blob whose bytes do not hash to its name."""


class CaptureError(Error):
    """A model, loss, optimizer or data set that cannot be captured into a program."""


class RecordError(Error):
    """A recording that cannot go on, because what it would seal would not be true."""


class RecordWarning(UserWarning):
    """Something that a recording allows and that a verifier will hold against it."""


class AnchorError(Error):
    """Evidence about time that cannot be had: a host is away, refuses, or gives what does not verify."""


class ReplayError(Error):
    """A segment that could not be replayed at all; says nothing of whether it is true."""


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Says in an error from inside what the file at fault holds."""
    try:
        yield
    except Error as e:
        raise type(e)(f"{what}: {e.message}", where=e.where, advice=e.advice) from e
