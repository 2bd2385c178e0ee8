"""BLS signatures on BLS12-381 with signatures in G1 and public keys in G2, as drand's quicknet has them.

A signature is one point: the message hashed to G1 (RFC 9380, suite BLS12381G1_XMD:SHA-256_SSWU_RO_) times
the secret. A key and a message have exactly one, so a signer can withhold it but not choose it. Points are
read strictly: compressed, canonical, on the curve, in the group of prime order, not infinity. What does not
verify is `False`, not an error. The arithmetic is arkworks', which does not run in constant time.

Knows no rounds; see `chain`. Format: docs/spec/beacon.md, section 2.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from py_arkworks_bls12381 import GT, G1Point, G2Point, Scalar

SECRET_BYTES = 32
PUBLIC_KEY_BYTES = 96
SIGNATURE_BYTES = 48

GROUP_ORDER = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
"""How many points each of the two groups has; a secret is an integer from 1 to one less."""

DOMAIN = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
"""The domain separation tag, DST in RFC 9380."""

_COEFFICIENT_BITS = 128
_MINUS_GENERATOR = -G2Point()


def new_secret() -> bytes:
    """A secret from the system's randomness, 32 bytes, big-endian."""
    return (1 + secrets.randbelow(GROUP_ORDER - 1)).to_bytes(SECRET_BYTES, "big")


def is_secret(data: bytes) -> bool:
    """Whether these are the 32 bytes of a secret."""
    return len(data) == SECRET_BYTES and 0 < int.from_bytes(data, "big") < GROUP_ORDER


def is_public_key(data: bytes) -> bool:
    """Whether these are the 96 canonical bytes of a point of G2 that a key can be."""
    return _public_point(data) is not None


def public_key(secret: bytes) -> bytes:
    """The public half of a secret, 96 bytes."""
    return (G2Point() * Scalar.from_be_bytes(secret)).to_compressed_bytes()


def sign(secret: bytes, message: bytes) -> bytes:
    """The one signature of the message by this secret, 48 bytes."""
    return (_hashed(message) * Scalar.from_be_bytes(secret)).to_compressed_bytes()


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether this is the key's signature of the message."""
    return verify_all(public, [(message, signature)])


def verify_all(public: bytes, signed: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether every one of many signatures by one key verifies, for two pairings in all.

    A random linear combination is checked, with coefficients of 128 bits drawn here and now: a set with a
    wrong signature passes with probability 2^-128, also where signatures were made to cancel each other out.

    Args:
        public: The key, 96 bytes.
        signed: Pairs of message and signature.
    """
    key = _public_point(public)
    points = [_signature_point(signature) for _, signature in signed]
    valid = [point for point in points if point is not None]
    if key is None or len(valid) < len(points):
        return False
    if not valid:
        return True
    hashed = [_hashed(message) for message, _ in signed]
    if len(signed) == 1:
        return GT.pairing_check([valid[0], hashed[0]], [_MINUS_GENERATOR, key])
    drawn = [Scalar(secrets.randbits(_COEFFICIENT_BITS)) for _ in signed]
    sums = [G1Point.multiexp_unchecked(group, drawn) for group in (valid, hashed)]
    return GT.pairing_check(sums, [_MINUS_GENERATOR, key])


def _hashed(message: bytes) -> G1Point:
    return G1Point.hash_to_curve(message, DOMAIN)


def _signature_point(data: bytes) -> G1Point | None:
    try:
        # Off the curve or outside the group is refused here; flags and bytes of infinity are read leniently.
        point = G1Point.from_compressed_bytes(data)
    except ValueError:
        return None
    return None if point == G1Point.identity() or point.to_compressed_bytes() != data else point


def _public_point(data: bytes) -> G2Point | None:
    try:
        point = G2Point.from_compressed_bytes(data)
    except ValueError:
        return None
    return None if point == G2Point.identity() or point.to_compressed_bytes() != data else point
