"""Everything that is fixed before step 0, in the order in which it is fixed.

Captures the program, before anything is written; commits to the data, finds where every tensor comes from,
and makes the manifest, once its readers would take it and what it names. Only then, since the seed is bound
to the manifest, are state zero and the constants filled. Last, the captured graph is run once beside the
user's own forward and backward pass: they must agree to the bit before anything is sealed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from gradseal.errors import CaptureError, MalformedBundle, UnknownKind
from gradseal.program.batches import schema_of
from gradseal.program.capture import check_model
from gradseal.program.capture_optimizer import capture_optimizer
from gradseal.program.graph import Graph
from gradseal.program.interpret import Interpreter
from gradseal.program.native import Environment, check_recordable, current_environment
from gradseal.program.order import Order
from gradseal.program.program import Program
from gradseal.program.randomness import run_seed
from gradseal.program.release import Release
from gradseal.program.samples import SampleSchema
from gradseal.program.sources import Initialisation
from gradseal.program.step import Stepper
from gradseal.proof.fields import Fields
from gradseal.proof.manifest import Manifest
from gradseal.proof.note import Signer
from gradseal.proof.writer import BlobWriter
from gradseal.record.compare import compare_with_eager
from gradseal.record.data import CommittedData, commit, dataset_of
from gradseal.record.graphs import Graphs, capture_graphs
from gradseal.record.initial import fill_constants, fill_state, initialisation_of, warn
from gradseal.record.live import LiveState
from gradseal.record.plan import Request
from gradseal.record.spare import return_freed_memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A run that is ready for step 0.

    Args:
        manifest: What is sealed before.
        environment: The environment of this process.
        live: The state, in the user's model and optimizer.
        data: The committed samples.
        order: Which samples each batch holds.
        stepper: Takes the steps.
        reached: The parameters that the loss reaches.
        release: Which tensors are released at the end.
        watched: The tensors outside the state that the loss reads.
    """

    manifest: Manifest
    environment: Environment
    live: LiveState
    data: CommittedData
    order: Order
    stepper: Stepper
    reached: frozenset[str]
    release: Release
    watched: tuple[torch.Tensor, ...]


def prepare(
    request: Request,
    signer: Signer,
    blobs: BlobWriter,
    progress: Callable[[int, int], None],
    known: Initialisation | None = None,
) -> Prepared:
    """Fixes everything that is fixed before step 0, and fills state zero.

    Args:
        request: What the user asked for.
        signer: The owner's key.
        blobs: Where what the manifest names goes.
        progress: Called with the number of samples committed and of all, now and then.
        known: The initialisation of a run that is resumed.

    Raises:
        CaptureError: Something cannot be recorded; names it.
        RecordError: The captured graph and the user's own computation differ.
    """
    check_recordable()
    dataset = dataset_of(
        request.data, batch_size=request.batch_size, shuffle=request.shuffle, drop_last=request.drop_last
    )
    request.check(len(dataset))
    check_model(request.model)
    optimizer = capture_optimizer(request.optimizer, request.model)
    live = LiveState(request.model, request.optimizer, optimizer)
    clip, schedule = request.clip_by_norm(), request.schedule_of(optimizer, len(dataset))
    schema = schema_of(dataset[0])
    sizes = request.order(len(dataset)).batch_sizes
    graphs = capture_graphs(request, tuple(optimizer.parameters()), schema, sizes, live.device)
    data = commit(dataset, schema, blobs, progress)
    program = Program(
        layout=live.layout,
        constants=graphs.constant_specs,
        graphs={size: blobs.put(graph.encode()) for size, graph in graphs.by_size.items()},
        optimizer=optimizer,
        clip=clip,
        schedule=schedule,
    )
    initialisation = initialisation_of(program, live, graphs.constants, blobs, known)
    warn(request.model, program, initialisation, stacklevel=4)
    release = Release.of(_released_names(request.model))
    environment = current_environment(live.device.type)
    manifest = Manifest(
        owner=signer.verification_key,
        program=blobs.put(program.encode()),
        initialisation=blobs.put(initialisation.encode()),
        data=data.commitment,
        plan=request.plan(),
        arithmetic=environment.to_json(),
        release=blobs.put(release.encode()),
    )
    _check_readable(manifest, program, graphs, initialisation=initialisation, release=release, schema=schema)
    seed = run_seed(request.seed, manifest.digest())
    fill_state(live, initialisation, seed)
    fill_constants(program, graphs, initialisation, seed)
    # Copies: the user's own tensors may change, which the record must notice and not follow.
    own = [constant.clone() for constant in graphs.constants]
    interpreters = {
        size: Interpreter(graph, own, live.device, guarded=False) for size, graph in graphs.by_size.items()
    }
    prepared = Prepared(
        manifest=manifest,
        environment=environment,
        live=live,
        data=data,
        order=request.order(len(dataset), seed),
        stepper=Stepper(program=program, interpreters=interpreters, seed=seed),
        reached=graphs.reached,
        release=release,
        watched=graphs.watched,
    )
    first = data.batch(prepared.order.indices(0), live.device)
    compare_with_eager(
        request.model,
        request.batch_loss(),
        live=live,
        stepper=prepared.stepper,
        schema=schema,
        batch=first,
    )
    return_freed_memory()
    return prepared


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
    manifest: Manifest,
    program: Program,
    graphs: Graphs,
    *,
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
        for size, graph in graphs.by_size.items():
            where = f"graph of batch size {size}"
            program.check_graph(Graph.decode(graph.encode(), where=where), where)
        Initialisation.decode(
            initialisation.encode(), program.layout, program.constants, where="initialisation"
        )
        Release.decode(release.encode(), layout, where="release map")
        SampleSchema.decode(schema.encode(), where="sample schema")
    except (MalformedBundle, UnknownKind) as e:
        raise CaptureError(f"is beyond what a bundle can hold: {e.message}", where=e.where) from e
