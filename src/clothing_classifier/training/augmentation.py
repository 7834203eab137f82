"""Random changes of a whole batch at a time, on the device where the batch lies.

Flip and rotation are the published comparison's; the rest is what photos of garments differ in and categories do
not: distance, framing, light, colour. Geometry is one affine map, so the pixels are interpolated once.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from clothing_classifier.training.recipe import Augmentation


def augment(
    pixels: Tensor,
    settings: Augmentation,
    fill: Tensor,
    generator: torch.Generator,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Change each picture of a batch at random.

    Args:
        pixels: ``float [N, 3, H, W]``, 0…255.
        settings: how far the changes may go.
        fill: ``float [3]``, the colour of what lies outside a picture, 0…255.
        generator: a generator on the CPU; the same state gives the same batch on every device.
        size: height and width of the result, by default the pictures' own; from half of these on no pixel is skipped.

    Returns:
        ``float [N, 3, height, width]``, 0…255.
    """
    count, device = len(pixels), pixels.device
    height, width = size or pixels.shape[2:]

    def uniform(limit: float, *shape: int) -> Tensor:
        return _hand((torch.rand(count, *shape, generator=generator) * 2 - 1) * limit, device)

    def chosen(probability: float) -> Tensor:
        return _hand(torch.rand(count, generator=generator) < probability, device)

    angle = uniform(math.radians(settings.rotation))
    scale, stretch = torch.exp(uniform(settings.zoom)), torch.exp(uniform(settings.stretch) / 2)
    mirror = torch.where(chosen(settings.flip), -1.0, 1.0)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    aspect = height / width  # affine_grid counts each axis from -1 to 1, so a turn must know the picture's shape
    rows = [
        torch.stack([cos * stretch * mirror, -sin * aspect * stretch, uniform(2 * settings.shift)], 1),
        torch.stack([sin / aspect / stretch * mirror, cos / stretch, uniform(2 * settings.shift)], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), [count, 3, height, width], align_corners=False)
    centre = fill.view(1, 3, 1, 1)
    pixels = F.grid_sample(pixels - centre, grid, align_corners=False) + centre

    if settings.saturation or settings.grey:
        grey = pixels.mean(1, keepdim=True)
        keep = torch.where(chosen(settings.grey), 0.0, 1 + uniform(settings.saturation)).view(-1, 1, 1, 1)
        pixels = grey + (pixels - grey) * keep
    if settings.light:
        middle = pixels.mean((1, 2, 3), keepdim=True)
        contrast = 1 + uniform(settings.light, 1, 1, 1)
        gain = (1 + uniform(settings.light, 1, 1, 1)) * (1 + uniform(settings.light / 4, 3, 1, 1))
        pixels = ((pixels - middle) * contrast + middle) * gain
    if settings.saturation or settings.grey or settings.light:
        pixels = pixels.clamp(0, 255)
    if settings.erase:
        area = 0.02 + 0.18 * torch.rand(count, generator=generator)
        shape = torch.exp((torch.rand(count, generator=generator) * 2 - 1) * math.log(2))
        blank = _rectangles(area, shape, height, width, generator, device)
        blank = blank & chosen(settings.erase).view(-1, 1, 1, 1)
        pixels = torch.where(blank, centre, pixels)
    return pixels


def mix(pixels: Tensor, targets: Tensor, settings: Augmentation, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mix a batch with a permutation of itself, by mixup or by cutmix.

    Args:
        pixels: ``float [N, 3, H, W]``.
        targets: ``float [N, classes]``, rows that sum to one.
        settings: its ``mix``, ``mixup`` and ``cutmix``.
        generator: a generator on the CPU.

    Returns:
        The mixed pixels and targets, of the same shapes.
    """
    count, _, height, width = pixels.shape
    draw = torch.rand(2, generator=generator)
    # Beta(α, α) by way of two gamma variates, because torch's Beta takes no generator.
    gammas = torch._standard_gamma(torch.full((2,), settings.mixup), generator=generator)
    share = float(gammas[0] / gammas.sum())
    order = _hand(torch.randperm(count, generator=generator), pixels.device)
    if draw[0] >= settings.mix:
        return pixels, targets
    if draw[1] < settings.cutmix:
        side = torch.tensor([1.0])
        patch = _rectangles(torch.tensor([1 - share]), side, height, width, generator, torch.device("cpu"))
        share = 1 - float(patch.float().mean())
        pixels = torch.where(_hand(patch, pixels.device), pixels[order], pixels)
    else:
        pixels = pixels * share + pixels[order] * (1 - share)
    return pixels, targets * share + targets[order] * (1 - share)


def _hand(drawn: Tensor, device: torch.device) -> Tensor:
    """Give what was drawn on the CPU to the device; a CUDA GPU need not have done all earlier work for that.

    It has a copy of what it is handed before this returns. Other kinds of devices do not promise that.
    """
    return drawn.to(device, non_blocking=device.type == "cuda")


def _rectangles(
    area: Tensor, shape: Tensor, height: int, width: int, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Return a mask ``bool [N, 1, H, W]`` of one rectangle each: share of the area, ratio of its relative sides."""
    tall = (area * shape).sqrt().clamp(max=1) * height
    broad = (area / shape).sqrt().clamp(max=1) * width
    top = torch.rand(len(area), generator=generator) * (height - tall)
    left = torch.rand(len(area), generator=generator) * (width - broad)
    edges = _hand(torch.stack([top, top + tall, left, left + broad]), device).unsqueeze(2)
    y = torch.arange(height, device=device).view(1, -1) + 0.5
    x = torch.arange(width, device=device).view(1, -1) + 0.5
    down = (y >= edges[0]) & (y < edges[1])
    across = (x >= edges[2]) & (x < edges[3])
    return (down.unsqueeze(2) & across.unsqueeze(1)).unsqueeze(1)
