"""What an attacker on time has: recorded runs to take from, keys, and services by a clock not his.

Nothing in it is an attack, and nothing judges one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gradseal.precede.chain import Chain
from gradseal.precede.local_authority import LocalAuthority
from gradseal.precede.relays import Relays
from gradseal.precede.slots import SlotPlan
from gradseal.precede.timestamps import TimeStamper
from gradseal.precede.witnesses import WitnessAddress
from gradseal.proof.note import SigningKey

CADENCE_SECONDS = 60
LEAD_SECONDS = 30.0

Rounds = Callable[[Chain, int], bytes]
"""The signature of a chain's round, from wherever the owner has it."""


class Clock:
    """The time that all services of a scene have; it goes forward as far as somebody waits.

    Args:
        begins: Seconds of Unix time.
    """

    def __init__(self, begins: float) -> None:
        self._now = begins

    def __call__(self) -> float:
        """The time now."""
        return self._now

    def until(self, unix_seconds: float) -> None:
        """Waits; for nothing, if that time is over."""
        self._now = max(self._now, unix_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What an attacker has.

    Args:
        target: Where he is to put his bundle; he may write files anywhere in it.
        runs: Recorded runs, whose programs, data and rules he may take, by name; `usual` is one of them.
        owner: His key, if he is the owner; the verifier pins it.
        thief: His key, if he is another; the verifier pins it too, believing him.
        clock: Everybody's.
        relays: Of the chain that the verifier pins.
        witnesses: Those that the verifier pins: two.
        timestamps: The authorities that the verifier pins: two.
        bribed: An authority that the verifier pins in some rows, with its key.
        misissued: A token over a digest at a time, by a key that a pinned root certified for another purpose.
    """

    target: Path
    runs: Mapping[str, Path]
    owner: SigningKey
    thief: SigningKey
    clock: Clock
    relays: Relays
    witnesses: tuple[WitnessAddress, ...]
    timestamps: tuple[TimeStamper, ...]
    bribed: LocalAuthority
    misissued: Callable[[bytes, datetime], bytes]

    @property
    def chain(self) -> Chain:
        """The chain that the verifier pins."""
        return self.relays.chain

    def plan(self, *more: Chain, lead_seconds: float = LEAD_SECONDS) -> SlotPlan:
        """The slots of a run whose manifest is sealed now; of further chains, too."""
        return SlotPlan.beginning_after([self.chain, *more], CADENCE_SECONDS, self.clock() + lead_seconds)

    def round(self, chain: Chain, number: int) -> bytes:
        """A round of the pinned chain, from its relay.

        Raises:
            AnchorError: It is not due yet.
        """
        return self.relays.fetch(number).signature
