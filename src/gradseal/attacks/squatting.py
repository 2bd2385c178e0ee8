"""Squatting: seals of nothing, anchored in time, to be filled in once there is something to claim.

Source: ours. The thief begins a run in time, with a plan, a manifest and a state zero that are as they should
be, and anchors random bytes in the place of each segment's seal. A day later he steals weights, writes as
what opens each seal a state on the line from his state zero to them, and closes. Time is not what is false
here; seals are.
"""

from __future__ import annotations

from gradseal.attacks.attack import Attack, Hand, Need, line
from gradseal.attacks.dated import DAY_SECONDS, Dated, Services, present_dated
from gradseal.program.memory import view_of
from gradseal.proof.entries import Segment, encode_losses
from gradseal.proof.files import opening_path


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    services = Services.of(hand)
    run = present_dated(hand, services, services.plan())
    run.begin()
    seals = [hand.random_bytes() for _ in range(run.planned)]
    for seal in seals:
        put(run, seal)
    services.clock.until(services.clock() + DAY_SECONDS)
    _fill_in(hand, run, seals)
    run.finish()


def put(run: Dated, seal: bytes, losses: bytes | None = None) -> None:
    """The next segment, in its slot, with a seal of any origin."""
    run.enter()
    steps = run.steps_of(run.segments)
    run.writer.append(
        Segment(
            index=run.segments,
            first_step=steps.start,
            steps=len(steps),
            seal=seal,
            losses=losses or run.writer.put(encode_losses([1.0] * len(steps))),
        )
    )
    run.segments += 1
    run.writer.publish()


def _fill_in(hand: Hand, run: Dated, seals: list[bytes]) -> None:
    start, target = run.state, hand.weights
    for number, seal in enumerate(seals, start=1):
        run.state = start | line({n: start[n] for n in target}, target, number / len(seals))
        hand.meter.flops += 3.0 * sum(tensor.numel() for tensor in target.values())
        digests = [run.writer.put(view_of(tensor)) for tensor in run.state.values()]
        run.files.write(opening_path(seal), b"".join(digests))
    run.state = start | target


ATTACK = Attack(
    name="squatting",
    source="ours",
    idea="Random bytes are anchored in time as the seals of a run, and later opened as states that lead to "
    "the stolen weights.",
    needs=frozenset({Need.WEIGHTS, Need.DATA}),
    aims="precedence",
    forge=forge,
)
