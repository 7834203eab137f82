from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clothing_classifier.resizing import Resizing, resize

sides = st.integers(1, 5000)


@given(wanted=st.tuples(st.integers(1, 600), st.integers(1, 600)), width=sides, height=sides)
def test_a_picture_fills_one_side_and_keeps_its_proportions(wanted: tuple[int, int], width: int, height: int) -> None:
    resizing = Resizing(*wanted)
    found = resizing.target(width, height)
    assert found[0] == resizing.width or found[1] == resizing.height
    assert 1 <= found[0] <= resizing.width
    assert 1 <= found[1] <= resizing.height
    scale = min(resizing.width / width, resizing.height / height)
    assert found[0] == pytest.approx(max(1, width * scale), abs=0.51)
    assert found[1] == pytest.approx(max(1, height * scale), abs=0.51)
    assert Resizing(*wanted, "squash").target(width, height) == (resizing.width, resizing.height)


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [((10, 20), slice(0, 40), slice(8, 28)), ((30, 10), slice(14, 26), slice(0, 36)), ((9, 10), None, None)],
)
def test_what_is_added_lies_on_both_sides_and_has_the_cards_colour(
    size: tuple[int, int], rows: slice | None, columns: slice | None
) -> None:
    pixels = resize(Image.new("RGB", size, "white"), Resizing(40, 36, fill=(1, 2, 3)))
    assert (pixels.shape, pixels.dtype.name, pixels.flags.c_contiguous) == ((40, 36, 3), "uint8", True)
    wanted = np.full((40, 36, 3), (1, 2, 3))
    wanted[rows or slice(None), columns or slice(None)] = 255
    np.testing.assert_array_equal(pixels, wanted)


def test_a_squashed_picture_leaves_nothing_to_fill() -> None:
    assert (resize(Image.new("RGB", (300, 10), "white"), Resizing(40, 36, "squash", (1, 2, 3))) == 255).all()


def test_every_pixel_counts_however_much_smaller_it_gets() -> None:
    """Lines of one pixel are a grey, and not what lies at every tenth of them."""
    lines = np.zeros((400, 400, 3), np.uint8)
    lines[::2] = 255
    pixels = resize(Image.fromarray(lines), Resizing(40, 40))
    assert np.abs(pixels[2:-2].astype(int) - 127).max() <= 2


@pytest.mark.parametrize("size", [(500, 700), (90, 70), (31, 20)])
def test_it_is_bicubic_resampling_of_all_pixels_but_for_rounding(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    smooth = Image.fromarray(noise).resize((size[1] // 4, size[0] // 4)).resize(size[::-1])
    found = resize(smooth, Resizing(48, 40, "squash")).astype(int)
    wanted = np.asarray(smooth.resize((40, 48), Image.Resampling.BICUBIC), int)
    other = np.asarray(smooth.resize((40, 48), Image.Resampling.BILINEAR), int)
    assert np.abs(found - wanted).mean() < 0.3 * np.abs(other - wanted).mean()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"height": 0}, "height must be a whole number from 1 to 4096, not 0"),
        ({"width": 4097}, "width must be a whole number from 1 to 4096, not 4097"),
        ({"width": 8.0}, "width must be a whole number"),
        ({"mode": "crop"}, "mode must be one of pad, squash, not 'crop'"),
        ({"fill": (1, 2)}, "fill must be three whole numbers from 0 to 255"),
        ({"fill": (1, 2, 256)}, "fill must be three"),
        ({"fill": (1, 2, -1)}, "fill must be three"),
        ({"fill": (1, 2, 0.5)}, "fill must be three"),
        ({"fill": 3}, "not a description of a resizing"),
        ({"colour": 3}, "not a description of a resizing"),
    ],
)
def test_what_is_no_resizing_is_refused(change: dict[str, Any], reason: str) -> None:
    known = Resizing(4096, 1, fill=(0, 255, 0)).to_dict()
    assert known["fill"] == [0, 255, 0], "as JSON has it"
    assert Resizing.from_dict(known) == Resizing(4096, 1, fill=(0, 255, 0))
    with pytest.raises(ValueError, match="not a description of a resizing"):
        Resizing.from_dict({key: value for key, value in known.items() if key != "fill"})
    with pytest.raises(ValueError, match=reason):
        Resizing.from_dict(known | change)


def test_only_rgb_is_resized() -> None:
    with pytest.raises(ValueError, match="resize takes an RGB picture, not one of mode L"):
        resize(Image.new("L", (8, 8)), Resizing(8, 8))
