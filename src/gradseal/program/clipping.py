"""Clipping of gradients by their norm, with the bits of `torch.nn.utils.clip_grad_norm_` on a CPU.

In exact arithmetic the norm is rounded from an exact sum, and depends on no order. Knows torch by type only
until it is applied. Source: Pascanu et al. 2013, "On the difficulty of training recurrent neural networks";
PyTorch's documented rule. Format: docs/spec/program.md, section 5, and docs/spec/exact-operators.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradseal.errors import MalformedBundle, ReplayError
from gradseal.proof.canonical import Json, float_to_bits
from gradseal.proof.fields import Fields

if TYPE_CHECKING:
    import torch

_KIND = "norm"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipNorm:
    """Gradients scaled down together, if their common Euclidean norm is above a bound.

    Args:
        max_norm: The bound, positive and finite.
    """

    max_norm: float

    def apply(self, gradients: Mapping[str, torch.Tensor], *, exact: bool = False) -> dict[str, torch.Tensor]:
        """The gradients scaled, as new tensors; a norm that is not finite makes them zero or NaN.

        Args:
            gradients: By parameter name, all of one element type; the norm is taken in this order.
            exact: In exact arithmetic, else with torch's own operations.

        Raises:
            ReplayError: Numbers that torch cannot compute with; in exact arithmetic, a gradient of another
                element type than float32.
        """
        if not gradients:
            return {}
        if exact:
            return self._apply_exact(gradients)
        # Laid out as parameters are: kernels add up by position in memory.
        own = {name: gradient.contiguous() for name, gradient in gradients.items()}
        try:
            scale = self._scale(list(own.values()))
            return {name: gradient.mul(scale) for name, gradient in own.items()}
        except RuntimeError as e:
            raise ReplayError(f"gradients cannot be clipped: {e}", where="clip") from e

    def _apply_exact(self, gradients: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        import torch

        from gradseal.program.exact import updates

        for name, gradient in gradients.items():
            if gradient.dtype is not torch.float32:
                dtype = str(gradient.dtype).removeprefix("torch.")
                raise ReplayError(f"exact arithmetic takes float32, not {dtype}", where=f"clip: {name}")
        scale = self.max_norm / (updates.norm(gradients.values()) + 1e-6)
        factor = torch.tensor(1.0 if scale > 1 else scale, dtype=torch.float64).to(torch.float32)
        return {name: gradient.mul(factor.to(gradient.device)) for name, gradient in gradients.items()}

    def _scale(self, gradients: list[torch.Tensor]) -> torch.Tensor:
        import torch

        norms = [torch.linalg.vector_norm(g, 2.0) for g in gradients]
        total = torch.linalg.vector_norm(torch.stack(norms), 2.0)
        scale: torch.Tensor = self.max_norm / (total + 1e-6)
        return scale.clamp(max=1.0)

    def to_json(self) -> dict[str, Json]:
        """Its JSON form, spec section 5."""
        return {"kind": _KIND, "max": float_to_bits(self.max_norm)}


def clip_from_fields(fields: Fields) -> ClipNorm:
    """Reads the JSON form strictly.

    Raises:
        UnknownKind: A kind of clipping that this version does not know.
        MalformedBundle: A field is wrong.
    """
    fields.kind("kind", [_KIND])
    clip = ClipNorm(max_norm=fields.float_("max"))
    if not 0 < clip.max_norm < math.inf:
        raise MalformedBundle(f"{clip.max_norm!r} is not positive and finite", where=fields.where("max"))
    fields.end()
    return clip
