"""What one step computes, whole: the state's layout, a graph for each batch size, an optimizer.

The program is sealed before step 0 and is all that a replay runs. Knows no torch.
Format: docs/spec/program.md, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gradseal.errors import MalformedBundle
from gradseal.program.clipping import ClipNorm, clip_from_fields
from gradseal.program.graph import Graph
from gradseal.program.operators import GETITEM
from gradseal.program.optimizers import Optimizer, optimizer_from_fields
from gradseal.program.schedule import Schedule
from gradseal.program.tensors import TensorSpec, check_unique
from gradseal.proof.canonical import decode, encode
from gradseal.proof.fields import Fields

FORMAT = "gradseal/program-v1"
MAX_PROGRAM_BYTES = 64 << 20
MAX_TENSORS = 200_000
MAX_SHAPES = 16
_PARTS = ("parameters", "buffers", "optimizer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A run's program, with its graphs named by digest.

    Args:
        layout: Every tensor of the state, in the order in which a state lists them: `parameters/…`,
            `buffers/…`, then `optimizer/…`.
        constants: The graphs' constant tensors, by index.
        graphs: The digest of the graph for each batch size.
        optimizer: How parameters follow from gradients.
        clip: What is done to gradients before, if anything.
        schedule: Which of the optimizer's hyperparameters change, and how, if any do.
    """

    layout: tuple[TensorSpec, ...]
    constants: tuple[TensorSpec, ...]
    graphs: Mapping[int, bytes]
    optimizer: Optimizer
    clip: ClipNorm | None = None
    schedule: Schedule | None = None

    def encode(self) -> bytes:
        """The canonical bytes that its digest is taken of."""
        return encode(
            {
                "format": FORMAT,
                "layout": [s.to_json() for s in self.layout],
                "constants": [s.to_json() for s in self.constants],
                "graphs": [
                    {"batch_size": size, "graph": digest.hex()}
                    for size, digest in sorted(self.graphs.items())
                ],
                "optimizer": self.optimizer.to_json(),
                "clip": self.clip.to_json() if self.clip else None,
                "schedule": self.schedule.to_json() if self.schedule else None,
            }
        )

    @classmethod
    def decode(cls, data: bytes, *, where: str) -> Program:
        """Reads a program from an untrusted blob.

        Raises:
            MalformedBundle: Not the format, over a limit, or an optimizer tensor that the layout lacks.
            UnknownKind: A format, an optimizer or a clipping that this version does not know.
        """
        fields = Fields(decode(data, where=where, max_bytes=MAX_PROGRAM_BYTES), where)
        fields.kind("format", [FORMAT])
        optimizer = optimizer_from_fields(fields.object("optimizer"))
        program = cls(
            layout=tuple(TensorSpec.from_fields(f) for f in fields.objects("layout", MAX_TENSORS)),
            constants=tuple(TensorSpec.from_fields(f) for f in fields.objects("constants", MAX_TENSORS)),
            graphs=_graphs_from_fields(fields),
            optimizer=optimizer,
            clip=None if fields.raw("clip") is None else clip_from_fields(fields.object("clip")),
            schedule=_schedule_from_fields(fields, optimizer),
        )
        fields.end()
        check_unique(program.layout, fields.where("layout"))
        check_unique(program.constants, fields.where("constants"))
        program.check(where)
        return program

    def trained(self) -> tuple[str, ...]:
        """The parameters that are trained, in the layout's order."""
        trained = set(self.optimizer.parameters())
        names = (s.name.removeprefix("parameters/") for s in self.layout if s.name.startswith("parameters/"))
        return tuple(name for name in names if name in trained)

    def check(self, where: str) -> None:
        """Refuses an optimizer that trains or keeps what the layout does not hold."""
        specs = {s.name: s for s in self.layout}
        parts = [s.name.partition("/")[0] if s.name.partition("/")[2] else "" for s in self.layout]
        if any(part not in _PARTS for part in parts) or parts != sorted(parts, key=_PARTS.index):
            raise MalformedBundle("the layout is not parameters/…, buffers/…, optimizer/…", where=where)
        for parameter in self.optimizer.parameters():
            if f"parameters/{parameter}" not in specs:
                raise MalformedBundle(
                    f"the optimizer trains {parameter!r}, which is not in the layout", where=where
                )
        types = {specs[f"parameters/{parameter}"].dtype for parameter in self.optimizer.parameters()}
        if self.clip is not None and len(types) > 1:
            # In which order torch adds up the norms of several types is its own affair.
            raise MalformedBundle(
                f"clips gradients of several types: {', '.join(sorted(types))}", where=where
            )
        self._check_kept(specs, where)

    def _check_kept(self, specs: Mapping[str, TensorSpec], where: str) -> None:
        """Refuses optimizer tensors other than those that the optimizer keeps, in its order."""
        found = [name for name in specs if name.startswith("optimizer/")]
        expected = {kept.name: kept for kept in self.optimizer.tensors()}
        for name, kept in expected.items():
            own, like = specs.get(name), specs[f"parameters/{kept.parameter}"]
            shape = like.shape if kept.shape_like_parameter else ()
            if own is None or (own.shape, own.dtype) != (shape, kept.dtype or like.dtype):
                raise MalformedBundle(
                    f"the layout has no {name!r} of the type and shape that the optimizer keeps", where=where
                )
        if stray := [name for name in found if name not in expected]:
            raise MalformedBundle(
                f"the layout holds {stray[0]!r}, which the optimizer does not keep", where=where
            )
        if found != list(expected):
            raise MalformedBundle("the layout has the optimizer's tensors in another order", where=where)

    def check_graph(self, graph: Graph, where: str) -> None:
        """Refuses a graph that reads or writes what the program does not have."""
        names = {s.name for s in self.layout}
        for value in graph.inputs:
            known = True
            if value.kind == "state":
                known = value.key in names and not str(value.key).startswith("optimizer/")
            if value.kind == "constant":
                known = int(value.key) < len(self.constants)
            if not known:
                raise MalformedBundle(f"reads {value.kind} {value.key!r}, which is not there", where=where)
        trained = set(self.optimizer.parameters())
        for name in graph.gradients:
            if name not in trained:
                raise MalformedBundle(f"a gradient of {name!r}, which is not trained", where=where)
        for name in graph.buffers:
            if f"buffers/{name}" not in names:
                raise MalformedBundle(f"a new value of buffer {name!r}, which is not there", where=where)


def same_structure(first: Graph, second: Graph) -> bool:
    """Whether two graphs are the same operators on the same values, whatever their numbers."""
    if (first.inputs, first.loss) != (second.inputs, second.loss):
        return False
    if dict(first.gradients) != dict(second.gradients) or dict(first.buffers) != dict(second.buffers):
        return False
    return len(first.nodes) == len(second.nodes) and all(
        a.operator == b.operator
        and list(a.references()) == list(b.references())
        and (a.operator != GETITEM or a.args == b.args)
        for a, b in zip(first.nodes, second.nodes, strict=True)
    )


def _schedule_from_fields(fields: Fields, optimizer: Optimizer) -> Schedule | None:
    if fields.raw("schedule") is None:
        return None
    schedulable = [group.SCHEDULABLE for group in optimizer.groups]
    return Schedule.from_fields(fields.object("schedule"), schedulable)


def _graphs_from_fields(fields: Fields) -> dict[int, bytes]:
    graphs: dict[int, bytes] = {}
    sizes: list[int] = []
    for item in fields.objects("graphs", MAX_SHAPES):
        size = item.integer("batch_size", 1, 1 << 30)
        graphs[size] = item.digest("graph")
        sizes.append(size)
        item.end()
    if not sizes or sizes != sorted(set(sizes)):
        raise MalformedBundle("batch sizes must rise", where=fields.where("graphs"))
    return graphs
