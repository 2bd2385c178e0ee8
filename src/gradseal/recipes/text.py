"""Text: Python's own documentation of its language, as the standard library ships it for `help()`.

The text is `pydoc_data.topics`, some 460,000 characters that differ between versions of Python. Topics repeat
one another, so each paragraph is kept once; then the last tenth tells how good the net is. Source of the
data: "The Python Language Reference" and "The Python Standard Library", Python Software Foundation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pydoc_data.topics import topics
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import TensorDataset

from gradseal.recipes.recipe import Recipe
from gradseal.recipes.transformer import Transformer, parameter_groups

LENGTH = 64
STRIDE = 32
HELD_OUT = 10
WARMING_UP = 10
_AT_ONCE = 100


def recipe() -> Recipe:
    """1,000 steps of AdamW, 32 windows of 64 characters each, sealed every 25 steps.

    The learning rate rises for a tenth of the steps, then falls to 0 along a cosine. A sample is 65 bytes:
    each character but the last is to say the next one.
    """
    text = unrepeated(topics[name] for name in sorted(topics))
    characters = {character: number for number, character in enumerate(sorted(set(text)))}
    numbers = torch.tensor([characters[c] for c in text], dtype=torch.uint8)
    end = len(numbers) - len(numbers) // HELD_OUT
    held_out = windows(numbers[end:], LENGTH)

    def evaluate(model: nn.Module) -> str:
        bits = bits_per_character(model, held_out)
        return f"{bits:.2f} bits per character on {len(held_out) * LENGTH} characters it never saw"

    return Recipe(
        build=lambda: Transformer(len(characters), length=LENGTH, width=96),
        optimizer=lambda model: torch.optim.AdamW(parameter_groups(model), lr=0.01, betas=(0.9, 0.99)),
        schedule=warm_up_then_cosine,
        clip=1.0,
        loss=loss,
        data=TensorDataset(windows(numbers[:end], STRIDE)),
        batch_size=32,
        steps=1000,
        every=25,
        evaluate=evaluate,
    )


def loss(model: nn.Module, batch: Any) -> torch.Tensor:
    """Mean cross entropy of each next character, for a batch of windows of shape (batch, 65)."""
    (window,) = batch
    scores = model(window[:, :-1])
    return functional.cross_entropy(scores.flatten(0, 1), window[:, 1:].flatten().long())


def unrepeated(texts: Iterable[str]) -> str:
    """The texts' paragraphs, each where it comes first."""
    # A dict keeps the order of what was put in, and the first of equal keys.
    paragraphs = dict.fromkeys(paragraph for text in texts for paragraph in text.split("\n\n"))
    return "\n\n".join(paragraphs)


def windows(numbers: torch.Tensor, stride: int) -> torch.Tensor:
    """All whole windows of 65 characters, each `stride` after the one before; shape (windows, 65)."""
    return numbers.unfold(0, LENGTH + 1, stride).contiguous()


def warm_up_then_cosine(optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
    """A learning rate that rises linearly for a tenth of the steps, then falls to 0 along half a cosine."""
    warming_up = max(1, steps // WARMING_UP)

    def share(step: int) -> float:
        if step < warming_up:
            return (step + 1) / warming_up
        return (1 + math.cos(math.pi * (step - warming_up) / max(1, steps - warming_up))) / 2

    return LambdaLR(optimizer, share)


def bits_per_character(model: nn.Module, held_out: torch.Tensor) -> float:
    """The mean number of bits that a next character takes; leaves the model in training mode."""
    model.eval()
    with torch.no_grad():
        nats = [float(loss(model, (some,))) * len(some) for some in torch.split(held_out, _AT_ONCE)]
    model.train()
    return sum(nats) / len(held_out) / math.log(2)
