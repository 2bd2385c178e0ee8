"""The HTTP service of a one-node chain: version 1 of drand's interface.

Answers the chain's parameters and each round from when it is due by the clock, and never before. It keeps no
state: a round is signed anew whenever it is asked for, and is the same each time. `listen` and `serve` know
nothing of chains and run any ASGI application until the process is asked to stop.

Needs the extra `witness` (Starlette and uvicorn). Format: docs/spec/beacon.md, sections 4 and 5.
"""

from __future__ import annotations

import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from gradseal.errors import AnchorError
from gradseal.precede.local_chain import LocalChain
from gradseal.precede.rounds import BeaconRound
from gradseal.proof.canonical import Json

_STOP_SECONDS = 5
_ROUND = re.compile(r"[1-9][0-9]{0,12}")
_FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}
_NEVER = {"Cache-Control": "no-store"}


def application(local: LocalChain, *, clock: Callable[[], float] = time.time) -> Starlette:
    """The ASGI application that serves a chain.

    Args:
        local: The chain and its key.
        clock: The time now, in seconds of Unix time: what decides whether a round is due.
    """
    chain = local.chain

    async def chains(request: Request) -> JSONResponse:
        return _answer([chain.hash.hex()])

    async def health(request: Request) -> JSONResponse:
        current = chain.round_at(clock())
        return _answer({"current": current, "expected": current}, _NEVER)

    async def info(request: Request) -> JSONResponse:
        _check_chain(request)
        return _answer(chain.to_info())

    async def latest(request: Request) -> JSONResponse:
        _check_chain(request)
        return _answer(_signed(chain.round_at(clock())), _NEVER)

    async def one_round(request: Request) -> JSONResponse:
        _check_chain(request)
        asked = request.path_params["round"]
        if not _ROUND.fullmatch(asked):
            raise HTTPException(400, "a round is a decimal number from 1", _NEVER)
        return _answer(_signed(int(asked)), _FOR_EVER)

    def _check_chain(request: Request) -> None:
        if request.path_params["chain"] != chain.hash.hex():
            raise HTTPException(404, "another chain is served here", _NEVER)

    def _signed(number: int) -> dict[str, Json]:
        try:
            signed: BeaconRound = local.sign(number, now_unix_seconds=clock())
        except AnchorError as e:
            raise HTTPException(404, e.message, _NEVER) from e
        return {
            "round": number,
            "randomness": signed.randomness.hex(),
            "signature": signed.signature.hex(),
        }

    return Starlette(
        routes=[
            Route("/chains", chains),
            Route("/health", health),
            Route("/{chain}/info", info),
            Route("/{chain}/public/latest", latest),
            Route("/{chain}/public/{round}", one_round),
        ],
        exception_handlers={HTTPException: _refused},
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections, though nobody answers them yet; port 0 takes a free one.

    Raises:
        OSError: It cannot listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)


def address(listener: socket.socket) -> str:
    """The `http://` URL of a socket that listens."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: ASGIApp, listener: socket.socket, *, ready: Callable[[], None]) -> None:
    """Serves until SIGTERM or SIGINT, finishes what it has begun, for some seconds at most, and ends.

    To be called from the main thread. SIGTERM ends the process with status 0, SIGINT as it does everywhere.

    Args:
        app: What answers.
        listener: From `listen`.
        ready: Called once, from when on a signal ends it well; connections wait in the listener's queue.
    """
    # Uvicorn raises the signal once more when it has stopped; it may also come before uvicorn takes it.
    signal.signal(signal.SIGTERM, _stop)
    ready()
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listener])


def _stop(signal_number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(0)


def _answer(value: Json, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(value, headers=headers)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    refusal = error if isinstance(error, HTTPException) else HTTPException(500)
    return JSONResponse({"error": refusal.detail}, refusal.status_code, headers=refusal.headers)
