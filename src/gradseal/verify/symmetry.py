"""Hidden units that may change places: which tensors to permute together so that a model stays the same.

Candidates are found by the shapes of a layout alone: a weight's output axis, the one-dimensional tensors
behind it of that size, and the next weight's input axis, or blocks of it where a feature map was flattened.
Whether permuting one leaves the model's function as it is, only its graph can tell: `probing` tries it, in a
worker. Units that several layers share, as in a residual stream, and those of attention are not candidates.
Knows no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gradseal.program.tensors import TensorSpec

MOST_GROUPS = 64
"""More candidates are not tried: each takes a run of the graph."""

_PARAMETERS, _BUFFERS = "parameters/", "buffers/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis of a state's tensor on which hidden units lie.

    Args:
        tensor: Its name in the layout.
        axis: Which axis.
        block: How many neighbours on it belong to one unit.
    """

    tensor: str
    axis: int
    block: int

    def places(self, order: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Where each place of the axis is taken from if the units come in this order."""
        first = np.asarray(order, dtype=np.int64)[:, None] * self.block
        return (first + np.arange(self.block)).ravel()


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Hidden units of one layer.

    Args:
        units: How many.
        axes: Where they lie; each tensor once.
    """

    units: int
    axes: tuple[Axis, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A question to a worker: which groups may be permuted?

    Args:
        state: The seal of the state at which it is tried.
        groups: The candidates.
    """

    state: bytes
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """The answer: the numbers of the groups of which a permutation changed nothing, ascending."""

    valid: tuple[int, ...]


def candidates(layout: Sequence[TensorSpec]) -> tuple[Group, ...]:
    """The groups that a layout's names and shapes suggest, at most `MOST_GROUPS`."""
    parameters = [s for s in layout if s.name.startswith(_PARAMETERS)]
    buffers = _buffers_by_module(layout)
    weights = [i for i, spec in enumerate(parameters) if len(spec.shape) > 1]
    found = []
    for producer, consumer in pairwise(weights):
        group = _group(
            parameters[producer], parameters[producer + 1 : consumer], parameters[consumer], buffers
        )
        if group is not None:
            found.append(group)
    return tuple(found[:MOST_GROUPS])


def _group(
    producer: TensorSpec,
    between: Iterable[TensorSpec],
    consumer: TensorSpec,
    buffers: Mapping[str, Sequence[TensorSpec]],
) -> Group | None:
    units, inputs = producer.shape[0], consumer.shape[1]
    if units < 2 or not inputs or inputs % units:
        return None
    axes = [Axis(tensor=producer.name, axis=0, block=1)]
    modules: dict[str, None] = {}
    for spec in between:
        if spec.shape == (units,):
            axes.append(Axis(tensor=spec.name, axis=0, block=1))
            modules[_module(spec.name)] = None
    for module in modules:
        axes += [
            Axis(tensor=own.name, axis=0, block=1) for own in buffers.get(module, ()) if own.shape == (units,)
        ]
    axes.append(Axis(tensor=consumer.name, axis=1, block=inputs // units))
    return Group(units=units, axes=tuple(axes))


def _buffers_by_module(layout: Sequence[TensorSpec]) -> dict[str, list[TensorSpec]]:
    found: dict[str, list[TensorSpec]] = {}
    for spec in layout:
        if spec.name.startswith(_BUFFERS):
            found.setdefault(_module(spec.name), []).append(spec)
    return found


def _module(name: str) -> str:
    """The module that a tensor is of, by its name in the layout."""
    return name.partition("/")[2].rpartition(".")[0]


def by_tensor(groups: Iterable[tuple[int, Group]]) -> dict[str, list[tuple[int, Axis]]]:
    """For each tensor the axes on which it is permuted, with the number of the group whose order it takes."""
    found: dict[str, list[tuple[int, Axis]]] = {}
    for number, group in groups:
        for axis in group.axes:
            found.setdefault(axis.tensor, []).append((number, axis))
    return found


def orders(groups: Sequence[Group], generator: np.random.Generator) -> list[npt.NDArray[np.int64]]:
    """An order of each group's units, drawn uniformly and independently."""
    return [generator.permutation(group.units) for group in groups]


def groups_to_json(groups: Iterable[Group]) -> list[list[list[str | int]]]:
    """For a worker's request: of each group, each axis as a list, and the units in front of it."""
    return [[[group.units, a.tensor, a.axis, a.block] for a in group.axes] for group in groups]


def groups_from_json(value: Iterable[Iterable[Sequence[int | str]]]) -> Iterator[Group]:
    """The same read back, by a worker; it comes from the verifier."""
    for rows in value:
        listed = [(int(u), str(t), int(a), int(b)) for u, t, a, b in rows]
        axes = tuple(Axis(tensor=tensor, axis=axis, block=block) for _, tensor, axis, block in listed)
        yield Group(units=listed[0][0], axes=axes)
