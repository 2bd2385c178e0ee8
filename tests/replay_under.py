"""Verifies a bundle with its replays in this very process, under the settings that it was started with.

    python tests/replay_under.py BUNDLE [--without-onednn]

Prints one line of JSON: the settings, how many segments were equal, and the computation claim's status. In
exact arithmetic no setting may change a bit; `settings.py` starts this under many.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from gradseal.program.exact import kernel
from gradseal.verify.verdict import ClaimName, Result
from gradseal.verify.verifier import verify
from in_process import InProcess


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
