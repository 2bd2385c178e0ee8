"""RFC 3161 time-stamps, verified offline.

A time-stamp shows that a digest existed by some time, if one trusts the authority's clock and key. Only roots
that the verifier pins count: certificates inside a token are at most a way from its signer to such a root.
`verify_token` judges one token, in the order that its body lists; `agreed_bound` weighs several authorities.

Tokens are malleable: certificates, unsigned attributes and the status text can change and the token still
verifies, and an authority gives any number of tokens for one digest. So a token, its serial number or its
digest never identifies anything, and no randomness may come from it.

Format: docs/spec/timestamps.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Protocol

from gradseal.precede.answers import MAX_ACCURACY_SECONDS, Answer, read_answer
from gradseal.precede.asn1 import refuse
from gradseal.precede.signer import (
    check_path,
    check_purpose,
    check_signature,
    check_strength,
    check_validity,
    key_digest,
    load,
    load_roots,
    signer_certificate,
)

GRANULARITY = timedelta(seconds=1)
"""What an authority may cut off a time that it gives in seconds."""

ASSUMED_ACCURACY_SECONDS = 1.0
"""What ETSI EN 319 421 demands of an authority's clock; for tokens that name no accuracy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamped:
    """What a verified token says.

    Args:
        gen_time: The authority's clock when it made the token, UTC.
        accuracy: How far that clock may be off: what the token says, or what the verifier assumed.
        accuracy_assumed: Whether the token says nothing about it.
        certificate: SHA-256 of the signer's certificate, DER.
        key: SHA-256 of the signer's public key (SubjectPublicKeyInfo, DER).
        policy: The authority's policy, a dotted object identifier.
        serial_number: The authority's number for the token. Not an identifier of it; see the module.
    """

    gen_time: datetime
    accuracy: timedelta
    accuracy_assumed: bool
    certificate: bytes
    key: bytes
    policy: str
    serial_number: int

    @property
    def upper_bound(self) -> datetime:
        """What was stamped existed by then: the time, what was cut off it, and its accuracy."""
        return self.gen_time + GRANULARITY + self.accuracy


class TimeStamper(Protocol):
    """Whoever time-stamps digests: an authority on the network, or one in a test."""

    @property
    def name(self) -> str:
        """Whose time-stamps these are."""
        ...

    def stamp(self, digest: bytes) -> bytes:
        """A verified answer for a SHA-256 digest.

        Raises:
            AnchorError: There is none to be had now.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedAuthority:
    """An authority that a verifier trusts to tell the time.

    Args:
        name: The verifier's name for it. Under one name everything counts once.
        roots: Its self-signed root certificates, DER.
        policies: The policies that are good enough, dotted object identifiers; None for any.
        assumed_accuracy_seconds: How far its clock may be off where a token does not say.
    """

    name: str
    roots: tuple[bytes, ...]
    policies: frozenset[str] | None = None
    assumed_accuracy_seconds: float = ASSUMED_ACCURACY_SECONDS

    def __post_init__(self) -> None:
        if not 0 <= self.assumed_accuracy_seconds <= MAX_ACCURACY_SECONDS:
            message = f"an assumed accuracy of {self.assumed_accuracy_seconds} seconds"
            refuse(message, f"authority {self.name}", f"Assume 0 to {MAX_ACCURACY_SECONDS}.")

    def verify(
        self, token: bytes, *, digest: bytes, now: datetime | None, skew_seconds: float = 0.0
    ) -> Stamped:
        """`verify_token` against this authority; errors name it."""
        return verify_token(
            token,
            digest=digest,
            roots=self.roots,
            now=now,
            skew_seconds=skew_seconds,
            policies=self.policies,
            assumed_accuracy_seconds=self.assumed_accuracy_seconds,
            where=f"time-stamp of {self.name}",
        )


def check_independent(authorities: Iterable[PinnedAuthority]) -> None:
    """Refuse pins in which a name stands twice, or one root key under two names: it would count twice.

    Raises:
        AnchorError: They are so, or a root is not a certificate.
    """
    names: set[str] = set()
    owners: dict[bytes, str] = {}
    for authority in authorities:
        where = f"authority {authority.name}"
        if authority.name in names:
            refuse("pinned twice", where, "Give all its roots under one name.")
        names.add(authority.name)
        for root in load_roots(authority.roots, where):
            owner = owners.setdefault(key_digest(root, where), authority.name)
            if owner != authority.name:
                refuse(f"has a root key of authority {owner}", where, "Pin it under one name.")


def agreed_bound(stamps: Mapping[str, Iterable[Stamped]], k: int) -> datetime | None:
    """The earliest time by which, according to k authorities, what was stamped existed.

    It is the k-th smallest upper bound, so fewer than k false clocks cannot make it too early. An authority
    counts once, however many tokens it gave, and so does a signer's key that two names share.

    Args:
        stamps: Verified stamps of the same digest by the authority's pinned name (`check_independent`).
        k: How many must agree, at least 1.

    Returns:
        The bound, or None if fewer than k authorities say anything.

    Raises:
        AnchorError: `k` is less than 1.
    """
    if k < 1:
        refuse(f"{k} authorities cannot agree on anything", "number of authorities")
    names: set[str] = set()
    keys: set[bytes] = set()
    every = ((stamp.upper_bound, name, stamp.key) for name, found in stamps.items() for stamp in found)
    for bound, name, key in sorted(every):
        if name in names or key in keys:
            continue
        names.add(name)
        keys.add(key)
        if len(names) == k:
            return bound
    return None


def verify_token(
    token: bytes,
    *,
    digest: bytes,
    roots: Sequence[bytes],
    nonce: int | None = None,
    now: datetime | None = None,
    skew_seconds: float = 0.0,
    policies: Collection[str] | None = None,
    assumed_accuracy_seconds: float = ASSUMED_ACCURACY_SECONDS,
    where: str = "time-stamp",
) -> Stamped:
    """Verify an authority's answer (RFC 3161 sections 2.2 to 2.4, RFC 5816), without network.

    The token is malleable, so nothing may be identified by it, nor drawn from it.

    Args:
        token: The whole answer, a TimeStampResp in DER.
        digest: SHA-256 of what was stamped.
        roots: Self-signed certificates, DER, which the verifier pins; nothing else is trusted.
        nonce: The query's; None where the answer comes from a bundle, and the digest alone binds it.
        now: The verifier's clock, with a time zone; None if it has none that it trusts.
        skew_seconds: How far the verifier's clock may be behind the authority's.
        policies: The policies that are good enough, dotted; None for any.
        assumed_accuracy_seconds: For a token that names no accuracy, which RFC 3161 leaves open.
        where: What the token is, for error messages.

    Returns:
        What the authority says.

    Raises:
        AnchorError: It does not verify; `where` ends in the field that is at fault.
    """
    # 1. One strict reading, within bounds: granted, one signer, one TSTInfo.
    answer = read_answer(token, where=where)
    pins = load_roots(roots, f"{where}: pinned roots")
    # 2. It is about this digest, an answer to this query, under a policy that is good enough.
    _check_imprint(answer, digest, where)
    if nonce is not None and answer.info.nonce != nonce:
        refuse("answers another query: the nonce differs", f"{where}: tstInfo.nonce")
    if policies is not None and answer.info.policy not in policies:
        refuse(f"policy {answer.info.policy} is not asked for", f"{where}: tstInfo.policy")
    # 3. Its time is not ahead of the verifier's.
    _check_clock(answer.info.gen_time, now, skew_seconds, where)
    # 4. The signer's certificate: the one that the signed attributes name, for time-stamping alone, in force.
    carried = signer_certificate(answer, where)
    certificate = load(carried.encoded, f"{where}: signer's certificate")
    check_purpose(certificate, f"{where}: signer's certificate.extendedKeyUsage")
    check_validity(certificate, answer.info.gen_time, f"{where}: signer's certificate.validity")
    # 5. The signature, over the attributes, whose message digest is that of the TSTInfo.
    check_signature(answer, certificate, where)
    # 6. OpenSSL's own reading: the signature again, and the path to a pinned root as of the token's time.
    check_strength(answer.certificates, f"{where}: certificates")
    check_path(token, answer, pins, where)
    accuracy = answer.info.accuracy
    assumed = timedelta(seconds=assumed_accuracy_seconds)
    return Stamped(
        gen_time=answer.info.gen_time,
        accuracy=assumed if accuracy is None else accuracy,
        accuracy_assumed=accuracy is None,
        certificate=sha256(carried.encoded).digest(),
        key=key_digest(certificate, f"{where}: signer's certificate"),
        policy=answer.info.policy,
        serial_number=answer.info.serial_number,
    )


def _check_imprint(answer: Answer, digest: bytes, where: str) -> None:
    if answer.info.algorithm != "sha256":
        refuse(f"of {answer.info.algorithm}, not sha256", f"{where}: tstInfo.messageImprint.hashAlgorithm")
    if answer.info.digest != digest:
        refuse("stamps another digest", f"{where}: tstInfo.messageImprint.hashedMessage")


def _check_clock(gen_time: datetime, now: datetime | None, skew_seconds: float, where: str) -> None:
    if now is not None and gen_time - now > timedelta(seconds=skew_seconds):
        refuse(
            f"{gen_time.isoformat()} is in the future; it is {now.isoformat()}",
            f"{where}: tstInfo.genTime",
            "Check this machine's clock.",
        )
