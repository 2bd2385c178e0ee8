"""State zero recomputed by rule, and the free bytes counted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from gradseal.program.rules import fill_chunks
from gradseal.program.sources import FreeBytes, Given, free_bytes
from gradseal.verify.contents import Contents
from gradseal.verify.verdict import Check, Finding, Result


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
            expected, said = hashlib.sha256(), f"what the rule {source.kind!r} gives with the run's seed"
            for chunk in fill_chunks(source, seed=seed, name=spec.name, shape=spec.shape, dtype=spec.dtype):
                expected.update(chunk)
            expected = expected.digest()
        if digest != expected:
            yield Finding(
                check=Check.INITIALISATION,
                result=Result.REFUTED,
                message=f"state zero is not {said}",
                where=spec.name,
            )


def count_free_bytes(contents: Contents) -> tuple[FreeBytes, ...]:
    """Every place where the owner put in bytes of his own."""
    graphs = [
        (f"graph of batch size {size}", graph)
        for size, graph in sorted(contents.graphs.items(), reverse=True)
    ]
    return free_bytes(contents.initialisation, contents.program.layout, contents.program.constants, graphs)
