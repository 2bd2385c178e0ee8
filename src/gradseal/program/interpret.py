"""Runs a graph, operator by operator, and nothing but a graph.

The recorder and the verifier train with this same code. Each operator comes from the closed list, by a table
made once, with arguments of the kinds that its schema has, and tensors where it says so; uninitialised memory
is handed out as zeros; what is written in place is never state, batch or constant; a value is freed after its
last use; with `guarded`, what kernels take on trust is checked first. In native arithmetic an operator is
ATen's, and randomness comes from torch's default generators, which the caller seeds for the step
(`native.seeded`); in exact arithmetic both are the project's own (`exact.operators`). Format:
docs/spec/program.md, sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch

from gradseal.errors import ReplayError
from gradseal.program.exact.operators import DRAWING, EXACT
from gradseal.program.exact.updates import canonical_
from gradseal.program.graph import Argument, Graph, Named, Node, Ref
from gradseal.program.guards import GUARDS
from gradseal.program.operators import FILLED, GETITEM, OPERATORS
from gradseal.program.randomness import Words

Draws = Callable[[int], Callable[[int], Words]]
"""From a node's number to what gives it so many random words, for exact arithmetic."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """A node made ready: its function, its arguments, and where values go into them."""

    name: str
    function: Callable[..., Any]
    args: list[Any]
    kwargs: dict[str, Any]
    slots: list[tuple[int, int]]
    nested: bool
    check: Callable[[Mapping[str, Any]], None] | None
    names: tuple[str, ...]
    defaults: Mapping[str, Any]
    writes: frozenset[str]
    needs: tuple[tuple[str, int, bool], ...]
    frees: tuple[int, ...]
    draws: bool

    def bound(self, args: list[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by the names of the operator's schema."""
        return {**self.defaults, **dict(zip(self.names, args, strict=False)), **kwargs}


class Interpreter:
    """A graph made ready to run many times on one device.

    Args:
        graph: What to run.
        constants: The graph's constants by index, on `device`.
        device: Where the run is.
        guarded: Check the shapes, strides and indexes that kernels trust; needed where the graph is not
            one's own.
        exact: In exact arithmetic, not in native.

    Raises:
        ReplayError: A node has arguments that its operator does not take, or an operator that exact
            arithmetic does not define.
    """

    def __init__(
        self,
        graph: Graph,
        constants: Sequence[torch.Tensor],
        device: torch.device,
        *,
        guarded: bool,
        exact: bool = False,
    ) -> None:
        self._graph = graph
        self._constants = constants
        self._device = device
        self.exact = exact
        functions = _EXACT_FUNCTIONS if exact else _FUNCTIONS
        self._calls = [
            _prepare(node, frees, device, guarded, functions, where=f"node {number}, {node.operator}")
            for number, (node, frees) in enumerate(zip(graph.nodes, graph.last_uses(), strict=True))
        ]
        if exact:
            self._calls = _laid_out(graph, self._calls)

    @torch.no_grad()
    def run(
        self, state: Mapping[str, torch.Tensor], batch: Sequence[torch.Tensor], draws: Draws | None = None
    ) -> StepResult:
        """Runs one step's graph; neither `state` nor `batch` is changed, nor shared with the result.

        Args:
            state: Parameters and buffers by state name.
            batch: The leaves of the batch.
            draws: Where random words come from; for exact arithmetic.

        Raises:
            ReplayError: An operator refused its arguments; names the node.
        """
        values: list[Any] = [self._input(i.kind, i.key, state, batch) for i in self._graph.inputs]
        kept = {_memory(value) for value in values}
        for number, call in enumerate(self._calls):
            try:
                words = draws(number) if call.draws and draws is not None else None
                values.append(_apply(call, values, kept, words))
            except (ArithmeticError, AssertionError, LookupError, MemoryError, RuntimeError) as e:
                self._refuse(number, call, e)
            except (AttributeError, TypeError, ValueError, Warning) as e:
                self._refuse(number, call, e)
            for dead in call.frees:
                values[dead] = None
        return self._result(values, kept)

    @staticmethod
    def _refuse(number: int, call: _Call, error: Exception) -> NoReturn:
        first_line = str(error).strip().partition("\n")[0][:300]
        message = first_line or type(error).__name__
        raise ReplayError(message, where=f"node {number}, {call.name}") from error

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

    def _result(self, values: list[Any], kept: set[int]) -> StepResult:
        loss = self._output(values[self._graph.loss], "loss", kept)
        if loss.numel() != 1:
            raise ReplayError(f"the loss has shape {tuple(loss.shape)}, not one element", where="graph: loss")
        gradients, buffers = self._graph.gradients, self._graph.buffers
        return StepResult(
            loss=loss,
            gradients={n: self._output(values[v], f"gradient of {n}", kept) for n, v in gradients.items()},
            buffers={
                n: self._output(values[v], f"new value of buffer {n}", kept) for n, v in buffers.items()
            },
        )

    def _output(self, value: Any, name: str, kept: set[int]) -> torch.Tensor:
        if not isinstance(value, torch.Tensor):
            raise ReplayError("is not a tensor", where=f"graph: {name}")
        if value.device.type != self._device.type:
            raise ReplayError(f"is on {value.device}", where=f"graph: {name}")
        # What is a view of state would change while the state moves on.
        value = value.clone() if _memory(value) in kept else value
        return canonical_(value.contiguous()) if self.exact and value.dtype is torch.float32 else value


def _memory(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _laid_out(graph: Graph, calls: Sequence[_Call]) -> list[_Call]:
    """The calls of exact arithmetic, whose results lie in memory in one way on any machine.

    What is no view of an argument lies row by row. So a view that native arithmetic has may be none here,
    and is then a copy, unless something is written to what it is a view of: then it is refused as it runs.
    """
    first = len(graph.inputs)
    root = list(range(first + len(calls)))
    written: set[int] = set()
    for value, (node, call) in enumerate(zip(graph.nodes, calls, strict=True), first):
        own = node.args[0] if node.args else node.kwargs.get(call.names[0]) if call.names else None
        if isinstance(own, Ref) and (node.operator in _VIEWS or node.operator in _IN_PLACE):
            root[value] = root[own.value]
        named = {**dict(zip(call.names, node.args, strict=False)), **node.kwargs}
        targets = (named.get(name) for name in call.writes)
        written.update(root[target.value] for target in targets if isinstance(target, Ref))
    laid_out = []
    for value, (node, call) in enumerate(zip(graph.nodes, calls, strict=True), first):
        if node.operator not in _VIEWS and node.operator not in _IN_PLACE:
            laid_out.append(replace(call, function=_row_by_row(call.function)))
        elif root[value] in written and node.operator in _VIEWS:
            laid_out.append(replace(call, function=_FUNCTIONS[node.operator]))
        else:
            laid_out.append(call)
    return laid_out


def _row_by_row(function: Callable[..., Any]) -> Callable[..., Any]:
    def laid_out(*args: Any, **kwargs: Any) -> Any:
        made = function(*args, **kwargs)
        if isinstance(made, torch.Tensor):
            return made.contiguous()
        if isinstance(made, tuple | list):
            return type(made)(m.contiguous() if isinstance(m, torch.Tensor) else m for m in made)
        return made

    return laid_out


def _apply(call: _Call, values: list[Any], kept: set[int], words: Callable[[int], Words] | None) -> Any:
    args, kwargs = call.args.copy(), call.kwargs
    if call.nested:
        args = [_resolve(a, values) for a in args]
        kwargs = {name: _resolve(a, values) for name, a in kwargs.items()}
    else:
        for position, value in call.slots:
            args[position] = values[value]
    for name, position, is_list in call.needs:
        given = args[position] if position < len(args) else kwargs.get(name)
        # PyTorch takes None for a tensor that is not there, which few kernels expect.
        several = is_list and isinstance(given, list | tuple)
        if given is None or (several and any(value is None for value in given)):
            raise ValueError(f"{name} is no tensor")
    if call.check is not None or call.writes:
        bound = call.bound(args, kwargs)
        _check_writes(bound, call.writes, kept)
        if call.check is not None:
            call.check(bound)
    return call.function(*args, **kwargs) if words is None else call.function(words, *args, **kwargs)


def _check_writes(bound: Mapping[str, Any], writes: frozenset[str], kept: set[int]) -> None:
    """Refuses to write to what is not the graph's own, or to one place twice: which is last is a race."""
    targets = {name: bound[name] for name in writes if isinstance(bound[name], torch.Tensor)}
    for name, target in targets.items():
        if _memory(target) in kept:
            raise ValueError(f"writes to state, batch or a constant, by its argument {name}")
        if _overlaps(target):
            raise ValueError(f"writes to memory that overlaps itself, by its argument {name}")
    if len({_memory(target) for target in targets.values()}) < len(targets):
        raise ValueError("writes to one memory by several arguments")


def _overlaps(tensor: torch.Tensor) -> bool:
    """Whether two elements of a tensor may lie in one place."""
    reach = 0
    dims = zip(tensor.stride(), tensor.shape, strict=True)
    for stride, size in sorted((stride, size) for stride, size in dims if size > 1):
        if stride <= reach:
            return tensor.numel() > 0
        reach += stride * (size - 1)
    return False


def _resolve(argument: Any, values: list[Any]) -> Any:
    if isinstance(argument, Ref):
        return values[argument.value]
    return [_resolve(a, values) for a in argument] if isinstance(argument, list) else argument


def _prepare(
    node: Node,
    frees: tuple[int, ...],
    device: torch.device,
    guarded: bool,
    functions: Mapping[str, Callable[..., Any]],
    *,
    where: str,
) -> _Call:
    if node.operator not in functions:
        raise ReplayError("is not defined in exact arithmetic", where=where)
    schema = _schema(node.operator)
    if schema is not None:
        _check_kinds(node, schema, where)
    args = [_ready(a, device) for a in node.args]
    kwargs = {name: _ready(a, device) for name, a in node.kwargs.items()}
    arguments = [] if schema is None else schema.arguments
    return _Call(
        name=node.operator,
        function=functions[node.operator],
        args=args,
        kwargs=kwargs,
        slots=[(i, a.value) for i, a in enumerate(args) if isinstance(a, Ref)],
        nested=any(isinstance(a, list) and _holds_ref(a) for a in args)
        or any(map(_holds_ref, kwargs.values())),
        check=GUARDS.get(node.operator) if guarded else None,
        names=tuple(a.name for a in arguments),
        defaults={a.name: a.default_value for a in arguments if a.has_default_value()},
        writes=_written(node.operator, arguments),
        needs=_needed(arguments),
        frees=frees,
        draws=functions is _EXACT_FUNCTIONS and node.operator in DRAWING,
    )


def _schema(name: str) -> Any:
    """The operator's schema; `getitem` has none."""
    return None if name == GETITEM else overload(name)._schema


def _written(name: str, arguments: Sequence[Any]) -> frozenset[str]:
    if name == "aten.native_batch_norm.default":  # its schema does not say so
        return frozenset(["running_mean", "running_var"])
    return frozenset(a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write)


def _needed(arguments: Sequence[Any]) -> tuple[tuple[str, int, bool], ...]:
    """Name and position of the arguments that are tensors or lists of tensors, none of which may lack."""
    kinds = ((i, a.name, str(a.real_type)) for i, a in enumerate(arguments))
    return tuple((name, i, kind != "Tensor") for i, name, kind in kinds if kind in ("Tensor", "List[Tensor]"))


def _check_kinds(node: Node, schema: Any, where: str) -> None:
    """Refuses arguments of another kind than the schema's, which torch would take for something else."""
    positional = [a for a in schema.arguments if not a.kwarg_only]
    by_name = {a.name: a for a in schema.arguments}
    if len(node.args) > len(positional):
        raise ReplayError(f"has {len(node.args)} arguments where {len(positional)} are taken", where=where)
    given = {a.name: value for a, value in zip(positional, node.args, strict=False)}
    for name, value in node.kwargs.items():
        if name not in by_name or name in given:
            raise ReplayError(f"has an argument {name[:40]!r} too many", where=where)
        given[name] = value
    for name, argument in by_name.items():
        if name in given and not _is_kind(given[name], str(argument.real_type)):
            raise ReplayError(f"{name} is not a {argument.real_type}", where=where)
        if name not in given and not argument.has_default_value():
            raise ReplayError(f"lacks the argument {name}", where=where)


def _is_kind(value: Argument, kind: str) -> bool:
    optional = kind.startswith("Optional[")
    kind = kind.removeprefix("Optional[").removesuffix("]") if optional else kind
    if value is None:
        return optional
    if kind in _NAMED_KINDS:
        return isinstance(value, Named) and value.kind == _NAMED_KINDS[kind]
    if isinstance(value, tuple) and kind.startswith("List["):
        return all(_is_kind(v, kind.removeprefix("List[").removesuffix("]")) for v in value)
    if isinstance(value, Ref):
        return kind in ("Tensor", "List[Tensor]")
    return type(value) in _PLAIN_KINDS.get(kind, ())


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


def overload(name: str) -> Any:
    """The operator of the closed list that has this name."""
    _, operator, overload = name.split(".")
    return getattr(getattr(torch.ops.aten, operator), overload)


_NAMED_KINDS = {
    "ScalarType": "dtype",
    "Layout": "layout",
    "MemoryFormat": "memory_format",
    "Device": "device",
}
_PLAIN_KINDS: dict[str, tuple[type, ...]] = {
    "number": (bool, int, float),
    "float": (int, float),
    "int": (int,),
    "bool": (bool,),
    "str": (str,),
    # One number stands for a list of it.
    "List[int]": (int,),
    # A tensor argument takes a number, as in `mul(x, 2)`.
    "Tensor": (int, float),
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: _zeros(overload(name)) if name in FILLED else overload(name) for name in OPERATORS},
    GETITEM: _item,
}


def _aliasing(*, write: bool) -> frozenset[str]:
    """The operators of which a result shares memory with an argument, written to or not."""

    def does(name: str) -> bool:
        returns = overload(name)._schema.returns
        return any(r.alias_info is not None and r.alias_info.is_write == write for r in returns)

    return frozenset(name for name in OPERATORS if does(name))


_VIEWS = _aliasing(write=False) | {GETITEM}
_IN_PLACE = _aliasing(write=True)
_EXACT_FUNCTIONS: dict[str, Callable[..., Any]] = {**EXACT, **DRAWING, GETITEM: _item}
