"""A real witness: `gradseal witness serve` in a process of its own, which a test may kill."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forked_log import OWNER
from gradseal.proof.cosignature import CosigningKey

_MAIN = "from gradseal.cli import main; main()"

WITNESS = CosigningKey(name="witness.example.org", seed=b"\x31" * 32)


def write_files(directory: Path, keys: Sequence[CosigningKey] = (WITNESS,)) -> list[str]:
    """The key and log files in a directory, and the arguments that name them."""
    logs = directory / "logs.txt"
    logs.write_text(f"# owners\n{OWNER.verification_key}\n", encoding="utf-8")
    arguments = ["--logs", str(logs)]
    for number, key in enumerate(keys):
        file = directory / f"witness-{number}.key"
        file.write_text(key.encode() + "\n", encoding="utf-8")
        arguments += ["--key", str(file)]
    return arguments


@dataclass
class Server:
    """A running witness."""

    url: str
    printed_keys: list[str]
    process: subprocess.Popen[str]

    @classmethod
    def start(cls, directory: Path, database: str, *, keys: Sequence[CosigningKey] = (WITNESS,)) -> Server:
        """Start it, and wait until it listens."""
        arguments = write_files(directory, keys)
        errors = (directory / "stderr").open("a")
        with errors:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    _MAIN,
                    "witness",
                    "serve",
                    "--port=0",
                    f"--database={database}",
                    *arguments,
                ],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(1 + len(keys))]
        if not lines[0].startswith("http"):
            process.wait()
            process.stdout.close()
            raise RuntimeError((directory / "stderr").read_text())
        return cls(lines[0], lines[1:], process)

    def kill(self) -> None:
        """As a power cut would, for the process alone."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """As an operator does; its status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        self.process.send_signal(number)
        status = self.process.wait(timeout=30)
        if self.process.stdout:
            self.process.stdout.close()
        return status
