"""Replaying a segment: the program, from one sealed state, on the committed batches, to the next.

Runs in a worker's process. A segment is equal if every tensor of the replayed state has the sealed digest and
every loss the sealed bits; otherwise the difference is measured against the update. Between two segments that
follow each other and were equal, the state stays in memory, since equal digests are equal bits. Where it is
asked for, an equal segment is replayed once more under another seed, to see how far it depends on its own.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from gradseal.program.batches import collate
from gradseal.program.fills import fill
from gradseal.program.interpret import Interpreter
from gradseal.program.memory import digest, from_bytes
from gradseal.program.order import Order
from gradseal.program.seeds import Seeds
from gradseal.program.sources import Given
from gradseal.program.step import Stepper
from gradseal.program.tensors import TensorSpec
from gradseal.proof.canonical import float_to_bits
from gradseal.proof.entries import MAX_LOSSES_BYTES, decode_losses
from gradseal.proof.files import Files, read_blob
from gradseal.proof.manifest import Manifest
from gradseal.verify.contents import Contents, check_opening, order_of
from gradseal.verify.outcomes import SegmentResult, Task
from gradseal.verify.samples import SampleReader

LEFT_OUT = 0.05
"""The share of a model's parameters that need not depend on the seed."""


class Replayer:
    """Replays segments of one bundle.

    Args:
        files: The bundle.
        manifest: Entry 0.
        contents: What it names.
        seeds: The run's.
        device: Where to compute.
        alive: Called after each step.

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
    ) -> None:
        self._files = files
        self._manifest = manifest
        self._layout = contents.program.layout
        self._schema = contents.schema
        self._device = device
        self._alive = alive
        self._seeds = seeds
        self._order = order_of(manifest, seeds)
        self._data = SampleReader(files, manifest.data, contents.schema)
        constants = self._constants(contents)
        self._begins = [0, *(first for first, _ in contents.later)]
        self._steppers = [
            Stepper(
                program=own.program,
                interpreters={
                    size: Interpreter(graph, constants, device, guarded=True)
                    for size, graph in own.graphs.items()
                },
                seeds=seeds,
            )
            for own in contents.each
        ]
        self._state: dict[str, torch.Tensor] = {}
        self._state_seal = b""

    def replay(self, task: Task) -> SegmentResult:
        """Replays one segment and compares.

        Raises:
            ReplayError: An operator refused its arguments.
            CorruptBlob, MissingFile, MalformedBundle: A state, sample or loss is altered, or not there.
        """
        if self._state_seal != task.start:
            self._state = self._read_state(task.start)
        self._state_seal = b""
        steps = self._manifest.plan.steps_of(task.segment)
        losses = self._run(task.segment, self._state, self._seeds, self._order)
        differing = self._differing_losses(task, losses, steps)
        sealed = check_opening(self._files, self._manifest, task.end, len(self._layout))
        for spec, expected in zip(self._layout, sealed, strict=True):
            if digest(self._state[spec.name]) != expected:
                differing.append(spec.name)
        if not differing:
            self._state_seal = task.end
            if not task.other_seed:
                return SegmentResult(segment=task.segment, equal=True)
            dependence, name = self._dependence(task)
            return SegmentResult(
                segment=task.segment, equal=True, dependence=dependence, least_dependent=name
            )
        error, update = self._measure(task)
        return SegmentResult(
            segment=task.segment, equal=False, differing=tuple(differing[:8]), error=error, update=update
        )

    def _run(self, segment: int, state: dict[str, torch.Tensor], seeds: Seeds, order: Order) -> list[float]:
        """Moves `state` on by a segment; returns its steps' losses."""
        stepper = replace(self._steppers[bisect_right(self._begins, segment) - 1], seeds=seeds)
        losses = []
        for step in self._manifest.plan.steps_of(segment):
            batches = [self._batch(order, number) for number in self._manifest.plan.batches_of(step)]
            losses.append(float(stepper.take(state, batches, step=step)))
            self._alive()
        return losses

    def _dependence(self, task: Task) -> tuple[float, str]:
        """How far the parameters end from theirs under another seed, as a share of their update.

        Each tensor for itself, since one that moves far and at random could otherwise speak for the others. A
        few may stay behind: a bias before a normalisation moves by weight decay alone, whatever the seed.

        Returns:
            The share that all moved tensors reach but some with `LEFT_OUT` of their elements at most, and the
            name of the tensor that has it.
        """
        state = self._read_state(task.start)
        updates = {name: _distance(state, self._state, [name]) for name in self._parameters}
        seeds = self._seeds.diverted(task.segment, task.other_seed)
        self._run(task.segment, state, seeds, order_of(self._manifest, seeds))
        reached = sorted(
            (_distance(state, self._state, [name]) / moved, name) for name, moved in updates.items() if moved
        )
        left = LEFT_OUT * sum(state[name].numel() for _, name in reached)
        for share, name in reached:
            left -= state[name].numel()
            if left < 0:
                return share, name
        return 0.0, ""

    def _batch(self, order: Order, number: int) -> list[torch.Tensor]:
        samples = self._data.samples(order.indices(number))
        return collate(self._schema, samples, self._device)

    def _differing_losses(self, task: Task, losses: Sequence[float], steps: range) -> list[str]:
        where = f"losses of segment {task.segment}"
        sealed = decode_losses(read_blob(self._files, task.losses, MAX_LOSSES_BYTES), len(steps), where=where)
        pairs = zip(steps, losses, sealed, strict=True)
        return [f"loss of step {step}" for step, a, b in pairs if float_to_bits(a) != float_to_bits(b)][:4]

    def _measure(self, task: Task) -> tuple[float, float]:
        """The distance of the replayed parameters to the sealed ones, and the length of the sealed update."""
        before, after = self._read_state(task.start), self._read_state(task.end)
        names = self._parameters
        return _distance(self._state, after, names), _distance(before, after, names)

    @property
    def _parameters(self) -> list[str]:
        return [s.name for s in self._layout if s.name.startswith("parameters/")]

    def _read_state(self, seal: bytes) -> dict[str, torch.Tensor]:
        digests = check_opening(self._files, self._manifest, seal, len(self._layout))
        return {
            spec.name: self._tensor(read_blob(self._files, wanted, spec.size_bytes), spec)
            for spec, wanted in zip(self._layout, digests, strict=True)
        }

    def _constants(self, contents: Contents) -> list[torch.Tensor]:
        constants = []
        for spec, source in zip(contents.program.constants, contents.initialisation.constants, strict=True):
            if isinstance(source, Given):
                data = read_blob(self._files, source.digest, spec.size_bytes)
            else:
                data = fill(
                    source, seed=self._seeds.initial, name=spec.name, shape=spec.shape, dtype=spec.dtype
                )
            constants.append(self._tensor(data, spec))
        return constants

    def _tensor(self, data: bytes, spec: TensorSpec) -> torch.Tensor:
        return from_bytes(data, spec.dtype, spec.shape, self._device, where=spec.name)


def _distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], names: Sequence[str]) -> float:
    return math.sqrt(sum(float((a[n].double() - b[n].double()).square().sum()) for n in names))
