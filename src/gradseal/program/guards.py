"""What is checked before an operator runs whose kernel trusts its arguments.

PyTorch's kernels check most of what they are given, but those that only autograd or a Python wrapper calls
take shapes, strides and indexes on trust: out of range, or where memory lies otherwise than they think, they
read or write memory that is not theirs. Each such operator of the closed list has a guard here, which refuses
by `ValueError`. Where autograd itself lays an argument out before it calls a kernel, the guard asks for that
layout; where a kernel goes by the strides it is given, the guard asks for none. A guard sees the arguments by
the names of the operator's schema. Format: docs/spec/program.md, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch

Arguments = Mapping[str, Any]
Guard = Callable[[Arguments], None]


def _require(fits: bool, message: str) -> None:
    if not fits:
        raise ValueError(message)


def _like(a: Arguments, *names: str) -> None:
    """All of one shape and element type."""
    first = a[names[0]]
    for name in names[1:]:
        fits = a[name].shape == first.shape and a[name].dtype == first.dtype
        _require(fits, f"{name} is not like {names[0]}")


def _has_elements(a: Arguments, count: int, *names: str, optional: bool = True) -> None:
    for name in names:
        fits = a[name].numel() == count if a[name] is not None else optional
        _require(fits, f"{name} does not have {count} elements")


def _contiguous(a: Arguments, *names: str) -> None:
    """Each that is given lies in memory row by row, without gaps or repeats."""
    for name in names:
        _require(a[name] is None or a[name].is_contiguous(), f"{name} is not contiguous")


_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def _dense(a: Arguments, *names: str) -> None:
    """All contiguous, or all so with the channels last."""
    last = _CHANNELS_LAST.get(a[names[0]].dim(), torch.contiguous_format)
    formats = (torch.contiguous_format, last)
    fits = any(all(a[name].is_contiguous(memory_format=f) for name in names) for f in formats)
    _require(fits, f"{' and '.join(names)}: not contiguous, or not in the same way")


def _in_range(index: torch.Tensor, limit: int) -> None:
    if index.numel():
        low, high = (int(v) for v in index.aminmax())
        _require(
            low >= 0 and high < limit, f"index {high if high >= limit else low} is out of range for {limit}"
        )


def _channels(a: Arguments) -> int:
    _require(a["input"].dim() >= 2, "input has no channels")
    return int(a["input"].shape[1])


def _batch_norm(a: Arguments) -> None:
    _has_elements(a, _channels(a), "weight", "bias")
    _require((a["running_mean"] is None) == (a["running_var"] is None), "one running statistic of two")
    _has_elements(a, _channels(a), "running_mean", "running_var", optional=bool(a["training"]))
    _contiguous(a, "weight", "bias", "running_mean", "running_var")


def _batch_norm_without_statistics(a: Arguments) -> None:
    _has_elements(a, _channels(a), "weight", "bias")
    _contiguous(a, "weight", "bias")
    _require(bool(a["training"]), "no statistics to evaluate with")


def _batch_norm_backward(a: Arguments) -> None:
    _like(a, "input", "grad_out")
    _require(a["input"].numel() > 0, "an empty input")
    _has_elements(a, _channels(a), "weight")
    used, spare = ("save_mean", "save_invstd"), ("running_mean", "running_var")
    if not a["train"]:
        used, spare = spare, used
    _has_elements(a, _channels(a), *used, optional=False)
    for name in spare:
        if a[name] is not None and a[name].numel():
            _has_elements(a, _channels(a), name)
    _contiguous(a, "weight", *used, *spare)


def _layer_norm_backward(a: Arguments) -> None:
    _like(a, "input", "grad_out")
    outer = _outer(a)
    _has_elements(a, prod(outer), "mean", "rstd", optional=False)
    _has_elements(a, prod(a["normalized_shape"]), "weight", "bias")
    _contiguous(a, "mean", "rstd", "weight", "bias")


def _outer(a: Arguments) -> list[int]:
    """The dimensions that are not normalised."""
    shape, normalized = list(a["input"].shape), list(a["normalized_shape"])
    split = len(shape) - len(normalized)
    _require(
        bool(normalized) and split >= 0 and shape[split:] == normalized, "normalized_shape is not the input's"
    )
    return shape[:split]


def _rms_norm(a: Arguments) -> None:
    _outer(a)
    _has_elements(a, prod(a["normalized_shape"]), "weight")
    _contiguous(a, "weight")


def _group_norm(a: Arguments) -> None:
    _group_sizes(a)
    _has_elements(a, a["C"], "weight", "bias")
    _dense(a, "input")
    _contiguous(a, "weight", "bias")


def _group_sizes(a: Arguments) -> None:
    sizes = (a["N"], a["C"], a["HxW"])
    _require(min(sizes) >= 0 and prod(sizes) == a["input"].numel(), "N × C × HxW is not the input's size")
    _require(a["group"] > 0 and a["C"] % a["group"] == 0, "the groups do not divide the channels")


def _group_norm_backward(a: Arguments) -> None:
    _like(a, "input", "grad_out")
    _group_sizes(a)
    _has_elements(a, a["N"] * a["group"], "mean", "rstd", optional=False)
    _has_elements(a, a["C"], "weight")
    _dense(a, "input", "grad_out")
    _contiguous(a, "mean", "rstd", "weight")
    # With the channels last, the kernel writes the input's gradient whether it is asked for or not.
    _require(a["output_mask"][0] or a["input"].is_contiguous(), "input is not contiguous")


def _pool(spatial: int) -> Guard:
    """Of the gradient of a pool over the last dimensions: those before must agree."""

    def check(a: Arguments) -> None:
        own, grad = a["self"], a["grad_output"]
        _require(own.dim() == grad.dim() and own.dtype == grad.dtype, "grad_output is not like self")
        outer = own.dim() - spatial
        _require(outer in (1, 2), f"self has not {spatial} spatial dimensions")
        _require(own.shape[:outer] == grad.shape[:outer], "grad_output has other planes than self")
        _require(own.numel() > 0 and grad.numel() > 0, "an empty plane")

    return check


def _max_pool(spatial: int) -> Guard:
    pool = _pool(spatial)

    def check(a: Arguments) -> None:
        pool(a)
        _require(a["indices"].shape == a["grad_output"].shape, "indices are not shaped as grad_output")
        _in_range(a["indices"], prod(a["self"].shape[-spatial:]))

    return check


def _embedding_backward(a: Arguments) -> None:
    _in_range(a["indices"], a["num_weights"])


def _nll_backward(a: Arguments) -> None:
    own, target = a["self"], a["target"]
    _require(own.dim() >= 1, "self has no classes")
    _in_range(target[target != a["ignore_index"]], own.shape[0 if own.dim() == 1 else 1])


def _attention(a: Arguments) -> None:
    _like(a, "key", "value")
    query, key = a["query"], a["key"]
    _require(query.dim() == key.dim() == 4 and query.dtype == key.dtype, "query is not like key")
    _require(query.shape[:2] == key.shape[:2] and query.shape[3] == key.shape[3], "query is not like key")
    _rows(a, "query", "key", "value")
    mask = a["attn_mask"]
    if mask is not None:
        scores = [*query.shape[:3], key.shape[2]]
        _require(mask.dim() in (2, 4), "attn_mask has neither two dimensions nor four")
        own = scores[-mask.dim() :]
        _require(all(m in (1, s) for m, s in zip(mask.shape, own, strict=True)), "attn_mask does not fit")
        _require(mask.dtype in (query.dtype, torch.float32, torch.bool), "attn_mask has another element type")


def _rows(a: Arguments, *names: str) -> None:
    """Matrices of whole rows that lie apart; matrices may repeat, as where heads share a key."""
    for name in names:
        own = a[name]
        _require(own.numel() > 0, f"{name} is empty")
        rows, width = own.shape[2:]
        apart = rows == 1 or own.stride(2) >= width
        _require(apart and (width == 1 or own.stride(3) == 1), f"the rows of {name} are not contiguous")


def _attention_backward(a: Arguments) -> None:
    _attention(a)
    _like(a, "query", "out", "grad_out")
    _rows(a, "out")
    log_sum = a["logsumexp"]
    _require(log_sum.shape == a["query"].shape[:3], "logsumexp does not fit the query")
    _require(log_sum.dtype in (torch.float32, torch.float64), "logsumexp has another element type")


def _convolution_backward(a: Arguments) -> None:
    shape, weight = a["input"].shape, a["weight"].shape
    spatial = len(weight) - 2
    _require(spatial >= 1 and len(shape) == len(weight), "input and weight have different dimensions")
    options = [_each(a[n], spatial) for n in ("stride", "padding", "dilation", "output_padding")]
    groups = a["groups"]
    _require(
        groups > 0 and min(*options[0], *options[2]) > 0 and min(*options[1], *options[3]) >= 0, "options"
    )
    inner, outer = (weight[0], weight[1] * groups) if a["transposed"] else (weight[1] * groups, weight[0])
    _require(shape[1] == inner and weight[0] % groups == 0, "the channels of input and weight do not fit")
    sizes = zip(shape[2:], weight[2:], *options, strict=True)
    after = [_transposed(size) if a["transposed"] else _convolved(size) for size in sizes]
    expected = [shape[0], outer, *after]
    _require(list(a["grad_output"].shape) == expected, f"grad_output is not of shape {expected}")
    _require(min(expected[2:]) > 0, "an empty result")
    _require(a["grad_output"].dtype == a["input"].dtype == a["weight"].dtype, "mixed element types")


def _each(values: list[int], count: int) -> list[int]:
    _require(len(values) in (1, count), f"an option for {len(values)} dimensions of {count}")
    return values * count if len(values) == 1 else values


def _convolved(sizes: tuple[int, ...]) -> int:
    size, kernel, stride, padding, dilation, _ = sizes
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _transposed(sizes: tuple[int, ...]) -> int:
    size, kernel, stride, padding, dilation, extra = sizes
    return (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + extra + 1


def _weight_norm(a: Arguments) -> None:
    _norms_fit(a, "v", "g")
    _contiguous(a, "v", "g")


def _weight_norm_backward(a: Arguments) -> None:
    _like(a, "saved_v", "grad_w")
    _norms_fit(a, "saved_v", "saved_g", "saved_norms")
    _contiguous(a, "grad_w", "saved_v", "saved_g", "saved_norms")


def _norms_fit(a: Arguments, vectors: str, *norms: str) -> None:
    shape, dim = a[vectors].shape, a["dim"]
    _require(len(shape) > 0 and dim in (0, len(shape) - 1), "dim is neither the first nor the last")
    _has_elements(a, shape[dim], *norms, optional=False)


def _division(a: Arguments) -> None:
    """The processor traps on the one integer quotient that does not fit its type."""
    least = [v for v in (a["self"], a["other"]) if isinstance(v, torch.Tensor)]
    if any(v.dtype.is_floating_point for v in least) or isinstance(a["other"], float):
        return
    other, own = a["other"], a["self"]
    divides = bool((other == -1).any()) if isinstance(other, torch.Tensor) else other == -1
    if divides and isinstance(own, torch.Tensor) and own.dtype.is_signed:
        _require(not bool((own == torch.iinfo(own.dtype).min).any()), "an integer quotient that does not fit")


def _padding(spatial: int, *, reflects: bool) -> Guard:
    def check(a: Arguments) -> None:
        sizes, padding = list(a["self"].shape[-spatial:]), a["padding"]
        _require(len(padding) == 2 * spatial and a["self"].dim() in (spatial + 1, spatial + 2), "padding")
        before, after = padding[-2::-2], padding[-1::-2]
        _require(min(padding) >= 0 and min(sizes) > 0, "a negative padding, or an empty plane")
        for size, *ends in zip(sizes, before, after, strict=True):
            _require(not reflects or max(ends) < size, "reflects more than there is")
        if "grad_output" in a:
            padded = [size + b + e for size, b, e in zip(sizes, before, after, strict=True)]
            expected = [*a["self"].shape[:-spatial], *padded]
            _require(list(a["grad_output"].shape) == expected, f"grad_output is not of shape {expected}")

    return check


def _scales(a: Arguments) -> None:
    for name in ("scales", "scales_d", "scales_h", "scales_w"):
        scale = a.get(name)
        _require(scale is None or 2.0**-20 <= scale <= 2.0**20, f"{name} is out of range")


def _same(*names: str) -> Guard:
    return lambda a: _like(a, *names)


_PADDINGS = {
    f"{kind}_pad{spatial}d{suffix}": _padding(spatial, reflects=kind == "reflection")
    for kind in ("reflection", "replication")
    for spatial in (1, 2, 3)
    for suffix in ("", "_backward")
}
_UPSAMPLINGS = {
    f"upsample_{name}{suffix}": _scales
    for name in ("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "bicubic2d", "trilinear3d")
    for suffix in ("", "_backward")
}

GUARDS: Mapping[str, Guard] = {
    f"aten.{name}" if "." in name else f"aten.{name}.default": guard
    for name, guard in {
        "native_batch_norm": _batch_norm,
        "_native_batch_norm_legit": _batch_norm,
        "_native_batch_norm_legit.no_stats": _batch_norm_without_statistics,
        "native_batch_norm_backward": _batch_norm_backward,
        "native_layer_norm_backward": _layer_norm_backward,
        "_fused_rms_norm": _rms_norm,
        "native_group_norm": _group_norm,
        "native_group_norm_backward": _group_norm_backward,
        "_adaptive_avg_pool2d_backward": _pool(2),
        "_adaptive_avg_pool3d_backward": _pool(3),
        "avg_pool2d_backward": _pool(2),
        "avg_pool3d_backward": _pool(3),
        "max_pool2d_with_indices_backward": _max_pool(2),
        "max_pool3d_with_indices_backward": _max_pool(3),
        "adaptive_max_pool2d_backward": _max_pool(2),
        "embedding_dense_backward": _embedding_backward,
        "nll_loss_backward": _nll_backward,
        "nll_loss2d_backward": _nll_backward,
        "_scaled_dot_product_flash_attention_for_cpu": _attention,
        "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
        "convolution_backward": _convolution_backward,
        "_weight_norm_interface": _weight_norm,
        "_weight_norm_interface_backward": _weight_norm_backward,
        "_log_softmax_backward_data": _same("output", "grad_output"),
        "_softmax_backward_data": _same("output", "grad_output"),
        "log_sigmoid_backward": _same("self", "grad_output"),
        **_PADDINGS,
        **_UPSAMPLINGS,
        "div.Tensor_mode": _division,
        "div.Scalar_mode": _division,
        "fmod.Scalar": _division,
        "fmod.Tensor": _division,
        "remainder.Scalar": _division,
        "remainder.Tensor": _division,
    }.items()
}
"""For each operator that is checked before it runs, its check."""
