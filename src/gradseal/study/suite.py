"""The judge of attacks: makes a victim, hands an attacker what the threat model grants, asks every verifier.

For one attack, arithmetic and seed:
1. a victim trains and publishes a bundle, and a twin of his, independent, gives the distance d_ref;
2. the attack writes a bundle, timed, its gradients counted;
3. each policy verifies that bundle, with the attacker's key pinned as if he were the owner;
4. the released weights are compared with the stolen ones.

Bundles are in memory, and replays in this process: all of it is written by code of this package. Policies
look at one bundle one after another, so a replay that one of them made is kept for the others.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any

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
from gradseal.verify.classical import Scale
from gradseal.verify.executors import Ready, Request
from gradseal.verify.in_process import InProcess
from gradseal.verify.outcomes import SegmentResult, Task
from gradseal.verify.policy import Policy
from gradseal.verify.verdict import CLAIM_OF, ClaimName, Finding, Outcome, Result, Status, Verdict
from gradseal.verify.verifier import verify

MAX_WEIGHTS_BYTES = 1 << 32
PolicyOf = Callable[[float], Policy]
"""A policy, once the distance of two independently trained models is known."""


def full_dated(_: float) -> Policy:
    """The policy `full`, that demands that precedence is shown too."""
    full = Policy.named("full")
    return replace(full, name="full-dated", require=MappingProxyType({**full.require, "precedence": "shown"}))


def normalised(reference: float) -> Policy:
    """The policy `jia2021` with a normalised tolerance."""
    return replace(Policy.named("jia2021").normalised(reference), name="jia2021-normalised")


def named(name: str) -> PolicyOf:
    """A policy by name, `jia2021-normalised` and `full-dated` among them.

    Of the classical ones `jia2021` alone keeps the released code's absolute limits, which fit no other model;
    the others have the paper's.
    """
    made: Mapping[str, PolicyOf] = {"full-dated": full_dated, "jia2021-normalised": normalised}
    if name in made:
        return made[name]
    policy = Policy.named(name)
    own = policy.classical
    if name == "jia2021" or own is None or own.limits.scale is not Scale.ABSOLUTE:
        return lambda _: policy
    return policy.normalised


POLICIES = (
    "jia2021",
    "jia2021-normalised",
    "jia2021-random",
    "jia2021-relative",
    "jia2021-random-relative",
    "jia2021-bounded",
    "quick",
    "standard",
    "full",
    "full-dated",
)
"""The columns of the matrix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What one policy said of one bundle.

    Args:
        policy: Its name.
        outcome: Accepted, rejected or inconclusive; only an accepted bundle passed.
        claims: Each claim's status.
        check: The check that decided against it; empty if it passed, or if only a claim is not shown.
        claim: The claim that failed first; empty if it passed.
        said: What was said of it.
        replayed: How many segments were replayed.
        seconds: How long the verification took, without replays that an earlier policy had made.
    """

    policy: str
    outcome: str
    claims: Mapping[str, str]
    check: str
    claim: str
    said: str
    replayed: int
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether the verifier accepted the bundle."""
        return self.outcome == Outcome.ACCEPTED.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What something took.

    Args:
        gradients: Gradients of single samples.
        flops: Floating-point operations, those of the gradients included.
        seconds: Wall-clock time, writing the bundle included.
    """

    gradients: float
    flops: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One attack, judged.

    Args:
        attack: Its name.
        arithmetic: `native` or `exact`.
        seed: Of the victim and of the attacker.
        steps: How many steps the bundle claims.
        segments: In how many segments.
        distance: From the released parameters to the stolen ones, as a share of d_ref; None if the attack
            does not steal.
        accuracy: What the recipe says of the released weights.
        cost: What the attack took.
        claimed: What an honest run of the claimed steps takes.
        victim: What the victim's run took.
        judged: By each policy.
        notes: What the attack itself counted.
    """

    attack: str
    arithmetic: str
    seed: int
    steps: int
    segments: int
    distance: float | None
    accuracy: str
    cost: Cost
    claimed: Cost
    victim: Cost
    judged: tuple[Judged, ...]
    notes: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Its JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Case:
        """From its JSON form."""
        costs = {name: Cost(**value[name]) for name in ("cost", "claimed", "victim")}
        return cls(**{**value, **costs, "judged": tuple(Judged(**one) for one in value["judged"])})


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

    def close(self) -> None:
        """Frees the victims."""
        for victim in self._victims.values():
            forget(victim.bundle)
        self._victims.clear()

    def _judged(
        self, attack: Attack, hand: Hand, victim: Victim, *, seconds: float, seed: int, exact: bool
    ) -> Case:
        executor = Remembering()
        verdicts = [self._verdict(hand, name, victim.reference, executor) for name in self.policies]
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
            notes=hand.meter.notes,
        )

    def _verdict(self, hand: Hand, name: str, reference: float, executor: Remembering) -> Verdict:
        draw = hashlib.sha256(f"{name} {hand.seed} {hand.exact}".encode()).digest()
        return verify(
            hand.target,
            named(name)(reference),
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
        reference = distance(weights, released_weights(self._honest(seed + 1_000_000, exact, twin, Meter())))
        forget(twin)
        return Victim(bundle=bundle, weights=weights, reference=reference, cost=cost)

    def _honest(self, seed: int, exact: bool, url: str, meter: Meter) -> str:
        """An honest run of the recipe, by an owner with a seed of his own; returns where it is."""
        forget(url)
        nothing = Victim(bundle="", weights={}, reference=0.0, cost=Cost(gradients=0, flops=0, seconds=0))
        hand = self._hand(None, nothing, seed=seed, exact=exact, target=url)
        hand.meter = meter
        hand.picky = False
        run = hand.present(drop_last=False)
        run.begin()
        for _ in range(run.planned):
            run.train()
        run.finish()
        return url

    def _hand(self, attack: Attack | None, victim: Victim, *, seed: int, exact: bool, target: str) -> Hand:
        who = attack.name if attack else "victim"
        key = hashlib.sha256(f"{who} {seed} {exact}".encode()).digest()
        return Hand(
            recipe=self.recipe,
            setting=self.setting,
            stolen=victim.weights,
            bundle=victim.bundle,
            reference=victim.reference,
            granted=attack.needs if attack else frozenset({Need.DATA}),
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
        names = {name for name, _ in self.recipe.build().named_parameters()}
        own = {name: tensor for name, tensor in released.items() if name in names}
        missing = names - set(own)
        if missing or not victim.reference:
            return float("inf")
        return distance(own, victim.weights) / victim.reference

    def _evaluate(self, released: State) -> str:
        model = self.recipe.build()
        model.load_state_dict(released, strict=False)
        return self.recipe.evaluate(model)


class Remembering:
    """An executor that replays each task once, whichever policy asks."""

    def __init__(self) -> None:
        self._inner = InProcess()
        self._ready: Ready | None = None
        self._known: dict[Task, SegmentResult] = {}

    def run(self, request: Request) -> Iterator[Ready | SegmentResult]:
        """See `Executor`."""
        new = [task for task in request.tasks if task not in self._known]
        fresh = self._inner.run(replace(request, tasks=new))
        for answer in fresh if new or self._ready is None else ():
            if isinstance(answer, Ready):
                self._ready = answer
            else:
                task = next(task for task in new if task.segment == answer.segment)
                self._known[task] = answer
        if self._ready is not None:
            yield self._ready
        for task in request.tasks:
            yield self._known[task]


def judged(verdict: Verdict) -> Judged:
    """What of a verdict the matrix keeps."""
    check, claim, said = "", "", ""
    if verdict.outcome is not Outcome.ACCEPTED:
        finding = _against(verdict)
        if finding:
            check, claim, said = finding.check.value, CLAIM_OF[finding.check].value, finding.line
        else:
            name = _unmet(verdict)
            claim, said = name.value, "; ".join(verdict.claims[name].evidence[:2])
    return Judged(
        policy=verdict.policy.name,
        outcome=verdict.outcome.value,
        claims={name.value: own.status.value for name, own in verdict.claims.items()},
        check=check,
        claim=claim,
        said=said[:300],
        replayed=verdict.cost.segments_replayed,
        seconds=verdict.cost.seconds,
    )


def _against(verdict: Verdict) -> Finding | None:
    """The first finding that refutes, or else the first that leaves something undecided."""
    for result in (Result.REFUTED, Result.UNDECIDED):
        for finding in verdict.findings:
            if finding.result is result:
                return finding
    return None


def _unmet(verdict: Verdict) -> ClaimName:
    """The first claim that is not what the policy demands."""
    for name, least in verdict.policy.require.items():
        status = verdict.claims[ClaimName(name)].status
        if status is not Status.SHOWN and not (least == "supported" and status is Status.SUPPORTED):
            return ClaimName(name)
    raise ValueError("every demand is met")


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
