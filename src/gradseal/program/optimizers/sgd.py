"""Stochastic gradient descent, with the bits of `torch.optim.SGD`.

Its momentum starts from the first gradient, not from zero. Sources: Sutskever et al. 2013, "On the importance
of initialization and momentum in deep learning"; PyTorch's documented update rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gradseal.program.optimizers.base import ByName, Group, scale

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class SGDGroup(Group):
    """Hyperparameters of SGD.

    Args:
        parameters: Names of parameters.
        lr: Learning rate, per step.
        momentum: Share of the last update that is kept; 0 for none.
        dampening: Share of a gradient that momentum leaves out.
        weight_decay: L2 penalty added to the gradient.
        nesterov: Look ahead along the momentum.
        foreach: Torch's list form (`scale`).
    """

    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    foreach: bool = False

    SCHEDULABLE: ClassVar[tuple[str, ...]] = ("lr", "momentum", "weight_decay")

    def keys(self) -> tuple[str, ...]:
        """Momentum, if there is any."""
        return ("momentum_buffer",) if self.momentum != 0 else ()

    def move(
        self, weight: torch.Tensor, gradient: torch.Tensor, kept: Sequence[torch.Tensor], count: int
    ) -> None:
        """One parameter's update."""
        if self.weight_decay != 0:
            gradient = gradient.add(weight, alpha=self.weight_decay)
        if self.momentum != 0:
            (momentum,) = kept
            if count == 1:
                momentum.copy_(gradient)
            else:
                scale(momentum, self.momentum, self.foreach).add_(gradient, alpha=1 - self.dampening)
            gradient = gradient.add(momentum, alpha=self.momentum) if self.nesterov else momentum
        weight.add_(gradient, alpha=-self.lr)

    def move_exact(
        self, weight: torch.Tensor, gradient: torch.Tensor, kept: Sequence[torch.Tensor], count: int
    ) -> None:
        """One parameter's update in exact arithmetic."""
        from gradseal.program.exact import updates

        decay = updates.Decay(self.weight_decay, weight)
        share, rest = updates.number(self.momentum, weight), updates.number(1 - self.dampening, weight)
        minus_lr = updates.number(-self.lr, weight)
        for (w, *own), read, (t, u) in updates.pieces((weight, *kept), gradient, spare=2):
            step = g = decay.apply(w, read, out=t)
            if self.momentum != 0:
                (m,) = own
                if count == 1:
                    m.copy_(g)
                else:
                    updates.add_scaled_(m.mul_(share), g, rest, out=u)
                step = updates.plus_scaled(g, m, share, out=u) if self.nesterov else m
            updates.add_scaled_(w, step, minus_lr, out=t)


@dataclass(frozen=True, slots=True, kw_only=True)
class SGD(ByName[SGDGroup]):
    """Stochastic gradient descent with momentum, Nesterov's form and weight decay."""

    name: ClassVar[str] = "sgd"
    GROUP: ClassVar[type[Group]] = SGDGroup
    COUNTS: ClassVar[bool] = False
