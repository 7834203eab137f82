from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs the extra train")

import timm
import torch
from torch import nn

from clothing_classifier.training.networks import Pyramid, Stages, _region_weights, hold_still, number_blocks

NAMES = ("tf_efficientnet_b0", "mobilenetv2_100", "resnet18", "convnext_atto")


class Two(nn.Module):
    """Two maps of a picture: at a quarter of its size, and at an eighth."""

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        return [nn.functional.avg_pool2d(pixels, 4), 10 * nn.functional.max_pool2d(pixels, 8)[:, :2]]


@pytest.mark.parametrize("sides", [False, True])
@pytest.mark.parametrize("height", [72, 96, 40], ids=["3 rows a band", "4 rows a band", "bands within rows"])
def test_the_pyramid_gives_each_maps_mean_over_each_region(height: int, sides: bool) -> None:
    pyramid = Pyramid(Two(), sides=sides)
    pixels = torch.rand(2, 3, height, 48, generator=torch.Generator().manual_seed(0))
    means = pyramid(pixels).mean((2, 3))
    parts = 2 if sides else 1
    assert means.shape == (2, pyramid.channels) == (2, 3 * parts * 5)
    fine = nn.functional.max_pool2d(pixels, 8)[:, :2].repeat_interleave(3, 2)  # thirds of rows, to cut bands from
    third = height // 8
    for region in range(3 * parts):
        band, part = divmod(region, parts)
        columns = [*range(48)] if not sides else [*range(16), *range(32, 48)] if part else [*range(16, 32)]
        start = 5 * region
        found = [column // 8 for column in columns[::8]]
        expected = 10 * fine[:, :, band * third : (band + 1) * third, found].mean((2, 3))
        torch.testing.assert_close(means[:, start + 3 : start + 5], expected)
        if height % 24 == 0:
            inside = pixels[:, :, band * height // 3 : (band + 1) * height // 3, columns].mean((2, 3))
            torch.testing.assert_close(means[:, start : start + 3], inside)


@pytest.mark.parametrize("width", [48, 40, 72, 8])
def test_a_mirrored_photo_has_the_same_means(width: int) -> None:
    pyramid = Pyramid(Two(), sides=True)
    pixels = torch.rand(2, 3, 72, width, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pyramid(pixels.flip(3)).mean((2, 3)), pyramid(pixels).mean((2, 3)))


@pytest.mark.parametrize(("height", "width"), [(9, 7), (8, 6), (1, 1), (2, 5)])
def test_regions_together_are_the_whole_photo(height: int, width: int) -> None:
    bands = _region_weights(height, width, False, torch.device("cpu"))
    torch.testing.assert_close(bands.mean(0), torch.ones(height, width))
    regions = _region_weights(height, width, True, torch.device("cpu"))
    for found, count in ((bands, 3), (regions, 6)):
        torch.testing.assert_close(found.mean((1, 2)), torch.ones(count))
    shares = torch.tensor([1.0, 2.0] * 3) / 9
    torch.testing.assert_close(torch.einsum("r,rhw->hw", shares, regions), torch.ones(height, width))


@pytest.mark.parametrize("name", ["tf_efficientnet_b0", "mobilenetv2_100"])
def test_stages_are_the_networks_own(name: str) -> None:
    network = timm.create_model(name, num_classes=0).eval()
    stages = Stages(network)
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    listed = timm.create_model(name, features_only=True, out_indices=(-1,)).eval()
    listed.load_state_dict(stages.state_dict())
    with torch.inference_mode():
        maps = stages(pixels)
        torch.testing.assert_close(maps[-1], listed(pixels)[0])
    assert [one.shape[2] for one in maps] == sorted((one.shape[2] for one in maps), reverse=True)
    assert set(stages.state_dict()) <= set(network.state_dict()), "timm's names stay, for files of parameters"


@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_numbered_from_the_stem_to_the_last(name: str) -> None:
    names = [name for name, _ in timm.create_model(name, features_only=True).named_parameters()]
    numbers = number_blocks(names)
    assert list(numbers) == names
    assert list(numbers.values()) == sorted(numbers.values()), "in the order of the network"
    assert max(numbers.values()) + 1 == (7 if "net_b0" in name or "netv2" in name else 4)


def test_still_blocks_change_neither_parameters_nor_statistics() -> None:
    features = Pyramid(Stages(timm.create_model("mobilenetv2_035", num_classes=0)))
    before = {name: value.clone() for name, value in features.state_dict().items()}
    still = hold_still(features, 2)
    features.train()
    for module in still:
        module.eval()
    learning = [parameter for parameter in features.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, 0.1)
    features(torch.rand(4, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    changed = {name for name, value in features.state_dict().items() if not torch.equal(value, before[name])}
    parts = ("conv_stem", "bn1", *(f"blocks.{number}." for number in range(7)))
    moved = {part for part in parts if any(name.startswith(f"backbone.{part}") for name in changed)}
    assert moved == {f"blocks.{number}." for number in range(2, 7)}
