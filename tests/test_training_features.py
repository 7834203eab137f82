from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch", reason="needs the extra train")

import torch

from clothing_classifier.training.features import compute_features
from clothing_classifier.training.networks import Classifying, Pyramid, Statistics

CPU = torch.device("cpu")


class Backbone(torch.nn.Module):
    """As small as can be; counts how often it looks."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 4, 3, 8, 1)
        self.looks = 0

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        self.looks += 1
        return [self.layer(pixels)]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "clothing-classifier" / "features"


@pytest.fixture
def pixels() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (5, 48, 24, 3), np.uint8)


def build(*, sides: bool = False) -> tuple[Classifying, Backbone]:
    torch.manual_seed(0)
    backbone = Backbone()
    features = Pyramid(backbone, sides=sides)
    backbone.looks = 0
    return Classifying(features, features.channels, 2, Statistics((120.0,) * 3, (60.0,) * 3)), backbone


def test_what_was_computed_once_is_kept(pixels: npt.NDArray[np.uint8], cache: Path) -> None:
    network, _ = build()
    first = compute_features(network, pixels, CPU)
    again, backbone = build()
    for one, other in zip(first, compute_features(again, pixels, CPU), strict=True):
        np.testing.assert_array_equal(one, other)
    assert backbone.looks == 0
    assert len(list(cache.iterdir())) == 1
    np.testing.assert_allclose(
        first[1], compute_features(again, np.ascontiguousarray(pixels[:, :, ::-1]), CPU)[0], rtol=1e-5, atol=1e-6
    )


def test_whatever_changes_the_features_has_its_own(pixels: npt.NDArray[np.uint8], cache: Path) -> None:
    compute_features(build()[0], pixels, CPU)
    others = {"regions": (build(sides=True), pixels), "parameters": (build(), pixels), "a pixel": (build(), +pixels)}
    with torch.no_grad():
        others["parameters"][0][1].layer.weight[0, 0, 0, 0] += 1e-3
    others["a pixel"][1][-1, -1, -1, -1] ^= 1
    for name, ((network, backbone), given) in others.items():
        for _ in range(2):  # none of them takes another's place
            compute_features(network, given, CPU)
        assert backbone.looks == 2, name
    again, backbone = build()
    compute_features(again, pixels, CPU)
    assert backbone.looks == 0
    assert len(list(cache.iterdir())) == 1 + len(others)


def test_what_a_layer_does_without_parameters_counts_too(pixels: npt.NDArray[np.uint8], cache: Path) -> None:
    """Two of timm's EfficientNets have the same parameters and pad differently."""
    compute_features(build()[0], pixels, CPU)
    other, backbone = build()
    backbone.layer.padding_mode = "reflect"
    compute_features(other, pixels, CPU)
    assert backbone.looks == 2


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"nonsense" * 99])
def test_a_damaged_file_is_computed_again(pixels: npt.NDArray[np.uint8], cache: Path, content: bytes) -> None:
    first = compute_features(build()[0], pixels, CPU)
    (file,) = cache.iterdir()
    file.write_bytes(content)
    network, backbone = build()
    for one, other in zip(first, compute_features(network, pixels, CPU), strict=True):
        np.testing.assert_array_equal(one, other)
    assert backbone.looks > 0
    np.load(file)


def test_a_folder_that_cannot_be_written_costs_only_time(pixels: npt.NDArray[np.uint8], cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(b"a file where the folder should be")
    network, backbone = build()
    compute_features(network, pixels, CPU)
    compute_features(network, pixels, CPU)
    assert backbone.looks == 4


def test_a_full_disk_costs_only_time_and_is_not_filled_further(pixels: npt.NDArray[np.uint8], cache: Path) -> None:
    resource = pytest.importorskip("resource", reason="this system cannot limit a file's size")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        compute_features(build()[0], pixels, CPU)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(cache.iterdir()) == []


def test_who_has_no_home_keeps_nothing(pixels: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = compute_features(build()[0], pixels, CPU)
    monkeypatch.delenv("XDG_CACHE_HOME")

    def refuse() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", refuse)
    for one, other in zip(wanted, compute_features(build()[0], pixels, CPU), strict=True):
        np.testing.assert_array_equal(one, other)
