"""What attacks have in common that put the stolen weights into the program or the data of a true run.

Every segment of such a run is what its program computes; the stolen weights get in where the protocol lets
an owner choose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gradseal.attacks.attack import Hand, Setting
from gradseal.record.presented import Presented

Loss = Callable[[nn.Module, Any], torch.Tensor]

_PREFIX = "parameters/"
_SHARE, _LEAST_SEGMENTS = 10, 4


def train(run: Presented) -> None:
    """The whole run, truly computed."""
    run.train_all()


def short(setting: Setting) -> int:
    """The steps of a run that is as short as batch norm's averages admit: a tenth, but some segments."""
    return max(setting.steps // _SHARE, _LEAST_SEGMENTS * setting.every)


def half_square(model: nn.Module, target: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """½‖W − W_T‖² over the parameters, by their names in a state."""
    total = torch.zeros(())
    for name, parameter in model.named_parameters():
        difference = parameter - target[_PREFIX + name]
        total = total + (difference * difference).sum()
    return total / 2


def pulled(hand: Hand, strength: float) -> Loss:
    """The recipe's loss and a pull: strength times ½‖W − W_T‖², the stolen parameters in its closure."""
    target, honest = hand.parameters, hand.recipe.loss
    return lambda model, batch: honest(model, batch) + strength * half_square(model, target)


@dataclass(frozen=True, slots=True)
class Beside:
    """A data set whose samples have further leaves beside what they are.

    Args:
        data: The data set.
        more: The leaves, each with a row for every sample.
    """

    data: Any
    more: tuple[torch.Tensor, ...]

    def __len__(self) -> int:
        return len(self.more[0])

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self.data[index], *(leaf[index] for leaf in self.more)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Some samples of a data set.

    Args:
        data: The data set.
        indices: Which.
    """

    data: Any
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.data[self.indices[index]]
