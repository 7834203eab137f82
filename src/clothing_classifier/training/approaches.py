"""The approaches, one entry of a table each: all that differs between them stands here.

Train one with ``clothing train NAME --data DIR --out RUN``. Another approach is another entry; the suite of
invariants (it builds, it overfits, it exports, it resumes to the same result) runs over every entry unasked.
"""

from __future__ import annotations

from dataclasses import dataclass
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
        height: rows of the network's input, pixels.
        width: columns of the network's input, pixels. Most photos of garments are upright, 3:4.
        recipe: how it is trained.
        backbone: timm's name of the pretrained architecture, or ``None`` for the project's own network.
    """

    name: str
    summary: str
    height: int
    width: int
    recipe: Recipe
    backbone: str | None = None


APPROACHES: Final[dict[str, Approach]] = {
    approach.name: approach
    for approach in (
        Approach(
            name="custom-cnn",
            summary="a small residual network of the project's own, trained from nothing",
            height=128,
            width=112,
            recipe=Recipe(
                epochs=80,
                small=0.6,
                batch_size=64,
                learning_rate=2e-3,
                warmup=3,
                averaging=0.995,
                augmentation=Augmentation(
                    rotation=15,
                    zoom=0.25,
                    stretch=0.15,
                    shift=0.08,
                    light=0.3,
                    saturation=0.4,
                    grey=0.05,
                    erase=0.25,
                    mix=0.5,
                ),
            ),
        ),
        Approach(
            name="efficientnet-b0",
            summary="EfficientNet-B0, pretrained, all layers fine-tuned",
            height=192,
            width=160,
            backbone="tf_efficientnet_b0",
            recipe=Recipe(
                epochs=14,
                small=0.36,
                batch_size=32,
                learning_rate=1e-3,
                backbone_rate=0.6,
                warmup=1,
                averaging=0.99,
                bfloat16=False,
                augmentation=Augmentation(
                    rotation=15,
                    zoom=0.2,
                    stretch=0.12,
                    shift=0.06,
                    light=0.25,
                    saturation=0.3,
                    grey=0.03,
                    erase=0.2,
                    mix=0.4,
                ),
            ),
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
    """
    from clothing_classifier.training.networks import Classifying, custom_cnn

    if approach.backbone is None:
        widths = (48, 96, 192, 320)
        return Classifying(custom_cnn(widths), widths[-1], classes, statistics, approach.recipe.dropout)
    import timm

    features: Any = timm.create_model(approach.backbone, pretrained=False, num_classes=0, global_pool="")
    return Classifying(features, features.num_features, classes, statistics, approach.recipe.dropout)
