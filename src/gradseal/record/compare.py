"""The captured program beside the user's own computation, before anything is sealed.

Both run step 0's first batch from state zero; loss, gradients and the whole state afterwards must agree to
the bit. Of the state, which may be large, only the buffers are copied: neither way may change anything else,
and a fingerprint tells whether one did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from gradseal.errors import CaptureError, RecordError, ReplayError
from gradseal.program.capture import Loss
from gradseal.program.interpret import StepResult
from gradseal.program.memory import same_bits
from gradseal.program.native import seeded
from gradseal.program.samples import SampleSchema
from gradseal.program.step import Stepper
from gradseal.record.live import LiveState, fingerprint

_SHOWN = 5


def require_runs(stepper: Stepper, live: LiveState, batch: Sequence[torch.Tensor]) -> None:
    """Runs the captured program once, leaving the state as it is.

    Raises:
        CaptureError: It cannot be run, as where exact arithmetic has no such operands; names the node.
    """
    try:
        stepper.compute(live.tensors(), batch, step=0)
    except ReplayError as e:
        raise CaptureError(
            f"cannot be run in exact arithmetic: {e.message}",
            where=e.where or "loss",
            advice=e.advice or "exact arithmetic computes in float32; or record with arithmetic='native'",
        ) from e


def compare_with_eager(
    model: nn.Module,
    loss: Loss,
    *,
    live: LiveState,
    stepper: Stepper,
    schema: SampleSchema,
    batch: Sequence[torch.Tensor],
) -> None:
    """Runs a batch of step 0 once each way; where they agree, the state is as it was.

    Args:
        model: The user's.
        loss: The loss of one batch, as captured.
        live: The model's and the optimizer's tensors.
        stepper: The captured program.
        schema: What the batch's tree is.
        batch: The leaves of the batch.

    Raises:
        CaptureError: The captured program cannot be run.
        RecordError: Loss, a gradient or a tensor of the state differs; names it.
    """
    before = live.fingerprints()
    buffers = {name: t.clone() for name, t in live.tensors().items() if name.startswith("buffers/")}
    try:
        own = stepper.compute(live.tensors(), batch, step=0)
    except ReplayError as e:
        raise CaptureError(
            f"the captured program cannot be run: {e}", where="loss", advice=_dtype_advice(schema)
        ) from e
    parameters = dict(model.named_parameters())
    trained = {name: parameters[name] for name in stepper.program.trained()}
    with seeded(stepper.seeds.of_step(0), 0):
        value = loss(model, schema.unflatten([leaf.clone() for leaf in batch]))
        gradients: Sequence[torch.Tensor | None] = torch.autograd.grad(
            value, list(trained.values()), allow_unused=True
        )
    wrong = [] if same_bits(value, own.loss) else ["loss"]
    wrong += _different_gradients(dict(zip(trained, gradients, strict=True)), own.gradients)
    # Every tensor of the state, so that a change that the graph does not know of is seen.
    wrong += _different_state(live.tensors(), before, own)
    with torch.no_grad():
        tensors = live.tensors()
        for name, buffer in buffers.items():
            tensors[name].copy_(buffer)
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise RecordError(
            f"the captured program and the model itself differ in {', '.join(wrong[:_SHOWN])}{more}",
            where="step 0",
            advice="something outside the program has a say: a constant tensor that changes, a Python value, "
            "a random generator of your own",
        )


def _different_gradients(
    eager: Mapping[str, torch.Tensor | None], captured: Mapping[str, torch.Tensor]
) -> Iterator[str]:
    for name, gradient in eager.items():
        other = captured.get(name)
        # A gradient that only one of them has is as different as can be.
        if gradient is None or other is None:
            if gradient is not other:
                yield f"gradient of {name}"
        elif not same_bits(gradient, other):
            yield f"gradient of {name}"


def _different_state(
    after: Mapping[str, torch.Tensor], before: Mapping[str, int], own: StepResult
) -> Iterator[str]:
    for name, tensor in after.items():
        buffer = own.buffers.get(name.removeprefix("buffers/")) if name.startswith("buffers/") else None
        if fingerprint(tensor) != before[name] if buffer is None else not same_bits(tensor, buffer):
            yield name


def _dtype_advice(schema: SampleSchema) -> str:
    doubles = [f.name for f in schema.fields if f.dtype == "float64"]
    if not doubles:
        return ""
    return f"field {', '.join(doubles)} of the data is float64; cast it in the data set, with .float()"
