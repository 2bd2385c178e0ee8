"""Whom a recording asks about time, out of one file of pins that has their addresses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gradseal.errors import AnchorError
from gradseal.precede.beacons import CADENCE_SECONDS, LEAD_SECONDS, Beacon, margin_seconds
from gradseal.precede.timestamps import TimeStamper
from gradseal.precede.trust import Trust
from gradseal.precede.witnesses import WitnessAddress

_SLACK_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Whom a recording asks; nobody by default.

    Args:
        beacon: Where seeds come from.
        witnesses: Who cosigns.
        timestamps: Who time-stamps.
        notes: What whoever records should know beforehand.
    """

    beacon: Beacon | None = None
    witnesses: tuple[WitnessAddress, ...] = ()
    timestamps: tuple[TimeStamper, ...] = ()
    notes: tuple[str, ...] = ()

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
            notes=tuple(_notes(trust, beacon)) if slots else (),
        )
        if not (asked.beacon or asked.witnesses or asked.timestamps):
            raise AnchorError(
                "names nobody who could be asked",
                where="anchors",
                advice="give a beacon its urls, a witness its URL in the policy, an authority its url",
            )
        return asked


def _notes(trust: Trust, beacon: Beacon | None) -> Iterator[str]:
    """What would keep a verifier with just these pins from finding precedence shown."""
    if beacon is None:
        yield "no beacon has relays to ask, so the seed is declared: nothing will say when the run began"
        return
    # A time-stamp's bound is two seconds later than its time, and asking takes a moment.
    slack = trust.skew_seconds + _SLACK_SECONDS
    if beacon.lead_seconds < slack:
        yield (
            f"with a skew of {trust.skew_seconds:g} s a lead of {beacon.lead_seconds:g} s leaves the "
            f"manifest's anchor too little time; precedence will hardly be shown with less than {slack:g} s"
        )
    if margin_seconds(beacon.cadence_seconds) < slack:
        yield (
            f"with a skew of {trust.skew_seconds:g} s slots of {beacon.cadence_seconds} s leave anchors too "
            f"little time; precedence will hardly be shown with a cadence below {4 * slack:g} s"
        )
