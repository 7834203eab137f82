"""The pictures that the project draws itself, and what the shipped model says of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clothing_classifier import Classifier
from clothing_classifier.taxonomy import canonical_label

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PICTURES = sorted(EXAMPLES.glob("*.jpg"))


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.load()


def test_the_shipped_model_names_most_of_them_rightly(classifier: Classifier) -> None:
    assert len(PICTURES) >= 12
    predictions = classifier.predict_batch(PICTURES)
    wrong = [
        f"{path.stem}: {prediction.label}"
        for path, prediction in zip(PICTURES, predictions, strict=True)
        if prediction.label != canonical_label(path.stem)
    ]
    assert len(wrong) <= len(PICTURES) // 5, wrong


def test_it_is_less_sure_of_what_is_no_garment(classifier: Classifier) -> None:
    random = np.random.default_rng(0)
    strangers = [
        np.full((300, 200, 3), 200, np.uint8),
        random.integers(0, 256, (300, 200, 3), dtype=np.uint8),
        np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (300, 200, 3)).copy(),
    ]
    assert not any(prediction.sure for prediction in classifier.predict_batch(strangers))


def save_turned(picture: Image.Image, path: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(path.with_suffix(".jpg"), exif=exif, quality=95)
    return path.with_suffix(".jpg")


def save_with_alpha(picture: Image.Image, path: Path) -> Path:
    picture.convert("RGBA").save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def save_as_cmyk(picture: Image.Image, path: Path) -> Path:
    picture.convert("CMYK").save(path.with_suffix(".jpg"), quality=95)
    return path.with_suffix(".jpg")


def save_as_sixteen_bit_grey(picture: Image.Image, path: Path) -> Path:
    grey = np.asarray(picture.convert("L"), np.uint16) * 257
    Image.fromarray(grey).save(path.with_suffix(".tiff"))
    return path.with_suffix(".tiff")


@pytest.mark.parametrize("save", [save_turned, save_with_alpha, save_as_cmyk, save_as_sixteen_bit_grey])
@pytest.mark.parametrize("name", ["dress", "pants", "t-shirt"])
def test_another_form_of_a_picture_gets_the_class_of_its_plain_twin(
    name: str, save: Callable[[Image.Image, Path], Path], classifier: Classifier, tmp_path: Path
) -> None:
    with Image.open(EXAMPLES / f"{name}.jpg") as file:
        picture = file.convert("L").convert("RGB") if save is save_as_sixteen_bit_grey else file.convert("RGB")
    picture.save(tmp_path / "plain.png")
    twin = classifier.predict(save(picture, tmp_path / "twin"))
    plain = classifier.predict(tmp_path / "plain.png")
    assert twin.label == plain.label
    assert twin.probability == pytest.approx(plain.probability, abs=0.1)


def test_the_script_draws_the_pictures_that_are_here(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, str(EXAMPLES / "draw.py"), str(tmp_path), "--only", "hat", "skirt"],
        check=True,
        timeout=300,
    )
    for name in ("hat", "skirt"):
        with Image.open(tmp_path / f"{name}.jpg") as drawn, Image.open(EXAMPLES / f"{name}.jpg") as here:
            difference = np.asarray(drawn, np.int16) - np.asarray(here, np.int16)
        assert np.abs(difference).mean() < 1.5, "another JPEG library may round differently, but draws the same"
