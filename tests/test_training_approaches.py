"""Invariants of every approach: a new entry of the table is tested here without being asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch", reason="needs the extra train")

import timm
import torch

from clothing_classifier.training.approaches import APPROACHES, IMAGENET_MEAN, IMAGENET_STD, Approach, build
from clothing_classifier.training.export import Deployed, ExportError, check, export
from clothing_classifier.training.features import compute_features
from clothing_classifier.training.fit import Step, compute_logits, fit
from clothing_classifier.training.head import fit_head
from clothing_classifier.training.networks import Classifying, Pyramid, Statistics
from clothing_classifier.training.recipe import Augmentation

STATISTICS = Statistics(IMAGENET_MEAN, IMAGENET_STD)
CPU = torch.device("cpu")
CLASSES = 4
EIGHT = np.arange(8) % CLASSES


def distinct() -> list[Approach]:
    """The entries, without those that have the same network and recipe as another and differ in their photos only."""
    found: dict[tuple[object, ...], Approach] = {}
    for entry in APPROACHES.values():
        found.setdefault((entry.backbone, entry.height, entry.width, entry.recipe), entry)
    return list(found.values())


@pytest.fixture(params=distinct(), ids=lambda entry: entry.name)
def approach(request: pytest.FixtureRequest) -> Approach:
    entry: Approach = request.param
    return entry


@pytest.fixture(params=[entry for entry in distinct() if not entry.frozen], ids=lambda entry: entry.name)
def trained(request: pytest.FixtureRequest) -> Approach:
    entry: Approach = request.param
    return entry


@pytest.fixture(scope="module")
def pictures() -> npt.NDArray[np.uint8]:
    """Eight pictures of two kinds of stripes in two colours each: shape and colour both matter."""
    random = np.random.default_rng(0)
    pixels = np.zeros((8, 64, 64, 3), np.uint8)
    for number, picture in enumerate(pixels):
        kind = number % CLASSES
        stripes = (np.arange(64) // 8 % 2).astype(np.uint8) * 160
        picture[..., kind // 2] = stripes[:, None] if kind % 2 else stripes[None, :]
        picture += random.integers(0, 40, picture.shape, dtype=np.uint8)
    return pixels


def build_seeded(approach: Approach) -> Classifying:
    torch.manual_seed(0)
    return build(approach, CLASSES, STATISTICS)


def build_outspoken(approach: Approach) -> Classifying:
    """A fresh network whose logits reach ±4: of one that says next to nothing, any two outputs would agree."""
    network = build_seeded(approach).eval()
    with torch.inference_mode():
        noise = torch.rand(4, 3, 96, 96, generator=torch.Generator().manual_seed(4)) * 255
        largest = network(noise).abs().max()
    with torch.no_grad():
        network.head.weight.mul_(float(4 / largest))
    return network


def assert_near(got: torch.Tensor, wanted: torch.Tensor) -> None:
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() < 1e-3 * wanted.abs().max()


@pytest.mark.parametrize("name", list(APPROACHES))
def test_a_name_is_its_key_and_the_recipe_is_plain_data(name: str) -> None:
    approach = APPROACHES[name]
    assert approach.name == name
    assert json.loads(json.dumps(asdict(approach.recipe))) == asdict(approach.recipe)
    assert 0 <= approach.recipe.small < 1
    if approach.backbone is not None:
        assert approach.height % 32 == approach.width % 32 == 0, "the pyramid's grids divide each other"
    assert name.endswith("-frozen") == approach.frozen


def test_it_maps_pixels_to_logits_that_are_means_of_its_evidence(approach: Approach) -> None:
    network = build_outspoken(approach)
    pixels = np.random.default_rng(1).integers(0, 256, (2, approach.height, approach.width, 3), np.uint8)
    with torch.inference_mode():
        probabilities, embedding, evidence = Deployed(network, 2.0)(torch.from_numpy(pixels))
        logits = network(torch.from_numpy(pixels).permute(0, 3, 1, 2).float())
    assert logits.shape == (2, CLASSES)
    assert embedding.shape == (2, network.head.in_features)
    assert_near(evidence.mean((2, 3)), logits / 2)
    assert_near(probabilities, (logits / 2).softmax(1))


def test_normalisation_is_inside(approach: Approach) -> None:
    """A picture of twice the values, to a network that is told of twice the mean and spread, is the same picture."""
    network = build_outspoken(approach)
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 100
    with torch.inference_mode():
        plain = network(pixels)
        network.normalisation.mean.mul_(2)
        network.normalisation.std.mul_(2)
        assert_near(network(pixels * 2), plain)
        assert (network(pixels) - plain).abs().max() > 0.05 * plain.abs().max()


def test_a_head_on_its_features_tells_eight_pictures_apart(
    approach: Approach, pictures: npt.NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even features that nobody trained tell eight pictures apart, and what the head says the network says too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network = build_seeded(approach).eval()
    views = compute_features(network, pictures, CPU)
    head = fit_head(views, EIGHT, np.arange(8), CLASSES)
    network.install(head)
    logits = compute_logits(network, pictures)
    assert (logits.argmax(1) == EIGHT).all()
    np.testing.assert_allclose(head.compute_logits(views[0]), logits, atol=1e-3 * np.abs(logits).max())


def test_it_overfits_eight_pictures(trained: Approach, pictures: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    network = build_seeded(trained)
    for module in network.modules():
        # Some backbones follow the batches' statistics so slowly that two dozen steps leave them at their start.
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.3
    recipe = replace(
        trained.recipe,
        epochs=24,
        members=1,
        small=0.0,
        batch_size=8,
        warmup=2,
        averaging=0.8,
        head_rate=1.0,
        block_decay=1.0,
        still=0,
        dropout=0.0,
        label_smoothing=0.0,
        augmentation=Augmentation(flip=0, rotation=0),
    )
    data = (pictures, EIGHT)
    network, curves = fit(network, data, data, recipe, fill=(0, 0, 0), seed=0, device=CPU, checkpoint=tmp_path / "c.pt")
    assert curves[-1]["train_loss"] < 0.1 < curves[0]["train_loss"]
    assert [row["epoch"] for row in curves] == list(range(1, recipe.epochs + 1))
    assert (compute_logits(network, pictures).argmax(1) == EIGHT).all()


def test_the_exported_file_agrees_with_the_network(approach: Approach) -> None:
    import onnxruntime

    network = build_outspoken(approach)
    shape = (3, approach.height, approach.width, 3)
    pixels = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
    graph = export(network, 1.7, pixels)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [(i.name, i.type, i.shape[1:]) for i in session.get_inputs()] == [
        ("pixels", "tensor(uint8)", [approach.height, approach.width, 3])
    ]
    assert not isinstance(session.get_inputs()[0].shape[0], int), "any number of photos goes in"
    probabilities, embedding, evidence = session.run(["probabilities", "embedding", "evidence"], {"pixels": pixels})
    logits = compute_logits(network, pixels) / 1.7
    np.testing.assert_allclose(evidence.mean((2, 3)), logits, atol=2e-3)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(1), logits.argmax(1))
    assert embedding.shape == (3, network.head.in_features)

    # The check that export makes must be able to refuse: a file of a network that has learned on since.
    with torch.no_grad():
        network.head.weight[0] *= 1.1
    with pytest.raises(ExportError, match="differs from the network"):
        check(graph, Deployed(network, 1.7).eval(), pixels)


def test_a_run_that_is_stopped_ends_with_the_same_parameters(
    trained: Approach,
    pictures: npt.NDArray[np.uint8],
    tmp_path: Path,
    stopped_in: Callable[[int, int], AbstractContextManager[Callable[[Step], None]]],
) -> None:
    recipe = replace(trained.recipe, epochs=2, members=1, small=0.5, batch_size=4, warmup=1)

    def run(checkpoint: Path, on_step: Callable[[Step], None] = lambda step: None) -> Classifying:
        data = (pictures, EIGHT)
        network, _ = fit(
            build_seeded(trained),
            data,
            data,
            recipe,
            fill=(9, 9, 9),
            seed=5,
            device=CPU,
            checkpoint=checkpoint,
            on_step=on_step,
        )
        return network

    whole = run(tmp_path / "whole.pt").state_dict()
    for epoch, step in ((0, 2), (1, 2)):
        with stopped_in(epoch, step) as stop:
            run(tmp_path / "stopped.pt", stop)
    resumed = run(tmp_path / "stopped.pt").state_dict()
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_another_backbone_is_one_option_away() -> None:
    frozen = APPROACHES["convnext-tiny-frozen"].with_backbone("mobilenetv3_small_050")
    assert (frozen.name, frozen.backbone, frozen.frozen) == (
        "mobilenetv3_small_050-frozen",
        "mobilenetv3_small_050",
        True,
    )
    network = build(frozen, CLASSES, STATISTICS)
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, CLASSES)
    assert APPROACHES["resnet50-top10"].with_backbone("resnet18").name == "resnet18-top10"
    with pytest.raises(ValueError, match="no backbone to replace"):
        APPROACHES["custom-cnn"].with_backbone("resnet18")
    with pytest.raises(ValueError, match="timm has no backbone 'resnet5O' that gives maps"):
        build(APPROACHES["resnet50"].with_backbone("resnet5O"), CLASSES, STATISTICS)
    for name in ("vit_tiny_patch16_224", "mambaout_femto"):  # of other photos, and with channels last
        with pytest.raises(ValueError, match=f"timm has no backbone '{name}' that gives maps of photos of 256×192"):
            build(APPROACHES["resnet50"].with_backbone(name), CLASSES, STATISTICS)


def test_a_backbone_must_take_the_smaller_photos_of_the_first_epochs_too() -> None:
    fine_tuned = APPROACHES["resnet50"].with_backbone("hrnet_w18_small")  # takes only what 32 divides
    with pytest.raises(ValueError, match="'hrnet_w18_small' that gives maps of photos of 192×144 pixels"):
        build(fine_tuned, CLASSES, STATISTICS)
    frozen = replace(fine_tuned, recipe=replace(fine_tuned.recipe, epochs=0))
    assert build(frozen, CLASSES, STATISTICS).training


@pytest.mark.parametrize("name", ["ghostnet_050", "repghostnet_050", "mobilenetv3_small_050", "efficientnet_lite0"])
def test_another_backbones_maps_are_timms(name: str) -> None:
    network = build(APPROACHES["efficientnet-b0"].with_backbone(name), CLASSES, STATISTICS).eval()
    assert isinstance(network.features, Pyramid)
    wanted = timm.create_model(name, features_only=True, out_indices=(-1,)).eval()
    pixels = torch.rand(1, 3, 128, 96)
    with torch.no_grad():
        deepest = network.features.backbone(pixels)[-1]
        known = network.features.backbone.state_dict()
        wanted.load_state_dict({key: known[key] for key in wanted.state_dict()})
        torch.testing.assert_close(deepest, wanted(pixels)[0], rtol=1e-4, atol=1e-4)
