"""The owner's signing key, from the file that holds it. Knows no torch."""

from __future__ import annotations

import re
from pathlib import Path

from gradseal.errors import KeyFileError
from gradseal.proof.note import Signer, SigningKey

MAX_KEY_FILE_BYTES = 4096


def load_signer(key: Signer | str | Path) -> Signer:
    """The signer itself, or the signing key that a file holds.

    Raises:
        KeyFileError: The file cannot be read or is not a signing key.
    """
    if not isinstance(key, str | Path):
        return key
    if str(key).startswith("PRIVATE+KEY+"):
        # The text is a secret, so no error may repeat it as the name of a file.
        raise KeyFileError(
            "a signing key, not the name of a file", where="key", advice="use SigningKey.parse"
        )
    if re.fullmatch(r"[^+\s]+\+[0-9a-f]{8}\+[A-Za-z0-9+/=]+\s*", str(key)):
        raise KeyFileError(
            "a public key; recording needs the signing key", where="key", advice="name the file that holds it"
        )
    try:
        with open(key, "rb") as file:
            text = file.read(MAX_KEY_FILE_BYTES).decode()
    except (OSError, ValueError) as e:
        raise KeyFileError(
            f"no signing key can be read: {e}", where=str(key), advice="make one with `gradseal key new`"
        ) from e
    return SigningKey.parse(text.strip(), where=str(key))
