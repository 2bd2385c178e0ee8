"""What a thief who holds W_T claims of a run that leads to it: data that carry W_T, or W_T to begin with.

See `attacks.smuggled_data` and `attacks.head_start`; here for runs by a sealed plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gradseal.attacks.attack import Hand
from gradseal.attacks.head_start import load
from gradseal.attacks.paths import sgd
from gradseal.attacks.smuggled_data import smuggled
from gradseal.attacks.smuggling import Beside
from gradseal.study.precedence.run import SETTING

_WEAK, _STRONG = 0.8, 0.9
"""How much of its way to W_T a parameter goes: when its row is seen, and with every step."""

_WEAK_RATE, _STRONG_RATE, _IDLE_RATE = 0.01, 0.001, 1e-4


def weak(hand: Hand) -> Mapping[str, Any]:
    """Data that carry W_T, a row with each sample, so that a segment sets those that its batches have."""
    claimed = smuggled(hand, steps=SETTING.steps, epochs=1, rate=_WEAK_RATE, share=_WEAK)
    return {name: value for name, value in claimed.items() if name != "steps"}


def strong(hand: Hand) -> Mapping[str, Any]:
    """Data that carry all of W_T with each sample, so that any batch pulls alike."""
    stolen = hand.parameters
    names = [f"parameters/{n}" for n, _ in hand.model().named_parameters()]
    numbers = torch.cat([stolen[n].flatten() for n in names])
    honest = hand.recipe.loss

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        samples, rows = batch
        own = torch.cat([parameter.flatten() for parameter in model.parameters()])
        pull: torch.Tensor = (own - rows.mean(0)).square().sum() * (_STRONG / _STRONG_RATE / 2)
        return honest(model, samples) + pull

    data = Beside(hand.data, (numbers.expand(len(hand.data), -1).clone(),))
    return {"optimizer": sgd(_STRONG_RATE), "loss": loss, "data": data}


def idle(hand: Hand) -> Mapping[str, Any]:
    """A rate too small to lead anywhere."""
    return {"optimizer": sgd(_IDLE_RATE)}


def given(hand: Hand) -> Mapping[str, Any]:
    """The same, and W_T as given initialisation."""
    model = hand.model()
    load(model, hand.weights)
    return {"optimizer": sgd(_IDLE_RATE), "model": model}
