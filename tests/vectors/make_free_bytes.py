"""Whole programs and what is counted of them, docs/spec/program.md section 8: a part of `documents.json`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from typing import Any

from gradseal.program.clipping import ClipNorm
from gradseal.program.graph import Argument, Graph, Input, Node, Ref
from gradseal.program.native import Environment
from gradseal.program.optimizers import SGD, Adam, AdamGroup, Optimizer, SGDGroup
from gradseal.program.program import Program
from gradseal.program.release import Release
from gradseal.program.rules import Constant, Normal, Rule
from gradseal.program.samples import SampleSchema
from gradseal.program.scalars import Formula, Free
from gradseal.program.scalars import Named as NamedScalar
from gradseal.program.sources import Given, Initialisation
from gradseal.program.tensors import TensorSpec
from gradseal.proof.canonical import float_from_bits
from gradseal.verify.contents import Contents
from gradseal.verify.initialisation import count_free_bytes

Vectors = dict[str, Any]

_ZERO = Constant(number=NamedScalar(name="0"))
_SCALED = Normal(mean=NamedScalar(name="0"), std=Formula(negative=False, p=1, q=1, fan=3))
_FREE = Constant(number=Free(number=0.3))


def free_bytes_of_runs(environment: Environment) -> list[Vectors]:
    """One with next to nothing, one for shapes, one for numbers of several graphs, one for an optimizer.

    Args:
        environment: Of all of them; nothing of it is counted.
    """
    case = partial(_case, environment)
    return [
        case("next to nothing", {"parameters/w": (3,)}, {}, {4: _graph()}, _sgd("w"), [_ZERO]),
        case(
            "shapes: 2 counts, 3 and 4 are a parameter's, and 1 is none",
            {"parameters/w": (4, 3), "buffers/a": (5, 3, 1), "buffers/b": (2, 5)},
            {"c": (2, 6), "d": (4,), "e": (0, 7)},
            {4: _graph()},
            _sgd("w"),
            [_SCALED, _ZERO, _FREE, _FREE, _ZERO, Given(digest=sha256(b"").digest())],
        ),
        case(
            "numbers of three graphs, the largest batch first",
            {"parameters/w": (3,)},
            {},
            {16: _numbers(), 8: _more_numbers(), 2: _numbers()},
            _sgd("w"),
            [_ZERO],
        ),
        case(
            "hyperparameters, a bound for clipping and a choice of three groups",
            {f"parameters/{name}": (3,) for name in "abcde"},
            {},
            {4: _graph()},
            _adam(),
            [_SCALED, _ZERO, _SCALED, _ZERO, Given(digest=bytes(32)), *[_ZERO] * 10],
            clip=ClipNorm(max_norm=0.75),
        ),
    ]


def _case(
    environment: Environment,
    about: str,
    layout: Mapping[str, tuple[int, ...]],
    constants: Mapping[str, tuple[int, ...]],
    graphs: Mapping[int, Graph],
    optimizer: Optimizer,
    sources: list[Rule | Given],
    clip: ClipNorm | None = None,
) -> Vectors:
    shapes = {**layout, **{kept.name: (3,) for kept in optimizer.tensors()}}
    program = Program(
        layout=tuple(TensorSpec(name=n, dtype="float32", shape=s) for n, s in shapes.items()),
        constants=tuple(TensorSpec(name=n, dtype="float32", shape=s) for n, s in constants.items()),
        graphs={size: sha256(graph.encode()).digest() for size, graph in graphs.items()},
        optimizer=optimizer,
        clip=clip,
    )
    initialisation = Initialisation(
        state=tuple(sources[: len(shapes)]), constants=tuple(sources[len(shapes) :])
    )
    contents = Contents(
        program=program,
        graphs=graphs,
        initialisation=initialisation,
        release=Release.of({}),
        schema=SampleSchema(tree=TensorSpec(name="sample", dtype="float32", shape=())),
        arithmetic=environment,
    )
    return {
        "reason": about,
        "program": program.encode().decode(),
        "graphs": {str(size): graph.encode().decode() for size, graph in graphs.items()},
        "initialisation": initialisation.encode().decode(),
        "items": [
            {"where": item.where, "name": item.name, "size_bytes": item.size_bytes}
            for item in count_free_bytes(contents)
        ],
    }


def _sgd(*parameters: str) -> Optimizer:
    """All of whose numbers are such as are not counted."""
    return SGD(groups=(SGDGroup(parameters=parameters, lr=0.5, weight_decay=-0.0),))


def _adam() -> Optimizer:
    """Three groups, one without parameters; of the numbers 0.1, 0.0625, 0.9, 0.999 and 1e-8 are counted."""
    groups = [
        AdamGroup(parameters=names, lr=lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0)
        for names, lr in ((("a", "b", "c"), 0.1), ((), 0.0625), (("d", "e"), 0.5))
    ]
    return Adam(groups=tuple(groups), steps_before=1000)


def _graph(*nodes: tuple[str, tuple[Argument, ...], dict[str, Argument]]) -> Graph:
    found = (Node(operator=name, args=args, kwargs=kwargs) for name, args, kwargs in nodes)
    return Graph(
        inputs=(Input(kind="state", key="parameters/w"), Input(kind="batch", key=0)),
        nodes=tuple(found),
        loss=0,
        gradients={},
        buffers={},
    )


def _numbers() -> Graph:
    """Ten uses of nine numbers: 0.1, 3, 2⁵³, a NaN, 7, 5000, −1025, 9 (twice) and 3000."""
    nan = float_from_bits("7ff8000000000001", where="vector")
    return _graph(
        ("aten.add.Tensor", (Ref(0), Ref(1)), {"alpha": 0.1}),
        ("aten.add.Tensor", (Ref(0), 3), {"alpha": 1}),
        ("aten.full.default", ((4, 9), 2**53 + 1), {}),
        ("aten.full.default", ((4,), nan), {}),
        ("aten.fill.Scalar", (Ref(0), 7), {}),
        ("aten.slice.Tensor", (Ref(0), 0, 3, 2**63 - 1), {}),
        ("aten.slice.Tensor", (Ref(0), 0, 3, 5000), {}),
        ("aten.view.default", (Ref(0), (1024, -1025)), {}),
        ("aten.arange.start", (9, 9), {}),
        ("aten.masked_fill.Scalar", (Ref(0), Ref(1), float("-inf")), {}),
        ("getitem", (Ref(0), 3000), {}),
    )


def _more_numbers() -> Graph:
    """Four uses: 0.1 and 3 again, 2⁵³ written as a float, and the least integer of 64 bits, a value here."""
    return _graph(
        ("aten.add.Tensor", (Ref(0), 0.1), {"alpha": 3}),
        ("aten.mul.Tensor", (Ref(0), 2.0**53), {}),
        ("aten.add.Scalar", (Ref(0), -(2**63), True), {}),
        ("aten.view.default", (Ref(0), (-(2**63), 64)), {}),
    )
