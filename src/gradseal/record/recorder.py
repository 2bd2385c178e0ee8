"""Recording a run: three lines in a plain PyTorch script.

`record` reads what is to be resumed, fixes everything that is fixed before step 0, and begins the log; the
`Run` that it gives does the rest.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from gradseal.errors import RecordError
from gradseal.program.capture import Loss
from gradseal.proof.note import Signer
from gradseal.proof.writer import BlobWriter, BundleWriter
from gradseal.record.keys import load_signer
from gradseal.record.plan import Request
from gradseal.record.prepare import prepare
from gradseal.record.progress import Progress
from gradseal.record.resume import Interrupted, find_interrupted
from gradseal.record.run import Run
from gradseal.store.files import FsspecFiles


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
    schedule: LRScheduler | None = None,
    schedule_per: str = "step",
    clip: float | None = None,
    accumulate: int = 1,
    seed: int | bytes | None = None,
    shuffle: bool = True,
    drop_last: bool = False,
    resume: bool = False,
    progress: bool | None = None,
) -> Run:
    """Begins to record a run; use it as a context manager.

    The model is trained from the state that its initialisation rules give with the run's seed (see
    `initialise`); tensors without a rule keep their bytes.

    Args:
        path: The bundle to write; a directory that does not exist or is empty, or an fsspec URL.
        model: In the training flags that it is to be trained with.
        optimizer: A `torch.optim` SGD, Adam, AdamW, RMSprop, Adagrad or NAdam, or a `gradseal.Lion`, over its
            parameters.
        loss: From the model and a batch to a scalar tensor.
        data: A map-style data set whose samples are trees of tensors and numbers, or a `DataLoader` around
            one with the same batch size, shuffling and `drop_last` as here, whose workers are then used.
        batch_size: Samples in a batch.
        steps: Optimizer updates in all.
        every: Steps in a segment; each segment's end is sealed.
        key: The owner's signing key, or the file that holds it.
        schedule: A scheduler of `torch.optim.lr_scheduler` on this optimizer. It is evaluated in advance, and
            the recording sets what it would set; its own `step` need not be called.
        schedule_per: Whether the scheduler moves with each `step` or each `epoch`.
        clip: The largest norm of all gradients together, as for `clip_grad_norm_`.
        accumulate: How many batches make a step. The run then yields lists of so many; each loss is divided
            by their number, and the gradients are added up in order.
        seed: 32 bytes, or a number below 2**256; drawn afresh where not given. It is shown as chosen by the
            owner.
        shuffle: Whether each epoch has its own random order.
        drop_last: Whether an epoch's incomplete last batch is dropped.
        resume: Go on with what is at `path` from its last sealed state. Begin, if there is nothing, or what a
            recording left that was interrupted before anything was sealed. All else must be as it was. A run
            that is complete yields no more batches.
        progress: Whether to show progress on standard error; by default, if that is a terminal.

    Raises:
        CaptureError: The model, loss, optimizer, schedule or data cannot be recorded; names what and why.
        RecordError: The output exists, the captured program is not the model's own computation, or what is to
            be resumed is another run or none.
        StoreError: What is to be resumed cannot be read, or is damaged where it cannot be made again.
        KeyFileError: The key cannot be read.
    """
    signer = load_signer(key)
    files = FsspecFiles(str(path))
    if not resume and not files.is_empty():
        raise RecordError(
            "already exists, and is not an empty directory",
            where=str(path),
            advice="name another directory, remove what an earlier recording left there, or resume it",
        )
    interrupted = find_interrupted(files, signer.verification_key) if resume else None
    request = Request(
        model=model,
        optimizer=optimizer,
        loss=loss,
        data=data,
        batch_size=batch_size,
        steps=steps,
        every=every,
        seed=_seed_bytes(seed, interrupted),
        shuffle=shuffle,
        drop_last=drop_last,
        accumulate=accumulate,
        clip=clip,
        schedule=schedule,
        schedule_per=schedule_per,
    )
    shown = Progress(progress)
    blobs = BlobWriter(files, resumed=resume)
    known = interrupted.initialisation(files) if interrupted else None
    try:
        prepared = prepare(request, signer, blobs, shown.committed, known)
        if interrupted and known:
            interrupted.check_same(prepared.manifest)
            if not interrupted.closed:
                interrupted.check_kept(files, prepared.live.layout, known)
    except BaseException:
        blobs.discard()
        raise
    finally:
        shown.end()
    writer = BundleWriter(blobs, signer, prepared.manifest)
    if interrupted:
        writer.catch_up(interrupted.checkpoint, interrupted.entries)
    return Run(request, prepared, writer, shown, interrupted)


def _seed_bytes(seed: int | bytes | None, interrupted: Interrupted | None) -> bytes:
    if seed is None:
        return interrupted.manifest.plan.seed.value if interrupted else secrets.token_bytes(32)
    if isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 1 << 256:
        return seed.to_bytes(32, "big")
    if isinstance(seed, bytes) and len(seed) == 32:
        return seed
    raise RecordError("a seed is 32 bytes or a number from 0 to 2**256 - 1", where="seed")
