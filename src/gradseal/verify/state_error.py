"""How far the rest of a state is from the sealed one: what a segment leaves behind besides its parameters.

The next segment begins at it, so a false momentum moves parameters that are replayed honestly. Tensors of
floating point are compared in groups, all buffers as one, and the tensors that an optimizer keeps under one
key as one: the l2 distance of a group, relative to how far the sealed group moved over the segment. All
others, such as counters, have no noise, and must be equal to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from gradseal.program.memory import same_bits
from gradseal.verify.state_groups import groups_of


@dataclass(frozen=True, slots=True, kw_only=True)
class StateError:
    """The largest relative error over the groups.

    Args:
        ratio: It; 0 if no group differs, infinite where one did not move or is no number, or where a tensor
            that is not of floating point has other bits.
        group: Which group has it; empty if none differs. For tensors not of floating point, its name.
    """

    ratio: float = 0.0
    group: str = ""


def state_error(
    own: Mapping[str, torch.Tensor],
    other: Mapping[str, torch.Tensor],
    before: Mapping[str, torch.Tensor],
) -> StateError:
    """Compares all of a state but its parameters.

    Args:
        own: The replay's end.
        other: What it is to be: the sealed end, or a baseline's.
        before: Where both began.
    """
    worst = StateError()
    for group, names in groups_of(other).items():
        apart = [name for name in names if not same_bits(own[name], other[name])]
        counted = next((name for name in apart if not other[name].is_floating_point()), "")
        if counted:
            return StateError(ratio=math.inf, group=counted)
        if apart:
            moved = [name for name in names if other[name].is_floating_point()]
            ratio = _ratio(length(own, other, apart), length(before, other, moved))
            if ratio > worst.ratio:
                worst = StateError(ratio=ratio, group=group)
    return worst


def length(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor], names: Sequence[str]) -> float:
    """The Euclidean distance, whose squares neither overflow nor vanish; NaN if a number is none."""
    differences = [(a[n].double() - b[n].double()).abs() for n in names if a[n].numel()]
    each = [float(d.max()) for d in differences]
    if any(map(math.isnan, each)):
        return math.nan
    largest = max(each, default=0.0)
    if not largest or not math.isfinite(largest):
        return largest
    return largest * math.sqrt(sum(float((d / largest).square().sum()) for d in differences))


def _ratio(error: float, change: float) -> float:
    if error == 0:
        return 0.0
    if not (math.isfinite(error) and 0 < change < math.inf):
        return math.inf
    return error / change
