"""Where a run's seeds are to come from, as its owner says: chains, their relays, and how long a slot is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradseal.errors import AnchorError, MalformedBundle
from gradseal.precede.chain import QUICKNET, Chain
from gradseal.precede.relays import QUICKNET_URLS, Relays
from gradseal.precede.slots import SlotPlan
from gradseal.precede.trust import Trust

CADENCE_SECONDS = 60
LEAD_SECONDS = 20.0
PATIENCE_SECONDS = 60.0
_MOST_SECONDS = 86_400

_MARGIN_SECONDS, _MARGIN_OF_SLOT = 4.0, 0.25


def margin_seconds(cadence_seconds: int) -> float:
    """How long before a slot's end anchors are asked for: that takes time, and clocks are not exact."""
    return min(max(_MARGIN_SECONDS, _MARGIN_OF_SLOT * cadence_seconds), cadence_seconds / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beacon:
    """A run's source of randomness.

    Args:
        relays: Where each chain's rounds are fetched; of several chains, each slot combines one round of
            each, and stays unpredictable as long as one of them is.
        cadence_seconds: How long a slot is; a multiple of every chain's period. A segment should take no more
            than half of it, or its seal comes too late.
        lead_seconds: How long before slot 0 the manifest is sealed: the time that it takes to anchor it, and
            what a verifier allows clocks to be off.
        patience_seconds: How long slot 0's rounds are asked for, once they are due, before the recording
            gives up. Of later slots a round that does not come is a gap.

    Raises:
        AnchorError: No chain, one twice, a cadence that is no multiple of a period, or a time out of bounds.
    """

    relays: tuple[Relays, ...]
    cadence_seconds: int = CADENCE_SECONDS
    lead_seconds: float = LEAD_SECONDS
    patience_seconds: float = PATIENCE_SECONDS

    def __post_init__(self) -> None:
        for name in ("lead_seconds", "patience_seconds"):
            if not 0 <= getattr(self, name) <= _MOST_SECONDS:
                raise AnchorError(
                    f"{getattr(self, name)} seconds, not 0 to {_MOST_SECONDS}", where=f"beacon: {name}"
                )
        try:
            self.plan(0.0)
        except MalformedBundle as e:
            raise AnchorError(e.message, where="beacon") from e

    @classmethod
    def of(
        cls, trust: Trust, *, cadence_seconds: int = CADENCE_SECONDS, lead_seconds: float = LEAD_SECONDS
    ) -> Beacon | None:
        """All chains of a file of pins that have relays, together; None if it has none."""
        relays = tuple(trust.relays().values())
        if not relays:
            return None
        return cls(relays=relays, cadence_seconds=cadence_seconds, lead_seconds=lead_seconds)

    def plan(self, unix_seconds: float) -> SlotPlan:
        """The plan of a run whose manifest is sealed now."""
        chains: Sequence[Chain] = [relays.chain for relays in self.relays]
        return SlotPlan.beginning_after(chains, self.cadence_seconds, unix_seconds + self.lead_seconds)


def quicknet(*, cadence_seconds: int = CADENCE_SECONDS, lead_seconds: float = LEAD_SECONDS) -> Beacon:
    """The League of Entropy's drand chain `quicknet`, by its public relays."""
    relays = Relays(QUICKNET, QUICKNET_URLS)
    return Beacon(relays=(relays,), cadence_seconds=cadence_seconds, lead_seconds=lead_seconds)
