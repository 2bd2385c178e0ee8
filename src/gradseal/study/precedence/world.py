"""What a thief has, on made-up clocks: an owner whose weights are stolen, hosts, keys, and a tiny training.

Hosts are honest, by a clock that only goes forward; to hosts of his own a thief gives any clock.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Any

import torch
from torch import nn
from torch.utils.data import Subset

from gradseal.attacks.attack import Hand, Need, distance, forget
from gradseal.attacks.dated import BEGINS, Services
from gradseal.attacks.paths import sgd
from gradseal.attacks.scene import Clock
from gradseal.precede.local_authority import LocalAuthority
from gradseal.precede.local_chain import LocalChain
from gradseal.precede.slots import SlotPlan
from gradseal.precede.trust import Trust
from gradseal.proof.cosignature import CosigningKey
from gradseal.proof.manifest import DeclaredSeed
from gradseal.proof.note import SigningKey
from gradseal.recipes.digits import recipe
from gradseal.recipes.recipe import Recipe
from gradseal.record.plan import Request
from gradseal.record.presented import State, copy_of
from gradseal.study.precedence.removals import Part
from gradseal.study.precedence.run import AFTER_SECONDS, SETTING, PlannedRun

SAMPLES = 96
"""Twelve batches: no segment ends with an epoch, since no seed chooses what is left for its last batches."""

RATE = 0.1
THEFT_SECONDS = 3600.0
"""From when the owner begins to when his weights are stolen."""


@lru_cache(1)
def small() -> Recipe:
    """A linear classifier of 96 of the digits: 650 parameters, by plain SGD."""
    return replace(
        recipe(),
        build=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
        optimizer=sgd(RATE),
        data=Subset(recipe().data, range(SAMPLES)),
        batch_size=SETTING.batch_size,
        steps=SETTING.steps,
        every=SETTING.every,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The victim: an honest run by the whole plan, closed before the theft.

    Args:
        run: What he recorded.
        weights: The parameters that he released, by their names in a state.
        path: How far they are from where he began.
    """

    run: PlannedRun
    weights: State
    path: float


class World:
    """Keys, clocks, and an owner whose weights are stolen.

    Args:
        seed: All randomness.
    """

    def __init__(self, seed: int) -> None:
        self._root = f"memory://gradseal-precedence-{secrets.token_hex(8)}"
        self._seed = seed
        self._turn, self._hands = "", 0
        self._made: list[str] = []
        self._stolen: Mapping[str, torch.Tensor] = {}
        self.began = BEGINS.timestamp()
        self.theft = self.began + THEFT_SECONDS
        self.services = Services.of(self.hand("services"))
        self.pins = self.services.trust()
        self.owner_key = self.key("owner.example", 0)
        run = self.run(Part.NOTHING, self.at(self.began), signer=self.owner_key)
        run.make()
        weights = {n: t for n, t in copy_of(run.state).items() if n.startswith("parameters/")}
        self._stolen = {n.split("/", 1)[1]: t for n, t in weights.items()}
        self._kept = len(self._made)
        self.owner = Owner(run=run, weights=weights, path=distance(weights, run.state_zero()))

    def key(self, name: str, number: int) -> SigningKey:
        """A key of this name; of one number all have the same secret."""
        return SigningKey(name=name, seed=bytes([1 + number, self._seed % 256]) * 16)

    def thief_key(self, removed: Part) -> SigningKey:
        """The thief's; the owner's secret under another name if seals are to have no owner's key in them."""
        return self.key("thief.example", 0 if removed is Part.SEAL_KEY else 1)

    def at(self, unix_seconds: float) -> Services:
        """The honest services, whose clock shows some time."""
        return replace(self.services, clock=Clock(unix_seconds))

    def own_hosts(self, unix_seconds: float) -> Services:
        """The pinned chain, and a witness and an authority of the thief's own, by whatever clock he likes."""
        made = BEGINS - timedelta(days=9)
        return replace(
            self.at(unix_seconds),
            authority=LocalAuthority.generate(name="authority.example", now=made),
            witness=CosigningKey.generate("witness.example"),
        )

    def own_chain(self, secret: bytes, unix_seconds: float) -> Services:
        """The honest hosts and their clock, and a chain of the thief's own."""
        theirs = self.services.chain
        chain = LocalChain(
            secret=bytes(1) + secret[1:],
            beacon_id=theirs.beacon_id,
            period_seconds=theirs.period_seconds,
            genesis_unix_seconds=theirs.genesis_unix_seconds,
        )
        return replace(self.at(unix_seconds), chain=chain)

    def hand(self, name: str, key: SigningKey | None = None) -> Hand:
        """What a thief has in hand, to put a bundle at an address of its own."""
        self._hands += 1
        self._made.append(f"{self._root}/{len(self._made)}")
        said = f"{self._seed} {self._turn} {self._hands} {name}"
        return Hand(
            recipe=small(),
            setting=SETTING,
            stolen=self._stolen,
            bundle="",
            reference=1.0,
            granted=frozenset(Need),
            target=self._made[-1],
            signer=key or self.key("nobody.example", 9),
            seed=int.from_bytes(sha256(said.encode()).digest()[:7], "big"),
            picky=False,
        )

    def run(
        self,
        removed: Part,
        services: Services,
        *,
        signer: SigningKey | None = None,
        plan: SlotPlan | None = None,
        declared: bool = False,
        more: frozenset[str] = frozenset(),
        after_seconds: float = AFTER_SECONDS,
        claims: Callable[[Hand], Mapping[str, Any]] = lambda hand: {},
    ) -> PlannedRun:
        """A run to make; by a plan that begins now, unless another is given.

        Args:
            removed: What the plan lacks.
            services: Whom it asks.
            signer: Whose it is; the thief's if not given.
            plan: Its slots.
            declared: Whether its seed is declared, whatever the plan has.
            more: What else is not anchored.
            after_seconds: How long after the beginning of a slot its segment is sealed.
            claims: What of it is not as the recipe has it.
        """
        hand = self.hand("run", signer or self.thief_key(removed))
        own = dict(claims(hand))
        model: nn.Module = own.pop("model", None) or hand.model()
        optimizer = own.pop("optimizer", hand.recipe.optimizer)
        seed: Any = DeclaredSeed(value=hand.random_bytes())
        if removed is not Part.BEACON and not declared:
            seed = (plan or services.plan()).to_seed()
        request = Request(
            model=model,
            optimizer=optimizer(model),
            loss=own.pop("loss", hand.recipe.loss),
            data=own.pop("data", hand.data),
            batch_size=SETTING.batch_size,
            steps=SETTING.steps,
            every=SETTING.every,
            seed=seed,
            shuffle=True,
            drop_last=True,
        )
        return PlannedRun(
            target=hand.target,
            signer=hand.signer,
            request=request,
            services=services,
            removed=removed,
            more=more,
            after_seconds=after_seconds,
        )

    def turn(self, name: str) -> None:
        """Begins an attempt: whatever is random in it follows from its name, not from those before it.

        Frees what was made for those, but the owner's run.
        """
        self._turn, self._hands = name, 0
        while len(self._made) > self._kept:
            forget(self._made.pop())

    def away(self, state: Mapping[str, torch.Tensor]) -> float:
        """How far parameters are from the stolen ones, as a share of the owner's path."""
        return self.between(self.owner.weights, state)

    def between(self, one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
        """How far the parameters of two states are from each other, as a share of the owner's path."""
        parameters = {name: tensor for name, tensor in one.items() if name.startswith("parameters/")}
        return distance(parameters, other) / self.owner.path

    def trusted(self, run: PlannedRun) -> tuple[Trust, Trust]:
        """What a verifier pins, who takes the author for an owner; and what the bundle brings."""
        keys = (self.owner_key.verification_key, run.signer.verification_key)
        pins = replace(self.pins, keys=tuple(dict.fromkeys(keys)))
        return pins, run.services.trust()

    def close(self) -> None:
        """Frees all bundles."""
        while self._made:
            forget(self._made.pop())


@contextmanager
def world(seed: int) -> Iterator[World]:
    """A world that is freed again."""
    own = World(seed)
    try:
        yield own
    finally:
        own.close()
