"""Asking a time-stamp authority over HTTP (RFC 3161 section 3.4).

An answer is returned only if it verifies against the roots that the caller pins and answers this very query.
Everything is bounded: one deadline for connecting, sending and receiving, however slowly bytes drip, and the
size of the answer. Redirects are not followed. Reads no environment, so no proxy is found there.
Format: docs/spec/timestamps.md, section 7.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from gradseal.errors import AnchorError
from gradseal.precede.answers import encode_query
from gradseal.precede.asn1 import MAX_DER_BYTES, refuse
from gradseal.precede.timestamps import verify_token
from gradseal.precede.tls import tls

QUERY_TYPE = "application/timestamp-query"
ANSWER_TYPE = "application/timestamp-reply"

TIMEOUT_SECONDS = 10.0
"""How long an authority may take in all."""

SKEW_SECONDS = 300.0
"""How far the authority's clock may be ahead of this machine's; its answer is checked again by a verifier."""

_NONCE_BITS = 64
_GRACE_SECONDS = 1.0


def _system_clock() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A `TimeStamper` on the network.

    Args:
        name: Whose time-stamps these are.
        url: Where it takes queries, http or https. The answer is signed, so http will do.
        roots: Its self-signed root certificates, DER.
        timeout_seconds: How long an answer may take in all.
    """

    name: str
    url: str
    roots: tuple[bytes, ...]
    timeout_seconds: float = TIMEOUT_SECONDS

    def stamp(self, digest: bytes) -> bytes:
        """See `timestamps.TimeStamper`."""
        return ask(self.url, digest, roots=self.roots, timeout_seconds=self.timeout_seconds)


def ask(
    url: str,
    digest: bytes,
    *,
    roots: tuple[bytes, ...],
    timeout_seconds: float = TIMEOUT_SECONDS,
    skew_seconds: float = SKEW_SECONDS,
    clock: Callable[[], datetime] = _system_clock,
) -> bytes:
    """A time-stamp of a digest, verified.

    Args:
        url: Where the authority takes queries.
        digest: SHA-256 of what is to be stamped.
        roots: The authority's self-signed root certificates, DER.
        timeout_seconds: After so long in all, it is given up.
        skew_seconds: How far the authority's clock may be ahead.
        clock: This machine's clock.

    Returns:
        The whole answer, a TimeStampResp in DER, as `timestamps.verify_token` takes it.

    Raises:
        AnchorError: The authority is away, late, refuses, or answers what does not verify.
    """
    where = f"time-stamp authority {_shown(url)}"
    if len(digest) != 32:
        refuse(f"a digest of {len(digest)} bytes, not 32", where)
    nonce = secrets.randbits(_NONCE_BITS)
    query = encode_query(digest, nonce=nonce)
    answer = _within(timeout_seconds, _exchange(url, query, timeout_seconds, where), where)
    verify_token(
        answer, digest=digest, roots=roots, nonce=nonce, now=clock(), skew_seconds=skew_seconds, where=where
    )
    return answer


def _shown(url: str) -> str:
    """The URL without what may be secret in it."""
    try:
        return str(httpx.URL(url).copy_with(userinfo=b"", query=None, fragment=None))
    except (httpx.InvalidURL, TypeError, ValueError):
        return "with an address that is not a URL"


async def _exchange(url: str, query: bytes, timeout_seconds: float, where: str) -> bytes:
    headers = {"Content-Type": QUERY_TYPE, "Accept": ANSWER_TYPE, "Accept-Encoding": "identity"}
    try:
        # httpx bounds each read, not all of them: a server that drips would hold it for ever.
        async with (
            asyncio.timeout(timeout_seconds),
            httpx.AsyncClient(
                verify=tls(), trust_env=False, follow_redirects=False, timeout=timeout_seconds
            ) as client,
            client.stream("POST", url, content=query, headers=headers) as response,
        ):
            _check_head(response, where)
            return await _receive(response, where)
    except (TimeoutError, httpx.TimeoutException) as e:
        raise _late(timeout_seconds, where) from e
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as e:
        message = f"cannot be reached: {ascii(str(e))[1:-1][:200] or type(e).__name__}"
        raise AnchorError(message, where=where, advice="Check the address and the network.") from e


def _check_head(response: httpx.Response, where: str) -> None:
    status, kind = response.status_code, response.headers.get("content-type", "")
    if response.has_redirect_location:
        refuse(f"redirects (HTTP {status})", where, "Give the address where it answers itself.")
    if status != httpx.codes.OK:
        refuse(f"answers HTTP {status}", where, "Check the address; or the authority refuses queries.")
    if kind.partition(";")[0].strip().lower() != ANSWER_TYPE:
        message = f"answers with {ascii(kind)[1:-1][:100] or 'no content type'}, not {ANSWER_TYPE}"
        refuse(message, where, "Check that the address is that of an RFC 3161 authority.")


async def _receive(response: httpx.Response, where: str) -> bytes:
    # Raw, because a body that was packed could unpack to any size; it will not be DER.
    received = bytearray()
    async for piece in response.aiter_raw():
        received += piece
        if len(received) > MAX_DER_BYTES:
            refuse(f"answers with more than {MAX_DER_BYTES} bytes", where)
    return bytes(received)


def _within(timeout_seconds: float, work: Coroutine[None, None, bytes], where: str) -> bytes:
    """What the work returns or raises, from an event loop in a thread of its own.

    The caller may run a loop itself, as a notebook does. A look-up of a name, which nothing can cancel,
    is left behind when time is up.
    """
    loop = asyncio.new_event_loop()

    def run() -> None:
        try:
            loop.run_forever()
        finally:
            loop.close()

    threading.Thread(target=run, name="gradseal-time-stamp", daemon=True).start()
    try:
        return asyncio.run_coroutine_threadsafe(work, loop).result(timeout_seconds + _GRACE_SECONDS)
    except TimeoutError as e:
        raise _late(timeout_seconds, where) from e
    finally:
        loop.call_soon_threadsafe(loop.stop)


def _late(timeout_seconds: float, where: str) -> AnchorError:
    message = f"no answer within {timeout_seconds:g} seconds"
    return AnchorError(message, where=where, advice="Ask again, or allow it more time.")
