"""Lion as a `torch.optim.Optimizer`, which PyTorch does not have.

Source: Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class Lion(torch.optim.Optimizer):
    """Steps of equal size along the sign of the momentum, with decoupled weight decay.

    Args:
        params: Parameters, or groups of them, as for every optimizer of torch.
        lr: Learning rate; about a tenth of what suits AdamW.
        betas: Share of the momentum in the direction of a step, and share of it that is kept.
        weight_decay: How strongly weights are drawn to zero; about ten times what suits AdamW.

    Raises:
        ValueError: A hyperparameter that is out of bounds.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        if not lr >= 0:
            raise ValueError(f"a learning rate of {lr!r} is below 0")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas of {betas!r} are not from 0 to below 1")
        if not weight_decay >= 0:
            raise ValueError(f"a weight decay of {weight_decay!r} is below 0")
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Moves every parameter that has a gradient.

        Args:
            closure: Computes the loss and its gradients again, if given.

        Returns:
            What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(group, parameter, parameter.grad)
        return loss

    def _move(self, group: dict[str, Any], parameter: torch.Tensor, gradient: torch.Tensor) -> None:
        state = self.state[parameter]
        if "exp_avg" not in state:
            state["exp_avg"] = torch.zeros_like(parameter)
        mean = state["exp_avg"]
        beta1, beta2 = group["betas"]
        if group["weight_decay"] != 0:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        direction = (mean * beta1).add_(gradient, alpha=1 - beta1).sign_()
        parameter.add_(direction, alpha=-group["lr"])
        mean.mul_(beta2).add_(gradient, alpha=1 - beta2)
