"""Everything that is fixed before step 0, in the order in which it is fixed.

Captures the program, before anything is written; commits to the data, finds where every tensor comes from,
and makes the manifest, once its readers would take it and what it names. Only then, since the seed is bound
to the manifest, are state zero and the constants filled. Last, the captured graph is run once beside the
user's own forward and backward pass: they must agree to the bit before anything is sealed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gradseal.errors import (
    CaptureError,
    MalformedBundle,
    RecordError,
    RecordWarning,
    ReplayError,
    UnknownKind,
)
from gradseal.program.batches import RULE, schema_of
from gradseal.program.capture import Captured, Loss, capture, check_model
from gradseal.program.capture_optimizer import capture_optimizer
from gradseal.program.fills import fill
from gradseal.program.graph import Graph, renumber_constants
from gradseal.program.initialise import rule_for
from gradseal.program.interpret import Interpreter, StepResult
from gradseal.program.memory import dtype_name, from_bytes, to_bytes
from gradseal.program.native import Environment, check_recordable, current_environment, seeded
from gradseal.program.order import SEQUENTIAL, SHUFFLED, Order
from gradseal.program.program import Program
from gradseal.program.randomness import run_seed
from gradseal.program.release import Release
from gradseal.program.rules import Rule
from gradseal.program.samples import SampleSchema
from gradseal.program.sources import Given, Initialisation, Source
from gradseal.program.step import compute, take_step
from gradseal.program.tensors import TensorSpec
from gradseal.proof.fields import Fields
from gradseal.proof.manifest import MAX_SEGMENT_STEPS, MAX_SEGMENTS, MAX_STEPS, Manifest, Plan, Seed
from gradseal.proof.note import Signer
from gradseal.proof.writer import BlobWriter
from gradseal.record.data import CommittedData, commit, dataset_of, example
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
    """A run that is ready for step 0; `watched` are the tensors outside the state that the loss reads."""

    manifest: Manifest
    program: Program
    environment: Environment
    seed: bytes
    live: LiveState
    data: CommittedData
    order: Order
    interpreters: Mapping[int, Interpreter]
    release: Release
    watched: tuple[torch.Tensor, ...]

    def compute(
        self, state: Mapping[str, torch.Tensor], leaves: Sequence[torch.Tensor], step: int
    ) -> StepResult:
        """Runs a step's graph on the leaves of its batch; `state` stays as it is."""
        return compute(self.interpreters[len(leaves[0])], state, leaves, seed=self.seed, step=step)

    def take_step(
        self, state: Mapping[str, torch.Tensor], leaves: Sequence[torch.Tensor], step: int
    ) -> StepResult:
        """Moves `state` on by one step, in place."""
        interpreter, optimizer = self.interpreters[len(leaves[0])], self.program.optimizer
        return take_step(interpreter, optimizer, state, leaves, seed=self.seed, step=step)


def prepare(
    request: Request, signer: Signer, blobs: BlobWriter, progress: Callable[[int, int], None]
) -> Prepared:
    """Fixes everything that is fixed before step 0, and fills state zero.

    Args:
        request: What the user asked for.
        signer: The owner's key.
        blobs: Where what the manifest names goes.
        progress: Called with the number of samples committed and of all, now and then.

    Raises:
        CaptureError: Something cannot be recorded; names it.
        RecordError: The captured graph and the user's own computation differ.
    """
    check_recordable()
    dataset = dataset_of(
        request.data, batch_size=request.batch_size, shuffle=request.shuffle, drop_last=request.drop_last
    )
    _check_plan(request, len(dataset))
    check_model(request.model)
    optimizer = capture_optimizer(request.optimizer, request.model)
    live = LiveState(request.model, request.optimizer, optimizer)
    schema = schema_of(dataset[0])
    sizes = _order(request, len(dataset), seed=bytes(32)).batch_sizes
    captured = {
        size: capture(
            request.model,
            request.loss,
            tuple(optimizer.parameters()),
            schema,
            example(schema, size, live.device),
        )
        for size in sizes
    }
    _check_same_gradients(captured)
    data = commit(dataset, schema, blobs, progress)
    constants = _shared_constants(captured)
    graphs = {size: renumber_constants(c.graph, _positions(c, constants)) for size, c in captured.items()}
    program = Program(
        layout=live.layout,
        constants=tuple(_constant_spec(i, c) for i, c in enumerate(constants)),
        graphs={size: blobs.put(graph.encode()) for size, graph in graphs.items()},
        optimizer=optimizer,
    )
    initialisation = _initialisation(program, live, constants, blobs)
    _warn(request.model, program, initialisation)
    release = Release.of(_released_names(request.model))
    environment = current_environment(live.device.type)
    manifest = Manifest(
        owner=signer.verification_key,
        program=blobs.put(program.encode()),
        initialisation=blobs.put(initialisation.encode()),
        data=data.commitment,
        plan=_plan(request),
        arithmetic=environment.to_json(),
        release=blobs.put(release.encode()),
    )
    _check_readable(
        manifest=manifest,
        program=program,
        graphs=graphs,
        initialisation=initialisation,
        release=release,
        schema=schema,
    )
    seed = run_seed(request.seed, manifest.digest())
    _fill_state(live, initialisation, seed)
    _fill_constants(captured, program, constants, initialisation, seed)
    # Copies: the user's own tensors may change, which the record must notice and not follow.
    own = [constant.clone() for constant in constants]
    prepared = Prepared(
        manifest=manifest,
        program=program,
        environment=environment,
        seed=seed,
        live=live,
        data=data,
        order=_order(request, len(dataset), seed=seed),
        interpreters={
            size: Interpreter(graph, own, live.device, guarded=False) for size, graph in graphs.items()
        },
        release=release,
        watched=tuple(constant for one in captured.values() for constant in one.constants),
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
    segments = -(-request.steps // request.every)
    for name, value, limit in (
        ("steps", request.steps, MAX_STEPS),
        ("every", request.every, MAX_SEGMENT_STEPS),
        ("every", segments, MAX_SEGMENTS),
    ):
        if value > limit:
            what = "segments" if value is segments else "steps"
            raise CaptureError(f"{value} {what}, over the limit of {limit}", where=name)


def _order(request: Request, samples: int, seed: bytes) -> Order:
    return Order(
        rule=SHUFFLED if request.shuffle else SEQUENTIAL,
        samples=samples,
        batch_size=request.batch_size,
        drop_last=request.drop_last,
        seed=seed,
    )


def _plan(request: Request) -> Plan:
    return Plan(
        steps=request.steps,
        every=request.every,
        batch_size=request.batch_size,
        drop_last=request.drop_last,
        order=SHUFFLED if request.shuffle else SEQUENTIAL,
        collation=RULE,
        seed=Seed(source="declared", value=request.seed),
    )


def _check_same_gradients(captured: Mapping[int, Captured]) -> None:
    """Refuses a parameter that only some batch sizes train: its momentum would begin at a step of its own."""
    sizes = iter(captured)
    first = next(sizes)
    for size in sizes:
        for name in set(captured[first].graph.gradients) ^ set(captured[size].graph.gradients):
            raise CaptureError(
                f"is trained by batches of {first} or of {size} samples, not by both",
                where=f"model.{name}",
                advice="make the loss reach it whatever the batch's size, or use drop_last=True",
            )


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


def _initialisation(
    program: Program, live: LiveState, constants: Sequence[torch.Tensor], blobs: BlobWriter
) -> Initialisation:
    """Where every tensor comes from; the bytes of those that are given are stored."""
    shapes = [spec.shape for spec in program.layout]

    def source(spec: TensorSpec, tensor: torch.Tensor) -> Source:
        rule = rule_for(spec, tensor, shapes)
        return rule if rule is not None else Given(digest=blobs.put(to_bytes(tensor)))

    return Initialisation(
        state=tuple(map(source, program.layout, live.tensors().values())),
        constants=tuple(map(source, program.constants, constants)),
    )


def _warn(model: nn.Module, program: Program, initialisation: Initialisation) -> None:
    """Says before training what would otherwise be learnt from the verdict."""
    given = [
        spec.name
        for spec, source in zip(program.layout, initialisation.state, strict=True)
        if isinstance(source, Given)
    ]
    if given:
        more = f" and {len(given) - 3} more" if len(given) > 3 else ""
        warnings.warn(
            f"{', '.join(given[:3])}{more} start from bytes that no rule makes, so a verifier will hardly "
            "find initialisation shown; build the model inside `with gradseal.initialise():`",
            RecordWarning,
            stacklevel=4,
        )
    if not model.training:
        warnings.warn(
            "the model is in evaluation mode, and will be trained in it; call model.train() before record",
            RecordWarning,
            stacklevel=4,
        )


def _released_names(model: nn.Module) -> dict[str, str]:
    """For each tensor in the model's state dict, the state tensor that stands behind it."""
    behind = {id(p): f"parameters/{n}" for n, p in model.named_parameters()}
    behind |= {id(b): f"buffers/{n}" for n, b in model.named_buffers()}
    released = {n: v for n, v in model.state_dict(keep_vars=True).items() if isinstance(v, torch.Tensor)}
    for name, tensor in released.items():
        if id(tensor) not in behind:
            raise CaptureError(
                "stands in the state dict, but is neither parameter nor buffer", where=f"model.{name}"
            )
    return {name: behind[id(tensor)] for name, tensor in released.items()}


def _check_readable(
    *,
    manifest: Manifest,
    program: Program,
    graphs: Mapping[int, Graph],
    initialisation: Initialisation,
    release: Release,
    schema: SampleSchema,
) -> None:
    """Refuses, now, what a reader of the bundle would refuse after the training."""
    layout = {spec.name: spec for spec in program.layout}
    try:
        Manifest.decode(manifest.encode())
        Environment.from_fields(Fields(dict(manifest.arithmetic), "environment"))
        Program.decode(program.encode(), where="program")
        for size, graph in graphs.items():
            where = f"graph of batch size {size}"
            program.check_graph(Graph.decode(graph.encode(), where=where), where)
        Initialisation.decode(
            initialisation.encode(), program.layout, program.constants, where="initialisation"
        )
        Release.decode(release.encode(), layout, where="release map")
        SampleSchema.decode(schema.encode(), where="sample schema")
    except (MalformedBundle, UnknownKind) as e:
        raise CaptureError(f"is beyond what a bundle can hold: {e.message}", where=e.where) from e


@torch.no_grad()
def _fill_state(live: LiveState, initialisation: Initialisation, seed: bytes) -> None:
    for spec, source, tensor in zip(live.layout, initialisation.state, live.tensors().values(), strict=True):
        if not isinstance(source, Given):
            tensor.copy_(_filled(spec, source, seed, live.device))


@torch.no_grad()
def _fill_constants(
    captured: Mapping[int, Captured],
    program: Program,
    constants: Sequence[torch.Tensor],
    initialisation: Initialisation,
    seed: bytes,
) -> None:
    """Fills constants that have a rule, in place, so that the user's own module computes with them too."""
    for spec, source, constant in zip(program.constants, initialisation.constants, constants, strict=True):
        if isinstance(source, Given):
            continue
        filled = _filled(spec, source, seed, constant.device)
        if not same_bits(filled, constant):
            everywhere = [t for c in captured.values() for t in c.constants if same_bits(t, constant)]
            for tensor in [constant, *everywhere]:
                tensor.copy_(filled)


def _filled(spec: TensorSpec, rule: Rule, seed: bytes, device: torch.device) -> torch.Tensor:
    data = fill(rule, seed=seed, name=spec.name, shape=spec.shape, dtype=spec.dtype)
    return from_bytes(data, spec.dtype, spec.shape, device, where=spec.name)


def _dtype_advice(prepared: Prepared) -> str:
    doubles = [f.name for f in prepared.data.schema.fields if f.dtype == "float64"]
    if not doubles:
        return ""
    return f"field {', '.join(doubles)} of the data is float64; cast it in the data set, with .float()"


def _compare_with_eager(request: Request, prepared: Prepared) -> None:
    """Runs step 0's batch once each way, leaving the state as it was.

    Raises:
        RecordError: Loss, a gradient or a buffer differs; names it.
    """
    batch = prepared.data.batch(prepared.order.indices(0), prepared.live.device)
    before = prepared.live.snapshot()
    try:
        own = prepared.compute(before, batch, step=0)
    except ReplayError as e:
        raise CaptureError(
            f"the captured program cannot be run: {e}", where="loss", advice=_dtype_advice(prepared)
        ) from e
    trained = set(prepared.program.optimizer.parameters())
    parameters = {n: p for n, p in request.model.named_parameters() if n in trained}
    with seeded(prepared.seed, 0):
        loss = request.loss(request.model, prepared.data.schema.unflatten([leaf.clone() for leaf in batch]))
        gradients: Sequence[torch.Tensor | None] = torch.autograd.grad(
            loss, list(parameters.values()), allow_unused=True
        )
    # Every tensor of the state, so that a change that the graph does not know of is seen.
    after = prepared.live.tensors()
    eager = {"loss": loss.detach(), **{name: tensor.clone() for name, tensor in after.items()}}
    graph = {"loss": own.loss, **before, **{f"buffers/{name}": value for name, value in own.buffers.items()}}
    # A gradient that only one of them has is as different as can be.
    none = torch.empty(0, device=prepared.live.device)
    for name, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None or name in own.gradients:
            eager[f"gradient of {name}"] = none if gradient is None else gradient
            graph[f"gradient of {name}"] = own.gradients.get(name, none)
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
