"""From a `torch.optim` optimizer to an optimizer by name.

Only what is replayed to the bit is taken; an option that Gradseal's own code does not have is refused by
name.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from gradseal.errors import CaptureError
from gradseal.program.optimizers import SGD, SGDGroup

_REFUSED = {
    "maximize": "negate the loss instead",
    "differentiable": "leave it out",
    "fused": "build it with fused=False; fused kernels have other bits",
}


def capture_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> SGD:
    """The optimizer by name, with its parameter groups by the model's parameter names.

    Args:
        optimizer: A `torch.optim.SGD`, fresh or with momentum for every parameter.
        model: Whose parameters it trains.

    Raises:
        CaptureError: Another optimizer, an option without a replay, or a tensor that the model does not own.
    """
    if type(optimizer) is not torch.optim.SGD:
        raise CaptureError(
            f"the optimizer {type(optimizer).__name__} has no replay yet",
            where="optimizer",
            advice="use torch.optim.SGD",
        )
    _check_hooks(optimizer, model)
    names = {id(p): name for name, p in model.named_parameters()}
    groups = tuple(_group(i, g, names) for i, g in enumerate(optimizer.param_groups))
    if not any(group.parameters for group in groups):
        raise CaptureError("the optimizer trains no parameter", where="optimizer")
    return SGD(groups=groups, warm=_is_warm(optimizer, groups, dict(model.named_parameters())))


def momentum_of(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> torch.Tensor | None:
    """The momentum that an optimizer keeps for a parameter, if it has begun to."""
    return optimizer.state[parameter].get("momentum_buffer") if parameter in optimizer.state else None


def _check_hooks(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Refuses code that would run with each step in the user's loop, and not in a replay."""
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        raise CaptureError("has hooks on its step", where="optimizer", advice="remove them for recording")
    for name, parameter in model.named_parameters():
        if parameter._post_accumulate_grad_hooks:
            raise CaptureError(
                "has a hook on its accumulated gradient",
                where=f"model.{name}",
                advice="remove it for recording",
            )


def _group(index: int, group: dict[str, Any], names: dict[int, str]) -> SGDGroup:
    where = f"optimizer.param_groups[{index}]"
    for option, advice in _REFUSED.items():
        if group.get(option):
            raise CaptureError(f"the option {option} has no replay", where=where, advice=advice)
    for option in ("lr", "momentum", "dampening", "weight_decay"):
        if isinstance(group[option], torch.Tensor):
            raise CaptureError(f"{option} is a tensor", where=where, advice="give it as a number")
    for parameter in group["params"]:
        if id(parameter) not in names:
            raise CaptureError(
                f"trains a tensor of shape {tuple(parameter.shape)} that is no parameter of the model",
                where=where,
            )
    return SGDGroup(
        parameters=tuple(names[id(p)] for p in group["params"] if p.requires_grad),
        lr=float(group["lr"]),
        momentum=float(group["momentum"]),
        dampening=float(group["dampening"]),
        weight_decay=float(group["weight_decay"]),
        nesterov=bool(group["nesterov"]),
    )


def _is_warm(
    optimizer: torch.optim.Optimizer, groups: tuple[SGDGroup, ...], parameters: dict[str, nn.Parameter]
) -> bool:
    kept = [
        momentum_of(optimizer, parameters[name]) is not None
        for group in groups
        if group.momentum != 0
        for name in group.parameters
    ]
    if any(kept) and not all(kept):
        raise CaptureError(
            "has momentum for some parameters and not for others",
            where="optimizer",
            advice="start from a fresh optimizer, or one that has taken a step for every parameter",
        )
    return bool(kept) and all(kept)
