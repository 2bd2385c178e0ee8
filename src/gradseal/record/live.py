"""The state of a run where it lives: in the user's model and optimizer.

Reads the tensors afresh each time, since an optimizer makes its momentum in the first step, and notices when
something between two steps changed them. Format: docs/spec/program.md, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import xxhash
from torch import nn

from gradseal.errors import CaptureError, RecordError
from gradseal.program.capture_optimizer import momentum_of
from gradseal.program.memory import dtype_name
from gradseal.program.optimizers import SGD
from gradseal.program.tensors import ITEM_SIZE_BYTES, TensorSpec


class LiveState:
    """Every tensor that the next step depends on.

    Args:
        model: Whose parameters and buffers they are.
        optimizer: Whose momentum they are.
        named: The same optimizer by name.

    Raises:
        CaptureError: The tensors are on several devices, or of a type without an encoding.
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

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor by state name, in the layout's order; sharing memory with the model and optimizer."""
        state = {f"parameters/{name}": p.detach() for name, p in self._parameters.items()}
        # A module may replace a buffer rather than write to it.
        state |= {f"buffers/{name}": b for name, b in self._model.named_buffers() if name in self._buffers}
        for name, parameter in self._owners.items():
            kept = momentum_of(self._optimizer, self._parameters[parameter])
            state[name] = self._own[name] if kept is None else kept
        return state

    def snapshot(self) -> dict[str, torch.Tensor]:
        """A copy of every tensor."""
        return {name: tensor.clone() for name, tensor in self.tensors().items()}

    def install_momentum(self, trained: Mapping[str, torch.Tensor]) -> None:
        """Gives the optimizer its momentum, as if it had taken the first step itself, for `trained` parameters."""
        for name, parameter in self._owners.items():
            if parameter in trained:
                self._optimizer.state[self._parameters[parameter]]["momentum_buffer"] = self._own[name]

    def check_unreplaced(self) -> None:
        """Refuses a model whose parameters are other objects than at the start.

        Raises:
            RecordError: One is.
        """
        for name, parameter in self._model.named_parameters():
            if self._parameters.get(name) is not parameter:
                raise RecordError("a parameter was replaced during the recording", where=f"model.{name}")

    def fingerprints(self) -> dict[str, int]:
        """A quick hash of every tensor, to notice a change; no evidence for anyone else."""
        return {name: _fingerprint(tensor) for name, tensor in self.tensors().items()}

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


def _fingerprint(tensor: torch.Tensor) -> int:
    flat = tensor.detach().to("cpu").contiguous().flatten()
    return xxhash.xxh3_64_intdigest(flat.view(torch.uint8).numpy()) if flat.numel() else 0


def _spec(name: str, tensor: torch.Tensor) -> TensorSpec:
    dtype = dtype_name(tensor.dtype)
    if dtype not in ITEM_SIZE_BYTES:
        raise CaptureError(f"a tensor of {dtype}, which has no encoding", where=name)
    return TensorSpec(name=name, dtype=dtype, shape=tuple(tensor.shape))
