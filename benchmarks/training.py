"""Recording and verifying against the same training without Gradseal, in turn, in one process and one thread.

Each round trains plainly, records with `run.step` and with `run.wrap`, and verifies the first record in full.
Of each, the whole is timed, start-up, capture, commitment and the last write included, and the steps alone
once the first few are done. Rounds take turns so that a slow moment hits all alike; what is compared is the
median over the rounds of the ratio within a round.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.figure import Figure

from gradseal import SigningKey, initialise, record, verify
from gradseal.recipes.recipe import Recipe
from gradseal.verify.executors import LocalProcess, Ready, Request
from gradseal.verify.outcomes import SegmentResult
from gradseal.verify.verdict import Outcome

_WARM = 5
_RECORDED = {"step": "recording with run.step", "wrap": "recording with run.wrap"}
_NAMES = {**_RECORDED, "verify": "full verification"}
_AT_MOST = {"step": 1.05, "wrap": 1.05, "verify": 1.15}


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long one way took, in seconds.

    Args:
        whole: From before the model is built, or the bundle opened, until all is done.
        before: What of it came before the first step.
        per_step: The mean over the steps after the first few, writing of states included.
    """

    whole: float
    before: float
    per_step: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All times, a list for each way with one for each round, and where the last record is."""

    times: dict[str, list[Times]]
    steps: int
    steps_per_epoch: int

    def figures(self) -> list[Figure]:
        """The ratios, and what they come from."""
        return [
            Figure(name="plain training, a step", value=1000 * self._median("plain", "per_step"), unit="ms"),
            *(self._ratio(way, "per_step", f"{name}, a step") for way, name in _NAMES.items()),
            *(
                self._ratio(way, "whole", f"{name}, all of {self.steps} steps")
                for way, name in _NAMES.items()
            ),
            *map(self._epoch, _NAMES),
            *(
                Figure(name=f"{name}, before its first step", value=self._median(way, "before"), unit="s")
                for way, name in _NAMES.items()
            ),
        ]

    def to_json(self) -> dict[str, Any]:
        """Every single time."""
        return {way: [asdict(times) for times in rounds] for way, rounds in self.times.items()}

    def _median(self, way: str, part: str) -> float:
        return statistics.median(getattr(times, part) for times in self.times[way])

    def _ratio(self, way: str, part: str, name: str) -> Figure:
        pairs = zip(self.times[way], self.times["plain"], strict=True)
        ratios = [getattr(own, part) / getattr(plain, part) for own, plain in pairs]
        return Figure(name=name, value=statistics.median(ratios), unit="×", at_most=_AT_MOST[way])

    def _epoch(self, way: str) -> Figure:
        """The ratio for an epoch: what does not depend on the steps stays, the steps are more or fewer."""
        more = self.steps_per_epoch - self.steps
        own, plain = (
            statistics.median(t.whole + more * t.per_step for t in self.times[w]) for w in (way, "plain")
        )
        return Figure(
            name=f"{_NAMES[way]}, an epoch of {self.steps_per_epoch} steps",
            value=own / plain,
            unit="×",
            at_most=_AT_MOST[way],
            computed=True,
        )


def measure(
    recipe: Recipe, *, steps: int, every: int, rounds: int, keep: Path, say: Callable[[str], None]
) -> Measured:
    """Measures all ways in turn; the last round's record stays in the directory `keep`."""
    key = SigningKey.generate("bench.example")
    times: dict[str, list[Times]] = {way: [] for way in ("plain", *_NAMES)}
    plain(recipe, _WARM)  # the first steps of a process also load and choose kernels
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as directory:
            wrapped = Path(directory) / "wrapped"
            stepped = keep if number == rounds - 1 else Path(directory) / "stepped"
            ways: dict[str, Callable[[], Times]] = {
                "plain": partial(plain, recipe, steps),
                "step": partial(recorded, recipe, stepped, steps, every, key, wraps=False),
                "wrap": partial(recorded, recipe, wrapped, steps, every, key, wraps=True),
                "verify": partial(verified, stepped, steps, key),
            }
            for way, work in ways.items():
                gc.collect()
                times[way].append(work())
                say(f"round {number + 1} of {rounds}: {way} took {times[way][-1].whole:.1f} s")
    per_epoch = -(-len(recipe.data) // recipe.batch_size)
    return Measured(times=times, steps=steps, steps_per_epoch=per_epoch)


def plain(recipe: Recipe, steps: int) -> Times:
    """The recipe's training as anyone would write it."""
    began = time.perf_counter()
    torch.manual_seed(0)
    model = recipe.build()
    optimizer = recipe.optimizer(model)
    scheduler = recipe.schedule(optimizer, steps) if recipe.schedule else None
    loader = torch.utils.data.DataLoader(recipe.data, batch_size=recipe.batch_size, shuffle=True)
    moments = [time.perf_counter()]
    for batch in _forever(loader, steps):
        optimizer.zero_grad()
        loss = recipe.loss(model, batch)
        loss.backward()
        optimizer.step()
        if scheduler:
            scheduler.step()
        # A loss is looked at in any training; recording reads each too.
        loss.item()
        moments.append(time.perf_counter())
    return _times(began, moments)


def _forever(loader: Any, steps: int) -> Iterator[Any]:
    done = 0
    while done < steps:
        for batch in loader:
            yield batch
            done += 1
            if done == steps:
                return


def recorded(recipe: Recipe, out: Path, steps: int, every: int, key: SigningKey, *, wraps: bool) -> Times:
    """The same under record."""
    began = time.perf_counter()
    with initialise():
        model = recipe.build()
    optimizer = recipe.optimizer(model)
    scheduler = recipe.schedule(optimizer, steps) if recipe.schedule else None

    def own(batch: Any) -> torch.Tensor:
        optimizer.zero_grad()
        loss = recipe.loss(model, batch)
        loss.backward()
        optimizer.step()
        return loss

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
        schedule=scheduler,
        progress=False,
    ) as run:
        step = run.wrap(own) if wraps else run.step
        moments = [time.perf_counter()]
        for batch in run:
            step(batch)
            moments.append(time.perf_counter())
    return _times(began, moments)


class _Timed:
    """The usual executor, with the time of each segment taken."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def run(self, request: Request) -> Iterator[Ready | SegmentResult]:
        """See `gradseal.verify.executors.Executor`; the first moment is that of the worker being ready."""
        for answer in LocalProcess().run(request):
            self.moments.append(time.perf_counter())
            yield answer


def verified(bundle: Path, steps: int, key: SigningKey) -> Times:
    """Full verification of a record; its start is not taken for a step, since segments are timed whole."""
    began = time.perf_counter()
    timed = _Timed()
    verdict = verify(bundle, keys=[key.verification_key], executor=timed)
    ended = time.perf_counter()
    if verdict.outcome is not Outcome.ACCEPTED or verdict.cost.steps_replayed != steps:
        raise RuntimeError(f"the record was not accepted: {verdict}")
    first, last = timed.moments[0], timed.moments[-1]
    return Times(whole=ended - began, before=first - began, per_step=(last - first) / steps)


def _times(began: float, moments: Sequence[float]) -> Times:
    ended = time.perf_counter()
    warm = min(_WARM, len(moments) - 2)
    per_step = (moments[-1] - moments[warm]) / (len(moments) - 1 - warm)
    return Times(whole=ended - began, before=moments[0] - began, per_step=per_step)
