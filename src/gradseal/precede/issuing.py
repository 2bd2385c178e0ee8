"""Time-stamp answers as an authority makes them (RFC 3161 section 2.4.2, RFC 5816).

A token is CMS signed data (RFC 5652) over a TSTInfo, by ECDSA with SHA-256. What is signed names the signer's
certificate by its SHA-256 (ESSCertIDv2), whether or not the answer carries it. Whether a query is granted,
and at what time, its caller decides.
Format: docs/spec/timestamps.md, section 8.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from asn1crypto import algos, cms, core, tsp
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from gradseal.precede.queries import Query, Refusal

_SERIAL_BITS = 159
_GRANTED, _REJECTED = 0, 2
_DIGEST, _SIGNATURE = {"algorithm": "sha256"}, {"algorithm": "sha256_ecdsa"}


def grant(
    query: Query,
    *,
    signer: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    policy: str,
    now: datetime,
    accuracy_seconds: int,
) -> bytes:
    """A TimeStampResp, DER, that grants a query.

    Its serial number is random, so that no account of those given out is kept, nor lost.

    Args:
        query: What to stamp.
        signer: The certificate of the key that signs.
        key: That key.
        policy: The policy to name, dotted.
        now: The time, with a time zone; what is less than a second is cut off.
        accuracy_seconds: How far the clock may be off.
    """
    info = _info(query, policy, now, accuracy_seconds).dump()
    certificate = asn1_x509.Certificate.load(signer.public_bytes(Encoding.DER))
    signed = {
        # Of this version because what is signed is no plain data (RFC 5652 section 5.1).
        "version": "v3",
        "digest_algorithms": [algos.DigestAlgorithm(_DIGEST)],
        "encap_content_info": {"content_type": "tst_info", "content": core.ParsableOctetString(info)},
        "signer_infos": [_signer_info(info, certificate, key)],
    }
    if query.certificate_wanted:
        signed["certificates"] = [cms.CertificateChoices(name="certificate", value=certificate)]
    token = {"content_type": "signed_data", "content": cms.SignedData(signed)}
    return bytes(tsp.TimeStampResp({"status": {"status": _GRANTED}, "time_stamp_token": token}).dump())


def reject(refusal: Refusal) -> bytes:
    """A TimeStampResp, DER, without a token, that says why there is none."""
    status = tsp.PKIStatusInfo(
        {"status": _REJECTED, "status_string": [refusal.reason], "fail_info": {refusal.failure}}
    )
    # Not by asn1crypto's TimeStampResp, which cannot do without a token.
    return bytes(core.SequenceOf([status], spec=tsp.PKIStatusInfo).dump())


def _info(query: Query, policy: str, now: datetime, accuracy_seconds: int) -> Any:
    info = {
        "version": "v1",
        "policy": policy,
        "message_imprint": tsp.MessageImprint.load(query.imprint),
        "serial_number": secrets.randbits(_SERIAL_BITS),
        "gen_time": now.astimezone(UTC).replace(microsecond=0),
        "accuracy": {"seconds": accuracy_seconds},
    }
    return tsp.TSTInfo(info if query.nonce is None else {**info, "nonce": query.nonce})


def _signer_info(info: bytes, certificate: Any, key: ec.EllipticCurvePrivateKey) -> Any:
    attributes = cms.CMSAttributes(
        [
            {"type": "content_type", "values": ["tst_info"]},
            {"type": "message_digest", "values": [sha256(info).digest()]},
            {"type": "signing_certificate_v2", "values": [_certificate_id(certificate)]},
        ]
    )
    place = {"issuer": certificate.issuer, "serial_number": certificate.serial_number}
    return {
        "version": "v1",
        "sid": cms.SignerIdentifier(name="issuer_and_serial_number", value=place),
        "digest_algorithm": _DIGEST,
        "signed_attrs": attributes,
        "signature_algorithm": _SIGNATURE,
        # Over a SET, not under the tag that they get in the SignerInfo (RFC 5652 section 5.4).
        "signature": key.sign(attributes.dump(), ec.ECDSA(hashes.SHA256())),
    }


def _certificate_id(certificate: Any) -> Any:
    issuer = asn1_x509.GeneralName(name="directory_name", value=certificate.issuer)
    named = {
        "cert_hash": sha256(certificate.dump()).digest(),
        "issuer_serial": {"issuer": [issuer], "serial_number": certificate.serial_number},
    }
    return tsp.SigningCertificateV2({"certs": [tsp.ESSCertIDv2(named)]})
