"""Where state zero and the constants come from, and filling them once the run's seed is known."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import nn

from gradseal.errors import RecordWarning
from gradseal.program.fills import fill
from gradseal.program.initialise import rule_for
from gradseal.program.memory import from_bytes, same_bits, to_bytes
from gradseal.program.program import Program
from gradseal.program.rules import Rule
from gradseal.program.sources import Given, Initialisation, Source
from gradseal.program.tensors import TensorSpec
from gradseal.proof.writer import BlobWriter
from gradseal.record.graphs import Graphs
from gradseal.record.live import LiveState


def initialisation_of(
    program: Program,
    live: LiveState,
    constants: Sequence[torch.Tensor],
    blobs: BlobWriter,
    known: Initialisation | None,
) -> Initialisation:
    """Where every tensor comes from; the bytes of those that are given are stored.

    Args:
        program: Has the layout and what the constants are.
        live: State zero.
        constants: The graphs' constants.
        blobs: Where given bytes go.
        known: What a run that is resumed says. What was given there is the same here, whatever the tensor now
            holds: the state to go on from is loaded anyway.
    """
    shapes = [spec.shape for spec in program.layout]

    def source(spec: TensorSpec, tensor: torch.Tensor) -> Source:
        rule = rule_for(spec, tensor, shapes)
        return rule if rule is not None else Given(digest=blobs.put(to_bytes(tensor)))

    nothing: Sequence[Source | None] = [None] * len(program.layout)
    before = known.state if known and len(known.state) == len(nothing) else nothing
    state = [
        old if isinstance(old, Given) else source(spec, tensor)
        for spec, tensor, old in zip(program.layout, live.tensors().values(), before, strict=True)
    ]
    return Initialisation(state=tuple(state), constants=tuple(map(source, program.constants, constants)))


def warn(model: nn.Module, program: Program, initialisation: Initialisation, *, stacklevel: int) -> None:
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
            stacklevel=stacklevel,
        )
    if not model.training:
        warnings.warn(
            "the model is in evaluation mode, and will be trained in it; call model.train() before record",
            RecordWarning,
            stacklevel=stacklevel,
        )


@torch.no_grad()
def fill_state(live: LiveState, initialisation: Initialisation, seed: bytes) -> None:
    """Fills, in place, every tensor of the state that has a rule."""
    for spec, source, tensor in zip(live.layout, initialisation.state, live.tensors().values(), strict=True):
        if not isinstance(source, Given):
            tensor.copy_(_filled(spec, source, seed, live.device))


@torch.no_grad()
def fill_constants(program: Program, graphs: Graphs, initialisation: Initialisation, seed: bytes) -> None:
    """Fills constants that have a rule, in place, so that the user's own module computes with them too."""
    sources = zip(program.constants, initialisation.constants, graphs.constants, strict=True)
    for spec, source, constant in sources:
        if isinstance(source, Given):
            continue
        filled = _filled(spec, source, seed, constant.device)
        if not same_bits(filled, constant):
            everywhere = [t for t in graphs.watched if same_bits(t, constant)]
            for tensor in [constant, *everywhere]:
                tensor.copy_(filled)


def _filled(spec: TensorSpec, rule: Rule, seed: bytes, device: torch.device) -> torch.Tensor:
    data = fill(rule, seed=seed, name=spec.name, shape=spec.shape, dtype=spec.dtype)
    return from_bytes(data, spec.dtype, spec.shape, device, where=spec.name)
