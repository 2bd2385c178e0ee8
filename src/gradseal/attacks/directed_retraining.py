"""Directed retraining: a true training with a pull towards the stolen weights that is not declared.

Source: Jia et al. 2021, "Proof-of-Learning: Definitions and Practice", who consider a regulariser that pulls
towards W_T and hold that it cannot pass, because a replay lacks it. It lacks it only by as much as it moved
the weights: so the pull here is as strong as the classical tolerance forgives. From an honest
initialisation, every step is followed by a move towards the stolen weights; the segment is replayed without
the moves, as the verifier will, and carried out again with weaker ones if the difference is beyond the
tolerance.

Where we differ: so many steps are claimed that the moves together can cover the way from an honest
initialisation one and a half times, since training itself leads away; the pull is a move of the same length
after each step rather than a term of the loss, which the optimizer's momentum would delay. A pull that the
declared loss contains is another attack.
"""

from __future__ import annotations

import math

from gradseal.attacks.attack import Attack, Hand, Need, distance
from gradseal.attacks.paths import drawn, parameters_of
from gradseal.record.presented import Presented, State, copy_of

_SHARE = 0.95
"""Of the tolerance that a segment's difference is to use."""

_WAYS = 1.5
"""How many times an honest initialisation's distance to the stolen weights the moves can cover together."""

_ATTEMPTS = 4
"""How often a segment is carried out anew with weaker moves."""


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    target, allowed = hand.parameters, _SHARE * hand.tolerance
    way = distance(target, drawn(hand))
    segments = math.ceil(_WAYS * way / hand.tolerance)
    run = hand.present(steps=max(hand.setting.steps, segments * hand.setting.every))
    run.begin()
    move = allowed / hand.setting.every
    for segment in range(run.planned):
        declared = copy_of(run.state)
        losses = run.compute(declared, segment)
        declared = parameters_of(declared)
        for _ in range(_ATTEMPTS):
            state = copy_of(run.state)
            _pulled(hand, run, state, target, move)
            error = distance(declared, state)
            if error <= hand.tolerance:
                break
            move *= allowed / error
        else:
            state |= _between(declared, state, allowed / error)
            error = allowed
        run.present(state, losses)
        # The next segment's first guess; a pull may grow slowly, and shrinks at once.
        move *= min(1.2, allowed / max(error, allowed / 2))
    run.finish()
    hand.meter.notes["share of the way left"] = distance(target, run.state) / distance(
        target, run.state_zero()
    )


def _pulled(hand: Hand, run: Presented, state: State, target: State, move: float) -> None:
    """Moves a state on by the next segment, in place, with a move of this length after each step."""
    for step in run.steps_of(run.segments):
        batches = run.batches(step)
        hand.meter.batch(sum(len(batch[0]) for batch in batches))
        run.stepper.take(state, batches, step=step)
        share = min(1.0, move / max(distance(target, state), move))
        for name, tensor in target.items():
            own = state[name]
            own.copy_(own.double() + share * (tensor.double() - own.double()))
            hand.meter.flops += 6.0 * own.numel()


def _between(declared: State, state: State, share: float) -> State:
    """The point at a share of the way from the declared replay's end to a state."""
    return {
        name: (tensor.double() + share * (state[name].double() - tensor.double())).to(tensor.dtype)
        for name, tensor in declared.items()
    }


ATTACK = Attack(
    name="directed retraining",
    source="Jia et al. 2021, Proof-of-Learning: Definitions and Practice",
    idea="A true training with a pull towards the stolen weights that is not declared, as strong as the "
    "tolerance forgives.",
    needs=frozenset({Need.WEIGHTS, Need.DATA, Need.TOLERANCE}),
    aims="computation",
    forge=forge,
)
