"""The judge of attacks: makes a victim, hands an attacker what the threat model grants, asks every verifier.

For one attack, arithmetic and seed:
1. a victim trains and publishes a bundle, and a twin of his, independent, gives the distance d_ref;
2. the attack writes a bundle, timed, its gradients counted;
3. each policy verifies that bundle, with the attacker's key pinned as if he were the owner; segments that no
   policy replayed are replayed then;
4. the released weights are compared with the stolen ones.

Bundles are in memory, and replays in this process: all of it is written by code of this package. Policies
look at one bundle one after another, so a replay that one of them made is kept for the others.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import time
from dataclasses import dataclass, replace

import torch
from safetensors.torch import load
from torch.utils.data import default_collate
from torch.utils.flop_counter import FlopCounterMode

from gradseal.attacks.attack import Attack, Hand, Meter, Need, Setting, distance, forget
from gradseal.precede.trust import Trust
from gradseal.proof.files import WEIGHTS
from gradseal.proof.note import SigningKey
from gradseal.recipes.recipe import Recipe
from gradseal.record.presented import State
from gradseal.store.files import FsspecFiles
from gradseal.study.matrix.cases import Case, Cost, Replays, judged
from gradseal.study.matrix.columns import POLICIES, named
from gradseal.study.matrix.remembering import Remembering
from gradseal.verify.classical import Classical
from gradseal.verify.policy import Policy
from gradseal.verify.sampling import steps_per_epoch
from gradseal.verify.verdict import Verdict
from gradseal.verify.verifier import verify

MAX_WEIGHTS_BYTES = 1 << 32
EVERY_SEGMENT = replace(Policy.named("jia2021"), name="every segment", classical=Classical(top=0))
"""Only so that all segments are replayed: its limits decide nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """An honest run, published.

    Args:
        bundle: Where.
        weights: What it released.
        reference: The distance from there to an independently trained twin's weights.
        cost: What the run took.
    """

    bundle: str
    weights: State
    reference: float
    cost: Cost


class Suite:
    """Judges attacks on one recipe.

    Args:
        recipe: What is trained.
        setting: In what size.
        policies: The names of those that judge.
    """

    def __init__(
        self, recipe: Recipe, setting: Setting | None = None, policies: tuple[str, ...] = POLICIES
    ) -> None:
        self.recipe = recipe
        self.setting = setting or Setting()
        self.policies = policies
        self._root = f"memory://gradseal-study-{secrets.token_hex(8)}"
        self._victims: dict[tuple[int, bool], Victim] = {}
        self._flops = gradient_flops(recipe)

    def judge(self, attack: Attack, *, seed: int, exact: bool, target: str | None = None) -> Case:
        """Carries an attack out and judges it.

        Args:
            attack: The attack.
            seed: Of the victim and of the attacker.
            exact: Whether the victim trained, and the bundle claims to be, in exact arithmetic.
            target: Where the bundle is left; without one, in memory until it is judged.
        """
        victim = self.victim(seed, exact)
        url = target or self._memory(attack.name, seed, exact)
        if target is None:
            forget(url)
        hand = self._hand(attack, victim, seed=seed, exact=exact, target=url)
        began = time.perf_counter()
        try:
            attack.forge(hand)
            seconds = time.perf_counter() - began
            return self._judged(attack, hand, victim, seconds=seconds, seed=seed, exact=exact)
        finally:
            hand.close()
            if target is None:
                forget(url)

    def victim(self, seed: int, exact: bool) -> Victim:
        """The victim of a seed, trained once; the one before is forgotten."""
        if (seed, exact) not in self._victims:
            self.close()
            self._victims[seed, exact] = self._victim(seed, exact)
        return self._victims[seed, exact]

    def under(self, *, delta: float, tau: float) -> Suite:
        """A judge of the same victims under other tolerances, which attacks that are granted them know."""
        other = Suite(self.recipe, replace(self.setting, delta=delta, tau=tau), self.policies)
        other._root, other._victims = self._root, self._victims
        return other

    def close(self) -> None:
        """Frees the victims."""
        for victim in self._victims.values():
            forget(victim.bundle)
        self._victims.clear()

    def _judged(
        self, attack: Attack, hand: Hand, victim: Victim, *, seconds: float, seed: int, exact: bool
    ) -> Case:
        executor = Remembering()
        verdicts = [
            self._verdict(hand, named(name, self.setting)(victim.reference), executor, seed)
            for name in self.policies
        ]
        released, plan = released_weights(hand.target), verdicts[-1].record.get("plan", {})
        steps = int(plan.get("steps", 0))
        samples = steps * int(plan.get("batch_size", 0)) * int(plan.get("accumulate", 1))
        return Case(
            attack=attack.name,
            arithmetic="exact" if exact else "native",
            seed=seed,
            steps=steps,
            segments=verdicts[-1].segments.count,
            distance=self._distance(released, victim) if attack.steals else None,
            accuracy=self._evaluate(released),
            cost=self._cost(hand.meter, seconds),
            claimed=self._cost(Meter(gradients=samples), 0.0),
            victim=victim.cost,
            judged=tuple(judged(verdict) for verdict in verdicts),
            reference=victim.reference,
            key=str(hand.signer.verification_key),
            notes=hand.meter.notes,
            replays=self._replays(hand, executor, seed),
        )

    def _replays(self, hand: Hand, executor: Remembering, seed: int) -> Replays | None:
        """All segments; most are known by then, and the classical protocol goes on whatever state zero is."""
        verdict = self._verdict(hand, EVERY_SEGMENT, executor, seed)
        results, updates = executor.results, {row.number: row.update for row in verdict.segments.rows}
        count, request = verdict.segments.count, executor.request
        if request is None or set(range(count)) != results.keys():
            return None
        if not all(i in updates or not results[i].equal for i in range(count)):
            return None  # a run so long that not all of its updates are told
        moved = [results[i].update.l2 if i not in updates else updates[i] for i in range(count)]
        epoch = steps_per_epoch(request.manifest)
        return Replays(
            epochs=tuple(request.manifest.plan.steps_of(i).start // epoch for i in range(count)),
            equal=tuple(results[i].equal for i in range(count)),
            errors=tuple(_finite(results[i].error.l2) for i in range(count)),
            updates=tuple(map(_finite, moved)),
        )

    def _verdict(self, hand: Hand, policy: Policy, executor: Remembering, seed: int) -> Verdict:
        # One that demands a date besides draws as the other, so that they share replays under another seed.
        name = policy.name.removesuffix("-dated")
        draw = hashlib.sha256(f"the verifier's draw {name} {seed} {hand.exact}".encode()).digest()
        return verify(
            hand.target,
            policy,
            keys=[hand.signer.verification_key],
            trust=hand.pins or Trust(),
            draw=draw,
            executor=executor,
        )

    def _victim(self, seed: int, exact: bool) -> Victim:
        began = time.perf_counter()
        meter = Meter()
        bundle = self._honest(seed, exact, self._memory("victim", seed, exact), meter)
        cost = self._cost(meter, time.perf_counter() - began)
        twin = self._memory("twin", seed, exact)
        weights = released_weights(bundle)
        other = released_weights(self._honest(seed + 1_000_000, exact, twin, Meter()))
        reference = distance(self._parameters(weights), other)
        forget(twin)
        return Victim(bundle=bundle, weights=weights, reference=reference, cost=cost)

    def _honest(self, seed: int, exact: bool, url: str, meter: Meter) -> str:
        """An honest run of the recipe, by an owner with a seed of his own; returns where it is."""
        forget(url)
        nothing = Victim(bundle="", weights={}, reference=0.0, cost=Cost(gradients=0, flops=0, seconds=0))
        hand = self._hand(None, nothing, seed=seed, exact=exact, target=url)
        hand.meter = meter
        hand.picky = False
        hand.present(drop_last=False).train_all()
        return url

    def _hand(self, attack: Attack | None, victim: Victim, *, seed: int, exact: bool, target: str) -> Hand:
        who = attack.name if attack else "victim"
        granted = attack.needs if attack else frozenset({Need.DATA})
        key = hashlib.sha256(f"{who} {seed} {exact}".encode()).digest()
        return Hand(
            recipe=self.recipe,
            setting=self.setting,
            stolen=victim.weights if Need.WEIGHTS in granted else {},
            bundle=victim.bundle if Need.BUNDLE in granted else "",
            reference=victim.reference if Need.TOLERANCE in granted else 0.0,
            granted=granted,
            target=target,
            signer=SigningKey(name=f"{who.replace(' ', '-')}.example", seed=key),
            seed=int.from_bytes(key[:7], "big"),
            exact=exact,
        )

    def _memory(self, name: str, seed: int, exact: bool) -> str:
        return f"{self._root}/{name.replace(' ', '-')}-{seed}-{'exact' if exact else 'native'}"

    def _cost(self, meter: Meter, seconds: float) -> Cost:
        flops = meter.gradients * self._flops + meter.flops
        return Cost(gradients=meter.gradients, flops=flops, seconds=seconds)

    def _distance(self, released: State, victim: Victim) -> float:
        own, stolen = self._parameters(released), self._parameters(victim.weights)
        if set(own) != set(stolen) or not victim.reference:
            return float("inf")
        return distance(own, stolen) / victim.reference

    def _parameters(self, weights: State) -> State:
        """The parameters of a state dict: a distance is over these, without buffers."""
        names = {name for name, _ in self.recipe.build().named_parameters()}
        return {name: tensor for name, tensor in weights.items() if name in names}

    def _evaluate(self, released: State) -> str:
        model = self.recipe.build()
        model.load_state_dict(released, strict=False)
        return self.recipe.evaluate(model)


def _finite(length: float | None) -> float:
    """A length, infinite if it is no number."""
    return length if length is not None and math.isfinite(length) else math.inf


def released_weights(bundle: str) -> State:
    """The weights that a bundle releases; empty if there are none."""
    files = FsspecFiles(bundle)
    return load(files.read(WEIGHTS, MAX_WEIGHTS_BYTES)) if files.exists(WEIGHTS) else {}


def gradient_flops(recipe: Recipe) -> float:
    """Floating-point operations of the gradient of one sample, counted by PyTorch over one batch."""
    model = recipe.build()
    batch = default_collate([recipe.data[i] for i in range(recipe.batch_size)])
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(recipe.loss(model, batch))
    return float(counter.get_total_flops()) / recipe.batch_size
