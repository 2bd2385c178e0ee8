"""State zero recomputed by rule, and the free bytes counted."""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Iterator
from dataclasses import fields as dataclass_fields
from dataclasses import replace

from gradseal.program.fills import fill_chunks
from gradseal.program.program import Program
from gradseal.program.rules import Rule
from gradseal.program.sources import COMMON_NUMBERS, FreeBytes, Given, free_bytes
from gradseal.program.tensors import TensorSpec
from gradseal.proof.canonical import float_to_bits
from gradseal.verify.contents import Contents
from gradseal.verify.examination import Ended, Examination
from gradseal.verify.verdict import Check, Finding, Result

_COMPRESSIBLE = 64
_COMPRESSIBLE_BYTES = 64 << 20


def check_initialisation(examination: Examination, contents: Contents, seed: bytes) -> None:
    """Step 4: state zero follows from its sources; what does not follow is counted.

    Raises:
        Ended: It does not.
    """
    if not examination.parameter_digests:
        return
    with examination.checking(Check.INITIALISATION):
        wrong = list(check_state_zero(contents, seed, examination.state_zero))
    examination.findings.extend(wrong)
    if wrong:
        raise Ended
    examination.state_zero_checked = True
    examination.found(
        Check.INITIALISATION,
        Result.HELD,
        "state zero is what the rules give with the run's seed, or was given",
    )
    cap = examination.policy.allowed_graph_bytes(examination.parameter_bytes)
    examination.graph_bytes, examination.graphs_compressed = compressed_size(contents, cap)
    examination.free = count_free_bytes(contents)
    for item in examination.free:
        examination.findings.append(
            Finding(
                check=Check.FREE_BYTES,
                result=Result.NOTED,
                message=f"{item.size_bytes} bytes that no rule derives ({item.where})",
                where=item.name,
                measured=float(item.size_bytes),
            )
        )


def compressed_size(contents: Contents, cap: int | None) -> tuple[int, bool]:
    """How many bytes program and graphs take, compressed together: about as much as they say, whatever it is.

    Args:
        contents: Has the program and its graphs.
        cap: How many bytes the policy allows, if it caps them.

    Returns:
        The size and True; or, for graphs so far above the cap that compressing them would serve only whoever
        wants to occupy the verifier, the size before compression and False.
    """
    said: list[bytes] = []
    for own in contents.each:
        said += [own.program.encode(), *(graph.encode() for _, graph in sorted(own.graphs.items()))]
    raw = b"".join(said)
    if len(raw) > (_COMPRESSIBLE_BYTES if cap is None else _COMPRESSIBLE * cap):
        return len(raw), False
    return len(lzma.compress(raw)), True


def check_state_zero(contents: Contents, seed: bytes, sealed: tuple[bytes, ...]) -> Iterator[Finding]:
    """A finding for each tensor of state zero that is not what its source says.

    Args:
        contents: Has the layout and the sources.
        seed: The run's seed.
        sealed: The digests of state zero's tensors.
    """
    for spec, source, digest in zip(
        contents.program.layout, contents.initialisation.state, sealed, strict=True
    ):
        if isinstance(source, Given):
            expected, said = source.digest, "the bytes that the manifest names"
        else:
            expected, said = (
                _filled(source, spec, seed),
                f"what the rule {source.kind!r} gives with the run's seed",
            )
        if digest != expected:
            yield Finding(
                check=Check.INITIALISATION,
                result=Result.REFUTED,
                message=f"state zero is not {said}",
                where=spec.name,
            )


def _filled(rule: Rule, spec: TensorSpec, seed: bytes) -> bytes:
    """The digest of the tensor that a rule gives."""
    hashed = hashlib.sha256()
    for chunk in fill_chunks(rule, seed=seed, name=spec.name, shape=spec.shape, dtype=spec.dtype):
        hashed.update(chunk)
    return hashed.digest()


def count_free_bytes(contents: Contents) -> tuple[FreeBytes, ...]:
    """Every place where the owner put in bytes of his own."""
    graphs = [
        (f"graph of batch size {size}", graph)
        for size, graph in sorted(contents.graphs.items(), reverse=True)
    ]
    program = contents.program
    return (
        *free_bytes(contents.initialisation, program.layout, program.constants, graphs),
        *_free_in_optimizer(program),
        *_free_in_schedule(contents),
        *_free_in_amendments(contents),
    )


def _free_in_amendments(contents: Contents) -> Iterator[FreeBytes]:
    """All that an amended program says that the manifest's does not: its graphs' numbers and its settings."""
    known = set(contents.program.graphs.values())
    for first, own in contents.later:
        new = {size: graph for size, graph in own.graphs.items() if own.program.graphs[size] not in known}
        for item in count_free_bytes(replace(own, graphs=new, later=())):
            if item.where in ("graph", "optimizer"):
                yield replace(item, name=f"{item.name}, amended from segment {first} on")


def _free_in_optimizer(program: Program) -> Iterator[FreeBytes]:
    """Eight bytes for each hyperparameter, and for each parameter the bits that say which group it is in.

    With a parameter for each number, a learning rate of its own moves each to where it is wanted in one step.
    """
    optimizer = program.optimizer
    settings = {
        float_to_bits(number)
        for group in optimizer.groups
        for number in (getattr(group, field.name) for field in dataclass_fields(group))
        if isinstance(number, float)
    }
    if program.clip:
        settings.add(float_to_bits(program.clip.max_norm))
    bits_a_parameter = max(0, len(optimizer.groups) - 1).bit_length()
    chosen = (len(list(optimizer.parameters())) * bits_a_parameter + 7) // 8
    if size := 8 * len(settings - COMMON_NUMBERS) + chosen:
        yield FreeBytes(where="optimizer", name=f"hyperparameters of {optimizer.name}", size_bytes=size)


def _free_in_schedule(contents: Contents) -> Iterator[FreeBytes]:
    """The numbers of a schedule."""
    schedule = contents.program.schedule
    if schedule is not None and (size := schedule.free_bytes()):
        yield FreeBytes(where="optimizer", name="schedule", size_bytes=size)
