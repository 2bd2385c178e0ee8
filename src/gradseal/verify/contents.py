"""What a bundle holds, read strictly: its typed log and the blobs that the manifest names.

Each reader checks what it reads against what names it, and raises where they contradict; the verifier turns
that into findings. Nothing here runs a program.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from gradseal.errors import CorruptBlob, MalformedBundle, naming
from gradseal.precede.log import Log
from gradseal.precede.slots import one_seed
from gradseal.program.arithmetic import Arithmetic, read_arithmetic
from gradseal.program.graph import MAX_GRAPH_BYTES, Graph
from gradseal.program.order import Order
from gradseal.program.program import MAX_PROGRAM_BYTES, Program
from gradseal.program.release import MAX_HEADER_BYTES, MAX_RELEASE_BYTES, Release, Tensors, read_weights
from gradseal.program.samples import MAX_SCHEMA_BYTES, SampleSchema
from gradseal.program.seeds import Seeds
from gradseal.program.sources import MAX_BYTES as MAX_INITIALISATION_BYTES
from gradseal.program.sources import Given, Initialisation
from gradseal.program.tensors import TensorSpec, are_truth_values
from gradseal.proof.entries import (
    MAX_LOSSES_BYTES,
    Close,
    decode_losses,
    seal_of,
    state_root,
)
from gradseal.proof.fields import Fields
from gradseal.proof.files import WEIGHTS, Files, blob_path, opening_path, read_blob, read_opening
from gradseal.proof.manifest import Manifest
from gradseal.verify.lengths import Lengths, hashed_pieces
from gradseal.verify.losses import LossCurve


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The blobs that a manifest names, parsed.

    Args:
        program: The program in force.
        graphs: Its graph of each batch size.
        initialisation: Where state zero and constants come from.
        release: Which tensors are released.
        schema: What a sample is.
        arithmetic: The recorded one.
        later: The same with each amended program, by the first segment that it is in force for.
    """

    program: Program
    graphs: Mapping[int, Graph]
    initialisation: Initialisation
    release: Release
    schema: SampleSchema
    arithmetic: Arithmetic
    later: tuple[tuple[int, Contents], ...] = ()

    @property
    def each(self) -> tuple[Contents, ...]:
        """These and all later ones."""
        return (self, *(contents for _, contents in self.later))


def read_contents(
    files: Files, manifest: Manifest, programs: Sequence[tuple[int, bytes]] | None = None
) -> Contents:
    """The blobs that the manifest names, each checked against its digest and against the others.

    Args:
        files: The bundle.
        manifest: Entry 0.
        programs: The digest of each program, the manifest's first, by the first segment that it is in force
            for; the manifest's alone if not given.

    Raises:
        CorruptBlob, MissingFile, MalformedBundle, UnknownKind: As what is read.
    """
    program = Program.decode(read_blob(files, manifest.program, MAX_PROGRAM_BYTES), where="program")
    if program.schedule is not None:
        program.schedule.check(program.optimizer, manifest.plan.steps, where="program: schedule")
    graphs = _graphs(files, manifest, program)
    initialisation = Initialisation.decode(
        read_blob(files, manifest.initialisation, MAX_INITIALISATION_BYTES),
        program.layout,
        program.constants,
        where="initialisation",
    )
    layout = {s.name: s for s in program.layout}
    release = Release.decode(
        read_blob(files, manifest.release, MAX_RELEASE_BYTES), layout, where="release map"
    )
    schema = SampleSchema.decode(
        read_blob(files, manifest.data.schema, MAX_SCHEMA_BYTES), where="sample schema"
    )
    _check_leaves(graphs, schema)
    arithmetic = read_arithmetic(Fields(dict(manifest.arithmetic), "entry 0", "arithmetic"))
    contents = Contents(
        program=program,
        graphs=graphs,
        initialisation=initialisation,
        release=release,
        schema=schema,
        arithmetic=arithmetic,
    )
    later = [(first, _amended(files, manifest, contents, digest)) for first, digest in (programs or [])[1:]]
    return replace(contents, later=tuple(later))


def _amended(files: Files, manifest: Manifest, contents: Contents, digest: bytes) -> Contents:
    """The contents with another program, which must be one for the same tensors."""
    where = f"amended program {digest.hex()[:8]}"
    program = Program.decode(read_blob(files, digest, MAX_PROGRAM_BYTES), where=where)
    for name in ("layout", "constants"):
        if getattr(program, name) != getattr(contents.program, name):
            raise MalformedBundle("is not that of the manifest's program", where=f"{where}: {name}")
    if program.schedule is not None:
        program.schedule.check(program.optimizer, manifest.plan.steps, where=f"{where}: schedule")
    graphs = _graphs(files, manifest, program)
    _check_leaves(graphs, contents.schema)
    return replace(contents, program=program, graphs=graphs)


def _graphs(files: Files, manifest: Manifest, program: Program) -> dict[int, Graph]:
    """The graph of each batch size; one that two sizes share is read once."""
    sizes = order_of(manifest, one_seed(manifest.plan)).batch_sizes
    # Before any graph is read: a few kilobytes may name one large graph for many sizes.
    for size in sorted({*sizes, *program.graphs}):
        if size not in program.graphs:
            raise MalformedBundle(
                f"has no graph for batches of {size}, which the plan has", where="program: graphs"
            )
        if size not in sizes:
            raise MalformedBundle(
                f"has a graph for batches of {size}, which the plan has not", where="program: graphs"
            )
    read: dict[bytes, Graph] = {}
    for size, digest in program.graphs.items():
        if digest not in read:
            where = f"graph of batch size {size}"
            read[digest] = Graph.decode(read_blob(files, digest, MAX_GRAPH_BYTES), where=where)
            program.check_graph(read[digest], where)
    return {size: read[digest] for size, digest in program.graphs.items()}


def _check_leaves(graphs: Mapping[int, Graph], schema: SampleSchema) -> None:
    """Refuses a graph that reads a leaf of the batch which a sample has no field for."""
    for size, graph in graphs.items():
        for value in graph.inputs:
            if value.kind == "batch" and int(value.key) >= len(schema.fields):
                raise MalformedBundle(
                    f"reads batch {value.key}, but a sample has {len(schema.fields)} fields",
                    where=f"graph of batch size {size}",
                )


def order_of(manifest: Manifest, seeds: Seeds) -> Order:
    """The order of samples that a manifest's plan gives with a run's seeds."""
    plan = manifest.plan
    return Order(
        rule=plan.order,
        samples=manifest.data.samples,
        batch_size=plan.batch_size,
        drop_last=plan.drop_last,
        seeds=seeds,
    )


def check_opening(files: Files, manifest: Manifest, seal: bytes, tensors: int) -> tuple[bytes, ...]:
    """The tensor digests of a sealed state.

    Raises:
        CorruptBlob: They are not what the seal stands for.
        MissingFile: The state is not opened.
    """
    digests = read_opening(files, seal, tensors)
    if seal_of(manifest.owner, state_root(digests)) != seal:
        raise CorruptBlob("its digests are not what the log's seal stands for", where=opening_path(seal))
    return digests


class StateChecker:
    """Hashes every tensor of every sealed state once, a chunk at a time.

    Args:
        files: The bundle.
        manifest: Whose owner the seals are bound to.
        program: Whose layout the states have.
        progress: Called with the bytes hashed so far.
        lengths: Takes the states' parameters as they are hashed.
    """

    def __init__(
        self,
        files: Files,
        manifest: Manifest,
        program: Program,
        progress: Callable[[int], None],
        lengths: Lengths,
    ) -> None:
        self._files = files
        self._manifest = manifest
        self._layout = program.layout
        self._progress = progress
        self._lengths = lengths
        self._seen: set[tuple[bytes, int, bool]] = set()
        self._parameters = sum(spec.name.startswith("parameters/") for spec in program.layout)
        self._checked: dict[bytes, bytes] = {}
        self.bytes_hashed = 0

    def check(self, seal: bytes) -> bytes:
        """Checks the state that `seal` stands for; returns a digest of its parameters' digests.

        Raises:
            CorruptBlob, MissingFile, MalformedBundle: A tensor is altered, not there, or not of its shape.
        """
        if seal in self._checked:
            self._lengths.repeat_state(seal, lambda: self._opening(seal))
            return self._checked[seal]
        digests = self._opening(seal)
        for number, (spec, digest) in enumerate(zip(self._layout, digests, strict=True)):
            # The bytes of a tensor may be those of another, and be none of a truth value all the same.
            if (seen := (digest, spec.size_bytes, spec.dtype == "bool")) not in self._seen:
                self._check_tensor(spec, digest, self._lengths.watch(number, digest))
                self._seen.add(seen)
        # A layout begins with the parameters.
        parameters = hashlib.sha256(b"".join(digests[: self._parameters])).digest()
        self._checked[seal] = parameters
        self._lengths.end_state(seal, digests)
        return parameters

    def _opening(self, seal: bytes) -> tuple[bytes, ...]:
        return check_opening(self._files, self._manifest, seal, len(self._layout))

    def _check_tensor(self, spec: TensorSpec, digest: bytes, watch: Callable[[bytes], None] | None) -> None:
        with naming(spec.name):
            for piece in _tensor_pieces(self._files, digest, spec):
                if watch is not None:
                    watch(piece)
        self.bytes_hashed += spec.size_bytes
        self._progress(self.bytes_hashed)


def _tensor_pieces(files: Files, digest: bytes, spec: TensorSpec) -> Iterator[bytes]:
    """A tensor's bytes in pieces, none to be believed before the end.

    Raises:
        CorruptBlob, MissingFile, MalformedBundle: It is altered, not there, or not of its shape and type.
    """
    held = 0
    for piece in hashed_pieces(files, digest, spec.size_bytes):
        held += len(piece)
        if spec.dtype == "bool" and not are_truth_values(piece):
            raise CorruptBlob("a truth value that is neither 0 nor 1", where=blob_path(digest))
        yield piece
    if held != spec.size_bytes:
        raise CorruptBlob(f"{held} bytes, not the {spec.size_bytes} of its shape", where=blob_path(digest))


def check_given(files: Files, contents: Contents) -> None:
    """Hashes the constants that were given; those of state zero are its tensors.

    Raises:
        CorruptBlob, MissingFile, MalformedBundle: One is not what it was, not there, or not of its shape.
    """
    for spec, source in zip(contents.program.constants, contents.initialisation.constants, strict=True):
        if isinstance(source, Given):
            with naming(spec.name):
                for _ in _tensor_pieces(files, source.digest, spec):
                    pass


def check_losses(files: Files, log: Log, curve: LossCurve) -> None:
    """Hashes every segment's losses, replayed or not, and gives them to the curve.

    Raises:
        CorruptBlob, MissingFile, MalformedBundle: One is not what it was, not there, or not of so many steps.
    """
    seen: set[tuple[bytes, int]] = set()
    held: tuple[bytes, tuple[float, ...]] = (b"", ())
    for segment in log.segments:
        if (segment.losses, segment.steps) in seen and not curve.affords(segment.steps):
            curve.skip()
            continue
        if (segment.losses, segment.steps) != (held[0], len(held[1])):
            where = f"losses of segment {segment.index}"
            with naming(where):
                data = read_blob(files, segment.losses, MAX_LOSSES_BYTES)
            held = (segment.losses, decode_losses(data, segment.steps, where=where))
            seen.add((segment.losses, segment.steps))
        curve.add(segment.first_step, held[1])


def check_weights(files: Files, close: Close, contents: Contents, last: tuple[bytes, ...]) -> None:
    """Compares the released weights with the last state.

    Args:
        files: The bundle.
        close: Names the released file's digest.
        contents: Has the release map and the layout.
        last: The digests of the last state's tensors.

    Raises:
        CorruptBlob: The file is not the one that was closed with, or a tensor is not the last state's.
        MissingFile, MalformedBundle: It is not there, or not a safetensors file without metadata.
    """
    sizes = {s.name: s.size_bytes for s in contents.program.layout}
    released = sum(sizes[name] for name in contents.release.tensors.values())
    data = files.read(WEIGHTS, 8 + MAX_HEADER_BYTES + released)
    # Before its digest is looked at, since this can name the tensor.
    compare_weights(read_weights(data, where=WEIGHTS), contents, last, where=WEIGHTS)
    if hashlib.sha256(data).digest() != close.weights:
        raise CorruptBlob("is not the file that the run was closed with", where=WEIGHTS)


def compare_weights(tensors: Tensors, contents: Contents, last: tuple[bytes, ...], *, where: str) -> None:
    """Compares a file's tensors with the last state's tensors, as the release map names them.

    Args:
        tensors: Read from the file, by name.
        contents: Has the release map and the layout.
        last: The digests of the last state's tensors.
        where: What the file is called.

    Raises:
        CorruptBlob: A tensor is missing, too many, or other than the last state's; names it.
    """
    released = contents.release.tensors
    for name in sorted(set(tensors) ^ set(released)):
        held = "is not released by the run" if name in tensors else "is missing"
        raise CorruptBlob(f"tensor {name!r} {held}", where=where)
    layout = {s.name: (s, digest) for s, digest in zip(contents.program.layout, last, strict=True)}
    for name, (spec, raw) in tensors.items():
        own, digest = layout[released[name]]
        if (spec.dtype, spec.shape) != (own.dtype, own.shape) or hashlib.sha256(raw).digest() != digest:
            raise CorruptBlob(f"tensor {name!r} is not the last state's {own.name}", where=where)
