"""Products of matrices and convolutions as operators, and their gradients.

A table from ATen's names to functions of the same arguments. Each sum of products is one of `products` or
`convolution`, rounded once. What an operator adds, a bias or a multiple of a matrix, is added after, in one
addition of float32. Leaves out convolutions of three dimensions. Order here: products, convolutions, weight
norm, the table. Format: docs/spec/exact-operators.md, section "Linear operators".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradseal.program.exact import convolution, functions, products
from gradseal.program.exact.digits import require_float32
from gradseal.program.exact.element_types import Function, named
from gradseal.program.exact.steps import laid_out, refuse_unless, times
from gradseal.program.exact.sums import sum_along

# --- Products


def _added(own: Tensor, product: Tensor, beta: float, alpha: float) -> Tensor:
    """α times the product, and β times what it is added to, unless β is 0."""
    require_float32(own)
    scaled = times(product, alpha)
    if beta == 0:
        return scaled
    refuse_unless(_expands(own, product), f"{tuple(own.shape)} is not expanded to {tuple(product.shape)}")
    return torch.add(times(own, beta), scaled)


def _expands(own: Tensor, product: Tensor) -> bool:
    tail = product.shape[product.dim() - own.dim() :]
    return own.dim() <= product.dim() and all(a in (1, b) for a, b in zip(own.shape, tail, strict=True))


def _mm(self: Tensor, mat2: Tensor) -> Tensor:
    return products.matmul(self, mat2)


def _bmm(self: Tensor, mat2: Tensor) -> Tensor:
    return products.bmm(self, mat2)


def _addmm(self: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return _added(self, products.matmul(mat1, mat2), beta, alpha)


def _baddbmm(self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return _added(self, products.bmm(batch1, batch2), beta, alpha)


def _addbmm(self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    fits = batch1.dim() == batch2.dim() == 3 and batch1.shape[0] == batch2.shape[0]
    refuse_unless(fits and batch1.shape[2] == batch2.shape[1], "batches of matrices that do not fit")
    # The sum runs over the batch too.
    row = batch1.transpose(0, 1).flatten(1)
    return _added(self, products.matmul(row, batch2.flatten(0, 1)), beta, alpha)


def _mv(self: Tensor, vec: Tensor) -> Tensor:
    refuse_unless(vec.dim() == 1, f"a vector of {vec.dim()} dimensions")
    return products.matmul(self, vec[:, None])[:, 0]


def _addmv(self: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return _added(self, _mv(mat, vec), beta, alpha)


def _dot(self: Tensor, tensor: Tensor) -> Tensor:
    refuse_unless(self.dim() == 1, f"a vector of {self.dim()} dimensions")
    return _mv(self[None], tensor)[0]


def _addr(self: Tensor, vec1: Tensor, vec2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    refuse_unless(vec1.dim() == vec2.dim() == 1, "vectors of other than one dimension")
    require_float32(vec1)
    require_float32(vec2)
    return _added(self, torch.mul(vec1[:, None], vec2), beta, alpha)


# --- Convolutions


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """A convolution as one of two dimensions.

    Args:
        window: How the kernel moves; for a transposed one, that of the convolution whose gradient it is.
        extra: What a transposed one's result is larger by.
        transposed: Whether it is transposed.
        line: Whether it is of one dimension, which becomes the width.
    """

    window: convolution.Window
    extra: tuple[int, int]
    transposed: bool
    line: bool

    def raised(self, x: Tensor) -> Tensor:
        require_float32(x)
        refuse_unless(x.dim() == (3 if self.line else 4), f"{x.dim()} dimensions in a convolution")
        return x.unsqueeze(2) if self.line else x

    def lowered(self, x: Tensor, like: Tensor) -> Tensor:
        return laid_out(x.squeeze(2) if self.line else x, like)

    def size(self, x: Tensor, weight: Tensor) -> tuple[int, int]:
        """Height and width of a transposed one's result."""
        own = self.window
        sizes = []
        for side in (0, 1):
            reach = own.dilation[side] * (weight.shape[2 + side] - 1)
            span = (x.shape[2 + side] - 1) * own.stride[side] + 1
            sizes.append(span + reach - 2 * own.padding[side] + self.extra[side])
        refuse_unless(min(sizes) > 0, "a transposed convolution whose result is empty")
        return sizes[0], sizes[1]


def _layer(
    x: Tensor, options: Sequence[Sequence[int]], transposed: bool, output_padding: Sequence[int], groups: int
) -> _Layer:
    refuse_unless(x.dim() in (3, 4), f"exact arithmetic has no convolution of {x.dim() - 2} dimensions")
    line = x.dim() == 3
    stride, padding, dilation = (
        _pair(option, line, neutral) for option, neutral in zip(options, (1, 0, 1), strict=True)
    )
    refuse_unless(
        min(*stride, *dilation, groups) > 0 and min(padding) >= 0, "a convolution that does not move"
    )
    return _Layer(
        window=convolution.Window(stride=stride, padding=padding, dilation=dilation, groups=groups),
        extra=_pair(output_padding, line, 0) if transposed else (0, 0),
        transposed=transposed,
        line=line,
    )


def _pair(values: Sequence[int], line: bool, neutral: int) -> tuple[int, int]:
    refuse_unless(
        len(values) in ((1,) if line else (1, 2)), f"a convolution's option of {len(values)} numbers"
    )
    return (neutral if line else values[0]), values[-1]


def _convolution(  # noqa: PLR0917 -- as the operator has them
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    layer = _layer(input, (stride, padding, dilation), transposed, output_padding, groups)
    x, kernel = layer.raised(input), layer.raised(weight)
    if transposed:
        y = convolution.conv2d_input_gradient(x, kernel, layer.window, layer.size(x, kernel))
    else:
        y = convolution.conv2d(x, kernel, layer.window)
    result = layer.lowered(y, input)
    if bias is None:
        return result
    require_float32(bias)
    refuse_unless(bias.shape == result.shape[1:2], "a bias that does not fit the filters")
    return torch.add(result, bias.reshape(-1, *[1] * (input.dim() - 2)))


def _convolution_backward(  # noqa: PLR0917 -- as the operator has them
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    layer = _layer(input, (stride, padding, dilation), transposed, output_padding, groups)
    gradient, x, kernel = (layer.raised(tensor) for tensor in (grad_output, input, weight))
    window, shape = layer.window, (kernel.shape[2], kernel.shape[3])
    own = filters = None
    if output_mask[0] and transposed:
        own = layer.lowered(convolution.conv2d(gradient, kernel, window), input)
        refuse_unless(own.shape == input.shape, "a gradient of another shape")
    elif output_mask[0]:
        size = (x.shape[2], x.shape[3])
        own = layer.lowered(convolution.conv2d_input_gradient(gradient, kernel, window, size), input)
    if output_mask[1]:
        pair = (x, gradient) if transposed else (gradient, x)
        filters = layer.lowered(convolution.conv2d_weight_gradient(*pair, window, shape), weight)
    return own, filters, sum_along(gradient, (0, 2, 3)) if output_mask[2] else None


# --- Weight norm


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    require_float32(v)
    require_float32(g)
    norms = functions.sqrt(sum_along(torch.mul(v, v), _others(v, dim), keepdim=True)).reshape(g.shape)
    return torch.mul(v, _along(torch.div(g, norms), v, dim)), norms


def _weight_norm_backward(
    grad_w: Tensor, saved_v: Tensor, saved_g: Tensor, saved_norms: Tensor, dim: int
) -> tuple[Tensor, Tensor]:
    for tensor in (grad_w, saved_v, saved_g, saved_norms):
        require_float32(tensor)
    common = sum_along(torch.mul(grad_w, saved_v), _others(saved_v, dim), keepdim=True)
    to_g = torch.div(common.reshape(saved_g.shape), saved_norms)
    own = torch.mul(saved_v, _along(torch.div(to_g, saved_norms), saved_v, dim))
    return torch.mul(torch.sub(grad_w, own), _along(torch.div(saved_g, saved_norms), saved_v, dim)), to_g


def _others(v: Tensor, dim: int) -> list[int]:
    others = [d for d in range(v.dim()) if d != dim % v.dim()] if v.dim() else []
    refuse_unless(bool(others), "a weight norm of vectors without elements")
    return others


def _along(x: Tensor, v: Tensor, dim: int) -> Tensor:
    return x.reshape([v.shape[d] if d == dim % v.dim() else 1 for d in range(v.dim())])


# --- The table

TABLE: Mapping[str, Function] = named(
    {
        "mm": _mm,
        "bmm": _bmm,
        "addmm": _addmm,
        "baddbmm": _baddbmm,
        "addbmm": _addbmm,
        "mv": _mv,
        "addmv": _addmv,
        "dot": _dot,
        "addr": _addr,
        "convolution": _convolution,
        "convolution_backward": _convolution_backward,
        "_weight_norm_interface": _weight_norm,
        "_weight_norm_interface_backward": _weight_norm_backward,
    }
)
"""For each operator defined here, its function, of the arguments that ATen's has."""
