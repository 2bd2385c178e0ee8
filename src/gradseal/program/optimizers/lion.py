"""Lion, with the bits of `gradseal.Lion`.

Source: Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gradseal.program.optimizers.base import ByName, Group

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class LionGroup(Group):
    """Hyperparameters of Lion.

    Args:
        parameters: Names of parameters.
        lr: Learning rate, per step.
        beta1: Share of the mean of gradients in the direction of the step.
        beta2: Share of the mean of gradients that is kept.
        weight_decay: How strongly weights are drawn to zero, decoupled from the gradient.
    """

    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0

    SCHEDULABLE: ClassVar[tuple[str, ...]] = ("lr", "beta1", "beta2", "weight_decay")

    def keys(self) -> tuple[str, ...]:
        """The mean of gradients."""
        return ("exp_avg",)

    def move(
        self, weight: torch.Tensor, gradient: torch.Tensor, kept: Sequence[torch.Tensor], count: int
    ) -> None:
        """One parameter's update."""
        (mean,) = kept
        if self.weight_decay != 0:
            weight.mul_(1 - self.lr * self.weight_decay)
        direction = mean.mul(self.beta1).add_(gradient, alpha=1 - self.beta1).sign_()
        weight.add_(direction, alpha=-self.lr)
        mean.mul_(self.beta2).add_(gradient, alpha=1 - self.beta2)

    def move_exact(
        self, weight: torch.Tensor, gradient: torch.Tensor, kept: Sequence[torch.Tensor], count: int
    ) -> None:
        """One parameter's update in exact arithmetic."""
        from gradseal.program.exact import updates

        decay = updates.Decay(self.weight_decay, weight, lr=self.lr)
        share, rest = updates.number(self.beta1, weight), updates.number(1 - self.beta1, weight)
        kept_share, kept_rest = updates.number(self.beta2, weight), updates.number(1 - self.beta2, weight)
        minus_lr = updates.number(-self.lr, weight)
        for (w, m), g, (t, u) in updates.pieces((weight, *kept), gradient, spare=2):
            decay.apply(w, g, out=t)
            direction = updates.add_scaled_(updates.product(m, share, out=t), g, rest, out=u).sign_()
            updates.add_scaled_(w, direction, minus_lr, out=u)
            updates.add_scaled_(m.mul_(kept_share), g, kept_rest, out=u)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lion(ByName[LionGroup]):
    """Steps of equal size along the sign of the momentum."""

    name: ClassVar[str] = "lion"
    GROUP: ClassVar[type[Group]] = LionGroup
    COUNTS: ClassVar[bool] = False
