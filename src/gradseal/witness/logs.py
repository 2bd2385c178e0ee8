"""Which logs are witnessed: a file of verification keys, one a line.

A key witnesses the origin that is its name and every origin below it, `<name>/…`, since each of an owner's
runs is a log of its own (docs/spec/log.md, section 3). Of several names that fit an origin only the longest
counts, so that whoever holds `example.org` cannot speak for `example.org/models` if that has a key of its
own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from gradseal.errors import KeyFileError
from gradseal.proof.note import VerificationKey
from gradseal.proof.submission import Submission

MAX_LOGS_BYTES = 4 * 1024 * 1024
"""The largest file of logs."""

MAX_ORIGIN_LENGTH = 512
"""The longest origin that is witnessed, in code points."""


class Logs:
    """The keys of the logs that are witnessed.

    Args:
        keys: Several may have one name: any of them may sign.
    """

    def __init__(self, keys: Iterable[VerificationKey]) -> None:
        self._keys: dict[str, tuple[VerificationKey, ...]] = {}
        for key in keys:
            self._keys[key.name] = (*self._keys.get(key.name, ()), key)

    def keys_for(self, origin: str) -> Sequence[VerificationKey]:
        """The keys that may sign for an origin; none if it is not witnessed."""
        if len(origin) > MAX_ORIGIN_LENGTH:
            return ()
        name = origin
        while name not in self._keys:
            name, below, _ = name.rpartition("/")
            if not below:
                return ()
        return self._keys[name]

    def have_signed(self, submission: Submission) -> bool:
        """Whether a key that may sign for the submission's origin did."""
        keys = self.keys_for(submission.checkpoint.origin)
        return any(submission.note.verified_by(key) for key in keys)


def load_logs(path: Path) -> Logs:
    """Read the file: one verification key a line, empty lines, and lines that begin with `#`.

    Raises:
        KeyFileError: It cannot be read, is too large, has no key, has one twice, or a line that is not a key.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_LOGS_BYTES + 1)
        text = data.decode()
    except (OSError, ValueError) as e:
        raise KeyFileError(f"no list of logs can be read: {e}", where=str(path)) from e
    if len(data) > MAX_LOGS_BYTES:
        raise KeyFileError(f"more than {MAX_LOGS_BYTES} bytes", where=str(path))
    keys: dict[VerificationKey, None] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        key = VerificationKey.parse(stripped, where=f"{path}: line {number}")
        if key in keys:
            raise KeyFileError("a key that is listed already", where=f"{path}: line {number}")
        keys[key] = None
    if not keys:
        raise KeyFileError("no log to witness", where=str(path), advice="list a log's verification key")
    return Logs(keys)
