"""Time-stamps together with `openssl ts`, and over HTTP with authorities that behave and that do not."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

import pytest

from forged_tokens import DIGEST, ROOT, SIGNER, rejection, stamped
from gradseal.errors import AnchorError
from gradseal.precede.answers import encode_query
from gradseal.precede.asn1 import MAX_DER_BYTES
from gradseal.precede.authorities import Authority, ask
from gradseal.precede.timestamps import TimeStamper, verify_token
from time_stamp_authority import (
    OpensslAuthority,
    Respond,
    answering,
    make_identity,
    make_key,
    send,
    serve,
)

PATIENT_SECONDS = 30.0


@pytest.fixture
def openssl(tmp_path: Path) -> OpensslAuthority:
    return OpensslAuthority(directory=tmp_path, signer=SIGNER)


def asked(url: str, **options: Any) -> bytes:
    return ask(url, DIGEST, **{"roots": (ROOT.der,), "timeout_seconds": PATIENT_SECONDS, **options})


def refused(respond: Respond, **options: Any) -> AnchorError:
    """The error from asking a server that answers so."""
    with serve(respond) as url, pytest.raises(AnchorError) as caught:
        asked(url, **options)
    assert caught.value.where.startswith(f"time-stamp authority {url}")
    return caught.value


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("kind", ["p256", "rsa"])
def test_openssl_and_gradseal_understand_each_other(
    tmp_path: Path, kind: Literal["p256", "rsa"], digest: str
) -> None:
    signer = make_identity("signer", ROOT, key=make_key(kind))
    authority = OpensslAuthority(directory=tmp_path, signer=signer, signer_digest=digest, ess_digest=digest)
    queries: list[bytes] = []

    def reply(query: bytes) -> bytes:
        queries.append(query)
        return authority.reply(query)

    with serve(answering(reply)) as url:
        token = asked(url)
    assert authority.accepts(token, query=queries[0])
    assert authority.accepts(token, digest=DIGEST)
    assert not authority.accepts(token, digest=bytes(32))
    found = verify_token(token, digest=DIGEST, roots=authority.roots, now=datetime.now(UTC))
    assert found.certificate == sha256(signer.der).digest()
    assert found.policy == "1.2.3.4.1"


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        ("", timedelta(seconds=1)),
        ("secs:2", timedelta(seconds=2)),
        ("secs:1, millisecs:500, microsecs:100", timedelta(microseconds=1_500_100)),
        ("millisecs:999", timedelta(milliseconds=999)),
    ],
)
def test_what_openssl_says_of_its_clock_is_read(tmp_path: Path, accuracy: str, expected: timedelta) -> None:
    authority = OpensslAuthority(directory=tmp_path, signer=SIGNER, accuracy=accuracy, clock_digits=3)
    found = verify_token(
        authority.reply(encode_query(DIGEST, nonce=5)), digest=DIGEST, roots=authority.roots, nonce=5
    )
    assert found.accuracy == expected
    assert found.accuracy_assumed == (not accuracy)
    assert found.gen_time.microsecond % 1000 == 0


def test_a_chain_and_an_old_certificate_id_by_openssl_are_taken(tmp_path: Path) -> None:
    signer = make_identity("signer", make_identity("middle", ROOT, authority=True))
    authority = OpensslAuthority(directory=tmp_path, signer=signer, ess_digest="sha1")
    with serve(answering(authority.reply)) as url:
        assert authority.accepts(asked(url), digest=DIGEST)


def test_a_query_by_openssl_gets_an_answer_that_verifies(openssl: OpensslAuthority) -> None:
    openssl.openssl("-query", "-digest", DIGEST.hex(), "-sha256", "-cert", "-out", "own.tsq")
    token = openssl.reply((openssl.directory / "own.tsq").read_bytes())
    assert verify_token(token, digest=DIGEST, roots=openssl.roots).serial_number > 0


def test_a_digest_that_openssl_does_not_take_is_rejected_in_its_words(openssl: OpensslAuthority) -> None:
    openssl.openssl("-query", "-digest", "00" * 64, "-sha512", "-out", "own.tsq")
    token = openssl.reply((openssl.directory / "own.tsq").read_bytes())
    with pytest.raises(AnchorError, match=r"did not grant it: rejection: .*bad_alg"):
        verify_token(token, digest=DIGEST, roots=openssl.roots)


def test_openssl_takes_what_the_forger_makes_well(openssl: OpensslAuthority) -> None:
    assert openssl.accepts(stamped(), digest=DIGEST)


def test_an_authority_is_a_time_stamper(openssl: OpensslAuthority) -> None:
    with serve(answering(openssl.reply)) as url:
        stamper: TimeStamper = Authority(name="local", url=url, roots=openssl.roots)
        token = stamper.stamp(DIGEST)
    assert stamper.name == "local"
    assert openssl.accepts(token, digest=DIGEST)


def test_it_can_be_asked_where_an_event_loop_runs(openssl: OpensslAuthority) -> None:
    async def notebook(url: str) -> bytes:
        return asked(url)

    with serve(answering(openssl.reply)) as url:
        assert openssl.accepts(asyncio.run(notebook(url)), digest=DIGEST)


def test_queries_have_nonces_of_their_own(openssl: OpensslAuthority) -> None:
    first: list[bytes] = []

    def replay(query: bytes) -> bytes:
        first.append(first[0] if first else openssl.reply(query))
        return first[-1]

    with serve(answering(replay)) as url:
        asked(url)
        with pytest.raises(AnchorError, match="answers another query"):
            asked(url)


def test_an_answer_is_verified_before_it_is_returned(openssl: OpensslAuthority) -> None:
    assert "no pinned root" in refused(answering(openssl.reply), roots=(make_identity("root").der,)).message
    past = datetime.now(UTC) - timedelta(hours=1)
    assert "in the future" in refused(answering(openssl.reply), clock=lambda: past).message
    assert "did not grant it" in refused(answering(lambda _: rejection())).message


def garbage(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    handler.wfile.write(b"\x00\xff not HTTP at all\r\n\r\n" * 10)
    handler.close_connection = True


def silence(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    handler.close_connection = True


def cut_short(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/timestamp-reply")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"\x30\x82")
    handler.close_connection = True


def endless(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    """A body without a length, which goes on for far longer than anybody should read."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/timestamp-reply")
    handler.end_headers()
    for piece in repeat(bytes(MAX_DER_BYTES), 1000):
        handler.wfile.write(piece)
    handler.close_connection = True


@pytest.mark.parametrize(
    ("respond", "message"),
    [
        (garbage, "cannot be reached"),
        (silence, "cannot be reached"),
        (cut_short, "cannot be reached"),
        (endless, "answers with more than 65536 bytes"),
        (lambda h, _: send(h, bytes(MAX_DER_BYTES + 1)), "answers with more than 65536 bytes"),
        (lambda h, _: send(h, b""), "ends early"),
        (lambda h, _: send(h, b"\x30\x82junk"), "ends early"),
        (lambda h, _: send(h, b"<html>", kind="text/html"), "answers with text/html"),
        (lambda h, _: send(h, b"x", kind="application/timestamp-query"), "answers with application/time"),
        (lambda h, _: send(h, b"", status=500), "answers HTTP 500"),
        (lambda h, _: send(h, b"", status=204), "answers HTTP 204"),
        (lambda h, _: send(h, b"", status=302), "answers HTTP 302"),
    ],
)
def test_a_server_that_misbehaves_is_named(respond: Respond, message: str) -> None:
    error = refused(respond)
    assert message in error.message
    assert "\x1b" not in error.diagnostics()


def test_a_packed_answer_is_not_unpacked(openssl: OpensslAuthority) -> None:
    def packed(handler: BaseHTTPRequestHandler, query: bytes) -> None:
        assert handler.headers["Accept-Encoding"] == "identity"
        send(handler, b"\x1f\x8b" + bytes(20), Content_Encoding="gzip")

    assert "not DER" in refused(packed).message


def test_a_type_with_parameters_is_taken(openssl: OpensslAuthority) -> None:
    def respond(handler: BaseHTTPRequestHandler, query: bytes) -> None:
        assert handler.headers["Content-Type"] == "application/timestamp-query"
        send(handler, openssl.reply(query), kind="Application/Timestamp-Reply; charset=binary")

    with serve(respond) as url:
        assert openssl.accepts(asked(url), digest=DIGEST)


def test_redirects_are_not_followed(openssl: OpensslAuthority) -> None:
    queries: list[bytes] = []

    def elsewhere(query: bytes) -> bytes:
        queries.append(query)
        return openssl.reply(query)

    with serve(answering(elsewhere)) as target:
        error = refused(lambda handler, _: send(handler, b"", status=307, Location=target))
    assert "redirects" in error.message
    assert error.advice
    assert queries == []


@pytest.fixture
def ended() -> Iterator[threading.Event]:
    """Set when the test is over, for servers that would wait for longer."""
    event = threading.Event()
    yield event
    event.set()


def test_a_server_that_hangs_is_given_up(ended: threading.Event) -> None:
    def hang(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        ended.wait(PATIENT_SECONDS)

    assert "no answer within 0.3 seconds" in refused(hang, timeout_seconds=0.3).message


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_server_that_drips_is_given_up(ended: threading.Event, start: bytes) -> None:
    def drip(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.wfile.write(
            start.replace(b"\r\n\r\n", b"\r\nContent-Type: application/timestamp-reply\r\n\r\n")
        )
        while not ended.wait(0.02):
            handler.wfile.write(b"x")

    assert "no answer within 0.5 seconds" in refused(drip, timeout_seconds=0.5).message


def test_a_host_that_accepts_and_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(AnchorError, match="no answer"):
        asked(f"http://127.0.0.1:{server.getsockname()[1]}/", timeout_seconds=0.3)


def test_a_host_that_is_away_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(AnchorError, match="cannot be reached") as caught:
        asked(f"http://user:secret@127.0.0.1:{port}/tsa?key=secret")
    assert caught.value.where == f"time-stamp authority http://127.0.0.1:{port}/tsa"
    assert caught.value.advice
    assert "secret" not in caught.value.diagnostics()


@pytest.mark.parametrize(
    "url", ["", "tsa.example", "ftp://127.0.0.1/", "http://", "http://[::1", "http://\x1b/"]
)
def test_what_is_not_an_address_is_refused(url: str) -> None:
    with pytest.raises(AnchorError) as caught:
        asked(url)
    assert "\x1b" not in caught.value.diagnostics()


def test_only_a_digest_is_stamped() -> None:
    with pytest.raises(AnchorError, match="a digest of 3 bytes"):
        ask("http://127.0.0.1:1/", b"abc", roots=(ROOT.der,))
