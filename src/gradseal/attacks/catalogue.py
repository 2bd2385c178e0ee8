"""Every attack on weights by name, ours and those of other packages.

A package offers an attack by an entry point in the group `gradseal.attacks`, which leads to an `Attack`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from gradseal.attacks.attack import Attack
from gradseal.errors import Error

GROUP = "gradseal.attacks"

MODULES: dict[str, str] = {
    "honest": "honest",
    "infinitesimal update": "infinitesimal_update",
    "infinitesimal update, given": "infinitesimal_update_given",
    "blindfold top-Q": "blindfold_top_q",
    "rank-matched start": "rank_matched_start",
    "zhang 1": "zhang_1",
    "zhang 2": "zhang_2",
    "zhang 3": "zhang_3",
    "concatenation": "concatenation",
    "directed retraining": "directed_retraining",
    "inverse gradient": "inverse_gradient",
    "batch forging": "batch_forging",
    "gluing": "gluing",
    "interpolation": "interpolation",
    "data addition": "data_addition",
    "data subtraction": "data_subtraction",
    "head start": "head_start",
    "head start, ruled": "head_start_ruled",
    "drift within tolerance": "drift",
    "jump in mid-run": "jump",
    "best response to sampling": "best_response",
    "lying lengths": "lying_lengths",
    "smuggled constants": "smuggled_constants",
    "smuggled pull": "smuggled_pull",
    "smuggled data": "smuggled_data",
    "distillation": "distillation",
    "late shapes": "late_shapes",
    "grinding seeds": "grinding_seeds",
    "grinding manifests": "grinding_manifests",
    "abort and retry": "abort_and_retry",
    "commitment copying": "commitment_copying",
    "squatting": "squatting",
    "backdating": "backdating",
    "honest dated": "honest_dated",
    "smuggled data dated": "smuggled_data_dated",
}
"""For each of ours the module of `gradseal.attacks` that has it as `ATTACK`, in the order of the tables."""


def attack_names() -> list[str]:
    """The names of all attacks, ours first; loads none."""
    return [*MODULES, *sorted({point.name for point in _points()} - set(MODULES))]


def load_attack(name: str) -> Attack:
    """The attack of a name; hyphens, underscores and capitals make no difference.

    Raises:
        Error: There is none, or what another package offers is none.
    """
    name = next((known for known in attack_names() if _plain(known) == _plain(name)), name)
    if name in MODULES:
        own: Attack = import_module(f"gradseal.attacks.{MODULES[name]}").ATTACK
        return own
    point = next((point for point in _points() if point.name == name), None)
    if point is None:
        raise Error(
            f"no attack is called {name!r}", where="attack", advice=f"there are: {'; '.join(attack_names())}"
        )
    where = f"entry point {name!r} of {point.dist.name if point.dist else 'a package'}"
    try:
        found = point.load()
    except Exception as e:
        raise Error(f"cannot be loaded: {type(e).__name__}: {e}", where=where) from e
    if not isinstance(found, Attack):
        raise Error(f"leads to {type(found).__name__}, not to an Attack", where=where)
    return found


def _plain(name: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def _points() -> Sequence[EntryPoint]:
    return list(entry_points(group=GROUP))
