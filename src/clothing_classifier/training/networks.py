"""Networks whose every class score is the mean of a map over the picture.

All of them share one form: normalisation, convolutional features, global average pooling, one linear layer. In that
form a class's score *is* the mean of that class's activation map (Zhou et al., 2016, "Learning deep features for
discriminative localization", https://arxiv.org/abs/1512.04150), so the evidence is exact and costs no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Statistics:
    """Per-channel mean and standard deviation of the training pixels, in units of 0 to 255, RGB order."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Normalisation(nn.Module):
    """Pixels in 0…255 → zero mean and unit variance; part of the network, so no caller can get it wrong."""

    mean: Tensor
    std: Tensor

    def __init__(self, statistics: Statistics) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(statistics.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(statistics.std).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Map ``float [N, 3, H, W]`` in 0…255 to normalised values of the same shape."""
        return (pixels - self.mean) / self.std


class Classifying(nn.Module):
    """Normalisation → features → average pooling → dropout → linear.

    Args:
        features: maps ``float [N, 3, H, W]`` to ``float [N, channels, h, w]``.
        channels: the number of channels that ``features`` gives, which is the embedding's size.
        classes: the number of classes.
        statistics: what the normalisation subtracts and divides by.
        dropout: the share of the embedding that is zeroed while training.
    """

    def __init__(
        self, features: nn.Module, channels: int, classes: int, statistics: Statistics, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.normalisation = Normalisation(statistics)
        self.features = features
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits ``float [N, classes]`` of ``pixels``, ``float [N, 3, H, W]`` in 0…255."""
        logits: Tensor = self.head(self.dropout(self.embed(pixels).mean((2, 3))))
        return logits

    def embed(self, pixels: Tensor) -> Tensor:
        """Return the feature maps ``float [N, channels, h, w]`` before pooling."""
        maps: Tensor = self.features(self.normalisation(pixels))
        return maps


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with channel attention and a shortcut.

    He et al., 2016 (https://arxiv.org/abs/1512.03385); average-pooled shortcut from He et al., 2019
    (https://arxiv.org/abs/1812.01187); squeeze-and-excitation from Hu et al., 2018 (https://arxiv.org/abs/1709.01507).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, 3, stride)
        self.second = nn.Sequential(*_convolution(outputs, outputs, 3)[:2])
        # A block starts as its shortcut: deep networks without pretraining begin to learn sooner.
        nn.init.zeros_(self.second[1].weight)  # type: ignore[arg-type]
        squeezed = max(8, outputs // 8)
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(outputs, squeezed, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeezed, outputs, 1),
            nn.Sigmoid(),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            pool = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
            self.shortcut = nn.Sequential(pool, *_convolution(inputs, outputs, 1)[:2])

    def forward(self, maps: Tensor) -> Tensor:
        """Map ``float [N, inputs, h, w]`` to ``float [N, outputs, h/stride, w/stride]``."""
        change = self.second(self.first(maps))
        return torch.relu(change * self.attention(change) + self.shortcut(maps))


def custom_cnn(widths: Sequence[int] = (48, 96, 192, 320), depths: Sequence[int] = (1, 2, 2, 1)) -> nn.Module:
    """Build the features of the custom CNN: a small residual network for a few thousand photos, never pretrained.

    Args:
        widths: channels of each stage; a stage has half the resolution of the one before it, the first a quarter.
        depths: residual blocks of each stage.

    Returns:
        A module from ``float [N, 3, H, W]`` to ``float [N, widths[-1], H/32, W/32]`` (rounded up).
    """
    layers: list[nn.Module] = [
        *_convolution(3, widths[0] // 2, 3, 2),
        *_convolution(widths[0] // 2, widths[0], 3, 2),
    ]
    inputs = widths[0]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for block in range(depth):
            layers.append(ResidualBlock(inputs, width, 2 if stage > 0 and block == 0 else 1))
            inputs = width
    return nn.Sequential(*layers)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
