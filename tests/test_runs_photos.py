from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra train")

from clothing_classifier.runs.photos import choose_statistics
from clothing_classifier.training.approaches import APPROACHES, IMAGENET_MEAN, IMAGENET_STD, Approach
from clothing_classifier.training.networks import Statistics

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 8, 6, 3), np.uint8)


@pytest.mark.parametrize("approach", [entry for entry in APPROACHES.values() if entry.backbone], ids=lambda a: a.name)
def test_the_tables_backbones_are_normalised_as_on_imagenet(approach: Approach) -> None:
    assert choose_statistics(approach, PIXELS) == Statistics(IMAGENET_MEAN, IMAGENET_STD)


def test_another_backbone_is_normalised_as_it_learned() -> None:
    approach = APPROACHES["efficientnet-b0"].with_backbone("tf_efficientnet_lite0.in1k")
    assert choose_statistics(approach, PIXELS) == Statistics((127.5,) * 3, (127.5,) * 3)


def test_a_fresh_network_is_normalised_by_its_own_photos() -> None:
    found = choose_statistics(APPROACHES["custom-cnn"], PIXELS)
    np.testing.assert_allclose(found.mean, PIXELS.reshape(-1, 3).mean(0), rtol=1e-4)
