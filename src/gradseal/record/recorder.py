"""Recording a run: three lines in a plain PyTorch script.

`record` reads what is to be resumed, fixes everything that is fixed before step 0, and begins the log; the
`Run` that it gives does the rest.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from gradseal.errors import RecordError
from gradseal.precede.beacons import Beacon
from gradseal.precede.hosts import Hosts
from gradseal.precede.timestamps import TimeStamper
from gradseal.precede.witnesses import WitnessAddress
from gradseal.program.arithmetic import ARITHMETICS, EXACT
from gradseal.program.capture import Loss
from gradseal.proof.manifest import BeaconSeed, DeclaredSeed, Seed
from gradseal.proof.note import Signer
from gradseal.proof.writer import BlobWriter, BundleWriter
from gradseal.record.keys import load_signer
from gradseal.record.plan import Request
from gradseal.record.prepare import fix
from gradseal.record.progress import Progress
from gradseal.record.resume import Interrupted, find_interrupted
from gradseal.record.run import Run
from gradseal.record.timekeeping import Timekeeping
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
    arithmetic: str = "native",
    seed: int | bytes | None = None,
    beacon: Beacon | None = None,
    witnesses: Sequence[WitnessAddress] = (),
    timestamps: Sequence[TimeStamper] = (),
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
        arithmetic: `native`, PyTorch's own, whose bits depend on machine and libraries; or `exact`, whose
            bits are the same anywhere: then `run.step` takes the steps, by Gradseal's own operators.
        seed: 32 bytes, or a number below 2**256; drawn afresh where not given. It is shown as chosen by the
            owner.
        beacon: Where seeds come from instead, slot after slot, so that a verifier learns before when nothing
            can have been made. The manifest is sealed and anchored first; the recording waits for slot 0.
        witnesses: Who is asked to cosign the log's checkpoints.
        timestamps: Who is asked to time-stamp them, besides. Anchors are asked for behind the training's
            back; a host that is away becomes a gap in the log.
        shuffle: Whether each epoch has its own random order.
        drop_last: Whether an epoch's incomplete last batch is dropped.
        resume: Go on with what is at `path` from its last sealed state. Begin, if there is nothing, or what a
            recording left that was interrupted before anything was sealed; with a beacon, whose manifest is
            sealed first, only a run whose state zero is sealed too. All else must be as it was. A run that is
            complete yields no more batches.
        progress: Whether to show progress on standard error; by default, if that is a terminal.

    Raises:
        CaptureError: The model, loss, optimizer, schedule or data cannot be recorded; names what and why.
        RecordError: The output exists, the captured program is not the model's own computation, or what is to
            be resumed is another run or none.
        StoreError: What is to be resumed cannot be read, or is damaged where it cannot be made again.
        KeyFileError: The key cannot be read.
        AnchorError: No relay of the beacon's gives the first slot.
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
    hosts = Hosts(witnesses, timestamps) if witnesses or timestamps else None
    request = Request(
        model=model,
        optimizer=optimizer,
        loss=loss,
        data=data,
        batch_size=batch_size,
        steps=steps,
        every=every,
        seed=_seed(seed, beacon, interrupted),
        shuffle=shuffle,
        drop_last=drop_last,
        accumulate=accumulate,
        clip=clip,
        schedule=schedule,
        schedule_per=schedule_per,
        exact=_is_exact(arithmetic),
    )
    shown = Progress(progress)
    blobs = BlobWriter(files, resumed=resume)
    known = interrupted.initialisation(files) if interrupted else None
    try:
        fixed = fix(request, signer, blobs, shown.committed, known)
        if interrupted and known:
            interrupted.check_same(fixed.manifest)
            if not interrupted.closed:
                interrupted.check_kept(files, fixed.live.layout, known)
        prepared = fixed.seeded(interrupted.seeds() if interrupted else fixed.declared())
        fixed.compare(prepared)
    except BaseException:
        blobs.discard()
        raise
    finally:
        shown.end()
    writer = BundleWriter(blobs, signer, fixed.manifest)
    if interrupted:
        writer.catch_up(interrupted.checkpoint, interrupted.entries)
    time = Timekeeping(
        writer, fixed.manifest, fixed.program, beacon=beacon, hosts=hosts, interrupted=interrupted
    )
    try:
        if beacon and not interrupted:
            prepared = fixed.seeded(time.seeds(shown.waiting))
        return Run(request, prepared, writer, progress=shown, interrupted=interrupted, time=time)
    except BaseException:
        time.stop()
        raise


def _is_exact(arithmetic: str) -> bool:
    if arithmetic not in ARITHMETICS:
        raise RecordError(
            f"no arithmetic is called {arithmetic!r}",
            where="arithmetic",
            advice=f"name {' or '.join(ARITHMETICS)}",
        )
    return arithmetic == EXACT


def _seed(seed: int | bytes | None, beacon: Beacon | None, interrupted: Interrupted | None) -> Seed | Beacon:
    if beacon is not None and seed is not None:
        raise RecordError("both a seed and a beacon to draw from", where="seed", advice="give one of them")
    if interrupted and seed is None:
        known = interrupted.manifest.plan.seed
        if isinstance(known, BeaconSeed) and beacon is None:
            raise RecordError(
                "the recording draws from a beacon, and no beacon was given to go on with", where="beacon"
            )
        return known
    if beacon is not None:
        return beacon
    if seed is None:
        return DeclaredSeed(value=secrets.token_bytes(32))
    if isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 1 << 256:
        return DeclaredSeed(value=seed.to_bytes(32, "big"))
    if isinstance(seed, bytes) and len(seed) == 32:
        return DeclaredSeed(value=seed)
    raise RecordError("a seed is 32 bytes or a number from 0 to 2**256 - 1", where="seed")
