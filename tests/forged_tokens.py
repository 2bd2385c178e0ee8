"""Time-stamp answers with something wrong in them, signed with a real key: what `openssl ts` would not make.

Every knob of `forge` departs from a good answer in one thing, and what depends on it is made anew, so that
the one thing is all that is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from asn1crypto import algos, cms, core, tsp
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

from gradseal.precede.timestamps import Stamped, verify_token
from time_stamp_authority import DAY, Identity, make_identity

Attributes = dict[str, list[Any]]

ROOT = make_identity("root")
SIGNER = make_identity("signer", ROOT)
OTHER_ROOT = make_identity("root")
OTHER = make_identity("signer", OTHER_ROOT)
DIGEST = sha256(b"stamped").digest()
NOW = datetime.now(UTC).replace(microsecond=0)


def same(attributes: Attributes) -> None:
    """Change nothing."""


def certificate_id(certificate: bytes, **fields: object) -> Any:
    """The value of a SigningCertificateV2 attribute."""
    named = {"cert_hash": sha256(certificate).digest(), **fields}
    return tsp.SigningCertificateV2({"certs": [tsp.ESSCertIDv2(named)]})


def issuer_serial(certificate: bytes, serial_number: int | None = None) -> Any:
    """Where a certificate comes from, with its own serial number or another."""
    parsed = asn1_x509.Certificate.load(certificate)
    name = asn1_x509.GeneralName(name="directory_name", value=parsed.issuer)
    return tsp.IssuerSerial({"issuer": [name], "serial_number": serial_number or parsed.serial_number})


def make_info(digest: bytes, **fields: Any) -> Any:
    """A TSTInfo of now; `fields` are set over it, and removed where None."""
    whole = {
        "version": "v1",
        "policy": "1.2.3.4.1",
        "message_imprint": {"hash_algorithm": {"algorithm": "sha256"}, "hashed_message": digest},
        "serial_number": 7,
        "gen_time": datetime.now(UTC).replace(microsecond=0),
        "accuracy": {"seconds": 1},
        "nonce": 99,
        **fields,
    }
    return tsp.TSTInfo({name: value for name, value in whole.items() if value is not None})


def make_signer(
    signer: Identity,
    content: bytes,
    *,
    digest: str = "sha256",
    content_type: str = "tst_info",
    edit: Callable[[Attributes], None] = same,
    unsigned: bool = False,
    named: Identity | None = None,
    swap_signature: Callable[[bytes], bytes] = bytes,
) -> Any:
    """A SignerInfo over the content; `edit` changes the attributes before they are signed."""
    attributes: Attributes = {
        "content_type": [content_type],
        "message_digest": [hashlib.new(digest, content).digest()],
        "signing_certificate_v2": [certificate_id(signer.der)],
    }
    edit(attributes)
    values = [{"type": kind, "values": found} for kind, found in attributes.items()]
    signed = cms.CMSAttributes(values)
    parsed = asn1_x509.Certificate.load((named or signer).der)
    where = {"issuer": parsed.issuer, "serial_number": parsed.serial_number}
    fields = {
        "version": "v1",
        "sid": cms.SignerIdentifier(name="issuer_and_serial_number", value=where),
        "digest_algorithm": {"algorithm": digest},
        "signature_algorithm": {"algorithm": f"{digest}_{key_kind(signer)}"},
        "signature": swap_signature(sign(signer, content if unsigned else signed.dump(), digest)),
    }
    return cms.SignerInfo(fields if unsigned else {**fields, "signed_attrs": signed})


def key_kind(signer: Identity) -> str:
    return "ecdsa" if isinstance(signer.key, ec.EllipticCurvePrivateKey) else "rsa"


def sign(signer: Identity, message: bytes, digest: str) -> bytes:
    hashed = {
        "sha1": hashes.SHA1(),
        "sha256": hashes.SHA256(),
        "sha384": hashes.SHA384(),
        "sha512": hashes.SHA512(),
    }[digest]
    if isinstance(signer.key, ec.EllipticCurvePrivateKey):
        return signer.key.sign(message, ec.ECDSA(hashed))
    return signer.key.sign(message, padding.PKCS1v15(), hashed)


def issued_over(identity: Identity, digest: str) -> Identity:
    """The same certificate, signed over another digest; `cryptography` makes none over SHA-1."""
    parsed = asn1_x509.Certificate.load(identity.der)
    issuer, body = identity.issuers[0], parsed["tbs_certificate"]
    algorithm = {"algorithm": f"{digest}_{key_kind(issuer)}"}
    body["signature"] = parsed["signature_algorithm"] = algorithm
    parsed["signature_value"] = core.OctetBitString(sign(issuer, body.dump(), digest))
    certificate = x509.load_der_x509_certificate(parsed.dump())
    return Identity(key=identity.key, certificate=certificate, issuers=identity.issuers)


def forge(
    signer: Identity,
    content: bytes | None,
    *,
    content_type: str = "tst_info",
    certificates: list[bytes] | None = None,
    signers: list[Any] | None = None,
    version: str = "v3",
    token_type: str = "signed_data",
    status: int = 0,
    digest: str = "sha256",
    **signer_options: Any,
) -> bytes:
    """A TimeStampResp whose token holds the content, or none."""
    if signers is None:
        signers = [make_signer(signer, content or b"", digest=digest, **signer_options)]
    inner = {"content_type": content_type}
    if content is not None:
        inner["content"] = core.ParsableOctetString(content)
    signed = cms.SignedData(
        {
            "version": version,
            "digest_algorithms": [algos.DigestAlgorithm({"algorithm": digest})],
            "encap_content_info": inner,
            "certificates": [
                cms.CertificateChoices(name="certificate", value=asn1_x509.Certificate.load(der))
                for der in (certificates if certificates is not None else [signer.der])
            ],
            "signer_infos": signers,
        }
    )
    token = cms.ContentInfo({"content_type": token_type, "content": signed})
    return bytes(tsp.TimeStampResp({"status": {"status": status}, "time_stamp_token": token}).dump())


def rejection(status: int = 2, text: str = "no time now") -> bytes:
    """A TimeStampResp without a token."""
    return answer(tsp.PKIStatusInfo({"status": status, "status_string": [text]}).dump())


def answer(*elements: bytes) -> bytes:
    """A sequence of elements that are encoded already."""
    body = b"".join(elements)
    size = len(body).to_bytes(3, "big").lstrip(b"\0")
    length = bytes([len(body)]) if len(body) < 0x80 else bytes([0x80 + len(size)]) + size
    return b"\x30" + length + body


def nested(depth: int) -> bytes:
    data = b"\x05\x00"
    for _ in range(depth):
        data = answer(data)
    return data


def verified(token: bytes, **options: Any) -> Stamped:
    return verify_token(token, **{"digest": DIGEST, "roots": [ROOT.der], "now": NOW + DAY, **options})


def stamped(**options: Any) -> bytes:
    """A good answer, but for what the options change in its making."""
    return forge(SIGNER, make_info(DIGEST).dump(), **options)


def informed(**fields: Any) -> bytes:
    """A good answer, but for fields of its TSTInfo."""
    return forge(SIGNER, make_info(DIGEST, **fields).dump())


def edited(edit: Callable[[Attributes], None], **options: Any) -> bytes:
    return stamped(edit=edit, **options)


def set_(kind: str, *values: Any) -> Callable[[Attributes], None]:
    def edit(attributes: Attributes) -> None:
        attributes.pop(kind, None)
        if values:
            attributes[kind] = list(values)

    return edit


def names_signer(attributes: Attributes) -> None:
    attributes["signing_certificate_v2"] = [certificate_id(SIGNER.der)]
