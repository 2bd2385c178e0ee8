"""Everything that is fixed before step 0, in the order in which it is fixed.

`fix` captures the program, before anything is written; commits to the data, finds where every tensor comes
from, and makes the manifest, once its readers would take it and what it names. Only then, since seeds are
bound to the manifest, are state zero and the constants filled: `Fixed.seeded`, which may be called again once
other seeds are known. Last, `Fixed.compare` runs the captured graph once beside the user's own forward and
backward pass: they must agree to the bit before anything is sealed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from gradseal.errors import CaptureError, MalformedBundle, RecordWarning, ReplayError, UnknownKind
from gradseal.precede.beacons import Beacon
from gradseal.precede.slots import one_seed
from gradseal.program.arithmetic import Exact, read_arithmetic
from gradseal.program.batches import schema_of
from gradseal.program.capture import check_model
from gradseal.program.capture_optimizer import capture_optimizer
from gradseal.program.exact.fitness import prove
from gradseal.program.graph import Graph
from gradseal.program.interpret import Interpreter
from gradseal.program.native import Environment, check_recordable, current_environment
from gradseal.program.operators import RANDOM
from gradseal.program.optimizers import check_exact
from gradseal.program.order import Order
from gradseal.program.program import Program
from gradseal.program.randomness import run_seed
from gradseal.program.release import Release
from gradseal.program.samples import SampleSchema
from gradseal.program.seeds import Seeds
from gradseal.program.sources import Initialisation
from gradseal.program.step import Stepper
from gradseal.proof.fields import Fields
from gradseal.proof.manifest import DeclaredSeed, Manifest
from gradseal.proof.note import Signer
from gradseal.proof.writer import BlobWriter
from gradseal.record.compare import compare_with_eager, require_runs
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
        environment: That of this process, which must not change in native arithmetic; None in exact.
        live: The state, in the user's model and optimizer.
        data: The committed samples.
        seeds: The run's seeds, as far as they are known.
        order: Which samples each batch holds.
        stepper: Takes the steps.
        reached: The parameters that the loss reaches.
        release: Which tensors are released at the end.
        watched: The tensors outside the state that the loss reads.
    """

    manifest: Manifest
    environment: Environment | None
    live: LiveState
    data: CommittedData
    seeds: Seeds
    order: Order
    stepper: Stepper
    reached: frozenset[str]
    release: Release
    watched: tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """What is fixed before step 0, whatever the seeds.

    Args:
        request: What the user asked for.
        manifest: Names all of it.
        environment: As in `Prepared`.
        live: The state, in the user's model and optimizer.
        data: The committed samples.
        program: What a step computes.
        graphs: Its graphs and the constants that they read.
        initialisation: Where state zero and the constants come from.
        release: Which tensors are released at the end.
    """

    request: Request
    manifest: Manifest
    environment: Environment | None
    live: LiveState
    data: CommittedData
    program: Program
    graphs: Graphs
    initialisation: Initialisation
    release: Release

    def declared(self) -> Seeds:
        """The seeds of a run whose seed is declared; with a beacon's, seeds to try the program with."""
        plan = self.manifest.plan
        if isinstance(plan.seed, DeclaredSeed):
            return one_seed(plan, run_seed(plan.seed.value, self.manifest.digest()))
        return one_seed(plan)

    def seeded(self, seeds: Seeds) -> Prepared:
        """Fills state zero and the constants, in place."""
        fill_state(self.live, self.initialisation, seeds.initial)
        fill_constants(self.program, self.graphs, self.initialisation, seeds.initial)
        # Copies: the user's own tensors may change, which the record must notice and not follow.
        own = [constant.clone() for constant in self.graphs.constants]
        return Prepared(
            manifest=self.manifest,
            environment=self.environment,
            live=self.live,
            data=self.data,
            seeds=seeds,
            order=self.request.order(self.manifest.data.samples, seeds),
            stepper=self._stepper(own, seeds, exact=self.request.exact),
            reached=self.graphs.reached,
            release=self.release,
            watched=self.graphs.watched,
        )

    def _stepper(self, constants: Sequence[torch.Tensor], seeds: Seeds, *, exact: bool) -> Stepper:
        interpreters = {
            size: Interpreter(graph, constants, self.live.device, guarded=False, exact=exact)
            for size, graph in self.graphs.by_size.items()
        }
        return Stepper(program=self.program, interpreters=interpreters, seeds=seeds)

    def compare(self, prepared: Prepared) -> None:
        """Runs the first batch beside the user's own computation, in native arithmetic whatever the run's.

        Raises:
            CaptureError: The captured program cannot be run.
            RecordError: They differ.
        """
        batch = self.data.batch(prepared.order.indices(0), self.live.device)
        native = prepared.stepper
        if native.exact:
            require_runs(native, self.live, batch)
            own = [constant.clone() for constant in self.graphs.constants]
            native = self._stepper(own, prepared.seeds, exact=False)
        compare_with_eager(
            self.request.model,
            self.request.batch_loss(),
            live=self.live,
            stepper=native,
            schema=self.data.schema,
            batch=batch,
        )
        return_freed_memory()


def fix(
    request: Request,
    signer: Signer,
    blobs: BlobWriter,
    progress: Callable[[int, int], None],
    known: Initialisation | None = None,
) -> Fixed:
    """Fixes everything that is fixed before step 0.

    Args:
        request: What the user asked for.
        signer: The owner's key.
        blobs: Where what the manifest names goes.
        progress: Called with the number of samples committed and of all, now and then.
        known: The initialisation of a run that is resumed.

    Raises:
        CaptureError: Something cannot be recorded; names it.
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
    if request.exact:
        _prove(live.device)
        check_exact(optimizer, {s.name.removeprefix("parameters/"): s.dtype for s in live.layout})
    environment = None if request.exact else current_environment(live.device.type)
    manifest = Manifest(
        owner=signer.verification_key,
        program=blobs.put(program.encode()),
        initialisation=blobs.put(initialisation.encode()),
        data=data.commitment,
        plan=request.plan(),
        arithmetic=(environment or Exact()).to_json(),
        release=blobs.put(release.encode()),
    )
    _warn_of_whole_epochs(request, graphs, len(dataset), stacklevel=4)
    _check_readable(manifest, program, graphs, initialisation=initialisation, release=release, schema=schema)
    return Fixed(
        request=request,
        manifest=manifest,
        environment=environment,
        live=live,
        data=data,
        program=program,
        graphs=graphs,
        initialisation=initialisation,
        release=release,
    )


def _prove(device: torch.device) -> None:
    """Refuses a machine that does not compute exact arithmetic, whose owner would seal other bits."""
    try:
        prove(device)
    except ReplayError as e:
        raise CaptureError(e.message, where="environment", advice=e.advice) from e


def _warn_of_whole_epochs(request: Request, graphs: Graphs, samples: int, *, stacklevel: int) -> None:
    """Says that segments may hardly depend on their seeds, which a verifier would otherwise say."""
    whole = request.every * request.accumulate % request.order(samples).batches_per_epoch == 0
    random = any(node.operator in RANDOM for graph in graphs.by_size.values() for node in graph.nodes)
    if request.shuffle and whole and not random and isinstance(request.seed, Beacon):
        warnings.warn(
            "each segment sees whole epochs, so another seed changes only the order in them, and precedence "
            "may not be shown; let `every` be no multiple of an epoch",
            RecordWarning,
            stacklevel=stacklevel,
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
        read_arithmetic(Fields(dict(manifest.arithmetic), "environment"))
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
