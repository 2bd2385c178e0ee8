"""Attacks on how the movement of weights is measured: something that depends on the seed hides what does not.

What a verdict must say of each is in docs/reference/attacks.md, and why in docs/theory/precedence.md.
"""

from __future__ import annotations

import os

from gradseal.attacks.history import History
from gradseal.attacks.scene import Scene
from gradseal.attacks.slots import FOUR
from gradseal.precede.hosts import Hosts
from gradseal.proof.bundle import open_bundle
from gradseal.proof.manifest import Manifest
from gradseal.store.files import FsspecFiles

_TWENTY = range(20)


def landing_on_old_weights(scene: Scene) -> None:
    """Weights swing far out for eighteen segments, for the size of their updates; then they land.

    The last program, anchored in time, lands exactly on weights that the owner knew beforehand.
    """
    history = _long(scene, "far out")
    history.train(_TWENTY[:17])
    history.amend(19, _program_of(history, "homing"))
    history.publish()
    history.anchor()
    history.train(_TWENTY[17:])
    history.finish()


def moved_in_one_segment(scene: Scene) -> None:
    """The full batch moves the weights in one of twenty segments alone, noise moves others in the rest."""
    history = _long(scene, "moved once")
    history.train(_TWENTY)
    history.finish()


def infinite_beside(scene: Scene) -> None:
    """The full batch and noise beside, and one number that is infinite: a distance to it is none."""
    _short(scene, "infinite beside")


def tiny_weights(scene: Scene) -> None:
    """The full batch and noise beside; the weights are so small that their squares vanish."""
    _short(scene, "tiny weights")


def weights_in_a_buffer(scene: Scene) -> None:
    """The weights are a buffer that the full batch moves; the only parameter is noise beside them."""
    _short(scene, "weights in a buffer")


def _long(scene: Scene, run: str) -> History:
    history = History(scene=scene, plan=scene.plan(), run=run)
    history.hosts = Hosts(scene.witnesses)
    return history.begin()


def _short(scene: Scene, run: str) -> None:
    history = History(scene=scene, plan=scene.plan(), run=run).begin()
    history.train(FOUR)
    history.finish()


def _program_of(history: History, run: str) -> bytes:
    """The digest of another run's program, all of whose blobs the bundle then has."""
    source = history.scene.runs[run]
    for blob in (source / "blobs").rglob("*"):
        target = history.path / blob.relative_to(source)
        if blob.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(blob, target)
    return Manifest.decode(open_bundle(FsspecFiles(str(source))).all_entries()[0]).program
