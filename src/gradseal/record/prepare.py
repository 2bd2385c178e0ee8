"""Everything that is fixed before step 0, in the order in which it is fixed.

Captures the program, commits to the data, finds where every tensor comes from, writes the manifest, and only
then, since the seed is bound to the manifest, fills state zero. Last, the captured graph is run once beside
the user's own forward and backward pass: they must agree to the bit before anything is sealed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gradseal.errors import CaptureError, RecordError
from gradseal.program.capture import Captured, Loss, capture, check_model
from gradseal.program.capture_optimizer import capture_optimizer
from gradseal.program.graph import renumber_constants
from gradseal.program.initialise import rule_for
from gradseal.program.interpret import Interpreter
from gradseal.program.memory import dtype_name, from_bytes, to_bytes
from gradseal.program.native import Environment, current_environment, seeded
from gradseal.program.order import SEQUENTIAL, SHUFFLED, Order
from gradseal.program.program import Program
from gradseal.program.randomness import run_seed
from gradseal.program.release import Release
from gradseal.program.rules import fill
from gradseal.program.sources import Given, Initialisation, Source
from gradseal.program.tensors import TensorSpec
from gradseal.proof.manifest import Manifest, Plan, Seed
from gradseal.proof.note import Signer
from gradseal.proof.writer import BlobWriter
from gradseal.record.data import CommittedData, commit, dataset_of
from gradseal.record.live import LiveState, same_bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked `record` for; see there."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss
    data: Any
    batch_size: int
    steps: int
    every: int
    seed: bytes
    shuffle: bool
    drop_last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A run that is ready for step 0."""

    manifest: Manifest
    program: Program
    environment: Environment
    seed: bytes
    live: LiveState
    data: CommittedData
    order: Order
    interpreters: Mapping[int, Interpreter]
    release: Release


def prepare(request: Request, signer: Signer, blobs: BlobWriter, progress: Callable[[int], None]) -> Prepared:
    """Fixes everything that is fixed before step 0, and fills state zero.

    Args:
        request: What the user asked for.
        signer: The owner's key.
        blobs: Where what the manifest names goes.
        progress: Called with the number of samples committed, now and then.

    Raises:
        CaptureError: Something cannot be recorded; names it.
        RecordError: The captured graph and the user's own computation differ.
    """
    dataset = dataset_of(request.data)
    _check_plan(request, len(dataset))
    check_model(request.model)
    optimizer = capture_optimizer(request.optimizer, request.model)
    live = LiveState(request.model, request.optimizer, optimizer)
    data = commit(dataset, blobs, progress)
    order = _order(request, len(dataset), seed=bytes(32))
    captured = {
        size: _capture(request, tuple(optimizer.parameters()), data, size, live) for size in order.batch_sizes
    }
    constants = _shared_constants(captured)
    graphs = {size: renumber_constants(c.graph, _positions(c, constants)) for size, c in captured.items()}
    program = Program(
        layout=live.layout,
        constants=tuple(_constant_spec(i, c) for i, c in enumerate(constants)),
        graphs={size: blobs.put(graph.encode()) for size, graph in graphs.items()},
        optimizer=optimizer,
    )
    release = Release.of(_released_names(request.model))
    environment = current_environment(live.device.type)
    initialisation = Initialisation(
        state=tuple(
            _source(s, t, live.layout, blobs)
            for s, t in zip(live.layout, live.tensors().values(), strict=True)
        ),
        constants=tuple(
            _source(s, t, live.layout, blobs) for s, t in zip(program.constants, constants, strict=True)
        ),
    )
    manifest = Manifest(
        owner=signer.verification_key,
        program=blobs.put(program.encode()),
        initialisation=blobs.put(initialisation.encode()),
        data=data.commitment,
        plan=_plan(request, order),
        arithmetic=environment.to_json(),
        release=blobs.put(release.encode()),
    )
    seed = run_seed(request.seed, manifest.digest())
    _fill_state(live, initialisation, seed)
    interpreters = {
        size: Interpreter(graph, constants, live.device, guarded=False) for size, graph in graphs.items()
    }
    prepared = Prepared(
        manifest=manifest,
        program=program,
        environment=environment,
        seed=seed,
        live=live,
        data=data,
        order=_order(request, len(dataset), seed=seed),
        interpreters=interpreters,
        release=release,
    )
    _compare_with_eager(request, prepared)
    return prepared


def _check_plan(request: Request, samples: int) -> None:
    for name in ("batch_size", "steps", "every"):
        value = getattr(request, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CaptureError(f"{value!r} is not a positive whole number", where=name)
    if request.batch_size > samples:
        raise CaptureError(
            f"a batch of {request.batch_size} samples, but the data has {samples}",
            where="batch_size",
            advice=f"use at most {samples}",
        )


def _order(request: Request, samples: int, seed: bytes) -> Order:
    return Order(
        rule=SHUFFLED if request.shuffle else SEQUENTIAL,
        samples=samples,
        batch_size=request.batch_size,
        drop_last=request.drop_last,
        seed=seed,
    )


def _plan(request: Request, order: Order) -> Plan:
    return Plan(
        steps=request.steps,
        every=request.every,
        batch_size=request.batch_size,
        drop_last=request.drop_last,
        order=order.rule,
        collation="stack-v1",
        seed=Seed(source="declared", value=request.seed),
    )


def _capture(
    request: Request, trained: Sequence[str], data: CommittedData, size: int, live: LiveState
) -> Captured:
    example = data.batch(range(size), live.device)
    return capture(request.model, request.loss, trained, data.schema, example)


def _shared_constants(captured: Mapping[int, Captured]) -> list[torch.Tensor]:
    """The constants of all graphs, those with equal bits once."""
    shared: list[torch.Tensor] = []
    for one in captured.values():
        for constant in one.constants:
            if not any(same_bits(constant, known) for known in shared):
                shared.append(constant)
    return shared


def _positions(captured: Captured, shared: Sequence[torch.Tensor]) -> list[int]:
    return [next(i for i, s in enumerate(shared) if same_bits(c, s)) for c in captured.constants]


def _constant_spec(index: int, constant: torch.Tensor) -> TensorSpec:
    return TensorSpec(
        name=f"constants/{index}", dtype=dtype_name(constant.dtype), shape=tuple(constant.shape)
    )


def _source(
    spec: TensorSpec, tensor: torch.Tensor, layout: Sequence[TensorSpec], blobs: BlobWriter
) -> Source:
    rule = rule_for(spec, tensor, [s.shape for s in layout])
    return rule if rule is not None else Given(digest=blobs.put(to_bytes(tensor)))


def _released_names(model: nn.Module) -> dict[str, str]:
    """For each name in the model's state dict, the state tensor that stands behind it."""
    parameters = {id(p): f"parameters/{n}" for n, p in model.named_parameters()}
    buffers = {id(b): f"buffers/{n}" for n, b in model.named_buffers()}
    behind = {n: parameters[id(p)] for n, p in model.named_parameters(remove_duplicate=False)}
    behind |= {n: buffers[id(b)] for n, b in model.named_buffers(remove_duplicate=False)}
    return {name: behind[name] for name in model.state_dict() if name in behind}


@torch.no_grad()
def _fill_state(live: LiveState, initialisation: Initialisation, seed: bytes) -> None:
    for spec, source, tensor in zip(live.layout, initialisation.state, live.tensors().values(), strict=True):
        if not isinstance(source, Given):
            data = fill(source, seed=seed, name=spec.name, shape=spec.shape, dtype=spec.dtype)
            tensor.copy_(from_bytes(data, spec.dtype, spec.shape, live.device, where=spec.name))


def _compare_with_eager(request: Request, prepared: Prepared) -> None:
    """Runs step 0's batch once each way, leaving the state as it was.

    Raises:
        RecordError: Loss, a gradient or a buffer differs; names it.
    """
    batch = prepared.data.batch(prepared.order.indices(0), prepared.live.device)
    before = prepared.live.snapshot()
    with seeded(prepared.seed, 0):
        own = prepared.interpreters[len(batch[0])].run(before, batch)
    parameters = {n: p for n, p in request.model.named_parameters() if n in own.gradients}
    with seeded(prepared.seed, 0):
        loss = request.loss(request.model, prepared.data.schema.unflatten(batch))
        gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    eager = {"loss": loss.detach(), **{f"gradient of {n}": g for n, g in gradients.items()}}
    graph = {"loss": own.loss, **{f"gradient of {n}": own.gradients[n] for n in parameters}}
    after = prepared.live.tensors()
    for name, value in own.buffers.items():
        eager[f"buffer {name}"], graph[f"buffer {name}"] = after[f"buffers/{name}"].clone(), value
    with torch.no_grad():
        for name, tensor in after.items():
            tensor.copy_(before[name])
    wrong = [name for name in graph if not same_bits(eager[name], graph[name])]
    if wrong:
        raise RecordError(
            f"the captured program and the model itself differ in {', '.join(wrong[:5])}"
            + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""),
            where="step 0",
            advice="something outside the program has a say: a constant tensor that changes, a Python value, "
            "a random generator of your own",
        )
