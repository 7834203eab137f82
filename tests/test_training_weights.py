from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra train")

import torch
from safetensors.torch import save_file

from clothing_classifier.training.weights import NO_WEIGHTS, WeightsError, load_weights


def build() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 2, 1))


def test_a_file_gives_what_it_has_and_the_rest_is_named(tmp_path: Path) -> None:
    source, target = build(), build()
    given = {k: v for k, v in source.state_dict().items() if not k.startswith("2.")} | {"head.weight": torch.ones(3)}
    save_file(given, tmp_path / "some.safetensors")
    before = target.state_dict()["2.weight"].clone()
    origin = load_weights(target, "somenet", str(tmp_path / "some.safetensors"), "CC0-1.0")
    assert torch.equal(target.state_dict()["0.weight"], source.state_dict()["0.weight"])
    assert torch.equal(target.state_dict()["2.weight"], before)
    assert origin.fresh == ("2.weight", "2.bias")
    assert origin.source == "file: some.safetensors"
    assert origin.licence == "CC0-1.0"
    assert origin.sha256 is not None
    assert len(origin.sha256) == 64


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"not a file of weights", "not a safetensors file, or damaged"),
        ({"0.weight": torch.ones(4, 3, 5, 5)}, r"0.weight has the shape \(4, 3, 5, 5\), but somenet needs"),
        ({"other.weight": torch.ones(4, 3)}, "holds no parameter of somenet"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    content: bytes | dict[str, torch.Tensor] | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "odd.safetensors"
    if isinstance(content, dict):
        save_file(content, path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as error:
        load_weights(build(), "somenet", str(path))
    assert str(path) in str(error.value)


def test_no_weights_are_recorded_as_none() -> None:
    assert load_weights(build(), "somenet", "none") == NO_WEIGHTS
    assert load_weights(build(), None, "hub") == NO_WEIGHTS
    with pytest.raises(WeightsError, match="takes no weights"):
        load_weights(build(), None, "some.safetensors")


def test_the_given_backbone_loads_into_the_network_it_is_for(shared_weights: Path) -> None:
    from clothing_classifier.training.approaches import APPROACHES, IMAGENET_MEAN, IMAGENET_STD
    from clothing_classifier.training.approaches import build as build_approach
    from clothing_classifier.training.networks import Statistics

    approach = APPROACHES["efficientnet-b0"]
    network = build_approach(approach, 17, Statistics(IMAGENET_MEAN, IMAGENET_STD))
    file = shared_weights / "tf_efficientnet_b0.safetensors"
    origin = load_weights(network.features, approach.backbone, str(file))
    assert {name.split(".")[0] for name in origin.fresh} == {"conv_head", "bn2"}
    stem = network.features.state_dict()["conv_stem.weight"].numpy()
    assert np.abs(stem).max() > 0.5, "random values would be smaller"
