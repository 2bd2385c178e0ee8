"""Time-stamp queries as an authority reads them (RFC 3161 section 2.4.1).

`read_query` walks a query as strict DER within bounds, then takes it only if encoding what was read gives the
same bytes again. A stranger sends it, so what is wrong with it is data: a `Refusal`, which the answer tells.
Format: docs/spec/timestamps.md, section 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from asn1crypto import tsp

from gradseal.errors import AnchorError
from gradseal.precede.asn1 import check_der

MAX_QUERY_BYTES = 1024
"""The longest query that is read; one without extensions has about 70 bytes."""

MAX_NONCE_BITS = 160
"""The largest nonce that is repeated."""

Failure = Literal[
    "bad_alg",
    "bad_request",
    "bad_data_format",
    "time_not_available",
    "unaccepted_policy",
    "unaccepted_extensions",
]
"""A PKIFailureInfo of RFC 3161 section 2.4.2, by the name that asn1crypto has for it."""

_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What somebody wants stamped.

    Args:
        imprint: The MessageImprint as it came, DER: SHA-256, by name, and a digest.
        policy: The policy that the time-stamp is to be under, dotted; None for any.
        nonce: What the answer must repeat, if anything.
        certificate_wanted: Whether the answer is to carry the signer's certificate.
    """

    imprint: bytes
    policy: str | None
    nonce: int | None
    certificate_wanted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why there is no time-stamp: a failure of the standard's list, and the reason in words."""

    failure: Failure
    reason: str


def read_query(query: bytes) -> Query | Refusal:
    """Read a TimeStampReq strictly.

    Args:
        query: What was sent, of any size.

    Returns:
        What is asked for, or why it is not taken.
    """
    if len(query) > MAX_QUERY_BYTES:
        return Refusal(failure="bad_data_format", reason=f"more than {MAX_QUERY_BYTES} bytes")
    try:
        check_der(query, where="query")
        read = tsp.TimeStampReq.load(query, strict=True)
        # Only whole and in its one encoding; to encode it decodes all of it, which asn1crypto does late.
        if tsp.TimeStampReq.load(query).dump(force=True) != query:
            return Refusal(failure="bad_data_format", reason="not in its one encoding")
        return _judge(read)
    except AnchorError as e:
        return Refusal(failure="bad_data_format", reason=e.message)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError):
        return Refusal(failure="bad_data_format", reason="not a time-stamp query of RFC 3161")


def _judge(read: Any) -> Query | Refusal:
    imprint, nonce = read["message_imprint"], read["nonce"].native
    algorithm = imprint["hash_algorithm"]
    if int(read["version"]) != 1:
        return Refusal(failure="bad_request", reason="not version 1")
    # What nobody here knows must not be answered as if it had been heeded (RFC 3161 section 2.4.1).
    if read["extensions"].native is not None:
        return Refusal(failure="unaccepted_extensions", reason="no extension is known here")
    if algorithm["algorithm"].native != "sha256" or algorithm["parameters"].native is not None:
        return Refusal(failure="bad_alg", reason="only SHA-256 is stamped")
    if len(imprint["hashed_message"].native) != _DIGEST_BYTES:
        return Refusal(failure="bad_data_format", reason=f"a digest that is not {_DIGEST_BYTES} bytes")
    if nonce is not None and not 0 <= nonce < 1 << MAX_NONCE_BITS:
        reason = f"a nonce that is negative, or has more than {MAX_NONCE_BITS} bits"
        return Refusal(failure="bad_data_format", reason=reason)
    return Query(
        imprint=bytes(imprint.dump()),
        policy=read["req_policy"].native and read["req_policy"].dotted,
        nonce=nonce,
        certificate_wanted=bool(read["cert_req"].native),
    )
