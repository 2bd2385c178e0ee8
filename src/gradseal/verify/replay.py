"""Replaying a segment: the program, from one sealed state, on the committed batches, to the next.

Runs in a worker's process. A segment is equal if every tensor of the replayed state has the sealed digest and
every loss the sealed bits; otherwise the difference is measured against the update, and that of the rest of
the state against its own. Between two segments that
follow each other and were equal, the state stays in memory, since equal digests are equal bits. Where it is
asked for, an equal segment is replayed once more under another seed, to see how far it depends on its own.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from gradseal.program.arithmetic import Exact
from gradseal.program.batches import collate
from gradseal.program.interpret import Interpreter
from gradseal.program.memory import digest, same_bits
from gradseal.program.order import Order
from gradseal.program.seeds import Seeds
from gradseal.program.step import Stepper
from gradseal.proof.canonical import float_to_bits
from gradseal.proof.entries import MAX_LOSSES_BYTES, decode_losses
from gradseal.proof.files import Files, read_blob
from gradseal.proof.manifest import Manifest
from gradseal.verify.contents import Contents, check_opening, order_of
from gradseal.verify.distances import Distances, cosine
from gradseal.verify.outcomes import SegmentResult, Task
from gradseal.verify.samples import SampleReader
from gradseal.verify.sealed import read_constants, read_sealed
from gradseal.verify.state_error import length, state_error

State = dict[str, torch.Tensor]
Transform = Callable[[list[torch.Tensor], int], list[torch.Tensor]]
"""From a batch's leaves and its number in the run to the leaves that are taken in their place."""


class Replayer:
    """Replays segments of one bundle.

    Args:
        files: The bundle.
        manifest: Entry 0.
        contents: What it names.
        seeds: The run's.
        device: Where to compute.
        alive: Called after each step.
        transform: Of each batch, to see what comes of another; a verifier has none.

    Raises:
        CorruptBlob, MissingFile, MalformedBundle: Data or a constant is not what it was, or not there.
    """

    def __init__(
        self,
        files: Files,
        manifest: Manifest,
        contents: Contents,
        seeds: Seeds,
        *,
        device: torch.device,
        alive: Callable[[], None],
        transform: Transform | None = None,
    ) -> None:
        self._files = files
        self._manifest = manifest
        self._contents = contents
        self._layout = contents.program.layout
        self._schema = contents.schema
        self._device = device
        self._alive = alive
        self._transform = transform
        self._seeds = seeds
        self._order = order_of(manifest, seeds)
        self._data = SampleReader(files, manifest.data, contents.schema)
        constants = read_constants(files, contents, seeds, device)
        exact = isinstance(contents.arithmetic, Exact)
        self._begins = [0, *(first for first, _ in contents.later)]
        self._steppers = [
            Stepper(
                program=own.program,
                interpreters={
                    size: Interpreter(graph, constants, device, guarded=True, exact=exact)
                    for size, graph in own.graphs.items()
                },
                seeds=seeds,
            )
            for own in contents.each
        ]
        self._state: State = {}
        self._state_seal = b""

    def replay(self, task: Task) -> SegmentResult:
        """Replays one segment and compares.

        Raises:
            ReplayError: An operator refused its arguments.
            CorruptBlob, MissingFile, MalformedBundle: A state, sample or loss is altered, or not there.
        """
        if self._state_seal != task.start:
            self._state = self.read_state(task.start)
        self._state_seal = b""
        diverted = self._diverted(task) if task.other_seed else None
        losses = list(self.advance(task.segment, self._state))
        differing = self.differing(task, self._state, losses)
        if not differing:
            self._state_seal = task.end
            if diverted is None:
                return SegmentResult(segment=task.segment, equal=True)
            return SegmentResult(segment=task.segment, equal=True, **self._dependence(task, diverted))
        return SegmentResult(
            segment=task.segment, equal=False, differing=tuple(differing[:8]), **self._measure(task)
        )

    @property
    def segments(self) -> int:
        """How many segments the plan has."""
        return self._manifest.plan.segments

    def steps(self, segment: int) -> int:
        """How many steps a segment has."""
        return len(self._manifest.plan.steps_of(segment))

    def advance(self, segment: int, state: State, order: Order | None = None) -> Iterator[float]:
        """Moves `state` on by a segment, in place and step by step.

        Args:
            segment: Its number.
            state: Where it begins; after each loss that is given, where that step ended.
            order: Of the samples, with the seeds of the steps; by default the run's.

        Raises:
            ReplayError: An operator refused its arguments.
            CorruptBlob, MissingFile: A sample is altered, or not there.
        """
        order = order or self._order
        stepper = replace(self._steppers[bisect_right(self._begins, segment) - 1], seeds=order.seeds)
        for step in self._manifest.plan.steps_of(segment):
            batches = [self._batch(order, number) for number in self._manifest.plan.batches_of(step)]
            loss = float(stepper.take(state, batches, step=step))
            self._alive()
            yield loss

    def differing(self, task: Task, state: State, losses: Sequence[float]) -> list[str]:
        """What of a segment has not the sealed bits: names of losses, a few at most, and of tensors.

        Args:
            task: The segment.
            state: Where its replay ended.
            losses: Its steps'.

        Raises:
            CorruptBlob, MissingFile, MalformedBundle: What is sealed is altered, or not there.
        """
        differing = self._differing_losses(task, losses, self._manifest.plan.steps_of(task.segment))
        sealed = check_opening(self._files, self._manifest, task.end, len(self._layout))
        pairs = zip(self._layout, sealed, strict=True)
        return differing + [spec.name for spec, expected in pairs if digest(state[spec.name]) != expected]

    def _diverted(self, task: Task) -> Order:
        """The order under the other seed, from before the segment is run: the two share most then."""
        return self._order.with_seeds(self._seeds.diverted(task.segment, task.other_seed))

    def _dependence(self, task: Task, order: Order) -> dict[str, Any]:
        """What comes of another seed, tensor by tensor: one that moves at random says nothing for the others.

        Args:
            task: The segment, found equal.
            order: That of `_diverted`.

        Returns:
            Of `SegmentResult`: which tensors moved, which of them end within the floor of where they end with
            the segment's own seed, and the least of all shares, with its tensor's name.
        """
        before = self.read_state(task.start)
        state = {name: tensor.clone() for name, tensor in before.items()}
        for _ in self.advance(task.segment, state, order):
            pass
        names = {i: self._layout[i].name for i in self._floating}
        moved = [i for i, name in names.items() if not same_bits(before[name], self._state[name])]
        shares = {i: self._share(before, state, names[i]) for i in moved}
        least = min(shares, key=lambda i: shares[i], default=None)
        return {
            "moved": tuple(moved),
            "independent": tuple(i for i, share in shares.items() if share < task.seed_floor),
            "dependence": 0.0 if least is None else shares[least],
            "least_dependent": "" if least is None else names[least],
        }

    def _share(self, before: State, other: State, name: str) -> float:
        """How far a tensor ends away under the other seed, as a share of its update; 0 for no number."""
        away, update = length(other, self._state, [name]), length(before, self._state, [name])
        return away / update if math.isfinite(away) and 0 < update < math.inf else 0.0

    def _batch(self, order: Order, number: int) -> list[torch.Tensor]:
        leaves = collate(self._schema, self._data.samples(order.indices(number)), self._device)
        return self._transform(leaves, number) if self._transform else leaves

    def _differing_losses(self, task: Task, losses: Sequence[float], steps: range) -> list[str]:
        where = f"losses of segment {task.segment}"
        sealed = decode_losses(read_blob(self._files, task.losses, MAX_LOSSES_BYTES), len(steps), where=where)
        pairs = zip(steps, losses, sealed, strict=True)
        return [f"loss of step {step}" for step, a, b in pairs if float_to_bits(a) != float_to_bits(b)][:4]

    def _measure(self, task: Task) -> dict[str, Any]:
        """Of `SegmentResult`: how far the replayed state is from the sealed one, and the sealed update."""
        before, after = self.read_state(task.start), self.read_state(task.end)
        names, rest = self.parameters, state_error(self._state, after, before)
        return {
            "error": distances(self._state, after, names),
            "update": distances(before, after, names),
            "state": rest.ratio,
            "state_group": rest.group,
        }

    @property
    def _floating(self) -> list[int]:
        """The places in the layout of the model's own tensors of floating point: parameters and buffers."""
        return [
            i
            for i, s in enumerate(self._layout)
            if s.name.startswith(("parameters/", "buffers/")) and "float" in s.dtype
        ]

    @property
    def parameters(self) -> list[str]:
        """The names in the state of the parameters, in the layout's order."""
        return [s.name for s in self._layout if s.name.startswith("parameters/")]

    @property
    def names(self) -> list[str]:
        """The names of all tensors of the state, in the layout's order."""
        return [s.name for s in self._layout]

    def read_state(self, seal: bytes) -> State:
        """The sealed state, every tensor of which has its digest.

        Raises:
            CorruptBlob, MissingFile: It is altered, or not there.
        """
        return read_sealed(self._files, self._manifest, self._contents, seal, self._device)


def distances(a: State, b: State, names: Sequence[str]) -> Distances:
    """All distances between the tensors of these names, each set taken as one vector, in float64."""
    l1 = square = first = second = 0.0
    largest = [0.0]
    for name in names:
        if not a[name].numel():
            continue
        mine, other = a[name].double(), b[name].double()
        difference = (mine - other).abs()
        l1 += float(difference.sum())
        largest.append(float(difference.max()))
        square += float(difference.square().sum())
        first, second = first + float(mine.square().sum()), second + float(other.square().sum())
    return Distances(
        l1=l1,
        l2=length(a, b, names),
        linf=math.nan if any(map(math.isnan, largest)) else max(largest),
        cosine=cosine(square, first, second),
    )
