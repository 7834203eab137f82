from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra train")

import torch

from clothing_classifier.training.approaches import APPROACHES, IMAGENET_MEAN, IMAGENET_STD
from clothing_classifier.training.fit import CheckpointError, fit
from clothing_classifier.training.networks import Classifying, Statistics


def test_a_checkpoint_for_which_there_is_no_room_is_named_and_the_one_before_stays(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="this system cannot limit a file's size")
    random = np.random.default_rng(0)
    data = random.integers(0, 256, (8, 32, 32, 3), np.uint8), np.arange(8) % 2
    recipe = replace(APPROACHES["custom-cnn"].recipe, epochs=1, batch_size=4)

    def run(epochs: int) -> None:
        network = Classifying(torch.nn.Conv2d(3, 64, 8, 8), 64, 2, Statistics(IMAGENET_MEAN, IMAGENET_STD))
        fit(
            network,
            data,
            data,
            replace(recipe, epochs=epochs),
            fill=(0, 0, 0),
            seed=0,
            device=torch.device("cpu"),
            checkpoint=tmp_path / "checkpoint.pt",
        )

    run(1)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt: cannot be written \(.*File too large\); make room"):
            run(2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
