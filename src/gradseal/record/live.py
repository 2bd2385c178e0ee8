"""The state of a run where it lives: in the user's model and optimizer.

Reads the tensors afresh each time, since an optimizer makes its momentum in the first step, and notices when
something between two steps changed them. Format: docs/spec/program.md, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import xxhash
from torch import nn

from gradseal.errors import CaptureError, RecordError
from gradseal.program.capture_optimizer import momentum_of
from gradseal.program.memory import dtype_name
from gradseal.program.optimizers import SGD
from gradseal.program.tensors import ITEM_SIZE_BYTES, TensorSpec

_OPTIONS = (
    "lr",
    "momentum",
    "dampening",
    "weight_decay",
    "nesterov",
    "maximize",
    "differentiable",
    "fused",
)


class LiveState:
    """Every tensor that the next step depends on.

    Args:
        model: Whose parameters and buffers they are.
        optimizer: Whose momentum they are.
        named: The same optimizer by name.

    Raises:
        CaptureError: The tensors are on several devices, share memory, or are of a type without an encoding.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, named: SGD) -> None:
        self._model = model
        self._optimizer = optimizer
        self._parameters = dict(model.named_parameters())
        self._buffers = dict(model.named_buffers())
        self._owners = dict(named.tensors())
        # Momentum that the optimizer has not made yet is zero.
        self._own = {
            name: torch.zeros_like(self._parameters[parameter], requires_grad=False)
            for name, parameter in self._owners.items()
        }
        self.device = self._one_device()
        self.layout = tuple(_spec(name, tensor) for name, tensor in self.tensors().items())
        _check_separate(self.tensors())

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor by state name, in the layout's order; sharing memory with the model and optimizer."""
        state = {f"parameters/{name}": p.detach() for name, p in self._parameters.items()}
        # A module may replace a buffer rather than write to it.
        buffers = dict(self._model.named_buffers())
        state |= {f"buffers/{name}": buffers.get(name, old) for name, old in self._buffers.items()}
        for name, parameter in self._owners.items():
            kept = momentum_of(self._optimizer, self._parameters[parameter])
            state[name] = self._own[name] if kept is None else kept
        return state

    def snapshot(self) -> dict[str, torch.Tensor]:
        """A copy of every tensor."""
        return {name: tensor.clone() for name, tensor in self.tensors().items()}

    def install_momentum(self, trained: Mapping[str, torch.Tensor]) -> None:
        """Gives `trained` parameters' momentum to the optimizer, as if it had taken the first step itself."""
        for name, parameter in self._owners.items():
            weight = self._parameters[parameter]
            # One that the optimizer had from before is the state's already.
            if parameter in trained and momentum_of(self._optimizer, weight) is None:
                self._optimizer.state[weight]["momentum_buffer"] = self._own[name]

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
        found: dict[str, object] = {}
        for number, group in enumerate(self._optimizer.param_groups):
            where = f"optimizer.param_groups[{number}]"
            found |= {f"{where}.{option}": group.get(option) for option in _OPTIONS}
            found[f"{where}.params"] = tuple(
                names.get(id(p), "one not of the model") for p in group["params"]
            )
        return found | {f"model.{n}.requires_grad": p.requires_grad for n, p in self._parameters.items()}

    def fingerprints(self) -> dict[str, int]:
        """A quick hash of every tensor, to notice a change; no evidence for anyone else."""
        return {name: fingerprint(tensor) for name, tensor in self.tensors().items()}

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


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors are equal to the bit, NaN patterns and signs of zero included."""
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    a, b = a.detach().contiguous().flatten(), b.detach().contiguous().flatten()
    return a.numel() == 0 or torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def largest_difference(
    names: Sequence[str], a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]
) -> float:
    """The largest absolute difference among the named tensors."""
    return max(
        (float((a[n].double() - b[n].double()).abs().max()) for n in names if a[n].numel()), default=0.0
    )


def fingerprint(tensor: torch.Tensor) -> int:
    """A quick hash of a tensor, to notice a change; no evidence for anyone else."""
    flat = tensor.detach().to("cpu").contiguous().flatten()
    return xxhash.xxh3_64_intdigest(flat.view(torch.uint8).numpy().data) if flat.numel() else 0


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
