"""Adagrad, with the bits of `torch.optim.Adagrad`, whose two forms differ.

The sum of squares starts from torch's `initial_accumulator_value`, which is in state zero. Sources: Duchi et
al. 2011, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization"; PyTorch's documented
update rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gradseal.program.optimizers.base import ByName, Group, scale

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class AdagradGroup(Group):
    """Hyperparameters of Adagrad.

    Args:
        parameters: Names of parameters.
        lr: Learning rate, per step.
        lr_decay: How fast the learning rate falls.
        eps: Added to the denominator.
        weight_decay: L2 penalty added to the gradient.
        foreach: Torch's list form, which scales the gradient before it is divided.
    """

    lr_decay: float = 0.0
    eps: float = 1e-10
    weight_decay: float = 0.0
    foreach: bool = False

    def keys(self) -> tuple[str, ...]:
        """The sum of squared gradients."""
        return ("sum",)

    def move(
        self, weight: torch.Tensor, gradient: torch.Tensor, kept: Sequence[torch.Tensor], count: int
    ) -> None:
        """One parameter's update."""
        (total,) = kept
        if self.weight_decay != 0:
            gradient = gradient.add(weight, alpha=self.weight_decay)
        minus_lr = -self.lr / (1 + (float(count) - 1) * self.lr_decay)
        root = total.addcmul_(gradient, gradient, value=1).sqrt().add_(self.eps)
        if self.foreach:
            # With weight decay torch has a gradient of its own to scale in place, which rounds otherwise.
            own = self.weight_decay != 0
            scaled = scale(gradient, minus_lr, foreach=True) if own else gradient.mul(minus_lr)
            weight.addcdiv_(scaled, root)
        else:
            weight.addcdiv_(gradient, root, value=minus_lr)

    def move_exact(
        self, weight: torch.Tensor, gradient: torch.Tensor, kept: Sequence[torch.Tensor], count: int
    ) -> None:
        """One parameter's update in exact arithmetic."""
        from gradseal.program.exact import updates

        decay = updates.Decay(self.weight_decay, weight)
        eps = updates.number(self.eps, weight)
        minus_lr = updates.number(-self.lr / (1 + (count - 1) * self.lr_decay), weight)
        for (w, v), read, (t, u) in updates.pieces((weight, *kept), gradient, spare=2):
            g = decay.apply(w, read, out=t)
            v.add_(updates.product(g, g, out=u))
            divisor = updates.sqrt(v, out=u).add_(eps)
            updates.add_quotient_(w, g, divisor, minus_lr, out=t)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adagrad(ByName[AdagradGroup]):
    """Gradients divided by the root of the sum of their squares."""

    name: ClassVar[str] = "adagrad"
    GROUP: ClassVar[type[Group]] = AdagradGroup
