"""A worker's process: replays the segments it is asked for, and says how each went.

Started as `python -m gradseal.verify.worker`, for native arithmetic in the recorded environment, with a
request as one JSON object on standard input. For exact arithmetic it first proves that it can compute it.
Answers are JSON objects, one a line: its environment, a sign of life after each step, a result for each
segment, one for a probe, an error that ends it. It trusts nothing in the bundle: what it reads it hashes
again, and what it runs is the interpreter's closed list of operators.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from gradseal.errors import Error
from gradseal.verify.limits import limit_memory

if TYPE_CHECKING:
    import torch

    from gradseal.program.seeds import Seeds
    from gradseal.proof.files import Files
    from gradseal.proof.manifest import Manifest
    from gradseal.verify.contents import Contents
    from gradseal.verify.replay import Replayer, Transform
    from gradseal.verify.symmetry import Probed

Say = Callable[..., None]
"""Takes the kind of an answer, and what it says by name."""


def main() -> int:
    """Serves one request; 0 if every segment was replayed, whatever came of it."""
    return answer(_serve)


def answer(serve: Callable[[dict[str, Any], Say], None]) -> int:
    """Reads the request from standard input and has it served, within limits; 0 unless an error ended it."""
    request = json.loads(sys.stdin.readline())
    limit_memory(request["memory_bytes"])
    # What libraries print must not mix with the answers; those in C print to the descriptor itself.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdout = sys.stderr

    def say(kind: str, **content: Any) -> None:
        answers.write(json.dumps({"kind": kind, **content}) + "\n")
        answers.flush()

    try:
        serve(request, say)
    except Error as e:
        say("error", error=type(e).__name__, message=e.message, where=e.where)
        return 1
    except MemoryError:
        say("error", error="ReplayError", message="out of memory", where="worker")
        return 1
    return 0


def _serve(request: dict[str, Any], say: Say) -> None:
    from gradseal.verify.outcomes import Task

    prepared = prepare(request, say)
    replayer = prepared.replayer(say)
    for task in request["tasks"]:
        began = time.monotonic()
        result = replayer.replay(
            Task(
                segment=task["segment"],
                start=bytes.fromhex(task["start"]),
                end=bytes.fromhex(task["end"]),
                losses=bytes.fromhex(task["losses"]),
                other_seed=bytes.fromhex(task["other_seed"]),
                seed_floor=task["seed_floor"],
            )
        )
        say("segment", **asdict(replace(result, seconds=time.monotonic() - began)))
    if "probe" in request:
        say("probe", **asdict(_probe(request["probe"], prepared, say)))


def _probe(asked: dict[str, Any], prepared: Prepared, say: Say) -> Probed:
    from gradseal.verify.probing import probe_groups
    from gradseal.verify.symmetry import Probe, groups_from_json

    return probe_groups(
        prepared.files,
        prepared.manifest,
        prepared.contents,
        prepared.seeds,
        Probe(state=bytes.fromhex(asked["state"]), groups=tuple(groups_from_json(asked["groups"]))),
        device=prepared.device,
        alive=lambda: say("step"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a request names, read, and the device to compute on."""

    files: Files
    manifest: Manifest
    contents: Contents
    seeds: Seeds
    device: torch.device

    def replayer(self, say: Say, transform: Transform | None = None) -> Replayer:
        """What replays segments; it gives a sign of life after each step."""
        from gradseal.verify.replay import Replayer

        return Replayer(
            self.files,
            self.manifest,
            self.contents,
            self.seeds,
            device=self.device,
            alive=lambda: say("step"),
            transform=transform,
        )


def prepare(request: dict[str, Any], say: Say, wanted: dict[str, Any] | None = None) -> Prepared:
    """Reads what the request names, and says which environment this process has.

    Args:
        request: Names the bundle, its manifest, its programs and the run's seeds.
        say: Told the environment.
        wanted: The fields of the environment to enter for native arithmetic; by default the recorded ones.
    """
    import torch

    from gradseal.program.arithmetic import Exact
    from gradseal.program.exact.fitness import prove
    from gradseal.program.native import Environment, current_environment, enter_environment
    from gradseal.program.seeds import Seeds, Stretch
    from gradseal.proof.manifest import Manifest
    from gradseal.store.files import FsspecFiles
    from gradseal.verify.contents import read_contents

    files = FsspecFiles(request["url"])
    manifest = Manifest.decode(bytes.fromhex(request["manifest"]))
    programs = [(first, bytes.fromhex(digest)) for first, digest in request["programs"]]
    contents = read_contents(files, manifest, programs)
    seeds = Seeds(
        every=manifest.plan.every,
        accumulate=manifest.plan.accumulate,
        stretches=[Stretch(first_segment=first, seed=bytes.fromhex(s)) for first, s in request["seeds"]],
    )
    if isinstance(contents.arithmetic, Exact):
        device = torch.device("cpu")
        prove(device)
    else:
        entered = Environment(**wanted) if wanted else contents.arithmetic
        enter_environment(entered)
        device = torch.device(entered.device if torch.cuda.is_available() else "cpu")
    say("environment", environment=asdict(current_environment(device.type)))
    return Prepared(files=files, manifest=manifest, contents=contents, seeds=seeds, device=device)


if __name__ == "__main__":
    sys.exit(main())
