"""Slots: which rounds of which chains give which seed, and when.

Slot i has of each chain the round `first_round` + i · cadence / period, so a manifest fixes every round
beforehand, and a slot begins when the last of its rounds is due. A segment draws from the slot that began
last before it did, and has to be anchored before the one after the next begins.
Format: docs/spec/beacon.md, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from gradseal.errors import CorruptBlob, MalformedBundle
from gradseal.precede.chain import Chain
from gradseal.precede.rounds import BeaconRound, combine
from gradseal.program.randomness import run_seed, slot_seed
from gradseal.program.seeds import Seeds, Stretch
from gradseal.proof.entries import Slot
from gradseal.proof.fields import Fields
from gradseal.proof.manifest import MAX_CHAINS, BeaconSeed, DeclaredSeed, Manifest, Plan, SlotChain

_TOGETHER = 512
"""Slots whose signatures are verified at once, so that a wrong one is found without looking at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotPlan:
    """When slots begin, and what they draw from.

    Args:
        chains: Each chain with its round of slot 0; the order counts.
        cadence_seconds: From the beginning of one slot to that of the next; a multiple of every period.

    Raises:
        MalformedBundle: No chain, too many, one twice, a period that does not divide the cadence, or rounds
            of slot 0 that are due far from each other.
    """

    chains: tuple[tuple[Chain, int], ...]
    cadence_seconds: int

    def __post_init__(self) -> None:
        if not 1 <= len(self.chains) <= MAX_CHAINS:
            _refuse(f"{len(self.chains)} chains, not 1 to {MAX_CHAINS}")
        if len({chain.hash for chain, _ in self.chains}) < len(self.chains):
            _refuse("one chain twice")
        for chain, _ in self.chains:
            if self.cadence_seconds % chain.period_seconds:
                _refuse(
                    f"a cadence of {self.cadence_seconds} seconds, no multiple of the {chain.period_seconds} "
                    f"from round to round of {chain.beacon_id}"
                )
        due = [chain.round_due(first) for chain, first in self.chains]
        if max(due) - min(due) > max(chain.period_seconds for chain, _ in self.chains):
            _refuse("rounds of slot 0 that are due further apart than the longest period")

    @classmethod
    def beginning_after(cls, chains: Sequence[Chain], cadence_seconds: int, unix_seconds: float) -> SlotPlan:
        """The plan whose slot 0 begins as soon as possible after a time, once all chains have begun."""
        begun = max([unix_seconds, *(chain.genesis_unix_seconds for chain in chains)])
        return cls(
            chains=tuple((chain, chain.round_at(begun) + 1) for chain in chains),
            cadence_seconds=cadence_seconds,
        )

    @classmethod
    def of(cls, seed: BeaconSeed) -> SlotPlan:
        """The plan of a manifest.

        Raises:
            MalformedBundle: The parameters of a chain are none, or do not fit.
            UnknownKind: A chain of a scheme that this version does not know.
        """
        chains = tuple(
            (
                Chain.from_fields(Fields(dict(one.chain), "entry 0", f"plan.seed.chains[{i}].chain")),
                one.first_round,
            )
            for i, one in enumerate(seed.chains)
        )
        return cls(chains=chains, cadence_seconds=seed.cadence_seconds)

    def to_seed(self) -> BeaconSeed:
        """What a manifest says of it."""
        return BeaconSeed(
            cadence_seconds=self.cadence_seconds,
            chains=tuple(SlotChain(chain=chain.to_json(), first_round=first) for chain, first in self.chains),
        )

    def rounds(self, slot: int) -> list[tuple[Chain, int]]:
        """The round of each chain whose signatures make a slot's seed."""
        return [
            (chain, first + slot * self.cadence_seconds // chain.period_seconds)
            for chain, first in self.chains
        ]

    def begins(self, slot: int) -> int:
        """When a slot begins, the last of its rounds being due, in seconds of Unix time."""
        return max(chain.round_due(number) for chain, number in self.rounds(slot))

    def slot_at(self, unix_seconds: float) -> int:
        """The slot that began last by a time; -1 before the first."""
        return max(-1, (math.floor(unix_seconds) - self.begins(0)) // self.cadence_seconds)

    def check(self, slot: Slot, where: str) -> None:
        """Refuses an entry with more or fewer signatures than the manifest has chains.

        Raises:
            MalformedBundle: It has; `where` says which entry.
        """
        if len(slot.signatures) != len(self.chains):
            raise MalformedBundle(
                f"{len(slot.signatures)} signatures, and the manifest has {len(self.chains)} chains",
                where=f"{where}: signatures",
            )

    def value(self, slot: Slot) -> bytes:
        """The beacon value of a slot, 32 bytes; verifies no signature."""
        self.check(slot, f"slot {slot.index}")
        return combine(
            [
                BeaconRound(chain=chain, number=number, signature=signature)
                for (chain, number), signature in zip(self.rounds(slot.index), slot.signatures, strict=True)
            ]
        )

    def wrong(self, slots: Iterable[Slot]) -> list[tuple[int, Chain, int]]:
        """The signatures that are not their chain's of the planned round: slot, chain, round.

        All of a chain are verified at once, and one by one only if that fails.
        """
        signed: Mapping[int, dict[int, tuple[int, bytes]]] = {i: {} for i in range(len(self.chains))}
        for slot in slots:
            for i, (_, number) in enumerate(self.rounds(slot.index)):
                signed[i][number] = (slot.index, slot.signatures[i])
        found = []
        for i, (chain, _) in enumerate(self.chains):
            wrong = chain.wrong_rounds({number: signature for number, (_, signature) in signed[i].items()})
            found += [(signed[i][number][0], chain, number) for number in wrong]
        return sorted(found, key=lambda one: (one[0], one[2]))


def slot_plan_of(manifest: Manifest) -> SlotPlan | None:
    """When a run's slots begin; None if its seed is declared; raises as `SlotPlan.of` does."""
    seed = manifest.plan.seed
    return SlotPlan.of(seed) if isinstance(seed, BeaconSeed) else None


def seeds_of(manifest: Manifest, slots: Sequence[tuple[int, Slot]]) -> Seeds | None:
    """The seeds of a run, as far as its log tells.

    Args:
        manifest: Entry 0.
        slots: Each slot with the first segment that draws from it, in order; empty if the seed is declared.

    Returns:
        The seeds; None if they are a beacon's and no slot has begun.
    """
    seed, digest = manifest.plan.seed, manifest.digest()
    if isinstance(seed, DeclaredSeed):
        return one_seed(manifest.plan, run_seed(seed.value, digest))
    plan = SlotPlan.of(seed)
    stretches = [
        Stretch(first_segment=first, seed=slot_seed(plan.value(slot), slot.index, digest))
        for first, slot in slots
    ]
    if not stretches:
        return None
    return Seeds(every=manifest.plan.every, accumulate=manifest.plan.accumulate, stretches=stretches)


def one_seed(plan: Plan, seed: bytes = bytes(32)) -> Seeds:
    """One seed for the whole run; without one, for what depends on none."""
    stretch = Stretch(first_segment=0, seed=seed)
    return Seeds(every=plan.every, accumulate=plan.accumulate, stretches=[stretch])


def _refuse(message: str) -> NoReturn:
    raise MalformedBundle(message, where="entry 0: plan.seed")


def check_signatures(plan: SlotPlan, slots: Sequence[Slot]) -> None:
    """Refuses a slot whose signature is not the chain's of the planned round.

    Raises:
        CorruptBlob: There is one; names slot, chain and round.
    """
    for first in range(0, len(slots), _TOGETHER):
        for index, chain, number in plan.wrong(slots[first : first + _TOGETHER]):
            raise CorruptBlob(
                f"not the signature of round {number} of chain {chain.beacon_id} ({chain.hash.hex()[:8]}), "
                "which the plan has for it",
                where=f"slot {index}",
            )
