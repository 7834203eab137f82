from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra train")

import timm
import torch
from safetensors.torch import load_file, save_file

from clothing_classifier.training.weights import NO_WEIGHTS, WeightsError, load_weights

FORMS: list[dict[str, Any]] = [{"num_classes": 0, "global_pool": ""}, {"features_only": True}]


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
        (b"\x80\x02}q\x00.", "Pickles .* are not loaded, because they can run any code"),
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


def save_network(name: str, path: Path, left_out: str = "nothing") -> dict[str, torch.Tensor]:
    """Write a file as timm publishes one, of random values: the whole network, classifier included."""
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    random = {key: torch.randn(t.shape).to(t.dtype) for key, t in state.items() if not key.startswith(left_out)}
    save_file(random, path)
    return random


@pytest.mark.parametrize("backbone", ["convnext_tiny", "resnet50", "tf_efficientnet_b0", "mobilenetv2_100"])
def test_every_parameter_lands_where_timm_itself_puts_it(backbone: str, tmp_path: Path) -> None:
    """In both forms of a backbone; with ``features_only``, timm renames the parameters."""
    path = tmp_path / "whole.safetensors"
    save_network(backbone, path)
    for form in FORMS:
        features = timm.create_model(backbone, **form)
        assert load_weights(features, backbone, str(path)).fresh == ()
        reference = timm.create_model(backbone, pretrained=True, pretrained_cfg_overlay={"file": str(path)}, **form)
        loaded = features.state_dict()
        expected = reference.state_dict()
        assert loaded.keys() == expected.keys()
        assert [name for name in loaded if not torch.equal(loaded[name], expected[name])] == []


@pytest.mark.parametrize(
    "backbone",
    ["resnet18.a1_in1k", "resnetv2_18d", "densenet121", "efficientvit_m0", "legacy_xception", "test_vit", "tresnet_m"],
)
def test_names_are_found_however_timm_rebuilds_a_network(backbone: str, tmp_path: Path) -> None:
    path = tmp_path / "whole.safetensors"
    given = save_network(backbone, path)
    features = timm.create_model(backbone, features_only=True)
    assert load_weights(features, backbone, str(path)).fresh == ()
    values = {tensor.numpy().tobytes() for tensor in given.values()}
    assert all(tensor.detach().numpy().tobytes() in values for tensor in features.parameters())


def test_what_a_file_lacks_is_named_as_the_network_names_it(tmp_path: Path) -> None:
    path = tmp_path / "part.safetensors"
    save_network("test_convnext", path, left_out="stages.3.blocks.0.gamma")
    names = [load_weights(timm.create_model("test_convnext", **f), "test_convnext", str(path)).fresh for f in FORMS]
    assert names == [("stages.3.blocks.0.gamma",), ("stages_3.blocks.0.gamma",)]


def test_a_deeper_network_of_the_same_family_is_refused(tmp_path: Path) -> None:
    """It has every parameter of the shallower one, in the right shape."""
    path = tmp_path / "deep.safetensors"
    save_network("resnet26t", path)
    with pytest.raises(WeightsError, match=r"has 72 parameters more than resnet14t, such as layer1\.1\.bn1\.bias"):
        load_weights(timm.create_model("resnet14t", **FORMS[0]), "resnet14t", str(path))


def test_what_is_refused_changes_nothing(tmp_path: Path) -> None:
    source, target = build(), build()
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    save_file(source.state_dict() | {"2.bias": torch.ones(3)}, tmp_path / "some.safetensors")
    with pytest.raises(WeightsError, match="has the shape"):
        load_weights(target, "somenet", str(tmp_path / "some.safetensors"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())


def test_loading_takes_no_random_numbers(tmp_path: Path) -> None:
    """So that what is drawn after it, such as the head, is the same with and without weights."""
    path = tmp_path / "whole.safetensors"
    save_network("test_resnet", path)
    features = timm.create_model("test_resnet", **FORMS[0])
    before = torch.get_rng_state()
    load_weights(features, "test_resnet", str(path))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("backbone", ["somenet", "resnet50_mlp", "efficientnet_b8"])
def test_a_backbone_without_weights_on_the_hub_is_explained(backbone: str) -> None:
    with pytest.raises(WeightsError, match=f"{backbone}: timm names no safetensors file on the hub for it; choose"):
        load_weights(build(), backbone, "hub")


def test_no_weights_are_recorded_as_none() -> None:
    assert load_weights(build(), "somenet", "none") == NO_WEIGHTS
    assert load_weights(build(), None, "hub") == NO_WEIGHTS
    assert load_weights(build(), None, "hub@0123") == NO_WEIGHTS
    with pytest.raises(WeightsError, match="takes no weights"):
        load_weights(build(), None, "some.safetensors")


def test_a_full_disk_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(WeightsError, match=r"cannot be kept: .* \(No space left on device\); make room"):
        load_weights(build(), "test_resnet", "hub")


@pytest.mark.parametrize(
    ("backbone", "lacking"), [("tf_efficientnet_b0", {"conv_head", "bn2"}), ("mobilenetv2_100", set())]
)
def test_the_given_backbones_load_into_the_networks_they_are_for(
    backbone: str, lacking: set[str], shared_weights: Path
) -> None:
    features = timm.create_model(backbone, **FORMS[0])
    origin = load_weights(features, backbone, str(shared_weights / f"{backbone}.safetensors"))
    assert {name.split(".")[0] for name in origin.fresh} == lacking
    given = load_file(shared_weights / f"{backbone}.safetensors")
    assert torch.equal(features.state_dict()["conv_stem.weight"], given["conv_stem.weight"].float())


def test_the_approaches_backbone_takes_all_of_the_given_one(shared_weights: Path) -> None:
    from clothing_classifier.training.approaches import APPROACHES, IMAGENET_MEAN, IMAGENET_STD
    from clothing_classifier.training.approaches import build as build_approach
    from clothing_classifier.training.networks import Pyramid, Statistics

    approach = APPROACHES["efficientnet-b0"]
    network = build_approach(approach, 17, Statistics(IMAGENET_MEAN, IMAGENET_STD))
    assert isinstance(network.features, Pyramid)
    backbone = network.features.backbone
    before = {name: value.clone() for name, value in backbone.named_parameters()}
    origin = load_weights(backbone, approach.backbone, str(shared_weights / "tf_efficientnet_b0.safetensors"))
    assert origin.fresh == ()
    assert all(not torch.equal(value, before[name]) for name, value in backbone.named_parameters())
