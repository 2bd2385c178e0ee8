"""Optimizers by name, as Gradseal's own code: how a state's parameters follow from gradients.

`SGD` gives, in native arithmetic, the bits of `torch.optim.SGD`: the same ATen calls in the same order, one
parameter at a time. `torch.optim` itself is never called by a replay. Its momentum starts from the first
gradient, not from zero, unless the plan says that the run began with momentum of its own.
Sources: Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning"; PyTorch's
documented update rule. Format: docs/spec/program.md, section 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradseal.errors import MalformedBundle
from gradseal.proof.canonical import Json, float_to_bits
from gradseal.proof.fields import Fields

if TYPE_CHECKING:
    import torch

MAX_GROUPS = 10_000
MAX_PARAMETERS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SGDGroup:
    """Parameters that share hyperparameters.

    Args:
        parameters: Names of parameters, without the `parameters/` of their state names.
        lr: Learning rate, per step.
        momentum: Share of the last update that is kept; 0 for none.
        dampening: Share of a gradient that momentum leaves out.
        weight_decay: L2 penalty added to the gradient.
        nesterov: Look ahead along the momentum.
    """

    parameters: tuple[str, ...]
    lr: float
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def to_json(self) -> dict[str, Json]:
        """Its JSON form, spec section 5."""
        return {
            "parameters": list(self.parameters),
            "lr": float_to_bits(self.lr),
            "momentum": float_to_bits(self.momentum),
            "dampening": float_to_bits(self.dampening),
            "weight_decay": float_to_bits(self.weight_decay),
            "nesterov": self.nesterov,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> SGDGroup:
        """Reads the JSON form strictly."""
        names = fields.array("parameters", MAX_PARAMETERS)
        if not all(isinstance(name, str) for name in names):
            raise MalformedBundle("is not a list of texts", where=fields.where("parameters"))
        group = cls(
            parameters=tuple(str(name) for name in names),
            lr=fields.float_("lr"),
            momentum=fields.float_("momentum"),
            dampening=fields.float_("dampening"),
            weight_decay=fields.float_("weight_decay"),
            nesterov=fields.boolean("nesterov"),
        )
        fields.end()
        return group


@dataclass(frozen=True, slots=True, kw_only=True)
class SGD:
    """Stochastic gradient descent with momentum, Nesterov's form and weight decay.

    Args:
        groups: The parameters that are trained; each in one group.
        warm: Whether state zero's momentum is in use from step 0 on, not replaced by the first gradient.
    """

    groups: tuple[SGDGroup, ...]
    warm: bool = False

    name = "sgd"

    def parameters(self) -> Iterator[str]:
        """The names of the parameters that are trained, in order."""
        for group in self.groups:
            yield from group.parameters

    def tensors(self) -> Iterator[tuple[str, str]]:
        """For each tensor it keeps, its state name and the name of the parameter that it is shaped as."""
        for group in self.groups:
            if group.momentum != 0:
                for parameter in group.parameters:
                    yield momentum_name(parameter), parameter

    def update(
        self, state: Mapping[str, torch.Tensor], gradients: Mapping[str, torch.Tensor], step: int
    ) -> None:
        """Changes `state` in place by one step; a parameter without gradient stays as it is.

        Args:
            state: Every tensor by state name.
            gradients: Gradients by parameter name, of the parameters' shapes; read only.
            step: The number of the step, from 0.
        """
        for group in self.groups:
            for parameter in group.parameters:
                if parameter in gradients:
                    self._update_one(group, state, parameter, gradients[parameter], step)

    def _update_one(
        self,
        group: SGDGroup,
        state: Mapping[str, torch.Tensor],
        parameter: str,
        gradient: torch.Tensor,
        step: int,
    ) -> None:
        weight = state[f"parameters/{parameter}"]
        # Vectorised kernels round by position in memory, and autograd hands an optimizer gradients laid out
        # as their parameters are.
        gradient = gradient.contiguous()
        if group.weight_decay != 0:
            gradient = gradient.add(weight, alpha=group.weight_decay)
        if group.momentum != 0:
            momentum = state[momentum_name(parameter)]
            if step == 0 and not self.warm:
                momentum.copy_(gradient)
            else:
                momentum.mul_(group.momentum).add_(gradient, alpha=1 - group.dampening)
            gradient = gradient.add(momentum, alpha=group.momentum) if group.nesterov else momentum
        weight.add_(gradient, alpha=-group.lr)

    def to_json(self) -> dict[str, Json]:
        """Its JSON form, spec section 5."""
        return {"name": self.name, "groups": [g.to_json() for g in self.groups], "warm": self.warm}


Optimizer = SGD
"""The optimizers that there are; a union once there is another."""


def momentum_name(parameter: str) -> str:
    """The state name of a parameter's momentum."""
    return f"optimizer/{parameter}/momentum_buffer"


def optimizer_from_fields(fields: Fields) -> Optimizer:
    """Reads an optimizer's JSON form strictly.

    Raises:
        MalformedBundle: A field is wrong, or a parameter stands in two places.
    """
    fields.choice("name", [SGD.name])
    groups = tuple(SGDGroup.from_fields(g) for g in fields.objects("groups", MAX_GROUPS))
    optimizer = SGD(groups=groups, warm=fields.boolean("warm"))
    fields.end()
    names = list(optimizer.parameters())
    if len(set(names)) != len(names):
        raise MalformedBundle("a parameter stands twice", where=fields.where("groups"))
    return optimizer
