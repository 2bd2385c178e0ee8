"""Whom a recording asks about time, out of one file of pins that has their addresses."""

from __future__ import annotations

from dataclasses import dataclass

from gradseal.errors import AnchorError
from gradseal.precede.beacons import CADENCE_SECONDS, LEAD_SECONDS, Beacon
from gradseal.precede.timestamps import TimeStamper
from gradseal.precede.trust import Trust
from gradseal.precede.witnesses import WitnessAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Whom a recording asks; nobody by default.

    Args:
        beacon: Where seeds come from.
        witnesses: Who cosigns.
        timestamps: Who time-stamps.
    """

    beacon: Beacon | None = None
    witnesses: tuple[WitnessAddress, ...] = ()
    timestamps: tuple[TimeStamper, ...] = ()

    @classmethod
    def of(
        cls,
        trust: Trust,
        *,
        slots: bool = True,
        cadence_seconds: int | None = None,
        lead_seconds: float | None = None,
    ) -> Asked:
        """All those in a file of pins that have an address.

        Args:
            trust: The pins.
            slots: Whether seeds are to come from the beacon, if there is one.
            cadence_seconds: How long a slot is.
            lead_seconds: How long before slot 0 the manifest is sealed.

        Raises:
            AnchorError: None has an address, or the cadence is no multiple of a chain's period.
        """
        beacon = Beacon.of(
            trust,
            cadence_seconds=CADENCE_SECONDS if cadence_seconds is None else cadence_seconds,
            lead_seconds=LEAD_SECONDS if lead_seconds is None else lead_seconds,
        )
        asked = cls(
            beacon=beacon if slots else None,
            witnesses=trust.witness_addresses(),
            timestamps=trust.timestampers(),
        )
        if asked == cls():
            raise AnchorError(
                "names nobody who could be asked",
                where="anchors",
                advice="give a beacon its urls, a witness its URL in the policy, an authority its url",
            )
        return asked
