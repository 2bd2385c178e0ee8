"""Attacks with seals: somebody else's copied, and seals of nothing that are to be filled in later.

What a verdict must say of each is in docs/reference/attacks.md, and why in docs/theory/precedence.md.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from gradseal.attacks.history import History
from gradseal.attacks.scene import Scene
from gradseal.attacks.slots import FOUR
from gradseal.proof.entries import Initial, Segment, encode_losses
from gradseal.proof.files import CHECKPOINT, opening_path
from gradseal.proof.note import sign_note


def log_signed_by_another(scene: Scene) -> None:
    """A thief gives out the owner's log under the owner's manifest, signed by his own key."""
    history = History(scene=scene, plan=scene.plan()).begin()
    history.train(FOUR)
    history.finish()
    text = history.notes[history.tree.size].text
    history.files.write(CHECKPOINT, sign_note(text, [scene.thief]))


def live_log_mirrored(scene: Scene) -> None:
    """A thief copies each seal into a log of his own while the owner's grows, and later what opens them."""
    thief = _mirror(scene)
    _take(scene.target.with_name(f"{scene.target.name}-victim"), thief.path)


def live_log_mirrored_unopened(scene: Scene) -> None:
    """The same before the owner opens anything: the thief has seals, and nothing that opens them."""
    _mirror(scene)


def states_sealed_anew(scene: Scene) -> None:
    """The owner's states leak while he trains, and a thief seals each under his own key, in time."""
    victim, thief = _both(scene)
    for slot in FOUR:
        victim.train((slot,))
        thief.draw(slot)
        if not thief.segments:
            thief.state = victim.state
            thief.append(Initial(seal=thief.seal()))
        thief.state = victim.state
        _seal(thief)
    victim.finish()
    thief.finish()


def random_states(scene: Scene) -> None:
    """Squatting: random states are sealed in time, in the hope of better ones, and opened as they are."""
    history = History(scene=scene, plan=scene.plan()).begin()
    _random_states(history, FOUR)


def random_states_at_the_end(scene: Scene) -> None:
    """Squatting by half: two segments are trained, and two random states are sealed after them, in time."""
    history = History(scene=scene, plan=scene.plan()).begin()
    history.train(FOUR[:2])
    _random_states(history, FOUR[2:])


def seals_of_nothing(scene: Scene) -> None:
    """Squatting: random bytes in the place of seals, of which nothing is opened."""
    history = History(scene=scene, plan=scene.plan()).begin()
    _random_seals(history)
    history.finish()


def seals_filled_in(scene: Scene) -> None:
    """Squatting: random seals, filled in afterwards with states that replay."""
    history = History(scene=scene, plan=scene.plan()).begin()
    seals = _random_seals(history)
    history.finish()
    rightly = History(
        scene=scene, plan=history.plan, target=scene.target.with_name(f"{scene.target.name}-later")
    )
    rightly.train(FOUR, anchored=False)
    ends = [entry.seal for entry in rightly.entries if isinstance(entry, Segment)]
    for seal, end in zip(seals, ends, strict=True):
        history.files.write(opening_path(seal), rightly.files.read(opening_path(end), 1 << 20))
    _take(rightly.path, history.path)


def _both(scene: Scene) -> tuple[History, History]:
    """The owner's log, and a thief's of the same plan, both begun in time."""
    plan = scene.plan()
    victim = History(scene=scene, plan=plan, target=scene.target.with_name(f"{scene.target.name}-victim"))
    return victim.begin(), History(scene=scene, plan=plan, owner=scene.thief).begin()


def _mirror(scene: Scene) -> History:
    victim, thief = _both(scene)
    copied = 0
    for slot in FOUR:
        victim.train((slot,))
        for entry in victim.entries[copied:]:
            thief.append(entry)
        copied = len(victim.entries)
        thief.publish()
        thief.anchor()
    victim.finish()
    thief.state = victim.state
    thief.segments = victim.segments
    thief.finish()
    return thief


def _take(source: Path, target: Path) -> None:
    """Copies all blobs and openings that are not there."""
    for directory in ("blobs", "openings"):
        for file in (source / directory).rglob("*"):
            own = target / file.relative_to(source)
            if file.is_file() and not own.exists():
                own.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, own)


def _random_states(history: History, slots: Sequence[int]) -> None:
    for slot in slots:
        history.reach(slot)
        history.draw(slot)
        if not history.state:
            history.initial()
        history.state = {name: torch.randn_like(t) for name, t in history.state.items()}
        _seal(history)
    history.finish()


def _seal(history: History, seal: bytes = b"") -> None:
    """Seals the state as it is, or whatever is given, as the end of the next segment, in time."""
    steps = history.manifest.plan.steps_of(history.segments)
    losses = history.writer.put(encode_losses([1.0] * len(steps)))
    history.append(
        Segment(
            index=history.segments,
            first_step=steps.start,
            steps=len(steps),
            seal=seal or history.seal(),
            losses=losses,
        )
    )
    history.segments += 1
    history.publish()
    history.anchor()


def _random_seals(history: History) -> list[bytes]:
    seals = []
    for slot in FOUR:
        history.reach(slot)
        history.draw(slot)
        if not history.state:
            history.initial()
        seals.append(torch.randint(0, 256, (32,), dtype=torch.uint8).numpy().tobytes())
        _seal(history, seals[-1])
    return seals
