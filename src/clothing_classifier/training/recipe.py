"""How a network is trained, as plain data that goes into a run's configuration and a model's card."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

CURVES: Final = ("epoch", "learning_rate", "train_loss", "validation_loss", "validation_accuracy", "seconds")
"""The columns of the learning curves that training with a recipe gives, a row an epoch."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far each random change may go; the zero of each field turns it off.

    Attributes:
        flip: probability of a horizontal flip.
        rotation: largest turn in either direction, degrees.
        zoom: largest change of scale, as a natural logarithm (0.2: from 82 % to 122 %).
        stretch: largest change of the aspect ratio, as a natural logarithm.
        shift: largest shift along each axis, as a share of the side.
        light: largest relative change of brightness, of contrast, and of each channel's gain.
        saturation: largest relative change of saturation.
        grey: probability that a photo loses all colour.
        erase: probability that a rectangle (2 to 20 % of the area) is blanked (Zhong et al., 2017,
            https://arxiv.org/abs/1708.04896).
        mix: probability that a batch is mixed with a permutation of itself.
        mixup: parameter α of mixup's Beta(α, α) (Zhang et al., 2018, https://arxiv.org/abs/1710.09412).
        cutmix: share of the mixed batches that exchange a rectangle instead (Yun et al., 2019,
            https://arxiv.org/abs/1905.04899).
    """

    flip: float = 0.5
    rotation: float = 15.0
    zoom: float = 0.0
    stretch: float = 0.0
    shift: float = 0.0
    light: float = 0.0
    saturation: float = 0.0
    grey: float = 0.0
    erase: float = 0.0
    mix: float = 0.0
    mixup: float = 0.4
    cutmix: float = 0.5


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained. Epochs are fixed: nothing is chosen by looking at a part that is reported.

    Attributes:
        epochs: passes over the training part; none leaves the backbone frozen and solves for the head alone.
        members: how many times the same start is trained, each time with random numbers of its own; the network that is
            kept has the mean of their weights (a uniform model soup; Wortsman et al., 2022,
            https://arxiv.org/abs/2203.05482), and its normalisations measure their statistics anew. It costs training
            time, but a user of the network nothing.
        small: share of the epochs, the first ones, that see the photos smaller, and so go faster (progressive resizing;
            Tan and Le, 2021, https://arxiv.org/abs/2104.00298).
        small_side: height and width of the photos in these epochs, as a share of the network's input.
        batch_size: photos a step, at least (the last short batch is spread over the others).
        learning_rate: AdamW's peak, after a linear warm-up and before a cosine decay to zero; in a pretrained
            backbone it is that of the last block.
        weight_decay: AdamW's, on weights of convolutions and linear layers only.
        head_rate: factor on the learning rate of the head: one that was solved for has little left to learn.
        block_decay: factor on the learning rate from each of the backbone's blocks to the one before it (Howard and
            Ruder, 2018, https://arxiv.org/abs/1801.06146): the earlier, the more general, the less it needs to move.
        still: how many of a pretrained backbone's first blocks do not learn at all; not even their statistics move.
        warmup: epochs of the linear warm-up.
        label_smoothing: share of each target that is spread over all classes.
        averaging: decay of the exponential moving average of the weights, a step; the average is what is kept.
        dropout: share of the embedding zeroed while training.
        bfloat16: run convolutions in bfloat16 where the processor, or the GPU, has it.
    """

    epochs: int
    members: int = 1
    batch_size: int = 32
    learning_rate: float = 1e-3
    small: float = 0.0
    small_side: float = 0.5
    weight_decay: float = 0.05
    head_rate: float = 1.0
    block_decay: float = 1.0
    still: int = 0
    warmup: float = 2.0
    label_smoothing: float = 0.1
    averaging: float = 0.995
    dropout: float = 0.2
    bfloat16: bool = True
    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def all_epochs(self) -> int:
        """Epochs of all members together."""
        return self.members * self.epochs

    def shrink(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the first epochs' photos."""
        return round(height * self.small_side), round(width * self.small_side)
