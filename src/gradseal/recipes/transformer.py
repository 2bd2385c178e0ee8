"""A small causal transformer, as GPT-2 is built.

Layer norm comes before attention and before the perceptron, positions are learned, and the token embedding
is also the output's weight. Sources: A. Radford and others, "Language Models are Unsupervised Multitask
Learners", 2019, section 2.3, for the layout and the initialisation; A. Vaswani and others, "Attention Is All
You Need", 2017, section 3.2, for attention. Attention is written out in plain operators, so that a captured
program says what it does; the causal mask is made in the forward pass and is no part of the state.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

STD = 0.02


class Attention(nn.Module):
    """Attention of each position to itself and those before, in several heads."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """What each position found, of the shape that came in: (batch, length, width)."""
        batch, length, width = features.shape
        joint = self.queries_keys_values(features).view(batch, length, 3, self.heads, width // self.heads)
        queries, keys, values = joint.permute(2, 0, 3, 1, 4).unbind()
        scores = queries @ keys.transpose(-2, -1) / math.sqrt(width // self.heads)
        before = torch.ones(length, length, dtype=torch.bool, device=features.device).tril()
        shares = scores.masked_fill(~before, float("-inf")).softmax(dim=-1)
        found = functional.dropout(shares, self.dropout, self.training) @ values
        result: torch.Tensor = self.project(found.transpose(1, 2).reshape(batch, length, width))
        return result


class Block(nn.Module):
    """Attention and a perceptron, each normed before and added to what came in."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.norm2 = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.project = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features of the shape that came in: (batch, length, width)."""
        features = features + self.dropout(self.attention(self.norm1(features)))
        changed: torch.Tensor = self.dropout(
            self.project(functional.gelu(self.widen(self.norm2(features)), approximate="tanh"))
        )
        return features + changed


class Transformer(nn.Module):
    """From tokens to scores of each next token.

    Args:
        tokens: How many there are.
        length: Of the longest text, in tokens.
        width: Of the features; a multiple of `heads`.
        layers: Blocks, one after another.
        heads: Of attention in each block.
        dropout: The share of features and of attention that is left out.
    """

    def __init__(
        self,
        tokens: int,
        *,
        length: int = 64,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(tokens, width)
        self.positions = nn.Embedding(length, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self._initialise(layers)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Scores of each next token, shape (batch, length, tokens), for tokens of shape (batch, length)."""
        # Samples may be bytes, which keeps a bundle small; an embedding looks up int64.
        places = torch.arange(tokens.shape[1], device=tokens.device)
        features = self.dropout(self.tokens(tokens.long()) + self.positions(places))
        return functional.linear(self.norm(self.blocks(features)), self.tokens.weight)

    def _initialise(self, layers: int) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.endswith("project.weight"):
                # 2 × layers of them add to the same features, whose variance would grow with the depth.
                nn.init.normal_(parameter, std=STD / math.sqrt(2 * layers))
            elif parameter.dim() > 1:
                nn.init.normal_(parameter, std=STD)


def parameter_groups(model: nn.Module, weight_decay: float = 0.1) -> list[dict[str, Any]]:
    """Two parameter groups for AdamW: matrices decay; biases, norms and embeddings do not."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    decayed = [p for p in model.parameters() if p.dim() > 1 and id(p) not in embeddings]
    kept = [p for p in model.parameters() if p.dim() < 2 or id(p) in embeddings]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
