"""Operators that go element by element, with one rounding for each +, −, ×, ÷ and √.

A table from ATen's names to functions of the same arguments. Where float32 is involved, operands become
float32 first, a Python number too, and whatever ATen might contract or reorder is taken apart into single
torch calls. Integers and truth values are exact in any case, and are left to ATen. Other element types are
refused. Leaves out activations and derivatives. Order here: one operand, several, the table.
Format: docs/spec/exact-operators.md, section "Element by element".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from gradseal.errors import ReplayError
from gradseal.program.exact import functions
from gradseal.program.exact.element_types import (
    Function,
    converted,
    in_place,
    named,
    number,
    passed,
    require_fits,
    require_types,
    written_over,
)

_REMAINDER_STEP: Final = 28
_REMAINDER_FIRST: Final = 252


def _kind(*operands: Any) -> torch.dtype:
    """The element type that torch would compute in; the type of the result, if it is not a comparison."""
    require_types(*operands)
    first, *others = operands
    kind = torch.result_type(first, others[0]) if others else first.dtype
    require_types(kind)
    return kind


def _floats(*operands: Any) -> list[Tensor]:
    """Tensors and numbers as float32."""
    device = next((x.device for x in operands if isinstance(x, Tensor)), torch.device("cpu"))
    return [x.to(torch.float32) if isinstance(x, Tensor) else number(x, device) for x in operands]


def _scaled(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else torch.mul(x, number(factor, x.device))


# --- One operand


def _function(core: Callable[[Tensor], Tensor]) -> Function:
    """`core` of float32, with the elements in memory in the operand's order, as ATen does it."""

    def run(own: Tensor) -> Tensor:
        require_types(own)
        x = own.to(torch.float32)
        if x.is_contiguous():
            return core(x)
        strides = x.stride()
        order = sorted(range(x.dim()), key=lambda dim: -strides[dim])
        back = sorted(range(x.dim()), key=order.__getitem__)
        return core(x.permute(order)).permute(back)

    return run


def _floating(core: Callable[[Tensor], Tensor], name: str) -> Function:
    """`core` of float32, and ATen of the rest."""
    own_way = passed(name)

    def run(own: Tensor) -> Any:
        return core(own) if own.dtype is torch.float32 else own_way(own)

    return run


def _reciprocal(x: Tensor) -> Tensor:
    return torch.div(torch.ones_like(x), x)


def _square(x: Tensor) -> Tensor:
    return torch.mul(x, x)


def _sign(x: Tensor) -> Tensor:
    return torch.sub(torch.gt(x, 0).to(torch.float32), torch.lt(x, 0).to(torch.float32))


def _fraction(x: Tensor) -> Tensor:
    return torch.sub(x, torch.trunc(x))


_POWERS: Mapping[float, Callable[[Tensor], Tensor]] = {
    -2.0: lambda x: _reciprocal(_square(x)),
    -1.0: _reciprocal,
    -0.5: functions.rsqrt,
    0.0: torch.ones_like,
    0.5: functions.sqrt,
    1.0: torch.clone,
    2.0: _square,
    3.0: lambda x: torch.mul(_square(x), x),
    4.0: lambda x: _square(_square(x)),
}


def _power(own: Tensor, exponent: float) -> Any:
    if _kind(own, exponent) is not torch.float32:
        return torch.ops.aten.pow.Tensor_Scalar(own, exponent)
    core = _POWERS.get(float(exponent))
    if core is None:
        raise ReplayError(f"exact arithmetic has no power with exponent {exponent!r}")
    return _function(core)(own)


def _to_copy(own: Tensor, *, dtype: torch.dtype | None = None, **options: Any) -> Any:
    require_fits(own, own.dtype if dtype is None else dtype)
    return torch.ops.aten._to_copy.default(own, dtype=dtype, **options)


def _copy(own: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    source = src if isinstance(src, Tensor) else number(src, own.device)
    require_types(own)
    return written_over(own, converted(source, own.dtype))


# --- Two operands and more


def _binary(core: Callable[[Tensor, Tensor], Tensor], name: str) -> Function:
    """`core` where torch would compute in float32, and ATen elsewhere."""
    own_way = passed(name)

    def run(own: Any, other: Any) -> Any:
        if _kind(own, other) is not torch.float32:
            return own_way(own, other)
        return core(*_floats(own, other))

    return run


def _add(own: Any, other: Any, alpha: float = 1) -> Any:
    if _kind(own, other) is not torch.float32:
        return torch.ops.aten.add.Tensor(own, other, alpha=alpha)
    a, b = _floats(own, other)
    return torch.add(a, _scaled(b, alpha))


def _subtract(own: Any, other: Any, alpha: float = 1) -> Any:
    if _kind(own, other) is not torch.float32:
        return torch.ops.aten.sub.Tensor(own, other, alpha=alpha)
    a, b = _floats(own, other)
    return torch.sub(a, _scaled(b, alpha))


def _subtract_from(own: Any, other: Any, alpha: float = 1) -> Any:
    if _kind(own, other) is not torch.float32:
        by_tensor, by_number = torch.ops.aten.rsub.Tensor, torch.ops.aten.rsub.Scalar
        return (by_tensor if isinstance(other, Tensor) else by_number)(own, other, alpha=alpha)
    a, b = _floats(own, other)
    return torch.sub(b, _scaled(a, alpha))


def _divide(own: Any, other: Any, rounding_mode: str | None = None) -> Any:
    floating = _kind(own, other) is torch.float32
    if rounding_mode is None:
        return torch.div(*_floats(own, other))
    if rounding_mode not in ("trunc", "floor"):
        raise ReplayError(f"no way to round a quotient is called {rounding_mode[:40]!r}")
    if not floating:
        return torch.ops.aten.div.Tensor_mode(own, other, rounding_mode=rounding_mode)
    # Below 2^24 a quotient that is no integer is too far from one to become it in float64.
    a, b = _floats(own, other)
    quotient = torch.div(a.to(torch.float64), b.to(torch.float64))
    whole = torch.floor(quotient) if rounding_mode == "floor" else torch.trunc(quotient)
    return whole.to(torch.float32)


def _modulo(a: Tensor, b: Tensor) -> Tensor:
    """What is left of a after b has gone into it a whole number of times, exactly; with the sign of a."""
    rest, divisor = torch.abs(a).to(torch.float64), torch.abs(b).to(torch.float64)
    # With multiples of b that fall by 2^28, each quotient is below 2^28, and its floor, the product and the
    # difference are exact: all are multiples of b's last place, below 2^53 of them.
    for shift in range(_REMAINDER_FIRST, -1, -_REMAINDER_STEP):
        multiple = torch.mul(divisor, math.ldexp(1.0, shift))
        count = torch.floor(torch.div(rest, multiple))
        reduced = torch.sub(rest, torch.mul(count, multiple))
        rest = torch.where(torch.lt(rest, multiple), rest, reduced)
    return torch.copysign(rest.to(torch.float32), a)


def _remainder(a: Tensor, b: Tensor) -> Tensor:
    rest = _modulo(a, b)
    opposite = torch.ne(torch.lt(rest, 0), torch.lt(b, 0))
    moves = torch.logical_and(torch.ne(rest, 0), opposite)
    return torch.where(moves, torch.add(rest, b), rest)


def larger(a: Tensor, b: Tensor) -> Tensor:
    """The larger of two float32; +0 is larger than −0; NaN if one is NaN."""
    return _of_equals(torch.maximum(a, b), a, b, torch.bitwise_and)


def smaller(a: Tensor, b: Tensor) -> Tensor:
    """The smaller of two float32; −0 is smaller than +0; NaN if one is NaN."""
    return _of_equals(torch.minimum(a, b), a, b, torch.bitwise_or)


def _of_equals(chosen: Tensor, a: Tensor, b: Tensor, join: Callable[..., Tensor]) -> Tensor:
    """What was chosen, but of two zeros the one that is wanted."""
    zero = torch.eq(chosen, 0)
    if not bool(zero.any()):
        return chosen
    joined = join(a.view(torch.int32), b.view(torch.int32)).view(torch.float32)
    return torch.where(torch.logical_and(zero, torch.eq(a, b)), joined, chosen)


def _clamp(own: Tensor, min: Any = None, max: Any = None) -> Any:
    bounds = [bound for bound in (min, max) if bound is not None]
    kinds = [_kind(own, bound) for bound in bounds]
    if torch.float32 not in kinds:
        tensors = any(isinstance(bound, Tensor) for bound in bounds)
        return passed("clamp.Tensor" if tensors else "clamp")(own, min, max)
    (result,) = _floats(own)
    if min is not None:
        result = larger(*_floats(result, min))
    return result if max is None else smaller(*_floats(result, max))


def _clamp_below(own: Tensor, max: Any) -> Any:
    return _clamp(own, None, max)


def _three(core: Callable[..., Tensor], name: str) -> Function:
    """`core` of operands that are all float32 or numbers, and ATen where none is float32."""
    own_way = passed(name)

    def run(*operands: Any, **options: Any) -> Any:
        require_types(*operands)
        kinds = {x.dtype for x in operands if isinstance(x, Tensor)}
        if torch.float32 not in kinds:
            return own_way(*operands, **options)
        if len(kinds) > 1:
            raise ReplayError("operands of several element types")
        return core(*_floats(*operands), **options)

    return run


def _add_product(own: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    return torch.add(own, torch.mul(_scaled(tensor1, value), tensor2))


def _add_quotient(own: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    return torch.add(own, torch.div(_scaled(tensor1, value), tensor2))


def _interpolate(own: Tensor, end: Tensor, weight: Tensor) -> Tensor:
    way = torch.sub(end, own)
    from_start = torch.add(own, torch.mul(weight, way))
    from_end = torch.sub(end, torch.mul(way, torch.sub(torch.ones_like(weight), weight)))
    return torch.where(torch.lt(torch.abs(weight), 0.5), from_start, from_end)


def _x_log_y(x: Tensor, y: Tensor) -> Tensor:
    product = torch.mul(x, _function(functions.log)(y))
    nothing = torch.logical_and(torch.eq(x, 0), torch.eq(y, y))
    return torch.where(nothing, torch.zeros_like(x), product)


# --- The table

_FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "exp": functions.exp,
    "log": functions.log,
    "log1p": functions.log1p,
    "sqrt": functions.sqrt,
    "rsqrt": functions.rsqrt,
    "erf": functions.erf,
    "tanh": functions.tanh,
    "sigmoid": functions.sigmoid,
    "reciprocal": _reciprocal,
}
_UNARY: Mapping[str, Callable[[Tensor], Tensor]] = {"square": _square, "sign": _sign, "sgn": _sign}
_BY_TENSOR_OR_NUMBER: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    **{name: getattr(torch, name) for name in ("eq", "ne", "lt", "le", "gt", "ge", "mul")},
    "fmod": _modulo,
    "remainder": _remainder,
}
_BINARY: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    **{f"{name}.Tensor": core for name, core in _BY_TENSOR_OR_NUMBER.items()},
    **{f"{name}.Scalar": core for name, core in _BY_TENSOR_OR_NUMBER.items()},
    "maximum": larger,
    "max.other": larger,
    "minimum": smaller,
    "min.other": smaller,
    "xlogy.Tensor": _x_log_y,
}
_OTHERS: Mapping[str, Function] = {
    **{f"add.{kind}": _add for kind in ("Tensor", "Scalar")},
    **{f"sub.{kind}": _subtract for kind in ("Tensor", "Scalar")},
    **{f"rsub.{kind}": _subtract_from for kind in ("Tensor", "Scalar")},
    **{f"div.{kind}": _divide for kind in ("Tensor", "Scalar", "Tensor_mode", "Scalar_mode")},
    "frac": _function(_fraction),
    "pow.Tensor_Scalar": _power,
    "clamp": _clamp,
    "clamp.Tensor": _clamp,
    "clamp_min": _clamp,
    "clamp_min.Tensor": _clamp,
    "clamp_max": _clamp_below,
    "clamp_max.Tensor": _clamp_below,
    "addcmul": _three(_add_product, "addcmul"),
    "addcdiv": _three(_add_quotient, "addcdiv"),
    "lerp.Scalar": _three(_interpolate, "lerp.Scalar"),
    "lerp.Tensor": _three(_interpolate, "lerp.Tensor"),
    "_to_copy": _to_copy,
    "copy_": _copy,
}
# Of float32, each of these is one operation without rounding, or a choice; −x and |x| touch the sign alone.
_PASSED: Final = """
abs neg floor ceil trunc round isnan isinf nan_to_num logical_and logical_or logical_xor logical_not
bitwise_and.Tensor bitwise_and.Scalar bitwise_or.Tensor bitwise_or.Scalar bitwise_xor.Tensor bitwise_not where
where.self where.Scalar where.ScalarSelf where.ScalarOther masked_fill.Scalar masked_fill.Tensor
"""
_IN_PLACE: Final = """
abs add.Tensor add.Scalar addcdiv addcmul clamp clamp_min clamp_min.Tensor div.Tensor div.Scalar exp floor log
logical_and logical_not logical_or masked_fill.Scalar masked_fill.Tensor mul.Tensor mul.Scalar neg
pow.Tensor_Scalar reciprocal round rsqrt sigmoid sqrt sub.Tensor sub.Scalar tanh
"""

_NEW: Mapping[str, Function] = {
    **{name: _function(core) for name, core in _FUNCTIONS.items()},
    **{name: _floating(core, name) for name, core in _UNARY.items()},
    **{name: _binary(core, name) for name, core in _BINARY.items()},
    **{name: passed(name) for name in _PASSED.split()},
    **_OTHERS,
}


def _twin(name: str) -> str:
    operator, _, variant = name.partition(".")
    return f"{operator}_.{variant.removeprefix('Tensor_')}" if variant else f"{operator}_"


TABLE: Mapping[str, Function] = named({**_NEW, **{_twin(n): in_place(_NEW[n]) for n in _IN_PLACE.split()}})
"""For each operator defined here, its function, of the arguments that ATen's has."""
