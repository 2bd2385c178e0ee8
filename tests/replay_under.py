"""Verifies a bundle with its replays in this very process, under the settings that it was started with.

    python tests/replay_under.py BUNDLE [--without-onednn]

Prints one line of JSON: the settings, how many segments were equal, and the computation claim's status. In
exact arithmetic no setting may change a bit; `settings.py` starts this under many.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch

from gradseal.program.exact import kernel
from gradseal.program.exact.fitness import prove
from gradseal.program.native import current_environment
from gradseal.store.files import FsspecFiles
from gradseal.verify.contents import read_contents
from gradseal.verify.executors import Ready, Request
from gradseal.verify.outcomes import SegmentResult
from gradseal.verify.replay import Replayer
from gradseal.verify.verdict import ClaimName, Result
from gradseal.verify.verifier import verify


class InProcess:
    """An executor that replays here, on whatever device there is."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def run(self, request: Request) -> Iterator[Ready | SegmentResult]:
        """See `Executor`."""
        prove(self._device)
        yield Ready(environment=current_environment(self._device.type))
        files = FsspecFiles(request.url)
        contents = read_contents(files, request.manifest, request.programs)
        replayer = Replayer(
            files, request.manifest, contents, request.seeds, device=self._device, alive=lambda: None
        )
        yield from map(replayer.replay, request.tasks)


def main() -> None:
    """Verifies, and prints one line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--without-onednn", action="store_true")
    chosen = parser.parse_args()
    torch.backends.mkldnn.enabled = not chosen.without_onednn  # type: ignore[assignment]  # typed as a property
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    verdict = verify(chosen.bundle, executor=InProcess(device))
    library = kernel.library()
    print(
        json.dumps(
            {
                "device": device.type,
                "threads": torch.get_num_threads(),
                "capability": torch.backends.cpu.get_cpu_capability(),
                "onednn": bool(torch.backends.mkldnn.enabled),
                "kernel": library._name.rpartition("_kernel_")[2] if library else "none",
                "equal": sum(row.equal is True for row in verdict.segments.rows),
                "computation": verdict.claims[ClaimName.COMPUTATION].status.value,
                "wrong": [
                    f.message for f in verdict.findings if f.result in (Result.REFUTED, Result.UNDECIDED)
                ],
            }
        )
    )


if __name__ == "__main__":
    main()
