"""A run written down from states that somebody presents, whoever computed them and however.

`record` seals what it trained itself; here the program, the data, the order and the claimed initialisation
are fixed in the same way, and then each state is given. Importers of other proofs and attacks write their
bundles with it. Nothing is checked but that the states have the program's tensors: that is the verifier's
work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from gradseal.errors import RecordError
from gradseal.program.memory import view_of, weights_file
from gradseal.program.sources import Source
from gradseal.program.step import Stepper
from gradseal.program.tensors import TensorSpec
from gradseal.proof.entries import Close, Initial, Segment, encode_losses
from gradseal.proof.manifest import DeclaredSeed, Manifest
from gradseal.proof.note import Signer
from gradseal.proof.writer import BlobWriter, BundleWriter
from gradseal.record.plan import Request
from gradseal.record.prepare import Fixed, Prepared, fix
from gradseal.store.files import FsspecFiles

State = dict[str, torch.Tensor]
"""Every tensor of a state by its name in the layout: `parameters/…`, `buffers/…`, `optimizer/…`."""


@dataclass(kw_only=True)
class Presented:
    """A bundle that grows by the states that it is given.

    Args:
        target: Where the bundle goes: a directory, or a URL that fsspec knows, `memory://…` too; empty.
        signer: Whose bundle it is.
        request: Program, data and plan, as for `record`; a declared seed.
        told: Called with the number of samples of every batch whose gradient is computed here.
        committed: Called with the number of samples committed and of all, now and then.

    Raises:
        CaptureError: Something cannot be recorded; names it.
        RecordError: There are files at the target.
    """

    target: str | Path
    signer: Signer
    request: Request
    told: Callable[[int], None] = lambda samples: None
    committed: Callable[[int, int], None] = lambda done, total: None
    segments: int = field(default=0, init=False)
    state: State = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.files = FsspecFiles(str(self.target))
        if not self.files.is_empty():
            raise RecordError("already exists, and is not an empty directory", where=str(self.target))
        self._blobs = BlobWriter(self.files)
        try:
            self._seed(fix(self.request, self.signer, self._blobs, self.committed))
        except BaseException:
            self._blobs.discard()
            raise

    def _seed(self, fixed: Fixed) -> None:
        self._fixed = fixed
        self._prepared: Prepared = fixed.seeded(fixed.declared())
        self.manifest: Manifest = fixed.manifest
        self.writer = BundleWriter(self._blobs, self.signer, self.manifest)
        self._zero = copy_of(self._prepared.live.tensors())

    def reseed(self, seed: bytes) -> None:
        """Declares another seed, 32 bytes, and so another state zero and order; before anything is sealed."""
        if self.writer.size > 1:
            raise RecordError("the manifest is sealed", where="seed")
        plan = replace(self.manifest.plan, seed=DeclaredSeed(value=seed))
        self._seed(replace(self._fixed, manifest=replace(self.manifest, plan=plan)))

    @property
    def claimed(self) -> dict[str, tuple[TensorSpec, Source]]:
        """For each tensor of state zero what it is, and where the manifest says that it comes from."""
        layout, sources = self._fixed.program.layout, self._fixed.initialisation.state
        return {spec.name: (spec, source) for spec, source in zip(layout, sources, strict=True)}

    @property
    def stepper(self) -> Stepper:
        """What takes the program's steps."""
        return self._prepared.stepper

    def state_zero(self) -> State:
        """State zero as the claimed rules give it with the run's seed; a copy."""
        return copy_of(self._zero)

    def batches(self, step: int) -> list[list[torch.Tensor]]:
        """The batches of a step, in the run's order; of each its leaves."""
        live, data, order = self._prepared.live, self._prepared.data, self._prepared.order
        numbers = self.manifest.plan.batches_of(step)
        return [data.batch(order.indices(number), live.device) for number in numbers]

    def samples(self, indices: Iterable[int]) -> list[torch.Tensor]:
        """The batch of any samples of the data set, by their numbers there; its leaves."""
        return self._prepared.data.batch(indices, self._prepared.live.device)

    def steps_of(self, segment: int) -> range:
        """The steps of a segment."""
        return self.manifest.plan.steps_of(segment)

    @property
    def planned(self) -> int:
        """How many segments the plan has."""
        return self.manifest.plan.segments

    def compute(self, state: State, segment: int) -> list[float]:
        """Moves any state on by a segment, in place, as an honest owner would; returns the losses."""
        losses = []
        for step in self.steps_of(segment):
            batches = self.batches(step)
            self.told(sum(len(batch[0]) for batch in batches))
            losses.append(float(self.stepper.take(state, batches, step=step)))
        return losses

    # Writing, in this order: begin, then `train` or `present` for each segment, then finish.

    def begin(self, state: Mapping[str, torch.Tensor] | None = None) -> None:
        """Seals the manifest, and a state zero: the one that the rules give, or another in its place."""
        self.state = copy_of(self._zero if state is None else self._whole(state))
        self.writer.append(Initial(seal=self._seal()))
        self.writer.publish()

    def train(self) -> list[float]:
        """The next segment, truly computed from the state before; returns its losses."""
        losses = self.compute(self.state, self.segments)
        self._append(losses)
        return losses

    def present(self, state: Mapping[str, torch.Tensor], losses: Sequence[float] | None = None) -> None:
        """The next segment, of which only the end is given.

        Args:
            state: The state at its end; a tensor that is left out stays as it was.
            losses: Of each of its steps; without them, one made-up curve that falls.
        """
        self.state = copy_of(self._whole(state))
        steps = self.steps_of(self.segments)
        self._append(losses or [2.5 * math.exp(-3.0 * step / self.manifest.plan.steps) for step in steps])

    def train_all(self, state: Mapping[str, torch.Tensor] | None = None) -> None:
        """The whole run, begun as `begin` does and truly computed, closed."""
        self.begin(state)
        for _ in range(self.planned):
            self.train()
        self.finish()

    def finish(self) -> None:
        """Releases the last state's weights and closes the log."""
        behind = self._fixed.release.tensors
        weights = self.writer.release(weights_file({name: self.state[held] for name, held in behind.items()}))
        self.writer.append(Close(segments=self.segments, weights=weights))
        self.writer.publish()

    def _append(self, losses: Sequence[float]) -> None:
        steps = self.steps_of(self.segments)
        entry = Segment(
            index=self.segments,
            first_step=steps.start,
            steps=len(steps),
            seal=self._seal(),
            losses=self.writer.put(encode_losses(losses)),
        )
        self.writer.append(entry)
        self.segments += 1

    def _seal(self) -> bytes:
        return self.writer.seal([self.writer.put(view_of(tensor)) for tensor in self.state.values()])

    def _whole(self, state: Mapping[str, torch.Tensor]) -> State:
        """A state with every tensor of the layout, in its order; what is left out stays as it was."""
        before = self.state or self._zero
        for name, tensor in state.items():
            if name not in before:
                raise RecordError("the program has no such tensor", where=name)
            own = before[name]
            if (tensor.shape, tensor.dtype) != (own.shape, own.dtype):
                raise RecordError(
                    f"has {tensor.dtype} of shape {tuple(tensor.shape)}, not {own.dtype} of shape "
                    f"{tuple(own.shape)}",
                    where=name,
                )
        return {name: state.get(name, own) for name, own in before.items()}


def copy_of(state: Mapping[str, torch.Tensor]) -> State:
    """The same numbers in memory of their own."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}
