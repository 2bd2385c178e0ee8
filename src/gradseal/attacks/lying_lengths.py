"""Lengths that lie: true training is made long, so that all that is forged is below the Q-th longest.

Source: ours. A verifier who replays the longest updates takes length for importance. No update's length is
false, as it is measured on sealed states; but a segment of true training is as long as its learning rates
make it. In each epoch the first Q segments are true, and in the first epoch so long that the way from their
end to the stolen weights can be cut into shorter pieces, which nobody computes. The run's last segment is
true again, at a rate that hardly leaves the stolen weights, for those who look at the ends.

Which rates make long segments is found in a rehearsal that is thrown away; the run itself has other seeds,
so whether its lengths suffice is seen when it was computed. If not, a rehearsal is for longer steps.

The blindfold attack of Fang et al. 2023, "Proof-of-Learning is Currently More Broken Than You Think", has the
same idea, with steps of one length from a permuted state zero, known batches and no dropout. Here state zero
follows from the rules, samples are shuffled, and every segment that is not forged replays to the bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

from gradseal.attacks.attack import Attack, Hand, Need, distance, length, line
from gradseal.attacks.paths import parameters_of, scaled, sgd
from gradseal.record.presented import Presented, State, copy_of

RATE_AFTER = 2e-4
"""The learning rate once the stolen weights are reached."""

HIGHEST_RATE = 1.0
MARGIN = 1.1
"""By how much a true segment is longer than a forged one."""

TRIES, GROWTH = 10, 1.5
"""How many rehearsals there are at most, and by how much longer each one's steps are."""

_LEAST_NORM = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class _Beginning:
    """The true segments that the run begins with, under rates that were rehearsed.

    Args:
        rates: Of each of their steps.
        ends: The state at the end of each, and its losses.
        shortest: The least length of their updates.
    """

    rates: list[float]
    ends: list[tuple[State, list[float]]]
    shortest: float


def forge(hand: Hand) -> None:
    """Writes the bundle; if no rehearsal was long enough, by the last one's rates."""
    seed, target = hand.random_bytes(), hand.weights
    own = parameters_of(target)
    tried = _run(hand, [], seed, scratch=True)
    true = min(hand.setting.top, tried.planned - 2)
    forged = len(_epochs(hand, tried)[0]) - true
    # Steps that go where they like get no further than the root of their number.
    step = distance(parameters_of(tried.state_zero()), own) / (forged * math.sqrt(hand.setting.every))
    for _ in range(TRIES):
        begun = _begin(hand, _rehearse(hand, tried, true, step), seed, true)
        if MARGIN * distance(own, begun.ends[-1][0]) <= forged * begun.shortest:
            break
        step *= GROWTH
    run = _run(hand, begun.rates, seed)
    run.begin()
    for state, losses in begun.ends:
        run.present(state, losses)
    for number, segments in enumerate(_epochs(hand, run)):
        shortest, rest = begun.shortest, segments[true:]
        if number:
            shortest = min(_train(run) for _ in segments[:true])
        for left, _ in zip(range(len(rest), 0, -1), rest, strict=True):
            _lead(hand, run, target, left=left, most=shortest / MARGIN)
    run.train()
    run.finish()


def _run(hand: Hand, rates: list[float], seed: bytes, *, scratch: bool = False) -> Presented:
    """A bundle with these rates at first, and a small one then; with the same rates, of the same seeds."""
    schedule = scaled([*rates, RATE_AFTER])
    return hand.present(optimizer=sgd(1.0), schedule=schedule, seed=seed, scratch=scratch)


def _epochs(hand: Hand, run: Presented) -> list[list[int]]:
    """The segments of each epoch, as a verifier counts them, but for the run's last."""
    per_epoch = max(1, len(hand.data) // hand.setting.batch_size)
    epochs: dict[int, list[int]] = {}
    for segment in range(run.planned - 1):
        epochs.setdefault(run.steps_of(segment).start // per_epoch, []).append(segment)
    return list(epochs.values())


def _rehearse(hand: Hand, run: Presented, segments: int, step_length: float) -> list[float]:
    """Rates by which steps of the first segments have this length on average, in a run of other seeds.

    One rate to a segment: whether a gradient is short depends on the batch, and the run has others.
    """
    state, rates = run.state_zero(), []
    for segment in range(segments):
        norms = []
        for step in run.steps_of(segment):
            (batch,) = run.batches(step)
            result = run.stepper.compute(state, batch, step=step)
            hand.meter.batch(len(batch[0]))
            norms.append(max(length(result.gradients), _LEAST_NORM))
            for name, value in result.buffers.items():
                state[f"buffers/{name}"].copy_(value)
            optimizer = run.stepper.optimizer_at(step).at({(0, "lr"): step_length / norms[-1]})
            optimizer.update(state, dict(result.gradients), step, exact=run.stepper.exact)
        rates += [min(HIGHEST_RATE, step_length / fmean(norms))] * len(norms)
    return rates


def _begin(hand: Hand, rates: list[float], seed: bytes, segments: int) -> _Beginning:
    """Computes the first segments under these rates."""
    run = _run(hand, rates, seed, scratch=True)
    state, ends, lengths = run.state_zero(), [], []
    for segment in range(segments):
        before = copy_of(state)
        losses = run.compute(state, segment)
        ends.append((copy_of(state), losses))
        lengths.append(distance(parameters_of(before), state))
    return _Beginning(rates=rates, ends=ends, shortest=min(lengths))


def _train(run: Presented) -> float:
    """Computes the next segment; returns the length of its update."""
    before = parameters_of(run.state)
    run.train()
    return distance(before, run.state)


def _lead(hand: Hand, run: Presented, target: State, *, left: int, most: float) -> None:
    """Presents the next of so many equal pieces of the way to the target, or one of the most that is allowed.

    Args:
        hand: Counts.
        run: The bundle.
        target: Where the way leads.
        left: How many pieces there are.
        most: How long one may be.
    """
    way = distance(parameters_of(target), run.state)
    share = min(1 / left, most / way if way else 1.0)
    run.present(target if share == 1 else line({n: run.state[n] for n in target}, target, share))
    hand.meter.flops += 6.0 * sum(tensor.numel() for tensor in target.values())


ATTACK = Attack(
    name="lying lengths",
    source="ours, after the blindfold attack of Fang et al. 2023",
    idea="In each epoch Q true segments are made the longest by their learning rates; all others but the "
    "last lead to the stolen weights, and are computed by nobody.",
    needs=frozenset({Need.WEIGHTS, Need.DATA}),
    aims="computation",
    forge=forge,
)
