"""Attacks on a single time-stamp: each is refused, and the reason is the right one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha1, sha256
from typing import Any

import pytest
from asn1crypto import tsp
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from forged_tokens import (
    DIGEST,
    NOW,
    OTHER,
    OTHER_ROOT,
    ROOT,
    SIGNER,
    Attributes,
    answer,
    certificate_id,
    edited,
    forge,
    informed,
    issued_over,
    issuer_serial,
    make_info,
    make_signer,
    names_signer,
    nested,
    rejection,
    set_,
    stamped,
    verified,
)
from gradseal.errors import AnchorError
from gradseal.precede.answers import encode_query
from gradseal.precede.asn1 import MAX_DEPTH, MAX_DER_BYTES, MAX_ELEMENTS, children
from time_stamp_authority import DAY, TIME_STAMPING, Identity, make_identity

Forger = Callable[[], bytes]


def certified(*, key: Any = None, **options: Any) -> bytes:
    """A good answer, but for the signer's certificate."""
    return forge(make_identity("signer", ROOT, key=key, **options), make_info(DIGEST).dump())


def replaced(old: bytes, new: bytes, token: bytes | None = None) -> bytes:
    """A good answer with bytes of it replaced by as many."""
    token = token or stamped()
    assert token.count(old) and len(old) == len(new)
    return token.replace(old, new)


def add_old_of_other(attributes: Attributes) -> None:
    attributes["signing_certificate"] = [
        tsp.SigningCertificate({"certs": [{"cert_hash": sha1(OTHER.der).digest()}]})
    ]


def extension(*, critical: bool) -> list[dict[str, Any]]:
    return [{"extn_id": "1.2.3.9", "critical": critical, "extn_value": b"\x05\x00"}]


def twice(attributes: Attributes) -> None:
    attributes["message_digest"] *= 2


def two_signers() -> bytes:
    info = make_info(DIGEST).dump()
    return forge(SIGNER, info, signers=[make_signer(SIGNER, info), make_signer(OTHER, info)])


def twin_certificates() -> bytes:
    """Two certificates of one issuer and number: a reader may take either for the signer's."""
    twin = make_identity("signer", OTHER_ROOT, serial_number=SIGNER.certificate.serial_number)
    return stamped(certificates=[twin.der, SIGNER.der])


def signature_of_another() -> bytes:
    """A signature that is good, over another digest."""
    other = forge(SIGNER, make_info(sha256(b"other").digest()).dump())
    kept = tsp.TimeStampResp.load(other)["time_stamp_token"]["content"]["signer_infos"][0]["signature"].native
    return stamped(swap_signature=lambda _: kept)


def swapped_info() -> bytes:
    """The whole SignerInfo of another token around this TSTInfo."""
    signer = make_signer(SIGNER, make_info(sha256(b"other").digest()).dump())
    return stamped(signers=[signer])


def issued_by(issuer: Identity, **options: Any) -> bytes:
    """A token by a signer below an issuer, whose certificates up to the root it carries."""
    signer = make_identity("below", issuer, **options)
    chain = [issuer.der, *(i.der for i in issuer.issuers)]
    return forge(signer, make_info(DIGEST).dump(), certificates=[signer.der, *chain])


GEN_TIME = make_info(DIGEST, gen_time=NOW)["gen_time"].contents
BAD_TIME = GEN_TIME[:12] + b"61Z"
OVER = "tstInfo.messageImprint"
ESS = "signerInfo.signedAttrs.signingCertificate"
USAGE = "signer's certificate.extendedKeyUsage"
KEY = "signer's certificate.subjectPublicKeyInfo"
SIGNED = "signerInfo.signedAttrs"

ATTACKS: dict[str, tuple[Forger, str, str]] = {
    "wrong digest": (
        lambda: forge(SIGNER, make_info(sha256(b"other").digest()).dump()),
        f"{OVER}.hashedMessage",
        "stamps another digest",
    ),
    "digest of another algorithm": (
        lambda: informed(
            message_imprint={"hash_algorithm": {"algorithm": "sha512"}, "hashed_message": DIGEST * 2}
        ),
        f"{OVER}.hashAlgorithm",
        "of sha512",
    ),
    "digest claimed to be of another algorithm": (
        lambda: informed(
            message_imprint={"hash_algorithm": {"algorithm": "sha3_256"}, "hashed_message": DIGEST}
        ),
        f"{OVER}.hashAlgorithm",
        "of sha3_256",
    ),
    "wrong nonce": (lambda: informed(nonce=98), "tstInfo.nonce", "another query"),
    "no nonce": (lambda: informed(nonce=None), "tstInfo.nonce", "another query"),
    "another policy": (lambda: informed(policy="1.2.3.4.9"), "tstInfo.policy", "1.2.3.4.9 is not asked for"),
    "endless policy": (lambda: informed(policy="1.2" + ".9" * 70), "tstInfo.policy", "longer than 128"),
    "future": (lambda: informed(gen_time=NOW + 2 * DAY), "tstInfo.genTime", "in the future"),
    "not a time": (
        lambda: replaced(GEN_TIME, BAD_TIME, informed(gen_time=NOW)),
        "tstInfo.genTime",
        "not a date and time of day",
    ),
    "end of time": (
        lambda: informed(gen_time=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        "tstInfo.genTime",
        "so late",
    ),
    "time with an offset": (
        lambda: replaced(GEN_TIME[-5:], b"+0100", informed(gen_time=NOW)),
        "tstInfo.genTime",
        "not a UTC time",
    ),
    "accuracy of a year": (
        lambda: informed(accuracy={"seconds": 31_536_000}),
        "tstInfo.accuracy",
        "not 0 to 86400",
    ),
    "negative accuracy": (lambda: informed(accuracy={"seconds": -5}), "tstInfo.accuracy", "not 0 to 86400"),
    "milliseconds over 999": (lambda: informed(accuracy={"millis": 1000}), "tstInfo.accuracy", "1 to 999"),
    "microseconds of zero": (lambda: informed(accuracy={"micros": 0}), "tstInfo.accuracy", "1 to 999"),
    "negative milliseconds": (lambda: informed(accuracy={"millis": -1}), "tstInfo.accuracy", "1 to 999"),
    "another version": (lambda: informed(version="v2"), "tstInfo.version", "not version 1"),
    "endless serial number": (lambda: informed(serial_number=2**160), "tstInfo.serialNumber", "160 bits"),
    "negative serial number": (lambda: informed(serial_number=-1), "tstInfo.serialNumber", "negative"),
    "critical extension": (
        lambda: informed(extensions=extension(critical=True)),
        "tstInfo.extensions",
        "critical",
    ),
    "another signed data version": (lambda: stamped(version="v1"), "version", "not version 3"),
    "other content type": (
        lambda: stamped(content_type="data"),
        "eContentType",
        "signs something else",
    ),
    "other content type in the attributes": (
        lambda: edited(set_("content_type", "data")),
        f"{SIGNED}.contentType",
        "another one than a time-stamp",
    ),
    "no content type": (lambda: edited(set_("content_type")), f"{SIGNED}.contentType", "no content type"),
    "no message digest": (lambda: edited(set_("message_digest")), f"{SIGNED}.messageDigest", "no message"),
    "wrong message digest": (
        lambda: edited(set_("message_digest", bytes(32))),
        f"{SIGNED}.messageDigest",
        "not the digest of the TSTInfo",
    ),
    "two message digests": (lambda: edited(twice), f"{SIGNED}.message_digest", "more than one"),
    "no signed attributes": (
        lambda: stamped(unsigned=True),
        f"{SIGNED}.contentType",
        "no content type",
    ),
    "no ESSCertIDv2": (lambda: edited(set_("signing_certificate_v2")), ESS, "does not say"),
    "empty ESSCertIDv2": (
        lambda: edited(set_("signing_certificate_v2", tsp.SigningCertificateV2({"certs": []}))),
        ESS,
        "names no certificate",
    ),
    "ESSCertIDv2 of another": (
        lambda: edited(set_("signing_certificate_v2", certificate_id(OTHER.der))),
        ESS,
        "another certificate",
    ),
    "ESSCertID of another beside a good v2": (lambda: edited(add_old_of_other), ESS, "another certificate"),
    "ESSCertIDv2 over MD5": (
        lambda: edited(
            set_("signing_certificate_v2", certificate_id(SIGNER.der, hash_algorithm={"algorithm": "md5"}))
        ),
        ESS,
        "another certificate",
    ),
    "ESSCertIDv2 with another serial number": (
        lambda: edited(
            set_(
                "signing_certificate_v2",
                certificate_id(SIGNER.der, issuer_serial=issuer_serial(SIGNER.der, 5)),
            )
        ),
        ESS,
        "another certificate",
    ),
    "ESSCertIDv2 with another issuer": (
        lambda: edited(
            set_(
                "signing_certificate_v2",
                certificate_id(
                    SIGNER.der,
                    issuer_serial=issuer_serial(
                        make_identity("signer", make_identity("other")).der,
                        SIGNER.certificate.serial_number,
                    ),
                ),
            )
        ),
        ESS,
        "another certificate",
    ),
    "unpinned root": (
        lambda: forge(OTHER, make_info(DIGEST).dump()),
        "certificates",
        "leads to no pinned root",
    ),
    "unpinned root that the token carries": (
        lambda: forge(OTHER, make_info(DIGEST).dump(), certificates=[OTHER.der, OTHER_ROOT.der]),
        "certificates",
        "leads to no pinned root",
    ),
    "signer who signs himself": (
        lambda: forge(make_identity("alone", purposes=(TIME_STAMPING,)), make_info(DIGEST).dump()),
        "certificates",
        "leads to no pinned root",
    ),
    "issued by a signer": (lambda: issued_by(SIGNER), "certificates", "leads to no pinned root"),
    "issued by an expired authority": (
        lambda: issued_by(make_identity("middle", ROOT, authority=True, not_after=NOW - DAY / 2)),
        "certificates",
        "leads to no pinned root: certificate has expired",
    ),
    "issued over SHA-1": (
        lambda: issued_by(issued_over(make_identity("middle", ROOT, authority=True), "sha1")),
        "certificates",
        "not signed over SHA-256",
    ),
    "issued by a namesake of the root": (
        lambda: issued_by(OTHER_ROOT),
        "certificates",
        "leads to no pinned root",
    ),
    "no certificate": (lambda: stamped(certificates=[]), "certificates", "0 certificates"),
    "many certificates": (lambda: stamped(certificates=[SIGNER.der] * 9), "certificates", "9 certificates"),
    "certificate of another": (lambda: stamped(certificates=[OTHER.der]), "certificates", "0 certificates"),
    "two certificates of one number": (twin_certificates, "certificates", "2 certificates"),
    "no purpose": (lambda: certified(purposes=()), USAGE, "there is none"),
    "wrong purpose": (
        lambda: certified(purposes=(ExtendedKeyUsageOID.CODE_SIGNING,)),
        USAGE,
        "not for time-stamping alone",
    ),
    "extra purposes": (
        lambda: certified(purposes=(TIME_STAMPING, ExtendedKeyUsageOID.SERVER_AUTH)),
        USAGE,
        "not for time-stamping alone",
    ),
    "any purpose": (
        lambda: certified(purposes=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)),
        USAGE,
        "not for time-stamping alone",
    ),
    "purpose not critical": (lambda: certified(critical=False), USAGE, "not critical"),
    "expired at genTime": (
        lambda: certified(not_before=NOW - 3 * DAY, not_after=NOW - 2 * DAY),
        "signer's certificate.validity",
        "not in force",
    ),
    "not yet valid at genTime": (
        lambda: informed(gen_time=NOW - 2 * DAY),
        "signer's certificate.validity",
        "not in force",
    ),
    "weak RSA": (
        lambda: certified(key=rsa.generate_private_key(public_exponent=65537, key_size=1024)),
        KEY,
        "1024 bits",
    ),
    "unusual curve": (
        lambda: certified(key=ec.generate_private_key(ec.SECP256K1())),
        KEY,
        "neither RSA nor P-256",
    ),
    "signed over SHA-1": (
        lambda: stamped(digest="sha1"),
        "signerInfo.digestAlgorithm",
        "sha1 is not taken",
    ),
    "swapped signature": (signature_of_another, "signerInfo.signature", "not the signer's"),
    "empty signature": (
        lambda: stamped(swap_signature=lambda _: b""),
        "signerInfo.signature",
        "not the signer's",
    ),
    "swapped signer": (swapped_info, f"{SIGNED}.messageDigest", "not the digest of the TSTInfo"),
    "signed by another key": (
        lambda: forge(
            OTHER, make_info(DIGEST).dump(), certificates=[SIGNER.der], named=SIGNER, edit=names_signer
        ),
        "signerInfo.signature",
        "not the signer's",
    ),
    "two signers": (two_signers, "signerInfos", "2 signers"),
    "no signer": (lambda: stamped(signers=[]), "signerInfos", "0 signers"),
    "rejection": (rejection, "status", "did not grant it: rejection: no time now"),
    "rejection with a token": (lambda: stamped(status=2), "status", "did not grant it"),
    "granted with changes": (lambda: stamped(status=1), "status", "did not grant it: granted_with_mods"),
    "status nobody knows": (lambda: rejection(status=77), "status", "did not grant it: 77"),
    "rejection that paints a terminal": (lambda: rejection(text="\x1b[2J"), "status", r"\\x1b\[2J"),
    "granted without a token": (lambda: rejection(status=0), "timeStampToken", "not one token: 0"),
    "without content": (lambda: forge(SIGNER, None), "tstInfo", "ends early|not a time"),
    "truncated": (lambda: stamped()[:-1], "time-stamp", "ends early"),
    "trailing bytes": (lambda: stamped() + b"\0", "time-stamp", "1 bytes after its end"),
    "trailing element": (
        lambda: answer(*children(stamped()), b"\x05\x00"),
        "timeStampToken",
        "not one token",
    ),
    "huge": (lambda: bytes(MAX_DER_BYTES + 1), "time-stamp", "more than the 65536 allowed"),
    "deep": (lambda: nested(MAX_DEPTH), "time-stamp", "nested deeper"),
    "many elements": (
        lambda: answer(b"\x05\x00" * MAX_ELEMENTS),
        "time-stamp",
        "elements",
    ),
    "empty": (lambda: b"", "time-stamp", "ends early"),
    "a web page": (lambda: b"<html></html>", "time-stamp", "not DER|ends early"),
    "a query": (lambda: encode_query(DIGEST, nonce=1), "time-stamp", "not a time-stamp answer"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused_for_what_it_is(attack: str) -> None:
    forger, field, message = ATTACKS[attack]
    with pytest.raises(AnchorError, match=message) as caught:
        verified(forger(), nonce=99, policies={"1.2.3.4.1"})
    assert caught.value.where.endswith(field)
    assert caught.value.where.startswith("time-stamp")
