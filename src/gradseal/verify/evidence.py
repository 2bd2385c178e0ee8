"""What replays are evidence of: which data they used, whether they moved anything, what was released.

A replay that leaves every parameter as it was says nothing of how the parameters came about, and a program
whose gradients do not read the batch would replay on any data. Both are facts of the record alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gradseal.precede.log import Log
from gradseal.program.graph import Graph
from gradseal.program.order import SHUFFLED
from gradseal.verify.contents import Contents, order_of

_NAMED = 8
_LIKE = ("ones", "zeros", "full", "empty", "rand", "randn", "randint")
_NEW = ("ones", "zeros", "full", "empty", "empty_strided")
_SHAPE_ONLY = frozenset(
    [*(f"aten.{name}_like.default" for name in _LIKE), *(f"aten.new_{name}.default" for name in _NEW)]
)
"""Operators that read a tensor for its shape alone: a backward pass begins with `ones_like` of the loss."""


def samples_used(log: Log, segments: Iterable[int]) -> int:
    """How many different samples the steps of these segments see."""
    plan, samples = log.manifest.plan, log.manifest.data.samples
    seeds = log.seeds()
    if seeds is None:
        return 0
    order = order_of(log.manifest, seeds)
    used, size = np.zeros(samples, dtype=np.bool_), plan.batch_size
    for segment in sorted(segments):
        steps = plan.steps_of(segment)
        for number in range(steps.start * plan.accumulate, steps.stop * plan.accumulate):
            if order.rule == SHUFFLED:
                used[order.indices(number)] = True
            else:  # a slice, where `indices` would count through the whole data set
                batch = number % order.batches_per_epoch
                used[batch * size : (batch + 1) * size] = True
        if used.all():
            break
    return int(used.sum())


def order_said(rule: str) -> str:
    """The order of the samples, and where it comes from."""
    ground = "from the seed" if rule == SHUFFLED else "the data set's own order, not from the seed"
    return f"order {rule!r}, {ground}"


def still_segments(parameters: list[bytes], segments: Iterable[int]) -> list[int]:
    """Those of the segments that end with the parameters that they began with.

    Args:
        parameters: For each state, state zero first, the digest of its parameters' digests.
        segments: Which segments are asked about.
    """
    return [i for i in segments if parameters[i] == parameters[i + 1]]


def blind_graphs(contents: Contents) -> list[int]:
    """The batch sizes in whose graph no gradient depends on the batch."""
    blind = {
        size
        for own in contents.each
        for size, graph in own.graphs.items()
        if not _batch_read(graph, graph.gradients.values())
    }
    return sorted(blind)


def unread_fields(contents: Contents) -> tuple[str, ...]:
    """The batch's fields that neither a gradient nor the loss depends on, in some graph or other."""
    fields = contents.schema.fields
    graphs = [graph for own in contents.each for graph in own.graphs.values()]
    read = [_batch_read(graph, (graph.loss, *graph.gradients.values())) for graph in graphs]
    return tuple(f.name for i, f in enumerate(fields) if not all(i in keys for keys in read))


def released_parameters(contents: Contents) -> tuple[int, int]:
    """How many parameters are released, and of how many."""
    released = set(contents.release.tensors.values())
    parameters = [s.name for s in contents.program.layout if s.name.startswith("parameters/")]
    return sum(name in released for name in parameters), len(parameters)


def listed(names: tuple[str, ...]) -> str:
    """The first few names, cut short: they are the owner's."""
    said = ", ".join(repr(name[:64]) for name in names[:_NAMED])
    return said + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _batch_read(graph: Graph, values: Iterable[int]) -> set[int]:
    """The batch's fields, by number, whose values these values may depend on."""
    needed, inputs = set(values), len(graph.inputs)
    for number in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[number]
        if inputs + number in needed:
            read = list(node.references())
            needed.update(read[1:] if node.operator in _SHAPE_ONLY else read)
    return {int(i.key) for value, i in enumerate(graph.inputs) if i.kind == "batch" and value in needed}
