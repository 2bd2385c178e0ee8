"""A local time-stamp authority with `openssl ts`, and over HTTP on loopback as the command line serves it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
import uvicorn

from gradseal.errors import AnchorError
from gradseal.precede.answers import encode_query
from gradseal.precede.authorities import Authority, ask
from gradseal.precede.authority_serving import application
from gradseal.precede.local_authority import LocalAuthority, load_local_authority
from gradseal.precede.queries import MAX_QUERY_BYTES
from gradseal.precede.serving import address as url_of
from gradseal.precede.serving import listen
from gradseal.precede.timestamps import PinnedAuthority, TimeStamper, verify_token

pytestmark = pytest.mark.timeout(120)

PATIENT_SECONDS = 30.0
CONTENT = b"what is to be stamped"
DIGEST = sha256(CONTENT).digest()
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/timestamp-query\r\nContent-Length: 9\r\n\r\n"
QUERY_TYPE = {"Content-Type": "application/timestamp-query"}


def gradseal(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("gradseal")), "timestamps", *arguments]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("authority") / "authority.key"
    subprocess.run(
        gradseal("new-key", str(file), "--name", "lab"), check=True, capture_output=True, timeout=60
    )
    return file


@pytest.fixture(scope="module")
def local(key: Path) -> LocalAuthority:
    return load_local_authority(key)


@contextmanager
def served(key: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`gradseal timestamps serve` for the key in a file, and its URL."""
    process = subprocess.Popen(
        gradseal("serve", "--key", str(key), "--port", "0", *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def url(key: Path) -> Iterator[str]:
    with served(key) as (found, _):
        yield found


def post(url: str, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    kind = QUERY_TYPE if headers is None else headers
    return httpx.post(url, content=body, headers=kind, trust_env=False, timeout=PATIENT_SECONDS)


class Openssl:
    """`openssl ts` as somebody uses it who has the root and nothing of Gradseal."""

    def __init__(self, directory: Path, local: LocalAuthority) -> None:
        self.directory = directory
        (directory / "root.pem").write_text(local.root_pem)
        (directory / "signer.pem").write_bytes(pem_of_signer(local))
        (directory / "content").write_bytes(CONTENT)

    def query(self, *options: str) -> bytes:
        self.run("-query", "-data", "content", "-out", "q.tsq", *options)
        return (self.directory / "q.tsq").read_bytes()

    def accepts(self, answer: bytes, *options: str) -> bool:
        (self.directory / "a.tsr").write_bytes(answer)
        done = self.run("-verify", "-in", "a.tsr", "-CAfile", "root.pem", *options, check=False)
        return done.returncode == 0 and "Verification: OK" in done.stdout + done.stderr

    def text(self, answer: bytes) -> str:
        (self.directory / "a.tsr").write_bytes(answer)
        return self.run("-reply", "-in", "a.tsr", "-text").stdout

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = ["openssl", "ts", *arguments]
        return subprocess.run(
            command, cwd=self.directory, capture_output=True, text=True, check=check, timeout=60
        )


def pem_of_signer(local: LocalAuthority) -> bytes:
    _, signer, _ = local.encode().split("-----BEGIN ")[1:]
    return f"-----BEGIN {signer}".encode()


@pytest.fixture
def openssl(tmp_path: Path, local: LocalAuthority) -> Openssl:
    return Openssl(tmp_path, local)


def test_openssl_accepts_what_gradseal_asked_for(url: str, local: LocalAuthority, openssl: Openssl) -> None:
    before = datetime.now(UTC)
    token = ask(url, DIGEST, roots=(local.root,), timeout_seconds=PATIENT_SECONDS)
    assert openssl.accepts(token, "-data", "content")
    assert not openssl.accepts(token, "-digest", bytes(32).hex())
    found = verify_token(token, digest=DIGEST, roots=[local.root], now=datetime.now(UTC))
    assert before - timedelta(seconds=1) < found.gen_time <= datetime.now(UTC)
    assert before < found.upper_bound


@pytest.mark.parametrize("options", [(), ("-no_nonce",)], ids=["nonce", "no nonce"])
def test_openssl_verifies_the_answer_to_its_own_query(
    url: str, local: LocalAuthority, openssl: Openssl, options: tuple[str, ...]
) -> None:
    query = openssl.query("-sha256", "-cert", *options)
    token = post(url, query).content
    assert openssl.accepts(token, "-queryfile", "q.tsq")
    assert verify_token(token, digest=DIGEST, roots=[local.root]).accuracy == timedelta(seconds=1)
    openssl.query("-sha256", "-cert", *options)
    assert openssl.accepts(token, "-queryfile", "q.tsq") == bool(
        options
    )  # without nonces, all queries are one


def test_openssl_needs_the_signer_where_it_did_not_ask_for_it(url: str, openssl: Openssl) -> None:
    token = post(url, openssl.query("-sha256")).content
    assert not openssl.accepts(token, "-queryfile", "q.tsq")
    assert openssl.accepts(token, "-queryfile", "q.tsq", "-untrusted", "signer.pem")


def test_openssl_reads_why_there_is_no_time_stamp(url: str, openssl: Openssl) -> None:
    said = openssl.text(post(url, openssl.query("-sha512")).content)
    assert "Status: Rejected." in said
    assert "only SHA-256 is stamped" in said
    assert "unrecognized or unsupported algorithm" in said
    said = openssl.text(post(url, openssl.query("-sha256", "-tspolicy", "1.2.3.4")).content)
    assert "Status: Rejected." in said
    assert "policy" in said.partition("Failure info:")[2]


def test_a_local_authority_is_a_time_stamper_for_those_who_pin_it(url: str, local: LocalAuthority) -> None:
    stamper: TimeStamper = Authority(
        name="lab", url=url, roots=(local.root,), timeout_seconds=PATIENT_SECONDS
    )
    token = stamper.stamp(DIGEST)
    pinned = PinnedAuthority(name="lab", roots=(local.root,))
    assert pinned.verify(token, digest=DIGEST, now=datetime.now(UTC)).policy.startswith("2.25.")
    stranger = LocalAuthority.generate(name="lab")
    with pytest.raises(AnchorError, match="no pinned root"):
        ask(url, DIGEST, roots=(stranger.root,), timeout_seconds=PATIENT_SECONDS)


def test_what_is_no_query_gets_a_status_and_what_is_a_bad_one_an_answer(
    url: str, local: LocalAuthority
) -> None:
    good = encode_query(DIGEST, nonce=1)
    assert httpx.get(url, trust_env=False, timeout=PATIENT_SECONDS).status_code == 405
    assert post(f"{url}/elsewhere", good).status_code == 404
    assert post(url, good, {}).status_code == 415
    assert post(url, good, {"Content-Type": "application/json"}).status_code == 415
    assert post(url, bytes(MAX_QUERY_BYTES + 1)).status_code == 413
    for bad in (b"", b"\0", b"\x30\x80", good[:-1], good + b"\0", bytes(MAX_QUERY_BYTES)):
        answer = post(url, bad)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/timestamp-reply")
        with pytest.raises(AnchorError, match="did not grant it: rejection"):
            verify_token(answer.content, digest=DIGEST, roots=[local.root])


@contextmanager
def impatient(local: LocalAuthority) -> Iterator[str]:
    """The URL of the service in a thread, which gives a query 0.3 seconds to arrive."""
    app = application(local, body_seconds=0.3)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield url_of(listener)
        finally:
            server.should_exit = True
            thread.join(timeout=PATIENT_SECONDS)


def test_a_query_that_does_not_come_is_given_up(local: LocalAuthority) -> None:
    with (
        impatient(local) as url,
        socket.create_connection(address(url), timeout=PATIENT_SECONDS) as connection,
    ):
        connection.sendall(HEAD + b"\x30")
        received = b"".join(iter(lambda: connection.recv(4096), b""))
    assert received.startswith(b"HTTP/1.1 408 ")


def address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


def test_the_accuracy_that_is_given_is_said(key: Path, local: LocalAuthority) -> None:
    with served(key, "--accuracy", "30") as (url, _):
        token = ask(url, DIGEST, roots=(local.root,), timeout_seconds=PATIENT_SECONDS)
    assert verify_token(token, digest=DIGEST, roots=[local.root]).accuracy == timedelta(seconds=30)


@pytest.mark.parametrize("idle", [False, True], ids=["at once", "with a connection open"])
def test_the_server_ends_well_when_asked_to(key: Path, local: LocalAuthority, idle: bool) -> None:
    with served(key) as (url, process):
        if idle:
            ask(url, DIGEST, roots=(local.root,), timeout_seconds=PATIENT_SECONDS)
            held = socket.create_connection(address(url))
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0
        assert said == f"time-stamps of lab, which may sign until {local.expires:%Y-%m-%d}\n"
        if idle:
            held.close()


def test_hostile_requests_leave_no_traceback(key: Path, local: LocalAuthority) -> None:
    with served(key) as (url, process):
        for raw in (
            b"\0\xff" * 100 + b"\r\n\r\n",
            HEAD + b"0",
            HEAD.replace(b"application", b"\xff") + bytes(9),
            HEAD.replace(b"Length: 9", b"Length: -9"),
        ):
            with socket.create_connection(address(url), timeout=PATIENT_SECONDS) as connection:
                connection.sendall(raw)
        token = ask(url, DIGEST, roots=(local.root,), timeout_seconds=PATIENT_SECONDS)
        assert verify_token(token, digest=DIGEST, roots=[local.root]).serial_number >= 0
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert "Traceback" not in said


def test_a_port_in_use_is_an_error_not_a_traceback(key: Path, url: str) -> None:
    ended = subprocess.run(
        gradseal("serve", "--key", str(key), "--port", str(address(url)[1])),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert "in use" in ended.stderr
