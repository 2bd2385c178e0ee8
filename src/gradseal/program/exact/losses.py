"""Losses and their gradients, each taken apart into steps of one rounding.

Where a loss is reduced, the mean is an exact mean and the sum an exact sum of the losses of the elements;
the negative log-likelihood divides its sum by the sum of its weights. A gradient of a mean is divided by the
count before it meets a larger tensor. Each function takes and gives what the ATen operator of its name does.
Order here: negative log-likelihood, distances, binary targets. Format: docs/spec/exact-operators.md, section
"Losses".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact import functions
from gradseal.program.exact.digits import require_float32
from gradseal.program.exact.sums import mean_along, sum_along

_NONE: Final = 0
_MEAN: Final = 1
_SUM: Final = 2
_LEAST_LOGARITHM: Final = -100.0
_LEAST_VARIANCE: Final = 1e-12


def nll_loss_forward(
    self: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """The negative log-likelihood of a target class in each place.

    Args:
        self: float32, log-likelihoods, (C,) or (N, C, …).
        target: int64 or uint8, () or (N, …), each in [0, C) or `ignore_index`.
        weight: float32, (C,): of the classes; None counts as ones.
        reduction: 0 none, 1 mean, 2 sum.
        ignore_index: The target of a place that does not count: its loss is +0.

    Returns:
        The loss, and the sum of the weights that count, which is 0 for a batch that is not reduced.

    Raises:
        ReplayError: A tensor is of another element type, or does not fit.
    """
    dim, index, counts = _classes(self, target, weight, reduction, ignore_index)
    loss = torch.neg(torch.gather(self, dim, index).squeeze(dim))
    # Without weights, the sum of ones.
    weights = torch.ones_like(loss) if weight is None else torch.take(weight, index.squeeze(dim))
    loss = loss.mul_(weights).masked_fill_(~counts, 0.0)
    if reduction == _NONE and self.dim() > 1:
        return loss, self.new_zeros(())
    total = sum_along(weights.masked_fill_(~counts, 0.0))
    if reduction == _NONE:
        return loss, total
    value = sum_along(loss)
    return (torch.div(value, total) if reduction == _MEAN else value), total


def nll_loss_backward(  # noqa: PLR0917 -- as the operator has them
    grad_output: Tensor,
    self: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: int,
    ignore_index: int,
    total_weight: Tensor,
) -> Tensor:
    """The gradient of `nll_loss_forward`'s log-likelihoods: +0 but at the targets that count.

    `grad_output` is shaped as the loss; `total_weight` is what the forward pass gave.

    Returns:
        float32, shaped as `self`, laid out row by row.

    Raises:
        ReplayError: A tensor is of another element type, or does not fit.
    """
    dim, index, counts = _classes(self, target, weight, reduction, ignore_index)
    require_float32(grad_output)
    if reduction == _MEAN:
        require_float32(total_weight)
        grad_output = torch.div(grad_output, total_weight)
    _fits(grad_output, target, reduction, "nll_loss_backward")
    down = torch.neg(grad_output).expand(target.shape)
    if weight is not None:
        down = torch.mul(down, torch.take(weight, index.squeeze(dim)))
    result = self.new_zeros(self.shape)
    return result.scatter_(dim, index, torch.where(counts, down, torch.zeros_like(down)).unsqueeze(dim))


def _classes(
    x: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore_index: int
) -> tuple[int, Tensor, Tensor]:
    """The dimension of the classes, the targets with that, 0 where ignored, and which of them count."""
    where = "nll_loss"
    require_float32(x)
    _known(reduction, where)
    if target.dtype not in (torch.int64, torch.uint8):
        raise ReplayError(f"targets are {str(target.dtype).removeprefix('torch.')}", where=where)
    dim = 0 if x.dim() == 1 else 1
    if not x.dim() or target.shape != x.shape[:dim] + x.shape[dim + 1 :]:
        raise ReplayError(f"targets {list(target.shape)} for {list(x.shape)}", where=where)
    if weight is not None:
        require_float32(weight)
        if list(weight.shape) != [x.shape[dim]]:
            raise ReplayError(f"weights {list(weight.shape)} for {x.shape[dim]} classes", where=where)
    classes = target.to(torch.int64)
    counts = torch.ne(classes, ignore_index)
    index = classes.masked_fill(~counts, 0)
    outside = torch.logical_or(torch.lt(index, 0), torch.ge(index, x.shape[dim]))
    if bool(outside.any()):
        raise ReplayError(f"a target is not one of {x.shape[dim]} classes", where=where)
    return dim, index.unsqueeze(dim), counts


def mse_loss(self: Tensor, target: Tensor, reduction: int = _MEAN) -> Tensor:
    """The squared difference of two float32 tensors that broadcast; `reduction` 0 none, 1 mean, 2 sum.

    Raises:
        ReplayError: A tensor is not float32, or the reduction is another one.
    """
    difference = _difference(self, target)
    return _reduced(difference.mul_(difference), reduction, "mse_loss")


def mse_loss_backward(grad_output: Tensor, self: Tensor, target: Tensor, reduction: int) -> Tensor:
    """The gradient of `mse_loss`'s first argument, from that of its result.

    Raises:
        ReplayError: As `mse_loss`.
    """
    difference = _difference(self, target, alike="mse_loss_backward")
    _fits(grad_output, self, reduction, "mse_loss_backward")
    twice = torch.full_like(grad_output, 2.0)
    if reduction == _MEAN:
        twice.div_(torch.full_like(twice, float(self.numel())))
    return difference.mul_(torch.mul(grad_output, twice)).contiguous()


def smooth_l1_loss(self: Tensor, target: Tensor, reduction: int = _MEAN, beta: float = 1.0) -> Tensor:
    """½ d² / β where |d| < β, else |d| − ½ β (Girshick 2015), of the difference d; else as `mse_loss`.

    Raises:
        ReplayError: As `mse_loss`, or β is negative.
    """
    size = _difference(self, target).abs_()
    bound = _bound(size, beta, "smooth_l1_loss")
    near = torch.mul(size, 0.5).mul_(size).div_(bound)
    loss = torch.where(torch.lt(size, bound), near, torch.sub(size, torch.mul(bound, 0.5)))
    return _reduced(loss, reduction, "smooth_l1_loss")


def smooth_l1_loss_backward(
    grad_output: Tensor, self: Tensor, target: Tensor, reduction: int, beta: float
) -> Tensor:
    """The gradient of `smooth_l1_loss`'s first argument; with β = 0 and d = 0, the slope is −1.

    Raises:
        ReplayError: As `smooth_l1_loss`.
    """
    difference = _difference(self, target, alike="smooth_l1_loss_backward")
    bound = _bound(difference, beta, "smooth_l1_loss_backward")
    grad = _divided(grad_output, difference, reduction, "smooth_l1_loss_backward")
    one = torch.ones_like(bound)
    slope = torch.div(difference, bound)
    slope = torch.where(torch.ge(difference, bound), one, slope)
    return torch.where(torch.le(difference, torch.neg(bound)), torch.neg(one), slope).mul_(grad).contiguous()


def huber_loss(self: Tensor, target: Tensor, reduction: int = _MEAN, delta: float = 1.0) -> Tensor:
    """½ d² where |d| < δ, else δ (|d| − ½ δ) (Huber 1964), of the difference d; else as `mse_loss`.

    Raises:
        ReplayError: As `mse_loss`, or δ is not positive.
    """
    size = _difference(self, target).abs_()
    bound = _bound(size, delta, "huber_loss", positive=True)
    far = torch.sub(size, torch.mul(bound, 0.5)).mul_(bound)
    loss = torch.where(torch.lt(size, bound), torch.mul(size, 0.5).mul_(size), far)
    return _reduced(loss, reduction, "huber_loss")


def huber_loss_backward(
    grad_output: Tensor, self: Tensor, target: Tensor, reduction: int, delta: float
) -> Tensor:
    """The gradient of `huber_loss`'s first argument.

    Raises:
        ReplayError: As `huber_loss`.
    """
    difference = _difference(self, target, alike="huber_loss_backward")
    bound = _bound(difference, delta, "huber_loss_backward", positive=True)
    grad = _divided(grad_output, difference, reduction, "huber_loss_backward")
    return difference.clamp_(torch.neg(bound), bound).mul_(grad).contiguous()


def binary_cross_entropy_with_logits(
    self: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: int = _MEAN,
) -> Tensor:
    """The cross entropy of a probability, given as its logit, with a target.

    Args:
        self: float32, any shape and strides.
        target: float32, of that shape.
        weight: float32 that broadcasts to it: of the losses.
        pos_weight: float32 that broadcasts to it: of the part of the target.
        reduction: 0 none, 1 mean, 2 sum.

    Raises:
        ReplayError: A tensor is not float32, or the shapes do not fit.
    """
    _same_shape(self, target, "binary_cross_entropy_with_logits")
    # log(1 + exp −|x|): what both logarithms have in common, and all of it if x has the target's sign.
    common = functions.softplus(torch.abs(self).neg_())
    positive = torch.clamp(self, min=0.0)
    if pos_weight is None:
        loss = positive.sub_(torch.mul(target, self)).add_(common)
    else:
        require_float32(pos_weight)
        missed = torch.clamp(torch.neg(self), min=0.0).add_(common).mul_(torch.mul(target, pos_weight))
        loss = positive.add_(common).mul_(torch.rsub(target, 1.0)).add_(missed)
    return _reduced(_weighted(loss, weight), reduction, "binary_cross_entropy_with_logits")


def binary_cross_entropy(
    self: Tensor, target: Tensor, weight: Tensor | None = None, reduction: int = _MEAN
) -> Tensor:
    """The cross entropy of a probability with a target; no logarithm counts as less than −100.

    Args:
        self: float32, any shape and strides, each in [0, 1].
        target: float32, of that shape.
        weight: float32 that broadcasts to it.
        reduction: 0 none, 1 mean, 2 sum.

    Raises:
        ReplayError: A tensor is not float32, the shapes do not fit, or what is given is no probability.
    """
    where = "binary_cross_entropy"
    _same_shape(self, target, where)
    if not bool(torch.logical_and(torch.ge(self, 0.0), torch.le(self, 1.0)).all()):
        raise ReplayError("not all elements are in [0, 1]", where=where)
    hit = torch.clamp(functions.log(self), min=_LEAST_LOGARITHM).mul_(target)
    missed = torch.clamp(functions.log1p(torch.neg(self)), min=_LEAST_LOGARITHM)
    loss = _laid_as(self, missed.mul_(torch.sub(target, 1.0)).sub_(hit))
    return _reduced(_weighted(loss, weight), reduction, where)


def binary_cross_entropy_backward(
    grad_output: Tensor,
    self: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: int = _MEAN,
) -> Tensor:
    """The gradient of `binary_cross_entropy`'s first argument, from that of its result.

    Raises:
        ReplayError: A tensor is not float32, or the shapes do not fit.
    """
    where = "binary_cross_entropy_backward"
    _same_shape(self, target, where)
    variance = torch.rsub(self, 1.0).mul_(self)
    least = torch.full((), _LEAST_VARIANCE, dtype=torch.float32, device=self.device)
    slope = torch.sub(self, target).div_(torch.clamp(variance, min=least))
    return _weighted(slope.mul_(_divided(grad_output, self, reduction, where)), weight)


def soft_margin_loss(self: Tensor, target: Tensor, reduction: int = _MEAN) -> Tensor:
    """log(1 + exp(−t x)) of float32 x and t of one shape; `reduction` 0 none, 1 mean, 2 sum.

    Raises:
        ReplayError: A tensor is not float32, or the shapes do not fit.
    """
    _same_shape(self, target, "soft_margin_loss")
    loss = _laid_as(self, functions.softplus(torch.mul(target, self).neg_()))
    return _reduced(loss, reduction, "soft_margin_loss")


def soft_margin_loss_backward(grad_output: Tensor, self: Tensor, target: Tensor, reduction: int) -> Tensor:
    """The gradient of `soft_margin_loss`'s first argument, from that of its result.

    Raises:
        ReplayError: A tensor is not float32, or the shapes do not fit.
    """
    where = "soft_margin_loss_backward"
    _same_shape(self, target, where)
    slope = functions.sigmoid(torch.mul(target, self).neg_()).mul_(torch.neg(target))
    return _laid_as(self, slope).mul_(_divided(grad_output, self, reduction, where))


def _difference(x: Tensor, target: Tensor, *, alike: str | None = None) -> Tensor:
    """Of two tensors that broadcast, or that have one shape where an operator is named."""
    if alike is not None:
        _same_shape(x, target, alike)
    require_float32(x)
    require_float32(target)
    return torch.sub(x, target)


def _same_shape(x: Tensor, target: Tensor, where: str) -> None:
    require_float32(x)
    require_float32(target)
    if x.shape != target.shape:
        raise ReplayError(f"targets {list(target.shape)} for {list(x.shape)}", where=where)


def _bound(x: Tensor, value: float, where: str, *, positive: bool = False) -> Tensor:
    """Where a loss changes its form, rounded to float32."""
    bound = torch.full((), value, dtype=torch.float32, device=x.device)
    if not (bound > 0.0 if positive else bound >= 0.0):
        raise ReplayError(f"is not defined with a bound of {value}", where=where)
    return bound


def _known(reduction: int, where: str) -> None:
    if reduction not in (_NONE, _MEAN, _SUM):
        raise ReplayError(f"there is no reduction {reduction}", where=where)


def _reduced(loss: Tensor, reduction: int, where: str) -> Tensor:
    _known(reduction, where)
    if reduction == _NONE:
        return loss
    return mean_along(loss) if reduction == _MEAN else sum_along(loss)


def _fits(grad: Tensor, values: Tensor, reduction: int, where: str) -> None:
    require_float32(grad)
    _known(reduction, where)
    if grad.numel() != 1 and grad.shape != values.shape:
        raise ReplayError(f"a gradient of shape {list(grad.shape)} for {list(values.shape)}", where=where)


def _divided(grad: Tensor, values: Tensor, reduction: int, where: str) -> Tensor:
    """The gradient of each element's loss: of a mean, divided by their number."""
    _fits(grad, values, reduction, where)
    return torch.div(grad, torch.full_like(grad, float(values.numel()))) if reduction == _MEAN else grad


def _laid_as(other: Tensor, x: Tensor) -> Tensor:
    """With the strides of another tensor, which functions do not keep."""
    result = torch.empty_like(other)
    return x if x.stride() == result.stride() else result.copy_(x)


def _weighted(x: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return x
    require_float32(weight)
    return x.mul_(weight)


TABLE: Mapping[str, Callable[..., Any]] = {
    "aten.nll_loss_forward.default": nll_loss_forward,
    "aten.nll_loss_backward.default": nll_loss_backward,
    "aten.nll_loss2d_forward.default": nll_loss_forward,
    "aten.nll_loss2d_backward.default": nll_loss_backward,
    "aten.mse_loss.default": mse_loss,
    "aten.mse_loss_backward.default": mse_loss_backward,
    "aten.smooth_l1_loss.default": smooth_l1_loss,
    "aten.smooth_l1_loss_backward.default": smooth_l1_loss_backward,
    "aten.huber_loss.default": huber_loss,
    "aten.huber_loss_backward.default": huber_loss_backward,
    "aten.binary_cross_entropy_with_logits.default": binary_cross_entropy_with_logits,
    "aten.binary_cross_entropy.default": binary_cross_entropy,
    "aten.binary_cross_entropy_backward.default": binary_cross_entropy_backward,
    "aten.soft_margin_loss.default": soft_margin_loss,
    "aten.soft_margin_loss_backward.default": soft_margin_loss_backward,
}
"""By the names that a graph has for them."""
