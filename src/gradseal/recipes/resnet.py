"""ResNet-20 for small images.

As in K. He, X. Zhang, S. Ren and J. Sun, "Deep Residual Learning for Image Recognition", 2015, section 4.2:
three stages of three basic blocks, and shortcuts without parameters (option A). The only difference is that
the images may have any size and number of channels.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class BasicBlock(nn.Module):
    """Two convolutions of 3 × 3 with batch norm, and a shortcut around them.

    Args:
        inputs: Channels of what comes in.
        outputs: Channels of what comes out; those that the shortcut lacks are zero.
        stride: Of the first convolution, and of the shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.missing = outputs - inputs

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features of shape (batch, outputs, rows / stride, columns / stride), rounded up."""
        changed = functional.relu(self.norm1(self.conv1(features)))
        changed = self.norm2(self.conv2(changed))
        return functional.relu(changed + self._shortcut(features))

    def _shortcut(self, features: torch.Tensor) -> torch.Tensor:
        if self.stride > 1:
            features = features[:, :, :: self.stride, :: self.stride]
        if self.missing:
            before = self.missing // 2
            features = functional.pad(features, (0, 0, 0, 0, before, self.missing - before))
        return features


class ResNet20(nn.Module):
    """Twenty layers with parameters; 269,434 parameters for one channel, ten classes and width 16.

    Args:
        channels: Of the images.
        classes: To tell apart.
        width: Channels of the first stage; the second and third have twice and four times as many.
    """

    def __init__(self, channels: int = 1, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.stages = nn.Sequential(
            *_stage(width, width, stride=1),
            *_stage(width, 2 * width, stride=2),
            *_stage(2 * width, 4 * width, stride=2),
        )
        self.classify = nn.Linear(4 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(self.classify.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores, shape (batch, classes), for images of shape (batch, channels, rows, columns)."""
        features = self.stages(functional.relu(self.norm(self.conv(images))))
        scores: torch.Tensor = self.classify(features.mean(dim=(2, 3)))
        return scores


def _stage(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [
        BasicBlock(inputs, outputs, stride),
        BasicBlock(outputs, outputs),
        BasicBlock(outputs, outputs),
    ]
