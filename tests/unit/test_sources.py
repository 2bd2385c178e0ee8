"""Free bytes: whatever no rule derives is counted, wherever it is put."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest

from gradseal.errors import MalformedBundle, UnknownKind
from gradseal.program.graph import Graph, Input, Node, Ref
from gradseal.program.rules import Constant, Normal, Rule, Uniform
from gradseal.program.scalars import Formula, Free, Named
from gradseal.program.sources import COMMON_NUMBERS, FreeBytes, Given, Initialisation, Source, free_bytes
from gradseal.program.tensors import TensorSpec
from gradseal.proof.canonical import encode, float_to_bits

ZERO, ONE = Constant(number=Named(name="0")), Constant(number=Named(name="1"))
GIVEN = Given(digest=bytes(32))


def specs(*shapes: tuple[int, ...], dtype: str = "float32") -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=f"parameters/{i}", dtype=dtype, shape=s) for i, s in enumerate(shapes))


def counted(
    state: Sequence[tuple[TensorSpec, Source]] = (),
    constants: Sequence[tuple[TensorSpec, Source]] = (),
    graphs: Sequence[Graph] = (),
) -> list[tuple[str, str, int]]:
    own = Initialisation(state=tuple(s for _, s in state), constants=tuple(s for _, s in constants))
    found = free_bytes(
        own,
        [s for s, _ in state],
        [s for s, _ in constants],
        [(f"graph {i}", g) for i, g in enumerate(graphs)],
    )
    assert all(isinstance(f, FreeBytes) for f in found)
    return [(f.where, f.name, f.size_bytes) for f in found]


def graph(*nodes: tuple[str, tuple[Any, ...]]) -> Graph:
    return Graph(
        inputs=(Input(kind="batch", key=0),),
        nodes=tuple(Node(operator=o, args=a, kwargs={}) for o, a in nodes),
        loss=0,
        gradients={},
        buffers={},
    )


def total(graphs: Sequence[Graph]) -> int:
    return sum(size for _, _, size in counted(graphs=graphs))


def test_given_tensors_count_whole() -> None:
    (weight, other) = specs((3, 4), (5,))
    assert counted([(weight, GIVEN)], [(other, GIVEN)]) == [
        ("state zero", "parameters/0", 48),
        ("constant", "parameters/1", 20),
        ("constant", "shapes of constants and buffers", 8),
    ]
    assert counted([(specs((0, 3))[0], GIVEN)]) == []


def test_weights_spelled_out_by_the_lengths_of_constants() -> None:
    (weight,) = specs((20, 30))
    lengths = [*range(100, 200), 20, 30]  # the last two are the parameter's own
    constants = [(s, Constant(number=Named(name="1"))) for s in specs(*((n,) for n in lengths))]
    found = counted([(weight, Constant(number=Named(name="0")))], constants)
    assert ("constant", "shapes of constants and buffers", 8 * 100 + 88) in found


def test_degenerate_rules_count_their_free_scalars() -> None:
    tiny = Uniform(low=Free(number=0.7311), high=Free(number=math.nextafter(0.7311, 1)))
    still = Normal(mean=Free(number=0.7311), std=Named(name="0"))
    for rule, size in ((tiny, 16), (still, 8), (Constant(number=Free(number=0.7311)), 8)):
        assert ("rule", "parameters/0", size) in counted([(specs(())[0], rule)])


def test_rules_of_named_scalars_cost_only_their_choice() -> None:
    layout = specs(*[(8, 8)] * 4)
    assert counted([(s, ZERO) for s in layout]) == [("rule", "the choice of rules", 1)]


def test_the_choice_among_many_rules_is_counted() -> None:
    """Weights spelled out in scalar tensors, each by the nearest formula, cost bytes though none is free."""
    formulas = [Constant(number=Formula(negative=bool(i % 2), p=1, q=1, fan=1 + i // 2)) for i in range(1000)]
    found = counted([(s, f) for s, f in zip(specs(*[()] * 1000), formulas, strict=True)])
    assert [name for _, name, _ in found] == ["the choice of rules"]
    assert found[0][2] >= 1000 * math.log2(1000) / 8


def test_numbers_in_graphs() -> None:
    mul = "aten.mul.Scalar"
    assert (
        total([graph((mul, (Ref(0), 1.0)), (mul, (Ref(0), -0.0)), ("aten.sum.dim_IntList", ((7, 9),)))]) == 0
    )
    assert float_to_bits(1.0) in COMMON_NUMBERS
    assert total([graph((mul, (Ref(0), 0.123)))]) == 8
    assert total([graph((mul, (Ref(0), 123)))]) == 8
    assert total([graph(("aten.full.default", ((2, 2), 0.125)))]) == 8
    assert total([graph(("aten.scatter.value", (Ref(0), 0, Ref(0), 77)))]) == 8
    assert total([graph(("aten.mul.Tensor", (Ref(0), float("nan"))))]) == 8
    assert total([graph(("aten.slice.Tensor", (Ref(0), 0, 5, 9)))]) == 0
    assert total([graph((mul, (Ref(0), True)))]) == 0
    assert total([graph((mul, ((Ref(0), (0.123, 0.25)),)))]) >= 16


def test_weights_spelled_out_in_a_graph() -> None:
    weights = [math.sin(i) for i in range(1000)]
    assert total([graph(*[("aten.full.default", ((), w)) for w in weights])]) >= 8 * 1000


def test_weights_spelled_out_by_few_numbers() -> None:
    """Quantised to 16 values, each use still says four bits."""
    weights = [(i * 7 % 16) / 10 + 0.05 for i in range(4000)]
    assert total([graph(*[("aten.full.default", ((), w)) for w in weights])]) >= 4000 * 4 / 8


def test_a_second_graph_that_repeats_the_first_costs_only_its_uses() -> None:
    first = graph(*[("aten.full.default", ((), math.cos(i + 1))) for i in range(100)])
    again = counted(graphs=[first, first])
    assert [size for _, _, size in again] == [800 + 88, 88]
    reordered = graph(*[("aten.full.default", ((), math.cos(i + 1))) for i in reversed(range(100))])
    assert total([first, reordered]) == total([first, first])


def read(state: Any, constants: Any = (), layout: Sequence[TensorSpec] = (), **more: Any) -> Initialisation:
    value = {"format": "gradseal/initialisation-v1", "state": state, "constants": constants, **more}
    return Initialisation.decode(encode(value), layout, [], where="initialisation")


def test_round_trip() -> None:
    layout = specs((6, 6), (6,))
    rule: Rule = Uniform(
        low=Formula(negative=True, p=1, q=1, fan=6), high=Formula(negative=False, p=1, q=1, fan=6)
    )
    own = Initialisation(state=(rule, GIVEN), constants=(ONE,))
    again = Initialisation.decode(own.encode(), layout, specs((1,)), where="initialisation")
    assert again == own
    assert json.loads(own.encode())["state"][1] == {"given": "00" * 32}


@pytest.mark.parametrize(
    "sources",
    [
        [],
        [{"given": "00" * 32}] * 2,
        [{"given": "00"}],
        [{"given": "00" * 32, "rule": ZERO.to_json()}],
        [{"rule": ZERO.to_json(), "more": 1}],
        [{}],
        [{"rule": Constant(number=Formula(negative=False, p=1, q=1, fan=5)).to_json()}],
        ["given"],
    ],
)
def test_malformed_sources(sources: Any) -> None:
    with pytest.raises(MalformedBundle):
        read(sources, layout=specs((6, 6)))


@pytest.mark.parametrize(
    "rule", [Normal(mean=Named(name="0"), std=Named(name="1")), Constant(number=Named(name="0.5"))]
)
def test_a_rule_that_the_element_type_cannot_have(rule: Rule) -> None:
    sources = [{"rule": rule.to_json()}]
    read(sources, layout=specs((6, 6)))
    with pytest.raises(MalformedBundle):
        read(sources, layout=specs((6, 6), dtype="int64"))


def test_an_unknown_rule() -> None:
    with pytest.raises(UnknownKind):
        read([{"rule": {"kind": "orthogonal"}}], layout=specs((6, 6)))
    with pytest.raises(MalformedBundle):
        read([], more=1)
