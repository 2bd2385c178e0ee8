"""The two certificates of a local time-stamp authority: a root, and a signer's that it issues.

The signer's is for time-stamping alone and says so critically (RFC 3161 section 2.3). The root's key is
forgotten once it has signed both, so that nothing else can be issued. Decides no names and no times.
Format: docs/spec/timestamps.md, section 8.
"""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_ROOT, _SIGNER = "local time-stamp root", "local time-stamp signer"


def make_certificates(
    name: str, key: ec.EllipticCurvePublicKey, *, begins: datetime, ends: datetime
) -> tuple[x509.Certificate, x509.Certificate]:
    """A new root's certificate, and the one that it issues to a signer's key.

    Args:
        name: The organisation in both subjects.
        key: The signer's.
        begins: From when on both are in force, with a time zone.
        ends: Until when.
    """
    root_key = ec.generate_private_key(ec.SECP256R1())
    issuer = _subject(name, _ROOT)
    root = (
        _builder(_subject(name, _ROOT), root_key.public_key(), begins, ends)
        .issuer_name(issuer)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
    )
    root_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
    signer = (
        _builder(_subject(name, _SIGNER), key, begins, ends)
        .issuer_name(issuer)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
        .add_extension(root_id, critical=False)
    )
    return root.sign(root_key, hashes.SHA256()), signer.sign(root_key, hashes.SHA256())


def name_of(root: x509.Certificate) -> str:
    """The organisation in a root's subject; empty unless there is exactly one."""
    names = root.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def _subject(name: str, kind: str) -> x509.Name:
    parts = ((NameOID.ORGANIZATION_NAME, name), (NameOID.COMMON_NAME, kind))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, key_cert_sign: bool = False, digital_signature: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
