"""Drift within tolerance: every segment is computed, and moved towards W_T by less than is tolerated.

Source: ours; that tolerances add up is said of any threshold in Fang et al. 2023, "Proof-of-Learning is
Currently More Broken Than You Think". State zero follows from the rules. The displacement stays below both
tolerances of the setting, δ and τ, by default a tenth of the segment's update, so that no segment is out of
bounds, whichever of them is replayed.

What limits it is the relative one: an update must be ten times as long as what it hides, and goes elsewhere.
Segments of one step, small batches and a high learning rate give many long updates that hardly add up. There
are as many steps as the setting has, of a third of its samples: less computing than the victim's.
"""

from __future__ import annotations

from gradseal.attacks.attack import Attack, Hand, Need, distance, line
from gradseal.attacks.paths import parameters_of, sgd
from gradseal.record.presented import Presented, State, copy_of

RATE = 0.1
SMALLER = 3
SHARE = 0.99
"""Of the tolerances that are used."""


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    target = hand.weights
    size = max(2, hand.setting.batch_size // SMALLER)
    run = hand.present(optimizer=sgd(RATE), every=1, batch_size=size)
    run.begin()
    for segment in range(run.planned):
        after = copy_of(run.state)
        losses = run.compute(after, segment)
        run.present(displaced(hand, run, after, target), losses)
    run.finish()


def displaced(hand: Hand, run: Presented, after: State, target: State) -> State:
    """A computed state moved towards the target by what both tolerances allow."""
    before, wanted = parameters_of(run.state), parameters_of(target)
    now = {name: after[name] for name in wanted}
    tau = hand.setting.tau
    way, update = distance(now, wanted), distance(before, now)
    moved = now
    allowed = SHARE * min(hand.tolerance, tau * update)
    # Relative is to the sealed update, of which the displacement itself is a part.
    for _ in range(8):
        moved = line(now, wanted, min(1.0, allowed / way)) if way else now
        hand.meter.flops += 6.0 * sum(tensor.numel() for tensor in now.values())
        if distance(now, moved) <= SHARE * tau * distance(before, moved):
            return after | moved
        allowed *= 0.9
    return after


ATTACK = Attack(
    name="drift within tolerance",
    source="ours, after the argument of Fang et al. 2023 that a threshold has room below it",
    idea="Every segment is truly computed, then moved towards the stolen weights by just less than both an "
    "absolute and a relative tolerance allow.",
    needs=frozenset({Need.WEIGHTS, Need.DATA, Need.TOLERANCE}),
    aims="computation",
    forge=forge,
)
