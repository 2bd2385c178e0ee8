"""A small time-stamp authority, for places without network: RFC 3161 by a key of one's own.

The answers are those of any authority, so that recorder and verifier run the same code for both. It keeps no
account of them, and tells the time that its caller gives. Whoever holds the key can date a token as they
like, though: a token shows a time only to those who trust its holder.

Serves nothing; see `authority_serving`. Format: docs/spec/timestamps.md, section 8.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from gradseal.errors import AnchorError, KeyFileError
from gradseal.precede.answers import MAX_ACCURACY_SECONDS, encode_query
from gradseal.precede.asn1 import refuse
from gradseal.precede.certificates import make_certificates, name_of
from gradseal.precede.issuing import grant, reject
from gradseal.precede.queries import Refusal, read_query
from gradseal.precede.timestamps import verify_token

MAX_KEY_FILE_BYTES = 8192

POLICY = "2.25.204485167313692216542324833735555054699"
"""The policy that every token names: of the clock is promised what its holder promises, and no more."""

DEFAULT_DAYS, MAX_DAYS = 3650, 36_500
DEFAULT_ACCURACY_SECONDS = 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CERTIFICATE = r"-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n"
_PRIVATE_KEY = r"-----BEGIN PRIVATE KEY-----\n[A-Za-z0-9+/=\n]+-----END PRIVATE KEY-----"
_KEY_FILE = re.compile(f"({_CERTIFICATE})({_CERTIFICATE})({_PRIVATE_KEY})")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalAuthority:
    """A root certificate, a signer's that it issued, and the signer's key.

    That its answers verify against its root is checked by making one.

    Args:
        root_certificate: Self-signed; the organisation in its subject is the authority's name.
        signer_certificate: Issued by the root, for time-stamping alone.
        key: The signer's, P-256. Which one it is, the certificate says.

    Raises:
        KeyFileError: A name that no authority can have, or its answers do not verify.
    """

    root_certificate: x509.Certificate
    signer_certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.key.curve, ec.SECP256R1):
            raise KeyFileError("a key that is not on P-256", where="authority's key")
        _check_name(self.name)
        try:
            self._check_answer()
        except AnchorError as e:
            message = f"its answers would not verify: {e.message}"
            raise KeyFileError(message, where=f"authority's key: {e.where}") from e

    @classmethod
    def generate(cls, *, name: str, days: int = DEFAULT_DAYS, now: datetime | None = None) -> LocalAuthority:
        """An authority of new keys. The root's is not kept, so the root issues nothing else.

        Args:
            name: Its name: letters, digits, - _ and dots.
            days: For how long it may sign.
            now: From when on, with a time zone; by default this machine's time.

        Raises:
            KeyFileError: A name or number of days that none can have.
            AnchorError: A time without a time zone.
        """
        _check_name(name)
        if not 1 <= days <= MAX_DAYS:
            raise KeyFileError(f"{days} days, not 1 to {MAX_DAYS}", where="authority's key")
        begins = datetime.now(UTC) if now is None else now
        _check_zone(begins)
        key = ec.generate_private_key(ec.SECP256R1())
        root, signer = make_certificates(
            name, key.public_key(), begins=begins, ends=begins + timedelta(days=days)
        )
        return cls(root_certificate=root, signer_certificate=signer, key=key)

    @property
    def name(self) -> str:
        """Whose time-stamps these are, as its root says."""
        return name_of(self.root_certificate)

    @property
    def root(self) -> bytes:
        """What recorders and verifiers pin: the root certificate, DER."""
        return self.root_certificate.public_bytes(Encoding.DER)

    @property
    def root_pem(self) -> str:
        """The root certificate, PEM, with a newline at its end."""
        return self.root_certificate.public_bytes(Encoding.PEM).decode()

    @property
    def expires(self) -> datetime:
        """Until when, short of it, it may sign. What it signed before is good for ever."""
        return self.signer_certificate.not_valid_after_utc

    def answer(
        self, query: bytes, now: datetime, *, accuracy_seconds: int = DEFAULT_ACCURACY_SECONDS
    ) -> bytes:
        """The answer to a query: a time-stamp, or why there is none.

        Args:
            query: What was sent: a TimeStampReq in DER, if all is well.
            now: The time, with a time zone, by the clock of whoever serves the authority.
            accuracy_seconds: How far that clock may be off, 1 to 86,400.

        Returns:
            A whole TimeStampResp, DER: granted, or a rejection of a query that is bad or not supported.

        Raises:
            AnchorError: A time without a time zone, or an accuracy out of bounds.
        """
        _check_zone(now)
        if not 1 <= accuracy_seconds <= MAX_ACCURACY_SECONDS:
            message = f"an accuracy of {accuracy_seconds} seconds, not 1 to {MAX_ACCURACY_SECONDS}"
            refuse(message, f"authority {self.name}")
        asked = read_query(query)
        if isinstance(asked, Refusal):
            return reject(asked)
        if asked.policy not in (None, POLICY):
            return reject(Refusal(failure="unaccepted_policy", reason=f"the only policy is {POLICY}"))
        if not self._in_force(now):
            return reject(Refusal(failure="time_not_available", reason="the signer is not in force now"))
        return grant(
            asked,
            signer=self.signer_certificate,
            key=self.key,
            policy=POLICY,
            now=now,
            accuracy_seconds=accuracy_seconds,
        )

    def encode(self) -> str:
        """Both certificates and the key as PEM, without the last newline. It holds the secret."""
        signer = self.signer_certificate.public_bytes(Encoding.PEM).decode()
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return f"{self.root_pem}{signer}{key}".removesuffix("\n")

    @classmethod
    def parse(cls, text: str, *, where: str = "authority's key") -> LocalAuthority:
        """Read what `encode` writes.

        Raises:
            KeyFileError: Not of this form, or its answers do not verify. The error never repeats the text.
        """
        match = _KEY_FILE.fullmatch(text)
        if len(text) > MAX_KEY_FILE_BYTES or not match:
            raise KeyFileError("not an authority's key: two certificates and a key, PEM", where=where)
        root, signer, secret = (part.encode() for part in match.groups())
        try:
            key = load_pem_private_key(secret, password=None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise KeyFileError("a key that is not on P-256")
            authority = cls(
                root_certificate=x509.load_pem_x509_certificate(root),
                signer_certificate=x509.load_pem_x509_certificate(signer),
                key=key,
            )
        except KeyFileError as e:
            raise KeyFileError(e.message, where=where) from e
        except (ValueError, TypeError, x509.InvalidVersion, UnsupportedAlgorithm) as e:
            raise KeyFileError("a certificate or key that cannot be read", where=where) from e
        if authority.encode() != text:
            raise KeyFileError("a key that is not in its one encoding", where=where)
        return authority

    def _in_force(self, now: datetime) -> bool:
        certificates = (self.root_certificate, self.signer_certificate)
        # OpenSSL takes the end itself for after it.
        return all(c.not_valid_before_utc <= now < c.not_valid_after_utc for c in certificates)

    def _check_answer(self) -> None:
        """Any fault of the certificates, or between them and the key, shows in an answer, but for one."""
        try:
            # Nobody checks what signed a pinned root, and so nobody would see that it was changed.
            self.root_certificate.verify_directly_issued_by(self.root_certificate)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as e:
            raise AnchorError("not self-signed", where="root") from e
        digest, begins = bytes(32), self.signer_certificate.not_valid_before_utc
        answer = self.answer(encode_query(digest, nonce=0), begins)
        verify_token(answer, digest=digest, roots=[self.root], where="answer")


def load_local_authority(file: Path) -> LocalAuthority:
    """The authority whose key a file holds.

    Raises:
        KeyFileError: The file cannot be read or is not such a key.
    """
    try:
        with open(file, "rb") as opened:
            text = opened.read(MAX_KEY_FILE_BYTES + 1).decode()
    except (OSError, ValueError) as e:
        advice = "make one with `gradseal timestamps new-key`"
        raise KeyFileError("no authority's key can be read", where=str(file), advice=advice) from e
    return LocalAuthority.parse(text.removesuffix("\n"), where=str(file))


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise KeyFileError("a name is 1 to 64 letters, digits, - _ or .", where="authority's key")


def _check_zone(now: datetime) -> None:
    if now.tzinfo is None:
        refuse("a time without a time zone", "the authority's clock")
