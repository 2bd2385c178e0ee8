"""RMSprop, with the bits of `torch.optim.RMSprop`.

Sources: Tieleman and Hinton 2012, lecture 6.5 of "Neural Networks for Machine Learning"; Graves 2013,
"Generating Sequences With Recurrent Neural Networks", for the centred form; PyTorch's documented update rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gradseal.program.optimizers.base import ByName, Group, scale

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class RMSpropGroup(Group):
    """Hyperparameters of RMSprop.

    Args:
        parameters: Names of parameters.
        lr: Learning rate, per step.
        alpha: Share of the mean of squared gradients that is kept.
        eps: Added to the denominator.
        weight_decay: L2 penalty added to the gradient.
        momentum: Share of the last update that is kept; 0 for none.
        centered: Divide by the standard deviation, not the root mean square.
        foreach: Torch's list form (`scale`).
    """

    alpha: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0
    centered: bool = False
    foreach: bool = False

    SCHEDULABLE: ClassVar[tuple[str, ...]] = ("lr", "momentum", "weight_decay")

    def keys(self) -> tuple[str, ...]:
        """The mean square, then momentum and the mean gradient where they are used."""
        momentum = ("momentum_buffer",) if self.momentum > 0 else ()
        return ("square_avg", *momentum, *(("grad_avg",) if self.centered else ()))

    def move(
        self, weight: torch.Tensor, gradient: torch.Tensor, kept: Sequence[torch.Tensor], count: int
    ) -> None:
        """One parameter's update."""
        square = kept[0]
        if self.weight_decay != 0:
            gradient = gradient.add(weight, alpha=self.weight_decay)
        scale(square, self.alpha, self.foreach).addcmul_(gradient, gradient, value=1 - self.alpha)
        if self.centered:
            mean = kept[-1]
            mean.lerp_(gradient, 1 - self.alpha)
            spread = square.addcmul(mean, mean, value=-1).sqrt_().add_(self.eps)
        else:
            spread = square.sqrt().add_(self.eps)
        if self.momentum > 0:
            momentum = kept[1]
            scale(momentum, self.momentum, self.foreach).addcdiv_(gradient, spread)
            weight.add_(momentum, alpha=-self.lr)
        else:
            weight.addcdiv_(gradient, spread, value=-self.lr)

    def move_exact(
        self, weight: torch.Tensor, gradient: torch.Tensor, kept: Sequence[torch.Tensor], count: int
    ) -> None:
        """One parameter's update in exact arithmetic."""
        from gradseal.program.exact import updates

        decay = updates.Decay(self.weight_decay, weight)
        square, mean = updates.MeanSquare(self.alpha, weight), updates.Mean(self.alpha, weight)
        eps, share = updates.number(self.eps, weight), updates.number(self.momentum, weight)
        minus_lr, one = updates.number(-self.lr, weight), updates.number(1.0, weight)
        for (w, v, *own), read, (t, u) in updates.pieces((weight, *kept), gradient, spare=2):
            g = decay.apply(w, read, out=t)
            square.move_(v, g, out=u)
            spread = v
            if self.centered:
                mean.move_(own[-1], g, out=u)
                spread = updates.minus_square(v, own[-1], out=u)
            divisor = updates.sqrt(spread, out=u).add_(eps)
            if self.momentum > 0:
                updates.add_quotient_(own[0].mul_(share), g, divisor, one, out=t)
                updates.add_scaled_(w, own[0], minus_lr, out=t)
            else:
                updates.add_quotient_(w, g, divisor, minus_lr, out=t)


@dataclass(frozen=True, slots=True, kw_only=True)
class RMSprop(ByName[RMSpropGroup]):
    """Gradients divided by their root mean square."""

    name: ClassVar[str] = "rmsprop"
    GROUP: ClassVar[type[Group]] = RMSpropGroup
