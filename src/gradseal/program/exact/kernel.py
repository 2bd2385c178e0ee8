"""The compiled form of exact arithmetic's hot operators, where it was built; it changes no bit.

There is one library for each width of vectors (`hatch_build.py` makes them), and the one is loaded that
PyTorch would choose its own kernels by, so that `ATEN_CPU_CAPABILITY` rules both. Without it, or with the
environment variable `GRADSEAL_EXACT_KERNEL` set to `off`, everything runs on PyTorch's operators. Whoever
calls it holds tensors of float32 on the CPU, laid out as the function says, and passes their addresses. Knows
nothing of what the functions compute; see the modules that call them.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import Barrier, local
from typing import Any, TypeVar

import torch

from gradseal.errors import ReplayError

T = TypeVar("T")

VARIABLE = "GRADSEAL_EXACT_KERNEL"
ABI = 2
"""That of c/abi.c: a library left over from another version is not used."""
# The variable may name what the processor does not have.
_SUPPORTED: dict[str, Callable[[], bool]] = {
    "avx512": torch.cpu._is_avx512_supported,
    "avx2": torch.cpu._is_avx2_supported,
    "baseline": lambda: True,
}
_START_SECONDS = 60.0
_HERE = local()
_WIDTHS = {"AVX512": ("avx512", "avx2", "baseline"), "AVX2": ("avx2", "baseline")}


@cache
def library() -> ctypes.CDLL | None:
    """The library for this processor, or None."""
    if os.environ.get(VARIABLE) == "off":
        return None
    for width in _WIDTHS.get(torch.backends.cpu.get_cpu_capability(), ("baseline",)):
        path = Path(__file__).with_name(f"_kernel_{width}.so")
        if path.is_file() and _SUPPORTED[width]():
            try:
                loaded = ctypes.CDLL(str(path))
                if loaded.gradseal_abi() == ABI:
                    return loaded
            except (OSError, AttributeError):  # built for another kind of processor, or from other sources
                continue
    return None


def usable(*tensors: torch.Tensor) -> bool:
    """Whether the library is there and these tensors are where it can reach them."""
    return library() is not None and all(t.is_cpu for t in tensors)


_KINDS: Mapping[str, Any] = {
    "p": ctypes.c_void_p,
    "n": ctypes.c_int64,
    "i": ctypes.c_int32,
    "d": ctypes.c_double,
}


def function(name: str, arguments: str, result: str = "") -> Callable[..., Any] | None:
    """A function of the library for this processor; None where there is no library, or it lacks the function.

    Args:
        name: Without the prefix that all have.
        arguments: A letter for each: p an address, n and i integers of 64 and 32 bits, d a float64.
        result: Likewise; nothing stands for no result.
    """
    found = library()
    return None if found is None else _declared(found, name, arguments, result)


def function_for(name: str, arguments: str, *tensors: torch.Tensor) -> Callable[..., Any] | None:
    """As `function`; None too where a tensor is out of its reach, or has no dimension or element."""
    found = function(name, arguments)
    return found if usable(*tensors) and all(t.dim() and t.numel() for t in tensors) else None


def known(found: Callable[..., Any] | None) -> Callable[..., Any]:
    """A function that the library must have, once it is known to be usable.

    Raises:
        ReplayError: It lacks it.
    """
    if found is None:
        raise ReplayError("a kernel of exact arithmetic lacks a function that it should have")
    return found


@cache
def _declared(found: ctypes.CDLL, name: str, arguments: str, result: str) -> Callable[..., Any] | None:
    symbol: Any = getattr(found, f"gradseal_{name}", None)
    if symbol is None:
        return None
    symbol.argtypes = [_KINDS[kind] for kind in arguments]
    symbol.restype = _KINDS[result] if result else None
    declared: Callable[..., Any] = symbol
    return declared


def in_parts(count: int, work: Callable[[int, int], None], *, least: int) -> None:
    """Does `work(start, end)` for parts of range(count), in as many threads as PyTorch's operators have.

    Args:
        count: How many items there are.
        work: Does the items from start to below end; releases the interpreter's lock.
        least: The fewest items worth a thread.
    """
    parts = count // max(1, least)
    threads = min(torch.get_num_threads(), parts) if parts > 1 else 1
    if threads <= 1 or getattr(_HERE, "within", False):
        work(0, count)
        return
    bounds = [count * i // threads for i in range(threads + 1)]
    for done in _pool(threads, os.getpid()).map(work, bounds[:-1], bounds[1:]):
        del done


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    # Of this process: one that was forked off has none of the threads.
    return ThreadPoolExecutor(threads, thread_name_prefix="exact", initializer=_enter)


def _enter() -> None:
    # A thread of the pool that waited for others of it could wait for ever.
    _HERE.within = True


def in_each_thread(work: Callable[[], T]) -> list[T]:
    """What `work` gives in each thread that `in_parts` may use besides this one, all at once."""
    threads = torch.get_num_threads()
    if threads == 1:
        return []
    gate = Barrier(threads)

    def once() -> T:
        gate.wait(_START_SECONDS)
        return work()

    pool = _pool(threads, os.getpid())
    return [waited.result() for waited in [pool.submit(once) for _ in range(threads)]]
