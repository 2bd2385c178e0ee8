"""The HTTP service of a local time-stamp authority (RFC 3161 section 3.4).

Takes queries at `/`, and answers each by the clock that it is given. A query that is bad or not supported is
answered too, by a rejection with status 200, as the standard has it; the statuses of HTTP are for what is no
query at all. It keeps no state. What is sent is bounded in size and time.

Needs the extra `witness` (Starlette), and `serving` to listen. Format: docs/spec/timestamps.md, section 8.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from gradseal.precede.authorities import ANSWER_TYPE, QUERY_TYPE
from gradseal.precede.local_authority import DEFAULT_ACCURACY_SECONDS, LocalAuthority
from gradseal.precede.queries import MAX_QUERY_BYTES

BODY_SECONDS = 10.0
"""How long a query may take to arrive."""

_NEVER_STORED = {"Cache-Control": "no-store"}


def _system_clock() -> datetime:
    return datetime.now(UTC)


def application(
    local: LocalAuthority,
    *,
    clock: Callable[[], datetime] = _system_clock,
    accuracy_seconds: int = DEFAULT_ACCURACY_SECONDS,
    body_seconds: float = BODY_SECONDS,
) -> Starlette:
    """The ASGI application that serves an authority.

    Args:
        local: The authority and its key.
        clock: The time now, with a time zone: what the time-stamps say.
        accuracy_seconds: How far that clock may be off, which they say too.
        body_seconds: How long a query may take to arrive.
    """

    async def stamp(request: Request) -> Response:
        _check_type(request)
        query = await _read(request, body_seconds)
        answer = local.answer(query, clock(), accuracy_seconds=accuracy_seconds)
        return Response(answer, headers=_NEVER_STORED, media_type=ANSWER_TYPE)

    return Starlette(routes=[Route("/", stamp, methods=["POST"])])


def _check_type(request: Request) -> None:
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != QUERY_TYPE:
        raise HTTPException(415, f"a query's content type is {QUERY_TYPE}")


async def _read(request: Request, body_seconds: float) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(body_seconds):
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_QUERY_BYTES:
                    raise HTTPException(413, f"a query has at most {MAX_QUERY_BYTES} bytes")
    except (ClientDisconnect, TimeoutError) as e:
        # What is still to come would be taken for another request.
        raise HTTPException(408, "the query did not come", {"Connection": "close"}) from e
    return bytes(body)
