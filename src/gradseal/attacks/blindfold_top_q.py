"""Blindfold top-Q: the intervals that the verifier looks at are real training, the rest leads to W_T.

Source: Fang et al. 2023, "Proof-of-Learning is Currently More Broken Than You Think". Epoch targets lie on
the line from a rank-matched initialisation to the stolen weights. Each epoch has Q intervals of real gradient
steps, rescaled to a length, so that they are the epoch's Q longest; the other intervals lead in a straight
line to the next target. The classical verifier replays the Q longest alone.

Published: E = 200 epochs, Q = 5 intervals of k = 10 real steps, 200 steps between, a step's length
d(W_0, W_T) / E. Here E, k and Q are those of the claimed run, in whole epochs. In the paper the factor of the
rescaling passes for a learning rate of its own for each step. Here gradients are clipped to a norm below
theirs, and the learning rate makes a step of that as long as it is to be: both are the prover's to choose,
and so the rescaled steps replay to the bit, with the run's own order and dropout.
"""

from __future__ import annotations

from gradseal.attacks.attack import Attack, Hand, Need, distance, line
from gradseal.attacks.paths import drawn, parameters_of, rank_matched, sgd, walk

RATE = 1000.0
"""High enough that the norm to which gradients are clipped is below theirs, even where they are small."""


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    target = hand.weights
    start = rank_matched(drawn(hand), target)
    per_epoch = max(1, len(hand.data) // hand.setting.batch_size)
    epochs = max(1, round(hand.setting.steps / per_epoch))
    step_length = distance(parameters_of(start), target) / epochs
    run = hand.present(optimizer=sgd(RATE), steps=epochs * per_epoch, clip=step_length / RATE)
    intervals = [run.steps_of(segment).start // per_epoch for segment in range(run.planned)]
    run.begin(start)
    for epoch in range(epochs):
        count = intervals.count(epoch)
        real = min(hand.setting.top, count - 1)
        for _ in range(real):
            run.train()
        aim = target if epoch + 1 == epochs else line(start, target, (epoch + 1) / epochs)
        walk(hand, run, aim, count - real)
    run.finish()


ATTACK = Attack(
    name="blindfold top-Q",
    source="Fang et al. 2023, Proof-of-Learning is Currently More Broken Than You Think",
    idea="In each epoch Q intervals of real, long steps, which are all that the verifier looks at; the "
    "others lead in a straight line to the stolen weights.",
    needs=frozenset({Need.WEIGHTS, Need.DATA}),
    aims="computation",
    forge=forge,
)
