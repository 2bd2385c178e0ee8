"""Reading what torch traced: its nodes into a `Graph`, its errors into ones that name the module.

Used by `capture` alone. Format: docs/spec/program.md, section 3.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)
from torch.fx import GraphModule
from torch.fx import Node as FxNode
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode, get_proxy_mode
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from gradseal.errors import CaptureError
from gradseal.program.exact.operators import DRAWING, EXACT
from gradseal.program.graph import Argument, Graph, Input, Named, Node, Ref
from gradseal.program.operators import ADVICE, GETITEM, OPERATORS

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


class ModuleStack:
    """Which module's forward is running, and which traced, so that an error can name it."""

    def __init__(self, model: nn.Module) -> None:
        self._names = {id(m): f"model.{n}" if n else "model" for n, m in model.named_modules()}
        self._modules = list(model.modules())
        self._stack: list[str] = []
        self._changes: list[tuple[str, str]] = []
        self.in_backward = False

    @property
    def current(self) -> str:
        """The innermost module whose forward runs, or `loss`."""
        return self._stack[-1] if self._stack else "loss"

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Follows the modules' forwards while inside."""
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
def attributes_restored(model: nn.Module) -> Iterator[None]:
    """Puts back what a traced forward pass set on modules, which would be stand-ins without numbers.

    Raises:
        CaptureError: It replaced a tensor that is no buffer, as a running average does.
    """
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    replaced: list[str] = []
    try:
        yield
    finally:
        for name, module in model.named_modules():
            now, then = vars(module), before[name]
            changed = [key for key in {**then, **now} if then.get(key) is not now.get(key)]
            for key in changed:
                if isinstance(then.get(key), torch.Tensor):
                    replaced.append(f"model.{name}.{key}" if name else f"model.{key}")
                now.pop(key, None)
                if key in then:
                    now[key] = then[key]
    if replaced:
        raise CaptureError(
            "the forward pass replaces a tensor that is no buffer",
            where=replaced[0],
            advice="make it a buffer, with register_buffer",
        )


@contextmanager
def errors_named(modules: ModuleStack) -> Iterator[None]:
    """Turns what torch raises inside into a `CaptureError` that names the module."""
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


class Reader:
    """Turns a traced module into a `Graph`, gathering the constants it holds."""

    def __init__(
        self, traced: GraphModule, inputs: list[Input], modules: ModuleStack, *, exact: bool = False
    ) -> None:
        self._exact = exact
        self._traced = traced
        self._inputs = inputs
        self._modules = modules
        self.constants: list[torch.Tensor] = []

    def graph(self, outputs: list[tuple[str, str]]) -> Graph:
        """The graph whose results, after the loss, are `outputs`: gradients and buffers by name.

        Raises:
            CaptureError: It has an operator or argument that a program cannot hold; names the module.
        """
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
        if self._exact and name != GETITEM and name not in EXACT and name not in DRAWING:
            raise CaptureError(
                f"the operator {name} is not defined in exact arithmetic",
                where=self._modules.module_of(node),
                advice="see Operators in the specification; or record with arithmetic='native'",
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
