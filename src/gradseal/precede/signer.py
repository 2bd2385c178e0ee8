"""Who signed a time-stamp: the certificate, its purpose, the signature, and the path to a pinned root.

Signature and path are checked by two readers, `cryptography` over what `answers` read and OpenSSL through
`rfc3161-client` over the bytes, so that no token means one thing to one and another to the other. The library
leaves open whether the signer names its certificate, so `signer_certificate` checks that.
Format: docs/spec/timestamps.md, sections 4 and 5.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response

from gradseal.errors import AnchorError
from gradseal.precede.answers import Answer, Certificate, CertificateId, Signature, in_set_order
from gradseal.precede.asn1 import refuse

MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_PATH_ERROR = re.compile(r"Verify error: ?([ -!#-~]{1,100})\"")
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_RSA_SIGNATURES = ("rsassa_pkcs1v15", "{}_rsa")
_EC_SIGNATURES = ("{}_ecdsa",)


def load_roots(roots: Sequence[bytes], where: str) -> list[x509.Certificate]:
    """The certificates that a verifier pins.

    Raises:
        AnchorError: There is none, or one is not a certificate.
    """
    if not roots:
        refuse("none", where, "Pin the root certificate of an authority that you trust.")
    return [load(root, where) for root in roots]


def load(encoded: bytes, where: str) -> x509.Certificate:
    """A certificate from its DER.

    Raises:
        AnchorError: It is none.
    """
    try:
        return x509.load_der_x509_certificate(encoded)
    except (ValueError, x509.InvalidVersion) as e:
        raise AnchorError("not an X.509 certificate in DER", where=where) from e


def key_digest(certificate: x509.Certificate, where: str) -> bytes:
    """SHA-256 of a certificate's public key (SubjectPublicKeyInfo, DER).

    Raises:
        AnchorError: It is of a kind that nobody here knows.
    """
    try:
        key = certificate.public_key()
        return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    except (ValueError, UnsupportedAlgorithm) as e:
        raise AnchorError("a public key that cannot be read", where=where) from e


def signer_certificate(answer: Answer, where: str) -> Certificate:
    """The carried certificate that the SignerInfo names, and that the signed attributes name too.

    Raises:
        AnchorError: There is not exactly one, or the attributes name another (RFC 5816 section 2.2).
    """
    signer = (answer.signature.issuer, answer.signature.serial_number)
    # The same one twice does no harm, and some authorities send it so.
    matching = [c for c in set(answer.certificates) if (c.issuer, c.serial_number) == signer]
    if len(matching) != 1:
        message = f"{len(matching)} certificates of the signer's issuer and number, not 1"
        refuse(message, f"{where}: certificates")
    if not all(_names(named, matching[0]) for named in answer.signature.certificate_ids):
        refuse("another certificate than the signer's", f"{where}: signerInfo.signedAttrs.signingCertificate")
    return matching[0]


def check_purpose(certificate: x509.Certificate, where: str) -> None:
    """The extended key usage is there, critical, and time-stamping alone (RFC 3161 section 2.3).

    Raises:
        AnchorError: It is not.
    """
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound as e:
        raise AnchorError("not for time-stamping: there is none", where=where) from e
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as e:
        raise AnchorError("extensions that cannot be read", where=where) from e
    if list(usage.value) != [ExtendedKeyUsageOID.TIME_STAMPING]:
        refuse("not for time-stamping alone", where)
    if not usage.critical:
        refuse("not critical", where)


def check_validity(certificate: x509.Certificate, gen_time: datetime, where: str) -> None:
    """The certificate was in force when the token was made.

    Raises:
        AnchorError: It was not.
    """
    if not certificate.not_valid_before_utc <= gen_time <= certificate.not_valid_after_utc:
        refuse(f"not in force at {gen_time.isoformat()}", where)


def check_signature(answer: Answer, certificate: x509.Certificate, where: str) -> None:
    """The attributes hold the TSTInfo's digest and are signed by this certificate's key (RFC 5652).

    Raises:
        AnchorError: They do not, or a digest or kind of key is not one that is taken.
    """
    signed = answer.signature
    if signed.digest_algorithm not in _HASHES:
        refuse(f"{signed.digest_algorithm} is not taken", f"{where}: signerInfo.digestAlgorithm")
    if hashlib.new(signed.digest_algorithm, answer.info.encoded).digest() != signed.message_digest:
        refuse("not the digest of the TSTInfo", f"{where}: signerInfo.signedAttrs.messageDigest")
    try:
        _verify(signed, certificate, where)
    except (ValueError, UnsupportedAlgorithm) as e:
        field = "signer's certificate.subjectPublicKeyInfo"
        raise AnchorError("a public key that cannot be read", where=f"{where}: {field}") from e
    except InvalidSignature as e:
        raise AnchorError("not the signer's", where=f"{where}: signerInfo.signature") from e


def check_strength(certificates: Iterable[Certificate], where: str) -> None:
    """Each is signed over SHA-2, or by itself; OpenSSL would follow a path of certificates signed over MD5.

    A self-signed certificate ends a path, and only a pin makes it a good end.

    Raises:
        AnchorError: One is not.
    """
    for carried in certificates:
        certificate = load(carried.encoded, where)
        try:
            hashed = certificate.signature_hash_algorithm
            if hashed is not None and hashed.name in _HASHES:
                continue
            certificate.verify_directly_issued_by(certificate)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as e:
            raise AnchorError("a certificate not signed over SHA-256, 384 or 512", where=where) from e


def check_path(token: bytes, answer: Answer, pins: list[x509.Certificate], where: str) -> None:
    """OpenSSL finds the signature good, and a path to a pin that was in force at the token's time.

    Raises:
        AnchorError: It does not.
    """
    try:
        # The library takes sets in their order alone, which OpenSSL does not ask for.
        decoded = decode_timestamp_response(in_set_order(token) if len(answer.certificates) > 1 else token)
        if decoded.tst_info.gen_time != answer.info.gen_time.replace(microsecond=0):
            refuse("two readers give it two times", f"{where}: tstInfo.genTime")
        # A builder of its own each time, because `add_root_certificate` changes its parent. No intermediates
        # are given: the library would trust them. OpenSSL takes those in the token as untrusted.
        VerifierBuilder(roots=pins).build().verify(decoded, answer.info.digest)
    except (VerificationError, ValueError) as e:
        raise _path_error(e, where) from e


def _names(named: CertificateId, certificate: Certificate) -> bool:
    if named.algorithm not in (*_HASHES, "sha1"):
        return False
    if hashlib.new(named.algorithm, certificate.encoded).digest() != named.digest:
        return False
    place = (named.issuer, named.serial_number)
    return named.issuer is None or place == (certificate.issuer, certificate.serial_number)


def _verify(signed: Signature, certificate: x509.Certificate, where: str) -> None:
    key, hashed = certificate.public_key(), _HASHES[signed.digest_algorithm]
    _check_key(key, f"{where}: signer's certificate.subjectPublicKeyInfo")
    taken = _EC_SIGNATURES if isinstance(key, ec.EllipticCurvePublicKey) else _RSA_SIGNATURES
    if signed.algorithm not in [name.format(signed.digest_algorithm) for name in taken]:
        refuse(f"{signed.algorithm} is not taken from this key", f"{where}: signerInfo.signatureAlgorithm")
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signed.signature, signed.signed_attributes, ec.ECDSA(hashed))
    elif isinstance(key, rsa.RSAPublicKey):
        key.verify(signed.signature, signed.signed_attributes, padding.PKCS1v15(), hashed)


def _check_key(key: object, where: str) -> None:
    if isinstance(key, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            refuse(f"RSA of {key.key_size} bits, not {MIN_RSA_BITS} to {MAX_RSA_BITS}", where)
    elif not (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES)):
        refuse("neither RSA nor P-256, P-384 or P-521", where)


def _path_error(error: Exception, where: str) -> AnchorError:
    """What OpenSSL says; of the path to a root it gives a reason, of the rest it does not."""
    match = _PATH_ERROR.search(str(error))
    if not match:
        return AnchorError("OpenSSL does not verify it", where=f"{where}: signedData")
    message = f"the signer's certificate leads to no pinned root: {match.group(1)}"
    advice = "If you trust this authority, pin its root certificate."
    return AnchorError(message, where=f"{where}: certificates", advice=advice)
