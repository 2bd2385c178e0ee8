"""What one step computes before the optimizer: a straight line of named operators.

A graph takes the parameters, the buffers, the batch and the constants, and gives the loss, the gradients and
the buffers' new values. It is data: parsing one runs nothing, and a name outside the closed list of
`operators` is refused here, before any tensor exists. Knows no torch; `capture` makes graphs, `interpret`
runs them. Format: docs/spec/program.md, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, cast

from gradseal.errors import MalformedBundle, UnknownKind
from gradseal.program.operators import GETITEM, OPERATORS, REMOVABLE
from gradseal.proof.canonical import (
    Json,
    decode,
    encode,
    float_from_bits,
    float_to_bits,
    integer_from_json,
    integer_to_json,
)
from gradseal.proof.fields import Fields

FORMAT = "gradseal/graph-v1"
MAX_GRAPH_BYTES = 64 << 20
MAX_NODES = 200_000
MAX_ARGUMENTS = 64
MAX_LIST = 4096
MAX_NESTING = 3
MAX_EXACT_INTEGER = (1 << 53) - 1

NAMED: Mapping[str, frozenset[str]] = {
    "dtype": frozenset(
        ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"],
    ),
    "memory_format": frozenset(["contiguous", "preserve", "channels_last", "channels_last_3d"]),
    "layout": frozenset(["strided"]),
    "device": frozenset(["run"]),
}
"""Arguments that are neither numbers nor tensors. The device is always the one the run is on."""


@dataclass(frozen=True, slots=True)
class Ref:
    """The value that input or node number `value` gave."""

    value: int


@dataclass(frozen=True, slots=True)
class Named:
    """An argument out of `NAMED`."""

    kind: str
    name: str


Argument: TypeAlias = "bool | int | float | str | Ref | Named | tuple[Argument, ...] | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """Where a value of the graph comes from: a state tensor, a leaf of the batch, or a listed constant."""

    kind: str
    key: str | int


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operator and its arguments."""

    operator: str
    args: tuple[Argument, ...]
    kwargs: Mapping[str, Argument]

    def references(self) -> Iterator[int]:
        """The values it reads, in order, with repetition."""
        for argument in (*self.args, *self.kwargs.values()):
            yield from _references(argument)

    def encode(self) -> bytes:
        """Its canonical bytes, in which NaN equals NaN, and 1, 1.0 and true differ."""
        return encode(_node_to_json(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A step's computation for one batch shape.

    Args:
        inputs: Values 0 to `len(inputs) - 1`.
        nodes: Values from there on; each reads earlier values only.
        loss: The value that is the scalar loss.
        gradients: For each parameter that is trained, by state name, the value that is its gradient; a
            parameter that the loss does not reach is absent.
        buffers: For each buffer that the step changes, by state name, its new value.
    """

    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    loss: int
    gradients: Mapping[str, int]
    buffers: Mapping[str, int]

    def outputs(self) -> Iterator[int]:
        """Every value that must outlive the last node."""
        yield self.loss
        yield from self.gradients.values()
        yield from self.buffers.values()

    def last_uses(self) -> list[tuple[int, ...]]:
        """For each node, the values that nothing reads after it."""
        kept = set(self.outputs())
        seen: set[int] = set()
        uses: list[tuple[int, ...]] = []
        for number in range(len(self.nodes) - 1, -1, -1):
            own = {len(self.inputs) + number, *self.nodes[number].references()}
            uses.append(tuple(sorted(own - seen - kept)))
            seen |= own
        return uses[::-1]

    def encode(self) -> bytes:
        """The canonical bytes that its digest is taken of."""
        return encode(
            {
                "format": FORMAT,
                "inputs": [[i.kind, i.key] for i in self.inputs],
                "nodes": [_node_to_json(n) for n in self.nodes],
                "loss": self.loss,
                "gradients": dict(self.gradients),
                "buffers": dict(self.buffers),
            }
        )

    @classmethod
    def decode(cls, data: bytes, *, where: str) -> Graph:
        """Reads a graph from an untrusted blob.

        Raises:
            MalformedBundle: Not the format, or over a limit.
            UnknownKind: An unknown format, or an operator that is not in the closed list.
        """
        fields = Fields(decode(data, where=where, max_bytes=MAX_GRAPH_BYTES), where)
        fields.kind("format", [FORMAT])
        inputs = tuple(_input_from_json(i, where) for i in fields.array("inputs", MAX_NODES))
        nodes = tuple(
            _node_from_json(n, number, len(inputs), where)
            for number, n in enumerate(fields.array("nodes", MAX_NODES))
        )
        total = len(inputs) + len(nodes)
        loss = fields.integer("loss", 0, total - 1)
        gradients = _outputs_from_json(fields, "gradients", total)
        buffers = _outputs_from_json(fields, "buffers", total)
        fields.end()
        return cls(inputs=inputs, nodes=nodes, loss=loss, gradients=gradients, buffers=buffers)


def renumber_constants(graph: Graph, positions: Sequence[int]) -> Graph:
    """The same graph with constant i read from position `positions[i]`."""
    inputs = tuple(
        Input(kind="constant", key=positions[int(i.key)]) if i.kind == "constant" else i for i in graph.inputs
    )
    return replace(graph, inputs=inputs)


def without_dead_values(graph: Graph) -> Graph:
    """The same graph without operators that only name a value nothing uses."""
    offset = len(graph.inputs)
    used = set(graph.outputs())
    for number in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[number]
        if node.operator not in REMOVABLE or offset + number in used:
            used.update(node.references())
    kept = [
        n for n in range(len(graph.nodes)) if graph.nodes[n].operator not in REMOVABLE or offset + n in used
    ]
    number_of = {n: n for n in range(offset)} | {offset + old: offset + new for new, old in enumerate(kept)}
    return Graph(
        inputs=graph.inputs,
        nodes=tuple(_renumber(graph.nodes[n], number_of) for n in kept),
        loss=number_of[graph.loss],
        gradients={name: number_of[v] for name, v in graph.gradients.items()},
        buffers={name: number_of[v] for name, v in graph.buffers.items()},
    )


def _renumber(node: Node, number_of: Mapping[int, int]) -> Node:
    def moved(argument: Argument) -> Argument:
        if isinstance(argument, Ref):
            return Ref(number_of[argument.value])
        return tuple(moved(a) for a in argument) if isinstance(argument, tuple) else argument

    return Node(
        operator=node.operator,
        args=tuple(moved(a) for a in node.args),
        kwargs={name: moved(a) for name, a in node.kwargs.items()},
    )


def _references(argument: Argument) -> Iterator[int]:
    if isinstance(argument, Ref):
        yield argument.value
    elif isinstance(argument, tuple):
        for part in argument:
            yield from _references(part)


def _node_to_json(node: Node) -> Json:
    args: list[Json] = [_argument_to_json(a) for a in node.args]
    if not node.kwargs:
        return [node.operator, args]
    return [node.operator, args, {name: _argument_to_json(a) for name, a in node.kwargs.items()}]


def _argument_to_json(argument: Argument) -> Json:
    match argument:
        case Ref(value):
            return {"ref": value}
        case Named(kind, name):
            return {kind: name}
        case bool() | None | str():
            return argument
        case int():
            return argument if abs(argument) <= MAX_EXACT_INTEGER else {"int": integer_to_json(argument)}
        case float():
            return {"float": float_to_bits(argument)}
        case tuple():
            return [_argument_to_json(a) for a in argument]


def _node_from_json(value: Json, number: int, inputs: int, where: str) -> Node:
    where = f"{where}: nodes[{number}]"
    if not isinstance(value, list) or len(value) not in (2, 3):
        raise MalformedBundle(
            "a node is [operator, arguments] or [operator, arguments, named arguments]", where=where
        )
    operator, args = value[0], value[1]
    kwargs = value[2] if len(value) == 3 else {}
    if not (isinstance(operator, str) and isinstance(args, list) and isinstance(kwargs, dict)):
        raise MalformedBundle("a node is a text, a list and an object", where=where)
    if len(value) == 3 and not kwargs:
        raise MalformedBundle("named arguments, where there are none, are left out", where=where)
    if operator != GETITEM and operator not in OPERATORS:
        raise UnknownKind(f"operator {operator[:100]!r} is not one this version knows", where=where)
    if len(args) > MAX_ARGUMENTS or len(kwargs) > MAX_ARGUMENTS:
        raise MalformedBundle(f"more than {MAX_ARGUMENTS} arguments", where=where)
    limit = inputs + number
    node = Node(
        operator=operator,
        args=tuple(_argument_from_json(a, limit, 0, where) for a in args),
        kwargs={name: _argument_from_json(a, limit, 0, where) for name, a in kwargs.items()},
    )
    if operator == GETITEM:
        _check_getitem(node, where)
    return node


def _check_getitem(node: Node, where: str) -> None:
    match node.args:
        case (Ref(), int(index)) if not isinstance(index, bool) and index >= 0 and not node.kwargs:
            return
    raise MalformedBundle("getitem takes a value and an index", where=where)


def _argument_from_json(value: Json, limit: int, depth: int, where: str) -> Argument:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        if len(value) > 100:
            raise MalformedBundle("a text argument of more than 100 characters", where=where)
        return value
    if isinstance(value, list):
        if len(value) > MAX_LIST or depth >= MAX_NESTING:
            raise MalformedBundle("a list argument too long or too deep", where=where)
        return tuple(_argument_from_json(v, limit, depth + 1, where) for v in value)
    if len(value) == 1:
        return _tagged_from_json(*next(iter(value.items())), limit, where)
    raise MalformedBundle("not an argument", where=where)


def _tagged_from_json(kind: str, value: Json, limit: int, where: str) -> Argument:
    if kind == "ref":
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < limit:
            raise MalformedBundle(
                f"reference to {value!r}, but only values below {limit} exist here", where=where
            )
        return Ref(value)
    if kind == "float":
        return float_from_bits(value if isinstance(value, str) else "", where=where)
    if kind == "int":
        return _large_integer(value, where)
    if kind in NAMED and isinstance(value, str) and value in NAMED[kind]:
        return Named(kind, value)
    raise MalformedBundle(f"not an argument: {kind[:40]!r}", where=where)


def _large_integer(value: Json, where: str) -> int:
    if not isinstance(value, str):
        raise MalformedBundle("a large integer that is not a text", where=where)
    return integer_from_json(value, where=where)


def _input_from_json(value: Json, where: str) -> Input:
    match value:
        case ["state", str(name)]:
            return Input(kind="state", key=name)
        case [("batch" | "constant") as kind, int(index)] if not isinstance(value[1], bool) and index >= 0:
            return Input(kind=str(kind), key=index)
    raise MalformedBundle("an input is a state tensor, a batch leaf or a constant", where=f"{where}: inputs")


def _outputs_from_json(fields: Fields, name: str, total: int) -> dict[str, int]:
    values = fields.raw(name)
    if not isinstance(values, dict):
        raise MalformedBundle("is not an object", where=fields.where(name))
    for key, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < total:
            raise MalformedBundle(
                f"{value!r} is not a value of the graph", where=fields.where(f"{name}.{key}")
            )
    return cast(dict[str, int], values)
