"""Recording a run: three lines in a plain PyTorch script.

Each step is either Gradseal's own (`Run.step`: the captured graph, run by the verifier's interpreter) or the
user's (`Run.wrap`), of which one in each segment, drawn at random, is run again from the graph. Whatever
would make the record untrue stops it: another batch, a state changed between steps, an optimizer whose
settings moved, any error within a step. A record that was stopped has no close entry, and no verifier takes
it for whole.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import torch
from torch import nn

from gradseal.errors import RecordError
from gradseal.program.capture import Loss
from gradseal.program.memory import to_bytes, weights_file
from gradseal.program.native import check_recordable, current_environment, differences, seeded
from gradseal.program.samples import flatten
from gradseal.proof.entries import Close, Initial, Segment, encode_losses
from gradseal.proof.note import Signer
from gradseal.proof.writer import BlobWriter, BundleWriter
from gradseal.record.keys import load_signer
from gradseal.record.live import differing, fingerprint, largest_difference, same_bits
from gradseal.record.prepare import Prepared, Request, prepare
from gradseal.record.progress import Progress
from gradseal.store.files import FsspecFiles

_SHOWN = 5


def record(  # noqa: PLR0913 - the one entry point; keyword-only options instead of a configuration object
    path: str | Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    loss: Loss,
    data: Any,
    batch_size: int,
    steps: int,
    every: int,
    key: Signer | str | Path,
    seed: int | bytes | None = None,
    shuffle: bool = True,
    drop_last: bool = False,
    progress: bool | None = None,
) -> Run:
    """Begins to record a run; use it as a context manager.

    The model is trained from the state that its initialisation rules give with the run's seed (see
    `initialise`); tensors without a rule keep their bytes.

    Args:
        path: The bundle to write; a directory that does not exist or is empty, or an fsspec URL.
        model: In the training flags that it is to be trained with.
        optimizer: A `torch.optim.SGD` over its parameters.
        loss: From the model and a batch to a scalar tensor.
        data: A map-style data set whose samples are trees of tensors and numbers, or a `DataLoader` around
            one with the same batch size, shuffling and `drop_last` as here.
        batch_size: Samples in a batch.
        steps: Optimizer updates in all.
        every: Steps in a segment; each segment's end is sealed.
        key: The owner's signing key, or the file that holds it.
        seed: 32 bytes, or a number below 2**256; drawn afresh where not given. It is shown as chosen by the
            owner.
        shuffle: Whether each epoch has its own random order.
        drop_last: Whether an epoch's incomplete last batch is dropped.
        progress: Whether to show progress on standard error; by default, if that is a terminal.

    Raises:
        CaptureError: The model, loss, optimizer or data cannot be recorded; names what and why.
        RecordError: The output exists, or the captured program is not the model's own computation.
        KeyFileError: The key cannot be read.
    """
    signer = load_signer(key)
    files = FsspecFiles(str(path))
    if not files.is_empty():
        raise RecordError(
            "already exists, and is not an empty directory",
            where=str(path),
            advice="name another directory, or remove what an earlier recording left there",
        )
    request = Request(
        model=model,
        optimizer=optimizer,
        loss=loss,
        data=data,
        batch_size=batch_size,
        steps=steps,
        every=every,
        seed=_seed_bytes(seed),
        shuffle=shuffle,
        drop_last=drop_last,
    )
    shown = Progress(progress)
    blobs = BlobWriter(files)
    try:
        prepared = prepare(request, signer, blobs, shown.committed)
    except BaseException:
        blobs.discard()
        raise
    finally:
        shown.end()
    return Run(request, prepared, BundleWriter(blobs, signer, prepared.manifest), shown)


class Run:
    """A run that is being recorded; made by `record`."""

    def __init__(
        self, request: Request, prepared: Prepared, writer: BundleWriter, progress: Progress
    ) -> None:
        self._request = request
        self._prepared = prepared
        self._live = prepared.live
        self._writer = writer
        self._progress = progress
        self._plan = prepared.manifest.plan
        self._flags = _training_flags(request.model)
        self._step = 0
        self._losses: list[float] = []
        self._batch: Any = None
        self._leaves: list[torch.Tensor] = []
        self._expected = self._live.fingerprints()
        self._settings = self._live.settings()
        self._watched = [fingerprint(tensor) for tensor in prepared.watched]
        self._checked_step = self._draw_checked_step(0)
        self._stopped = False
        self._entered = False
        writer.append(Initial(seal=self._seal()))
        writer.publish()

    @property
    def steps(self) -> int:
        """How many steps the run has."""
        return self._plan.steps

    @property
    def segments(self) -> int:
        """How many segments the run has."""
        return self._plan.segments

    @property
    def steps_per_epoch(self) -> int:
        """How many steps see every sample once, but for those that a dropped batch leaves out."""
        return self._prepared.order.steps_per_epoch

    def __enter__(self) -> Run:
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.end()
        if kind is None:
            self._close()

    def __iter__(self) -> Iterator[Any]:
        """The batches of the steps still to be done, in the committed order."""
        if not self._entered:
            self._stop(
                "the run was not entered, so it could not be closed", "with gradseal.record(…) as run:"
            )
        while self._step < self._plan.steps:
            step = self._step
            self._leaves = self._prepared.data.batch(self._prepared.order.indices(step), self._live.device)
            self._batch = self._prepared.data.schema.unflatten([leaf.clone() for leaf in self._leaves])
            yield self._batch
            if self._step == step:
                self._stop("a batch was taken and not trained on; call run.step(batch) once for each")

    def step(self, batch: Any) -> torch.Tensor:
        """Does the step on `batch`, which must be the one just taken from the run.

        Returns:
            The loss before the update, detached.

        Raises:
            RecordError: It is another batch, or something changed the state since the last step.
        """
        with self._ending_on_errors():
            self._begin(batch)
            state = self._live.tensors()
            result = self._prepared.take_step(state, self._leaves, self._step)
            if self._step == 0:
                self._live.install_momentum(result.gradients)
            self._finish(float(result.loss))
        return result.loss.detach()

    def wrap(self, train_step: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """Makes the user's own training step one that is recorded.

        The step is called with the batch first; it must zero the gradients, call backward, step the
        optimizer, and return its loss. One step in each segment is run again from the captured graph.

        Returns:
            The step to call instead; it raises RecordError where the step is not what was captured.
        """

        @functools.wraps(train_step)
        def recorded(batch: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
            with self._ending_on_errors():
                self._begin(batch)
                self._check_flags()
                before = self._live.snapshot() if self._step == self._checked_step else None
                with seeded(self._prepared.seed, self._step):
                    loss: object = train_step(batch, *args, **kwargs)
                if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
                    self._stop("the wrapped step must return its loss, a scalar tensor")
                if before is not None:
                    self._run_again(before, loss)
                self._finish(float(loss.detach()))
            return loss

        return recorded

    @contextmanager
    def _ending_on_errors(self) -> Iterator[None]:
        """Whatever goes wrong within a step, the state may be half changed, and nothing more is recorded."""
        try:
            yield
        except BaseException:
            self._stopped = True
            raise

    def _begin(self, batch: Any) -> None:
        if self._stopped:
            raise RecordError("the recording was stopped", where=f"step {self._step}")
        if self._step >= self._plan.steps:
            self._stop(f"all {self._plan.steps} steps are done")
        if self._batch is None or batch is not self._batch:
            self._stop("the batch is not the one that the run gave for this step", "loop `for batch in run`")
        if not self._is_as_given(batch):
            self._stop("the batch was changed after the run gave it", "change the data set instead")
        self._check_unchanged()
        self._check_watched()
        self._check_settings()

    def _is_as_given(self, batch: Any) -> bool:
        try:
            parts = list(flatten(self._prepared.data.schema.tree, batch))
        except ValueError:
            return False
        return all(
            isinstance(part, torch.Tensor) and same_bits(part, leaf)
            for part, leaf in zip(parts, self._leaves, strict=True)
        )

    def _finish(self, loss: float) -> None:
        self._losses.append(loss)
        self._batch = None
        self._expected = self._live.fingerprints()
        self._step += 1
        if self._step % self._plan.every == 0 or self._step == self._plan.steps:
            self._end_segment()
        self._progress.trained(self._step, self._plan.steps, loss)

    def _end_segment(self) -> None:
        index = (self._step - 1) // self._plan.every
        steps = self._plan.steps_of(index)
        self._check_environment()
        self._live.check_unreplaced()
        losses = self._writer.put(encode_losses(self._losses))
        self._writer.append(
            Segment(index=index, first_step=steps.start, steps=len(steps), seal=self._seal(), losses=losses)
        )
        self._writer.publish()
        self._losses.clear()
        self._checked_step = self._draw_checked_step(index + 1)

    def _seal(self) -> bytes:
        return self._writer.seal([self._writer.put(to_bytes(t)) for t in self._live.tensors().values()])

    def _close(self) -> None:
        if self._stopped:
            raise RecordError(
                "the recording was stopped; the bundle stays unfinished", where=f"step {self._step}"
            )
        if self._step < self._plan.steps:
            raise RecordError(
                f"ended after {self._step} of {self._plan.steps} steps; the bundle stays unfinished",
                where=f"step {self._step}",
            )
        self._live.check_unreplaced()
        self._check_unchanged()
        state = self._live.tensors()
        released = {name: state[behind] for name, behind in self._prepared.release.tensors.items()}
        weights = self._writer.release(weights_file(released))
        self._writer.append(Close(segments=self._plan.segments, weights=weights))
        self._writer.publish()

    def _run_again(self, before: dict[str, torch.Tensor], loss: torch.Tensor) -> None:
        """Runs the step just done from the graph, and stops the recording if a bit differs."""
        result = self._prepared.take_step(before, self._leaves, self._step)
        after = self._live.tensors()
        wrong = differing(after, before)
        if not same_bits(loss.detach().reshape(()), result.loss.reshape(())):
            self._stop(
                f"the step's loss is {float(loss.detach())!r}, the captured program's {float(result.loss)!r}",
                "the step must compute the loss that was given to record, on the batch as it is",
            )
        if wrong:
            self._stop(
                f"the step is not the captured one: {_listed(wrong)} differ, by up to "
                f"{largest_difference(wrong, after, before):.3g}",
                "zero the gradients, call backward once and step the optimizer once; no clipping or scaling",
            )

    def _check_unchanged(self) -> None:
        now = self._live.fingerprints()
        changed = [name for name, value in now.items() if self._expected[name] != value]
        if changed:
            self._stop(
                f"something changed {_listed(changed)} since the last step",
                "evaluate with model.eval(), and leave parameters, buffers and momentum alone between steps",
            )

    def _check_watched(self) -> None:
        for tensor, before in zip(self._prepared.watched, self._watched, strict=True):
            if fingerprint(tensor) != before:
                shape = tuple(tensor.shape)
                self._stop(
                    f"the loss reads a tensor of shape {shape}, no part of the model, that changed",
                    "what changes during training must be a buffer of the model (register_buffer)",
                )

    def _check_flags(self) -> None:
        for name, flag in _training_flags(self._request.model).items():
            if self._flags.get(name) != flag:
                mode = "training" if flag else "evaluation"
                where = f"model.{name}" if name else "model"
                self._stop(
                    f"{where} is in {mode} mode, not as it was captured",
                    "call model.train() after evaluating",
                )

    def _check_settings(self) -> None:
        now = self._live.settings()
        changed = [name for name in {**self._settings, **now} if self._settings.get(name) != now.get(name)]
        if changed:
            was, is_now = self._settings.get(changed[0]), now.get(changed[0])
            self._stop(
                f"{_listed(changed)} changed since the recording began: {was!r} became {is_now!r}",
                "schedules and changes of parameter groups cannot be recorded yet",
            )

    def _check_environment(self) -> None:
        check_recordable()
        changed = differences(self._prepared.environment, current_environment(self._live.device.type))
        if changed:
            told = ", ".join(f"{name} from {was} to {now}" for name, (was, now) in changed.items())
            self._stop(f"the numerical environment changed: {told}", "set it before recording")

    def _draw_checked_step(self, segment: int) -> int:
        steps = self._plan.steps_of(segment)
        return steps.start + secrets.randbelow(len(steps)) if steps else -1

    def _stop(self, message: str, advice: str = "") -> NoReturn:
        self._stopped = True
        raise RecordError(message, where=f"step {self._step}", advice=advice)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _training_flags(model: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in model.named_modules()}


def _seed_bytes(seed: int | bytes | None) -> bytes:
    if seed is None:
        return secrets.token_bytes(32)
    if isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 1 << 256:
        return seed.to_bytes(32, "big")
    if isinstance(seed, bytes) and len(seed) == 32:
        return seed
    raise RecordError("a seed is 32 bytes or a number from 0 to 2**256 - 1", where="seed")
