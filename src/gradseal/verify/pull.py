"""Was a run pulled towards given weights? A permutation test, which is a heuristic and decides nothing.

The numbers of hidden units mean nothing: a model whose units are renamed is the same model. So if a run does
not depend on weights W, its whole update U = W_end − W_0 is no more aligned with W than with W renamed. The
statistic is the inner product ⟨U, π(W)⟩ over the tensors that can be permuted, as a cosine. To take
π(W) − W_0, the way that is left to W, would subtract the same ⟨U, W_0⟩ from every one of them and order them
alike. p = (1 + n) / (1 + 199) with n the number of 199 random π that align at least as well. Under the null p
is at most a with probability at most a: hidden units start alike and independent, and training treats them
alike, so that what W came from would have given π(W) as likely.

It is evaded by whatever gets at the function and not at the weights, such as distillation, and by W with its
units renamed. It also answers to every other dependence: the same run, one with the same state zero, a
fine-tuned one. A small p says that the two runs have something in common, not what.

Sources: E. Pitman 1937, "Significance tests which may be applied to samples from any populations", for the
test; B. Phipson and G. Smyth 2010, "Permutation p-values should never be zero", for p.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gradseal.errors import Error
from gradseal.program.arithmetic import Exact
from gradseal.program.release import MAX_HEADER_BYTES, Tensors
from gradseal.program.tensors import TensorSpec
from gradseal.proof.files import Files, read_blob
from gradseal.verify.contents import Contents
from gradseal.verify.examination import Examination, Progress
from gradseal.verify.executors import Executor, Request
from gradseal.verify.lengths import NUMPY, numbers
from gradseal.verify.own_weights import read_own_weights
from gradseal.verify.symmetry import Axis, Group, Probe, Probed, by_tensor, candidates, orders
from gradseal.verify.verdict import Check, Finding, Result

PERMUTATIONS = 199
SMALL = 0.005
"""The least p that so many permutations can give."""

_BYTES_EACH = 64
"""So much memory a number takes at most: update and weights in float64, scaled, at unit length, permuted."""

_HEURISTIC = "a heuristic that decides nothing; distillation evades it"

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """What the test gives.

    Args:
        p: The p-value.
        cosine: Between the update and the weights.
        largest: The largest between the update and the weights permuted.
        groups: How many groups of hidden units were permuted.
    """

    p: float
    cosine: float
    largest: float
    groups: int


class NotApplicable(Exception):
    """The test cannot be made; says why."""


def check_pull(
    examination: Examination,
    files: Files,
    request: Request,
    executor: Executor,
    weights: str | Path,
    *,
    draw: bytes,
    shown: Progress,
) -> None:
    """Adds a finding that says how the run's update is aligned with weights, whatever comes of it.

    Args:
        examination: With integrity done.
        files: The bundle.
        request: What is asked for replays; its limits count here too.
        executor: Where the graph is run.
        weights: A safetensors file, by the names under which the bundle releases.
        draw: The verifier's randomness.
        shown: Told how far it is.

    Raises:
        MalformedBundle: The file is not a safetensors file, or larger than the bundle's states explain.
        StoreError: It cannot be read.
    """
    contents = examination.contents
    if contents is None or not examination.last_state:
        return
    held = _read(weights, contents)
    try:
        found = _aligned(examination, files, held, _ask(request, executor), contents, draw=draw, shown=shown)
    except NotApplicable as e:
        message, p = f"the permutation test does not apply: {e}", None
    except Error as e:
        message, p = f"the permutation test could not be made: {e}", None
    except MemoryError:
        message, p = "the permutation test could not be made: out of memory", None
    else:
        message, p = _said(found, own=_own(examination, held, contents)), found.p
    examination.findings.append(
        Finding(
            check=Check.PULL,
            result=Result.NOTED,
            message=f"{message} ({_HEURISTIC})",
            where=str(weights),
            measured=p,
        )
    )


def _said(found: Alignment, *, own: bool) -> str:
    if own:
        what = (
            "the run ends in exactly these weights: if they are its own, alignment says nothing, and if they "
            "are another's, no test is needed"
        )
    elif found.p <= SMALL:
        what = "the update is more aligned with these weights than hidden units without relation would be"
    else:
        what = "no sign that the run has anything in common with these weights"
    return (
        f"{what}: p = {found.p:.3g}; cosine {found.cosine:.3g}, of {PERMUTATIONS} permutations of the hidden "
        f"units of {found.groups} layers at most {found.largest:.3g}"
    )


def _read(weights: str | Path, contents: Contents) -> Tensors:
    # A float64 copy of all that a state holds is as much as there is to compare with.
    most = 8 + MAX_HEADER_BYTES + sum(8 * max(1, s.size_bytes) for s in contents.program.layout)
    return read_own_weights(weights, most)


def _ask(request: Request, executor: Executor) -> Callable[[Probe], Sequence[int]]:
    def ask(probe: Probe) -> Sequence[int]:
        most = request.replay_timeout_seconds or request.step_timeout_seconds
        for answer in executor.run(replace(request, tasks=(), probe=probe, replay_timeout_seconds=most)):
            if isinstance(answer, Probed):
                return [number for number in answer.valid if number < len(probe.groups)]
        raise NotApplicable("this executor permutes nothing")

    return ask


def _aligned(
    examination: Examination,
    files: Files,
    held: Tensors,
    ask: Callable[[Probe], Sequence[int]],
    contents: Contents,
    *,
    draw: bytes,
    shown: Progress,
) -> Alignment:
    arithmetic, most = contents.arithmetic, examination.policy.max_threads
    if not isinstance(arithmetic, Exact) and arithmetic.threads > most:
        raise NotApplicable(f"the run has {arithmetic.threads} threads; the policy allows {most}")
    log = examination.log
    groups, other = fitting(candidates(contents.program.layout), held, contents)
    if not groups or log is None:
        raise NotApplicable(other)
    valid = ask(Probe(state=log.seals[0], groups=groups))
    if not valid:
        raise NotApplicable(
            f"of {len(groups)} layers, none could be shown to have hidden units that may be permuted"
        )
    chosen = tuple(groups[number] for number in valid)
    names = {axis.tensor for group in chosen for axis in group.axes if axis.tensor.startswith("parameters/")}
    specs = [spec for spec in contents.program.layout if spec.name in names]
    first, last = (
        dict(zip((s.name for s in contents.program.layout), state, strict=True))
        for state in (examination.state_zero, examination.last_state)
    )
    elements = sum(spec.elements for spec in specs)
    if elements * _BYTES_EACH > examination.policy.memory_bytes:
        raise NotApplicable(f"{elements} numbers to compare need more memory than the policy allows")
    with np.errstate(all="ignore"):  # infinities are told by `align`
        update = {s.name: _state(files, last, s) - _state(files, first, s) for s in specs}
    behind = _released_as(contents)
    target = {s.name: _numbers(held[behind[s.name]][1], held[behind[s.name]][0]) for s in specs}
    return align(update, target, chosen, draw=draw, shown=shown)


def _own(examination: Examination, held: Tensors, contents: Contents) -> bool:
    """Whether a file has the bytes of the last state, in every parameter that it has."""
    last = dict(zip((s.name for s in contents.program.layout), examination.last_state, strict=True))
    behind = _released_as(contents)
    had = {s: held[behind[s]][1] for s in last if s.startswith("parameters/") and behind[s] in held}
    return bool(had) and all(hashlib.sha256(data).digest() == last[name] for name, data in had.items())


def fitting(groups: Sequence[Group], held: Tensors, contents: Contents) -> tuple[tuple[Group, ...], str]:
    """The groups whose parameters a file has, and why there are no others."""
    if not groups:
        return (), "nothing in the layout looks like a layer of hidden units"
    specs, behind = {s.name: s for s in contents.program.layout}, _released_as(contents)
    fit, why = [], ""
    for group in groups:
        wrong = [
            problem
            for axis in group.axes
            if axis.tensor.startswith("parameters/")
            and (problem := _problem(specs[axis.tensor], held.get(behind[axis.tensor])))
        ]
        if not wrong:
            fit.append(group)
        why = why or "".join(wrong[:1])
    return tuple(fit), why


def _problem(own: TensorSpec, other: tuple[TensorSpec, bytes] | None) -> str:
    """Why a tensor of the file does not stand for one of the state; empty if it does."""
    if own.dtype not in NUMPY:
        return f"{own.name} is of type {own.dtype}"
    if other is None:
        return f"the file has no tensor for {own.name}"
    if other[0].shape != own.shape:
        return f"{other[0].name!r} has shape {other[0].shape}, in the bundle {own.shape}"
    return "" if other[0].dtype in NUMPY else f"{other[0].name!r} is of type {other[0].dtype}"


def _released_as(contents: Contents) -> dict[str, str]:
    """Of each parameter the name that a file has it under: the released one, or its own."""
    own = {s.name: s.name.partition("/")[2] for s in contents.program.layout}
    return own | {behind: name for name, behind in contents.release.tensors.items()}


def _state(files: Files, digests: Mapping[str, bytes], spec: TensorSpec) -> Numbers:
    return _numbers(read_blob(files, digests[spec.name], spec.size_bytes), spec)


def _numbers(data: bytes, spec: TensorSpec) -> Numbers:
    values: Numbers = numbers(data, spec.dtype).astype(np.float64).reshape(spec.shape)
    return values


def align(
    update: Mapping[str, Numbers],
    target: Mapping[str, Numbers],
    groups: Sequence[Group],
    *,
    draw: bytes,
    shown: Progress = lambda what, done, total: None,
) -> Alignment:
    """The test itself.

    Args:
        update: Of each parameter that a group has, the run's whole update.
        target: Of each the weights to compare with.
        groups: Hidden units that may be permuted.
        draw: Randomness, 32 bytes.
        shown: Told how many permutations were tried.

    Raises:
        NotApplicable: Something is no finite number, or nothing moved.
    """
    own, other = (_unit(tensors, what) for tensors, what in ((update, "update"), (target, "the weights")))
    axes = {name: found for name, found in by_tensor(enumerate(groups)).items() if name in own}
    generator = np.random.default_rng(int.from_bytes(draw, "big"))
    plain = _inner(own, other)
    drawn = []
    for number in range(PERMUTATIONS):
        order = orders(groups, generator)
        drawn.append(_inner(own, {name: _permuted(other[name], axes[name], order) for name in own}))
        shown("permuting hidden units", number + 1, PERMUTATIONS)
    # Sums in another order differ in their last bits, and an order may be the usual one.
    as_aligned = sum(value >= plain - 1e-12 for value in drawn)
    return Alignment(
        p=(1 + as_aligned) / (1 + PERMUTATIONS), cosine=plain, largest=max(drawn), groups=len(groups)
    )


def _unit(tensors: Mapping[str, Numbers], what: str) -> dict[str, Numbers]:
    """The same direction at length one, all tensors together."""
    largest = max((float(np.abs(t).max(initial=0.0)) for t in tensors.values()), default=0.0)
    if not np.isfinite(largest) or any(np.isnan(t).any() for t in tensors.values()):
        raise NotApplicable(f"{what}: not a finite number")
    if not largest:
        raise NotApplicable(f"{what}: all zero")
    scaled = {name: t / largest for name, t in tensors.items()}
    length = np.sqrt(sum(float(np.vdot(t, t)) for t in scaled.values()))
    return {name: t / length for name, t in scaled.items()}


def _inner(one: Mapping[str, Numbers], other: Mapping[str, Numbers]) -> float:
    return float(sum(np.vdot(own, other[name]) for name, own in one.items()))


def _permuted(
    values: Numbers, axes: Sequence[tuple[int, Axis]], order: Sequence[npt.NDArray[np.int64]]
) -> Numbers:
    for number, axis in axes:
        values = values.take(axis.places(order[number]), axis=axis.axis)
    return values
