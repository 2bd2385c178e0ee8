"""Replays as on another machine: the samples of each batch in another order, so that sums round otherwise.

And a calibration that a test makes up, of any numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from gradseal.precede.log import read_log
from gradseal.program.native import current_environment
from gradseal.proof.bundle import open_bundle
from gradseal.proof.manifest import Manifest
from gradseal.proof.note import SigningKey
from gradseal.store.files import FsspecFiles
from gradseal.study.noise.numerics import reordered
from gradseal.verify.calibration import CalibratedRun, Calibration
from gradseal.verify.contents import read_contents
from gradseal.verify.executors import Answer, Ready, Request
from gradseal.verify.replay import Replayer
from vectors.make_documents import ENVIRONMENT

CALIBRATOR = SigningKey(name="calibrator.example", seed=bytes([7]) * 32)


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """An executor on a machine that differs in these fields of its environment, and rounds otherwise."""

    fields: dict[str, Any] = field(default_factory=lambda: {"processor": "Another processor"})

    def run(self, request: Request) -> Iterator[Answer]:
        files = FsspecFiles(request.url)
        contents = read_contents(files, request.manifest, request.programs)
        yield Ready(environment=replace(current_environment(), **self.fields))
        replayer = Replayer(
            files,
            request.manifest,
            contents,
            request.seeds,
            device=torch.device("cpu"),
            alive=lambda: None,
            transform=reordered,
        )
        for task in request.tasks:
            yield replayer.replay(task)


def calibration(manifest: Manifest | None = None, **changed: Any) -> Calibration:
    """One that fits the manifest, measured here, with a tolerance of 1e-4; but for what is changed."""
    plan = manifest.plan if manifest else None
    fitting = Calibration(
        tau=1e-4,
        state_tau=2e-4,
        margin=1.0,
        floor=1e-6,
        ceiling=1e6,
        false_rejection=0.05,
        confidence=0.95,
        segments=59,
        variants=("order", "float64"),
        program=manifest.program if manifest else bytes(range(32)),
        every=plan.every if plan else 10,
        batch_size=plan.batch_size if plan else 64,
        accumulate=plan.accumulate if plan else 1,
        environment=current_environment() if manifest else ENVIRONMENT,
        runs=(CalibratedRun(origin="owner.example/run", size=12, root=bytes(32)),),
        coefficient=1e-6,
        exponent=0.5,
        signer=str(CALIBRATOR.verification_key),
    )
    return replace(fitting, **changed)


def manifest_of(path: Any) -> Manifest:
    """The manifest of a bundle."""
    entries = open_bundle(FsspecFiles(str(path))).all_entries()
    return read_log(Manifest.decode(entries[0]), entries).manifest
