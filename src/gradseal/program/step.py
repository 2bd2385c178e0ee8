"""One whole step: the graph, the buffers' new values, the optimizer.

The one place where a state moves on; the recorder, its check of a wrapped step, and the verifier all call it.
Format: docs/spec/program.md, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from gradseal.errors import ReplayError
from gradseal.program.interpret import Interpreter, StepResult
from gradseal.program.native import seeded
from gradseal.program.optimizers import Optimizer


def compute(
    interpreter: Interpreter,
    state: Mapping[str, torch.Tensor],
    batch: Sequence[torch.Tensor],
    *,
    seed: bytes,
    step: int,
) -> StepResult:
    """Runs a step's graph with its randomness, leaving `state` as it is; raises as `take_step` does."""
    device = next(iter(state.values())).device.type
    # Where the caller is under autocast, operators would otherwise change types that the graph has fixed.
    with seeded(seed, step), torch.autocast(device, enabled=False):
        return interpreter.run(state, batch)


def take_step(
    interpreter: Interpreter,
    optimizer: Optimizer,
    state: Mapping[str, torch.Tensor],
    batch: Sequence[torch.Tensor],
    *,
    seed: bytes,
    step: int,
) -> StepResult:
    """Moves `state` on by one step, in place.

    Args:
        interpreter: The graph for this batch's size.
        optimizer: How parameters follow from gradients.
        state: Every tensor by state name.
        batch: The leaves of the batch.
        seed: The run's seed.
        step: The number of the step, from 0.

    Returns:
        The loss before the update, the gradients and the buffers' new values.

    Raises:
        ReplayError: An operator refused its arguments, or a result is not shaped as what it is for.
    """
    result = compute(interpreter, state, batch, seed=seed, step=step)
    for name, value in result.buffers.items():
        _check_like(value, state[f"buffers/{name}"], f"new value of buffer {name}")
    for name, value in result.gradients.items():
        _check_like(value, state[f"parameters/{name}"], f"gradient of {name}")
    with torch.no_grad():
        for name, value in result.buffers.items():
            state[f"buffers/{name}"].copy_(value)
        optimizer.update(state, result.gradients, step)
    return result


def _check_like(value: torch.Tensor, own: torch.Tensor, what: str) -> None:
    if (value.shape, value.dtype) != (own.shape, own.dtype):
        raise ReplayError(
            f"has {value.dtype} of shape {tuple(value.shape)}, not {own.dtype} of shape {tuple(own.shape)}",
            where=f"graph: {what}",
        )
