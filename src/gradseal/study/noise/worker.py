"""A worker's process: replays segments under one variant of numerics, and measures how far a base is.

Started as `python -m gradseal.study.noise.worker` with a request as one JSON object on standard input, in
an environment whose variables the variant has decided. Replays begin at sealed states, whose tensors are
hashed again, as a verifier's are, and go on through the segments that follow, as far as they are asked. The
base writes its parameters at every mark to files of a scratch directory, and where a segment ends the rest of
its state behind them; the others read them there. Nothing of a bundle is trusted more than a verifier trusts
it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradseal.errors import StoreError
from gradseal.verify.worker import Say, answer, prepare

if TYPE_CHECKING:
    from gradseal.verify.outcomes import Task
    from gradseal.verify.replay import Replayer, State


def main() -> int:
    """Serves one request; 0 if all was measured, whatever came of it."""
    return answer(_serve)


def _serve(request: dict[str, Any], say: Say) -> None:
    from gradseal.study.noise.numerics import Products, reordered
    from gradseal.verify.outcomes import Task

    variant, scratch = request["variant"], Path(request["scratch"])
    prepared = prepare(request, say, request["wanted"])
    transform = reordered if variant["reorder"] else None
    replayer = prepared.replayer(say, transform)
    products = Products(variant["operators"]) if variant["operators"] else nullcontext()
    for asked in request["tasks"]:
        task = Task(
            segment=asked["segment"],
            start=bytes.fromhex(asked["start"]),
            end=bytes.fromhex(asked["end"]),
            losses=bytes.fromhex(asked["losses"]),
        )
        compare = _base(replayer, scratch) if request["base"] else _other(replayer, scratch)
        with products:
            _measure(replayer, task, asked["marks"], compare, say, check=request["base"])


Compare = Callable[[int, int, "State", "State"], dict[str, Any]]
"""From segment, mark, the state there and the one at the start to what is said of them."""


def _measure(
    replayer: Replayer, task: Task, marks: list[int], compare: Compare, say: Say, *, check: bool
) -> None:
    before = replayer.read_state(task.start)
    state = {name: tensor.clone() for name, tensor in before.items()}
    losses: list[float] = []
    for segment, loss, last in _steps(replayer, task.segment, state):
        losses.append(loss)
        if len(losses) == 1:
            say("loss", segment=task.segment, loss=loss if math.isfinite(loss) else None)
        if len(losses) in marks:
            said = compare(task.segment, len(losses), state, before)
            say("mark", segment=task.segment, step=len(losses), **said)
        if check and last and segment == task.segment:
            say("sealed", segment=segment, equal=not replayer.differing(task, state, losses))
            check = False
        if len(losses) >= max(marks) and not check:
            break


def _steps(replayer: Replayer, segment: int, state: State) -> Iterator[tuple[int, float, bool]]:
    """The steps of a segment and of those that follow: its number, its loss, whether it ends the segment."""
    while segment < replayer.segments:
        steps = replayer.steps(segment)
        for number, loss in enumerate(replayer.advance(segment, state), start=1):
            yield segment, loss, number == steps
        segment += 1


def _base(replayer: Replayer, scratch: Path) -> Compare:
    from gradseal.program.memory import view_of
    from gradseal.verify.replay import distances

    def compare(segment: int, step: int, state: State, before: State) -> dict[str, Any]:
        try:
            with open(scratch / _name(segment, step), "wb") as file:
                for name in _kept(replayer, segment, step):
                    file.write(view_of(state[name]))
        except OSError as e:
            raise StoreError(f"cannot be written: {e.strerror}", where=str(scratch)) from e
        same = distances(state, state, replayer.parameters)
        return {"error": asdict(same), "update": asdict(distances(before, state, replayer.parameters))}

    return compare


def _other(replayer: Replayer, scratch: Path) -> Compare:
    from gradseal.program.memory import dtype_name, from_bytes
    from gradseal.verify.replay import distances
    from gradseal.verify.state_error import state_error

    def compare(segment: int, step: int, state: State, before: State) -> dict[str, Any]:
        base = {}
        try:
            with open(scratch / _name(segment, step), "rb") as file:
                for name in _kept(replayer, segment, step):
                    own = state[name]
                    data = file.read(own.numel() * own.element_size())
                    kind = dtype_name(own.dtype)
                    base[name] = from_bytes(data, kind, own.shape, own.device, where=file.name)
        except OSError as e:
            raise StoreError(f"cannot be read: {e.strerror}", where=str(scratch)) from e
        said: dict[str, Any] = {"error": asdict(distances(state, base, replayer.parameters))}
        if step == replayer.steps(segment):
            rest = state_error(state, base, before)
            said |= {"state": rest.ratio, "state_group": rest.group}
        return said

    return compare


def _kept(replayer: Replayer, segment: int, step: int) -> list[str]:
    """What the base keeps at a mark: parameters, and at the segment's end all of the state."""
    return replayer.names if step == replayer.steps(segment) else replayer.parameters


def _name(segment: int, step: int) -> str:
    return f"{segment}-{step}.raw"


if __name__ == "__main__":
    sys.exit(main())
