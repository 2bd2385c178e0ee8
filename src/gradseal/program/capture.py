"""From a model and a loss to a graph of named operators.

The loss is traced on stand-ins that hold no numbers, forward and backward, for one batch shape: no parameter
can be baked in, and a decision that depends on data cannot be taken silently. It is traced twice, and the two
graphs must be equal, or something outside the graph (Python's or NumPy's randomness, a counter) had a say.
Every tensor that is neither state nor batch is listed as a constant. Format: docs/spec/program.md, section 3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.fx import GraphModule
from torch.fx import Node as FxNode
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode, get_proxy_mode, make_fx
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.nn.utils.stateless import _reparametrize_module

from gradseal.errors import CaptureError
from gradseal.program.graph import Argument, Graph, Input, Named, Node, Ref, without_dead_values
from gradseal.program.interpret import overload
from gradseal.program.memory import to_bytes
from gradseal.program.operators import ADVICE, GETITEM, OPERATORS
from gradseal.program.samples import SampleSchema

Loss = Callable[[nn.Module, Any], torch.Tensor]

_MEMORY_FORMATS = {
    torch.contiguous_format: "contiguous",
    torch.preserve_format: "preserve",
    torch.channels_last: "channels_last",
    torch.channels_last_3d: "channels_last_3d",
}
_FOREIGN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
_DATA_DEPENDENT = (DataDependentOutputException, DynamicOutputShapeException, GuardOnDataDependentSymNode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """A graph, and the constants that it reads by index."""

    graph: Graph
    constants: tuple[torch.Tensor, ...]


def check_model(model: nn.Module) -> None:
    """Refuses, by name, modules that cannot be captured.

    Raises:
        CaptureError: A compiled module, sparse gradients, or a parameter or buffer of unusual layout.
    """
    for name, module in model.named_modules():
        where = f"model.{name}" if name else "model"
        if hasattr(module, "_orig_mod") or type(module).__name__ == "OptimizedModule":
            raise CaptureError(
                "a module compiled by torch.compile",
                where=where,
                advice="record the module as it was before compiling",
            )
        if getattr(module, "_compiled_call_impl", None) is not None:
            raise CaptureError("a module compiled in place", where=where, advice="leave out module.compile()")
        if getattr(module, "sparse", False) is True and isinstance(module, nn.Embedding | nn.EmbeddingBag):
            raise CaptureError("sparse gradients", where=where, advice="build it with sparse=False")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.layout != torch.strided or not tensor.is_contiguous():
            raise CaptureError(
                "a parameter or buffer that is not contiguous",
                where=f"model.{name}",
                advice="call .contiguous() on it",
            )


def capture(
    model: nn.Module,
    loss: Loss,
    trained: Sequence[str],
    schema: SampleSchema,
    batch: Sequence[torch.Tensor],
) -> Captured:
    """The graph of one step's loss and gradients for batches shaped as `batch`.

    Args:
        model: In the training flags that it is to be trained with; not changed.
        loss: From the model and a batch to a scalar.
        trained: Names of the parameters that gradients are wanted for.
        schema: What a batch's tree is.
        batch: The leaves of a batch.

    Raises:
        CaptureError: Something in it cannot be a program; names the module or operator.
    """
    first, constants = _capture_once(model, loss, trained, schema, batch)
    again, others = _capture_once(model, loss, trained, schema, batch)
    difference = _first_difference(first, again) or _different_constant(constants, others)
    if difference:
        raise CaptureError(
            f"the loss traced twice gave two programs: {difference}",
            where="loss",
            advice="use torch's own randomness in the forward pass, not Python's or NumPy's, and no counters",
        )
    return Captured(graph=first, constants=constants)


def _capture_once(
    model: nn.Module, loss: Loss, trained: Sequence[str], schema: SampleSchema, batch: Sequence[torch.Tensor]
) -> tuple[Graph, tuple[torch.Tensor, ...]]:
    parameters = dict(model.named_parameters())
    buffers = dict(model.named_buffers())
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake_parameters = [
        mode.from_tensor(p).detach().requires_grad_(p.requires_grad) for p in parameters.values()
    ]
    fake_buffers = [mode.from_tensor(b) for b in buffers.values()]
    fake_batch = [mode.from_tensor(t) for t in batch]
    reached: list[bool] = []
    modules = _ModuleStack(model)

    def step(
        ps: list[torch.Tensor], bs: list[torch.Tensor], leaves: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        by_name = dict(zip(parameters, ps, strict=True))
        fresh = {name: b.clone() for name, b in zip(buffers, bs, strict=True)}
        swapped = {**by_name, **fresh}
        with _reparametrize_module(model, swapped, tie_weights=True):
            value = loss(model, schema.unflatten(leaves))
            _check_loss(value)
        for name, parameter in by_name.items():
            if swapped[name] is not parameter or parameter._version != 0:
                raise CaptureError("the forward pass changes a parameter", where=f"model.{name}")
        for name, buffer in buffers.items():
            if (swapped[name].shape, swapped[name].dtype) != (buffer.shape, buffer.dtype):
                raise CaptureError(
                    "the forward pass changes a buffer's shape or element type", where=f"model.{name}"
                )
        modules.in_backward = True
        gradients: Sequence[torch.Tensor | None] = torch.autograd.grad(
            value, [by_name[n] for n in trained], allow_unused=True
        )
        if all(gradient is None for gradient in gradients):
            raise CaptureError("the loss depends on no trained parameter", where="loss")
        reached[:] = [g is not None for g in gradients]
        return [value, *(g for g in gradients if g is not None), *(swapped[name] for name in buffers)]

    with modules.watch(), _errors_named(modules), torch.random.fork_rng(devices=[]), mode:
        traced = make_fx(step)(fake_parameters, fake_buffers, fake_batch)
    inputs = [
        *(Input(kind="state", key=f"parameters/{n}") for n in parameters),
        *(Input(kind="state", key=f"buffers/{n}") for n in buffers),
        *(Input(kind="batch", key=i) for i in range(len(batch))),
    ]
    outputs = [
        *(("gradient", name) for name, hit in zip(trained, reached, strict=True) if hit),
        *(("buffer", name) for name in buffers),
    ]
    reader = _Reader(traced, inputs, modules)
    graph = reader.graph(outputs)
    _check_constants(reader.constants, {**parameters, **buffers})
    _check_writes(graph)
    return without_dead_values(graph), tuple(reader.constants)


def _check_loss(value: object) -> None:
    if not isinstance(value, torch.Tensor) or value.numel() != 1 or value.dim() != 0:
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise CaptureError(
            f"the loss must be a scalar tensor, not {shape}", where="loss", advice="return its mean"
        )
    if not value.requires_grad:
        raise CaptureError("the loss depends on no trained parameter", where="loss")
    _check_no_reentrant_checkpoint(value)


def _check_no_reentrant_checkpoint(value: torch.Tensor) -> None:
    """Refuses what hides parameters from `torch.autograd.grad`, which would then leave them untrained."""
    ahead, seen = [value.grad_fn], {value.grad_fn}
    while ahead:
        function = ahead.pop()
        if function is None:
            continue
        if function.name().startswith("CheckpointFunction"):
            raise CaptureError(
                "activation checkpointing, of the reentrant kind",
                where="loss",
                advice="turn off activation checkpointing for recording",
            )
        fresh = [f for f, _ in function.next_functions if f not in seen]
        seen.update(fresh)
        ahead += fresh


def _check_constants(constants: Sequence[torch.Tensor], state: dict[str, torch.Tensor]) -> None:
    owners = {t.untyped_storage().data_ptr(): name for name, t in state.items() if t.numel()}
    for constant in constants:
        owner = owners.get(constant.untyped_storage().data_ptr()) if constant.numel() else None
        if owner is not None:
            raise CaptureError(
                "a parameter or buffer would be baked into the program as a constant",
                where=f"model.{owner}",
                advice="activation checkpointing does this, and so does keeping a second reference to a "
                "parameter outside the module; turn it off for recording",
            )


def _check_writes(graph: Graph) -> None:
    """Refuses a program that changes in place what is not its own."""
    root: dict[int, int] = {n: n for n in range(len(graph.inputs))}
    for number, node in enumerate(graph.nodes, len(graph.inputs)):
        if node.operator == GETITEM or not (node.args and isinstance(node.args[0], Ref)):
            continue
        schema = overload(node.operator)._schema
        owner = root.get(node.args[0].value)
        alias = schema.arguments[0].alias_info
        if owner is None or alias is None:
            continue
        if alias.is_write:
            raise CaptureError(
                f"the forward pass changes {_INPUTS[graph.inputs[owner].kind]} in place, by {node.operator}",
                where=str(graph.inputs[owner].key) if graph.inputs[owner].kind == "state" else "loss",
                advice="change a clone of it; what must outlive a step is a buffer (register_buffer)",
            )
        root[number] = owner


_INPUTS = {"state": "a parameter", "batch": "the batch", "constant": "a tensor that is no buffer"}


class _ModuleStack:
    """Which module's forward is running, and which traced, so that an error can name it."""

    def __init__(self, model: nn.Module) -> None:
        self._names = {id(m): f"model.{n}" if n else "model" for n, m in model.named_modules()}
        self._modules = list(model.modules())
        self._stack: list[str] = []
        self._changes: list[tuple[str, str]] = []
        self.in_backward = False

    @property
    def current(self) -> str:
        return self._stack[-1] if self._stack else "loss"

    @contextmanager
    def watch(self) -> Iterator[None]:
        handles = [m.register_forward_pre_hook(self._enter) for m in self._modules]
        handles += [m.register_forward_hook(self._leave) for m in self._modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, args: object) -> None:
        if self.in_backward:
            raise CaptureError(
                "runs again in the backward pass",
                where=self._names[id(module)],
                advice="turn off activation checkpointing for recording",
            )
        self._stack.append(self._names[id(module)])
        self._note()

    def _leave(self, module: nn.Module, args: object, output: object) -> None:
        self._stack.pop()
        self._note()

    def _note(self) -> None:
        mode = get_proxy_mode()
        if isinstance(mode, ProxyTorchDispatchMode):
            last = next(iter(reversed(mode.tracer.graph.nodes)), None)
            self._changes.append((last.name if last is not None else "", self.current))

    def module_of(self, node: FxNode) -> str:
        """The module in whose forward `node` was traced; the loss, if it was in none."""
        after = dict(self._changes)
        current = after.get("", "loss")
        for other in node.graph.nodes:
            if other is node:
                break
            current = after.get(other.name, current)
        return current


@contextmanager
def _errors_named(modules: _ModuleStack) -> Iterator[None]:
    try:
        yield
    except CaptureError:
        raise
    except _DATA_DEPENDENT as e:
        raise CaptureError(
            "a decision or a shape that depends on the data",
            where=modules.current,
            advice=ADVICE["aten._local_scalar_dense.default"],
        ) from e
    except _FOREIGN as e:
        raise CaptureError(
            f"cannot be traced: {_one_line(e)}", where=modules.current, advice=_advice(e)
        ) from e


def _one_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:400]


def _advice(error: Exception) -> str:
    text = str(error)
    if "more than 1 value per channel" in text:
        return "a last batch of one sample cannot pass batch norm; use drop_last=True or another batch_size"
    if "checkpoint" in text.lower():
        return "turn off activation checkpointing for recording"
    if "dynamo" in text.lower() or "compile" in text.lower():
        return "leave out torch.compile for recording"
    return ""


class _Reader:
    """Turns a traced module into a `Graph`, gathering the constants it holds."""

    def __init__(self, traced: GraphModule, inputs: list[Input], modules: _ModuleStack) -> None:
        self._traced = traced
        self._inputs = inputs
        self._modules = modules
        self.constants: list[torch.Tensor] = []

    def graph(self, outputs: list[tuple[str, str]]) -> Graph:
        constants = self._read_constants()
        inputs = [*self._inputs, *(Input(kind="constant", key=i) for i in range(len(self.constants)))]
        number_of: dict[FxNode, int] = {}
        nodes: list[Node] = []
        placeholders = 0
        results: list[Any] = []
        for node in self._traced.graph.nodes:
            if node.op == "placeholder":
                number_of[node] = placeholders
                placeholders += 1
            elif node.op == "get_attr":
                number_of[node] = len(self._inputs) + constants[str(node.target)]
            elif node.op == "output":
                results = list(node.args[0])
            else:
                number_of[node] = len(inputs) + len(nodes)
                nodes.append(self._node(node, number_of))
        values = [number_of[r] for r in results]
        named = list(zip(outputs, values[1:], strict=True))
        return Graph(
            inputs=tuple(inputs),
            nodes=tuple(nodes),
            loss=values[0],
            gradients={name: v for (kind, name), v in named if kind == "gradient"},
            buffers=self._changed_buffers(
                {name: v for (kind, name), v in named if kind == "buffer"}, inputs, nodes
            ),
        )

    def _read_constants(self) -> dict[str, int]:
        """The constants by attribute name; one that stands under two names is listed once."""
        by_name: dict[str, int] = {}
        for node in self._traced.graph.nodes:
            if node.op == "get_attr" and str(node.target) not in by_name:
                tensor = getattr(self._traced, str(node.target))
                known = [i for i, c in enumerate(self.constants) if c is tensor]
                by_name[str(node.target)] = known[0] if known else len(self.constants)
                if not known:
                    self.constants.append(tensor.detach())
        return by_name

    def _node(self, node: FxNode, number_of: dict[FxNode, int]) -> Node:
        name = _operator_name(node)
        if name != GETITEM and name not in OPERATORS:
            raise CaptureError(
                f"the operator {name} is not one that a program may use",
                where=self._modules.module_of(node),
                advice=ADVICE.get(name, ""),
            )
        return Node(
            operator=name,
            args=tuple(_argument(a, number_of, name) for a in node.args),
            kwargs={k: _argument(a, number_of, name) for k, a in node.kwargs.items() if k != "pin_memory"},
        )

    @staticmethod
    def _changed_buffers(values: dict[str, int], inputs: list[Input], nodes: list[Node]) -> dict[str, int]:
        """Leaves out the buffers whose only operator is the copy that protects them."""
        reads: dict[int, int] = {}
        for node in nodes:
            for reference in node.references():
                reads[reference] = reads.get(reference, 0) + 1
        changed = {}
        for name, value in values.items():
            untouched = value >= len(inputs) and nodes[value - len(inputs)].operator == "aten.clone.default"
            if not (untouched and value not in reads):
                changed[name] = value
        return changed


def _operator_name(node: FxNode) -> str:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    return GETITEM if getattr(target, "__name__", "") == "getitem" else str(target)


def _argument(value: Any, number_of: dict[FxNode, int], operator: str) -> Argument:
    match value:
        case FxNode():
            return Ref(number_of[value])
        case None | bool() | int() | float() | str():
            return value
        case tuple() | list():
            return tuple(_argument(v, number_of, operator) for v in value)
        case torch.dtype():
            return Named("dtype", str(value).removeprefix("torch."))
        case torch.memory_format():
            return Named("memory_format", _MEMORY_FORMATS[value])
        case torch.layout() if value == torch.strided:
            return Named("layout", "strided")
        case torch.device():
            return Named("device", "run")
    raise CaptureError(
        f"{operator} has an argument {value!r} that a program cannot hold", where="model and loss"
    )


def _first_difference(first: Graph, second: Graph) -> str:
    """What differs, by encoded bytes, since NaN is not equal to itself; empty if nothing does."""
    if first.encode() == second.encode():
        return ""
    for number, (a, b) in enumerate(zip(first.nodes, second.nodes, strict=False)):
        if a.encode() != b.encode():
            return f"node {number} is {a.operator} once and {b.operator} once, or has other arguments"
    return f"{len(first.nodes)} operators once and {len(second.nodes)} once"


def _different_constant(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> str:
    for number, (a, b) in enumerate(zip(first, second, strict=True)):
        if (a.shape, a.dtype, to_bytes(a)) != (b.shape, b.dtype, to_bytes(b)):
            return f"constant {number} is another tensor each time"
    return ""
