"""Schedules, clipping and accumulation: recorded either way to the same log, and replayed bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from bundles import KEY, check, cross_entropy, digits
from gradseal.errors import CaptureError, RecordError
from gradseal.program.initialise import initialise
from gradseal.record.recorder import record
from gradseal.record.run import Run
from gradseal.verify.verdict import Check, ClaimName, Result, Status

STEPS = 6

Schedule = Callable[[torch.optim.Optimizer], LRScheduler]


def net() -> nn.Module:
    """Dropout and batch norm, so that randomness and buffers have a say; enough parameters for the caps."""
    with initialise():
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10)
        )


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() < 2]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=0.01
    )


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def begin(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule | None = None,
    **options: Any,
) -> Run:
    settings: dict[str, Any] = {"batch_size": 16, "steps": STEPS, "every": 4, "seed": 7, "progress": False}
    return record(
        path,
        model,
        optimizer,
        loss=cross_entropy,
        data=digits(),
        key=KEY,
        schedule=schedule(optimizer) if schedule else None,
        **{**settings, **options},
    )


def recorded_both_ways(
    tmp_path: Path,
    make: Callable[[nn.Module], torch.optim.Optimizer] = sgd,
    schedule: Schedule | None = None,
    *,
    clip: float | None = None,
    accumulate: int = 1,
    **options: Any,
) -> Path:
    """A bundle by `run.step`, once `run.wrap` with the user's own loop has given the same log."""
    roots = []
    for name in ("step", "wrap"):
        model = net()
        optimizer = make(model)
        run = begin(tmp_path / name, model, optimizer, schedule, clip=clip, accumulate=accumulate, **options)

        def own(
            given: Any, model: nn.Module = model, optimizer: torch.optim.Optimizer = optimizer
        ) -> torch.Tensor:
            optimizer.zero_grad()
            batches: Sequence[Any] = [given] if accumulate == 1 else given
            total = torch.zeros(())
            for batch in batches:
                loss = cross_entropy(model, batch)
                loss = loss / accumulate if accumulate > 1 else loss
                loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
                total = total + loss.detach()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            return total

        with run:
            step = run.step if name == "step" else run.wrap(own)
            for batch in run:
                step(batch)
        roots.append((tmp_path / name / "checkpoint").read_text().splitlines()[2])
    assert roots[0] == roots[1]
    return tmp_path / "step"


def assert_shown(bundle: Path) -> None:
    verdict = check(bundle)
    shown = {name for name, claim in verdict.claims.items() if claim.status is Status.SHOWN}
    assert shown == set(ClaimName) - {ClaimName.PRECEDENCE}, verdict.findings


SCHEDULES: dict[str, Schedule] = {
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS),
    "one cycle, which moves momentum too": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=STEPS),
    "a function": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "one after another": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=2), lr_scheduler.CosineAnnealingLR(o, 4)], [2]
    ),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_schedule(tmp_path: Path, schedule: Schedule) -> None:
    assert_shown(recorded_both_ways(tmp_path, schedule=schedule))


def test_a_schedule_of_adamw_with_two_groups_clipped_and_accumulated(tmp_path: Path) -> None:
    schedule = SCHEDULES["one cycle, which moves momentum too"]
    assert_shown(recorded_both_ways(tmp_path, adamw, schedule, clip=0.5, accumulate=2))


@pytest.mark.parametrize("make", [sgd, adamw])
def test_clipping(tmp_path: Path, make: Callable[[nn.Module], torch.optim.Optimizer]) -> None:
    assert_shown(recorded_both_ways(tmp_path, make, clip=0.1))


def test_accumulation_over_the_end_of_an_epoch(tmp_path: Path) -> None:
    # Batches of 16, 16 and 8 samples: the second step has one of 8 and one of 16.
    assert_shown(recorded_both_ways(tmp_path, accumulate=2))


def test_accumulating_is_what_torch_computes(tmp_path: Path) -> None:
    """One step of two batches by hand, from the same weights on the same samples."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with begin(tmp_path / "b", model, optimizer, batch_size=20, steps=1, accumulate=2, clip=0.2) as run:
        for step_batches in run:
            batches = [tuple(part.clone() for part in batch) for batch in step_batches]
            run.step(step_batches)
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    other.load_state_dict(start)
    for batch in batches:
        (cross_entropy(other, batch) / 2).backward()  # type: ignore[no-untyped-call]  # torch does not type it
    nn.utils.clip_grad_norm_(other.parameters(), 0.2)
    torch.optim.SGD(other.parameters(), lr=0.1).step()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


def test_a_schedule_by_epoch(tmp_path: Path) -> None:
    model = net()
    optimizer = sgd(model)
    rates = []
    with begin(
        tmp_path / "b", model, optimizer, lambda o: lr_scheduler.ExponentialLR(o, 0.5), schedule_per="epoch"
    ) as run:
        assert run.steps_per_epoch == 3
        for batch in run:
            run.step(batch)
            rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.05], rel=2e-6)
    assert_shown(tmp_path / "b")


def test_the_users_own_scheduler_may_be_stepped_too(tmp_path: Path) -> None:
    model = net()
    optimizer = sgd(model)
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    with begin(tmp_path / "b", model, optimizer, lambda _: scheduler) as run:
        for batch in run:
            run.step(batch)
            optimizer._opt_called = True  # type: ignore[attr-defined]  # what torch's own step would note
            scheduler.step()
    assert_shown(tmp_path / "b")


def test_another_schedule_than_the_sealed_one_stops_the_recording(tmp_path: Path) -> None:
    model = net()
    optimizer = sgd(model)
    run = begin(tmp_path / "b", model, optimizer, SCHEDULES["cosine"])
    with pytest.raises(RecordError, match=r"param_groups\[0\].lr changed"), run:
        for batch in run:
            run.step(batch)
            optimizer.param_groups[0]["lr"] = 0.2


def test_evaluating_a_schedule_in_advance_leaves_the_users_own_as_it_was(tmp_path: Path) -> None:
    model = net()
    optimizer = sgd(model)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=STEPS)
    before = (scheduler.last_epoch, optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"])
    begin(tmp_path / "b", model, optimizer, lambda _: scheduler)
    now = (scheduler.last_epoch, optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"])
    assert now == before


class Restless(LRScheduler):
    """Draws its rates by chance."""

    def get_lr(self) -> list[float | torch.Tensor]:
        return [float(torch.rand(())) for _ in self.base_lrs]


REFUSED: dict[str, tuple[Any, str, str]] = {
    "by a measured loss": (lr_scheduler.ReduceLROnPlateau, "follows a measured loss", "schedule"),
    "by chance": (Restless, "gives other values each time", "schedule"),
    "too short": (
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=3),
        "cannot be evaluated",
        "schedule",
    ),
    "not finite": (
        lambda o: lr_scheduler.LambdaLR(o, lambda s: float("nan") if s else 1.0),
        "finite",
        "schedule",
    ),
    "another optimizer's": (
        lambda o: lr_scheduler.ExponentialLR(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), 0.9),
        "another optimizer",
        "schedule",
    ),
    "no scheduler": (lambda o: 0.1, "is no scheduler", "schedule"),
}


@pytest.mark.parametrize(("schedule", "message", "where"), REFUSED.values(), ids=REFUSED)
def test_schedules_that_cannot_be_sealed(tmp_path: Path, schedule: Any, message: str, where: str) -> None:
    model = net()
    with pytest.raises(CaptureError, match=message) as caught:
        begin(tmp_path / "b", model, sgd(model), schedule)
    assert caught.value.where == where
    assert not any((tmp_path / "b").rglob("*.*"))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no norm": ({"clip": 0.0}, "clip"),
    "a norm that is none": ({"clip": float("nan")}, "clip"),
    "no batch in a step": ({"accumulate": 0}, "accumulate"),
    "too many batches": ({"accumulate": 1 << 17}, "accumulate"),
    "neither step nor epoch": ({"schedule_per": "week"}, "schedule_per"),
}


@pytest.mark.parametrize(("options", "where"), WRONG.values(), ids=WRONG)
def test_options_that_are_refused(tmp_path: Path, options: dict[str, Any], where: str) -> None:
    model = net()
    with pytest.raises(CaptureError) as caught:
        begin(tmp_path / "b", model, sgd(model), **options)
    assert caught.value.where == where


def test_an_epoch_that_ends_within_a_step_has_no_schedule_by_epoch(tmp_path: Path) -> None:
    model = net()
    with pytest.raises(CaptureError, match="does not end with a step"):
        begin(tmp_path / "b", model, sgd(model), SCHEDULES["cosine"], schedule_per="epoch", accumulate=2)


def test_a_wrapped_step_that_does_not_clip_is_found(tmp_path: Path) -> None:
    model = net()
    optimizer = sgd(model)

    def own(batch: Any) -> torch.Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
        optimizer.step()
        return loss

    run = begin(tmp_path / "b", model, optimizer, clip=0.01)
    with pytest.raises(RecordError, match="not the captured one"), run:
        step = run.wrap(own)
        for batch in run:
            step(batch)


def test_clipping_in_a_model_of_several_types_is_refused(tmp_path: Path) -> None:
    model = net()
    [*model.children()][-1].to(torch.bfloat16)
    with pytest.raises(CaptureError, match=r"several types: torch\.bfloat16, torch\.float32"):
        begin(tmp_path / "b", model, sgd(model), clip=1.0)


def test_arbitrary_rates_count_as_free_bytes(tmp_path: Path) -> None:
    rates = torch.rand(STEPS, generator=torch.Generator().manual_seed(1)).tolist()
    model = net()
    with begin(
        tmp_path / "b", model, sgd(model), lambda o: lr_scheduler.LambdaLR(o, lambda step: rates[step])
    ) as run:
        for batch in run:
            run.step(batch)
    verdict = check(tmp_path / "b")
    (finding,) = [f for f in verdict.findings if f.check is Check.FREE_BYTES and f.where == "schedule"]
    assert finding.measured is not None
    assert finding.measured >= 4 * STEPS
    assert finding.result is Result.NOTED


CHANGES: dict[str, tuple[str, Callable[[nn.Module, Any], object]]] = {
    "an option": ("weight_decay", lambda model, group: group.update(weight_decay=0.5)),
    "a flag": ("nesterov", lambda model, group: group.update(nesterov=True)),
    "a scheduled rate": ("lr", lambda model, group: group.update(lr=0.3)),
    "what is trained": ("requires_grad", lambda model, group: next(model.parameters()).requires_grad_(False)),
    "who is in a group": ("params", lambda model, group: group["params"].pop()),
}


@pytest.mark.parametrize(("name", "change"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("schedule", [None, SCHEDULES["cosine"]], ids=["constant", "scheduled"])
def test_whatever_else_changes_stops_the_recording(
    tmp_path: Path, schedule: Schedule | None, name: str, change: Callable[[nn.Module, Any], object]
) -> None:
    model = net()
    optimizer = sgd(model)
    run = begin(tmp_path / "b", model, optimizer, schedule)
    with pytest.raises(RecordError, match=name), run:
        for batch in run:
            run.step(batch)
            if run.steps_done == 2:
                change(model, optimizer.param_groups[0])


class OfOther(LRScheduler):
    """Moves what no replay follows."""

    def get_lr(self) -> list[float | torch.Tensor]:
        for group in self.optimizer.param_groups:
            group["eps"] = 1e-8 * (1 + self.last_epoch)
        return list(self.base_lrs)


def test_a_scheduler_of_what_no_replay_follows_is_refused(tmp_path: Path) -> None:
    model = net()
    with pytest.raises(CaptureError, match=r"sets optimizer\.param_groups\[0\]\.eps"):
        begin(tmp_path / "b", model, adamw(model), OfOther)
