"""Networks whose every class score is the mean of a map over the picture.

All of them share one form: normalisation, convolutional features, global average pooling, one linear layer. In that
form a class's score *is* the mean of that class's activation map (Zhou et al., 2016, "Learning deep features for
discriminative localization", https://arxiv.org/abs/1512.04150), so the evidence is exact and costs no gradient.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clothing_classifier.training.head import Head

_NUMBERED: Final = re.compile(r"\D*\d+")
_FEWEST_IN_A_BLOCK: Final = 4
_BANDS: Final = 3
_FIRST_STAGE: Final = 2
_DEPTHS: Final = (1, 2, 2, 1)


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

    def install(self, head: Head) -> None:
        """Take a head that was solved for on this network's features."""
        if isinstance(self.features, Pyramid):
            weight, bias = head.weight, head.bias
            self.features.standardise(head)
        else:
            weight, bias = head.fold()
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(weight))
            self.head.bias.copy_(torch.from_numpy(bias))

    def standardise(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the embeddings that features from before a head was installed have become by that.

        Args:
            features: ``float32 [N, D]``, as `compute_features` gives them; the backbone has not learned since.
        """
        if not isinstance(self.features, Pyramid):
            return features
        with torch.inference_mode():
            return ((torch.from_numpy(features) - self.features.centre.cpu()) / self.features.spread.cpu()).numpy()

    def judge(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the logits, ``float32 [N, classes]``, of embeddings, ``float32 [N, D]``."""
        with torch.inference_mode():
            return F.linear(torch.from_numpy(embeddings), self.head.weight.cpu(), self.head.bias.cpu()).numpy()


class Stages(nn.Module):
    """A timm EfficientNet or MobileNet up to its last block: the maps after each of its later stages.

    timm's ``features_only`` gives one map a resolution; these networks have more stages than resolutions, and on frozen
    features the stages that it leaves out are worth a point of F1.

    Args:
        network: a network whose parts are called ``conv_stem``, ``bn1`` and ``blocks``; they keep their names.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.conv_stem, self.bn1, self.blocks = network.conv_stem, network.bn1, network.blocks

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Map ``float [N, 3, H, W]`` to a map of each stage, the deepest last."""
        maps = self.bn1(self.conv_stem(pixels))
        found = []
        for number, stage in enumerate(self.blocks):
            maps = stage(maps)
            if number >= _FIRST_STAGE:
                found.append(maps)
        return found


class Pyramid(nn.Module):
    """The last stages of a backbone side by side, each averaged onto the grid of the deepest, in regions of the photo.

    Deep features say what a thing is, earlier ones still know cloth, collars and seams. A garment lies or hangs upright
    in its photo, so it also matters where they are: what is sleeve at the top is leg at the bottom, and a sleeve is at
    the sides. So the photo is cut into three horizontal bands, and each band, if wanted, into its middle third and its
    two sides, which are one region together, as garments are symmetric. The channels are given once for each region,
    scaled so that their mean over the picture is the mean over that region. All of it is linear: the evidence stays
    exact. On the frozen EfficientNet-B0 of this project's figures, three bands instead of one raise weighted F1 by
    about three points, and their middles and sides by another one and a half; a backbone that learns gains nothing from
    the latter.

    The channels come out standardised by ``centre`` and ``spread``, ``float [channels]``, once `Classifying.install`
    has set them: the scales of a backbone's channels differ a thousandfold, and one learning rate cannot suit all.

    Args:
        backbone: ``float [N, 3, H, W]`` → a list of maps, the deepest last.
        sides: whether each band's middle and sides are told apart.
        height: rows of the picture that the backbone is tried on, pixels.
        width: its columns.

    Raises:
        ValueError: the backbone gives something else, such as maps with their channels last.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, backbone: nn.Module, *, sides: bool = False, height: int = 64, width: int = 64) -> None:
        super().__init__()
        self.backbone = backbone
        self.sides = sides
        was_training = backbone.training
        with torch.no_grad():
            maps = backbone.eval()(torch.zeros(1, 3, height, width))
        backbone.train(was_training)
        # Maps with their channels last have a width where channels should be; only timm's word tells that.
        said = getattr(backbone, "feature_info", None)
        if said is not None and [one.shape[1] for one in maps] != list(said.channels()):
            raise ValueError("its maps have their channels last")
        self.channels: int = _BANDS * (1 + sides) * sum(one.shape[1] for one in maps)
        self.register_buffer("centre", torch.zeros(self.channels))
        self.register_buffer("spread", torch.ones(self.channels))

    def forward(self, pixels: Tensor) -> Tensor:
        """Map ``float [N, 3, H, W]`` to ``float [N, channels, H/32, W/32]``, for sides that 32 divides."""
        maps = self.backbone(pixels)
        height, width = maps[-1].shape[2:]
        together = torch.cat([_shrink(one.float(), height, width) for one in maps], 1)
        weights = _region_weights(height, width, self.sides, together.device)
        apart = torch.cat([together * region for region in weights], 1)
        return (apart - self.centre.view(1, -1, 1, 1)) / self.spread.view(1, -1, 1, 1)

    def standardise(self, head: Head) -> None:
        """Give the channels out as a head takes them that was solved for on what they were."""
        self.centre.copy_(torch.from_numpy(head.centre))
        self.spread.copy_(torch.from_numpy(head.spread))


def _shrink(maps: Tensor, height: int, width: int) -> Tensor:
    down, across = maps.shape[2] // height, maps.shape[3] // width
    if maps.shape[2] == down * height and maps.shape[3] == across * width:
        return F.avg_pool2d(maps, (down, across)) if down * across > 1 else maps
    return F.adaptive_avg_pool2d(maps, (height, width))


def _region_weights(height: int, width: int, sides: bool, device: torch.device) -> Tensor:
    """Return ``[regions, height, width]``: what each place counts in each region, one on average."""
    rows = _share_out(height, _BANDS, device)
    columns = torch.ones(1, width, device=device)
    if sides:
        left, middle, right = _share_out(width, 3, device)
        columns = torch.stack([middle, (left + right) / 2])
    return (rows[:, None, :, None] * columns[None, :, None, :]).flatten(0, 1)


def _share_out(length: int, parts: int, device: torch.device) -> Tensor:
    """Return ``[parts, length]``: what each row or column counts in each of equal parts, with a mean of one."""
    places = torch.arange(length, dtype=torch.float32, device=device).view(1, -1)
    edges = torch.arange(parts + 1, dtype=torch.float32, device=device).view(-1, 1) * length / parts
    overlap = (torch.minimum(places + 1, edges[1:]) - torch.maximum(places, edges[:-1])).clamp(min=0)
    return overlap * parts


def number_blocks(names: Iterable[str]) -> dict[str, int]:
    """Give each parameter of a backbone the number of the block that it belongs to, 0 for the first.

    Blocks are told by the numbers that timm's names begin with (``blocks.3.…``, ``layer2.…``, ``stages_1.…``). What
    has fewer than four parameters, as a stem has, belongs to the block after it.

    Args:
        names: the parameters' names, in the network's order.

    >>> number_blocks(["conv_stem.weight", *(f"blocks.{n}.{p}" for n in range(2) for p in "abcd")])["blocks.1.a"]
    1
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        found = _NUMBERED.match(name)
        groups.setdefault(found.group() if found else name.partition(".")[0], []).append(name)
    numbers: dict[str, int] = {}
    block = 0
    for members in groups.values():
        numbers |= dict.fromkeys(members, block)
        block += len(members) >= _FEWEST_IN_A_BLOCK
    return numbers


def hold_still(features: nn.Module, blocks: int) -> list[nn.Module]:
    """Stop the first ``blocks`` blocks of a backbone from learning.

    Returns:
        Their modules, which must be kept in evaluation mode so that no statistics move either.
    """
    numbers = number_blocks(name for name, _ in features.named_parameters())
    for name, parameter in features.named_parameters():
        parameter.requires_grad_(numbers[name] >= blocks)
    held = []
    for module in features.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            held.append(module)
    return held


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


def custom_cnn(widths: Sequence[int]) -> nn.Module:
    """Build the features of the custom CNN: a small residual network for a few thousand photos, never pretrained.

    Args:
        widths: channels of each of four stages; a stage has half the resolution of the one before it, the first a
            quarter.

    Returns:
        A module from ``float [N, 3, H, W]`` to ``float [N, widths[-1], H/32, W/32]`` (rounded up).
    """
    layers: list[nn.Module] = [
        *_convolution(3, widths[0] // 2, 3, 2),
        *_convolution(widths[0] // 2, widths[0], 3, 2),
    ]
    inputs = widths[0]
    for stage, (width, depth) in enumerate(zip(widths, _DEPTHS, strict=True)):
        for block in range(depth):
            layers.append(ResidualBlock(inputs, width, 2 if stage > 0 and block == 0 else 1))
            inputs = width
    return nn.Sequential(*layers)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
