"""Cosignatures: a witness's statement that a log had a size and root at a time, and that it only grew.

Follows C2SP tlog-cosignature, with Ed25519 (`cosignature/v1`, type 0x04). Guarantees that a time is believed
only under the key that it is asked of, and that what was signed is the checkpoint's whole text. Key texts
are those of C2SP signed-note with type 0x04. ML-DSA-44 (type 0x06) is not known here.

A cosignature is evidence of time, never randomness: whoever asks twice gets two.
Format: docs/spec/witness.md, section 1.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gradseal.proof.note import KeyForm, Note, NoteSignature, check_key, key_id

COSIGNATURE_V1 = 0x04
"""The signature type of a timestamped Ed25519 cosignature (C2SP tlog-cosignature, "Format")."""

MAX_TIMESTAMP = 2**63 - 1
"""The latest time that a cosignature can state, in seconds of Unix time."""

_SEED_BYTES = 32
_TIME_BYTES = 8
_SIGNATURE_BYTES = 64
_FORM = KeyForm(
    algorithm=COSIGNATURE_V1,
    called="a witness's Ed25519 key",
    advice="make one with `gradseal witness new-key`; a log's key is of another type",
)


def cosigned_message(text: str, timestamp: int) -> bytes:
    """What a witness signs: the header, the time, and the whole text of the checkpoint.

    Args:
        text: The text of the note, with its final newline.
        timestamp: Seconds of Unix time, 0 to `MAX_TIMESTAMP`.

    Raises:
        ValueError: The time is out of range.
    """
    if not 0 <= timestamp <= MAX_TIMESTAMP:
        raise ValueError(f"no cosignature states the time {timestamp}")
    return f"cosignature/v1\ntime {timestamp}\n{text}".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class CosignatureKey:
    """The public half of a witness's key, with its name; `str` of it is its text form.

    Args:
        name: Whose key it is; without spaces and plus signs.
        public: The 32 bytes of the Ed25519 key.

    Raises:
        KeyFileError: The name is not allowed, or the key is not 32 bytes long.
    """

    name: str
    public: bytes

    def __post_init__(self) -> None:
        check_key(self.name, self.public)

    @property
    def id(self) -> bytes:
        """The four bytes that stand for this key in a signature line."""
        return key_id(self.name, COSIGNATURE_V1, self.public)

    @classmethod
    def parse(cls, text: str, *, where: str = "witness key") -> CosignatureKey:
        """Read `name+hash+base64`, without a newline.

        Raises:
            KeyFileError: Not of this form, of another signature type, or the hash is not the key's.
        """
        name, public = _FORM.parse(text, where=where)
        return cls(name=name, public=public)

    def __str__(self) -> str:
        return _FORM.text(self.name, self.public)

    def time_of(self, signature: NoteSignature, text: str) -> int | None:
        """The time that a line states for a text, in seconds; None unless the line is this key's."""
        data = signature.signature
        if (signature.name, signature.key_id) != (self.name, self.id):
            return None
        if len(data) != _TIME_BYTES + _SIGNATURE_BYTES:
            return None
        timestamp = int.from_bytes(data[:_TIME_BYTES], "big")
        if timestamp > MAX_TIMESTAMP:
            return None
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(
                data[_TIME_BYTES:], cosigned_message(text, timestamp)
            )
        except InvalidSignature:
            return None
        return timestamp

    def cosigned_at(self, note: Note) -> int | None:
        """The earliest time at which this key cosigned a note; None if it did not.

        A line that carries the key's name and id but does not verify spoils the note for that key, even if
        another one does verify, as `Note.verified_by` has it.
        """
        claimed = [s for s in note.signatures if (s.name, s.key_id) == (self.name, self.id)]
        times = [time for s in claimed if (time := self.time_of(s, note.text)) is not None]
        return min(times) if times and len(times) == len(claimed) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class CosigningKey:
    """A witness's signing key, which holds its Ed25519 seed in memory.

    Args:
        name: Whose key it is; without spaces and plus signs.
        seed: The 32 secret bytes.

    Raises:
        KeyFileError: The name is not allowed, or the seed is not 32 bytes long.
    """

    name: str
    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        check_key(self.name, self.seed)

    @classmethod
    def generate(cls, name: str) -> CosigningKey:
        """A new key from the system's randomness."""
        return cls(name=name, seed=secrets.token_bytes(_SEED_BYTES))

    @classmethod
    def parse(cls, text: str, *, where: str = "cosigning key") -> CosigningKey:
        """Read `PRIVATE+KEY+name+hash+base64`, without a newline.

        Raises:
            KeyFileError: Not of this form, of another signature type, or the hash is not the key's. The
                error never repeats the text.
        """
        name, seed = _FORM.parse_secret(text, where=where)
        return cls(name=name, seed=seed)

    def encode(self) -> str:
        """The key as text. It holds the secret."""
        return _FORM.secret_text(self.name, self.seed)

    @property
    def verification_key(self) -> CosignatureKey:
        """The public half."""
        return _loaded(self)[1]

    def cosign(self, text: str, timestamp: int) -> NoteSignature:
        """The line that says that the checkpoint with this text was the log's latest at this time.

        Args:
            text: The text of the note, with its final newline.
            timestamp: Seconds of Unix time.
        """
        private, public = _loaded(self)
        signed = private.sign(cosigned_message(text, timestamp))
        return NoteSignature(
            name=self.name, key_id=public.id, signature=timestamp.to_bytes(_TIME_BYTES, "big") + signed
        )


@lru_cache(maxsize=16)
def _loaded(key: CosigningKey) -> tuple[Ed25519PrivateKey, CosignatureKey]:
    """The key ready to sign: deriving its public half costs more than a signature."""
    private = Ed25519PrivateKey.from_private_bytes(key.seed)
    public = private.public_key().public_bytes_raw()
    return private, CosignatureKey(name=key.name, public=public)
