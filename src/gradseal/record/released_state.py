"""From a released proof's checkpoint to a program's tensors and an optimizer's options.

Names, shapes and element types must be exactly those of the model and of its optimizer; whether the numbers
are finite or true is the verifier's to see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from gradseal.errors import MalformedBundle
from gradseal.program.memory import same_bits
from gradseal.program.optimizers import Kept, Optimizer
from gradseal.record.released import Checkpoint

SLACK_BYTES = 1 << 20
LARGEST_SHARE = 4
"""A checkpoint holds the model and at most three tensors of the optimizer's for each parameter."""

_PARALLEL = "module."
_ADDED_LATER = frozenset(
    {"maximize", "foreach", "differentiable", "capturable", "fused", "decoupled_weight_decay", "initial_lr"}
)
"""Options that a checkpoint may lack, as older releases of torch do not write them."""


class Matching:
    """What a model and its optimizer have, for checkpoints to be held against.

    Args:
        model: In which every tensor of a checkpoint's `net` must be, and no other.
        optimizer: Over its parameters, in the order in which the proof's optimizer has them.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        behind = {id(p): f"parameters/{n}" for n, p in model.named_parameters()}
        behind |= {id(b): f"buffers/{n}" for n, b in model.named_buffers()}
        self._net: dict[str, tuple[str, torch.Tensor]] = {
            name: (behind[id(tensor)], tensor.detach())
            for name, tensor in model.state_dict(keep_vars=True).items()
        }
        names = {id(p): name for name, p in model.named_parameters()}
        self._optimizer = optimizer
        self._groups = optimizer.state_dict()["param_groups"]
        self._order = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]

    @property
    def limit_bytes(self) -> int:
        """How large a checkpoint of this model may be."""
        return LARGEST_SHARE * sum(tensor.nbytes for _, tensor in self._net.values()) + SLACK_BYTES

    def net(self, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
        """Parameters and buffers by state name, in memory of their own.

        Raises:
            MalformedBundle: A tensor is missing, too many, or of another shape or type; names it.
        """
        where = f"{checkpoint.path}: net"
        held = checkpoint.net
        if all(isinstance(name, str) and name.startswith(_PARALLEL) for name in held) and held:
            held = {name.removeprefix(_PARALLEL): tensor for name, tensor in held.items()}
        advice = "name the recipe whose model the proof was made of"
        if missing := [name for name in self._net if name not in held]:
            raise MalformedBundle(f"has no {missing[0]!r}, which the model has", where=where, advice=advice)
        if extra := [name for name in held if name not in self._net]:
            raise MalformedBundle(
                f"has {str(extra[0])[:100]!r}, which the model has not", where=where, advice=advice
            )
        state: dict[str, torch.Tensor] = {}
        for name, (behind, own) in self._net.items():
            tensor = _checked(held[name], own.shape, own.dtype, f"{where}[{name}]")
            if behind in state and not same_bits(state[behind], tensor):
                raise MalformedBundle("differs from the tensor that it is tied to", where=f"{where}[{name}]")
            state[behind] = tensor
        return state

    def settings(self, checkpoint: Checkpoint) -> list[dict[str, Any]] | None:
        """The options of every parameter group; None if the checkpoint has no optimizer.

        Raises:
            MalformedBundle: There are other groups, parameters or options than the optimizer has.
        """
        if checkpoint.optimizer is None:
            return None
        where = f"{checkpoint.path}: optimizer"
        groups = checkpoint.optimizer.get("param_groups")
        if set(checkpoint.optimizer) != {"state", "param_groups"} or not isinstance(groups, list):
            raise MalformedBundle("is no optimizer's state dict: state and param_groups", where=where)
        if len(groups) != len(self._groups):
            raise MalformedBundle(
                f"has {len(groups)} parameter groups, not {len(self._groups)}", where=f"{where}: param_groups"
            )
        pairs = enumerate(zip(groups, self._groups, strict=True))
        return [_options(held, own, f"{where}: param_groups[{i}]") for i, (held, own) in pairs]

    def apply(self, settings: Sequence[Mapping[str, Any]]) -> None:
        """Gives the optimizer these options."""
        for group, options in zip(self._optimizer.param_groups, settings, strict=True):
            group.update(options)

    def kept(self, checkpoint: Checkpoint, named: Optimizer) -> dict[str, torch.Tensor]:
        """The optimizer's tensors by state name; those that it has not made are left out.

        Raises:
            MalformedBundle: One is of another shape or type, is unknown, or the count of updates is not the
                checkpoint's; names the field.
        """
        if checkpoint.optimizer is None:
            return {}
        where = f"{checkpoint.path}: optimizer: state"
        states = self._states(checkpoint.optimizer.get("state"), where)
        kept: dict[str, list[Kept]] = {name: [] for name in named.parameters()}
        for one in named.tensors():
            kept[one.parameter].append(one)
        found: dict[str, torch.Tensor] = {}
        parameters = {name: tensor for name, tensor in self._net.values()}
        for parameter, state in states.items():
            place = f"{where}[{self._order.index(parameter)}]"
            own = kept.get(parameter, [])
            known = {one.key for one in own} | ({"step"} if named.COUNTS else set())
            if unknown := [key for key, value in state.items() if key not in known and value is not None]:
                raise MalformedBundle(
                    f"keeps {str(unknown[0])[:100]!r}, which an optimizer of these settings does not",
                    where=place,
                )
            like = parameters[f"parameters/{parameter}"]
            for one in own:
                if (tensor := state.get(one.key)) is not None:
                    shape = like.shape if one.shape_like_parameter else torch.Size(())
                    dtype = getattr(torch, one.dtype) if one.dtype else like.dtype
                    found[one.name] = _checked(tensor, shape, dtype, f"{place}[{one.key}]")
        return found

    def counts(self, checkpoint: Checkpoint) -> set[float]:
        """How many updates the optimizer says to have taken, for the parameters that it counts for.

        Raises:
            MalformedBundle: A count is no number.
        """
        where = f"{checkpoint.path}: optimizer: state"
        states = self._states((checkpoint.optimizer or {}).get("state", {}), where)
        found = set()
        for parameter, state in states.items():
            if (count := state.get("step")) is None:
                continue
            place = f"{where}[{self._order.index(parameter)}][step]"
            if isinstance(count, torch.Tensor):
                count = float(_checked(count, torch.Size(()), torch.float32, place))
            found.add(number(count, place))
        return found

    def _states(self, state: object, where: str) -> dict[str, Mapping[Any, Any]]:
        """What the optimizer keeps, by parameter."""
        if not isinstance(state, dict):
            raise MalformedBundle("is not a table of parameters", where=where)
        found: dict[str, Mapping[Any, Any]] = {}
        for index, held in state.items():
            if type(index) is not int or not 0 <= index < len(self._order) or not isinstance(held, dict):
                raise MalformedBundle(f"{str(index)[:100]!r} is no parameter's state", where=where)
            found[self._order[index]] = held
        return found


def _checked(tensor: object, shape: torch.Size, dtype: torch.dtype, where: str) -> torch.Tensor:
    """A copy of a tensor, if it is a plain one of this shape and type."""
    if not isinstance(tensor, torch.Tensor) or type(tensor) not in (torch.Tensor, nn.Parameter):
        raise MalformedBundle("is no tensor", where=where)
    if tensor.device.type != "cpu" or tensor.layout is not torch.strided or tensor.is_quantized:
        raise MalformedBundle("is no plain tensor", where=where)
    if (tensor.shape, tensor.dtype) != (shape, dtype):
        raise MalformedBundle(
            f"is {tensor.dtype} of shape {tuple(tensor.shape)}, not {dtype} of shape {tuple(shape)}",
            where=where,
            advice="name the recipe whose model and optimizer the proof was made with",
        )
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _options(held: object, own: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A group's options, of the kinds that the optimizer's own have."""
    if not isinstance(held, dict):
        raise MalformedBundle("is no parameter group", where=where)
    advice = "name the recipe whose optimizer the proof was made with"
    if unknown := [key for key in held if key not in own and key != "initial_lr"]:
        raise MalformedBundle(
            f"has the option {str(unknown[0])[:100]!r}, which the optimizer has not",
            where=where,
            advice=advice,
        )
    if missing := [key for key in own if key not in held and key not in _ADDED_LATER]:
        raise MalformedBundle(f"lacks the option {missing[0]!r}", where=where, advice=advice)
    members = held["params"]
    if not isinstance(members, list) or any(type(i) is not int for i in members) or members != own["params"]:
        raise MalformedBundle(
            "has other parameters than the optimizer", where=f"{where}: params", advice=advice
        )
    known = {key: held[key] for key in own if key in held and key not in ("params", "initial_lr")}
    return {key: _option(value, own[key], f"{where}: {key}") for key, value in known.items()}


def _option(value: object, own: object, where: str) -> Any:
    if own is None or isinstance(own, bool):
        if value is None or isinstance(value, bool):
            return value
        raise MalformedBundle("is neither true nor false", where=where)
    if isinstance(own, tuple):
        if isinstance(value, tuple | list) and len(value) == len(own):
            return tuple(number(part, where) for part in value)
        raise MalformedBundle(f"is not {len(own)} numbers", where=where)
    return number(value, where)


def number(value: object, where: str) -> float:
    """A number as a float; it need not be finite."""
    if type(value) not in (int, float):
        raise MalformedBundle("is no number", where=where)
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError as e:
        raise MalformedBundle("is too large", where=where) from e
