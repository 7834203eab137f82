from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs the extra train")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clothing_classifier.training.augmentation import augment, mix
from clothing_classifier.training.recipe import Augmentation

NOTHING = Augmentation(flip=0, rotation=0)
FILL = torch.tensor([10.0, 20.0, 30.0])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos(count: int = 4, height: int = 24, width: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=seeded(1)) * 255


def test_without_settings_nothing_changes() -> None:
    pixels = photos()
    torch.testing.assert_close(augment(pixels, NOTHING, FILL, seeded()), pixels, rtol=0, atol=1e-2)


def test_half_the_side_is_the_mean_of_four_pixels() -> None:
    pixels = photos()
    smaller = augment(pixels, NOTHING, FILL, seeded(), (12, 8))
    torch.testing.assert_close(smaller, torch.nn.functional.avg_pool2d(pixels, 2), rtol=0, atol=1e-2)


def test_a_smaller_side_sees_what_the_whole_side_sees() -> None:
    """The same numbers give the same turn, shift and flip at every size; only the grid is coarser."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(48.0), indexing="ij")
    smooth = (torch.stack([y, x, y + x]) * 2).expand(6, 3, 64, 48)
    strong = Augmentation(rotation=30, zoom=0.2, stretch=0.2, shift=0.1)
    whole = augment(smooth, strong, FILL, seeded(3))
    smaller = augment(smooth, strong, FILL, seeded(3), (48, 36))
    assert smaller.shape == (6, 3, 48, 36)
    shrunk = torch.nn.functional.interpolate(whole, (48, 36), mode="bilinear", align_corners=False)
    assert (smaller - shrunk).abs().mean() < 2


def test_a_certain_flip_mirrors_left_and_right() -> None:
    pixels = photos()
    flipped = augment(pixels, Augmentation(flip=1, rotation=0), FILL, seeded())
    torch.testing.assert_close(flipped, pixels.flip(3), rtol=0, atol=1e-2)


def test_a_turn_keeps_the_proportions_of_a_picture_that_is_not_square() -> None:
    """A disc stays a disc under any turn; a turn that forgot the aspect ratio would make it an ellipse."""
    height, width = 96, 48
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    disc = ((y - height / 2) ** 2 + (x - width / 2) ** 2 < 18**2).float() * 200
    turned = augment(disc.expand(16, 3, -1, -1), Augmentation(flip=0, rotation=90), torch.zeros(3), seeded())
    assert (turned - disc).abs().mean() < 4


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_turn_is_by_at_most_the_stated_angle(sign: int) -> None:
    """A bar's end moves no farther than the angle allows, and in both directions over many draws."""
    bar = torch.zeros(1, 3, 65, 65)
    bar[..., 32, 32:] = 255
    ends = []
    for seed in range(40):
        turned = augment(bar, Augmentation(flip=0, rotation=20), torch.zeros(3), seeded(seed))[0, 0]
        rows = (turned[:, 58] > 40).nonzero().flatten().float()
        ends.append(float(rows.mean()) - 32)
    assert max(abs(end) for end in ends) <= 26 * 0.37 + 1
    assert max(sign * end for end in ends) > 4


def test_what_comes_in_from_outside_has_the_fill_colour() -> None:
    shrunk = augment(photos(64), Augmentation(flip=0, rotation=0, zoom=0.5), FILL, seeded())
    corner = shrunk[:, :, 0, 0]
    filled = (corner - FILL).abs().amax(1) < 0.5
    assert filled.any(), "some pictures of 64 are zoomed out"
    assert not filled.all(), "some pictures of 64 are zoomed in"


@given(
    seed=st.integers(0, 2**31 - 1),
    count=st.integers(1, 3),
    settings_=st.builds(
        Augmentation,
        flip=st.floats(0, 1),
        rotation=st.floats(0, 180),
        zoom=st.floats(0, 1),
        stretch=st.floats(0, 0.5),
        shift=st.floats(0, 0.5),
        light=st.floats(0, 0.9),
        saturation=st.floats(0, 1),
        grey=st.floats(0, 1),
        erase=st.floats(0, 1),
        mix=st.floats(0, 1),
        cutmix=st.floats(0, 1),
    ),
)
@settings(max_examples=40, deadline=None)
def test_any_settings_keep_shape_range_and_the_sum_of_targets(seed: int, count: int, settings_: Augmentation) -> None:
    pixels = photos(count)
    targets = torch.eye(5)[:count]
    once = mix(augment(pixels, settings_, FILL, seeded(seed)), targets, settings_, seeded(seed))
    again = mix(augment(pixels, settings_, FILL, seeded(seed)), targets, settings_, seeded(seed))
    assert torch.equal(once[0], again[0]), "the same seed gives the same batch"
    assert once[0].shape == pixels.shape
    assert once[0].min() >= -0.01
    assert once[0].max() <= 255.01
    torch.testing.assert_close(once[1].sum(1), torch.ones(count))


def test_cutmix_shares_the_target_by_the_area_that_was_exchanged() -> None:
    pixels = torch.zeros(2, 3, 40, 30)
    pixels[1] = 255
    always = Augmentation(mix=1, cutmix=1)
    exchanged = 0
    for seed in range(30):
        mixed, targets = mix(pixels, torch.eye(2), always, seeded(seed))
        white = mixed[0].mean() / 255
        assert targets[0, 1] == pytest.approx(float(white), abs=1e-5)
        exchanged += int(0 < white < 1)
    assert exchanged > 5


def test_mixup_shares_the_target_by_the_weight_of_each_photo() -> None:
    pixels = torch.zeros(2, 3, 8, 8)
    pixels[1] = 255
    for seed in range(10):
        mixed, targets = mix(pixels, torch.eye(2), Augmentation(mix=1, cutmix=0), seeded(seed))
        assert targets[0, 1] == pytest.approx(float(mixed[0].mean() / 255), abs=1e-5)
