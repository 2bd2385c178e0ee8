"""Tries whether permuting hidden units leaves a model as it is, by the bundle's own graph.

Runs in a worker's process, as replays do, on what is read and hashed again. At a sealed state the graph is
run on two batches, once as it is and once with each group permuted. Only the difference between the batches
is looked at, of the loss and of every gradient: what a loss has beside the data, a pull to other weights
say, is the same in both and falls out. A group is valid if the difference of the losses stays, and that of
the gradients is permuted alike, up to rounding. Dropout is switched off for that, since it draws for places
and not for units; what else is drawn makes a group invalid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from gradseal.program.batches import collate
from gradseal.program.graph import Graph, Node
from gradseal.program.interpret import Interpreter
from gradseal.program.seeds import Seeds
from gradseal.proof.files import Files
from gradseal.proof.manifest import Manifest
from gradseal.verify.contents import Contents, order_of
from gradseal.verify.samples import SampleReader
from gradseal.verify.sealed import read_constants, read_sealed
from gradseal.verify.symmetry import Group, Probe, Probed, by_tensor

TOLERANCE = 1e-3
"""Relative: far above rounding in float32, and far below what an order of units does that matters."""

_ROUNDING = 1e-6
"""Of a loss, in float32."""

_ALWAYS = {"aten.native_dropout.default": 0.0, "aten.bernoulli_.float": 1.0, "aten.bernoulli.p": 1.0}
"""For each operator that dropout is made of, the p by which nothing is dropped."""
_SEED = 0

State = Mapping[str, torch.Tensor]
Places = Mapping[str, Sequence[tuple[int, torch.Tensor]]]
"""Of each tensor that is permuted the axes, each with the places that it is taken from."""


def probe_groups(
    files: Files,
    manifest: Manifest,
    contents: Contents,
    seeds: Seeds,
    probe: Probe,
    *,
    device: torch.device,
    alive: Callable[[], None],
) -> Probed:
    """Which of a probe's groups may be permuted.

    Args:
        files: The bundle.
        manifest: Entry 0.
        contents: What it names.
        seeds: The run's.
        probe: The state and the candidates.
        device: Where to compute.
        alive: Called after each run of the graph.

    Raises:
        ReplayError: The graph cannot be run.
        CorruptBlob, MissingFile, MalformedBundle: What it needs is not what it was, or not there.
    """
    state = read_sealed(files, manifest, contents, probe.state, device)
    latest = contents.each[-1]
    order = order_of(manifest, seeds)
    first = SampleReader(files, manifest.data, contents.schema).samples(order.indices(0))
    half = first[: (len(first) + 1) // 2]
    batches = [collate(contents.schema, rows, device) for rows in (first, (half + half)[: len(first)])]
    graph = without_dropout(latest.graphs[len(first)])
    interpreter = Interpreter(graph, read_constants(files, latest, seeds, device), device, guarded=True)
    plain = _difference(interpreter, state, batches)
    alive()
    valid = []
    for number, group in enumerate(probe.groups):
        places = places_of(group)
        if _same(plain, _difference(interpreter, permuted(state, places), batches), places):
            valid.append(number)
        alive()
    return Probed(valid=tuple(valid))


def without_dropout(graph: Graph) -> Graph:
    """The same graph with every dropout's probability zero."""
    return replace(graph, nodes=tuple(map(_kept, graph.nodes)))


def _kept(node: Node) -> Node:
    if node.operator not in _ALWAYS:
        return node
    if len(node.args) > 1:
        return replace(node, args=(node.args[0], _ALWAYS[node.operator], *node.args[2:]))
    return replace(node, kwargs={**node.kwargs, "p": _ALWAYS[node.operator]})


def places_of(group: Group) -> Places:
    """One order of the group's units, other than the usual one: of each tensor its axes and places."""
    order = np.random.default_rng(_SEED).permutation(group.units)
    if (order == np.arange(group.units)).all():
        order = np.roll(order, 1)
    return {
        name: [(axis.axis, torch.from_numpy(axis.places(order))) for _, axis in axes]
        for name, axes in by_tensor([(0, group)]).items()
    }


def permuted(tensors: State, places: Places) -> dict[str, torch.Tensor]:
    """The same tensors, some of them permuted."""
    result = dict(tensors)
    for name, axes in places.items():
        for axis, where in axes:
            if name in result:
                result[name] = result[name].index_select(axis, where.to(result[name].device))
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Difference:
    """What two batches differ in: the loss, also how large it is, and the gradients by state name."""

    loss: float
    size: float
    gradients: State


def _difference(
    interpreter: Interpreter, state: State, batches: Sequence[Sequence[torch.Tensor]]
) -> _Difference:
    device = next(iter(state.values())).device.type
    results = []
    for batch in batches:
        with torch.random.fork_rng(devices=[]), torch.autocast(device, enabled=False):
            torch.manual_seed(_SEED)
            results.append(interpreter.run(state, batch))
    one, other = results
    losses = float(one.loss), float(other.loss)
    return _Difference(
        loss=losses[0] - losses[1],
        size=max(map(abs, losses)),
        gradients={
            f"parameters/{name}": gradient.double() - other.gradients[name].double()
            for name, gradient in one.gradients.items()
        },
    )


def _same(plain: _Difference, other: _Difference, places: Places) -> bool:
    """Whether the losses differ by as much, and all gradients together by the same, permuted alike."""
    allowed = TOLERANCE * abs(plain.loss) + _ROUNDING * max(plain.size, other.size)
    if not abs(other.loss - plain.loss) <= allowed < math.inf:
        return False
    away = length = 0.0
    for name, gradient in permuted(plain.gradients, places).items():
        away += float((other.gradients[name] - gradient).square().sum())
        length += float(gradient.square().sum())
    return 0 < length < math.inf and math.sqrt(away) <= TOLERANCE * math.sqrt(length)
