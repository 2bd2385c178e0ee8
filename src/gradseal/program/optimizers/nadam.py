"""NAdam, with the bits of `torch.optim.NAdam`, whose two forms differ.

The running product of its momenta is a tensor of the state, a float32, since it is rounded in each step.
Sources: Dozat 2016, "Incorporating Nesterov Momentum into Adam"; PyTorch's documented update rule.
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
class NAdamGroup(Group):
    """Hyperparameters of NAdam.

    Args:
        parameters: Names of parameters.
        lr: Learning rate, per step.
        beta1: Share of the mean of gradients that is kept.
        beta2: Share of the mean of squared gradients that is kept.
        eps: Added to the denominator.
        weight_decay: How strongly weights are drawn to zero.
        momentum_decay: How fast momentum grows to `beta1`.
        decoupled_weight_decay: Weight decay shrinks the parameter; otherwise it is added to the gradient.
        foreach: Torch's list form, which takes the root before the correction.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum_decay: float = 4e-3
    decoupled_weight_decay: bool = False
    foreach: bool = False

    SCHEDULABLE: ClassVar[tuple[str, ...]] = ("lr", "beta1", "beta2", "weight_decay")
    SCALARS: ClassVar[tuple[str, ...]] = ("mu_product",)

    def keys(self) -> tuple[str, ...]:
        """The product of momenta, and the two means."""
        return ("mu_product", "exp_avg", "exp_avg_sq")

    def move(
        self, weight: torch.Tensor, gradient: torch.Tensor, kept: Sequence[torch.Tensor], count: int
    ) -> None:
        """One parameter's update."""
        product, mean, square = kept
        if self.weight_decay != 0:
            if self.decoupled_weight_decay:
                scale(weight, 1 - self.lr * self.weight_decay, self.foreach)
            else:
                gradient = gradient.add(weight, alpha=self.weight_decay)
        mu, mu_next = self._momentum(float(count)), self._momentum(float(count) + 1)
        product.mul_(mu)
        mean.lerp_(gradient, 1 - self.beta1)
        scale(square, self.beta2, self.foreach).addcmul_(gradient, gradient, value=1 - self.beta2)
        correction = 1 - self.beta2 ** float(count)
        root = square.sqrt().div_(correction**0.5) if self.foreach else square.div(correction).sqrt_()
        divisor = root.add_(self.eps)
        so_far = float(product.item())
        weight.addcdiv_(gradient, divisor, value=-self.lr * (1.0 - mu) / (1.0 - so_far))
        weight.addcdiv_(mean, divisor, value=-self.lr * mu_next / (1.0 - so_far * mu_next))

    def _momentum(self, count: float) -> float:
        return float(self.beta1 * (1.0 - 0.5 * 0.96 ** (count * self.momentum_decay)))

    def move_exact(
        self, weight: torch.Tensor, gradient: torch.Tensor, kept: Sequence[torch.Tensor], count: int
    ) -> None:
        """One parameter's update in exact arithmetic."""
        from gradseal.program.exact import updates

        product, *means = kept
        mu, mu_next = self._momentum_exact(count), self._momentum_exact(count + 1)
        so_far = float(product.mul_(updates.number(mu, product)).item())
        decay = updates.Decay(self.weight_decay, weight, lr=self.lr if self.decoupled_weight_decay else None)
        mean, square = updates.Mean(self.beta1, weight), updates.MeanSquare(self.beta2, weight)
        root = updates.number(math.sqrt(1 - updates.power(self.beta2, count)), weight)
        eps = updates.number(self.eps, weight)
        now = updates.number(-self.lr * (1.0 - mu) / (1.0 - so_far), weight)
        ahead = updates.number(-self.lr * mu_next / (1.0 - so_far * mu_next), weight)
        for (w, m, v), read, (t, u, o) in updates.pieces((weight, *means), gradient, spare=3):
            g = decay.apply(w, read, out=t)
            mean.move_(m, g, out=u)
            square.move_(v, g, out=u)
            divisor = updates.sqrt(v, out=u).div_(root).add_(eps)
            updates.add_quotient_(w, g, divisor, now, out=o)
            updates.add_quotient_(w, m, divisor, ahead, out=o)

    def _momentum_exact(self, count: int) -> float:
        from gradseal.program.exact import updates

        return self.beta1 * (1.0 - 0.5 * updates.power_of_096(count * self.momentum_decay))


@dataclass(frozen=True, slots=True, kw_only=True)
class NAdam(ByName[NAdamGroup]):
    """Adam with Nesterov momentum."""

    name: ClassVar[str] = "nadam"
    GROUP: ClassVar[type[Group]] = NAdamGroup
