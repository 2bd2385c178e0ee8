"""What slots and anchors cost a training: recording with beacon, witness and authority against without.

Beacon, witness and authority run in a process of their own, so that their work is not counted as the
trainer's. Slots are short, which makes the figure an upper bound: what a slot costs comes six times as often
with one of 10 seconds as with the usual 60. Both ways record with `run.step`, in turn, in one process and one
thread; compared is the median over the rounds of the ratio within a round, once the first few steps are done.

Wall-clock time says what a user waits. CPU time of the whole process does not count other processes, but a
busy machine still moves it by some percent. So a third figure leaves the steps themselves out, which are the
same work in both: what all other threads, and the main one between steps, take more, for each second of CPU
time.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure
from benchmarks.training import plain

from gradseal import SigningKey, initialise, record
from gradseal.precede.asked import Asked
from gradseal.precede.log import read_log
from gradseal.precede.trust import load_trust
from gradseal.precede.trust_text import write_trust
from gradseal.proof.anchors import read_index
from gradseal.proof.bundle import open_bundle
from gradseal.proof.manifest import Manifest
from gradseal.proof.note import VerificationKey
from gradseal.recipes.recipe import Recipe
from gradseal.store.files import FsspecFiles
from gradseal.witness.loopback import Loopback

_WARM = 5
_TRIED = 30
_SLOTS = 4
_AT_MOST = 1.01
_LEAD_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """What the steps after the first few took, in seconds.

    Args:
        wall: Until the last one was sealed.
        cpu: Of all threads of the process.
        besides: What of that was not the main thread's within a step.
        slots: How many slots the run drew from.
        anchors: How many anchored checkpoints it has.
    """

    wall: float
    cpu: float
    besides: float
    slots: int
    anchors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All times, one for each round, how many steps they took, and how long a slot was."""

    without: list[Times]
    anchored: list[Times]
    steps: int
    cadence_seconds: int

    def figures(self) -> list[Figure]:
        """The ratios."""
        pairs = list(zip(self.anchored, self.without, strict=True))
        ratios = {
            "wall-clock": [own.wall / other.wall for own, other in pairs],
            "CPU time": [own.cpu / other.cpu for own, other in pairs],
            "CPU time besides the steps'": [
                1 + (own.besides - other.besides) / other.cpu for own, other in pairs
            ],
        }
        name = f"recording with slots of {self.cadence_seconds} s and anchors, a step"
        return [
            Figure(name=f"{name}, {what}", value=statistics.median(found), unit="×", at_most=_AT_MOST)
            for what, found in ratios.items()
        ]

    def to_json(self) -> dict[str, Any]:
        """Every single time."""
        ways = {"without": self.without, "anchored": self.anchored}
        return {way: [asdict(times) for times in rounds] for way, rounds in ways.items()}


def measure(
    recipe: Recipe, *, every: int, cadence_seconds: int, rounds: int, say: Callable[[str], None]
) -> Measured:
    """Records with and without, in turn; as many steps as take some slots."""
    steps = math.ceil(_SLOTS * cadence_seconds / plain(recipe, _TRIED).per_step)
    key = SigningKey.generate("bench.example")
    found: dict[bool, list[Times]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as services, _services(Path(services), key.verification_key) as pins:
        asked = Asked.of(load_trust(pins), cadence_seconds=cadence_seconds, lead_seconds=_LEAD_SECONDS)
        for number in range(rounds):
            # In the other order each time, so that a machine that slows down favours neither.
            for anchored in (number % 2 == 0, number % 2 == 1):
                chosen = asked if anchored else Asked()
                with tempfile.TemporaryDirectory() as directory:
                    times = _recorded(
                        recipe, Path(directory), steps=steps, every=every, key=key, asked=chosen
                    )
                found[anchored].append(times)
                way = f"{times.slots} slots, {times.anchors} anchors" if anchored else "without"
                say(f"round {number + 1} of {rounds}, {way}: {times.wall:.1f} s, {times.cpu:.1f} s of CPU")
    if min(min(times.slots, times.anchors) for times in found[True]) < 2:
        raise RuntimeError("the training is too short for two slots and two anchors")
    return Measured(without=found[False], anchored=found[True], steps=steps, cadence_seconds=cadence_seconds)


def _recorded(recipe: Recipe, out: Path, *, steps: int, every: int, key: SigningKey, asked: Asked) -> Times:
    with initialise():
        model = recipe.build()
    optimizer = recipe.optimizer(model)
    with record(
        out,
        model,
        optimizer,
        loss=recipe.loss,
        data=recipe.data,
        batch_size=recipe.batch_size,
        steps=steps,
        every=every,
        key=key,
        schedule=recipe.schedule(optimizer, steps) if recipe.schedule else None,
        beacon=asked.beacon,
        witnesses=asked.witnesses,
        timestamps=asked.timestamps,
        progress=False,
    ) as run:
        wall, cpu, within = time.perf_counter(), time.process_time(), 0.0
        for number, batch in enumerate(run):
            if number == _WARM:
                wall, cpu, within = time.perf_counter(), time.process_time(), 0.0
            began = time.thread_time()
            run.step(batch)
            within += time.thread_time() - began
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    slots, anchors = _counts(out)
    return Times(wall=wall, cpu=cpu, besides=cpu - within, slots=slots, anchors=anchors)


def _counts(out: Path) -> tuple[int, int]:
    """How many slots and anchors a bundle has."""
    files = FsspecFiles(str(out))
    entries = open_bundle(files).all_entries()
    return len(read_log(Manifest.decode(entries[0]), entries).slots), len(read_index(files))


@contextmanager
def _services(directory: Path, owner: VerificationKey) -> Iterator[Path]:
    """The services in a process of their own, and the file of pins with their addresses."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.anchoring", f"--serve={directory}", f"--owner={owner}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        if process.stdout is None or not (pins := process.stdout.readline().strip()):
            raise RuntimeError("the services did not start; what they said is above")
        # They end with their standard input, which the end of this block closes.
        yield Path(pins)


def main() -> None:
    """Serves, until standard input ends."""
    parser = argparse.ArgumentParser(description="The services of this benchmark, in a process of their own.")
    parser.add_argument("--serve", type=Path, required=True, metavar="DIRECTORY")
    parser.add_argument("--owner", required=True, metavar="KEY")
    chosen = parser.parse_args()
    with Loopback(chosen.serve, VerificationKey.parse(chosen.owner)) as loopback:
        pins = chosen.serve / "trust.toml"
        write_trust(loopback.trust, pins)
        print(pins, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
