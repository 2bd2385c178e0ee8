"""Whether this process computes exact arithmetic at all, asked before anything is replayed.

Subnormals may be flushed, sums of bytes may saturate, a product and a sum may be contracted; some of that can
differ from thread to thread. So the operators run on words of the counter-based generator, taken as floats,
in this thread, in those of PyTorch's operators, and in those of the kernel; the digests of their results must
be the known ones (`fitness.json`, made by `tests/vectors/make_fitness.py`). Format: docs/spec/arithmetic.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Final

import numpy as np
import torch
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact import activation_functions, functions, kernel, norms, products, softmax, sums
from gradseal.program.exact.convolution import Window, conv2d, conv2d_input_gradient, conv2d_weight_gradient
from gradseal.program.exact.functions import NAN_BITS
from gradseal.program.optimizers.adam import AdamW, AdamWGroup
from gradseal.program.randomness import words

_MANY: Final = (1 << 17) + 3
"""So many elements that PyTorch gives some to each of its threads."""


def bits(name: str, *shape: int, exponents: int = 256) -> Tensor:
    """Floats of random bits.

    Args:
        name: Which; another name has other bits.
        shape: Of the result.
        exponents: How many exponents there are, around that of 1; with 256 there are infinities, NaN and
            subnormals among them.
    """
    count = int(np.prod(shape))
    key = hashlib.sha256(name.encode()).digest()[:16]
    drawn = (words(key, 0, count) >> np.uint64(32)).astype(np.uint32)
    low = 127 - exponents // 2 if exponents < 256 else 0
    exponent = low + (drawn >> np.uint32(23)) % np.uint32(exponents)
    drawn = (drawn & np.uint32(0x007FFFFF)) | (exponent << np.uint32(23)) | (drawn << np.uint32(31))
    return torch.from_numpy(drawn.view(np.float32).copy()).reshape(shape)


def _elements() -> list[Tensor]:
    a, b = bits("a", _MANY), bits("b", _MANY)
    small = bits("small", _MANY, exponents=16) * 2.0**-130
    return [a + b, a - b, a * b, a / b, small * 0.75, small + small]


def _functions() -> list[Tensor]:
    wide, near = bits("wide", 2003), bits("near", 2003, exponents=12)
    names = (
        "sqrt",
        "rsqrt",
        "exp",
        "sigmoid",
        "tanh",
        "log",
        "log1p",
        "softplus",
        "erf",
        "gelu",
        "gelu_tanh",
    )
    more = (
        "silu",
        "silu_derivative",
        "gelu_derivative",
        "gelu_tanh_derivative",
        "mish",
        "mish_derivative",
        "expm1",
    )
    made = [getattr(functions, name)(x) for name in names for x in (wide, near)]
    return made + [getattr(activation_functions, name)(x) for name in more for x in (wide, near)]


def _products() -> list[Tensor]:
    a, b = bits("rows", 37, 300, exponents=20), bits("columns", 300, 41, exponents=20)
    large = torch.full((3, 700), 1.9999999)
    three = bits("three", 3, 9, 50, exponents=8)
    return [
        products.matmul(a, b),
        products.matmul(bits("any rows", 9, 5), bits("any columns", 5, 7)),
        products.matmul(large, large.T),
        products.bmm(three, three.transpose(1, 2)),
        products.matmul(a * 2.0**-70, b * 2.0**-70),
    ]


def _convolutions() -> list[Tensor]:
    x, weight = bits("image", 3, 4, 9, 8, exponents=12), bits("kernel", 6, 2, 3, 3, exponents=12)
    window = Window(stride=(2, 1), padding=(1, 1), groups=2)
    y = conv2d(x, weight, window)
    gradient = bits("gradient", *y.shape, exponents=12)
    # Sums beyond 2^53, which take several parts.
    large, filters = torch.full((2, 40, 6, 5), 1.9999999), torch.full((5, 40, 3, 3), -1.9999998)
    return [
        y,
        conv2d(large, filters, Window(padding=(1, 1))),
        conv2d_input_gradient(large[:, :5], filters, Window(padding=(1, 1)), (6, 5)),
        conv2d_weight_gradient(large[:, :5], large, Window(padding=(1, 1)), (3, 3)),
        conv2d_input_gradient(gradient, weight, window, (9, 8)),
        conv2d_weight_gradient(gradient, x, window, (3, 3)),
    ]


def _sums() -> list[Tensor]:
    x, y = bits("sum", 7, 130, 33, exponents=40), bits("any", 60, 50)
    return [
        sums.sum_along(x, (0, 2)),
        sums.sum_along(x, (1,)),
        sums.mean_along(x),
        sums.mean_along(x, (2,)),
        sums.sum_along(y, (1,)),
    ]


def _rows() -> list[Tensor]:
    x, g = bits("features", 40, 33, exponents=10), bits("upstream", 40, 33, exponents=10)
    w = bits("scale", 33, exponents=4)
    y = softmax.TABLE["aten._softmax.default"](x, 1, False)
    z = softmax.TABLE["aten._log_softmax.default"](x, 1, False)
    layer, mean, away = norms.TABLE["aten.native_layer_norm.default"](x, [33], w, w, 1e-5)
    back = norms.TABLE["aten.native_layer_norm_backward.default"](
        g, x, [33], mean, away, w, w, [True, True, True]
    )
    image, seen = bits("channels", 5, 6, 4, 3, exponents=10), bits("seen", 5, 6, 4, 3, exponents=10)
    ones = torch.ones(6)
    batch = norms.TABLE["aten.native_batch_norm.default"](
        image, ones, ones, ones.clone(), ones.clone(), True, 0.1, 1e-5
    )
    again = norms.TABLE["aten.native_batch_norm_backward.default"](
        seen, image, ones, None, None, batch[1], batch[2], True, 1e-5, [True, True, True]
    )
    return [
        y,
        softmax.TABLE["aten._softmax_backward_data.default"](g, y, 1, torch.float32),
        z,
        softmax.TABLE["aten._log_softmax_backward_data.default"](g, z, 1, torch.float32),
        layer,
        *back,
        *batch,
        *again,
    ]


def _places() -> list[Tensor]:
    x = bits("sent", 300, 7, exponents=30)
    index = torch.arange(300) * 7 % 11
    return [
        sums.sum_by_index(x, 0, index, 11),
        sums.sum_by_indices(x, 0, index[:, None].expand(300, 7), (11, 7)),
    ]


def _updates() -> list[Tensor]:
    weight, gradient = bits("weight", 1000, exponents=8), bits("step", 1000, exponents=30)
    state = {
        "parameters/w": weight.clone(),
        "optimizer/w/exp_avg": bits("mean", 1000, exponents=8),
        "optimizer/w/exp_avg_sq": bits("square", 1000, exponents=8).abs(),
    }
    group = AdamWGroup(parameters=("w",), lr=1e-3)
    AdamW(groups=(group,)).update(state, {"w": gradient}, 7, exact=True)
    return list(state.values())


CASES: Final[Mapping[str, Callable[[], list[Tensor]]]] = {
    "elements": _elements,
    "functions": _functions,
    "products": _products,
    "convolutions": _convolutions,
    "sums": _sums,
    "rows": _rows,
    "places": _places,
    "updates": _updates,
}


def digests(device: torch.device) -> dict[str, str]:
    """What the cases give here: SHA-256 of their results' bits, one after the other, by name.

    Args:
        device: Where to compute.
    """
    found = {}
    for name, case in CASES.items():
        with device:
            results = [result.to("cpu").contiguous() for result in case()]
        state = hashlib.sha256()
        for result in results:
            state.update(result.view(torch.int32).masked_fill(result.isnan(), NAN_BITS).numpy().tobytes())
        found[name] = state.hexdigest()
    return found


def prove(device: torch.device) -> None:
    """Nothing, where each thread that takes part gives the bits of the definition.

    Args:
        device: Where to compute.

    Raises:
        ReplayError: One does not; names the case.
    """
    known = json.loads(files(__package__).joinpath("fitness.json").read_text(encoding="utf-8"))
    for found in (digests(device), *kernel.in_each_thread(lambda: digests(device))):
        for name, digest in found.items():
            if digest != known[name]:
                raise ReplayError(
                    f"this process does not compute exact arithmetic: {name} have other bits than they must",
                    where="worker",
                    advice="something flushes subnormals or changes rounding here; replay elsewhere",
                )
