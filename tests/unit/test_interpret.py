"""The interpreter runs the closed list, and a hostile graph ends in ReplayError and nothing else."""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import Any

import pytest
import torch

from gradseal.errors import ReplayError
from gradseal.program.graph import Argument, Graph, Input, Named, Node, Ref
from gradseal.program.guards import GUARDS
from gradseal.program.interpret import Interpreter, StepResult, overload
from gradseal.program.native import seeded
from gradseal.program.operators import FILLED, GETITEM, OPERATORS, RANDOM

CPU = torch.device("cpu")


def node(operator: str, *args: Argument, **kwargs: Argument) -> Node:
    return Node(operator=operator, args=args, kwargs=kwargs)


def run(
    nodes: list[Node],
    batch: list[torch.Tensor],
    *,
    loss: int | None = None,
    state: dict[str, torch.Tensor] | None = None,
    guarded: bool = True,
    gradients: dict[str, int] | None = None,
    buffers: dict[str, int] | None = None,
) -> StepResult:
    state = state or {}
    inputs = [Input(kind="batch", key=i) for i in range(len(batch))]
    inputs += [Input(kind="state", key=name) for name in state]
    graph = Graph(
        inputs=tuple(inputs),
        nodes=tuple(nodes),
        loss=len(inputs) + len(nodes) - 1 if loss is None else loss,
        gradients=gradients or {},
        buffers=buffers or {},
    )
    graph = Graph.decode(graph.encode(), where="graph")
    return Interpreter(graph, [], CPU, guarded=guarded).run(state, batch)


def t(*shape: int) -> torch.Tensor:
    return torch.zeros(shape)


def whole(*shape: int, value: int = 0) -> torch.Tensor:
    return torch.full(shape, value, dtype=torch.int64)


def r(*values: int) -> list[Argument]:
    return [Ref(v) for v in values]


ONES: tuple[Argument, ...] = (1, 1)
NONE: tuple[Argument, ...] = (0, 0)
MASK: Argument = (True, True, True)
CONV = "aten.convolution_backward.default"
BATCH_NORM, BATCH_NORM_BACK = "aten.native_batch_norm.default", "aten.native_batch_norm_backward.default"
FLASH = "aten._scaled_dot_product_flash_attention_for_cpu.default"
FLASH_BACK = "aten._scaled_dot_product_flash_attention_for_cpu_backward.default"
POOL_BACK = "aten.max_pool2d_with_indices_backward.default"

# Each makes the bare kernel read or write memory that is not its own, or kills the process.
HOSTILE: dict[str, tuple[str, list[Argument], list[torch.Tensor]]] = {
    "embedding": (
        "aten.embedding_dense_backward.default",
        [*r(0, 1), 4, -1, True],
        [t(1, 4), whole(1, value=9)],
    ),
    "embedding below": (
        "aten.embedding_dense_backward.default",
        [*r(0, 1), 4, -1, False],
        [t(1, 4), whole(1, value=-7)],
    ),
    "pool index": (
        POOL_BACK,
        [*r(0, 1), ONES, ONES, NONE, ONES, False, Ref(2)],
        [t(1, 1, 2, 2), t(1, 1, 2, 2), whole(1, 1, 2, 2, value=99)],
    ),
    "pool planes": (
        "aten._adaptive_avg_pool2d_backward.default",
        r(0, 1),
        [t(1, 64, 2, 2), t(1, 1, 2, 2)],
    ),
    "average pool planes": (
        "aten.avg_pool2d_backward.default",
        [*r(0, 1), ONES, ONES, NONE, False, True, None],
        [t(9, 1, 2, 2), t(1, 1, 2, 2)],
    ),
    "nll": (
        "aten.nll_loss_backward.default",
        [*r(0, 1, 2), None, 1, -100, Ref(3)],
        [torch.ones(()), t(1, 2), whole(1, value=5), torch.ones(())],
    ),
    "batch norm weight": (BATCH_NORM, [*r(0, 1, 1, 1, 1), True, 0.1, 1e-5], [t(2, 64), t(1)]),
    "batch norm statistics": (BATCH_NORM, [Ref(0), None, None, *r(1, 1), False, 0.1, 1e-5], [t(2, 64), t(1)]),
    "batch norm alone": (BATCH_NORM, [Ref(0), None, None, None, None, False, 0.1, 1e-5], [t(2, 3)]),
    "batch norm gradient": (
        BATCH_NORM_BACK,
        [*r(0, 0), None, None, None, *r(1, 1), True, 1e-5, MASK],
        [t(2, 64), t(1)],
    ),
    "batch norm gradient without statistics": (
        BATCH_NORM_BACK,
        [*r(0, 0), None, None, None, None, None, False, 1e-5, MASK],
        [t(2, 4)],
    ),
    "layer norm": (
        "aten.native_layer_norm_backward.default",
        [*r(0, 0), (4,), *r(1, 1, 2, 2), MASK],
        [t(8, 4), t(1), t(4)],
    ),
    "group norm": (
        "aten.native_group_norm_backward.default",
        [*r(0, 0, 1, 1), None, 2, 8, 1, 4, MASK],
        [t(2, 8), t(1)],
    ),
    "rms norm": ("aten._fused_rms_norm.default", [Ref(0), (64,), Ref(1), None], [t(2, 64), t(1)]),
    "log softmax": (
        "aten._log_softmax_backward_data.default",
        [*r(0, 1), 1, Named("dtype", "float32")],
        [t(2, 64), t(1, 1)],
    ),
    "attention": (FLASH, r(0, 1, 1), [t(8, 2, 16, 8), t(1, 1, 16, 8)]),
    "attention values": (FLASH, r(0, 0, 1), [t(1, 1, 16, 8), t(1, 1, 1, 8)]),
    "attention gradient": (
        FLASH_BACK,
        [*r(0, 1, 1, 1, 0, 2), 0.0, False],
        [t(1, 1, 1, 8), t(2, 2, 16, 8), t(1, 1, 1)],
    ),
    "convolution": (
        CONV,
        [*r(0, 1, 2), None, ONES, NONE, ONES, False, NONE, 1, MASK],
        [t(1, 1, 1, 1), t(2, 3, 8, 8), t(4, 3, 3, 3)],
    ),
    "reflection": (
        "aten.reflection_pad2d_backward.default",
        [*r(0, 1), (1, 1, 1, 1)],
        [t(64, 1, 10, 10), t(1, 1, 8, 8)],
    ),
    "reflects too much": (
        "aten.reflection_pad1d_backward.default",
        [*r(0, 1), (9, 9)],
        [t(1, 1, 22), t(1, 1, 4)],
    ),
    "scale": ("aten.upsample_nearest1d.default", [Ref(0), (8,), 1e-300], [t(1, 1, 4)]),
    "weight norm": ("aten._weight_norm_interface.default", [*r(0, 1), 0], [t(64, 2), t(1)]),
    "quotient": (
        "aten.div.Tensor_mode",
        [*r(0, 1)],
        [whole(1, value=-(2**63)), whole(1, value=-1)],
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_kernels_that_trust_are_guarded(name: str) -> None:
    operator, args, batch = HOSTILE[name]
    assert operator in GUARDS
    kwargs: dict[str, Argument] = {"rounding_mode": "trunc"} if name == "quotient" else {}
    with pytest.raises(ReplayError) as e:
        run([node(operator, *args, **kwargs)], batch)
    assert e.value.where == f"node 0, {operator}"


@pytest.mark.parametrize("name", ["embedding", "pool index", "batch norm weight", "layer norm"])
def test_guards_see_arguments_given_by_name(name: str) -> None:
    operator, args, batch = HOSTILE[name]
    names = [a.name for a in overload(operator)._schema.arguments]
    with pytest.raises(ReplayError):
        run([node(operator, **dict(zip(names, args, strict=False)))], batch)


def test_every_guard_is_for_a_listed_operator_and_names_its_arguments() -> None:
    assert set(GUARDS) <= OPERATORS


X = t(3, 4)
BROKEN: dict[str, tuple[Node, list[torch.Tensor]]] = {
    "shapes": (node("aten.mm.default", *r(0, 0)), [X]),
    "too large": (node("aten.full.default", (2**40,), 1.0, device=Named("device", "run")), []),
    "overflow": (node("aten.full.default", (2**62, 2**62), 1.0), []),
    "negative": (node("aten.randperm.default", -5), []),
    "negative strides": (node("aten.empty_strided.default", (2,), (-1,)), []),
    "index": (node("aten.index.Tensor", Ref(0), (Ref(1),)), [X, whole(1, value=7)]),
    "gather": (node("aten.gather.default", Ref(0), 0, Ref(1)), [X, whole(3, 4, value=2**40)]),
    "scatter": (
        node("aten.scatter.value", Ref(0), 0, Ref(1), 1.0),
        [X, whole(3, 4, value=-(2**40))],
    ),
    "index add": (node("aten.index_add.default", Ref(0), 0, Ref(1), Ref(0)), [X, whole(3, value=9)]),
    "index put": (node("aten.index_put.default", Ref(0), (Ref(1),), Ref(0)), [X, whole(3, value=-9)]),
    "topk": (node("aten.topk.default", Ref(0), 2**40), [X]),
    "unfold": (node("aten.unfold.default", Ref(0), 0, -1, 1), [X]),
    "dimension": (node("aten.sum.dim_IntList", Ref(0), (9,)), [X]),
    "zero groups": (
        node("aten.native_group_norm.default", Ref(0), None, None, 3, 4, 1, 0, 1e-5),
        [X],
    ),
    "convolution without groups": (
        node("aten.convolution.default", *r(0, 1), None, ONES, NONE, ONES, False, NONE, 0),
        [t(1, 1, 3, 3), t(1, 1, 1, 1)],
    ),
    "divided by zero": (node("aten.remainder.Scalar", Ref(0), 0), [whole(3)]),
    "getitem of a tensor": (node(GETITEM, Ref(0), 0), [X]),
    "meta": (node("aten.empty_like.default", Ref(0), device="meta"), [X]),
    "a number for a dtype": (node("aten._to_copy.default", Ref(0), dtype=9), [X]),
    "a dtype for a number": (node("aten.topk.default", Ref(0), Named("dtype", "int8")), [X]),
    "a value for a number": (node("aten.topk.default", Ref(0), Ref(1)), [X, whole(1)]),
    "a text for a tensor": (node("aten.mm.default", Ref(0), "x"), [X]),
    "too many": (node("aten.relu.default", Ref(0), Ref(0)), [X]),
    "too few": (node("aten.mm.default", Ref(0)), [X]),
    "unknown name": (node("aten.relu.default", Ref(0), out=Ref(0)), [X]),
    "given twice": (node("aten.relu.default", Ref(0), self=Ref(0)), [X]),
    "many parts": (node("aten.unbind.int", Ref(0), 5), [X]),
    "probability": (node("aten.native_dropout.default", Ref(0), 5.0, True), [X]),
    "deviation": (node("aten.normal_.default", Ref(0), 0.0, -1.0), [X]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_every_error_is_a_replay_error_that_names_the_node(name: str) -> None:
    own, batch = BROKEN[name]
    with pytest.raises(ReplayError) as e:
        run([own], batch)
    assert e.value.where.startswith("node 0, ")
    assert e.value.message


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_no_operator_without_arguments_does_more_than_refuse(name: str) -> None:
    with suppress(ReplayError):
        run([node(name), node("aten.ones.default", ())], [])


def test_inputs_that_the_run_does_not_have() -> None:
    for value in (Input(kind="state", key="a"), Input(kind="batch", key=1), Input(kind="constant", key=0)):
        graph = Graph(inputs=(value,), nodes=(), loss=0, gradients={}, buffers={})
        with pytest.raises(ReplayError, match="does not have"):
            Interpreter(graph, [], CPU, guarded=True).run({}, [t(1)])


def test_results_that_are_none() -> None:
    with pytest.raises(ReplayError, match="not a tensor"):
        run([node("aten.unbind.int", Ref(0))], [X])
    with pytest.raises(ReplayError, match="one element"):
        run([node("aten.clone.default", Ref(0))], [X])


def test_uninitialised_memory_is_zeros() -> None:
    assert "aten.empty.memory_format" in FILLED
    junk = torch.full((1 << 16,), 7.0)
    del junk
    own = run([node("aten.empty.memory_format", (1 << 16,)), node("aten.sum.default", Ref(0))], [])
    assert own.loss.item() == 0.0


@pytest.mark.parametrize(
    ("operator", "args"),
    [
        ("aten.add_.Tensor", [*r(0, 0)]),
        ("aten.zero_.default", [*r(0)]),
        ("aten.uniform_.default", [*r(0)]),
    ],
)
@pytest.mark.parametrize("viewed", [False, True])
def test_state_and_batch_are_never_written(operator: str, args: list[Argument], viewed: bool) -> None:
    own = torch.ones(4)
    nodes = [node(operator, *args), node("aten.sum.default", Ref(1))]
    if viewed:
        nodes = [node("aten.slice.Tensor", Ref(0), 0, 0, 2), node(operator, *[Ref(1) for _ in args])]
    for state, batch in (({"parameters/w": own}, []), ({}, [own])):
        with pytest.raises(ReplayError, match="writes to state"):
            run(nodes, batch, state=state)
    assert own.tolist() == [1.0] * 4


def test_batch_norm_may_not_write_statistics_of_the_state() -> None:
    statistics = {"buffers/mean": t(4), "buffers/var": torch.ones(4)}
    own = node(BATCH_NORM, Ref(0), None, None, *r(1, 2), True, 0.1, 1e-5)
    for guarded in (True, False):
        with pytest.raises(ReplayError, match="running_"):
            run([own], [torch.randn(3, 4)], state=statistics, guarded=guarded)
    assert statistics["buffers/mean"].tolist() == [0.0] * 4


def test_results_share_no_memory_with_the_state() -> None:
    state = {"parameters/w": torch.ones(2, 2)}
    result = run(
        [node("aten.t.default", Ref(0)), node("aten.sum.default", Ref(0))],
        [],
        state=state,
        gradients={"w": 1},
        buffers={"b": 0},
    )
    state["parameters/w"].zero_()
    assert result.gradients["w"].tolist() == result.buffers["b"].tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_values_are_freed_after_their_last_use(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def watched(tensor: torch.Tensor) -> torch.Tensor:
        assert all(ref() is None for ref in seen[:-1])
        result = tensor + 1
        seen.append(weakref.ref(result))
        return result

    monkeypatch.setitem(
        __import__("gradseal.program.interpret", fromlist=["x"])._FUNCTIONS, "aten.relu.default", watched
    )
    run([*[node("aten.relu.default", Ref(i)) for i in range(5)], node("aten.sum.default", Ref(5))], [X])
    assert len(seen) == 5


def test_random_operators_follow_the_steps_seed() -> None:
    assert "aten.rand_like.default" in RANDOM

    def draw(step: int, micro_batch: int = 0, seed: bytes = bytes(32)) -> float:
        nodes = [node("aten.rand_like.default", Ref(0)), node("aten.sum.default", Ref(1))]
        with seeded(seed, step, micro_batch):
            return float(run(nodes, [X]).loss)

    before = torch.random.get_rng_state()
    assert draw(3) == draw(3)
    assert len({draw(3), draw(4), draw(3, 1), draw(3, seed=bytes([1] * 32))}) == 4
    assert torch.equal(before, torch.random.get_rng_state())
