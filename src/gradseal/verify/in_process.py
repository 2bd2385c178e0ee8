"""An executor whose worker is this process, under the settings that it was started with.

For bundles that nobody hostile wrote: a program that crashes or hangs takes the verifier along. Studies and
tests use it, which verify many small bundles; `LocalProcess` is for all others.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from gradseal.program.arithmetic import Exact
from gradseal.program.exact.fitness import prove
from gradseal.program.native import current_environment
from gradseal.store.files import FsspecFiles
from gradseal.verify.contents import read_contents
from gradseal.verify.executors import Answer, Ready, Request
from gradseal.verify.probing import probe_groups
from gradseal.verify.replay import Replayer


class InProcess:
    """Replays by the worker's own code in this process, which saves the time that one takes to start.

    Args:
        device: Where to compute; the processor if not given.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device or torch.device("cpu")

    def run(self, request: Request) -> Iterator[Answer]:
        """See `Executor`."""
        files = FsspecFiles(request.url)
        contents = read_contents(files, request.manifest, request.programs)
        if isinstance(contents.arithmetic, Exact):
            prove(self._device)
        yield Ready(environment=current_environment(self._device.type))
        replayer = Replayer(
            files, request.manifest, contents, request.seeds, device=self._device, alive=lambda: None
        )
        for task in request.tasks:
            yield replayer.replay(task)
        if request.probe is not None:
            yield probe_groups(
                files,
                request.manifest,
                contents,
                request.seeds,
                request.probe,
                device=self._device,
                alive=lambda: None,
            )
