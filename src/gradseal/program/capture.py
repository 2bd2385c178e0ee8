"""From a model and a loss to a graph of named operators.

The loss is traced on stand-ins that hold no numbers, forward and backward, for one batch shape: no parameter
can be baked in, and a decision that depends on data cannot be taken silently. It is traced twice, and the two
graphs must be equal, or something outside the graph (Python's or NumPy's randomness, a counter) had a say.
Every tensor that is neither state nor batch is listed as a constant. Format: docs/spec/program.md, section 3.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    FakeTensorMode,
)
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.nn.utils.stateless import _reparametrize_module

from gradseal.errors import CaptureError
from gradseal.program.graph import Graph, Input, Ref, without_dead_values
from gradseal.program.interpret import overload
from gradseal.program.memory import to_bytes
from gradseal.program.operators import GETITEM
from gradseal.program.samples import SampleSchema
from gradseal.program.trace import ModuleStack, Reader, attributes_restored, errors_named

Loss = Callable[[nn.Module, Any], torch.Tensor]


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
        if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
            raise CaptureError(
                "a lazy module that has no shape yet",
                where=f"model.{name}",
                advice="run a forward pass first",
            )
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
    *,
    exact: bool = False,
) -> Captured:
    """The graph of one step's loss and gradients for batches shaped as `batch`.

    Args:
        model: In the training flags that it is to be trained with; not changed.
        loss: From the model and a batch to a scalar.
        trained: Names of the parameters that gradients are wanted for.
        schema: What a batch's tree is.
        batch: The leaves of a batch.
        exact: Every operator must be defined in exact arithmetic.

    Raises:
        CaptureError: Something in it cannot be a program; names the module or operator.
    """
    before = _generators_outside()
    first, constants = _capture_once(model, loss, trained, schema, batch, exact=exact)
    again, others = _capture_once(model, loss, trained, schema, batch, exact=exact)
    if _generators_outside() != before:
        raise CaptureError(
            "draws from Python's or NumPy's random numbers, which a replay does not have",
            where="loss",
            advice="use torch's own randomness in the forward pass",
        )
    difference = _first_difference(first, again) or _different_constant(constants, others)
    if difference:
        raise CaptureError(
            f"the loss traced twice gave two programs: {difference}",
            where="loss",
            advice="use torch's own randomness in the forward pass, not Python's or NumPy's, and no counters",
        )
    return Captured(graph=first, constants=constants)


def _generators_outside() -> tuple[object, ...]:
    """Where the generators of Python and NumPy stand."""
    state: Any = np.random.get_state(legacy=False)
    return random.getstate(), state["state"]["key"].tobytes(), state["state"]["pos"]


def _capture_once(
    model: nn.Module,
    loss: Loss,
    trained: Sequence[str],
    schema: SampleSchema,
    batch: Sequence[torch.Tensor],
    *,
    exact: bool,
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
    modules = ModuleStack(model)

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

    with (
        attributes_restored(model),
        modules.watch(),
        errors_named(modules),
        torch.random.fork_rng(devices=[]),
        mode,
    ):
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
    reader = Reader(traced, inputs, modules, exact=exact)
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
