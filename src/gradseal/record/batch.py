"""What a run gives for one step: a batch, or, where gradients are accumulated, several.

The leaves stay with the recording; what the user gets is a copy, and must come back unchanged. While a
wrapped step runs, taking one of several batches sets torch's generators to what they are for it, so that
dropout draws the same numbers in the user's loop as in a replay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, overload

import torch

from gradseal.program.memory import same_bits
from gradseal.program.native import seed_generators
from gradseal.program.samples import SampleSchema, flatten


class Batches(Sequence[Any]):
    """The batches of a step, to be taken in order.

    Args:
        batches: Each batch, in the shape that the data set's samples have.
        seed: The run's seed.
        step: The number of the step.
    """

    def __init__(self, batches: Sequence[Any], seed: bytes, step: int) -> None:
        self._batches = batches
        self._seed = seed
        self._step = step
        self._in_step = False

    def __len__(self) -> int:
        return len(self._batches)

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...

    def __getitem__(self, index: int | slice) -> Any:
        batch = self._batches[index]
        if self._in_step and isinstance(index, int):
            seed_generators(self._seed, self._step, range(len(self))[index])
        return batch

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """While inside, taking a batch seeds torch's generators for it."""
        self._in_step = True
        try:
            yield
        finally:
            self._in_step = False


class Batch:
    """What was given for one step.

    Args:
        schema: What a batch's tree is.
        leaves: The leaves of each batch of the step.
        given: What the user has: a batch, or `Batches`.
    """

    def __init__(self, schema: SampleSchema, leaves: Sequence[Sequence[torch.Tensor]], given: Any) -> None:
        self._schema = schema
        self.leaves = leaves
        self.given = given

    def is_as_given(self) -> bool:
        """Whether the user's copy still holds what was given, to the bit."""
        several = isinstance(self.given, Batches)
        held = list(self.given) if several else [self.given]
        return all(self._is_same(h, own) for h, own in zip(held, self.leaves, strict=True))

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """While inside, taking one of several batches seeds torch's generators for it."""
        if isinstance(self.given, Batches):
            with self.given.in_step():
                yield
        else:
            yield

    def _is_same(self, held: Any, leaves: Sequence[torch.Tensor]) -> bool:
        try:
            parts = list(flatten(self._schema.tree, held))
        except ValueError:
            return False
        return all(
            isinstance(part, torch.Tensor) and same_bits(part, leaf)
            for part, leaf in zip(parts, leaves, strict=True)
        )


def batch_of_step(
    schema: SampleSchema, leaves: Sequence[Sequence[torch.Tensor]], seed: bytes, step: int
) -> Batch:
    """What a run gives for one step, from the leaves of its batches."""
    copies = [schema.unflatten([leaf.clone() for leaf in own]) for own in leaves]
    return Batch(schema, leaves, copies[0] if len(copies) == 1 else Batches(copies, seed, step))
