"""Graphs and programs: their JSON form is strict, and parsing one runs nothing."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradseal.errors import Error, MalformedBundle, UnknownKind
from gradseal.program.graph import (
    Argument,
    Graph,
    Input,
    Named,
    Node,
    Ref,
    renumber_constants,
    without_dead_values,
)
from gradseal.program.optimizers import SGD, SGDGroup
from gradseal.program.program import Program, same_structure
from gradseal.program.tensors import TensorSpec
from gradseal.proof.canonical import encode

ADD, MUL, CLONE = "aten.add.Tensor", "aten.mul.Tensor", "aten.clone.default"


def node(operator: str, *args: Argument, **kwargs: Argument) -> Node:
    return Node(operator=operator, args=args, kwargs=kwargs)


def graph(*nodes: Node, loss: int | None = None, **more: Any) -> Graph:
    inputs = (
        Input(kind="state", key="parameters/w"),
        Input(kind="batch", key=0),
        Input(kind="constant", key=0),
    )
    values = len(inputs) + len(nodes)
    return Graph(
        inputs=inputs,
        nodes=nodes,
        loss=values - 1 if loss is None else loss,
        gradients=more.get("gradients", {}),
        buffers=more.get("buffers", {}),
    )


def document(**changes: Any) -> dict[str, Any]:
    own: dict[str, Any] = json.loads(graph(node(ADD, Ref(0), Ref(1))).encode())
    return own | changes


def read(value: Any) -> Graph:
    return Graph.decode(encode(value), where="graph")


PLAIN: st.SearchStrategy[Argument] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=True),
    st.text(max_size=5),
    st.builds(Ref, st.integers(0, 2)),
    st.sampled_from([Named("dtype", "float32"), Named("device", "run"), Named("layout", "strided")]),
)
ARGUMENTS = st.recursive(PLAIN, lambda below: st.lists(below, max_size=3).map(tuple), max_leaves=5)


@given(args=st.lists(ARGUMENTS, max_size=3), kwargs=st.dictionaries(st.text("ab", max_size=2), ARGUMENTS))
def test_round_trip(args: list[Argument], kwargs: dict[str, Argument]) -> None:
    own = graph(Node(operator=ADD, args=tuple(args), kwargs=kwargs))
    try:
        again = Graph.decode(own.encode(), where="graph")
    except MalformedBundle as e:
        assert "too deep" in e.message  # the one thing that the strategy may exceed
        return
    assert again.encode() == own.encode()
    assert sorted(again.nodes[0].references()) == sorted(own.nodes[0].references())


def test_numbers_keep_their_kind() -> None:
    own = graph(node(ADD, 1, 1.0, True, -0.0, 2**62), node(MUL, float("nan"), float("-inf")))
    args = Graph.decode(own.encode(), where="graph").nodes[0].args
    assert [(type(a), str(a)) for a in args] == [
        (int, "1"),
        (float, "1.0"),
        (bool, "True"),
        (float, "-0.0"),
        (int, str(2**62)),
    ]
    assert node(ADD, 1).encode() != node(ADD, 1.0).encode() != node(ADD, True).encode()
    assert node(ADD, float("nan")).encode() == node(ADD, float("nan")).encode()


@pytest.mark.parametrize(
    "argument",
    [
        {"ref": 3},
        {"ref": -1},
        {"ref": True},
        {"ref": "0"},
        {"float": "3ff00000"},
        {"float": 1},
        {"int": "1"},
        {"int": "09007199254740993"},
        {"int": "9223372036854775808"},
        {"int": 5},
        {"int": "-"},
        {"dtype": "complex64"},
        {"dtype": 6},
        {"device": "cuda:0"},
        {"device": "meta"},
        {"layout": "sparse_coo"},
        {"other": "a"},
        {"ref": 0, "float": "0"},
        {},
        "x" * 101,
        [0] * 4097,
        [[[[0]]]],
    ],
)
def test_malformed_arguments(argument: Any) -> None:
    with pytest.raises(MalformedBundle) as e:
        read(document(nodes=[[ADD, [argument]]]))
    assert "nodes[0]" in e.value.where


@pytest.mark.parametrize(
    "changes",
    [
        {"more": 1},
        {"loss": 4},
        {"loss": -1},
        {"loss": True},
        {"gradients": {"w": 4}},
        {"gradients": {"w": True}},
        {"buffers": []},
        {"inputs": [["state", 0]]},
        {"inputs": [["batch", -1]]},
        {"inputs": [["batch", True]]},
        {"inputs": [["file", "/etc/passwd"]]},
        {"inputs": [["state", "a", 0]]},
        {"inputs": []},
        {"nodes": [[ADD]]},
        {"nodes": [[ADD, [], {}]]},
        {"nodes": [[ADD, [], {"a": 1}, 1]]},
        {"nodes": [[ADD, {}]]},
        {"nodes": [[1, []]]},
        {"nodes": [[ADD, [0] * 65]]},
        {"nodes": [["getitem", [{"ref": 0}]]]},
        {"nodes": [["getitem", [{"ref": 0}, -1]]]},
        {"nodes": [["getitem", [{"ref": 0}, True]]]},
        {"nodes": [["getitem", [{"ref": 0}, 0], {"a": 1}]]},
        {"nodes": [[ADD, [{"ref": 3}]]]},
    ],
)
def test_malformed_graphs(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedBundle):
        read(document(**changes))


def test_an_unknown_format_is_another_versions() -> None:
    with pytest.raises(UnknownKind):
        read(document(format="gradseal/graph-v2", more=1))


@pytest.mark.parametrize(
    "name",
    [
        "aten.from_file.default",
        "aten.as_strided.default",
        "aten.set_.source_Tensor",
        "aten.resize_.default",
        "prim.device.default",
        "os.system",
        "",
    ],
)
def test_operators_outside_the_list(name: str) -> None:
    with pytest.raises(UnknownKind):
        read(document(nodes=[[name, []]]))


@given(st.data())
def test_any_changed_byte_is_an_error_of_ours_or_another_graph(data: st.DataObject) -> None:
    whole = graph(node(ADD, Ref(0), 1.5, alpha=(1, None)), node("getitem", Ref(3), 0)).encode()
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :]
    with suppress(Error):
        assert Graph.decode(changed, where="graph").encode() == changed


def test_bombs() -> None:
    for data in (b"[" * 10**6, b'{"a":' * 10**5, b"[" + b"9" * 10**6 + b"]", b"\xff", b""):
        with pytest.raises(MalformedBundle):
            Graph.decode(data, where="graph")


def test_last_uses() -> None:
    own = graph(node(ADD, Ref(0), Ref(1)), node(MUL, Ref(3), (Ref(3), Ref(2))), node(CLONE, Ref(4)))
    assert own.last_uses() == [(0, 1), (2, 3), (4,)]
    kept = graph(node(ADD, Ref(0), Ref(1)), node(CLONE, Ref(3)), gradients={"w": 3}, buffers={"b": 1})
    assert kept.last_uses() == [(0,), ()]


def test_a_result_that_nobody_reads_is_freed_at_once() -> None:
    assert graph(node(CLONE, Ref(0)), node(CLONE, Ref(1))).last_uses() == [(0, 3), (1,)]


def test_dead_names_are_dropped_and_effects_kept() -> None:
    own = graph(
        node("aten.detach.default", Ref(0)),
        node("aten.detach.default", Ref(3)),
        node("aten.rand_like.default", Ref(0)),  # draws from the generator
        node(ADD, Ref(0), Ref(1)),
    )
    assert [n.operator for n in without_dead_values(own).nodes] == ["aten.rand_like.default", ADD]
    assert without_dead_values(own).loss == 4


def test_renumbered_constants() -> None:
    assert renumber_constants(graph(node(CLONE, Ref(2))), [5]).inputs[2] == Input(kind="constant", key=5)


def test_structure_is_operators_and_references() -> None:
    own = graph(node(ADD, Ref(0), 1.0), node("getitem", Ref(3), 0))
    assert same_structure(own, graph(node(ADD, Ref(0), 2.0), node("getitem", Ref(3), 0)))
    assert not same_structure(own, graph(node(MUL, Ref(0), 1.0), node("getitem", Ref(3), 0)))
    assert not same_structure(own, graph(node(ADD, Ref(1), 1.0), node("getitem", Ref(3), 0)))
    assert not same_structure(own, graph(node(ADD, Ref(0), 1.0), node("getitem", Ref(3), 1)))
    assert not same_structure(
        own, graph(node(ADD, Ref(0), 1.0), node("getitem", Ref(3), 0), gradients={"w": 3})
    )


def spec(name: str, *shape: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


LAYOUT = (spec("parameters/w", 2), spec("buffers/b"), spec("optimizer/w/momentum_buffer", 2))
OPTIMIZER = SGD(groups=(SGDGroup(parameters=("w",), lr=0.1, momentum=0.9),))


def program(**changes: Any) -> Program:
    own: dict[str, Any] = {
        "layout": LAYOUT,
        "constants": (spec("constants/0"),),
        "graphs": {4: bytes(32), 2: bytes(32)},
        "optimizer": OPTIMIZER,
    }
    return Program(**(own | changes))


def test_a_program_round_trips() -> None:
    again = Program.decode(program().encode(), where="program")
    assert (again.layout, dict(again.graphs), again.optimizer) == (LAYOUT, program().graphs, OPTIMIZER)
    assert again.encode() == program().encode()


@pytest.mark.parametrize(
    "own",
    [
        program(layout=LAYOUT[1:]),
        program(layout=LAYOUT[:2]),
        program(layout=(LAYOUT[1], LAYOUT[0], LAYOUT[2])),
        program(layout=(*LAYOUT, spec("other/x"))),
        program(layout=(spec("parameters/"), *LAYOUT)),
        program(layout=(LAYOUT[0], *LAYOUT)),
        program(layout=(*LAYOUT[:2], spec("optimizer/w/momentum_buffer", 3))),
        program(layout=(*LAYOUT, spec("optimizer/v/momentum_buffer", 2))),
        program(layout=(*LAYOUT[:2], spec("optimizer/w/momentum_buffer", 2, dtype="float64"))),
        program(layout=(spec("parameters/w", 1 << 40, 1 << 40, 0), *LAYOUT[1:])),
        program(layout=(spec("parameters/w", 1 << 36), *LAYOUT[1:])),
        program(constants=(spec("c"), spec("c"))),
        program(graphs={}),
        program(graphs={0: bytes(32)}),
        program(graphs={n: bytes(32) for n in range(1, 18)}),
    ],
)
def test_malformed_programs(own: Program) -> None:
    with pytest.raises(MalformedBundle):
        Program.decode(own.encode(), where="program")


def test_what_a_graph_may_read_and_write() -> None:
    own = program()
    own.check_graph(graph(node(CLONE, Ref(0)), gradients={"w": 3}, buffers={"b": 3}), "graph")
    inputs = {
        "a": Input(kind="state", key="parameters/x"),
        "b": Input(kind="state", key="optimizer/w/momentum_buffer"),
        "c": Input(kind="constant", key=1),
    }
    for value in inputs.values():
        wrong = Graph(inputs=(value,), nodes=(), loss=0, gradients={}, buffers={})
        with pytest.raises(MalformedBundle, match="reads"):
            own.check_graph(wrong, "graph")
    with pytest.raises(MalformedBundle, match="not trained"):
        own.check_graph(graph(gradients={"v": 0}), "graph")
    with pytest.raises(MalformedBundle, match="not there"):
        own.check_graph(graph(buffers={"v": 0}), "graph")
