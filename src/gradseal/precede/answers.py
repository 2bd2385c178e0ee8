"""Time-stamp queries and answers as bytes (RFC 3161 section 2.4, RFC 5652, RFC 5816).

`read_answer` walks an answer as strict DER within bounds, and only then takes from it what a verifier must
judge, the status first. Each part has one form: version, one signer, attributes with one value, a TSTInfo
that encodes to the same bytes again. Verifies nothing; see `timestamps`.
Format: docs/spec/timestamps.md, sections 1 to 3.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, datetime, timedelta
from typing import Any

from asn1crypto import cms, tsp
from asn1crypto.core import Void

from gradseal.errors import AnchorError
from gradseal.precede.asn1 import check_der, children, refuse

MAX_CERTIFICATES = 8
"""The most certificates in an answer."""

MAX_ACCURACY_SECONDS = 24 * 60 * 60
"""The least exact clock that is read."""

MAX_IDENTIFIER_LENGTH = 128
"""The longest object identifier, in its dotted form."""

MAX_SERIAL_BITS = 160
"""The largest serial number of a token (RFC 3161 section 2.4.2)."""

_GEN_TIME = re.compile(r"([0-9]{14})(?:\.([0-9]{0,5}[1-9]))?Z")
_SHOWN = 200
_ONE_OF_ITS_KIND = ("content_type", "message_digest", "signing_certificate", "signing_certificate_v2")


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateId:
    """Which certificate a signer says is its own: an ESSCertID (SHA-1) or ESSCertIDv2 (RFC 5035)."""

    algorithm: str
    digest: bytes
    issuer: bytes | None
    serial_number: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """A TSTInfo: what the authority signed. `accuracy` is absent if the authority does not say."""

    encoded: bytes
    policy: str
    algorithm: str
    digest: bytes
    serial_number: int
    gen_time: datetime
    accuracy: timedelta | None
    nonce: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The one SignerInfo; `signed_attributes` are the bytes that the signature is over."""

    issuer: bytes
    serial_number: int
    digest_algorithm: str
    algorithm: str
    signature: bytes
    signed_attributes: bytes
    message_digest: bytes
    certificate_ids: tuple[CertificateId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate that an answer carries, which nothing vouches for yet."""

    encoded: bytes
    issuer: bytes
    serial_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a granted answer holds, of which nothing is verified yet."""

    info: Info
    signature: Signature
    certificates: tuple[Certificate, ...]


def encode_query(digest: bytes, *, nonce: int) -> bytes:
    """A TimeStampReq for a SHA-256 digest, which asks for the certificate (RFC 3161 section 2.4.1)."""
    imprint = {"hash_algorithm": {"algorithm": "sha256"}, "hashed_message": digest}
    query = {"version": "v1", "message_imprint": imprint, "nonce": nonce, "cert_req": True}
    return bytes(tsp.TimeStampReq(query).dump())


def read_answer(answer: bytes, *, where: str) -> Answer:
    """Read a TimeStampResp strictly. Verifies nothing.

    Args:
        answer: The authority's whole answer, DER.
        where: What it is, for error messages.

    Raises:
        AnchorError: Over a limit, not strict DER, not granted, or not of the form that this module takes; the
            error's `where` ends in the field.
    """
    check_der(answer, where=where)
    with _reading(where):
        parts = children(answer)
        _check_status(tsp.PKIStatusInfo.load(parts[0], strict=True), f"{where}: status")
        if len(parts) != 2:
            refuse(f"granted, but not one token: {len(parts) - 1}", f"{where}: timeStampToken")
        token = cms.ContentInfo.load(parts[1], strict=True)
        if token["content_type"].native != "signed_data":
            refuse("a token that is not signed data", f"{where}: contentType")
        return _read_signed_data(token["content"], where)


def in_set_order(answer: bytes) -> bytes:
    """The same answer, its certificates in the order of a DER set; they are outside the signature.

    Many authorities, and `openssl ts` with a chain, send them in the order of the chain.

    Args:
        answer: One that `read_answer` took.
    """
    response = tsp.TimeStampResp.load(answer)
    signed = response["time_stamp_token"]["content"]
    signed["certificates"] = cms.CertificateSet(list(signed["certificates"]))
    return bytes(response.dump())


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """asn1crypto decodes late, and says in many ways that it cannot."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as e:
        raise AnchorError("not a time-stamp answer of RFC 3161", where=where) from e


def _check_status(status: Any, where: str) -> None:
    if int(status["status"]) == 0:
        return
    said = [str(status["status"].native), *(status["status_string"].native or [])]
    said += sorted(status["fail_info"].native or [])
    # What a stranger says goes to a person's terminal.
    refuse(
        f"the authority did not grant it: {ascii(': '.join(said)[:_SHOWN])[1:-1]}",
        where,
        "Ask again, or ask another authority.",
    )


def _read_signed_data(data: Any, where: str) -> Answer:
    if int(data["version"]) != 3:
        refuse("signed data that is not version 3", f"{where}: version")
    inner = data["encap_content_info"]
    if inner["content_type"].native != "tst_info":
        refuse("signs something else than a time-stamp", f"{where}: eContentType")
    if len(data["signer_infos"]) != 1:
        refuse(f"{len(data['signer_infos'])} signers, not 1", f"{where}: signerInfos")
    return Answer(
        info=_read_info(bytes(inner["content"].contents), f"{where}: tstInfo"),
        signature=_read_signer(data["signer_infos"][0], f"{where}: signerInfo"),
        certificates=_read_certificates(data["certificates"], f"{where}: certificates"),
    )


def _read_info(encoded: bytes, where: str) -> Info:
    check_der(encoded, where=where)
    info = tsp.TSTInfo.load(encoded, strict=True)
    if int(info["version"]) != 1:
        refuse("not version 1", f"{where}.version")
    if any(extension["critical"].native for extension in info["extensions"] or ()):
        refuse("a critical extension, which is not known here", f"{where}.extensions")
    if not 0 <= int(info["serial_number"]) < 1 << MAX_SERIAL_BITS:
        refuse(f"negative, or more than {MAX_SERIAL_BITS} bits", f"{where}.serialNumber")
    imprint = info["message_imprint"]
    read = Info(
        encoded=encoded,
        policy=_identifier(info["policy"].dotted, f"{where}.policy"),
        algorithm=_identifier(imprint["hash_algorithm"]["algorithm"].native, f"{where}.messageImprint"),
        digest=bytes(imprint["hashed_message"].native),
        serial_number=int(info["serial_number"].native),
        gen_time=_read_gen_time(bytes(info["gen_time"].contents), f"{where}.genTime"),
        accuracy=_read_accuracy(info["accuracy"].native, f"{where}.accuracy"),
        nonce=info["nonce"].native,
    )
    if tsp.TSTInfo.load(encoded).dump(force=True) != encoded:
        refuse("not in its one encoding", where)
    return read


def _identifier(name: str, where: str) -> str:
    """The name of an object identifier, or its dotted form, of a length that can be shown."""
    if len(name) > MAX_IDENTIFIER_LENGTH:
        refuse(f"an object identifier longer than {MAX_IDENTIFIER_LENGTH}", where)
    return name


def _read_gen_time(text: bytes, where: str) -> datetime:
    match = _GEN_TIME.fullmatch(text.decode("latin-1"))
    if not match:
        refuse("not a UTC time in its one spelling", where)
    seconds, fraction = match.groups()
    try:
        whole = datetime.strptime(seconds, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError as e:
        raise AnchorError("not a date and time of day", where=where) from e
    if whole.year == MAXYEAR:
        refuse("so late that nothing can be added to it", where)
    return whole.replace(microsecond=int((fraction or "0").ljust(6, "0")))


def _read_accuracy(parts: dict[str, int | None] | None, where: str) -> timedelta | None:
    if parts is None:
        return None
    seconds, millis, micros = (parts[name] for name in ("seconds", "millis", "micros"))
    if any(part is not None and not 1 <= part <= 999 for part in (millis, micros)):
        refuse("milliseconds or microseconds that are not 1 to 999", where)
    if not 0 <= (seconds or 0) <= MAX_ACCURACY_SECONDS:
        refuse(f"not 0 to {MAX_ACCURACY_SECONDS} seconds", where)
    return timedelta(seconds=seconds or 0, milliseconds=millis or 0, microseconds=micros or 0)


def _read_signer(signer: Any, where: str) -> Signature:
    if int(signer["version"]) != 1 or signer["sid"].name != "issuer_and_serial_number":
        refuse("a signer who is not named by issuer and serial number", f"{where}.sid")
    attributes = _read_attributes(signer["signed_attrs"], f"{where}.signedAttrs")
    if attributes["content_type"] is None or attributes["content_type"].native != "tst_info":
        refuse("no content type, or another one than a time-stamp", f"{where}.signedAttrs.contentType")
    if attributes["message_digest"] is None:
        refuse("no message digest", f"{where}.signedAttrs.messageDigest")
    named = signer["sid"].chosen
    return Signature(
        issuer=bytes(named["issuer"].dump()),
        serial_number=int(named["serial_number"].native),
        digest_algorithm=_identifier(signer["digest_algorithm"]["algorithm"].native, where),
        algorithm=_identifier(signer["signature_algorithm"]["algorithm"].native, where),
        signature=bytes(signer["signature"].native),
        # They are signed as a SET, not under the tag that they have in the SignerInfo (RFC 5652 section 5.4).
        signed_attributes=bytes(signer["signed_attrs"].untag().dump()),
        message_digest=bytes(attributes["message_digest"].native),
        certificate_ids=_read_certificate_ids(attributes, f"{where}.signedAttrs.signingCertificate"),
    )


def _read_attributes(attributes: Any, where: str) -> dict[str, Any]:
    """The value of each attribute that matters here; None if it is absent."""
    found: dict[str, Any] = dict.fromkeys(_ONE_OF_ITS_KIND)
    for attribute in attributes or ():
        kind = attribute["type"].native
        if kind not in found:
            continue
        if found[kind] is not None or len(attribute["values"]) != 1:
            refuse("more than one value, or none", f"{where}.{kind}")
        found[kind] = attribute["values"][0]
    return found


def _read_certificate_ids(attributes: dict[str, Any], where: str) -> tuple[CertificateId, ...]:
    """The first id of each version; those after it, of the issuers, are not needed (RFC 5035 section 4)."""
    found = []
    for kind in ("signing_certificate", "signing_certificate_v2"):
        if attributes[kind] is None:
            continue
        if not len(attributes[kind]["certs"]):
            refuse("names no certificate", where)
        found.append(_read_certificate_id(attributes[kind]["certs"][0], kind, where))
    if not found:
        refuse("does not say which certificate is the signer's (ESSCertID or ESSCertIDv2)", where)
    return tuple(found)


def _read_certificate_id(named: Any, kind: str, where: str) -> CertificateId:
    v1 = kind == "signing_certificate"
    issuer, serial_number = None, None
    # Its `native` would decode each name in it, and they only have to be those of the certificate's bytes.
    if not isinstance(named["issuer_serial"], Void):
        names = named["issuer_serial"]["issuer"]
        if len(names) != 1 or names[0].name != "directory_name":
            refuse("an issuer that is not one directory name", f"{where}.issuerSerial")
        issuer = bytes(names[0].chosen.untag().dump())
        serial_number = int(named["issuer_serial"]["serial_number"].native)
    return CertificateId(
        algorithm="sha1" if v1 else str(named["hash_algorithm"]["algorithm"].native),
        digest=bytes(named["cert_hash"].native),
        issuer=issuer,
        serial_number=serial_number,
    )


def _read_certificates(choices: Any, where: str) -> tuple[Certificate, ...]:
    if not choices or len(choices) > MAX_CERTIFICATES:
        refuse(f"{len(choices or ())} certificates, not 1 to {MAX_CERTIFICATES}", where)
    found = []
    for choice in choices:
        if choice.name != "certificate":
            refuse("a certificate that is not X.509", where)
        certificate = choice.chosen
        if certificate.serial_number < 1:
            refuse("a certificate whose serial number is not positive", where)
        found.append(
            Certificate(
                encoded=bytes(certificate.dump()),
                issuer=bytes(certificate.issuer.dump()),
                serial_number=int(certificate.serial_number),
            )
        )
    return tuple(found)
