"""Rounds of a chain, fetched over HTTP from relays that need not be trusted.

Every answer is verified against the pinned chain before it is returned, so a relay can withhold a round or be
late, and nothing else. A request ends within its time whatever the other side does: it runs in a thread of
its own, since no time limit of a socket bounds the look-up of a name or an answer that comes byte by byte.
Sizes are bounded, redirects are not followed, and nothing is taken from the environment, proxies included.

The interface is version 1 of drand's. Format: docs/spec/beacon.md, section 4.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import httpx

from gradseal.errors import AnchorError, Error
from gradseal.precede import bls
from gradseal.precede.chain import MAX_ANSWER_BYTES, Chain, answer_fields, hex_field
from gradseal.precede.rounds import BeaconRound
from gradseal.precede.tls import tls
from gradseal.proof.manifest import MAX_ROUND

QUICKNET_URLS = (
    "https://api.drand.sh",
    "https://api2.drand.sh",
    "https://api3.drand.sh",
    "https://drand.cloudflare.com",
)
"""Public relays of drand's quicknet."""

_LOOK_SECONDS = 0.05
_LONGEST_SLEEP_SECONDS = 30.0
_FIRST_RETRY_SECONDS = 0.2
_MAX_FAULT_LENGTH = 200


class Relays:
    """Where the rounds of one chain are fetched.

    Args:
        chain: The pinned chain.
        urls: Relays, each `http://` or `https://` with or without a path; asked in this order, beginning with
            the one that answered last.
        timeout_seconds: How long one relay may take to answer.
        clock: The time now, in seconds of Unix time; says only when to ask.

    Raises:
        AnchorError: There is no relay, or one is not such a URL.
    """

    def __init__(
        self,
        chain: Chain,
        urls: Sequence[str],
        *,
        timeout_seconds: float = 5.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.chain = chain
        self._urls = [_checked(url) for url in urls]
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        if not self._urls:
            raise AnchorError(
                "no relay to fetch rounds from", advice="name one, such as https://api.drand.sh"
            )

    def fetch(self, number: int, *, cancelled: threading.Event | None = None) -> BeaconRound:
        """A round, verified.

        Raises:
            AnchorError: No relay gave it, or `cancelled` was set.
        """
        self._check(number)
        return self._first_answer(number, cancelled)

    def latest(self) -> BeaconRound:
        """The last round that a relay tells of, verified; the relay may well know a later one.

        Raises:
            AnchorError: No relay gave one.
        """
        return self._first_answer(None, None)

    def wait_for(
        self,
        number: int,
        *,
        cancelled: threading.Event | None = None,
        patience_seconds: float | None = None,
    ) -> BeaconRound | None:
        """A round, verified, as soon as it is due and a relay has it; asks again and again, ever more seldom.

        Args:
            number: The round.
            cancelled: Set from another thread to end the waiting.
            patience_seconds: How long to go on asking after the first time; without end if not given.

        Returns:
            The round; None if the waiting was cancelled.

        Raises:
            AnchorError: No relay gave it within the time.
        """
        self._check(number)
        cancelled = cancelled or threading.Event()
        if not self._due(number, cancelled):
            return None
        began, pause = time.monotonic(), _FIRST_RETRY_SECONDS
        while True:
            try:
                return self.fetch(number, cancelled=cancelled)
            except AnchorError:
                left = (
                    float("inf") if patience_seconds is None else began + patience_seconds - time.monotonic()
                )
                if left <= 0 and not cancelled.is_set():
                    raise
                if cancelled.wait(min(pause, left)):
                    return None
            pause = min(
                2 * pause, max(_FIRST_RETRY_SECONDS, self.chain.period_seconds), _LONGEST_SLEEP_SECONDS
            )

    @property
    def _name(self) -> str:
        return f"chain {self.chain.hash.hex()[:8]}"

    def _check(self, number: int) -> None:
        if not 1 <= number <= MAX_ROUND:
            raise AnchorError(f"no chain has a round {number}", where=self._name)

    def _due(self, number: int, cancelled: threading.Event) -> bool:
        """Sleeps until the round is due; false if cancelled before."""
        # In pieces, because the clock may be set meanwhile.
        while (left := self.chain.round_due(number) - self._clock()) > 0:
            if cancelled.wait(min(left, _LONGEST_SLEEP_SECONDS)):
                return False
        return not cancelled.is_set()

    def _first_answer(self, number: int | None, cancelled: threading.Event | None) -> BeaconRound:
        asked = "latest" if number is None else str(number)
        faults = []
        for base in self._urls:
            url = f"{base}/{self.chain.hash.hex()}/public/{asked}"
            try:
                verified = self._verified(_get(url, self._timeout_seconds, cancelled), url, number)
            except Error as e:
                faults.append(str(e))
                if cancelled is not None and cancelled.is_set():
                    break
            else:
                # The next request begins here, and does not wait again for one that is away.
                self._urls = sorted(self._urls, key=lambda other: other != base)
                return verified
        raise AnchorError(
            f"no relay gave round {asked}",
            where="; ".join([self._name, *faults]),
            advice="See that a relay can be reached; a round that is due stays to be had.",
        )

    def _verified(self, data: bytes, url: str, number: int | None) -> BeaconRound:
        fields = answer_fields(data, where=url)
        answer = BeaconRound(
            chain=self.chain,
            number=fields.integer("round", 1, MAX_ROUND),
            signature=hex_field(fields, "signature", bls.SIGNATURE_BYTES),
        )
        if number not in (None, answer.number):
            raise AnchorError(f"gave round {answer.number}, which was not asked for", where=url)
        if fields.digest("randomness") != answer.randomness:
            raise AnchorError("gave randomness that is not the hash of its signature", where=url)
        if not answer.verify():
            raise AnchorError("gave a signature that the chain's key did not make", where=url)
        return answer


def _checked(text: str) -> str:
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, TypeError) as e:
        raise AnchorError("a relay whose address is not a URL", where=str(text)) from e
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment or url.userinfo:
        raise AnchorError(
            "a relay whose address is not http:// or https:// with a host and perhaps a path",
            where=str(url.copy_with(userinfo=b"")),
        )
    return text.rstrip("/")


def _get(url: str, timeout_seconds: float, cancelled: threading.Event | None) -> bytes:
    """The body of an answer, once it is whole, within the time."""
    request = _Request(url, timeout_seconds)
    request.start()
    ends = time.monotonic() + timeout_seconds
    while request.is_alive() and time.monotonic() < ends:
        if cancelled is not None and cancelled.is_set():
            raise AnchorError("the request was cancelled", where=url)
        request.join(_LOOK_SECONDS)
    if request.body is None:
        raise AnchorError(request.fault or f"no answer in {timeout_seconds:g} seconds", where=url)
    return request.body


class _Request(threading.Thread):
    """One GET. It ends by itself within the time, but for the look-up of a name, and is not waited for."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        super().__init__(name=f"GET {url}", daemon=True)
        self._url = url
        self._timeout_seconds = timeout_seconds
        self.body: bytes | None = None
        self.fault = ""

    def run(self) -> None:
        try:
            self.body = asyncio.run(self._read())
        except AnchorError as e:
            self.fault = e.message
        except TimeoutError:
            self.fault = f"no answer in {self._timeout_seconds:g} seconds"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as e:
            # A name that cannot be one ends in a ValueError.
            self.fault = f"{type(e).__name__}: {e}"[:_MAX_FAULT_LENGTH]

    async def _read(self) -> bytes:
        body = b""
        async with (
            asyncio.timeout(self._timeout_seconds),
            httpx.AsyncClient(verify=tls(), trust_env=False, timeout=self._timeout_seconds) as client,
            client.stream("GET", self._url, headers={"Accept-Encoding": "identity"}) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise AnchorError(f"answered with status {answer.status_code}")
            # Raw, so that nothing is unpacked.
            async for piece in answer.aiter_raw():
                body += piece
                if len(body) > MAX_ANSWER_BYTES:
                    raise AnchorError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
        return body
