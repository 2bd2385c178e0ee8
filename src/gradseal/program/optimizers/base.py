"""What all optimizers by name share: groups of parameters, the tensors kept for each, and their JSON form.

A family says in its group class which hyperparameters and tensors it has and how one parameter moves; this
module goes through groups and parameters in order. What is read from a bundle is bounded here, and an update
that cannot be computed is a `ReplayError`. Knows torch by type only. Format: docs/spec/program.md, section 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from gradseal.errors import CaptureError, MalformedBundle, ReplayError
from gradseal.proof.canonical import Json, float_to_bits
from gradseal.proof.fields import Fields

if TYPE_CHECKING:
    import torch

MAX_GROUPS = 10_000
MAX_PARAMETERS = 100_000
MAX_STEPS_BEFORE = 1 << 40
MAX_COUNT = 1 << 24
"""Where torch's counter of updates, a float32, stops."""

_NOT_NEGATIVE = ("weight_decay", "eps", "momentum", "alpha", "lr_decay", "momentum_decay")
_BELOW_ONE = ("beta1", "beta2")
_EXACT_TYPE = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A tensor that an optimizer keeps for a parameter.

    Args:
        name: Its state name.
        parameter: The parameter's name, without `parameters/`.
        key: Its name for the optimizer, as in torch's state.
        shape_like_parameter: Whether it is shaped as the parameter; otherwise it has shape ().
        dtype: Its element type; None for the parameter's.
    """

    name: str
    parameter: str
    key: str
    shape_like_parameter: bool
    dtype: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Parameters that share hyperparameters.

    Args:
        parameters: Names of parameters, without the `parameters/` of their state names.
        lr: Learning rate, per step.
    """

    parameters: tuple[str, ...]
    lr: float

    SCHEDULABLE: ClassVar[tuple[str, ...]] = ("lr", "weight_decay")
    SCALARS: ClassVar[tuple[str, ...]] = ()
    """Keys of kept tensors that are float32 of shape ()."""

    def keys(self) -> tuple[str, ...]:
        """The keys of the tensors that are kept for each parameter, in the state's order."""
        raise NotImplementedError

    def move(
        self, weight: torch.Tensor, gradient: torch.Tensor, kept: Sequence[torch.Tensor], count: int
    ) -> None:
        """Changes a parameter and its kept tensors in place.

        Args:
            weight: The parameter.
            gradient: Of the same shape, contiguous; read only.
            kept: The tensors of `keys`, in that order.
            count: How many updates there will have been after this one; `MAX_COUNT` for all above.
        """
        raise NotImplementedError

    def move_exact(
        self, weight: torch.Tensor, gradient: torch.Tensor, kept: Sequence[torch.Tensor], count: int
    ) -> None:
        """As `move`, in exact arithmetic: all are float32 and contiguous, and `foreach` changes nothing."""
        raise NotImplementedError

    def wrong(self) -> str | None:
        """What is out of bounds, in words; None if nothing is."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type != "float":
                continue
            if not math.isfinite(value):
                return f"{field.name} is {value!r}, not finite"
            if field.name in _NOT_NEGATIVE and value < 0:
                return f"{field.name} is {value!r}, below 0"
            if field.name in _BELOW_ONE and not 0 <= value < 1:
                return f"{field.name} is {value!r}, not from 0 to below 1"
        return None

    def to_json(self) -> dict[str, Json]:
        """Its JSON form, spec section 5."""
        found: dict[str, Json] = {"parameters": list(self.parameters)}
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            found[field.name] = float_to_bits(value) if field.type == "float" else value
        return found

    @classmethod
    def from_fields(cls, own: Fields) -> Self:
        """Reads the JSON form strictly."""
        names = own.array("parameters", MAX_PARAMETERS)
        if not all(isinstance(name, str) for name in names):
            raise MalformedBundle("is not a list of texts", where=own.where("parameters"))
        options = {f.name: own.float_(f.name) for f in fields(cls)[1:] if f.type == "float"}
        flags = {f.name: own.boolean(f.name) for f in fields(cls)[1:] if f.type == "bool"}
        group = cls(parameters=tuple(str(name) for name in names), **options, **flags)
        if wrong := group.wrong():
            raise MalformedBundle(wrong, where=own.where(""))
        own.end()
        return group


G = TypeVar("G", bound=Group)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByName(Generic[G]):
    """An optimizer: what it trains, and how.

    Args:
        groups: The parameters that are trained; each in one group.
        steps_before: How many updates it had taken before step 0; for one that does not count them, 1 if
            state zero's kept tensors are in use, and 0 if not.
    """

    groups: tuple[G, ...]
    steps_before: int = 0

    name: ClassVar[str]
    GROUP: ClassVar[type[Group]]
    COUNTS: ClassVar[bool] = True
    """Whether torch keeps a counter of updates for each parameter."""

    def parameters(self) -> Iterator[str]:
        """The names of the parameters that are trained, in order."""
        for group in self.groups:
            yield from group.parameters

    def tensors(self) -> Iterator[Kept]:
        """The tensors that it keeps: group by group, parameter by parameter, key by key."""
        for group in self.groups:
            keys = group.keys()
            for parameter in group.parameters:
                for key in keys:
                    scalar = key in group.SCALARS
                    yield Kept(
                        name=kept_name(parameter, key),
                        parameter=parameter,
                        key=key,
                        shape_like_parameter=not scalar,
                        dtype="float32" if scalar else None,
                    )

    def update(
        self,
        state: Mapping[str, torch.Tensor],
        gradients: Mapping[str, torch.Tensor],
        step: int,
        *,
        exact: bool = False,
    ) -> None:
        """Changes `state` in place by one step; a parameter without gradient stays as it is.

        Args:
            state: Every tensor by state name.
            gradients: Gradients by parameter name, of the parameters' shapes; read only.
            step: The number of the step, from 0.
            exact: In exact arithmetic, else with torch's own operations.

        Raises:
            ReplayError: Numbers that torch cannot compute with, such as one too large for its element type;
                in exact arithmetic, tensors of another element type than float32.
        """
        count = min(self.steps_before + step + 1, MAX_COUNT)
        for group in self.groups:
            keys = group.keys()
            for parameter in group.parameters:
                gradient = gradients.get(parameter)
                if gradient is None:
                    continue
                weight = state[f"parameters/{parameter}"]
                kept = [state[kept_name(parameter, key)] for key in keys]
                if exact:
                    _check_float32(parameter, weight, gradient, *kept)
                move = _exactly(group) if exact else group.move
                try:
                    # Vectorised kernels round by position in memory, and autograd hands an optimizer
                    # gradients laid out as their parameters are.
                    move(weight, gradient.contiguous(), kept, count)
                except (ArithmeticError, RuntimeError) as e:
                    raise ReplayError(
                        f"the update cannot be computed: {e}", where=f"optimizer: {parameter}"
                    ) from e

    def at(self, values: Mapping[tuple[int, str], float]) -> Self:
        """A copy with other hyperparameters, as a schedule has them.

        Args:
            values: New values by the number of the group and the name of the field.

        Raises:
            ReplayError: A value that is out of bounds, or that makes the group keep other tensors.
        """
        changes: dict[int, dict[str, float]] = {}
        for (number, field), value in values.items():
            changes.setdefault(number, {})[field] = value
        groups = list(self.groups)
        for number, change in changes.items():
            old = groups[number]
            new = replace(old, **change)  # type: ignore[arg-type]
            wrong = new.wrong()
            if wrong is None and new.keys() != old.keys():
                wrong = "momentum may not come or go within a run"
            if wrong is not None:
                raise ReplayError(f"a schedule's value: {wrong}", where=f"optimizer: group {number}")
            groups[number] = new
        return replace(self, groups=tuple(groups))

    def to_json(self) -> dict[str, Json]:
        """Its JSON form, spec section 5."""
        return {
            "name": self.name,
            "groups": [group.to_json() for group in self.groups],
            "steps_before": self.steps_before,
        }


def check_exact(optimizer: ByName[Any], dtypes: Mapping[str, str]) -> None:
    """Refuses an optimizer that exact arithmetic does not define: one that trains other types than float32.

    Args:
        optimizer: Any of those by name; all their options have an exact form.
        dtypes: Element types by parameter name.

    Raises:
        CaptureError: It names the first such parameter.
    """
    for parameter in optimizer.parameters():
        if dtypes[parameter] != _EXACT_TYPE:
            raise CaptureError(
                f"exact arithmetic trains {_EXACT_TYPE}, not {dtypes[parameter]}",
                where=f"optimizer: {parameter}",
                advice=f"make it {_EXACT_TYPE}, or record in native arithmetic",
            )


def _check_float32(parameter: str, *tensors: torch.Tensor) -> None:
    for tensor in tensors:
        if (dtype := str(tensor.dtype).removeprefix("torch.")) != _EXACT_TYPE:
            raise ReplayError(
                f"exact arithmetic takes {_EXACT_TYPE}, not {dtype}", where=f"optimizer: {parameter}"
            )


def _exactly(group: Group) -> Callable[[torch.Tensor, torch.Tensor, Sequence[torch.Tensor], int], None]:
    """`move_exact` for tensors of any strides."""

    def move(weight: torch.Tensor, gradient: torch.Tensor, kept: Sequence[torch.Tensor], count: int) -> None:
        own = [tensor.contiguous() for tensor in (weight, *kept)]
        group.move_exact(own[0], gradient, own[1:], count)
        for tensor, moved in zip((weight, *kept), own, strict=True):
            if moved is not tensor:
                tensor.copy_(moved)

    return move


def scale(tensor: torch.Tensor, factor: float, foreach: bool) -> torch.Tensor:
    """Multiplies a tensor in place by a number, in the way of one of torch's two forms of an update.

    They differ for elements of 16 bits: the list form first rounds the number to the element type.
    """
    if not foreach:
        return tensor.mul_(factor)
    import torch

    scaled: torch.Tensor = torch.ops.aten.mul_.Scalar(tensor, factor)
    return scaled


def kept_name(parameter: str, key: str) -> str:
    """The state name of a tensor kept for a parameter."""
    return f"optimizer/{parameter}/{key}"
