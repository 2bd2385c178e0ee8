"""Signed notes: a text with the signatures of one or more keys.

Follows C2SP signed-note, with Ed25519 signatures (type 0x01, RFC 8032). Guarantees that a note that opens is
byte for byte the one that its text and signature lines spell, and that `verified_by` believes only the key it
is given. Signature lines of other keys and other types are kept unread, because witnesses add theirs.
Key texts are those of C2SP signed-note and of Go's note package.

Opening a note verifies nothing: ask `Note.verified_by`. Format: docs/spec/log.md, sections 4 and 5.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NoReturn, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gradseal.errors import Error, KeyFileError, MalformedBundle

MAX_NOTE_BYTES = 64 * 1024
"""The largest note that `open_note` reads and `Note.encode` writes."""

MAX_SIGNATURES = 64
"""The most signature lines in a note; C2SP signed-note asks for at least 16."""

MAX_NAME_LENGTH = 255
"""The longest key name, in code points."""

ED25519 = 0x01
"""The signature type of plain Ed25519 (C2SP signed-note, "Signature types")."""

_KEY_BYTES = 32
_ID_BYTES = 4
_SIGNATURE_LINE = re.compile("\N{EM DASH} ([^ ]+) ([A-Za-z0-9+/]+={0,2})")
_KEY_HASH = re.compile(r"[0-9a-f]{8}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_NOT_IN_NAMES = re.compile(r"[+\s\x00-\x1f]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def decode_base64(text: str, *, where: str, kind: type[Error] = MalformedBundle) -> bytes:
    """The bytes of standard base64 with padding (RFC 4648 section 4).

    Args:
        text: The base64.
        where: What it is, for error messages.
        kind: The error to raise.

    Raises:
        Error: Of `kind`, for any text but the one that `encode_base64` gives for the same bytes.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as e:
        raise kind("not base64", where=where) from e
    # The decoder ignores the unused bits of the last digit, so that several texts give the same bytes.
    if encode_base64(data) != text:
        raise kind("base64 that is not in canonical form", where=where)
    return data


def encode_base64(data: bytes) -> str:
    """Standard base64 with padding (RFC 4648 section 4)."""
    return base64.b64encode(data).decode("ascii")


def key_id(name: str, algorithm: int, public: bytes) -> bytes:
    """The four bytes that stand for a key in a signature (C2SP signed-note, "Signatures").

    Args:
        name: The key's name.
        algorithm: The signature type, one byte.
        public: The encoded public key.
    """
    return sha256(name.encode() + b"\n" + bytes([algorithm]) + public).digest()[:_ID_BYTES]


def name_fault(name: str) -> str:
    """What is wrong with a key name; empty if nothing is (C2SP signed-note, "Format")."""
    if not 0 < len(name) <= MAX_NAME_LENGTH:
        return f"a key name of {len(name)} characters, not 1 to {MAX_NAME_LENGTH}"
    if _NOT_IN_NAMES.search(name):
        return "a key name with a space, a plus sign or a control character"
    if _SURROGATE.search(name):
        return "a key name with a lone surrogate"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyForm:
    """How the Ed25519 keys of one signature type are written as text (C2SP signed-note, "Verifier keys").

    Args:
        algorithm: The signature type, one byte.
        called: What such a key is, for error messages.
        advice: What to do about a key of another type, for error messages.
    """

    algorithm: int
    called: str
    advice: str = ""

    def text(self, name: str, public: bytes) -> str:
        """`name+hash+base64`, for a public key of 32 bytes."""
        encoded = encode_base64(bytes([self.algorithm]) + public)
        return f"{name}+{key_id(name, self.algorithm, public).hex()}+{encoded}"

    def secret_text(self, name: str, seed: bytes) -> str:
        """`PRIVATE+KEY+name+hash+base64`, for a seed of 32 bytes. It holds the secret."""
        encoded = encode_base64(bytes([self.algorithm]) + seed)
        return f"PRIVATE+KEY+{name}+{key_id(name, self.algorithm, _public_of(seed)).hex()}+{encoded}"

    def parse(self, text: str, *, where: str) -> tuple[str, bytes]:
        """The name and the public key, of what `text` gives.

        Raises:
            KeyFileError: Not of this form, of another signature type, or the hash is not the key's.
        """
        name, public = self._parse(text.split("+", 2), where)
        if self.text(name, public) != text:
            raise KeyFileError("a key whose hash is not its own", where=where)
        return name, public

    def parse_secret(self, text: str, *, where: str) -> tuple[str, bytes]:
        """The name and the seed, of what `secret_text` gives.

        Raises:
            KeyFileError: As `parse` says. The error never repeats the text.
        """
        words = text.split("+", 4)
        if words[:2] != ["PRIVATE", "KEY"]:
            raise KeyFileError("not a signing key; it would begin with PRIVATE+KEY+", where=where)
        name, seed = self._parse(words[2:], where)
        if self.secret_text(name, seed) != text:
            raise KeyFileError("a key whose hash is not its own", where=where)
        return name, seed

    def _parse(self, words: Sequence[str], where: str) -> tuple[str, bytes]:
        """The name and the 32 bytes from the last three parts of a text; the hash is the caller's."""
        if len(words) != 3 or not _KEY_HASH.fullmatch(words[1]):
            raise KeyFileError("a key that is not name+hash+base64", where=where)
        if fault := name_fault(words[0]):
            raise KeyFileError(fault, where=where)
        data = decode_base64(words[2], where=where, kind=KeyFileError)
        if len(data) != 1 + _KEY_BYTES or data[0] != self.algorithm:
            message = f"a key that is not {self.called} (type {self.algorithm}, {_KEY_BYTES} bytes)"
            raise KeyFileError(message, where=where, advice=self.advice)
        return words[0], data[1:]


def check_key(name: str, key: bytes) -> None:
    """Refuse what no Ed25519 key can be: a name that is not allowed, or not 32 bytes.

    Raises:
        KeyFileError: It is.
    """
    if fault := name_fault(name):
        raise KeyFileError(fault, where="key name")
    if len(key) != _KEY_BYTES:
        raise KeyFileError(f"an Ed25519 key of {len(key)} bytes, not {_KEY_BYTES}", where=f"key {name}")


_FORM = KeyForm(algorithm=ED25519, called="Ed25519")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKey:
    """The public half of an Ed25519 key, with its name; `str` of it is its text form.

    Args:
        name: Whose key it is; without spaces and plus signs.
        public: The 32 bytes of the key.

    Raises:
        KeyFileError: The name is not allowed, or the key is not 32 bytes long.
    """

    name: str
    public: bytes

    def __post_init__(self) -> None:
        check_key(self.name, self.public)

    @property
    def id(self) -> bytes:
        """The four bytes that stand for this key in a signature."""
        return key_id(self.name, ED25519, self.public)

    @classmethod
    def parse(cls, text: str, *, where: str = "verification key") -> VerificationKey:
        """Read `name+hash+base64`, without a newline.

        Raises:
            KeyFileError: Not of this form, of another signature type, or the hash is not the key's.
        """
        name, public = _FORM.parse(text, where=where)
        return cls(name=name, public=public)

    def __str__(self) -> str:
        return _FORM.text(self.name, self.public)

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether this is the key's signature of the message (RFC 8032 section 5.1.7)."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except InvalidSignature:
            return False
        return True


class Signer(Protocol):
    """Whatever can sign: a key in memory, a token, a service."""

    @property
    def verification_key(self) -> VerificationKey:
        """The key that verifies what this signer signs."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of a message."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A `Signer` that holds its Ed25519 seed in memory.

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
    def generate(cls, name: str) -> SigningKey:
        """A new key from the system's randomness."""
        return cls(name=name, seed=secrets.token_bytes(_KEY_BYTES))

    @classmethod
    def parse(cls, text: str, *, where: str = "signing key") -> SigningKey:
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
    def verification_key(self) -> VerificationKey:
        """The public half."""
        return VerificationKey(name=self.name, public=_public_of(self.seed))

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of a message (RFC 8032 section 5.1.6)."""
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteSignature:
    """One signature line: who is said to have signed, and the bytes."""

    name: str
    key_id: bytes
    signature: bytes

    def line(self) -> str:
        """The line of the note, with its newline."""
        return f"\N{EM DASH} {self.name} {encode_base64(self.key_id + self.signature)}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A text and its signatures, of which none is verified yet."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def encode(self) -> bytes:
        """The bytes of the note, which `open_note` reads.

        Raises:
            MalformedBundle: The text or a name is not allowed, the number of signatures is not 1 to 64, or
                the note is too large.
        """
        lines = "".join(signature.line() for signature in self.signatures)
        data = _message(self.text) + b"\n" + lines.encode(errors="replace")
        if open_note(data, where="note") != self:
            _refuse("a note that would not be read back as it is", "note")
        return data

    def verified_by(self, key: VerificationKey) -> bool:
        """Whether the key signed the text.

        A line that carries the key's name and id but does not verify spoils the note for that key, even if
        another one does verify (C2SP signed-note, "Signatures").
        """
        claimed = [s.signature for s in self.signatures if (s.name, s.key_id) == (key.name, key.id)]
        message = _message(self.text)
        return bool(claimed) and all(key.verify(signature, message) for signature in claimed)


def sign_note(text: str, signers: Sequence[Signer]) -> bytes:
    """The bytes of a note, signed by each signer in turn.

    Args:
        text: Ends in a newline; no control character but newlines.
        signers: At least one.

    Raises:
        MalformedBundle: The text is not allowed, or there is no signer, or there are too many.
    """
    message = _message(text)
    signatures = []
    for signer in signers:
        key = signer.verification_key
        signatures.append(NoteSignature(name=key.name, key_id=key.id, signature=signer.sign(message)))
    return Note(text=text, signatures=tuple(signatures)).encode()


def open_note(data: bytes, *, where: str) -> Note:
    """Parse a note strictly. Verifies no signature.

    Args:
        data: The bytes.
        where: The file they come from, for error messages.

    Raises:
        MalformedBundle: Too large, not UTF-8, a control character, no blank line before the signatures, or a
            signature line that is not of the form; too many of them, or none.
    """
    if len(data) > MAX_NOTE_BYTES:
        _refuse(f"a note of {len(data)} bytes, more than the {MAX_NOTE_BYTES} allowed", where)
    try:
        whole = data.decode()
    except UnicodeDecodeError as e:
        raise MalformedBundle("a note that is not UTF-8", where=where) from e
    if _CONTROL.search(whole):
        _refuse("a note with a control character", where)
    # The text may hold blank lines; the last one ends it.
    text, blank, tail = whole.rpartition("\n\n")
    if not blank:
        _refuse("a note without a blank line before its signatures", where)
    return Note(text=text + "\n", signatures=_parse_signatures(tail, where))


def _message(text: str) -> bytes:
    """What the keys sign: the text in UTF-8, once it is one that a note may have."""
    if not text.endswith("\n") or _CONTROL.search(text):
        _refuse("a text without a newline at its end, or with a control character", "note")
    try:
        return text.encode()
    except UnicodeEncodeError as e:
        raise MalformedBundle("a text with a lone surrogate", where="note") from e


def _parse_signatures(tail: str, where: str) -> tuple[NoteSignature, ...]:
    # Only newlines end a line; str.splitlines would also split at U+0085 and U+2028.
    *lines, rest = tail.split("\n")
    if rest:
        _refuse("a note that does not end in a newline", where)
    if not 0 < len(lines) <= MAX_SIGNATURES:
        _refuse(f"{len(lines)} signatures on a note, not 1 to {MAX_SIGNATURES}", where)
    return tuple(_parse_signature(line, f"{where}: signature {i}") for i, line in enumerate(lines))


def _parse_signature(line: str, where: str) -> NoteSignature:
    match = _SIGNATURE_LINE.fullmatch(line)
    if not match:
        _refuse("a line that is not an em dash, a key name and base64", where)
    name, encoded = match.groups()
    if fault := name_fault(name):
        _refuse(fault, where)
    data = decode_base64(encoded, where=where)
    if len(data) <= _ID_BYTES:
        _refuse("a signature without bytes after the key id", where)
    return NoteSignature(name=name, key_id=data[:_ID_BYTES], signature=data[_ID_BYTES:])


def _public_of(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def _refuse(message: str, where: str) -> NoReturn:
    raise MalformedBundle(message, where=where)
