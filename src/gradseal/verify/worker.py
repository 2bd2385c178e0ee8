"""A worker's process: replays the segments it is asked for, and says how each went.

Started as `python -m gradseal.verify.worker`, for native arithmetic in the recorded environment, with a
request as one JSON object on standard input. For exact arithmetic it first proves that it can compute it.
Answers are JSON objects, one a line: its environment, a sign of life after each step, a result for each
segment, an error that ends it. It trusts nothing in the bundle: what it reads it hashes again, and what it
runs is the interpreter's closed list of operators.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, replace
from typing import Any

from gradseal.errors import Error
from gradseal.verify.limits import limit_memory


def main() -> int:
    """Serves one request; 0 if every segment was replayed, whatever came of it."""
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
        _serve(request, say)
    except Error as e:
        say("error", error=type(e).__name__, message=e.message, where=e.where)
        return 1
    except MemoryError:
        say("error", error="ReplayError", message="out of memory", where="worker")
        return 1
    return 0


def _serve(request: dict[str, Any], say: Any) -> None:
    import torch

    from gradseal.program.arithmetic import Exact
    from gradseal.program.exact.fitness import prove
    from gradseal.program.native import current_environment, enter_environment
    from gradseal.program.seeds import Seeds, Stretch
    from gradseal.proof.manifest import Manifest
    from gradseal.store.files import FsspecFiles
    from gradseal.verify.contents import read_contents
    from gradseal.verify.outcomes import Task
    from gradseal.verify.replay import Replayer

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
        enter_environment(contents.arithmetic)
        device = torch.device(contents.arithmetic.device if torch.cuda.is_available() else "cpu")
    say("environment", environment=asdict(current_environment(device.type)))
    replayer = Replayer(files, manifest, contents, seeds, device=device, alive=lambda: say("step"))
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


if __name__ == "__main__":
    sys.exit(main())
