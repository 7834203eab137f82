from __future__ import annotations

import copy
import dataclasses
import io
import json
import pickle
import struct
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageCms

from clothing_classifier import classifier as room
from clothing_classifier.card import DIGEST_KEY, ModelCard, ModelError, read_model, seal
from clothing_classifier.classifier import BATCH, Classifier, Photo, Prediction
from clothing_classifier.images import Limits, PhotoError
from clothing_classifier.resizing import Resizing

Pack = Callable[[onnx.ModelProto, str], bytes]

TOLERANCE = 1e-5
"""How far a photo's probabilities may differ between batch sizes: float32 sums are added up in another order."""

COLOURS = {"red": (220, 30, 20), "green": (10, 200, 40), "blue": (20, 40, 210)}


@pytest.fixture(scope="module")
def classifier(tiny_model: Path) -> Classifier:
    return Classifier.load(tiny_model)


def plain(label: str, size: tuple[int, int] = (16, 24)) -> Image.Image:
    return Image.new("RGB", size, COLOURS[label])


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def noise(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 12, 8, 3), np.uint8)


@pytest.mark.parametrize("label", COLOURS)
def test_a_photo_in_any_form_gets_its_class(classifier: Classifier, label: str, tmp_path: Path) -> None:
    picture = plain(label)
    path = tmp_path / "photo.png"
    picture.save(path)
    content = path.read_bytes()
    forms: list[Photo] = [path, str(path), content, bytearray(content), memoryview(content), io.BytesIO(content)]
    forms += [picture, np.asarray(picture), np.asarray(picture.convert("RGBA"))]
    with path.open("rb") as file:
        predictions = [classifier.predict(form) for form in [*forms, file]]
    assert predictions[0].answer == label
    assert predictions[0].sure
    assert predictions == predictions[:1] * (len(forms) + 1)


def _turned(picture: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise for display
    return encoded(picture.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95)


def _transparent(picture: Image.Image) -> bytes:
    picture = picture.copy()
    picture.putalpha(255)
    return encoded(picture, "PNG")


def _inks(picture: Image.Image) -> bytes:
    return encoded(picture.convert("CMYK"), "JPEG", quality=95)


@pytest.mark.parametrize("twin", [_turned, _transparent, _inks])
def test_a_twin_in_another_format_gets_the_class_of_the_plain_photo(
    classifier: Classifier, twin: Callable[[Image.Image], bytes]
) -> None:
    # A red half and a blue quarter, and the rest dark: turned the wrong way, it would be padded at other sides.
    picture = Image.new("RGB", (16, 48), (12, 12, 12))
    picture.paste(COLOURS["red"], (0, 0, 16, 24))
    picture.paste(COLOURS["blue"], (0, 24, 8, 48))
    expected, found = classifier.predict(encoded(picture, "PNG")), classifier.predict(twin(picture))
    assert found.label == expected.label == "red"
    assert found.probability == pytest.approx(expected.probability, abs=0.1)
    assert np.abs(classifier.evidence(twin(picture), "red") - classifier.evidence(picture, "red")).max() < 1


def test_a_16_bit_tiff_is_as_bright_as_its_8_bit_twin(classifier: Classifier) -> None:
    grey = np.tile(np.arange(0, 256, 16).astype(np.uint8), (24, 1))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    assert deep.mode.startswith("I;16")
    expected = classifier.prepare(encoded(Image.fromarray(grey).convert("RGB"), "PNG"))
    found = classifier.prepare(encoded(deep, "TIFF"))
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 2


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "I;16, clear"])
def test_a_pillow_picture_is_read_as_its_file(classifier: Classifier, mode: str) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 16, 3), np.uint8))
    if mode.startswith("I;16"):
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    else:
        picture = picture.convert(mode)
    if mode in ("RGBA", "LA"):
        picture.putalpha(Image.linear_gradient("L").resize((16, 24)))
    if mode == "P":
        picture.info["transparency"] = 0
    if mode == "I;16, clear":
        picture.info["transparency"] = int(np.asarray(picture)[0, 0])
    exif = Image.Exif()
    exif[0x0112] = 6
    file = encoded(picture, "TIFF" if mode in ("CMYK", "I;16") else "PNG", exif=exif)
    expected = classifier.prepare(file)
    with Image.open(io.BytesIO(file)) as opened:
        np.testing.assert_array_equal(classifier.prepare(opened), expected)
    upright = picture.transpose(Image.Transpose.ROTATE_270)
    np.testing.assert_array_equal(classifier.prepare(upright), expected)


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("1", {"compression": "group4"}),
        ("RGB", {"compression": "jpeg", "quality": 60}),
        ("CMYK", {"compression": "jpeg", "quality": 60}),
        ("RGB", {"compression": "tiff_lzw"}),
        ("L", {"compression": "packbits"}),
    ],
    ids=lambda value: str(value),
)
def test_a_pillow_picture_of_a_compressed_tiff_is_read_as_its_file(
    classifier: Classifier, mode: str, options: dict[str, object]
) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 16, 3), np.uint8)).convert(mode)
    file = encoded(picture, "TIFF", **options)
    expected = classifier.prepare(file)
    with Image.open(io.BytesIO(file)) as opened:
        np.testing.assert_array_equal(classifier.prepare(opened), expected)
        np.testing.assert_array_equal(classifier.prepare(opened.copy()), expected)
        np.testing.assert_array_equal(classifier.prepare(opened.convert("RGB")), expected)


@pytest.mark.parametrize("mode", ["HSV", "YCbCr", "RGBX", "La", "RGBa", "PA"])
def test_a_pillow_picture_of_a_mode_that_hardly_any_file_has_is_read_as_what_it_shows(
    classifier: Classifier, mode: str
) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 16, 3), np.uint8))
    if mode in ("La", "RGBa", "PA"):
        picture = picture.convert({"La": "LA", "RGBa": "RGBA", "PA": "P"}[mode])
    rare = picture.convert(mode)
    shown = rare.convert("LA" if mode == "La" else "RGB")
    found, expected = classifier.prepare(rare), classifier.prepare(encoded(shown, "PNG"))
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 2


def test_a_pillow_picture_of_a_bitmap_without_a_written_alpha_is_read_as_its_file(classifier: Classifier) -> None:
    pixels = np.full((24, 16, 4), (20, 30, 220, 0), np.uint8)  # blue, green, red, alpha
    masks = struct.pack("<4L", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<LllHHLLllLL", 124, 16, 24, 1, 32, 3, pixels.nbytes, 0, 0, 0, 0) + masks
    header = header.ljust(124, b"\0")
    file = struct.pack("<2sLLL", b"BM", 14 + 124 + pixels.nbytes, 0, 14 + 124) + header + pixels.tobytes()
    for content in (file, file[14:]):  # as a file, and as it lies in the clipboard
        with Image.open(io.BytesIO(content)) as opened:
            assert opened.mode == "RGBA"
            np.testing.assert_array_equal(classifier.prepare(opened), classifier.prepare(file))
    assert classifier.predict(file).answer == "red"


def test_a_pillow_pictures_colours_are_those_of_its_profile(classifier: Classifier) -> None:
    display = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in ((b"rXYZ", b"none"), (b"bXYZ", b"rXYZ"), (b"none", b"bXYZ")):  # on which red is blue
        display = display.replace(old, new, 1)
    file = encoded(plain("red"), "PNG", icc_profile=display)
    assert classifier.predict(file).label == "blue"
    with Image.open(io.BytesIO(file)) as opened:
        np.testing.assert_array_equal(classifier.prepare(opened), classifier.prepare(file))


def test_a_pillow_picture_that_cannot_be_read_is_named(classifier: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes(encoded(Image.effect_noise((64, 64), 50), "PNG")[:-1000])
    with Image.open(path) as picture, pytest.raises(PhotoError, match=r"cut\.png: cannot be read"):
        classifier.predict(picture)


def test_what_the_model_cannot_tell_is_not_sure(classifier: Classifier) -> None:
    prediction = classifier.predict(Image.new("RGB", (8, 12), (128, 128, 128)))
    assert prediction.answer == room.NOT_SURE == "not sure"
    assert not prediction.sure
    assert prediction.label in COLOURS
    assert prediction.probability == pytest.approx(1 / 3, abs=1e-6)


def test_the_threshold_may_be_chosen(tiny_model: Path) -> None:
    grey = Image.new("RGB", (8, 12), (128, 128, 128))
    assert Classifier.load(tiny_model, threshold=0.2).predict(grey).sure
    assert not Classifier.load(tiny_model, threshold=1).predict(plain("red")).sure
    assert Classifier.load(tiny_model, threshold=0).threshold == 0
    with pytest.raises(ValueError, match="threshold must be from 0 to 1"):
        Classifier.load(tiny_model, threshold=1.5)


def test_a_prediction_ranks_all_classes() -> None:
    prediction = Prediction(("b", "a", "c"), (0.5, 0.3, 0.2), threshold=0.5)
    assert (prediction.label, prediction.probability, prediction.sure, prediction.answer) == ("b", 0.5, True, "b")
    assert prediction.top(2) == [("b", 0.5), ("a", 0.3)]
    assert prediction.top(9) == [("b", 0.5), ("a", 0.3), ("c", 0.2)]


def test_equal_probabilities_keep_the_cards_order(classifier: Classifier) -> None:
    # They differ only in digits that depend on the batch.
    probabilities = np.array([[0.25, 0.25 + 6e-8, 0.5]], np.float32)
    assert probabilities[0, 1] > 0.25
    (prediction,) = classifier.rank(probabilities)
    assert prediction.labels == ("blue", "red", "green")
    assert prediction.probabilities == (0.5, 0.25, 0.25)


def test_what_is_shown_as_the_threshold_is_sure(tiny_model: Path) -> None:
    (prediction,) = Classifier.load(tiny_model, threshold=0.4).rank(np.array([[0.3999999, 0.3, 0.3]], np.float32))
    assert (prediction.probability, prediction.sure) == (0.4, True)


def test_a_batch_gives_what_single_photos_give(classifier: Classifier) -> None:
    pixels = noise(BATCH + 3)
    photos = [np.asarray(photo) for photo in pixels]
    together = classifier.predict_batch(photos)
    for photo, prediction in zip(photos, together, strict=True):
        alone = classifier.predict(photo)
        assert alone.labels == prediction.labels
        np.testing.assert_allclose(alone.probabilities, prediction.probabilities, rtol=0, atol=TOLERANCE)
    whole = classifier.run(pixels)
    assert (classifier.compute_probabilities(pixels) == whole.probabilities).all()
    for size in (1, 2, 7):
        for start in range(0, len(pixels), size):
            part = classifier.run(pixels[start : start + size])
            for name in ("probabilities", "embedding", "evidence"):
                wanted = getattr(whole, name)[start : start + size]
                np.testing.assert_allclose(getattr(part, name), wanted, rtol=0, atol=TOLERANCE)
    assert classifier.predict_batch([]) == []
    assert classifier.predict_batch(photo for photo in photos) == together
    assert classifier.predict_batch(pixels) == together


def test_grey_and_transparent_pixels_are_read_as_such_a_file(classifier: Classifier) -> None:
    grey, veiled = noise(1)[0, :, :, 0], np.concatenate([noise(1)[0], noise(1, 1)[0, :, :, :1]], axis=2)
    for pixels in (grey, veiled):
        assert classifier.predict(pixels) == classifier.predict(encoded(Image.fromarray(pixels), "PNG"))


def test_grey_pixels_may_have_a_channel_and_a_memoryview_may_be_pixels(classifier: Classifier) -> None:
    photo = noise(1)[0]
    assert classifier.predict(photo[:, :, :1]) == classifier.predict(photo[:, :, 0])
    assert classifier.predict_batch(noise(3)[..., :1]) == [classifier.predict(grey[:, :, 0]) for grey in noise(3)]
    assert classifier.predict(memoryview(photo)) == classifier.predict(photo)
    content = encoded(plain("red"), "PNG")
    assert classifier.predict(memoryview(content)) == classifier.predict(content)
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\] .* not float32 \[4, 6\]"):
        classifier.predict(memoryview(np.zeros((4, 6), np.float32).data))


def test_a_column_of_paths_is_several_photos(classifier: Classifier, tmp_path: Path) -> None:
    paths = [tmp_path / f"{label}.png" for label in COLOURS]
    for path in paths:
        plain(path.stem).save(path)
    wanted = classifier.predict_batch(paths)
    assert classifier.predict_batch(np.array([str(path) for path in paths])) == wanted
    assert classifier.predict_batch(np.array(paths, object)) == wanted


class Pipe:
    """As an unbuffered pipe: it gives what has come so far, and its name is a number."""

    name = 6

    def __init__(self, content: bytes) -> None:
        self._rest = io.BytesIO(content)
        self.given = 0

    def read(self, size: int = -1) -> bytes:
        piece = self._rest.read(min(size, 1000) if size >= 0 else 1000)
        self.given += len(piece)
        return piece


def test_a_pipe_is_read_to_its_end_or_to_the_limit(classifier: Classifier) -> None:
    content = encoded(Image.fromarray(noise(1)[0]).resize((60, 60)), "PNG")
    assert len(content) > 3000
    assert classifier.predict(Pipe(content)) == classifier.predict(content)
    with pytest.raises(PhotoError, match=r"^<file>: "):
        classifier.predict(Pipe(content[:-100]))
    long = Pipe(content + bytes(50_000))
    with pytest.raises(PhotoError, match=r"^<file>: .*limit"):
        Classifier.load(classifier.path, limits=Limits(max_bytes=len(content))).predict(long)
    assert long.given == len(content) + 1
    with pytest.raises(PhotoError, match=r"^<file>: .*limit"):
        Classifier.load(classifier.path, limits=Limits(max_bytes=3000)).predict(Pipe(content))


def test_a_file_that_fails_while_it_is_read_is_named(classifier: Classifier) -> None:
    class Gone(Pipe):
        def read(self, size: int = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(PhotoError, match=r"^<file>: cannot be read .*Input/output error"):
        classifier.predict(Gone(b""))


@pytest.mark.parametrize(
    "one",
    [
        *("photo.jpg", Path("photo.jpg"), b"photo", bytearray(b"photo"), memoryview(b"photo"), io.BytesIO(b"photo")),
        *(plain("red"), noise(1)[0], noise(1)[0, :, :, 0], np.array("photo.jpg"), np.array([["photo.jpg"]])),
    ],
)
def test_one_photo_is_not_taken_for_many(classifier: Classifier, one: Any) -> None:
    with pytest.raises(TypeError, match="for one there is predict"):
        classifier.predict_batch(one)


def test_what_is_no_photo_is_refused_with_what_would_be_one(classifier: Classifier, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("photo")
    with text.open() as file, pytest.raises(TypeError, match=r"a file opened in binary mode.*not TextIOWrapper"):
        classifier.predict(file)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not int"):
        classifier.predict(7)  # type: ignore[arg-type]
    path = tmp_path / "photo.png"
    plain("red").save(path)
    with path.open("rb") as closed:
        closed.read()
        with pytest.raises(PhotoError, match=r"photo.png: is empty"):
            classifier.predict(closed)
    with pytest.raises(PhotoError, match=r"photo.png: cannot be read .*closed"):
        classifier.predict(closed)


def test_a_classifier_can_be_sent_to_another_process(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_model.read_bytes())
    classifier = Classifier.load(path, threshold=0.25, threads=1, limits=Limits(max_pixels=1000))
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        photos = [encoded(plain(label), "PNG") for label in COLOURS]
        assert list(pool.map(classifier.predict, photos)) == classifier.predict_batch(photos)
    again = copy.deepcopy(classifier)
    assert (again.threshold, again.limits, again.card) == (0.25, classifier.limits, classifier.card)
    sent = pickle.dumps(classifier)
    assert len(sent) < 100_000
    path.write_bytes(read_model().content)
    with pytest.raises(ModelError, match="is another model than the one that was sent"):
        pickle.loads(sent)


def test_evidence_adds_up_to_the_probabilities(classifier: Classifier) -> None:
    output = classifier.run(noise(4))
    assert output.probabilities.dtype == output.embedding.dtype == output.evidence.dtype == np.float32
    assert (output.embedding.shape, output.evidence.shape) == ((4, 3), (4, 3, 3, 2))
    logits = output.evidence.mean((2, 3))
    likelihood = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(likelihood / likelihood.sum(1, keepdims=True), output.probabilities, atol=TOLERANCE)


def test_evidence_says_where_a_class_is(classifier: Classifier) -> None:
    picture = plain("green", (8, 12))
    picture.paste(COLOURS["blue"], (0, 0, 4, 4))
    assert classifier.evidence(picture, "blue").argmax() == 0  # of 3 rows and 2 columns, the first cell
    np.testing.assert_array_equal(classifier.evidence(picture), classifier.evidence(picture, "green"))
    for name in ("mauve", ""):
        with pytest.raises(ValueError, match=f"no class '{name}'; it has red, green, blue"):
            classifier.evidence(picture, name)


def test_many_threads_may_share_a_classifier(classifier: Classifier) -> None:
    pixels = noise(64)
    expected = classifier.run(pixels).probabilities
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda photo: classifier.run(photo[None]).probabilities[0], pixels))
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def test_photos_that_cannot_be_read_are_named(classifier: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    with pytest.raises(PhotoError) as missing:
        classifier.predict(path)
    assert missing.value.name == str(path)
    with pytest.raises(PhotoError):
        classifier.predict_batch([plain("red"), b"not a picture"])


def test_the_limits_are_kept(tiny_model: Path) -> None:
    classifier = Classifier.load(tiny_model, limits=Limits(max_pixels=16 * 24 - 1))
    with pytest.raises(PhotoError):
        classifier.predict(encoded(plain("red"), "PNG"))


def test_of_a_pillow_picture_the_pixels_are_limited_and_no_bytes(tiny_model: Path, tmp_path: Path) -> None:
    assert Classifier.load(tiny_model, limits=Limits(10, 16 * 24)).predict(plain("red")).answer == "red"
    classifier = Classifier.load(tiny_model, limits=Limits(10, 16 * 24 - 1))
    with pytest.raises(PhotoError, match=r"^<picture>: is 16 × 24 = 384 pixels, over the limit"):
        classifier.predict(plain("red"))
    plain("red").save(tmp_path / "photo.png")
    with Image.open(tmp_path / "photo.png") as opened, pytest.raises(PhotoError, match=r"photo\.png: is 16 × 24 "):
        classifier.predict(opened)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((12, 8, 3), np.float32),
        np.zeros((12, 8, 2), np.uint8),
        np.zeros((12, 8, 3, 1), np.uint8),
        np.zeros(12, np.uint8),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_arrays_that_are_no_photos_are_refused(classifier: Classifier, array: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\]"):
        classifier.predict(array)
    with pytest.raises(ValueError, match=r"uint8 \[N, 12, 8, 3\]"):
        classifier.run(array[None])


def test_no_photo_is_no_batch(classifier: Classifier) -> None:
    with pytest.raises(ValueError, match="N at least 1"):
        classifier.run(noise(0))


def test_threads_are_counted(tiny_model: Path) -> None:
    assert Classifier.load(tiny_model, threads=2).predict(plain("red")).label == "red"
    with pytest.raises(ValueError, match="at least one thread"):
        Classifier.load(tiny_model, threads=0)


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("threads", 1.5, "threads must be a whole number, not 1.5"),
        ("threads", "2", "threads must be a whole number, not '2'"),
        ("threshold", "0.5", "the threshold must be a number, not '0.5'"),
    ],
)
def test_what_is_no_number_is_named(tiny_model: Path, argument: str, value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Classifier.load(tiny_model, **{argument: value})
    numbers: Any = {"threads": np.int64(1), "threshold": np.float32(0.5)}
    assert Classifier.load(tiny_model, **{argument: numbers[argument]}).predict(plain("red")).sure


def test_a_list_is_no_array_of_pixels(classifier: Classifier) -> None:
    for compute in (classifier.run, classifier.compute_probabilities):
        with pytest.raises(TypeError, match=r"the pixels must be an array, uint8 \[N, 12, 8, 3\], not list"):
            compute([1])  # type: ignore[arg-type]


def test_a_provider_that_nobody_knows_is_refused_with_those_that_there_are(tiny_model: Path) -> None:
    wanted = "provider must be one of auto, cpu, cuda, directml, coreml, openvino, not 'gpu'"
    with pytest.raises(ValueError, match=wanted):
        Classifier.load(tiny_model, provider="gpu")  # type: ignore[arg-type]


def _load(tmp_path: Path, content: bytes) -> Classifier:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    return Classifier.load(path)


def _other_graph(tiny_graph: onnx.ModelProto) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(tiny_graph)
    return model


def test_a_card_of_another_model_is_refused(
    tmp_path: Path, tiny_card: ModelCard, tiny_graph: onnx.ModelProto, pack_model: Pack
) -> None:
    for card in (
        dataclasses.replace(tiny_card, labels=("red", "green")),
        dataclasses.replace(tiny_card, resizing=Resizing(8, 12)),
    ):
        with pytest.raises(ModelError, match=r"model\.onnx: its inputs and outputs do not fit its card"):
            _load(tmp_path, pack_model(tiny_graph, card.to_json()))


def test_a_model_without_one_of_the_outputs_is_refused(
    tmp_path: Path, tiny_card: ModelCard, tiny_graph: onnx.ModelProto, pack_model: Pack
) -> None:
    for output in range(3):
        model = _other_graph(tiny_graph)
        del model.graph.output[output]
        with pytest.raises(ModelError, match="do not fit its card"):
            _load(tmp_path, pack_model(model, tiny_card.to_json()))


def test_a_graph_that_onnxruntime_refuses_is_an_error_of_the_model(
    tmp_path: Path,
    tiny_card: ModelCard,
    tiny_graph: onnx.ModelProto,
    pack_model: Pack,
    capfd: pytest.CaptureFixture[str],
) -> None:
    broken, foreign, newer = (_other_graph(tiny_graph) for _ in range(3))
    broken.graph.node[3].input[0] = "nowhere"
    foreign.graph.node[0].domain = "com.example"
    newer.opset_import[0].version = 10_000
    for model in (broken, foreign, newer, onnx.ModelProto()):
        with pytest.raises(ModelError, match=r"model\.onnx: cannot be run by onnxruntime") as caught:
            _load(tmp_path, pack_model(model, tiny_card.to_json()))
        assert "\n" not in str(caught.value)
    content = pack_model(tiny_graph, tiny_card.to_json())
    (digest,) = (entry.value for entry in onnx.load_from_string(content).metadata_props if entry.key == DIGEST_KEY)
    for name in (b"Softmax", b"probabilities"):  # no UTF-8: the runtime reads it, Python does not
        wild = content.replace(name, b"\xff" + name[1:]).replace(digest.encode(), b"0" * 64)
        with pytest.raises(ModelError, match=r"model\.onnx: cannot be run by onnxruntime"):
            _load(tmp_path, seal(wild))
    assert capfd.readouterr() == ("", "")


def test_outputs_that_are_no_probabilities_are_an_error_of_the_model(
    tmp_path: Path, tiny_card: ModelCard, tiny_graph: onnx.ModelProto, pack_model: Pack
) -> None:
    model = _other_graph(tiny_graph)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.full((3, 3, 1, 1), np.nan, np.float32), "weight"))
    classifier = _load(tmp_path, pack_model(model, tiny_card.to_json()))
    with pytest.raises(ModelError, match="outputs do not fit its card"):
        classifier.predict(plain("red"))


@pytest.mark.parametrize("output", ["probabilities", "evidence"])
def test_outputs_of_other_photos_are_an_error_of_the_model(
    tmp_path: Path, tiny_card: ModelCard, tiny_graph: onnx.ModelProto, pack_model: Pack, output: str
) -> None:
    model = _other_graph(tiny_graph)
    (node,) = (node for node in model.graph.node if output in node.output)
    readers = [other for other in model.graph.node if output in other.input]
    node.output[list(node.output).index(output)] = "once"
    for reader in readers:
        reader.input[list(reader.input).index(output)] = "once"
    model.graph.node.append(helper.make_node("Concat", ["once", "once"], [output], axis=0))
    classifier = _load(tmp_path, pack_model(model, tiny_card.to_json()))
    compute: Any = classifier.run if output == "evidence" else classifier.compute_probabilities
    with pytest.raises(ModelError, match="outputs do not fit its card"):
        compute(noise(2))


def test_probabilities_that_do_not_add_up_are_an_error_of_the_model(
    tmp_path: Path, tiny_card: ModelCard, tiny_graph: onnx.ModelProto, pack_model: Pack
) -> None:
    model = _other_graph(tiny_graph)
    (softmax,) = (node for node in model.graph.node if "probabilities" in node.output)
    softmax.output[0] = "once"
    model.graph.initializer.append(numpy_helper.from_array(np.array(1.01, np.float32), "more"))
    model.graph.node.append(helper.make_node("Mul", ["once", "more"], ["probabilities"]))
    with pytest.raises(ModelError, match="outputs do not fit its card"):
        _load(tmp_path, pack_model(model, tiny_card.to_json())).compute_probabilities(noise(1))


def test_a_model_that_fails_while_it_runs_is_an_error_of_the_model(
    tmp_path: Path, tiny_card: ModelCard, tiny_graph: onnx.ModelProto, pack_model: Pack
) -> None:
    model = _other_graph(tiny_graph)
    shape = numpy_helper.from_array(np.array([7, 3], np.int64), "shape")
    model.graph.initializer.append(shape)
    model.graph.node[-2].CopyFrom(helper.make_node("Reshape", ["mean", "shape"], ["logits"]))
    classifier = _load(tmp_path, pack_model(model, tiny_card.to_json()))
    with pytest.raises(ModelError, match=r"model\.onnx: fails on 1 photos"):
        classifier.predict(plain("red"))


def test_weights_in_other_files_are_never_read(
    tmp_path: Path,
    tiny_card: ModelCard,
    tiny_graph: onnx.ModelProto,
    pack_model: Pack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The file is there, of the right size, and where a runtime would look for it.
    model = _other_graph(tiny_graph)
    weight = model.graph.initializer[1]
    (tmp_path / "weight.bin").write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weight.bin")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="keeps weights in other files"):
        _load(tmp_path, pack_model(model, tiny_card.to_json()))


def test_the_package_offers_the_classifier(tiny_model: Path) -> None:
    import clothing_classifier

    assert clothing_classifier.Classifier is Classifier
    assert {*clothing_classifier.__all__} <= {*dir(clothing_classifier)}
    for name in clothing_classifier.__all__:
        assert getattr(clothing_classifier, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Classifer'"):
        clothing_classifier.Classifer  # noqa: B018
    assert json.loads(clothing_classifier.Classifier.load(tiny_model).card.to_json())["name"] == "tiny"
