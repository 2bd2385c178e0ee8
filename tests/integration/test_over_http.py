"""A bundle on a static file server: verified there, and errors that say what server or network did."""

from __future__ import annotations

import functools
import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from example_bundle import BUNDLE, KEY
from gradseal.errors import MalformedBundle, StoreError
from gradseal.proof.bundle import open_bundle
from gradseal.store.files import FsspecFiles
from gradseal.verify.verdict import ClaimName, Outcome, Result, Status
from gradseal.verify.verifier import verify

KEYS = [KEY.verification_key]


class Server(http.server.ThreadingHTTPServer):
    """Serves the example; requests for blobs may fail in a way."""

    daemon_threads = True
    blobs = ""


class Handler(http.server.SimpleHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.server.blobs and "/blobs/" in self.path:
            if self.server.blobs == "unavailable":
                self.send_error(503)
            else:
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        super().do_GET()

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def serving(blobs: str = "") -> Iterator[str]:
    with Server(("127.0.0.1", 0), functools.partial(Handler, directory=str(BUNDLE))) as server:
        server.blobs = blobs
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join(10)


def test_a_bundle_is_verified_where_it_is_served() -> None:
    with serving() as url:
        verdict = verify(url, keys=KEYS)
    assert verdict.outcome is not Outcome.REJECTED
    assert verdict.claims[ClaimName.INTEGRITY].status is Status.SHOWN
    assert verdict.cost.segments_replayed == 2


@pytest.mark.parametrize("blobs", ["unavailable", "dropped"])
def test_a_server_that_fails_leaves_the_verdict_open(blobs: str) -> None:
    with serving(blobs) as url:
        verdict = verify(url, keys=KEYS)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    (undecided,) = [f for f in verdict.findings if f.result is Result.UNDECIDED]
    assert "could not be read" in undecided.message


def test_a_server_that_is_not_there_is_not_a_missing_bundle() -> None:
    with serving() as url:
        pass
    with pytest.raises(StoreError, match="could not be read") as caught:
        open_bundle(FsspecFiles(url))
    assert not isinstance(caught.value, MalformedBundle)


def test_a_server_without_a_bundle() -> None:
    with serving() as url, pytest.raises(MalformedBundle, match="not a bundle"):
        open_bundle(FsspecFiles(f"{url}/blobs"))
