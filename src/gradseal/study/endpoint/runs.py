"""What the endpoint part computes about one victim: who gets how near to his weights, and at which cost.

A victim trains; then somebody who holds his released weights W_T and his data tries to end near them. Runs
are computed as an honest owner computes them, by the captured program, but no bundle is written where none
is asked for. Distances are in units of d_ref, between the victim and an independent twin; costs are
gradients, in units of what the victim's run took.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from gradseal.attacks.attack import Hand, Meter, Need, Setting, distance
from gradseal.attacks.distillation import LEFT_OUT, TEMPERATURE, compare, scores_of, soft_loss
from gradseal.attacks.paths import of_weights, parameters_of
from gradseal.attacks.smuggling import Beside, Chosen, pulled
from gradseal.program.memory import weights_file
from gradseal.proof.note import SigningKey
from gradseal.recipes.recipe import Recipe, load_recipe
from gradseal.record.presented import Presented, State, copy_of
from gradseal.study.endpoint.matching import hidden_units, matched_distance
from gradseal.verify.in_process import InProcess
from gradseal.verify.policy import Policy
from gradseal.verify.verdict import Check, Verdict
from gradseal.verify.verifier import verify

RECIPE = "digits"
TIMES = 4
"""How many times the victim's cost a retraining goes on for."""

_MARKS = 8
"""How many distances are told for each of the victim's costs."""

_TWIN = 1_000_000
_ENOUGH_FREE_BYTES = 1 << 30


class Victim:
    """An honest run: W_T, how it was trained, and what an independent twin's distance is."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self.recipe: Recipe = load_recipe(RECIPE)
        self.setting, self.seed = setting, seed
        with closing(self.hand("victim", weights={})) as hand:
            run = hand.present(scratch=True)
            state = run.state_zero()
            walk(run, state, lambda step: None)
            self.state = {n: t for n, t in state.items() if not n.startswith("optimizer/")}
            run.reseed(_bytes("twin", seed + _TWIN))
            twin = run.state_zero()
            walk(run, twin, lambda step: None)
            self.groups = hidden_units(run)
        self.parameters = parameters_of(self.state)
        self.reference = distance(self.parameters, twin)
        self.gradients = setting.steps * setting.batch_size

    def hand(self, who: str, *, weights: State | None = None) -> Hand:
        """What somebody has in hand who holds the weights and the data.

        Args:
            who: Decides his randomness.
            weights: Other weights than the victim's, by their names in a state.
        """
        held = self.state if weights is None else weights
        return hand_of(self.recipe, self.setting, who, self.seed, held)

    def away(self, state: Mapping[str, torch.Tensor]) -> float:
        """How far a state is from W_T, in units of d_ref."""
        return distance(self.parameters, state) / self.reference

    def away_matched(self, state: Mapping[str, torch.Tensor]) -> float:
        """The same once the state's hidden units are numbered as is nearest to the victim's."""
        return matched_distance(self.parameters, parameters_of(state), self.groups) / self.reference

    def cost(self, gradients: float) -> float:
        """In units of the victim's."""
        return gradients / self.gradients


def hand_of(recipe: Recipe, setting: Setting, who: str, seed: int, weights: State) -> Hand:
    """What somebody has in hand: the data, and weights by their names in a state."""
    key = _bytes(who, seed)
    return Hand(
        recipe=recipe,
        setting=setting,
        stolen={name.partition("/")[2]: tensor for name, tensor in weights.items()},
        bundle="",
        reference=0.0,
        granted=frozenset({Need.WEIGHTS, Need.DATA}),
        target="",
        signer=SigningKey(name="endpoint.example", seed=key),
        seed=int.from_bytes(key[:7], "big"),
        meter=Meter(),
        picky=False,
    )


def walk(run: Presented, state: State, told: Callable[[int], None], *, marks: int = 1) -> None:
    """Moves a state through a whole run, in place; tells the steps done so many times, and at the end."""
    every = max(1, run.planned // marks)
    for segment in range(run.planned):
        run.compute(state, segment)
        if (segment + 1) % every == 0 or segment + 1 == run.planned:
            told(run.steps_of(segment).stop)


def retrained(*, setting: Mapping[str, Any], seed: int, other: int) -> dict[str, Any]:
    """An honest run by another seed, for several times the victim's cost: how near it comes by chance."""
    victim = victim_of(setting, seed)
    curve: list[dict[str, float]] = []
    with closing(victim.hand(f"retraining {other}")) as hand:
        run = hand.present(scratch=True, steps=TIMES * victim.setting.steps)
        state = run.state_zero()

        def told(step: int) -> None:
            curve.append(_point(victim, hand, state, matched=True))

        told(0)
        walk(run, state, told, marks=2 * TIMES)
    return {"curve": curve}


def declared(*, setting: Mapping[str, Any], seed: int, pull: float) -> dict[str, Any]:
    """A run whose loss has the pull c·‖W − W_T‖² in it."""
    victim = victim_of(setting, seed)
    curve: list[dict[str, float]] = []
    with closing(victim.hand(f"pull {pull}")) as hand:
        run = hand.present(scratch=True, loss=pulled(hand, 2 * pull))
        state = run.state_zero()

        def told(step: int) -> None:
            curve.append(_point(victim, hand, state))

        told(0)
        walk(run, state, told, marks=_MARKS)
        said = victim.recipe.evaluate(of_weights(hand, state))
    return {"curve": curve, "weights": said}


def undeclared(*, setting: Mapping[str, Any], seed: int, tolerance: float) -> dict[str, Any]:
    """A run moved towards W_T after each segment by so much that its replay differs by a share of its update.

    The move comes at a segment's end, where it costs no gradient. What a replay of the segment misses is the
    move alone, since the moved state is where the next one begins.
    """
    victim = victim_of(setting, seed)
    curve: list[dict[str, float]] = []
    largest = 0.0
    with closing(victim.hand(f"tolerance {tolerance}")) as hand:
        run = hand.present(scratch=True)
        state = run.state_zero()
        curve.append(_point(victim, hand, state))
        every = max(1, run.planned // _MARKS)
        for segment in range(run.planned):
            before = parameters_of(copy_of(state))
            run.compute(state, segment)
            largest = max(largest, _move(before, state, victim.parameters, tolerance))
            if (segment + 1) % every == 0 or segment + 1 == run.planned:
                curve.append(_point(victim, hand, state))
        said = victim.recipe.evaluate(of_weights(hand, state))
    return {"curve": curve, "error": largest, "weights": said}


def _move(before: State, state: State, target: State, tolerance: float) -> float:
    """Moves a segment's end towards a target, in place; gives the replay's error, of the sealed update."""
    computed = parameters_of(copy_of(state))
    way, share = distance(target, computed), 1.0
    for _ in range(60):
        for name, tensor in target.items():
            own = computed[name].double()
            state[name].copy_(own + share * (tensor.double() - own))
        sealed = distance(before, state)
        error = share * way / sealed if sealed else 0.0
        if error <= tolerance or not way:
            return error
        share *= max(0.5, 0.999 * tolerance / error)
    state |= computed
    return 0.0


def distilled(*, setting: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A student of the victim's probabilities: near in what it computes, and in its weights?"""
    victim = victim_of(setting, seed)
    with closing(victim.hand("distillation")) as hand:
        run, teacher = student_of(hand)
        state = run.state_zero()
        walk(run, state, lambda step: None)
        student = of_weights(hand, state)
        point = _point(victim, hand, state, matched=True)
        compare(hand, teacher, student, range(0, len(hand.data), LEFT_OUT))
        return {**point, **hand.meter.notes, "weights": victim.recipe.evaluate(student)}


def student_of(hand: Hand) -> tuple[Presented, torch.nn.Module]:
    """A run that learns what the stolen weights say of each sample, and the model that has these."""
    kept = [i for i in range(len(hand.data)) if i % LEFT_OUT]
    teacher = of_weights(hand, hand.weights)
    soft = torch.softmax(scores_of(hand, teacher, kept) / TEMPERATURE, dim=-1)
    data = Beside(Chosen(hand.data, kept), (soft,))
    return hand.present(scratch=True, data=data, loss=soft_loss(hand)), teacher


def verified(*, setting: Mapping[str, Any], seed: int, pull: float, steps: int) -> dict[str, Any]:
    """A bundle of a run with a declared pull, verified whole: by the usual cap on free bytes, and without."""
    victim = victim_of(setting, seed)
    own = replace(victim.setting, steps=steps)
    with closing(victim.hand(f"verified {pull}")) as hand, tempfile.TemporaryDirectory() as directory:
        hand.setting = own
        run = hand.present(scratch=True, loss=pulled(hand, 2 * pull))
        run.train_all()
        wanted = Path(directory) / "weights.safetensors"
        wanted.write_bytes(weights_file({n.partition("/")[2]: t for n, t in victim.parameters.items()}))
        full = Policy.named("full")
        usual = _verdict(run, full, victim, pulled_to=wanted)
        ample = _verdict(run, replace(full, free_bytes=_ENOUGH_FREE_BYTES, free_share=None), victim)
    counted = [f.measured or 0.0 for f in usual.findings if f.check is Check.FREE_BYTES]
    p = next((f.measured for f in usual.findings if f.check is Check.PULL), None)
    size = sum(t.numel() * t.element_size() for t in victim.parameters.values())
    replayed = usual.segments.rows
    return {
        "away": victim.away(run.state),
        "cost": victim.cost(steps * own.batch_size),
        "replayed": sum(row.equal is True for row in replayed),
        "segments": usual.segments.count,
        "usual": usual.outcome.value,
        "ample": ample.outcome.value,
        "free_bytes": sum(counted),
        "allowed": full.allowed_free_bytes(size),
        "parameter_bytes": size,
        "p": p,
    }


def _verdict(run: Presented, policy: Policy, victim: Victim, pulled_to: Path | None = None) -> Verdict:
    return verify(
        str(run.target),
        policy,
        keys=[run.manifest.owner],
        draw=_bytes("draw", victim.seed),
        executor=InProcess(),
        pulled_to=pulled_to,
    )


def _point(
    victim: Victim, hand: Hand, state: Mapping[str, torch.Tensor], *, matched: bool = False
) -> dict[str, float]:
    point = {"cost": victim.cost(hand.meter.gradients), "away": victim.away(state)}
    return {**point, "matched": victim.away_matched(state)} if matched else point


@lru_cache(maxsize=1)
def _victim(setting: Setting, seed: int) -> Victim:
    return Victim(setting, seed)


def victim_of(setting: Mapping[str, Any], seed: int) -> Victim:
    """The victim of a seed, trained once by the jobs of one group."""
    return _victim(Setting(**setting), seed)


def _bytes(who: str, seed: int) -> bytes:
    return hashlib.sha256(f"endpoint {who} {seed}".encode()).digest()
