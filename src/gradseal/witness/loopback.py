"""A beacon, a witness and a time-stamp authority on this machine, for places without network and for trying.

Real services over HTTP on 127.0.0.1, each in a thread, by the code that serves elsewhere. They show a time
only to those who trust whoever runs them, which `Loopback.trust` says for the one who does. Keys are new each
time.

Needs the extra `witness`.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from types import TracebackType

import uvicorn
from starlette.types import ASGIApp

from gradseal.errors import AnchorError
from gradseal.precede import authority_serving, serving
from gradseal.precede.beacons import Beacon
from gradseal.precede.chain import Chain
from gradseal.precede.local_authority import LocalAuthority
from gradseal.precede.local_chain import LocalChain
from gradseal.precede.relays import Relays
from gradseal.precede.timestamps import PinnedAuthority
from gradseal.precede.trust import Trust
from gradseal.proof.cosignature import CosigningKey
from gradseal.proof.note import VerificationKey
from gradseal.proof.quorum import QuorumPolicy, Witness
from gradseal.witness.app import make_app
from gradseal.witness.logs import Logs
from gradseal.witness.storage import SqliteStorage

SKEW_SECONDS = 0.5
"""How far the clocks of one machine may be off each other."""

_NAME = "loopback.example"
_STARTING_SECONDS = 10.0


class Loopback:
    """The three services, from `with` to its end.

    Args:
        directory: Where the witness keeps what it cosigned.
        owner: Whose logs it witnesses.
        period_seconds: From round to round of the beacon.
    """

    def __init__(self, directory: Path, owner: VerificationKey, *, period_seconds: int = 1) -> None:
        # A beacon whose first round was an hour ago has rounds for every plan.
        genesis = int(time.time()) - int(timedelta(hours=1).total_seconds())
        self.local_chain = LocalChain.generate(
            beacon_id="loopback", period_seconds=period_seconds, genesis_unix_seconds=genesis
        )
        self.authority = LocalAuthority.generate(name=f"authority.{_NAME}")
        self.witness = CosigningKey.generate(f"{_NAME}/witness")
        self._directory = directory
        self._owner = owner
        self._running = ExitStack()
        self.urls: dict[str, str] = {}

    def __enter__(self) -> Loopback:
        with ExitStack() as started:
            storage = SqliteStorage(self._directory / "witness.sqlite")
            witness = make_app(storage=storage, keys=[self.witness], logs=Logs([self._owner]))
            for name, app in (
                ("beacon", serving.application(self.local_chain)),
                ("witness", witness),
                ("authority", authority_serving.application(self.authority)),
            ):
                self.urls[name] = started.enter_context(_Service(name, app)).url
            self._running = started.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    @property
    def chain(self) -> Chain:
        """The beacon's chain."""
        return self.local_chain.chain

    def beacon(self, *, cadence_seconds: int, lead_seconds: float) -> Beacon:
        """The beacon for a recording."""
        relays = Relays(self.chain, [self.urls["beacon"]])
        return Beacon(relays=(relays,), cadence_seconds=cadence_seconds, lead_seconds=lead_seconds)

    @property
    def trust(self) -> Trust:
        """What whoever runs these pins: all three, and the owner's key; with their addresses."""
        witness = Witness(name="loopback", key=self.witness.verification_key, url=self.urls["witness"])
        return Trust(
            keys=(self._owner,),
            policy=QuorumPolicy(logs=(), witnesses=(witness,), groups=(), quorum=witness.name),
            authorities=(PinnedAuthority(name="loopback", roots=(self.authority.root,)),),
            chains=(self.chain,),
            skew_seconds=SKEW_SECONDS,
            combine="all",
            timestamp_urls={"loopback": self.urls["authority"]},
            relay_urls={self.chain.hash: (self.urls["beacon"],)},
        )


class _Service:
    """One ASGI application on a free port of 127.0.0.1, in a thread."""

    def __init__(self, name: str, app: ASGIApp) -> None:
        self._listener: socket.socket = serving.listen("127.0.0.1", 0)
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run,
            kwargs={"sockets": [self._listener]},
            name=f"gradseal-loopback-{name}",
            daemon=True,
        )
        self._name = name

    @property
    def url(self) -> str:
        return serving.address(self._listener)

    def __enter__(self) -> _Service:
        self._thread.start()
        ends = time.monotonic() + _STARTING_SECONDS
        while not self._server.started:
            if time.monotonic() > ends or not self._thread.is_alive():
                raise AnchorError(f"the loopback {self._name} does not start", where=self.url)
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()
