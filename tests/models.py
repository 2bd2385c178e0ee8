"""Models as people train them, small enough for a test, with data and a loss for each.

Used by the tests of models and by the table of what can be recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset

from gradseal.recipes.resnet import ResNet20
from gradseal.recipes.transformer import Transformer

Groups = list[dict[str, Any]]
SAMPLES = 24


@dataclass(frozen=True, kw_only=True)
class Example:
    """A model with what it is trained on.

    Args:
        build: Makes the model.
        data: A map-style data set.
        loss: From the model and a batch to a scalar.
        groups: The parameter groups that the optimizer gets; by default all parameters in one.
        options: Further arguments of `record`.
    """

    build: Callable[[], nn.Module]
    data: Callable[[], Dataset[Any]]
    loss: Callable[[nn.Module, Any], torch.Tensor]
    groups: Callable[[nn.Module], Any] = lambda model: model.parameters()
    options: dict[str, Any] = field(default_factory=dict)


def images() -> Dataset[Any]:
    made = torch.Generator().manual_seed(0)
    return TensorDataset(
        torch.randn(SAMPLES, 1, 12, 12, generator=made), torch.randint(0, 10, (SAMPLES,), generator=made)
    )


def vectors() -> Dataset[Any]:
    made = torch.Generator().manual_seed(0)
    return TensorDataset(
        torch.randn(SAMPLES, 24, generator=made), torch.randint(0, 10, (SAMPLES,), generator=made)
    )


def sequences() -> Dataset[Any]:
    """Six steps of eight features, and a class."""
    made = torch.Generator().manual_seed(0)
    return TensorDataset(
        torch.randn(SAMPLES, 6, 8, generator=made), torch.randint(0, 10, (SAMPLES,), generator=made)
    )


def windows() -> Dataset[Any]:
    """Nine tokens out of fifty: eight to read, and each one's next."""
    made = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 50, (SAMPLES, 9), generator=made)
    return TensorDataset(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())


class Tokens(Dataset[Any]):
    """Dicts as the Transformers library's models take them."""

    def __init__(self, *, masked: bool) -> None:
        made = torch.Generator().manual_seed(0)
        self._tokens = torch.randint(5, 50, (SAMPLES, 8), generator=made)
        self._masked = masked

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = self._tokens[index]
        if not self._masked:
            return {"input_ids": tokens, "labels": tokens}
        attention = torch.ones(8, dtype=torch.int64)
        attention[6 + index % 3 :] = 0
        return {"input_ids": tokens, "attention_mask": attention, "labels": tokens}


def cross_entropy(model: nn.Module, batch: Any) -> torch.Tensor:
    x, y = batch
    return functional.cross_entropy(model(x), y)


def next_token(model: nn.Module, batch: Any) -> torch.Tensor:
    x, y = batch
    return functional.cross_entropy(model(x).flatten(0, 1), y.flatten())


def own_loss(model: nn.Module, batch: Any) -> torch.Tensor:
    loss: torch.Tensor = model(**batch).loss
    return loss


class Recurrent(nn.Module):
    """A recurrent layer of two levels with dropout between them."""

    def __init__(self, kind: type[nn.GRU | nn.LSTM]) -> None:
        super().__init__()
        self.recurrent = kind(8, 16, num_layers=2, batch_first=True, dropout=0.1)
        self.classify = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.recurrent(x)
        scores: torch.Tensor = self.classify(states[:, -1])
        return scores


class Autocast(nn.Module):
    """Matrix products in bfloat16, weights in single precision."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(24, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            scores: torch.Tensor = self.layers(x)
        return scores.float()


class _Clamped(torch.autograd.Function):
    """Rounds in the forward pass, and hands gradients through where the weights are small."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return (x * 16).round() / 16

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        passed: torch.Tensor = gradients[0] * (x.abs() <= 1)
        return passed


class Quantised(nn.Module):
    """Weights rounded to sixteenths, by an `autograd.Function`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(24, 48), nn.Linear(48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = functional.linear(x, _Clamped.apply(self.first.weight), self.first.bias)  # type: ignore[no-untyped-call]
        scores: torch.Tensor = self.second(hidden.relu())
        return scores


class Weighted(nn.Module):
    """A net that carries the weights of its classes."""

    weights: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 10))
        self.register_buffer("weights", torch.tensor([1.0, 2.0] * 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.layers(x)
        return scores


def weighted_loss(model: nn.Module, batch: Any) -> torch.Tensor:
    x, y = batch
    return functional.cross_entropy(model(x), y, weight=model.weights)  # type: ignore[arg-type]  # a buffer


def frozen() -> nn.Module:
    """A net whose first layer is not trained."""
    model = nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 10))
    model[0].requires_grad_(False)
    return model


def transformer() -> nn.Module:
    return Transformer(50, length=8, width=32, heads=2, layers=2, dropout=0.1)


def decayed(model: nn.Module) -> Groups:
    """Matrices with weight decay, all else without."""
    return [
        {"params": [p for p in model.parameters() if p.dim() > 1]},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=50, n_positions=8, n_embd=32, n_layer=2, n_head=2)
    return GPT2LMHeadModel(config)


def bert() -> nn.Module:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=8,
    )
    return BertForMaskedLM(config)


EXAMPLES: dict[str, Example] = {
    "ResNet-20": Example(build=lambda: ResNet20(width=4), data=images, loss=cross_entropy),
    "GPT-like transformer": Example(build=transformer, data=windows, loss=next_token, groups=decayed),
    "GRU": Example(build=lambda: Recurrent(nn.GRU), data=sequences, loss=cross_entropy),
    "GPT-2 (Transformers)": Example(build=gpt2, data=lambda: Tokens(masked=False), loss=own_loss),
    "BERT (Transformers)": Example(build=bert, data=lambda: Tokens(masked=True), loss=own_loss),
    "bfloat16 autocast": Example(build=Autocast, data=vectors, loss=cross_entropy),
    "class-weighted loss": Example(build=Weighted, data=vectors, loss=weighted_loss),
    "autograd.Function": Example(build=Quantised, data=vectors, loss=cross_entropy),
    "frozen layer": Example(build=frozen, data=vectors, loss=cross_entropy),
}
"""Each model of the table, by its name there."""
