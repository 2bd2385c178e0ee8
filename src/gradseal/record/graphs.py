"""The captured program: a graph for each batch size that the run has, and the constants that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from gradseal.errors import CaptureError
from gradseal.program.capture import Captured, capture
from gradseal.program.graph import Graph, renumber_constants
from gradseal.program.memory import dtype_name, same_bits
from gradseal.program.samples import SampleSchema
from gradseal.program.tensors import TensorSpec
from gradseal.record.data import example
from gradseal.record.plan import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Graphs:
    """What was captured.

    Args:
        by_size: The graph for each batch size, its constants numbered as in `constants`.
        constants: The constants of all graphs, those with equal bits once.
        watched: Every tensor outside the state that a graph reads, as it is in the user's hands.
    """

    by_size: Mapping[int, Graph]
    constants: tuple[torch.Tensor, ...]
    watched: tuple[torch.Tensor, ...]

    @property
    def constant_specs(self) -> tuple[TensorSpec, ...]:
        """What the constants are."""
        return tuple(
            TensorSpec(name=f"constants/{i}", dtype=dtype_name(c.dtype), shape=tuple(c.shape))
            for i, c in enumerate(self.constants)
        )

    @property
    def reached(self) -> frozenset[str]:
        """The parameters that the loss reaches, the same whatever the batch's size."""
        return frozenset(next(iter(self.by_size.values())).gradients)


def capture_graphs(
    request: Request, trained: Sequence[str], schema: SampleSchema, sizes: Sequence[int], device: torch.device
) -> Graphs:
    """Captures the loss of a batch for each size.

    Args:
        request: Has the model and the loss.
        trained: The parameters that gradients are wanted for.
        schema: What a sample is.
        sizes: The batch sizes.
        device: Where the model is.

    Raises:
        CaptureError: Something in it cannot be a program; names it.
    """
    loss = request.batch_loss()
    captured = {
        size: capture(
            request.model, loss, trained, schema, example(schema, size, device), exact=request.exact
        )
        for size in sizes
    }
    _check_same_gradients(captured)
    constants: list[torch.Tensor] = []
    for one in captured.values():
        for constant in one.constants:
            if not any(same_bits(constant, known) for known in constants):
                constants.append(constant)
    return Graphs(
        by_size={size: renumber_constants(c.graph, _positions(c, constants)) for size, c in captured.items()},
        constants=tuple(constants),
        watched=tuple(constant for one in captured.values() for constant in one.constants),
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


def _positions(captured: Captured, shared: Sequence[torch.Tensor]) -> list[int]:
    return [next(i for i, s in enumerate(shared) if same_bits(c, s)) for c in captured.constants]
