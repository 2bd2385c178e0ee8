"""The witness over HTTP: `POST /add-checkpoint` (C2SP tlog-witness), a page of its logs, and metrics.

The order of a request: bounded body, strict parsing, known origin, log's signature, then the batch, and
cosignatures of every active key only once that is durable. Format: docs/spec/witness.md, section 2.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from gradseal.errors import KeyFileError, MalformedBundle, StoreError
from gradseal.proof.cosignature import CosigningKey
from gradseal.proof.submission import MAX_SUBMISSION_BYTES, SIZE_TYPE, Submission, parse_submission
from gradseal.witness.batching import Batcher
from gradseal.witness.logs import Logs
from gradseal.witness.mark import Mark
from gradseal.witness.metrics import Metrics
from gradseal.witness.page import HEADERS, MAX_SHOWN, render
from gradseal.witness.state import Refused
from gradseal.witness.storage import Storage

_BODY_SECONDS = 10
_PAGE_SECONDS = 5.0

_log = logging.getLogger(__name__)


def make_app(
    *, storage: Storage, keys: Sequence[CosigningKey], logs: Logs, mark: Mark | None = None
) -> Starlette:
    """The application.

    Args:
        storage: Where what was cosigned is kept; the application closes it.
        keys: Every one of them signs every cosignature.
        logs: Which logs are witnessed.
        mark: Where to note how far the storage is, if anywhere.

    Raises:
        KeyFileError: No key, or the same one twice.
        RolledBack: The storage is behind the mark.
    """
    check_keys(keys)
    if mark:
        mark.check(storage)
        mark.write(storage, now=True)
    return _Witness(storage, keys, logs, mark).app()


def check_keys(keys: Sequence[CosigningKey]) -> None:
    """Refuse no keys, and one that is there twice: the message does not hold the name (tlog-cosignature).

    Raises:
        KeyFileError: They are not good.
    """
    public = [key.verification_key.public for key in keys]
    if not keys or len(set(public)) != len(public):
        raise KeyFileError("no key, or one key twice", where="the witness's keys")


class _Witness:
    def __init__(self, storage: Storage, keys: Sequence[CosigningKey], logs: Logs, mark: Mark | None) -> None:
        self._keys = tuple(keys)
        self._logs = logs
        self._metrics = Metrics()
        self._metrics.changes.set(storage.counter)
        self._batcher = Batcher(storage, self._metrics, mark=mark)
        self._page = ""
        self._page_until = 0.0
        self._page_lock = asyncio.Lock()

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/add-checkpoint", self.add_checkpoint, methods=["POST"]),
                Route("/metrics", self.metrics, methods=["GET"]),
                Route("/", self.page, methods=["GET"]),
            ],
            lifespan=self._running,
        )

    async def add_checkpoint(self, request: Request) -> Response:
        began = time.perf_counter()
        response = await self._answer(request)
        self._metrics.seconds.observe(time.perf_counter() - began)
        self._metrics.answers.labels(response.status_code).inc()
        return response

    async def metrics(self, _request: Request) -> Response:
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def page(self, _request: Request) -> Response:
        # However often it is asked for, the database is read every few seconds.
        async with self._page_lock:
            if time.monotonic() >= self._page_until:
                try:
                    listing = await self._batcher.newest(MAX_SHOWN)
                except StoreError:
                    return _plain(503, "the witness's database is not there")
                self._page = render([key.verification_key for key in self._keys], listing)
                self._page_until = time.monotonic() + _PAGE_SECONDS
        return HTMLResponse(self._page, headers=HEADERS)

    async def _answer(self, request: Request) -> Response:
        try:
            body = await _read(request)
        except (ClientDisconnect, TimeoutError):
            return _plain(408, "the request did not come")
        if body is None:
            return _plain(413, f"more than {MAX_SUBMISSION_BYTES} bytes")
        try:
            submission = parse_submission(body)
        except MalformedBundle as e:
            return _plain(400, str(e))
        if not self._logs.keys_for(submission.checkpoint.origin):
            return _plain(404, "a log that is not witnessed here")
        if not self._logs.have_signed(submission):
            return _plain(403, "not signed by a key of this log")
        return await self._cosign(submission)

    async def _cosign(self, submission: Submission) -> Response:
        try:
            outcome = await self._batcher.submit(submission)
        except StoreError:
            return _plain(503, "the witness's database is not there; try again")
        if isinstance(outcome, Refused):
            self._note(submission, outcome)
            if outcome.size is not None:
                # Not as `media_type`, to which a character set would be added.
                return Response(f"{outcome.size}\n", outcome.status, {"Content-Type": SIZE_TYPE})
            return _plain(outcome.status, outcome.reason)
        text = submission.note.text
        lines = "".join(key.cosign(text, outcome.timestamp).line() for key in self._keys)
        return Response(lines, media_type="text/plain; charset=utf-8")

    def _note(self, submission: Submission, refused: Refused) -> None:
        if refused.is_fork:
            self._metrics.forks.inc()
            _log.error("fork: %r", submission.note.encode().decode())
        elif refused.status == 422:
            _log.warning("no proof of growth: %r", submission.note.encode().decode())

    @asynccontextmanager
    async def _running(self, _app: Starlette) -> AsyncIterator[None]:
        committing = asyncio.create_task(self._batcher.run())
        try:
            yield
        finally:
            self._batcher.stop()
            await committing


async def _read(request: Request) -> bytes | None:
    """The body; None if it is too large."""
    body = bytearray()
    async with asyncio.timeout(_BODY_SECONDS):
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_SUBMISSION_BYTES:
                return None
    return bytes(body)


def _plain(status: int, reason: str) -> Response:
    return PlainTextResponse(f"{reason}\n", status_code=status)
