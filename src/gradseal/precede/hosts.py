"""Whom a recorder asks for anchors, all at once: witnesses for cosignatures, authorities for time-stamps.

Guarantees that `obtain` ends within its time and raises nothing for a host that is away, slow or hostile:
what went wrong with each is told in words, and the host is asked again next time, with the newest checkpoint.
A host is asked one thing at a time, and never to cosign less than it cosigned before. What is returned was
verified under the pinned keys; whether it is enough is for `bounds` to say.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import httpx

from gradseal.errors import AnchorError, Error
from gradseal.precede.bounds import digest_of
from gradseal.precede.timestamps import TimeStamper
from gradseal.precede.tls import tls
from gradseal.precede.witnesses import Cosignature, Prove, WitnessAddress, cosign, with_cosignatures
from gradseal.proof.anchors import MAX_TOKENS
from gradseal.proof.checkpoint import Checkpoint
from gradseal.proof.note import MAX_SIGNATURES, Note

TIMEOUT_SECONDS = 10.0
"""How long the hosts may take, together."""

_MAX_FAULT_LENGTH = 400

_Given = TypeVar("_Given")


@dataclass(frozen=True, slots=True, kw_only=True)
class Obtained:
    """What the hosts gave for a checkpoint.

    Args:
        note: The checkpoint with their cosignatures.
        tokens: Their time-stamps, in the order of the authorities.
        faults: What went wrong, one line for each host that gave nothing.
        asked: How many hosts were asked.
    """

    note: Note
    tokens: tuple[bytes, ...] = ()
    faults: tuple[str, ...] = ()
    asked: int = 0


class Hosts:
    """Witnesses and authorities, and what is remembered of them.

    Args:
        witnesses: Whom to ask for cosignatures, each key once.
        timestampers: Whom to ask for time-stamps, each name once.
        known_sizes: The size that a witness cosigned last, by its key as text, as far as it is known. One
            that is at a larger size says so and is believed.

    Raises:
        AnchorError: One stands twice, or they are more than a note or a bundle has room for.
    """

    def __init__(
        self,
        witnesses: Sequence[WitnessAddress] = (),
        timestampers: Sequence[TimeStamper] = (),
        *,
        known_sizes: Mapping[str, int] | None = None,
    ) -> None:
        _check_once("witness key", [str(witness.key) for witness in witnesses])
        _check_once("time-stamp authority", [stamper.name for stamper in timestampers])
        if len(witnesses) >= MAX_SIGNATURES or len(timestampers) > MAX_TOKENS:
            raise AnchorError(
                f"more than {MAX_SIGNATURES - 1} witnesses or {MAX_TOKENS} time-stamp authorities to ask",
                where="hosts",
                advice="ask fewer: leave out the addresses of some",
            )
        self._witnesses = tuple(witnesses)
        self._timestampers = tuple(timestampers)
        self._known = dict(known_sizes or {})
        self._running: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()

    @property
    def known_sizes(self) -> dict[str, int]:
        """The size that each witness cosigned last, by its key as text."""
        return dict(self._known)

    def obtain(self, note: Note, prove: Prove, *, timeout_seconds: float = TIMEOUT_SECONDS) -> Obtained:
        """Asks every host for its word on a checkpoint. One call waits for another to end.

        Args:
            note: The signed checkpoint, the log's newest.
            prove: Gives consistency proofs (`Tree.consistency_proof`); called from other threads.
            timeout_seconds: How long it may take in all; whoever is later than that gave nothing.

        Raises:
            MalformedBundle: The note's text is no checkpoint.
        """
        size, digest = Checkpoint.parse(note.text, where="checkpoint").size, digest_of(note)
        with self._lock:
            ends = time.monotonic() + timeout_seconds
            cosigning = [self._cosigning(w, note, size, prove, timeout_seconds) for w in self._witnesses]
            stamping = [self._stamping(stamper, digest) for stamper in self._timestampers]
            cosignatures, away = _collect(cosigning, ends, timeout_seconds)
            tokens, silent = _collect(stamping, ends, timeout_seconds)
        return Obtained(
            note=with_cosignatures(note, cosignatures),
            tokens=tuple(tokens),
            faults=(*away, *silent),
            asked=sum(isinstance(request, _Request) for request in (*cosigning, *stamping)),
        )

    def _cosigning(
        self, witness: WitnessAddress, note: Note, size: int, prove: Prove, timeout_seconds: float
    ) -> _Request[Cosignature] | str:
        key = str(witness.key)
        known = self._known.get(key, 0)
        if known > size:
            return f"witness {witness.key.name}: not asked for size {size}, since it cosigned {known} already"

        def act() -> Cosignature:
            with httpx.Client(trust_env=False, verify=tls()) as client:
                given = cosign(
                    witness,
                    note,
                    known_size=known,
                    prove=prove,
                    timeout_seconds=timeout_seconds,
                    client=client,
                )
            # Here, because it holds even if nobody waits for it any more.
            self._known[key] = size
            return given

        return self._start(f"witness {witness.key.name}", f"witness {key}", act)

    def _stamping(self, stamper: TimeStamper, digest: bytes) -> _Request[bytes] | str:
        called = f"time-stamp authority {stamper.name}"
        return self._start(called, called, functools.partial(stamper.stamp, digest))

    def _start(self, called: str, host: str, act: Callable[[], _Given]) -> _Request[_Given] | str:
        """Asks a host; a fault if it still holds the request before."""
        if host in self._running and self._running[host].is_alive():
            return f"{called}: not asked, since it still holds the request before"
        request = _Request(called, act)
        self._running[host] = request.thread
        return request


class _Request(Generic[_Given]):
    """One question to one host, in a thread that is left behind when time is up.

    Nothing can cancel the look-up of a name, nor bound an answer whose head comes byte by byte.
    """

    def __init__(self, called: str, act: Callable[[], _Given]) -> None:
        self.called = called
        self._act = act
        self._given: _Given | None = None
        self._fault = "ended without an answer"
        self.thread = threading.Thread(target=self._run, name=f"gradseal {called}", daemon=True)
        self.thread.start()

    def result(self, ends: float, timeout_seconds: float) -> tuple[_Given | None, str]:
        """What was given by a time of the monotonic clock, or why nothing was."""
        self.thread.join(max(0.0, ends - time.monotonic()))
        if self.thread.is_alive():
            return None, f"{self.called}: no answer within {timeout_seconds:g} seconds"
        return self._given, f"{self.called}: {self._fault}"

    def _run(self) -> None:
        try:
            self._given = self._act()
        except (Error, OSError, ValueError) as e:
            # A name that cannot be one ends in a ValueError.
            self._fault = _line(e)


def _collect(
    requests: Iterable[_Request[_Given] | str], ends: float, timeout_seconds: float
) -> tuple[list[_Given], list[str]]:
    """What was given, and the faults of the others, both in order."""
    given, faults = [], []
    for request in requests:
        if isinstance(request, str):
            faults.append(request)
            continue
        found, fault = request.result(ends, timeout_seconds)
        if found is None:
            faults.append(fault)
        else:
            given.append(found)
    return given, faults


def _check_once(called: str, names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise AnchorError(f"a {called} that stands twice", where="hosts", advice="name it once")


def _line(error: Exception) -> str:
    """What an error says, on one line and of a length for a person's terminal."""
    said = str(error) or type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in said[:_MAX_FAULT_LENGTH])
