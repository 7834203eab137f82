"""The approaches, one entry of a table each: all that differs between them stands here.

Train one with ``clothing train NAME --data DIR --out RUN``. Another approach is another entry; the suite of
invariants (it builds, it overfits, it exports, it resumes to the same result) runs over every entry unasked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from clothing_classifier.training.recipe import Augmentation, Recipe

if TYPE_CHECKING:
    from clothing_classifier.training.networks import Classifying, Statistics

IMAGENET_MEAN: Final = (123.675, 116.28, 103.53)
IMAGENET_STD: Final = (58.395, 57.12, 57.375)
"""Mean and standard deviation of ImageNet's pixels, 0…255, which pretrained backbones were normalised with."""


@dataclass(frozen=True, slots=True)
class Approach:
    """One way to make a classifier.

    Attributes:
        name: what the command line calls it.
        summary: one line for people.
        height: rows of the network's input, pixels; with a backbone a multiple of 32.
        width: columns of the network's input, likewise. Most photos of garments are upright, 3:4.
        recipe: how it is trained.
        backbone: timm's name of the pretrained network, the weights' tag included so that it stays the same when timm's
            defaults change; ``None`` for the project's own network.
        top: how many classes it knows, the most frequent ones; ``None`` for all.
        sides: whether the head tells the middle of a photo from its sides, see `Pyramid`.
        entry: the name of the entry that this is with another backbone, ``None`` for the entry itself.
    """

    name: str
    summary: str
    height: int
    width: int
    recipe: Recipe
    backbone: str | None = None
    top: int | None = None
    sides: bool = False
    entry: str | None = None

    @property
    def frozen(self) -> bool:
        """Whether the backbone stays as it came, and only the head is learned."""
        return self.backbone is not None and self.recipe.epochs == 0

    def with_backbone(self, backbone: str) -> Approach:
        """Return the approach with another of timm's backbones in place of its own.

        Raises:
            ValueError: the approach has no backbone that could be replaced.
        """
        if self.backbone is None:
            raise ValueError(f"{self.name} is a network of its own and has no backbone to replace")
        endings = ("-frozen" if self.frozen else "") + (f"-top{self.top}" if self.top else "")
        name, summary = backbone + endings, f"{backbone}, as {self.name}"
        return replace(self, name=name, summary=summary, backbone=backbone, entry=self.name)


_FROZEN: Final = Recipe(epochs=0)

_FINE_TUNED: Final = Recipe(
    epochs=9,
    small=0.6,
    small_side=0.75,
    batch_size=32,
    learning_rate=3e-4,
    head_rate=0.2,
    block_decay=0.85,
    warmup=0.5,
    label_smoothing=0.05,
    averaging=0.99,
    augmentation=Augmentation(
        rotation=15,
        zoom=0.2,
        stretch=0.12,
        shift=0.06,
        light=0.25,
        saturation=0.3,
        grey=0.03,
        erase=0.1,
        mix=0.2,
    ),
)

_SOUP: Final = replace(_FINE_TUNED, members=2, learning_rate=1.2e-3, still=2, bfloat16=False)
"""For light backbones; with ResNet50 and ConvNeXt-Tiny it has not been tried, for want of their weights."""

APPROACHES: Final[dict[str, Approach]] = {
    approach.name: approach
    for approach in (
        Approach(
            name="custom-cnn",
            summary="a small residual network of the project's own, trained from nothing",
            height=128,
            width=112,
            recipe=Recipe(
                epochs=40,
                small=0.5,
                small_side=0.75,
                learning_rate=1.5e-3,
                augmentation=_FINE_TUNED.augmentation,
            ),
        ),
        Approach(
            name="resnet50",
            summary="ResNet50, pretrained, all layers fine-tuned",
            height=256,
            width=192,
            backbone="resnet50.a1_in1k",
            recipe=_FINE_TUNED,
        ),
        Approach(
            name="resnet50-top10",
            summary="the same on the ten most frequent classes",
            height=256,
            width=192,
            backbone="resnet50.a1_in1k",
            top=10,
            recipe=_FINE_TUNED,
        ),
        Approach(
            name="convnext-tiny",
            summary="ConvNeXt-Tiny, pretrained, all layers fine-tuned",
            height=256,
            width=192,
            backbone="convnext_tiny.fb_in1k",
            recipe=replace(_FINE_TUNED, learning_rate=2e-4, weight_decay=0.1),
        ),
        Approach(
            name="convnext-tiny-frozen",
            summary="ConvNeXt-Tiny, pretrained and frozen, with a head on its features",
            height=288,
            width=224,
            backbone="convnext_tiny.fb_in1k",
            recipe=_FROZEN,
            sides=True,
        ),
        Approach(
            name="efficientnet-b0",
            summary="EfficientNet-B0, pretrained, fine-tuned but for its first blocks",
            height=320,
            width=256,
            backbone="tf_efficientnet_b0.ns_jft_in1k",
            recipe=replace(_SOUP, members=4),
        ),
        Approach(
            name="efficientnet-b0-frozen",
            summary="EfficientNet-B0, pretrained and frozen, with a head on its features",
            height=288,
            width=224,
            backbone="tf_efficientnet_b0.ns_jft_in1k",
            recipe=_FROZEN,
            sides=True,
        ),
        Approach(
            name="mobilenetv2",
            summary="MobileNetV2, pretrained, fine-tuned but for its first blocks",
            height=256,
            width=192,
            backbone="mobilenetv2_100.ra_in1k",
            recipe=_SOUP,
        ),
        Approach(
            name="mobilenetv2-frozen",
            summary="MobileNetV2, pretrained and frozen, with a head on its features",
            height=288,
            width=224,
            backbone="mobilenetv2_100.ra_in1k",
            recipe=_FROZEN,
            sides=True,
        ),
    )
}


def build(approach: Approach, classes: int, statistics: Statistics) -> Classifying:
    """Build the approach's network, with fresh parameters.

    Args:
        approach: an entry of `APPROACHES`.
        classes: the number of classes.
        statistics: what the normalisation, the network's first layer, subtracts and divides by.

    Returns:
        A network from ``float [N, 3, H, W]`` in 0…255 to logits ``float [N, classes]``.

    Raises:
        ValueError: timm has no such backbone, or it gives no maps.
    """
    from clothing_classifier.training.networks import Classifying, Pyramid, Stages, custom_cnn

    if approach.backbone is None:
        widths = (48, 96, 192, 320)
        return Classifying(custom_cnn(widths), widths[-1], classes, statistics, approach.recipe.dropout)
    import timm
    import torch
    from timm.models.efficientnet import EfficientNet
    from timm.models.mobilenetv3 import MobileNetV3

    from clothing_classifier.execution import first_line

    height, width = approach.height, approach.width
    try:
        backbone: Any = timm.create_model(approach.backbone, pretrained=False, num_classes=0)
        if isinstance(backbone, EfficientNet | MobileNetV3):
            backbone = Stages(backbone)
        else:
            backbone = timm.create_model(
                approach.backbone, pretrained=False, features_only=True, out_indices=(-3, -2, -1)
            )
        features = Pyramid(backbone, sides=approach.sides, height=height, width=width)
        if approach.recipe.epochs and approach.recipe.small:  # some take photos of one size, and not of others
            height, width = approach.recipe.shrink(height, width)
            with torch.no_grad():
                features.eval()(torch.zeros(1, 3, height, width))
            features.train()
    except Exception as error:  # timm raises what its models happen to raise
        raise ValueError(
            f"timm has no backbone {approach.backbone!r} that gives maps of photos of {height}×{width} pixels "
            f"({first_line(error)}); timm.list_models() and timm.list_pretrained() name those of this version"
        ) from error
    return Classifying(features, features.channels, classes, statistics, approach.recipe.dropout)
