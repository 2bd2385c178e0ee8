"""One whole step: for each of its batches the graph and the buffers' new values, then the optimizer.

The one place where a state moves on; the recorder, its check of a wrapped step, and the verifier all call it.
Format: docs/spec/program.md, sections 4 and 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from gradseal.errors import ReplayError
from gradseal.program.exact.updates import canonical_
from gradseal.program.interpret import Interpreter, StepResult
from gradseal.program.native import seeded
from gradseal.program.optimizers import Optimizer
from gradseal.program.program import Program
from gradseal.program.randomness import operator_words
from gradseal.program.seeds import Seeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepper:
    """A program made ready to take steps.

    Args:
        program: What a step computes.
        interpreters: Its graph for each batch size.
        seeds: The run's.
    """

    program: Program
    interpreters: Mapping[int, Interpreter]
    seeds: Seeds
    _trained: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_trained", self.program.trained())

    @property
    def exact(self) -> bool:
        """Whether steps are in exact arithmetic, as the interpreters are."""
        return next(iter(self.interpreters.values())).exact

    def compute(
        self,
        state: Mapping[str, torch.Tensor],
        batch: Sequence[torch.Tensor],
        *,
        step: int,
        micro_batch: int = 0,
    ) -> StepResult:
        """Runs the graph on the leaves of one batch, leaving `state` as it is; raises as `take` does."""
        device = next(iter(state.values())).device.type
        seed = self.seeds.of_step(step)
        # Where the caller is under autocast, operators would otherwise change types that the graph has fixed.
        with torch.autocast(device, enabled=False):
            if self.exact:
                draws = partial(operator_words, seed, step, micro_batch)
                return self.interpreters[len(batch[0])].run(state, batch, draws)
            with seeded(seed, step, micro_batch):
                return self.interpreters[len(batch[0])].run(state, batch)

    def take(
        self, state: Mapping[str, torch.Tensor], batches: Sequence[Sequence[torch.Tensor]], *, step: int
    ) -> torch.Tensor:
        """Moves `state` on by one step, in place.

        Args:
            state: Every tensor by state name.
            batches: For each batch of the step, its leaves.
            step: The number of the step, from 0.

        Returns:
            The loss before the update; of several batches, the sum of theirs.

        Raises:
            ReplayError: An operator refused its arguments, or a result is not shaped as what it is for.
        """
        loss, gradients = self._run(state, batches, step)
        # A norm over all gradients depends on their order, and a graph's own is that of its JSON.
        ordered = {name: gradients.pop(name) for name in self._trained if name in gradients}
        with torch.no_grad():
            if self.program.clip:
                ordered = self.program.clip.apply(ordered, exact=self.exact)
            self.optimizer_at(step).update(state, ordered, step, exact=self.exact)
        return loss

    def optimizer_at(self, step: int) -> Optimizer:
        """The optimizer with the hyperparameters of a step."""
        optimizer, schedule = self.program.optimizer, self.program.schedule
        return optimizer.at(schedule.at(step)) if schedule else optimizer

    def _run(
        self, state: Mapping[str, torch.Tensor], batches: Sequence[Sequence[torch.Tensor]], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss and the gradients, each added up in order; moves the buffers on."""
        loss: torch.Tensor | None = None
        gradients: dict[str, torch.Tensor] = {}
        for number, batch in enumerate(batches):
            result = self.compute(state, batch, step=step, micro_batch=number)
            loss = result.loss if loss is None else loss + result.loss
            for name, value in result.gradients.items():
                _check_like(value, state[f"parameters/{name}"], f"gradient of {name}")
                # Not in place: a graph may give one value as the gradient of two parameters.
                gradients[name] = gradients[name] + value if name in gradients else value
            for name, value in result.buffers.items():
                own = state[f"buffers/{name}"]
                _check_like(value, own, f"new value of buffer {name}")
                own.copy_(value)
        if loss is None:
            raise ReplayError("a step without a batch", where=f"step {step}")
        # Infinities may have met; the optimizer sees to what gradients become.
        return canonical_(loss) if self.exact else loss, gradients


def _check_like(value: torch.Tensor, own: torch.Tensor, what: str) -> None:
    if (value.shape, value.dtype) != (own.shape, own.dtype):
        raise ReplayError(
            f"has {value.dtype} of shape {tuple(value.shape)}, not {own.dtype} of shape {tuple(own.shape)}",
            where=f"graph: {what}",
        )
