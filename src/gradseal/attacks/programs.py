"""Attacks by programs: those that do without a seed, and those that are put in force while a run goes on.

What a verdict must say of each is in docs/reference/attacks.md, and why in docs/theory/precedence.md.
"""

from __future__ import annotations

import shutil

from gradseal.attacks.history import History
from gradseal.attacks.scene import Scene
from gradseal.attacks.slots import FOUR
from gradseal.precede.hosts import Hosts
from gradseal.record.amending import amended_program


def full_batch(scene: Scene) -> None:
    """Each step sees all samples, nothing is dropped, weights begin at zero: all is known before slot 0."""
    _independent(scene, "full batch")


def own_order(scene: Scene) -> None:
    """The data come in their own order, nothing is dropped and weights begin at zero."""
    _independent(scene, "own order")


def zero_rate(scene: Scene) -> None:
    """A learning rate of zero: the weights never move."""
    _independent(scene, "zero rate")


def identity(scene: Scene) -> None:
    """A loss that multiplies the scores by zero: every gradient is zero, and the weights never move."""
    _independent(scene, "identity")


def noise_beside(scene: Scene) -> None:
    """The full batch again, and beside it a parameter that nothing reads, which moves at random, and far."""
    _independent(scene, "noise beside")


def noise_within(scene: Scene) -> None:
    """The full batch again, and in the same matrix columns that nothing reads, which move at random."""
    _independent(scene, "noise within")


def late_amendment(scene: Scene) -> None:
    """With slot 2's seed in view, the owner puts a program in force for it that steers to known weights."""
    history = History(scene=scene, plan=scene.plan()).begin()
    history.train((0, 1))
    history.reach(2)
    history.amend(2, _to_zero(history))
    history.train((2, 3))
    history.finish()


def amendment_in_time(scene: Scene) -> None:
    """Another learning rate, anchored before the slot from which it is in force: no attack."""
    history = History(scene=scene, plan=scene.plan()).begin()
    history.train((0,))
    _amend(history, 2, lr=0.02)
    history.train((1, 2, 3))
    history.finish()


def amendment_to_known_weights(scene: Scene) -> None:
    """A program anchored in time steers to weights that the owner knew beforehand: all (nearly) zero."""
    history = History(scene=scene, plan=scene.plan()).begin()
    history.train((0,))
    history.amend(2, _to_zero(history))
    history.publish()
    history.anchor()
    history.train((1, 2, 3))
    history.finish()


def last_segment_to_known_weights(scene: Scene) -> None:
    """As before, but in the last of twenty segments alone."""
    history = History(scene=scene, plan=scene.plan(), run="long")
    history.hosts = Hosts(scene.witnesses)
    history.begin()
    history.train(range(17))
    history.amend(19, _to_zero(history))
    history.publish()
    history.anchor()
    history.train(range(17, 20))
    history.finish()


def last_two_segments_to_known_weights(scene: Scene) -> None:
    """The same in the last two of twenty: the update of the last is tiny, and tiny noise is much of it."""
    history = History(scene=scene, plan=scene.plan(), run="long")
    history.hosts = Hosts(scene.witnesses)
    history.begin()
    history.train(range(16))
    history.amend(18, _to_zero(history))
    history.publish()
    history.anchor()
    history.train(range(16, 20))
    history.finish()


def parallel_amendments(scene: Scene) -> None:
    """Two continuations with different amendments, both stamped in time: slot 2's seed says which is shown.

    No witness is asked, since one that saw both would refuse the second.
    """
    plan, path = scene.plan(), scene.target
    forks = [
        History(scene=scene, plan=plan, target=path.with_name(f"{path.name}-{number}")) for number in range(2)
    ]
    for fork in forks:
        fork.hosts = Hosts((), scene.timestamps)
        fork.begin()
    for rate, fork in zip((0.02, 0.03), forks, strict=True):
        fork.train((0,))
        _amend(fork, 2, lr=rate)
    for slot in (1, 2):
        for fork in forks:
            fork.train((slot,))
    liked = min(forks, key=lambda fork: float(next(iter(fork.state.values())).sum()))
    liked.train((3,))
    liked.finish()
    shutil.copytree(liked.path, path, dirs_exist_ok=True)


def _independent(scene: Scene, run: str) -> None:
    """A program that does without its seed: the owner has all states before slot 0."""
    plan = scene.plan()
    history = History(scene=scene, plan=plan, run=run).begin()
    history.train(FOUR)
    history.finish()


def _amend(history: History, slot: int, **settings: float) -> None:
    program, _ = amended_program(history.program(), group=None, clip=None, settings=settings)
    history.amend(slot, history.writer.put(program.encode()))
    history.publish()
    history.anchor()


def _to_zero(history: History) -> bytes:
    """The digest of a program whose steps lead to zero: rate times decay is one, and the rate is tiny."""
    settings = {"lr": 1e-6, "weight_decay": 1e6}
    program, _ = amended_program(history.program(), group=None, clip=None, settings=settings)
    return history.writer.put(program.encode())
