"""Between an optimizer of torch and an optimizer by name.

Only what is replayed to the bit is taken; an optimizer or option that Gradseal's own code does not have is
refused by name. The way back puts a state and a count of updates into the user's optimizer, as if it had
taken them itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from gradseal.errors import CaptureError
from gradseal.program.lion import Lion as TorchLion
from gradseal.program.memory import dtype_name
from gradseal.program.optimizers import (
    MAX_COUNT,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Group,
    Kept,
    Lion,
    NAdam,
    Optimizer,
    RMSprop,
)

_KINDS: dict[type[torch.optim.Optimizer], type[Optimizer]] = {
    torch.optim.SGD: SGD,
    torch.optim.Adam: Adam,
    torch.optim.AdamW: AdamW,
    torch.optim.RMSprop: RMSprop,
    torch.optim.Adagrad: Adagrad,
    torch.optim.NAdam: NAdam,
    TorchLion: Lion,
}
_REFUSED = {
    "maximize": "negate the loss instead",
    "differentiable": "leave it out",
    "capturable": "leave it out; it computes with tensors what is recorded as numbers",
    "fused": "build it with fused=False; fused kernels have other bits",
}
_BETAS = {"beta1": 0, "beta2": 1}
_START_AFRESH = "start from a fresh optimizer, or one that has taken as many steps for every parameter"


def capture_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> Optimizer:
    """The optimizer by name, with its parameter groups by the model's parameter names.

    Args:
        optimizer: A `torch.optim.SGD`, `Adam`, `AdamW`, `RMSprop`, `Adagrad` or `NAdam`, or a
            `gradseal.Lion`; fresh, or with state of as many steps for every parameter.
        model: Whose parameters it trains.

    Raises:
        CaptureError: Another optimizer, an option without a replay, or a tensor that the model does not own.
    """
    kind = _KINDS.get(type(optimizer))
    if kind is None:
        raise CaptureError(
            f"the optimizer {type(optimizer).__name__} has no replay yet",
            where="optimizer",
            advice="use SGD, Adam, AdamW, RMSprop, Adagrad or NAdam of torch.optim, or gradseal.Lion",
        )
    _check_hooks(optimizer, model)
    _check_sparse(model)
    names = {id(p): name for name, p in model.named_parameters()}
    groups = tuple(_group(i, g, names, kind.GROUP) for i, g in enumerate(optimizer.param_groups))
    if not any(group.parameters for group in groups):
        raise CaptureError("the optimizer trains no parameter", where="optimizer")
    named = kind(groups=groups)  # type: ignore[arg-type]
    steps_before = _steps_before(optimizer, named, dict(model.named_parameters()))
    return kind(groups=groups, steps_before=steps_before)  # type: ignore[arg-type]


def kept_of(optimizer: torch.optim.Optimizer, parameter: torch.Tensor, key: str) -> torch.Tensor | None:
    """The tensor that an optimizer keeps for a parameter under a key, if it has begun to."""
    return optimizer.state[parameter].get(key) if parameter in optimizer.state else None


def install(
    optimizer: torch.optim.Optimizer,
    named: Optimizer,
    parameters: Mapping[str, nn.Parameter],
    tensors: Mapping[str, torch.Tensor],
    steps: int,
) -> None:
    """Makes a torch optimizer look as if it had taken `steps` updates in all, so that it can go on.

    Args:
        optimizer: The user's.
        named: The same by name.
        parameters: The parameters to do it for, by name.
        tensors: The tensors to keep, by state name; given to the optimizer as they are, not copied.
        steps: Updates in all, those before the run included.
    """
    for kept in named.tensors():
        if kept.parameter not in parameters:
            continue
        weight = parameters[kept.parameter]
        if steps == 0 and isinstance(named, SGD):
            # Having a momentum at all is what tells torch that it is not the first step.
            optimizer.state.pop(weight, None)
        elif kept.name in tensors:
            optimizer.state[weight][kept.key] = tensors[kept.name]
    set_steps(optimizer, named, parameters, steps)


def set_steps(
    optimizer: torch.optim.Optimizer, named: Optimizer, parameters: Mapping[str, nn.Parameter], steps: int
) -> None:
    """Sets the counters of `parameters` that have state; an optimizer that does not count stays as it is."""
    if not named.COUNTS:
        return
    count = float(min(steps, MAX_COUNT))
    for name in named.parameters():
        # Asking for a state that is not there would make an empty one.
        state = optimizer.state.get(parameters[name]) if name in parameters else None
        if state:
            counter = state.get("step")
            if isinstance(counter, torch.Tensor):
                counter.fill_(count)
            else:
                state["step"] = torch.tensor(count, dtype=torch.float32)


def settings_of(optimizer: torch.optim.Optimizer) -> dict[str, object]:
    """Every option of every group by a name for people, as values that later changes do not reach."""
    return {
        f"optimizer.param_groups[{number}].{option}": _frozen(value)
        for number, group in enumerate(optimizer.param_groups)
        for option, value in group.items()
        if option != "params"
    }


def fixed_options(optimizer: torch.optim.Optimizer) -> dict[str, object]:
    """The options that a schedule may not change and that an update depends on, by a name for people."""
    kind = _KINDS[type(optimizer)].GROUP
    fixed = {f.name for f in fields(kind)} - set(kind.SCHEDULABLE) - {"parameters"} | set(_REFUSED)
    found: dict[str, object] = {
        name: value for name, value in settings_of(optimizer).items() if name.rpartition(".")[2] in fixed
    }
    members = [[id(p) for p in group["params"]] for group in optimizer.param_groups]
    return found | {"optimizer.param_groups": str(members)}


def option_name(group_index: int, field: str) -> str:
    """The name in `settings_of` of the option that has a field of ours."""
    return f"optimizer.param_groups[{group_index}].{'betas' if field in _BETAS else field}"


def get_hyperparameter(optimizer: torch.optim.Optimizer, group_index: int, field: str) -> Any:
    """A group's hyperparameter by the name of our field."""
    return _option(optimizer.param_groups[group_index], field)


def set_hyperparameter(optimizer: torch.optim.Optimizer, group_index: int, field: str, value: float) -> None:
    """Sets a group's hyperparameter by the name of our field."""
    group = optimizer.param_groups[group_index]
    if field in _BETAS:
        betas = list(group["betas"])
        betas[_BETAS[field]] = value
        group["betas"] = tuple(betas)
    else:
        group[field] = value


def _option(group: Mapping[str, Any], field: str) -> Any:
    return group["betas"][_BETAS[field]] if field in _BETAS else group[field]


def _frozen(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return ("tensor", str(value.tolist()))
    return tuple(_frozen(part) for part in value) if isinstance(value, list | tuple) else value


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


def _check_sparse(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse:
            raise CaptureError(
                "has sparse gradients, which have no replay",
                where=f"model.{name}",
                advice="build it with sparse=False",
            )


def _group(index: int, group: dict[str, Any], names: Mapping[int, str], kind: type[Group]) -> Group:
    where = f"optimizer.param_groups[{index}]"
    for option, advice in _REFUSED.items():
        if group.get(option):
            raise CaptureError(f"the option {option} has no replay", where=where, advice=advice)
    for parameter in group["params"]:
        _check_parameter(parameter, names, where)
    values: dict[str, Any] = {}
    for field in fields(kind)[1:]:
        values[field.name] = _value(group, field.name, bool if field.type == "bool" else float, where)
    captured = kind(parameters=tuple(names[id(p)] for p in group["params"] if p.requires_grad), **values)
    if wrong := captured.wrong():
        raise CaptureError(wrong, where=where)
    return captured


def _check_parameter(parameter: torch.Tensor, names: Mapping[int, str], where: str) -> None:
    if id(parameter) not in names:
        raise CaptureError(
            f"trains a tensor of shape {tuple(parameter.shape)} that is no parameter of the model",
            where=where,
        )
    if parameter.is_complex() or parameter.layout is not torch.strided:
        raise CaptureError(
            "trains a parameter that is complex or sparse, which has no replay",
            where=f"model.{names[id(parameter)]}",
            advice="use a dense tensor of real numbers",
        )


def _value(group: Mapping[str, Any], field: str, convert: Callable[[Any], float], where: str) -> float:
    if field == "foreach" and group["foreach"] is None:
        # Torch's own choice where the user made none.
        return bool(group["params"]) and all(p.device.type == "cuda" for p in group["params"])
    value = _option(group, field)
    if isinstance(value, torch.Tensor):
        raise CaptureError(f"{field} is a tensor", where=where, advice="give it as a number")
    try:
        return convert(value)
    except (TypeError, ValueError, OverflowError) as e:
        raise CaptureError(f"{field} is {value!r}, not a number", where=where) from e


def _steps_before(
    optimizer: torch.optim.Optimizer, named: Optimizer, parameters: Mapping[str, nn.Parameter]
) -> int:
    """How many updates the optimizer has taken; its tensors are such that it can go on from them."""
    present: set[bool] = set()
    for kept in named.tensors():
        own = kept_of(optimizer, parameters[kept.parameter], kept.key)
        present.add(own is not None)
        if own is not None:
            _check_kept(own, kept, parameters[kept.parameter])
    if present == {True, False}:
        what = "momentum" if isinstance(named, SGD) else "state"
        raise CaptureError(
            f"has {what} for some parameters and not for others", where="optimizer", advice=_START_AFRESH
        )
    if not named.COUNTS:
        return int(True in present)
    counts = {name: _count(optimizer.state.get(parameters[name], {}), name) for name in named.parameters()}
    if len(set(counts.values())) > 1:
        least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        raise CaptureError(
            f"has taken {counts[least]} steps for {least} and {counts[most]} for {most}",
            where="optimizer",
            advice=_START_AFRESH,
        )
    steps = next(iter(counts.values()))
    if steps and present == {False}:
        raise CaptureError("counts steps, but has no state", where="optimizer", advice=_START_AFRESH)
    return steps


def _check_kept(own: object, kept: Kept, parameter: nn.Parameter) -> None:
    shape = parameter.shape if kept.shape_like_parameter else torch.Size(())
    dtype = kept.dtype or dtype_name(parameter.dtype)
    if (
        not isinstance(own, torch.Tensor)
        or (own.shape, dtype_name(own.dtype)) != (shape, dtype)
        or own.layout is not torch.strided
    ):
        raise CaptureError(f"is not {dtype} of shape {tuple(shape)}", where=kept.name)


def _count(state: Mapping[str, Any], name: str) -> int:
    if not state:
        return 0
    counter = state.get("step")
    if not isinstance(counter, torch.Tensor) or counter.dtype != torch.float32 or counter.numel() != 1:
        raise CaptureError(
            "its counter of steps is not a float32 number", where=f"optimizer: {name}", advice=_START_AFRESH
        )
    count = float(counter.item())
    if not math.isfinite(count) or count < 0 or count != int(count) or count > MAX_COUNT:
        raise CaptureError(f"has taken {count!r} steps", where=f"optimizer: {name}", advice=_START_AFRESH)
    return int(count)
