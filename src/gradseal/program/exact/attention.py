"""Scaled dot-product attention (Vaswani et al. 2017), forward and backward, from products and softmax.

The operators are those that PyTorch's CPU kernel of this name has; what that kernel fuses is taken apart. The
backward pass computes the shares again, as the forward pass did, and uses neither its result nor its
logarithms. A query that sees no key gets zeros. Leaves out dropout. Format: docs/spec/exact-operators.md,
section "Attention".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact import functions, products
from gradseal.program.exact.digits import require_float32
from gradseal.program.exact.fused_softmax import shares
from gradseal.program.exact.sums import sum_along

_WHERE: Final = "scaled dot-product attention"


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Values weighted by how well their keys match a query.

    Args:
        query: float32, (batch, heads, length, width).
        key: float32, (batch, heads, keys, width).
        value: float32, (batch, heads, keys, width of values).
        dropout_p: Must be 0.
        is_causal: Whether query i sees keys 0, …, i only.
        attn_mask: float32 that broadcasts to (batch, heads, length, keys): added to the scores.
        scale: Of the scores; None stands for the inverse root of the width.

    Returns:
        The result, (batch, heads, length, width of values), laid out as the query is, and the logarithm of
        the sum of each query's exponentials, (batch, heads, length), 0 where it sees no key.

    Raises:
        ReplayError: A tensor is not float32 or does not fit, or there is dropout.
    """
    _without_dropout(dropout_p)
    factor = _require(query, key, value, attn_mask, scale)
    weights, logarithms = _weights(torch.mul(query, factor), key, is_causal, attn_mask)
    result = _bmm(weights, value)
    if query.shape == result.shape and query.stride() != result.stride():
        result = torch.empty_like(query).copy_(result)
    return result, logarithms.transpose(1, 2).contiguous().transpose(1, 2)


def attention_backward(  # noqa: PLR0917 -- as the operator has them
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    dropout_p: float,
    is_causal: bool,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `attention`'s query, key and value, shaped as these.

    What the forward pass gave, `out` and `logsumexp`, is not used. The other arguments are its own.

    Raises:
        ReplayError: A tensor is not float32 or does not fit, or there is dropout.
    """
    _without_dropout(dropout_p)
    factor = _require(query, key, value, attn_mask, scale)
    require_float32(grad_out)
    scaled = torch.mul(query, factor)
    weights, _ = _weights(scaled, key, is_causal, attn_mask)
    to_value = _bmm(weights.transpose(2, 3), grad_out)
    to_weights = _bmm(grad_out, value.transpose(2, 3))
    mean = sum_along(torch.mul(to_weights, weights), (3,), keepdim=True)
    to_scores = to_weights.sub_(mean).mul_(weights)
    to_query = _bmm(to_scores, key).mul_(factor)
    to_key = _bmm(to_scores.transpose(2, 3), scaled)
    return _heads_last(to_query), _heads_last(to_key), _heads_last(to_value)


def _weights(scaled: Tensor, key: Tensor, is_causal: bool, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The share of each key in each query's result, and the logarithms of the sums."""
    scores = _bmm(scaled, key.transpose(2, 3))
    if mask is not None:
        scores.add_(mask)
    if is_causal:
        hidden = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).triu_(1)
        scores.masked_fill_(hidden, -math.inf)
    weights, total, largest = shares(scores, 3)
    blind = torch.eq(largest, -math.inf)
    logarithms = functions.log(total).add_(largest).masked_fill_(blind, 0.0)
    return weights.masked_fill_(blind, 0.0), logarithms.squeeze(3)


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    result = products.bmm(a.flatten(0, 1), b.flatten(0, 1))
    return result.view(*a.shape[:2], *result.shape[1:])


def _heads_last(x: Tensor) -> Tensor:
    """Laid out as (batch, length, heads, width), where PyTorch's kernel leaves gradients."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def _without_dropout(dropout_p: float) -> None:
    if dropout_p != 0.0:
        raise ReplayError("dropout within attention is not defined", where=_WHERE)


def _require(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """The scale as a tensor, if everything fits."""
    for tensor in (query, key, value) if mask is None else (query, key, value, mask):
        require_float32(tensor)
    shapes = [tuple(x.shape) for x in (query, key, value)]
    if not all(len(shape) == 4 and 0 not in shape for shape in shapes):
        raise ReplayError(f"shapes {shapes} have not four dimensions, or no elements", where=_WHERE)
    matches = query.shape[:2] == key.shape[:2] and query.shape[3] == key.shape[3]
    if not matches or value.shape[:3] != key.shape[:3]:
        raise ReplayError(f"shapes {shapes} do not fit", where=_WHERE)
    scores = (*shapes[0][:3], shapes[1][2])
    if mask is not None and not _broadcasts(mask.shape, scores):
        raise ReplayError(f"a mask of shape {tuple(mask.shape)} for {scores}", where=_WHERE)
    factor = 1.0 / math.sqrt(query.shape[3]) if scale is None else scale
    return torch.full((), factor, dtype=torch.float32, device=query.device)


def _broadcasts(shape: torch.Size, to: tuple[int, ...]) -> bool:
    own = to[len(to) - len(shape) :]
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(shape, own, strict=True))


TABLE: Mapping[str, Callable[..., Any]] = {
    "aten._scaled_dot_product_flash_attention_for_cpu.default": attention,
    "aten._scaled_dot_product_flash_attention_for_cpu_backward.default": attention_backward,
}
"""By the names that a graph has for them."""
