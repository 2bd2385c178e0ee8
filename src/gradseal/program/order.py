"""Which samples each batch holds, from the seeds alone.

Epoch after epoch, the samples are permuted by a key derived from the seed, and cut into batches; the last
batch of an epoch holds what is left, unless the plan drops it. Where another seed begins within an epoch,
what is left of it is permuted anew, so that each sample still comes once. Format: docs/spec/program.md,
section 7.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from gradseal.errors import MalformedBundle, UnknownKind
from gradseal.program.randomness import derive, permutation
from gradseal.program.seeds import Seeds

SHUFFLED = "shuffled-v1"
SEQUENTIAL = "sequential-v1"
RULES = (SHUFFLED, SEQUENTIAL)


@dataclass(slots=True, kw_only=True)
class Order:
    """The order of a run's samples.

    Args:
        rule: `SHUFFLED`, or `SEQUENTIAL` for the data set's own order in each epoch.
        samples: How many samples the data has.
        batch_size: How many a full batch holds; at most `samples`.
        drop_last: Whether what is left at an epoch's end is dropped.
        seeds: The run's.

    Raises:
        MalformedBundle: A batch of no sample, or of more than there are.
        UnknownKind: A rule that this version does not know.
    """

    rule: str
    samples: int
    batch_size: int
    drop_last: bool
    seeds: Seeds
    _epoch: int = field(default=-1, init=False)
    _drawn: list[tuple[int, bytes]] = field(default_factory=list, init=False)
    _permutation: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64), init=False)

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise UnknownKind(f"the order {self.rule[:64]!r} is not known to this version", where="order")
        if not 1 <= self.batch_size <= self.samples:
            raise MalformedBundle(
                f"batches of {self.batch_size}, but the data has {self.samples} samples", where="order"
            )

    @property
    def batches_per_epoch(self) -> int:
        """How many batches an epoch has."""
        full, rest = divmod(self.samples, self.batch_size)
        return full if self.drop_last or not rest else full + 1

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The batch sizes that occur in an epoch, the full one first."""
        rest = 0 if self.drop_last else self.samples % self.batch_size
        return (self.batch_size, rest) if rest else (self.batch_size,)

    def with_seeds(self, seeds: Seeds) -> Order:
        """The same order with other seeds; what both have in common need not be drawn again."""
        other = replace(self, seeds=seeds)
        other._epoch, other._drawn = self._epoch, list(self._drawn)
        other._permutation = self._permutation.copy()
        return other

    def indices(self, number: int) -> npt.NDArray[np.int64]:
        """The samples of batch number `number` of the run, in order."""
        epoch, batch = divmod(number, self.batches_per_epoch)
        shuffled = self.rule == SHUFFLED
        order = self._permuted(epoch, number) if shuffled else np.arange(self.samples, dtype=np.int64)
        # A copy: what was read ahead must not change when a seed begins.
        return order[batch * self.batch_size : (batch + 1) * self.batch_size].copy()

    def _permuted(self, epoch: int, number: int) -> npt.NDArray[np.int64]:
        """The epoch's samples, in order up to batch number `number` of the run, and on to the next seed."""
        first = epoch * self.batches_per_epoch
        wanted = self.seeds.of_batches(first, number)
        held = len(self._drawn)
        if epoch != self._epoch or wanted[:held] != self._drawn:
            self._permutation = permutation(derive(wanted[0][1], "order", epoch), self.samples)
            self._epoch, held = epoch, 1
        for begins, seed in wanted[held:]:
            left = self._permutation[(begins - first) * self.batch_size :]
            left[:] = left[permutation(derive(seed, "order", epoch, begins), len(left))]
        self._drawn = wanted
        return self._permutation
