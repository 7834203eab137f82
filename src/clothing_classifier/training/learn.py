"""A network, a recipe and photos → a trained network: the head first, then everything that shall move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from clothing_classifier.training.features import Features
from clothing_classifier.training.fit import Step, fit
from clothing_classifier.training.head import fit_head
from clothing_classifier.training.networks import Classifying
from clothing_classifier.training.recipe import Recipe

Part = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
"""Pixels ``uint8 [N, H, W, 3]`` and class numbers ``int64 [N]``."""


def learn(
    network: Classifying,
    recipe: Recipe,
    train: Part,
    validation: Part,
    *,
    views: Sequence[Features] | None,
    groups: npt.NDArray[np.int64],
    fill: tuple[int, int, int],
    seed: int,
    device: torch.device,
    checkpoint: Path,
    on_step: Callable[[Step], None] = lambda step: None,
) -> tuple[Classifying, list[dict[str, float]]]:
    """Train ``network``, or go on where ``checkpoint`` stopped.

    Args:
        network: with pretrained features, or fresh; it is changed in place.
        recipe: how to train; with no epochs only the head is learned.
        train: the photos to learn from.
        validation: photos for the curves only.
        views: the training photos' features in each view, for a head to start from; ``None`` for a fresh network.
        groups: number of each training photo's sender, ``int64 [N]``.
        fill: colour of what augmentation brings into the picture from outside, 0…255.
        seed: what the random numbers come from.
        device: where to train.
        checkpoint: file that holds the state after each epoch.
        on_step: called after each step.

    Returns:
        The network in evaluation mode, and the curves as `fit` gives them; none where there are no epochs.

    Raises:
        CheckpointError: as `fit` says.
    """
    if views is not None:
        network.install(fit_head(views, train[1], groups, network.head.out_features, seed=seed))
    if recipe.epochs == 0:
        return network.to(device).eval(), []
    return fit(
        network, train, validation, recipe, fill=fill, seed=seed, device=device, checkpoint=checkpoint, on_step=on_step
    )
