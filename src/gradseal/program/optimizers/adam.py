"""Adam and AdamW, with the bits of `torch.optim.Adam` and `torch.optim.AdamW`.

Both are one rule and differ in their defaults. Sources: Kingma and Ba 2015, "Adam: A Method for Stochastic
Optimization"; Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization"; Reddi et al. 2018, "On the
Convergence of Adam and Beyond"; PyTorch's documented update rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gradseal.program.optimizers.base import ByName, Group, scale

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamGroup(Group):
    """Hyperparameters of Adam.

    Args:
        parameters: Names of parameters.
        lr: Learning rate, per step.
        beta1: Share of the mean of gradients that is kept.
        beta2: Share of the mean of squared gradients that is kept.
        eps: Added to the denominator.
        weight_decay: How strongly weights are drawn to zero.
        amsgrad: Divide by the largest mean square so far.
        decoupled_weight_decay: Weight decay shrinks the parameter; otherwise it is added to the gradient.
        foreach: Torch's list form (`scale`).
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False
    decoupled_weight_decay: bool = False
    foreach: bool = False

    SCHEDULABLE: ClassVar[tuple[str, ...]] = ("lr", "beta1", "beta2", "weight_decay")

    def keys(self) -> tuple[str, ...]:
        """The two means, and the largest second one for AMSGrad."""
        return ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if self.amsgrad else ("exp_avg", "exp_avg_sq")

    def move(
        self, weight: torch.Tensor, gradient: torch.Tensor, kept: Sequence[torch.Tensor], count: int
    ) -> None:
        """One parameter's update."""
        mean, square = kept[:2]
        if self.weight_decay != 0:
            if self.decoupled_weight_decay:
                scale(weight, 1 - self.lr * self.weight_decay, self.foreach)
            else:
                gradient = gradient.add(weight, alpha=self.weight_decay)
        mean.lerp_(gradient, 1 - self.beta1)
        scale(square, self.beta2, self.foreach).addcmul_(gradient, gradient, value=1 - self.beta2)
        if self.amsgrad:
            largest = kept[2]
            square = largest.copy_(largest.maximum(square))
        step_size = self.lr / (1 - self.beta1 ** float(count))
        root = (1 - self.beta2 ** float(count)) ** 0.5
        weight.addcdiv_(mean, square.sqrt().div_(root).add_(self.eps), value=-step_size)

    def move_exact(
        self, weight: torch.Tensor, gradient: torch.Tensor, kept: Sequence[torch.Tensor], count: int
    ) -> None:
        """One parameter's update in exact arithmetic."""
        from gradseal.program.exact import updates

        decay = updates.Decay(self.weight_decay, weight, lr=self.lr if self.decoupled_weight_decay else None)
        mean, square = updates.Mean(self.beta1, weight), updates.MeanSquare(self.beta2, weight)
        root = updates.number(math.sqrt(1 - updates.power(self.beta2, count)), weight)
        eps = updates.number(self.eps, weight)
        minus_step_size = updates.number(-(self.lr / (1 - updates.power(self.beta1, count))), weight)
        for (w, m, v, *largest), read, (t, u) in updates.pieces((weight, *kept), gradient, spare=2):
            g = decay.apply(w, read, out=t)
            mean.move_(m, g, out=u)
            square.move_(v, g, out=u)
            used = updates.raise_(largest[0], v) if self.amsgrad else v
            divisor = updates.sqrt(used, out=u).div_(root).add_(eps)
            updates.add_quotient_(w, m, divisor, minus_step_size, out=t)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamWGroup(AdamGroup):
    """Hyperparameters of AdamW, which are those of Adam with weight decay by default, decoupled."""

    weight_decay: float = 1e-2
    decoupled_weight_decay: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Adam(ByName[AdamGroup]):
    """Adaptive moment estimation."""

    name: ClassVar[str] = "adam"
    GROUP: ClassVar[type[Group]] = AdamGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamW(ByName[AdamWGroup]):
    """Adam with decoupled weight decay."""

    name: ClassVar[str] = "adamw"
    GROUP: ClassVar[type[Group]] = AdamWGroup
