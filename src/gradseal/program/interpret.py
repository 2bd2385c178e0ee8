"""Runs a graph, operator by operator, and nothing but a graph.

The recorder and the verifier train with this same code. Each operator comes from the closed list, by a table
made once; uninitialised memory is handed out as zeros; a value is freed after its last use; with `guarded`,
indexes that kernels trust are checked first. Randomness comes from torch's default generators, which the
caller seeds for the step (`native.seeded`). Format: docs/spec/program.md, sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gradseal.errors import ReplayError
from gradseal.program.graph import Argument, Graph, Named, Node, Ref
from gradseal.program.operators import FILLED, GETITEM, INDEXED, OPERATORS

_MEMORY_FORMATS = {
    "contiguous": torch.contiguous_format,
    "preserve": torch.preserve_format,
    "channels_last": torch.channels_last,
    "channels_last_3d": torch.channels_last_3d,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What a graph gave: the scalar loss, gradients and new buffer values by state name."""

    loss: torch.Tensor
    gradients: Mapping[str, torch.Tensor]
    buffers: Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class _Call:
    """A node made ready: its function, its arguments, and where values go into them."""

    name: str
    function: Callable[..., Any]
    args: list[Any]
    kwargs: dict[str, Any]
    slots: list[tuple[int, int]]
    nested: bool
    guard: Callable[[list[Any]], None] | None
    frees: tuple[int, ...]


class Interpreter:
    """A graph made ready to run many times on one device.

    Args:
        graph: What to run.
        constants: The graph's constants by index, on `device`.
        device: Where the run is.
        guarded: Check the indexes that kernels trust; needed where the graph is not one's own.
    """

    def __init__(
        self, graph: Graph, constants: Sequence[torch.Tensor], device: torch.device, *, guarded: bool
    ) -> None:
        self._graph = graph
        self._constants = constants
        self._calls = [
            _prepare(node, frees, device, guarded)
            for node, frees in zip(graph.nodes, graph.last_uses(), strict=True)
        ]

    @torch.no_grad()
    def run(self, state: Mapping[str, torch.Tensor], batch: Sequence[torch.Tensor]) -> StepResult:
        """Runs one step's graph; `state` is read, and changed only if the graph changes it in place.

        Args:
            state: Parameters and buffers by state name.
            batch: The leaves of the batch.

        Raises:
            ReplayError: An operator refused its arguments; names the node.
        """
        values: list[Any] = [self._input(i.kind, i.key, state, batch) for i in self._graph.inputs]
        for number, call in enumerate(self._calls):
            try:
                values.append(_apply(call, values))
            except (RuntimeError, TypeError, IndexError, ValueError, NotImplementedError, OverflowError) as e:
                first_line = str(e).strip().partition("\n")[0][:300]
                raise ReplayError(first_line, where=f"node {number}, {call.name}") from e
            for dead in call.frees:
                values[dead] = None
        return self._result(values)

    def _input(
        self, kind: str, key: str | int, state: Mapping[str, torch.Tensor], batch: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        try:
            if kind == "state":
                return state[str(key)]
            return batch[int(key)] if kind == "batch" else self._constants[int(key)]
        except LookupError as e:
            raise ReplayError(
                f"the graph reads {kind} {key!r}, which the run does not have", where="graph"
            ) from e

    def _result(self, values: list[Any]) -> StepResult:
        loss = _tensor(values[self._graph.loss], "loss")
        if loss.numel() != 1:
            raise ReplayError(f"the loss has shape {tuple(loss.shape)}, not one element", where="graph: loss")
        return StepResult(
            loss=loss,
            gradients={name: _tensor(values[v], name) for name, v in self._graph.gradients.items()},
            buffers={name: _tensor(values[v], name) for name, v in self._graph.buffers.items()},
        )


def _tensor(value: Any, name: str) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise ReplayError("is not a tensor", where=f"graph: {name}")
    return value


def _apply(call: _Call, values: list[Any]) -> Any:
    if call.nested:
        args = [_resolve(a, values) for a in call.args]
        kwargs = {name: _resolve(a, values) for name, a in call.kwargs.items()}
    else:
        args, kwargs = call.args.copy(), call.kwargs
        for position, value in call.slots:
            args[position] = values[value]
    if call.guard is not None:
        call.guard(args)
    return call.function(*args, **kwargs)


def _resolve(argument: Any, values: list[Any]) -> Any:
    if isinstance(argument, Ref):
        return values[argument.value]
    return [_resolve(a, values) for a in argument] if isinstance(argument, list) else argument


def _prepare(node: Node, frees: tuple[int, ...], device: torch.device, guarded: bool) -> _Call:
    args = [_ready(a, device) for a in node.args]
    kwargs = {name: _ready(a, device) for name, a in node.kwargs.items()}
    nested = any(isinstance(a, list) and _holds_ref(a) for a in args) or any(
        isinstance(a, Ref | list) and _holds_ref(a) for a in kwargs.values()
    )
    return _Call(
        name=node.operator,
        function=_FUNCTIONS[node.operator],
        args=args,
        kwargs=kwargs,
        slots=[(i, a.value) for i, a in enumerate(args) if isinstance(a, Ref)],
        nested=nested,
        guard=_guard(node.operator) if guarded else None,
        frees=frees,
    )


def _holds_ref(argument: Any) -> bool:
    if isinstance(argument, list):
        return any(_holds_ref(a) for a in argument)
    return isinstance(argument, Ref)


def _ready(argument: Argument, device: torch.device) -> Any:
    match argument:
        case tuple():
            return [_ready(a, device) for a in argument]
        case Named("dtype", name):
            return getattr(torch, name)
        case Named("memory_format", name):
            return _MEMORY_FORMATS[name]
        case Named("layout", _):
            return torch.strided
        case Named():
            return device
        case _:
            return argument


def _item(values: Any, index: int) -> Any:
    if not isinstance(values, tuple | list):
        raise TypeError("getitem of something that is not several results")
    return values[index]


def _zeros(function: Callable[..., Any]) -> Callable[..., Any]:
    def filled(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs).zero_()

    return filled


def _overload(name: str) -> Callable[..., Any]:
    _, operator, overload = name.split(".")
    function: Callable[..., Any] = getattr(getattr(torch.ops.aten, operator), overload)
    return _zeros(function) if name in FILLED else function


def _guard(name: str) -> Callable[[list[Any]], None] | None:
    if name not in INDEXED:
        return None
    position, bound = INDEXED[name]

    def check(args: list[Any]) -> None:
        index = args[position]
        limit = _bound(bound, args)
        if index.numel():
            if bound == "classes":
                index = index[index != args[5]]
            low, high = (int(v) for v in index.aminmax()) if index.numel() else (0, -1)
            if low < 0 or high >= limit:
                raise IndexError(f"index {high if high >= limit else low} is out of range for {limit}")

    return check


def _bound(kind: str, args: list[Any]) -> int:
    if kind == "embedding":
        return int(args[2])
    if kind == "classes":
        return int(args[1].shape[-1 if args[1].dim() == 1 else 1])
    return int(args[1].shape[-1] * args[1].shape[-2])


_FUNCTIONS: dict[str, Callable[..., Any]] = {name: _overload(name) for name in OPERATORS} | {GETITEM: _item}
