"""Runs with a beacon's seeds and anchors, presented as others are, by services in this process.

Chain, witness and authority sign as those over HTTP do, by a clock that only goes forward: whoever asks them
gets no round of tomorrow and no anchor of yesterday. The clock begins on a fixed day, and the chain's key is
the attacker's randomness, so that a seed gives the same run again. Attacks on time against the services
themselves are in `attacks.precedence`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import torch
from torch import nn

from gradseal.attacks.attack import Hand
from gradseal.attacks.scene import Clock
from gradseal.attacks.smuggling import Loss
from gradseal.precede.answers import encode_query
from gradseal.precede.local_authority import LocalAuthority
from gradseal.precede.local_chain import LocalChain
from gradseal.precede.slots import SlotPlan, seeds_of
from gradseal.precede.timestamps import PinnedAuthority
from gradseal.precede.trust import Trust
from gradseal.proof.anchors import AnchorStore, receipt_of
from gradseal.proof.cosignature import CosigningKey
from gradseal.proof.entries import Initial, Slot
from gradseal.proof.merkle import Tree
from gradseal.proof.note import Note
from gradseal.proof.quorum import QuorumPolicy, Witness
from gradseal.record.plan import Request
from gradseal.record.presented import Presented

CADENCE_SECONDS = 30
DAY_SECONDS = 24 * 3600
BEGINS = datetime(2025, 1, 6, tzinfo=UTC)
"""When the clock begins; chain and authority do so two days earlier."""

_AFTER_SECONDS = 2.0
"""How long after the beginning of a slot its segment is sealed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """A beacon, a witness and an authority, honest, by one clock.

    Args:
        chain: The beacon.
        authority: Stamps.
        witness: Cosigns.
        clock: The time.
    """

    chain: LocalChain
    authority: LocalAuthority
    witness: CosigningKey
    clock: Clock

    @classmethod
    def of(cls, hand: Hand) -> Services:
        """Services whose clock just begins; what a verifier pins of them is told to the hand."""
        earlier = BEGINS - timedelta(days=2)
        own = cls(
            chain=LocalChain(
                secret=bytes(1) + hand.random_bytes()[1:],
                beacon_id="beacon.example",
                period_seconds=CADENCE_SECONDS,
                genesis_unix_seconds=int(earlier.timestamp()),
            ),
            authority=LocalAuthority.generate(name="authority.example", now=earlier),
            witness=CosigningKey.generate("witness.example"),
            clock=Clock(BEGINS.timestamp()),
        )
        hand.pins = own.trust()
        return own

    def plan(self, *, ago_seconds: float = 0.0) -> SlotPlan:
        """The slots of a run that begins now, or that is to have begun some time ago."""
        begins = self.clock() + CADENCE_SECONDS - ago_seconds
        return SlotPlan.beginning_after([self.chain.chain], CADENCE_SECONDS, begins)

    def slot(self, plan: SlotPlan, index: int) -> Slot:
        """A slot with its rounds.

        Raises:
            AnchorError: They are not due yet.
        """
        now = self.clock()
        numbers = [number for _, number in plan.rounds(index)]
        rounds = [self.chain.sign(number, now_unix_seconds=now) for number in numbers]
        return Slot(index=index, signatures=tuple(one.signature for one in rounds))

    def anchor(self, store: AnchorStore, note: Note, tree: Tree) -> None:
        """Has a checkpoint cosigned and time-stamped now."""
        signature = self.witness.cosign(note.text, int(self.clock()))
        cosigned = replace(note, signatures=(*note.signatures, signature))
        query = encode_query(sha256(note.text.encode()).digest(), nonce=1)
        token = self.authority.answer(query, datetime.fromtimestamp(self.clock(), UTC))
        store.add(receipt_of(cosigned, tree), [token])

    def trust(self) -> Trust:
        """What a verifier pins."""
        witness = Witness(name="witness", key=self.witness.verification_key, url="")
        return Trust(
            policy=QuorumPolicy(logs=(), witnesses=(witness,), groups=(), quorum=witness.name),
            authorities=(PinnedAuthority(name="authority", roots=(self.authority.root,)),),
            chains=(self.chain.chain,),
            skew_seconds=0.5,
            combine="all",
        )


@dataclass(kw_only=True)
class Dated(Presented):
    """A presented run that draws a slot for each segment, and anchors every checkpoint when it is published.

    Args:
        services: Whom it asks.
        plan: Its slots; the request's seed is theirs.
    """

    services: Services
    plan: SlotPlan
    slots: list[tuple[int, Slot]] = field(default_factory=list, init=False)
    tree: Tree = field(default_factory=Tree, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._store = AnchorStore(self.files)
        self.writer.tell(self._published)

    def begin(self, state: Mapping[str, torch.Tensor] | None = None) -> None:
        """Anchors the manifest before slot 0, and seals state zero in it."""
        self._reach_slot_zero()
        super().begin(state)

    def begin_with(self, seal: bytes) -> None:
        """The same with a seal of any origin."""
        self._reach_slot_zero()
        self.writer.append(Initial(seal=seal))
        self.writer.publish()

    def train(self) -> list[float]:
        """As for others, in the slot of the segment."""
        self.enter()
        return super().train()

    def present(self, state: Mapping[str, torch.Tensor], losses: Sequence[float] | None = None) -> None:
        """As for others, in the slot of the segment."""
        self.enter()
        super().present(state, losses)

    def enter(self) -> None:
        """Waits for the next segment's slot, if it is not drawn yet, and draws it."""
        if len(self.slots) > self.segments:
            return
        self.services.clock.until(self.plan.begins(self.segments) + _AFTER_SECONDS)
        self.slots.append((self.segments, self.services.slot(self.plan, self.segments)))
        self.writer.append(self.slots[-1][1])
        seeds = seeds_of(self.manifest, self.slots)
        if seeds is None:
            raise ValueError("a slot gives no seed")
        self._prepared = self._fixed.seeded(seeds)

    def _reach_slot_zero(self) -> None:
        self.writer.publish()
        self.enter()
        self._zero = {name: t.detach().clone() for name, t in self._prepared.live.tensors().items()}

    def _append(self, losses: Sequence[float]) -> None:
        super()._append(losses)
        self.writer.publish()

    def _published(self, note: Note, leaves: Sequence[bytes]) -> None:
        self.tree.extend(leaves)
        self.services.anchor(self._store, note, self.tree)


def present_dated(
    hand: Hand,
    services: Services,
    plan: SlotPlan,
    *,
    steps: int | None = None,
    optimizer: Any = None,
    loss: Loss | None = None,
    data: Any = None,
) -> Dated:
    """A bundle to write, in the setting's size, whose seeds are a beacon's; see `Hand.present`."""
    model: nn.Module = hand.model()
    request = Request(
        model=model,
        optimizer=(optimizer or hand.recipe.optimizer)(model),
        loss=loss or hand.recipe.loss,
        data=hand.data if data is None else data,
        batch_size=hand.setting.batch_size,
        steps=steps or hand.setting.steps,
        every=hand.setting.every,
        seed=plan.to_seed(),
        shuffle=True,
        drop_last=True,
        exact=hand.exact,
    )
    return Dated(
        target=hand.target,
        signer=hand.signer,
        request=request,
        told=hand.meter.batch,
        services=services,
        plan=plan,
    )
