"""The element types of exact arithmetic, conversions between them, and how its tables take arguments.

float32 is the one type of fractions; integers and truth values are for indexes, counts and masks. float64 and
those of 16 bits are refused by name. Used by the tables of operators (`elementwise`, `reductions`, `moves`,
`draws`). Format: docs/spec/exact-operators.md, section "Element types".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from gradseal.errors import ReplayError

Function = Callable[..., Any]

TYPES: Final = frozenset(
    [torch.float32, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
)
"""The element types of exact arithmetic."""

_LARGEST_FLOAT: Final = torch.finfo(torch.float32).max


def require_types(*values: Any) -> None:
    """Nothing, if every tensor and element type among these, also in lists, is of a type that there is.

    Raises:
        ReplayError: If one is not; names the type.
    """
    for value in values:
        if isinstance(value, list | tuple):
            require_types(*value)
            continue
        dtype = getattr(value, "dtype", value)
        if isinstance(dtype, torch.dtype) and dtype not in TYPES:
            raise ReplayError(f"exact arithmetic has no {str(dtype).removeprefix('torch.')}")


def number(value: int | float, device: torch.device) -> Tensor:
    """A Python number rounded to float32 once, as a tensor of shape ()."""
    if abs(value) <= _LARGEST_FLOAT:
        return torch.full((), value, dtype=torch.float32, device=device)
    # NaN, and what `full` would refuse as too large.
    dtype = torch.float64 if isinstance(value, float) else torch.int64
    return torch.tensor(value, dtype=dtype).to(device=device, dtype=torch.float32)


def converted(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The same numbers in another element type; the tensor itself where it is of that type.

    Integers are rounded to float32 once and wrap around in a narrower integer type; float32 lose their
    fraction in an integer type, which must hold the rest; whatever is not 0 is true.

    Raises:
        ReplayError: If a number does not fit, or one of the types is none that there is.
    """
    require_fits(x, dtype)
    return x.to(dtype)


def require_fits(x: Tensor, dtype: torch.dtype) -> None:
    """Nothing, if all numbers can be converted, as `converted` says.

    Raises:
        ReplayError: If one cannot, or a type is none that there is.
    """
    require_types(x, dtype)
    if x.dtype is torch.float32 and not dtype.is_floating_point and dtype is not torch.bool:
        limits = torch.iinfo(dtype)
        whole = torch.trunc(x)
        # Both bounds are powers of two or 0, and so float32. NaN is on neither side.
        fits = torch.logical_and(torch.ge(whole, float(limits.min)), torch.lt(whole, float(limits.max + 1)))
        if not bool(fits.all()):
            name = str(dtype).removeprefix("torch.")
            raise ReplayError(f"a float32 is converted to {name}, which does not hold it")


def _overload(name: str) -> Any:
    operator, _, variant = name.removeprefix("aten.").partition(".")
    return getattr(getattr(torch.ops.aten, operator), variant or "default")


def named(functions: Mapping[str, Function], *, before: int = 0) -> Mapping[str, Function]:
    """A table by full names, whose functions take by name, too, what ATen takes by position.

    Args:
        functions: By `operator` or `operator.overload`.
        before: How many arguments they take before those that ATen's take.
    """
    return {
        f"aten.{name}" if "." in name else f"aten.{name}.default": _positional(name, function, before)
        for name, function in functions.items()
    }


def _positional(name: str, function: Function, before: int) -> Function:
    places = [a for a in _overload(name)._schema.arguments if not a.kwarg_only]

    def run(*args: Any, **kwargs: Any) -> Any:
        given = [i for i, a in enumerate(places) if a.name in kwargs] if kwargs else []
        if given:
            rest = places[len(args) - before : given[-1] + 1]
            args = (*args, *(kwargs.pop(a.name, a.default_value) for a in rest))
        return function(*args, **kwargs)

    return run


def passed(name: str) -> Function:
    """ATen's own operator, `operator.overload`, with arguments and results of the types that there are."""
    own = _overload(name)

    def run(*args: Any, **kwargs: Any) -> Any:
        require_types(args, tuple(kwargs.values()))
        result = own(*args, **kwargs)
        require_types(result)
        return result

    return run


def in_place(function: Function) -> Function:
    """The function, with its result written over its first argument, where type and shape allow it."""

    def run(own: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        result = function(own, *args, **kwargs)
        if result.shape != own.shape or not torch.can_cast(result.dtype, own.dtype):
            given = f"{tuple(result.shape)} {result.dtype}"
            raise ReplayError(f"a result of {given} does not go into {tuple(own.shape)} {own.dtype}")
        return written_over(own, result)

    return run


def written_over(own: Tensor, source: Tensor) -> Tensor:
    """`own`, with the numbers of `source`, which may lie in the same memory."""
    shared = source.untyped_storage()._cdata == own.untyped_storage()._cdata
    return own.copy_(source.clone() if shared else source)
