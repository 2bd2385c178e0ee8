"""Variants of numerics: the same steps, their sums in another order, or their products in another precision.

Each stands in for other hardware or another library. Some are settings of a process that must be made before
torch is loaded, others change the operators or the order of a batch's samples; `numerics_worker` makes both.
Precision counts for products alone: matrix products, convolutions, attention, and their backward passes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gradseal.errors import Error
from gradseal.program.graph import Graph
from gradseal.program.native import Environment, has_capability
from gradseal.program.operators import RANDOM
from gradseal.program.randomness import derive, permutation

FLOAT32 = "float32"
REDUCED = "reduced"
FAMILIES = (FLOAT32, REDUCED)
"""All numerics of float32, or these and the products of reduced precision that accelerators have."""

TF32_BITS = 10
BFLOAT16_BITS = 7
"""Explicit bits of the significand; float32 has 23."""

_FLOAT32_BITS = 23
_KEY = bytes(32)
_WIDTHS = {
    "default": {"cpu_capability": "DEFAULT", "onednn_isa": "SSE41", "mkl_mode": "COMPATIBLE"},
    "avx2": {"cpu_capability": "AVX2", "onednn_isa": "AVX2", "mkl_mode": "AVX2"},
    "avx512": {"cpu_capability": "AVX512", "onednn_isa": "AVX512_CORE", "mkl_mode": "AVX512"},
}
_FACTORS: Mapping[str, tuple[int, ...]] = {
    "aten.mm": (0, 1),
    "aten.bmm": (0, 1),
    "aten.mv": (0, 1),
    "aten.dot": (0, 1),
    "aten.addmm": (1, 2),
    "aten.addmv": (1, 2),
    "aten.addr": (1, 2),
    "aten.addbmm": (1, 2),
    "aten.baddbmm": (1, 2),
    "aten.convolution": (0, 1),
    "aten.convolution_backward": (0, 1, 2),
    "aten._scaled_dot_product_flash_attention_for_cpu": (0, 1, 2),
    "aten._scaled_dot_product_flash_attention_for_cpu_backward": (0, 1, 2, 3),
}
"""The operators that multiply matrices, each with the places of the arguments that are multiplied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to compute the same steps.

    Args:
        name: Its name in tables.
        environment: The fields of `Environment` that it has otherwise than the base.
        operators: How products are computed: `float64`, `tf32` or `bf16`; as they are if empty.
        reorder: Whether the samples of each batch come in another order.
    """

    name: str
    environment: Mapping[str, Any] = field(default_factory=dict)
    operators: str = ""
    reorder: bool = False

    def of(self, base: Environment) -> Environment:
        """The environment that it wants."""
        return replace(base, **self.environment)


BASE = Variant(name="baseline")

_PRECISIONS = {FLOAT32: ("float64",), REDUCED: ("float64", "tf32", "bf16")}


def variants_for(
    environment: Environment, family: str = FLOAT32, graphs: Iterable[Graph] = ()
) -> tuple[list[Variant], dict[str, str]]:
    """The variants that differ from a base, as far as can be said before they are tried.

    Whether a process gets the vector width that it is started for, and whether a variant changes a bit, is
    seen by trying: `measure.measure`.

    Args:
        environment: The base.
        family: `float32`, or `reduced` for these and products of TF32 and bfloat16.
        graphs: The run's, to see whether they draw random numbers.

    Returns:
        The variants, and for each that is left out, by name, why.

    Raises:
        Error: There is no such family.
    """
    if family not in FAMILIES:
        raise Error(
            f"no family of numerics is called {family!r}",
            where="numerics",
            advice=f"use {' or '.join(FAMILIES)}",
        )
    offered, left_out = [], {}
    for variant, lacking in _candidates(environment, family, graphs):
        reason = lacking or ("is the base itself" if _is_base(variant, environment) else "")
        if reason:
            left_out[variant.name] = reason
        else:
            offered.append(variant)
    return offered, left_out


def _candidates(
    environment: Environment, family: str, graphs: Iterable[Graph]
) -> Iterable[tuple[Variant, str]]:
    """All variants, each with why it cannot be had; the cheap ones first."""
    cpu = "" if environment.device == "cpu" else "the run is not computed on a CPU"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    mkl = "" if torch.backends.mkl.is_available() else "no MKL here"  # type: ignore[no-untyped-call] # torch's
    onednn = "" if torch.backends.mkldnn.is_available() else "no oneDNN"  # type: ignore[no-untyped-call] # same
    cuda = "" if torch.cuda.is_available() else "there is no CUDA device"
    for threads in (1, 2):
        few = "" if threads <= cores else "there are fewer processors"
        yield Variant(name=f"threads {threads}", environment={"threads": threads}), cpu or few
    for name, fields in _WIDTHS.items():
        missing = "" if has_capability(fields["cpu_capability"]) else "the processor does not have it"
        yield Variant(name=f"width {name}", environment=fields), cpu or missing
    yield Variant(name="onednn off", environment={"onednn": False}), cpu or onednn
    yield Variant(name="mkl compatible", environment={"mkl_mode": "COMPATIBLE"}), cpu or mkl
    yield Variant(name="order", reorder=True), _why_not_reordered(graphs)
    for precision in _PRECISIONS[family]:
        yield Variant(name=precision, operators=precision), ""
    yield Variant(name="cuda", environment={"device": "cuda"}), cuda


def _is_base(variant: Variant, base: Environment) -> bool:
    if variant.operators or variant.reorder:
        return False
    # A limit that is set where none was may change nothing; that is seen once it is tried.
    return variant.of(base) == base


def _why_not_reordered(graphs: Iterable[Graph]) -> str:
    drawing = sorted({node.operator for graph in graphs for node in graph.nodes if node.operator in RANDOM})
    if drawing:
        return f"{drawing[0]} draws for places in the batch: another order is another computation"
    return ""


def reordered(leaves: Sequence[torch.Tensor], number: int) -> list[torch.Tensor]:
    """The samples of a batch in another order, which its number decides, the same for all leaves.

    Args:
        leaves: Each of shape (samples, ...).
        number: The batch's in the run.
    """
    order = torch.from_numpy(permutation(derive(_KEY, "reorder", number), len(leaves[0])))
    return [leaf[order.to(leaf.device)].contiguous() for leaf in leaves]


def rounded(tensor: torch.Tensor, bits: int) -> torch.Tensor:
    """The nearest numbers of float32 with so many explicit bits of significand, ties to even.

    Args:
        tensor: float32, of any shape; others are given back as they are.
        bits: 1 to 22.
    """
    if tensor.dtype is not torch.float32:
        return tensor
    dropped = _FLOAT32_BITS - bits
    pattern = tensor.contiguous().view(torch.int32)
    even = (pattern >> dropped) & 1
    nearest = (pattern + ((1 << (dropped - 1)) - 1) + even) & ~((1 << dropped) - 1)
    # An infinity's pattern would stay, but that of a NaN may become an infinity's.
    return torch.where(torch.isfinite(tensor), nearest.view(torch.float32), tensor)


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch does not type it
    """Has products computed in another precision, while it is entered.

    With `float64` their float32 arguments are widened, and results rounded once. With `tf32` and `bf16` what
    is multiplied is rounded before; sums are those of float32, as accelerators have them. Of attention only
    what comes in is rounded, not the shares between its two products; of a convolution's backward pass the
    gradient of the bias comes from rounded gradients, too.

    Args:
        precision: `float64`, `tf32` or `bf16`.
    """

    def __init__(self, precision: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # nor this
        self._prepare = _PREPARATIONS[precision]
        self._all = precision == "float64"
        self.counted = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs one operator."""
        kwargs = kwargs or {}
        places = _FACTORS.get(str(func).rpartition(".")[0])
        if places is None:
            return func(*args, **kwargs)
        self.counted += 1
        changed = [
            self._prepare(a) if isinstance(a, torch.Tensor) and (self._all or i in places) else a
            for i, a in enumerate(args)
        ]
        if not self._all:
            return func(*changed, **kwargs)
        kwargs = {n: self._prepare(a) if isinstance(a, torch.Tensor) else a for n, a in kwargs.items()}
        return _narrowed(func(*changed, **kwargs), args)


def _narrowed(results: Any, args: Sequence[Any]) -> Any:
    """Results of float64 as float32, unless the arguments had been of float64 already."""
    if any(isinstance(a, torch.Tensor) and a.dtype is torch.float64 for a in args):
        return results
    if isinstance(results, torch.Tensor):
        return results.float() if results.dtype is torch.float64 else results
    if isinstance(results, tuple | list):
        return type(results)(_narrowed(r, args) for r in results)
    return results


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.dtype is torch.float32 else tensor


_PREPARATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "float64": _widened,
    "tf32": lambda tensor: rounded(tensor, TF32_BITS),
    "bf16": lambda tensor: rounded(tensor, BFLOAT16_BITS),
}


def to_json(variant: Variant) -> dict[str, Any]:
    """Its JSON form, for a worker."""
    return {**asdict(variant), "environment": dict(variant.environment)}
