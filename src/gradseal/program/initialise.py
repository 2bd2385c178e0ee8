"""How a model was initialised, watched while it is built.

Inside `initialise()` every fill of a whole tensor with uniform, normal or truncated normal numbers is noted
against the tensor's memory, and so is one row of a normal fill that is then set to zero. `record` later
replaces those numbers by the same rule's, drawn from the run's seed. A tensor that something else wrote to,
then or later, keeps its bytes and is *given*; a tensor of one repeated number is a constant, and one that
counts along its last dimension a range, whoever wrote it. Format: docs/spec/program.md, section 8.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import xxhash
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from gradseal.errors import MalformedBundle
from gradseal.program.fills import constant_of, range_of
from gradseal.program.memory import dtype_name, to_bytes
from gradseal.program.rules import Normal, NormalButRow, Rule, TruncatedNormal, Uniform
from gradseal.program.scalars import explain, fans_of
from gradseal.program.tensors import TensorSpec

_ATEN = torch.ops.aten
_weak: Callable[[torch.UntypedStorage], Any] = StorageWeakRef  # which has no types of its own
_Fill = tuple[str, tuple[float, ...]]


@dataclass(slots=True)
class _Noted:
    """A fill, the memory it filled, and, once watching ended, what that memory then held."""

    storage: Any
    fill: _Fill
    fingerprint: int = 0


_noted: dict[int, _Noted] = {}
_lock = threading.Lock()


@contextmanager
def initialise() -> Iterator[None]:
    """Watches how the model built inside is initialised.

    Build the model, and move it to its device, inside:

        with gradseal.initialise():
            model = Net()

    Whatever is done to a parameter afterwards (loading weights, scaling) makes it *given*: it keeps its
    bytes, they are sealed, and the claim *initialisation* is not shown.
    """
    watch = _Watch()
    with _truncated_normals_named(watch), watch:
        yield
    watch.close()


def rule_for(spec: TensorSpec, tensor: torch.Tensor, shapes: Sequence[Sequence[int]]) -> Rule | None:
    """The rule that a tensor's present numbers come from, or None if they are given.

    Args:
        spec: What the tensor is.
        tensor: The tensor.
        shapes: The shapes of all the state's tensors; a rule's scalars may follow from them.
    """
    fans = fans_of(shapes)
    seen = None
    if raw := to_bytes(tensor):
        seen = constant_of(raw, spec.dtype, fans) or range_of(raw, spec.dtype, spec.shape, fans)
    if seen is not None and not seen.free_bytes():
        return seen
    # Any tensor of one element repeats a number; how it was drawn says more than that number.
    drawn = _noted_rule(tensor, fans)
    return seen if drawn is None or (seen and seen.free_bytes() <= drawn.free_bytes()) else drawn


def _noted_rule(tensor: torch.Tensor, fans: frozenset[int]) -> Rule | None:
    """The rule that a tensor was seen to be filled by, if it still has those bytes."""
    noted = _noted.get(tensor.untyped_storage()._cdata)
    if noted is None or not _covers_storage(tensor) or noted.storage.expired():
        return None
    if _fingerprint(tensor) != noted.fingerprint:
        return None
    try:
        return _rule(noted.fill, fans)
    except MalformedBundle:  # scalars that no rule has, such as NaN
        return None


def _rule(fill: _Fill, fans: frozenset[int]) -> Rule:
    kind, scalars = fill
    explained = [explain(s, fans) for s in scalars]
    if kind == "uniform":
        return Uniform(low=explained[0], high=explained[1])
    if kind == "normal":
        return Normal(mean=explained[0], std=explained[1])
    if kind == "normal but a row":
        return NormalButRow(mean=explained[0], std=explained[1], row=explained[2])
    return TruncatedNormal(mean=explained[0], std=explained[1], low=explained[2], high=explained[3])


def _fingerprint(tensor: torch.Tensor) -> int:
    # Guards against forgetting, not against an adversary: a verifier recomputes everything.
    return xxhash.xxh3_64_intdigest(to_bytes(tensor))


def _covers_storage(tensor: torch.Tensor) -> bool:
    return (
        tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    )


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call] # the base class has no types
    """Notes the fills of whole tensors; any other write to a tensor forgets its fill."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # likewise
        self._open: dict[int, tuple[torch.Tensor, _Fill]] = {}
        self.paused = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.paused:
            self._watch(func, args, kwargs or {}, result)
        return result

    def note(self, tensor: torch.Tensor, fill: _Fill) -> None:
        """Remembers that `fill` just wrote all of `tensor`."""
        key = tensor.untyped_storage()._cdata
        if _covers_storage(tensor) and dtype_name(tensor.dtype) in (
            "float64",
            "float32",
            "float16",
            "bfloat16",
        ):
            self._open[key] = (tensor.detach(), fill)
        else:
            self._open.pop(key, None)

    def close(self) -> None:
        """Hands over what was noted, keeping none of the tensors alive."""
        with _lock:
            for key in [key for key, noted in _noted.items() if noted.storage.expired()]:
                del _noted[key]
            while self._open:
                key, (tensor, fill) = self._open.popitem()
                _noted[key] = _Noted(_weak(tensor.untyped_storage()), fill, _fingerprint(tensor))

    def _watch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        if (read := _FILLS.get(func)) is not None:
            self.note(result, read(args, kwargs))
            return
        if (
            func in _COPIES
            and isinstance(result, torch.Tensor)
            and isinstance(args[_COPIES[func]], torch.Tensor)
        ):
            known = self._open.get(args[_COPIES[func]].untyped_storage()._cdata)
            if known is not None and known[0].shape == args[_COPIES[func]].shape == result.shape:
                self.note(result, known[1])
                return
        for tensor in _written(func, args, kwargs):
            known = self._open.pop(tensor.untyped_storage()._cdata, None)
            if known is not None and (row := _zeroed_row(func, args, tensor, known)) is not None:
                whole, (_, scalars) = known
                self.note(whole, ("normal but a row", (*scalars, float(row))))


def _uniform(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Fill:
    low, high = _scalars(args[1:], kwargs, ("from", 0.0), ("to", 1.0))
    return "uniform", (low, high)


def _normal(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Fill:
    mean, std = _scalars(args[1:], kwargs, ("mean", 0.0), ("std", 1.0))
    return "normal", (mean, std)


def _zeroed_row(
    func: Any, args: tuple[Any, ...], tensor: torch.Tensor, known: tuple[torch.Tensor, _Fill]
) -> int | None:
    """Which row of a tensor filled with normal numbers was now set to zero, if that is what was done."""
    whole, (kind, _) = known
    zeroed = func is _ATEN.zero_.default or (func is _ATEN.fill_.Scalar and args[1] == 0)
    if kind != "normal" or not zeroed or whole.dim() < 2 or tensor.shape != whole.shape[1:]:
        return None
    length = whole[0].numel()
    offset = tensor.storage_offset() - whole.storage_offset()
    return offset // length if length and tensor.is_contiguous() and offset % length == 0 else None


def _scalars(given: tuple[Any, ...], kwargs: dict[str, Any], *names: tuple[str, float]) -> list[float]:
    return [
        float(given[i] if i < len(given) else kwargs.get(name, default))
        for i, (name, default) in enumerate(names)
    ]


_FILLS: dict[Any, Callable[[tuple[Any, ...], dict[str, Any]], _Fill]] = {
    _ATEN.uniform_.default: _uniform,
    _ATEN.normal_.default: _normal,
    _ATEN.rand.default: lambda args, kwargs: ("uniform", (0.0, 1.0)),
    _ATEN.rand_like.default: lambda args, kwargs: ("uniform", (0.0, 1.0)),
    _ATEN.randn.default: lambda args, kwargs: ("normal", (0.0, 1.0)),
    _ATEN.randn_like.default: lambda args, kwargs: ("normal", (0.0, 1.0)),
}
# For each copying operator, which argument is the source.
_COPIES: dict[Any, int] = {_ATEN._to_copy.default: 0, _ATEN.clone.default: 0, _ATEN.copy_.default: 1}


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[torch.Tensor]:
    """The tensors that an operator's schema says it writes to."""
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[position] if position < len(args) else kwargs.get(argument.name)
            if isinstance(value, torch.Tensor):
                yield value
            elif isinstance(value, list | tuple):
                yield from (v for v in value if isinstance(v, torch.Tensor))


@contextmanager
def _truncated_normals_named(watch: _Watch) -> Iterator[None]:
    """Notes `trunc_normal_` by its own scalars; inside, it is a loop that rejects and draws again."""
    name = "_no_grad_trunc_normal_"
    original = getattr(torch.nn.init, name)
    signature = inspect.signature(original)

    def named(*args: Any, **kwargs: Any) -> torch.Tensor:
        bound = signature.bind(*args, **kwargs).arguments
        watch.paused = True
        try:
            tensor: torch.Tensor = original(*args, **kwargs)
        finally:
            watch.paused = False
        watch.note(
            tensor,
            ("truncated", (float(bound["mean"]), float(bound["std"]), float(bound["a"]), float(bound["b"]))),
        )
        return tensor

    setattr(torch.nn.init, name, named)
    try:
        yield
    finally:
        setattr(torch.nn.init, name, original)
