"""What a bundle holds, read strictly: its typed log and the blobs that the manifest names.

Each reader checks what it reads against what names it, and raises where they contradict; the verifier turns
that into findings. Nothing here runs a program.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from gradseal.errors import CorruptBlob, MalformedBundle, naming
from gradseal.program.graph import MAX_GRAPH_BYTES, Graph
from gradseal.program.native import Environment
from gradseal.program.order import Order
from gradseal.program.program import MAX_PROGRAM_BYTES, Program
from gradseal.program.release import MAX_HEADER_BYTES, MAX_RELEASE_BYTES, Release, read_weights
from gradseal.program.samples import MAX_SCHEMA_BYTES, SampleSchema
from gradseal.program.sources import MAX_BYTES as MAX_INITIALISATION_BYTES
from gradseal.program.sources import Given, Initialisation
from gradseal.program.tensors import TensorSpec, are_truth_values
from gradseal.proof.entries import (
    MAX_LOSSES_BYTES,
    Close,
    Initial,
    Segment,
    decode_losses,
    entry_from_bytes,
    seal_of,
    state_root,
)
from gradseal.proof.fields import Fields
from gradseal.proof.files import WEIGHTS, Files, blob_path, opening_path, read_blob, read_opening
from gradseal.proof.manifest import Manifest
from gradseal.verify.lengths import Lengths, hashed_pieces
from gradseal.verify.losses import LossCurve


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """A run's log, typed and in order.

    Args:
        manifest: Entry 0.
        initial: Entry 1, if the log got so far.
        segments: The segments, in order.
        close: The last entry of a finished run.
    """

    manifest: Manifest
    initial: Initial | None
    segments: tuple[Segment, ...]
    close: Close | None

    @property
    def seals(self) -> tuple[bytes, ...]:
        """The seal of every state, state zero first."""
        return (self.initial.seal, *(s.seal for s in self.segments)) if self.initial else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The blobs that a manifest names, parsed."""

    program: Program
    graphs: Mapping[int, Graph]
    initialisation: Initialisation
    release: Release
    schema: SampleSchema
    environment: Environment


def read_log(manifest: Manifest, entries: list[bytes]) -> Log:
    """The typed log of all raw entries, `manifest` being entry 0.

    Raises:
        MalformedBundle: An entry is not one, or not the one that its place asks for; names it.
        UnknownKind: An entry of a kind that this version does not know.
    """
    plan = manifest.plan
    initial: Initial | None = None
    segments: list[Segment] = []
    close: Close | None = None
    for index, data in enumerate(entries[1:], start=1):
        where = f"entry {index}"
        entry = entry_from_bytes(data, where=where)
        if close is not None:
            raise MalformedBundle("stands after the close of the run", where=where)
        match entry:
            case Initial() if index == 1:
                initial = entry
            case Segment() if initial is not None:
                _check_segment(entry, manifest, len(segments), where)
                segments.append(entry)
            case Close() if initial is not None and entry.segments == len(segments) == plan.segments:
                close = entry
            case _:
                raise MalformedBundle("an entry that cannot stand here", where=where)
    return Log(manifest=manifest, initial=initial, segments=tuple(segments), close=close)


def _check_segment(entry: Segment, manifest: Manifest, index: int, where: str) -> None:
    steps = manifest.plan.steps_of(index)
    expected = (index, steps.start, len(steps))
    if (entry.index, entry.first_step, entry.steps) != expected or not steps:
        raise MalformedBundle(
            f"says segment {entry.index}, steps {entry.first_step} + {entry.steps}; the plan has segment "
            f"{index}, steps {steps.start} + {len(steps)} here",
            where=where,
        )


def read_contents(files: Files, manifest: Manifest) -> Contents:
    """The blobs that the manifest names, each checked against its digest and against the others.

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
    environment = Environment.from_fields(Fields(dict(manifest.arithmetic), "entry 0", "arithmetic"))
    return Contents(
        program=program,
        graphs=graphs,
        initialisation=initialisation,
        release=release,
        schema=schema,
        environment=environment,
    )


def _graphs(files: Files, manifest: Manifest, program: Program) -> dict[int, Graph]:
    """The graph of each batch size; one that two sizes share is read once."""
    sizes = order_of(manifest, bytes(32)).batch_sizes
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


def order_of(manifest: Manifest, seed: bytes) -> Order:
    """The order of samples that a manifest's plan gives with a run's seed."""
    plan = manifest.plan
    return Order(
        rule=plan.order,
        samples=manifest.data.samples,
        batch_size=plan.batch_size,
        drop_last=plan.drop_last,
        seed=seed,
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
    compare_weights(data, contents, last, where=WEIGHTS)
    if hashlib.sha256(data).digest() != close.weights:
        raise CorruptBlob("is not the file that the run was closed with", where=WEIGHTS)


def compare_weights(
    data: bytes, contents: Contents, last: tuple[bytes, ...], *, where: str, allow_metadata: bool = False
) -> None:
    """Compares a safetensors file with the last state's tensors, as the release map names them.

    Args:
        data: The file.
        contents: Has the release map and the layout.
        last: The digests of the last state's tensors.
        where: What the file is called.
        allow_metadata: Whether it may have metadata; the released file has none.

    Raises:
        CorruptBlob: A tensor is missing, too many, or other than the last state's; names it.
        MalformedBundle: Not a safetensors file.
    """
    tensors = read_weights(data, where=where, allow_metadata=allow_metadata)
    released = contents.release.tensors
    for name in sorted(set(tensors) ^ set(released)):
        held = "is not released by the run" if name in tensors else "is missing"
        raise CorruptBlob(f"tensor {name!r} {held}", where=where)
    layout = {s.name: (s, digest) for s, digest in zip(contents.program.layout, last, strict=True)}
    for name, (spec, raw) in tensors.items():
        own, digest = layout[released[name]]
        if (spec.dtype, spec.shape) != (own.dtype, own.shape) or hashlib.sha256(raw).digest() != digest:
            raise CorruptBlob(f"tensor {name!r} is not the last state's {own.name}", where=where)
