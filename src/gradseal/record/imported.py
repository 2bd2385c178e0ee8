"""A bundle out of a released proof, for our verifier to judge by any policy.

The manifest claims the model's own initialisation, and the proof's first weights are sealed in the place of
what it gives. Data are the samples in the order in which the proof took them, hyperparameters those of its
checkpoints, losses not known: the folder states none. Everything in the folder is looked at before anything
is written. Whoever imports signs, which says who imported and nothing of who trained.
"""

from __future__ import annotations

import math
import secrets
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradseal.errors import CaptureError, MalformedBundle, RecordError, RecordWarning
from gradseal.program.capture import Loss
from gradseal.program.capture_optimizer import capture_optimizer, fixed_options
from gradseal.program.optimizers import MAX_COUNT, SGD, Optimizer
from gradseal.proof.manifest import DeclaredSeed
from gradseal.proof.note import Signer
from gradseal.record.plan import Request
from gradseal.record.presented import Presented
from gradseal.record.released import Checkpoint, ReleasedProof
from gradseal.record.released_hash import Progress, hash_note
from gradseal.record.released_schedule import AsPresented, Values, put, rates_within, values_of
from gradseal.record.released_state import Matching
from gradseal.store.files import FsspecFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What is not in the folder, and what the released verifier takes as arguments too.

    Args:
        model: Built inside `gradseal.initialise()`, so that its rules are known.
        optimizer: Fresh, over the model's parameters; its settings stand where the folder has none.
        loss: From the model and a batch to a scalar.
        data: The data set whose samples the proof names by number.
        lr: The learning rate of a proof whose checkpoints have no optimizer.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss
    data: Any
    lr: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What was written.

    Args:
        steps: How many steps the proof claims.
        segments: How many intervals between checkpoints it has.
        batch_size: How many samples a step takes.
        notes: What a reader should know of the folder, a sentence each.
    """

    steps: int
    segments: int
    batch_size: int
    notes: tuple[str, ...]


class _Import:
    """One proof and what it is held against."""

    def __init__(self, proof: ReleasedProof, training: Training, progress: Progress) -> None:
        self.proof, self.training, self.progress = proof, training, progress
        self.matching = Matching(training.model, training.optimizer)
        self.notes: list[str] = []
        self._has_optimizer = False

    def checkpoints(self, what: str) -> Iterator[Checkpoint]:
        """Every checkpoint in turn, with progress."""
        total = len(self.proof.checkpoint_steps)
        for number, checkpoint in enumerate(self.proof.checkpoints(self.matching.limit_bytes), start=1):
            yield checkpoint
            self.progress(what, number, total)

    def examine(self) -> tuple[Optimizer, dict[int, Values]]:
        """Looks at every checkpoint; returns the optimizer by name, and what changes before which step.

        The user's optimizer is left as it is before the first step.
        """
        optimizer = self.training.optimizer
        changes: dict[int, Values] = {}
        named: Optimizer | None = None
        fixed: dict[str, object] = {}
        before: Values = {}
        for checkpoint in self.checkpoints("checking checkpoints"):
            self.matching.net(checkpoint)
            settings = self.matching.settings(checkpoint)
            if named is None:
                self._set(checkpoint, settings)
                named, fixed = self._begin(checkpoint), fixed_options(optimizer)
            elif checkpoint.step < self.proof.steps:
                self._set(checkpoint, settings)
                _check_fixed(checkpoint, fixed, fixed_options(optimizer))
            self._check_kept(checkpoint, named)
            for step, values in self._values(checkpoint, named):
                changes[step] = {key: v for key, v in values.items() if before.get(key) != v}
                before = values
        if named is None:
            raise MalformedBundle("has no checkpoint", where=str(self.proof.folder))
        put(optimizer, changes[0])
        return named, {step: values for step, values in changes.items() if values}

    def _set(self, checkpoint: Checkpoint, settings: list[dict[str, Any]] | None) -> None:
        """Gives the optimizer the settings that are in force after a checkpoint."""
        where = str(checkpoint.path)
        if checkpoint.step == 0:
            self._has_optimizer = settings is not None
        elif self._has_optimizer != (settings is not None):
            one, other = ("one", "no") if self._has_optimizer else ("none", "an")
            raise MalformedBundle(f"has {other} 'optimizer', and model_step_0 has {one}", where=where)
        if settings is not None:
            self.matching.apply(settings)
            return
        lr = self.training.lr
        if lr is None:
            raise CaptureError(
                "has no 'optimizer', which would say the learning rate",
                where=where,
                advice="say it: --lr NUMBER",
            )
        for group in self.training.optimizer.param_groups:
            group["lr"] = lr
        if checkpoint.step == 0:
            self.notes.append(
                f"the checkpoints have no optimizer: every interval begins with a fresh one, at rate {lr}"
            )

    def _begin(self, checkpoint: Checkpoint) -> Optimizer:
        """The optimizer by name, with what it keeps before step 0 in it."""
        optimizer, model = self.training.optimizer, self.training.model
        named = capture_optimizer(optimizer, model)
        tensors, counts = self.matching.kept(checkpoint, named), self.matching.counts(checkpoint)
        if not tensors:
            return named
        self.notes.append("its optimizer had taken steps before the first")
        parameters = dict(model.named_parameters())
        for kept in named.tensors():
            if kept.name in tensors:
                state = optimizer.state[parameters[kept.parameter]]
                state[kept.key] = tensors[kept.name]
                if named.COUNTS and len(counts) == 1:
                    state["step"] = torch.tensor(min(counts), dtype=torch.float32)
        try:
            return capture_optimizer(optimizer, model)
        except CaptureError as e:
            where = f"{checkpoint.path}: {e.where}"
            raise MalformedBundle(e.message, where=where) from e

    def _check_kept(self, checkpoint: Checkpoint, named: Optimizer) -> None:
        """Refuses an optimizer's state from which a replay would not go on as the released verifier does."""
        kept, counts = self.matching.kept(checkpoint, named), self.matching.counts(checkpoint)
        where = f"{checkpoint.path}: optimizer: state"
        if checkpoint.step == self.proof.steps:
            return  # no step goes on from it
        wanted = min(named.steps_before + checkpoint.step, MAX_COUNT)
        if named.COUNTS and counts != {float(wanted)} and (counts or wanted):
            raise MalformedBundle(
                f"does not count {wanted} updates",
                where=where,
                advice="a bundle counts them by its steps, so a proof with other counts cannot be imported",
            )
        damped = isinstance(named, SGD) and any(group.dampening for group in named.groups)
        if damped and checkpoint.step and len(kept) < sum(1 for _ in named.tensors()):
            raise MalformedBundle(
                "lacks momentum, which with dampening begins otherwise than from zero", where=where
            )

    def _values(self, checkpoint: Checkpoint, named: Optimizer) -> Iterator[tuple[int, Values]]:
        """What is in force from which step on, until the next checkpoint."""
        if checkpoint.step == self.proof.steps:
            return
        optimizer, where = self.training.optimizer, f"{checkpoint.path}: optimizer: param_groups"
        steps = min(self.proof.every, self.proof.steps - checkpoint.step)
        values = values_of(optimizer, named, where=where)
        yield checkpoint.step, values
        factors = rates_within(checkpoint, steps)
        if factors is None:
            if checkpoint.step == 0:
                self.notes.append(
                    "its scheduler is not MultiStepLR, so within an interval the learning rate is taken as "
                    "the checkpoint before has it"
                )
            return
        for ahead, factor in sorted(factors.items()):
            values = {key: v * factor if key[1] == "lr" else v for key, v in values.items()}
            put(optimizer, values)
            yield checkpoint.step + ahead, values_of(optimizer, named, where=f"{checkpoint.path}: scheduler")

    def write(self, target: str | Path, signer: Signer, *, seed: bytes, exact: bool) -> Presented:
        """Writes the bundle."""
        named, changes = self.examine()
        training, proof = self.training, self.proof
        presented = Presented(
            target=target,
            signer=signer,
            request=Request(
                model=training.model,
                optimizer=training.optimizer,
                loss=training.loss,
                data=proof.samples(training.data),
                batch_size=proof.batch_size,
                steps=proof.steps,
                every=proof.every,
                seed=DeclaredSeed(value=seed),
                shuffle=False,
                drop_last=False,
                schedule=AsPresented(training.optimizer, changes) if len(changes) > 1 else None,
                exact=exact,
            ),
            committed=lambda done, total: self.progress("committing to samples", done, total),
        )
        zero = presented.state_zero()
        fresh = {
            kept.name: torch.full_like(zero[kept.name], 0.0 if kept.shape_like_parameter else 1.0)
            for kept in named.tensors()
        }
        for checkpoint in self.checkpoints("sealing checkpoints"):
            state = self.matching.net(checkpoint)
            kept = self.matching.kept(checkpoint, named)
            if checkpoint.step == 0:
                presented.begin({**state, **kept})
            else:
                steps = presented.steps_of(presented.segments)
                presented.present({**fresh, **state, **kept}, [math.nan] * len(steps))
        presented.finish()
        return presented


def import_released(
    proof: ReleasedProof,
    training: Training,
    *,
    target: str | Path,
    signer: Signer,
    exact: bool = False,
    seed: bytes | None = None,
    hashed: bool = True,
    progress: Progress = lambda what, done, total: None,
) -> Imported:
    """Writes a bundle out of a released proof.

    Args:
        proof: The folder.
        training: What is not in it. Its model and optimizer are changed.
        target: Where the bundle goes: a directory, or a URL that fsspec knows; empty.
        signer: Who imports.
        exact: Whether the bundle claims exact arithmetic, which any machine can replay, or that of this one.
        seed: From which the claimed initialisation is derived, 32 bytes; drawn afresh where not given.
        hashed: Whether to compare `hash.txt` with the data.
        progress: Called with what is done, how much of it, and of how much.

    Raises:
        MissingFile: A checkpoint is gone.
        MalformedBundle: A checkpoint is not of this model and optimizer, or above a limit; names the field.
        CaptureError: Something of the training cannot be recorded.
        RecordError: There are files at the target.
    """
    if not FsspecFiles(str(target)).is_empty():
        raise RecordError(
            "already exists and is not empty",
            where=str(target),
            advice="name another directory, or remove it",
        )
    work = _Import(proof, training, progress)
    with warnings.catch_warnings():
        # What a recording would be warned of is the folder's own here, and the verdict says it.
        warnings.simplefilter("ignore", RecordWarning)
        presented = work.write(target, signer, seed=seed or secrets.token_bytes(32), exact=exact)
    return Imported(
        steps=proof.steps,
        segments=presented.segments,
        batch_size=proof.batch_size,
        notes=(*work.notes, *([hash_note(proof.folder, training.data, progress)] if hashed else [])),
    )


def _check_fixed(checkpoint: Checkpoint, first: dict[str, object], now: dict[str, object]) -> None:
    """Refuses an option that changes within the run and that no schedule may change."""
    for name in {**first, **now}:
        if first.get(name) != now.get(name):
            raise MalformedBundle(
                f"{name} is {now.get(name)!r}, and {first.get(name)!r} before",
                where=str(checkpoint.path),
                advice="a bundle has one value of it, so such a proof cannot be imported",
            )
