"""Rounds over HTTP: from a chain that the command line serves, and from relays that do not mean well.

All on loopback. What would never end if a bound were missing is stopped by the time limit of its test.
"""

from __future__ import annotations

import gzip
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gradseal.errors import AnchorError
from gradseal.precede.chain import QUICKNET
from gradseal.precede.local_chain import LocalChain, load_local_chain
from gradseal.precede.relays import Relays
from gradseal.precede.rounds import BeaconRound
from gradseal.proof.manifest import MAX_ROUND

pytestmark = pytest.mark.timeout(60)

LOCAL = LocalChain.generate(beacon_id="test", period_seconds=1, genesis_unix_seconds=1_700_000_000)
CHAIN = LOCAL.chain
SIX, SEVEN = (LOCAL.sign(number, now_unix_seconds=2e9) for number in (6, 7))
GOOD = {"round": 7, "randomness": SEVEN.randomness.hex(), "signature": SEVEN.signature.hex()}

Answer = Callable[[socket.socket], None]


def gradseal(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("gradseal")), "beacon", *arguments]


@contextmanager
def served(file: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`gradseal beacon serve` for the key in a file, and its URL."""
    process = subprocess.Popen(
        gradseal("serve", str(file), "--port", "0"),
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


@contextmanager
def relay(answer: Answer) -> Iterator[str]:
    """A host that accepts connections and does with each what `answer` does; its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    stopped = threading.Event()
    taken: list[socket.socket] = []

    def each(connection: socket.socket) -> None:
        with suppress(OSError):  # the other side goes when it has enough
            answer(connection)

    def accept() -> None:
        while not stopped.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            taken.append(connection)
            threading.Thread(target=each, args=[connection], daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stopped.set()
        thread.join()
        for connection in [*taken, listener]:
            connection.close()


def reply(body: bytes, *, status: str = "200 OK", headers: str = "") -> Answer:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        head = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + body)
        connection.close()

    return answer


def said(**changes: object) -> Answer:
    return reply(json.dumps({**GOOD, **changes}).encode())


def silent(connection: socket.socket) -> None:
    """Accepts and says nothing."""


def closes(connection: socket.socket) -> None:
    connection.close()


def drips_headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X: y\r\n")
        time.sleep(0.05)


def drips_body(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.05)


def endless_body(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while True:
        connection.sendall(b" " * 65536)


def cut_short(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")
    connection.close()


def endless_headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X: " + b"y" * 1000 + b"\r\n")


HOSTILE: dict[str, Answer] = {
    "silent": silent,
    "closes": closes,
    "drips headers": drips_headers,
    "drips a body": drips_body,
    "endless body": endless_body,
    "endless headers": endless_headers,
    "not HTTP": lambda connection: connection.sendall(b"\0\xff" * 100 + b"\r\n\r\n"),
    "not JSON": reply(b"<html>"),
    "empty": reply(b""),
    "not UTF-8": reply(b"\xff\xfe"),
    "not an object": reply(b"[]"),
    "nested": reply(b"[" * 4000),
    "oversize": reply(json.dumps(GOOD).encode() + b" " * 4096),
    "says it is oversize": lambda c: c.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Length: 1" + b"0" * 15 + b"\r\n\r\n "
    ),
    "cut short": cut_short,
    "packed": reply(gzip.compress(json.dumps(GOOD).encode()), headers="Content-Encoding: gzip\r\n"),
    "server error": reply(json.dumps(GOOD).encode(), status="500 Internal Server Error"),
    "partial content": reply(json.dumps(GOOD).encode(), status="206 Partial Content"),
    "another round": said(**{"round": 6}),
    "another round's signature": said(signature=SIX.signature.hex(), randomness=SIX.randomness.hex()),
    "another round, rightly signed": said(
        round=6, signature=SIX.signature.hex(), randomness=SIX.randomness.hex()
    ),
    "another randomness": said(randomness=bytes(32).hex()),
    "infinity": said(signature="c0" + 47 * "00"),
    "upper case": said(signature=SEVEN.signature.hex().upper()),
    "a round that is text": said(**{"round": "7"}),
    "a round that is a float": said(**{"round": 7.0}),
    "a round that is true": said(**{"round": True}),
    "a huge round": said(**{"round": 10**4000}),
    "no signature": reply(json.dumps({"round": 7, "randomness": GOOD["randomness"]}).encode()),
    "a key twice": reply(json.dumps(GOOD).encode()[:-1] + b',"round":7}'),
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE)
def test_what_a_relay_does_wrong_ends_in_an_error_and_the_next_is_asked(answer: Answer) -> None:
    with relay(answer) as bad, relay(said()) as good:
        with pytest.raises(AnchorError) as caught:
            Relays(CHAIN, [bad], timeout_seconds=0.4).fetch(7)
        assert bad in caught.value.where
        assert caught.value.advice
        assert Relays(CHAIN, [bad, good], timeout_seconds=0.4).fetch(7) == SEVEN


@pytest.mark.parametrize("answer", [endless_body, endless_headers])
def test_what_has_no_end_is_given_up_for_its_size(answer: Answer) -> None:
    with relay(answer) as url, pytest.raises(AnchorError):
        Relays(CHAIN, [url], timeout_seconds=600).fetch(7)


def test_a_redirect_is_not_followed() -> None:
    followed = threading.Event()

    def target(connection: socket.socket) -> None:
        followed.set()
        said()(connection)

    with relay(target) as other:
        headers = f"Location: {other}/{CHAIN.hash.hex()}/public/7\r\n"
        with relay(reply(b"", status="302 Found", headers=headers)) as first, pytest.raises(AnchorError):
            Relays(CHAIN, [first]).fetch(7)
    assert not followed.is_set()


def test_no_thread_is_left_behind_by_a_relay_that_drips() -> None:
    with relay(drips_headers) as url:
        for _ in range(3):
            with pytest.raises(AnchorError):
                Relays(CHAIN, [url], timeout_seconds=0.2).fetch(7)
        while any(thread.name.startswith("GET ") for thread in threading.enumerate()):
            time.sleep(0.05)


def test_offline_a_name_that_is_looked_up_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    release, ended = threading.Event(), threading.Event()

    def stuck(*_: object, **__: object) -> None:
        release.wait(30)
        ended.set()
        raise socket.gaierror("no answer")

    monkeypatch.setattr(socket, "getaddrinfo", stuck)
    with pytest.raises(AnchorError):
        Relays(CHAIN, ["https://api.drand.sh"], timeout_seconds=0.2).fetch(7)
    assert not ended.is_set()
    release.set()


@pytest.mark.parametrize("host", ["127.0.0.1:1", "nowhere.invalid", "a..b", "x" * 300, "[::1]:1"])
def test_offline_ends_in_an_error(host: str) -> None:
    with pytest.raises(AnchorError):
        Relays(CHAIN, [f"http://{host}"], timeout_seconds=2).fetch(7)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.drand.sh",
        "ftp://host",
        "file:///etc/passwd",
        "http://",
        "http://h?q=1",
        "http://h#f",
        "http://a:b@h",
    ],
)
def test_addresses_that_are_no_relay(url: str) -> None:
    with pytest.raises(AnchorError) as caught:
        Relays(CHAIN, [url])
    assert "a:b" not in caught.value.diagnostics()
    with pytest.raises(AnchorError):
        Relays(CHAIN, [])


def test_a_relay_that_answered_is_asked_first_from_then_on() -> None:
    asked = []

    def notes(connection: socket.socket) -> None:
        asked.append(connection)
        connection.close()

    with relay(notes) as bad, relay(said()) as good:
        relays = Relays(CHAIN, [bad, good])
        assert [relays.fetch(7), relays.fetch(7)] == [SEVEN, SEVEN]
        assert len(asked) == 1


def test_the_latest_round_is_verified_too() -> None:
    with relay(said()) as good:
        assert Relays(CHAIN, [good]).latest() == SEVEN
        with pytest.raises(AnchorError):
            Relays(QUICKNET, [good]).latest()


def test_waiting_goes_on_until_a_relay_has_the_round() -> None:
    answers = [closes, reply(b"", status="404 Not Found"), said()]

    def in_turn(connection: socket.socket) -> None:
        answers.pop(0)(connection)

    with relay(in_turn) as url:
        assert Relays(CHAIN, [url]).wait_for(7) == SEVEN


def test_waiting_begins_when_the_round_is_due() -> None:
    asked = []

    def notes(connection: socket.socket) -> None:
        asked.append(clock())
        said()(connection)

    ahead = CHAIN.round_due(7) - 0.5 - time.time()

    def clock() -> float:
        return time.time() + ahead

    with relay(notes) as url:
        assert Relays(CHAIN, [url], clock=clock).wait_for(7) == SEVEN
    assert len(asked) == 1
    assert asked[0] >= CHAIN.round_due(7)


def test_waiting_ends_with_ones_patience() -> None:
    with relay(closes) as url, pytest.raises(AnchorError):
        Relays(CHAIN, [url]).wait_for(7, patience_seconds=0.5)


@pytest.mark.parametrize(("number", "answer"), [(MAX_ROUND, closes), (7, closes), (7, silent)])
def test_waiting_can_be_cancelled(number: int, answer: Answer) -> None:
    cancelled = threading.Event()
    with relay(answer) as url:
        threading.Timer(0.3, cancelled.set).start()
        assert Relays(CHAIN, [url], timeout_seconds=600).wait_for(number, cancelled=cancelled) is None


@pytest.mark.parametrize("number", [0, -1, MAX_ROUND + 1])
def test_rounds_that_no_chain_has_are_not_asked_for(number: int) -> None:
    relays = Relays(CHAIN, ["http://127.0.0.1:1"])
    for ask in (relays.fetch, relays.wait_for):
        with pytest.raises(AnchorError, match="no chain has"):
            ask(number)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("beacon") / "beacon.key"
    subprocess.run(
        gradseal("new-key", str(file), "--period", "1"), check=True, capture_output=True, timeout=60
    )
    return file


def test_a_served_chain_is_fetched_verified_and_never_early(key: Path) -> None:
    chain = load_local_chain(key).chain
    with served(key) as (url, _):
        relays = Relays(chain, [url])
        first = relays.fetch(1)
        assert first.verify()
        latest = relays.latest()
        following = relays.wait_for(latest.number + 2)
        assert following is not None
        assert time.time() >= chain.round_due(following.number)
        assert chain.wrong_rounds({r.number: r.signature for r in (first, latest, following)}) == ()
        with pytest.raises(AnchorError, match="no relay"):
            relays.fetch(following.number + 1000)
        with pytest.raises(AnchorError):
            Relays(CHAIN, [url]).fetch(1)


def test_two_servers_of_one_key_give_the_same_rounds(key: Path) -> None:
    chain = load_local_chain(key).chain
    rounds: list[BeaconRound] = []
    for _ in range(2):
        with served(key) as (url, _):
            rounds.append(Relays(chain, [url]).fetch(1))
    assert rounds[0] == rounds[1]


@pytest.mark.parametrize("idle", [False, True], ids=["at once", "with a connection open"])
def test_the_server_ends_well_when_asked_to(key: Path, idle: bool) -> None:
    with served(key) as (url, process):
        if idle:
            Relays(load_local_chain(key).chain, [url]).fetch(1)
            host, port = url.removeprefix("http://").split(":")
            held = socket.create_connection((host, int(port)))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        if idle:
            held.close()


def test_a_port_in_use_is_an_error_not_a_traceback(key: Path) -> None:
    with served(key) as (url, _):
        port = url.rpartition(":")[2]
        ended = subprocess.run(
            gradseal("serve", str(key), "--port", port),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert "in use" in ended.stderr
