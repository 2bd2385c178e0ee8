"""The state of a run where it lives: in the user's model and optimizer.

Reads the tensors afresh each time, since an optimizer makes its own in the first step, and notices when
something between two steps changed them. Steps that Gradseal takes itself are put into the user's optimizer
as if it had taken them, so that it can go on from there. Format: docs/spec/program.md, section 2.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

import torch
import xxhash
from torch import nn

from gradseal.errors import CaptureError, RecordError
from gradseal.program.capture_optimizer import install, kept_of, set_steps, settings_of
from gradseal.program.memory import dtype_name, same_bits, view_of
from gradseal.program.optimizers import Kept, Optimizer
from gradseal.program.tensors import ITEM_SIZE_BYTES, TensorSpec


class LiveState:
    """Every tensor that the next step depends on.

    Args:
        model: Whose parameters and buffers they are.
        optimizer: Whose momentum and other tensors they are.
        named: The same optimizer by name.

    Raises:
        CaptureError: The tensors are on several devices, share memory, or are of a type without an encoding.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, named: Optimizer) -> None:
        self._model = model
        self._optimizer = optimizer
        self._parameters = dict(model.named_parameters())
        self._buffers = dict(model.named_buffers())
        self._named = named
        self._kept = {kept.name: kept for kept in named.tensors()}
        self._own: dict[str, torch.Tensor] = {}
        self._stepped: dict[str, nn.Parameter] = {}
        self.device = self._one_device()
        self.layout = tuple(_spec(name, tensor) for name, tensor in self.tensors().items())
        _check_separate(self.tensors())

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor by state name, in the layout's order; sharing memory with the model and optimizer."""
        state = {f"parameters/{name}": p.detach() for name, p in self._parameters.items()}
        # A module may replace a buffer rather than write to it.
        buffers = dict(self._model.named_buffers())
        state |= {f"buffers/{name}": buffers.get(name, old) for name, old in self._buffers.items()}
        return state | {name: self._kept_tensor(kept) for name, kept in self._kept.items()}

    def let_go(self) -> None:
        """Frees the tensors that the optimizer is about to make; what it does not make is made again."""
        self._own.clear()

    def install_kept(self, trained: Collection[str], steps: int) -> None:
        """Gives the optimizer what Gradseal's own steps keep; to be called after each of them.

        Args:
            trained: The parameters that had a gradient; to others the optimizer does nothing.
            steps: How many steps of the run are done.
        """
        if self._stepped:
            return
        # What the optimizer had from before is the state's already.
        made = {name: self._own[name] for name in self._kept if name in self._own}
        self._stepped = {name: self._parameters[name] for name in trained}
        install(self._optimizer, self._named, self._stepped, made, self._named.steps_before + steps)

    def settle(self, steps: int) -> None:
        """Sets the optimizer's counters as if it had taken Gradseal's own steps itself; cheap.

        To be called before a step of the user's and at each segment's end.

        Args:
            steps: How many steps of the run are done.
        """
        if self._stepped:
            set_steps(self._optimizer, self._named, self._stepped, self._named.steps_before + steps)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, torch.Tensor], steps: int) -> None:
        """Puts a saved state into the model and the optimizer, in place.

        Args:
            tensors: Every tensor by state name, of the layout's types and shapes.
            steps: How many steps of the run it is after.
        """
        state = self.tensors()
        for name, tensor in state.items():
            tensor.copy_(tensors[name])
        total = self._named.steps_before + steps
        kept = {name: state[name] for name in self._kept}
        if total == 0:
            # The optimizer makes what it has not made yet, and knows its first step by that.
            kept = {name: tensor for name, tensor in kept.items() if tensor is not self._own.get(name)}
        else:
            self._stepped = {name: self._parameters[name] for name in self._named.parameters()}
        parameters = {name: self._parameters[name] for name in self._named.parameters()}
        install(self._optimizer, self._named, parameters, kept, total)

    def check_unreplaced(self) -> None:
        """Refuses a model that has other parameters or buffers than at the start.

        Raises:
            RecordError: One is new, gone, another object, or of another type or shape; names it.
        """
        parameters = dict(self._model.named_parameters())
        for name in {**self._parameters, **parameters}:
            if self._parameters.get(name) is not parameters.get(name):
                raise RecordError("a parameter was replaced during the recording", where=f"model.{name}")
        buffers = dict(self._model.named_buffers())
        for name in {**self._buffers, **buffers}:
            if (name in self._buffers) != (name in buffers):
                raise RecordError("a buffer came or went during the recording", where=f"model.{name}")
        for spec, tensor in zip(self.layout, self.tensors().values(), strict=True):
            if (spec.dtype, spec.shape) != (dtype_name(tensor.dtype), tuple(tensor.shape)):
                raise RecordError("changed its type or shape during the recording", where=spec.name)

    def settings(self) -> dict[str, object]:
        """What the optimizer is set to and what is trained, by a name for people."""
        names = {id(p): name for name, p in self._parameters.items()}
        found = settings_of(self._optimizer)
        for number, group in enumerate(self._optimizer.param_groups):
            found[f"optimizer.param_groups[{number}].params"] = tuple(
                names.get(id(p), "one not of the model") for p in group["params"]
            )
        return found | {f"model.{n}.requires_grad": p.requires_grad for n, p in self._parameters.items()}

    def fingerprints(self) -> dict[str, int]:
        """A quick hash of every tensor, to notice a change; no evidence for anyone else."""
        return {name: fingerprint(tensor) for name, tensor in self.tensors().items()}

    def _kept_tensor(self, kept: Kept) -> torch.Tensor:
        """The optimizer's tensor; until it has made it, one of ours, as torch would make it."""
        parameter = self._parameters[kept.parameter]
        made = kept_of(self._optimizer, parameter, kept.key)
        if made is not None:
            self._own.pop(kept.name, None)
            return made
        if kept.name not in self._own:
            self._own[kept.name] = _fresh(kept, parameter)
        return self._own[kept.name]

    def _one_device(self) -> torch.device:
        devices = {t.device for t in [*self._parameters.values(), *self._buffers.values()]}
        if len(devices) != 1:
            raise CaptureError(
                f"its tensors are on {len(devices)} devices", where="model", advice="use one device"
            )
        return devices.pop()


def differing(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> list[str]:
    """The names of the tensors that do not have the same bits."""
    return [name for name, tensor in first.items() if not same_bits(tensor, second[name])]


def largest_difference(
    names: Sequence[str], a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]
) -> float:
    """The largest absolute difference among the named tensors."""
    return max(
        (float((a[n].double() - b[n].double()).abs().max()) for n in names if a[n].numel()), default=0.0
    )


def fingerprint(tensor: torch.Tensor) -> int:
    """A quick hash of a tensor, to notice a change; no evidence for anyone else."""
    return xxhash.xxh3_64_intdigest(view_of(tensor)) if tensor.numel() else 0


def _fresh(kept: Kept, parameter: nn.Parameter) -> torch.Tensor:
    """A kept tensor before the first step; what is a product starts from one."""
    if kept.shape_like_parameter:
        return torch.zeros_like(parameter, requires_grad=False)
    # On the CPU, where torch keeps it.
    return torch.ones((), dtype=getattr(torch, kept.dtype or dtype_name(parameter.dtype)))


def _check_separate(tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuses tensors that share memory: a write to one would change the other, but not in a replay."""
    ranges = sorted((t.data_ptr(), t.data_ptr() + t.nbytes, name) for name, t in tensors.items() if t.nbytes)
    for (_, end, name), (begin, _, other) in pairwise(ranges):
        if begin < end:
            raise CaptureError(f"shares memory with {other}", where=name, advice="clone one of them")


def _spec(name: str, tensor: torch.Tensor) -> TensorSpec:
    dtype = dtype_name(tensor.dtype)
    if dtype not in ITEM_SIZE_BYTES:
        raise CaptureError(f"a tensor of {dtype}, which has no encoding", where=name)
    return TensorSpec(name=name, dtype=dtype, shape=tuple(tensor.shape))
