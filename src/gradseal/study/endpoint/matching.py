"""Which hidden units of a run may be renumbered, and how far two models are apart once they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment

from gradseal.precede.log import read_log
from gradseal.proof.bundle import open_bundle
from gradseal.record.presented import Presented, State
from gradseal.store.files import FsspecFiles
from gradseal.verify.contents import read_contents
from gradseal.verify.probing import probe_groups
from gradseal.verify.symmetry import Axis, Group, Probe, by_tensor, candidates

_ROUNDS = 20


def hidden_units(run: Presented) -> tuple[Group, ...]:
    """The groups of hidden units of a run that is not yet begun; seals its state zero."""
    run.begin()
    files = FsspecFiles(str(run.target))
    bundle = open_bundle(files)
    log = read_log(run.manifest, bundle.all_entries())
    seeds = log.seeds()
    groups = candidates(read_contents(files, run.manifest).program.layout)
    if seeds is None:
        return ()
    probed = probe_groups(
        files,
        run.manifest,
        read_contents(files, run.manifest),
        seeds,
        Probe(state=log.seals[0], groups=groups),
        device=torch.device("cpu"),
        alive=lambda: None,
    )
    return tuple(groups[number] for number in probed.valid)


def matched_distance(one: State, other: State, groups: Sequence[Group]) -> float:
    """The distance after the other's hidden units took the order in which they fit best.

    Weight matching: one layer after another, the order that maximises the inner product with all others
    fixed, until none gets better: a local optimum, and so an upper bound of the least distance. Source:
    S. Ainsworth, J. Hayase, S. Srinivasa 2023, "Git Re-Basin: Merging Models modulo Permutation Symmetries".
    """
    fixed = {name: tensor.double().numpy() for name, tensor in one.items()}
    moved = {name: tensor.double().numpy() for name, tensor in other.items()}
    for _ in range(_ROUNDS):
        changed = False
        for group in groups:
            axes = [axis for axis in group.axes if axis.tensor in fixed]
            gain = sum(_gain(fixed[a.tensor], moved[a.tensor], a, group.units) for a in axes)
            _, order = linear_sum_assignment(gain, maximize=True)
            if (order != np.arange(group.units)).any():
                changed = True
                for name, own in by_tensor([(0, group)]).items():
                    for _, axis in own if name in moved else ():
                        moved[name] = moved[name].take(axis.places(order), axis=axis.axis)
        if not changed:
            break
    return float(np.sqrt(sum(float(np.square(moved[n] - fixed[n]).sum()) for n in fixed)))


def _gain(
    one: npt.NDArray[np.float64], other: npt.NDArray[np.float64], axis: Axis, units: int
) -> npt.NDArray[np.float64]:
    """For each unit of the one and each of the other their inner product on an axis."""
    rows = (np.moveaxis(values, axis.axis, 0).reshape(units, -1) for values in (one, other))
    first, second = rows
    return np.asarray(first @ second.T, dtype=np.float64)
