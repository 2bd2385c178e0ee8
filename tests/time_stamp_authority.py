"""A time-stamp authority for tests: certificates by `cryptography`, answers by `openssl ts -reply`.

What `openssl` would never sign is forged in `forged_tokens`. Servers on loopback run in a thread and end with
their `with`.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
TIME_STAMPING = ExtendedKeyUsageOID.TIME_STAMPING
DAY = timedelta(days=1)

CONFIG = """
[tsa]
default_tsa = authority
[authority]
serial = {directory}/serial
signer_cert = {directory}/signer.pem
{certificates}
signer_key = {directory}/signer.key
signer_digest = {signer_digest}
default_policy = 1.2.3.4.1
other_policies = 1.2.3.4.2
digests = sha256
clock_precision_digits = {clock_digits}
ordering = no
tsa_name = yes
ess_cert_id_chain = {chain}
ess_cert_id_alg = {ess_digest}
{accuracy}
"""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A certificate and the key in it, with those who issued it, the nearest first."""

    key: Key
    certificate: x509.Certificate
    issuers: tuple[Identity, ...] = ()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def make_key(kind: Literal["p256", "rsa"] = "p256") -> Key:
    if kind == "p256":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def make_identity(
    name: str,
    issuer: Identity | None = None,
    *,
    key: Key | None = None,
    authority: bool = False,
    purposes: tuple[x509.ObjectIdentifier, ...] | None = None,
    critical: bool = True,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    serial_number: int | None = None,
) -> Identity:
    """A root if there is no issuer, an intermediate if `authority`, else a signer of time-stamps."""
    if purposes is None:
        purposes = (TIME_STAMPING,) if issuer and not authority else ()
    key = key or make_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(serial_number or x509.random_serial_number())
        .not_valid_before(not_before or now - DAY)
        .not_valid_after(not_after or now + DAY)
        .add_extension(x509.BasicConstraints(ca=authority or issuer is None, path_length=None), critical=True)
    )
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=critical)
    certificate = builder.sign(issuer.key if issuer else key, hashes.SHA256())
    return Identity(key=key, certificate=certificate, issuers=(issuer, *issuer.issuers) if issuer else ())


@dataclass(frozen=True, kw_only=True)
class OpensslAuthority:
    """Answers queries as `openssl ts -reply` does.

    Args:
        directory: An empty one, for its files.
        signer: Whose time-stamps they are.
        signer_digest: What it signs over.
        accuracy: As in the configuration of openssl, such as `secs:1, millisecs:500`; empty for none.
        clock_digits: Of its fractions of a second.
        ess_digest: By which it names its certificate; sha1 makes an ESSCertID, others an ESSCertIDv2.
    """

    directory: Path
    signer: Identity
    signer_digest: str = "sha256"
    accuracy: str = "secs:1"
    clock_digits: int = 0
    ess_digest: str = "sha256"

    @cached_property
    def config(self) -> Path:
        *intermediates, _ = self.signer.issuers
        key = self.signer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.directory / "serial").write_text("01\n")
        (self.directory / "signer.pem").write_bytes(self.signer.pem)
        (self.directory / "issuers.pem").write_bytes(b"".join(i.pem for i in intermediates))
        (self.directory / "signer.key").write_bytes(key)
        (self.directory / "root.pem").write_bytes(self.signer.issuers[-1].pem)
        text = CONFIG.format(
            directory=self.directory,
            signer_digest=self.signer_digest,
            accuracy=f"accuracy = {self.accuracy}" if self.accuracy else "",
            clock_digits=self.clock_digits,
            certificates=f"certs = {self.directory}/issuers.pem" if intermediates else "",
            chain="yes" if intermediates else "no",
            ess_digest=self.ess_digest,
        )
        path = self.directory / "openssl.cnf"
        path.write_text(text)
        return path

    @property
    def roots(self) -> tuple[bytes, ...]:
        return (self.signer.issuers[-1].der,)

    def reply(self, query: bytes) -> bytes:
        """The answer, granted or not."""
        (self.directory / "query.tsq").write_bytes(query)
        self.openssl("-reply", "-config", self.config, "-queryfile", "query.tsq", "-out", "answer.tsr")
        return (self.directory / "answer.tsr").read_bytes()

    def accepts(self, answer: bytes, *, query: bytes | None = None, digest: bytes = b"") -> bool:
        """Whether `openssl ts -verify` accepts an answer to a query, or else for a digest."""
        _ = self.config
        (self.directory / "checked.tsr").write_bytes(answer)
        about: tuple[str, ...] = ("-digest", digest.hex())
        if query is not None:
            (self.directory / "checked.tsq").write_bytes(query)
            about = ("-queryfile", "checked.tsq")
        done = self.openssl("-verify", "-in", "checked.tsr", "-CAfile", "root.pem", *about, check=False)
        return done.returncode == 0 and "Verification: OK" in done.stdout + done.stderr

    def openssl(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = ["openssl", "ts", *map(str, arguments)]
        return subprocess.run(
            command, cwd=self.directory, capture_output=True, text=True, check=check, timeout=60
        )


Respond = Callable[[BaseHTTPRequestHandler, bytes], None]


@contextmanager
def serve(respond: Respond) -> Iterator[str]:
    """The URL of a server on loopback that gives each posted body to `respond`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                respond(self, body)
            except ConnectionError:
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/tsa"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


def send(
    handler: BaseHTTPRequestHandler,
    body: bytes,
    *,
    status: int = 200,
    kind: str = "application/timestamp-reply",
    **headers: str,
) -> None:
    """Send one whole answer."""
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def answering(reply: Callable[[bytes], bytes]) -> Respond:
    """A well-behaved server, around what answers a query."""
    return lambda handler, query: send(handler, reply(query))
