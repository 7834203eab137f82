from __future__ import annotations

import base64
import csv
import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the extra own")
pytest.importorskip("scipy", reason="needs the extra own")
pytest.importorskip("sklearn", reason="needs the extra own")

from PIL import Image, ImageDraw

from clothing_classifier import Classifier
from clothing_classifier.card import ModelError, mark, read_model
from clothing_classifier.dataset import DatasetError, read_manifest
from clothing_classifier.dataset.labels import RESERVED
from clothing_classifier.evaluation.metrics import measure, share_interval
from clothing_classifier.runs import OwnSettings, RunError, train_own
from clothing_classifier.runs.folder import Silent, to_json
from clothing_classifier.runs.own import SHOWN, find_copies, fit_cautiously, make_promise
from clothing_classifier.training.calibration import soften
from clothing_classifier.training.graft import GraftError

CLASSES = ("bow", "scarf", "tie")
PHOTOS = 12
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
BLOCKED = ("torch", "torchvision", "timm", "onnxscript", "safetensors", "huggingface_hub", "kagglehub")


def draw(kind: int, seed: int) -> Image.Image:
    """A photo of a bow, a scarf or a tie, each of its own colour, pattern, place and ground."""
    random = np.random.default_rng([kind, seed])
    ground, cloth, mark = (
        tuple(random.integers(low, high, 3).tolist()) for low, high in ((140, 255), (0, 170), (0, 255))
    )
    picture = Image.new("RGB", (90, 120), ground)
    pen = ImageDraw.Draw(picture)
    x, y = 45 + int(random.integers(-14, 15)), 60 + int(random.integers(-20, 21))
    size = int(random.integers(22, 36))
    if kind == 0:
        pen.polygon([(x, y), (x - size, y - 18), (x - size, y + 18)], cloth)
        pen.polygon([(x, y), (x + size, y - 18), (x + size, y + 18)], cloth)
        pen.ellipse([x - 7, y - 7, x + 7, y + 7], mark)
    elif kind == 1:
        pen.arc([x - size, y - size, x + size, y + size], 0, 360, cloth, width=12)
        pen.rectangle([x + size - 16, y, x + size, y + 50], cloth)
        for step in range(0, 50, 9):
            pen.line([x + size - 16, y + step, x + size, y + step], mark, width=3)
    else:
        pen.polygon([(x - 6, y - 45), (x + 6, y - 45), (x + 12, y + 35), (x, y + 48), (x - 12, y + 35)], cloth)
        for step in range(-30, 40, 14):
            pen.line([x - 9, y + step, x + 9, y + step + 8], mark, width=3)
    return picture


def draw_classes(root: Path, photos: int = PHOTOS, start: int = 0) -> Path:
    for kind, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(start, start + photos):
            draw(kind, number).save(root / name / f"{number:02}.png")
    return root


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, pack_model: Callable[[Any, str], bytes]) -> Path:
    """A base model of one layer of random filters, for what does not hang on what it sees."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    filters = random.normal(0, 0.002, (96, 3, 8, 8)).astype(np.float32)
    shapes: dict[str, list[str | int]] = {
        "probabilities": ["photos", 17],
        "embedding": ["photos", 96],
        "evidence": ["photos", 17, 11, 9],
    }
    base = read_model().card
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["floats"], ["channels"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["channels", "filters"], ["responses"], strides=[4, 4]),
            helper.make_node("Relu", ["responses"], ["maps"]),
            helper.make_node("Conv", ["maps", "kernel"], ["evidence"]),
            helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["embedding"]),
            helper.make_node("Gemm", ["embedding", "matrix"], ["logits"], transB=1),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "small",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["photos", 48, 40, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [
            numpy_helper.from_array(filters, "filters"),
            numpy_helper.from_array(np.ones((17, 96, 1, 1), np.float32), "kernel"),
            numpy_helper.from_array(np.ones((17, 96), np.float32), "matrix"),
        ],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])
    card = replace(base, name="small", resizing=replace(base.resizing, height=48, width=40))
    path = tmp_path_factory.mktemp("base") / "small.onnx"
    path.write_bytes(pack_model(model, card.to_json()))
    return path


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Embeddings of the same photos are kept from test to test, and away from the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def wardrobe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, with a photo that was saved again, one that was copied, and one that cannot be read."""
    root = draw_classes(tmp_path_factory.mktemp("data") / "wardrobe")
    draw(2, 0).save(root / "tie" / "sent.bmp")
    (root / "bow" / "copy.png").write_bytes((root / "bow" / "00.png").read_bytes())
    (root / "scarf" / "broken.jpg").write_bytes(b"<html>not a picture</html>")
    (root / "scarf" / "notes.txt").write_text("by hand")
    return root


@pytest.fixture(scope="module")
def run(wardrobe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    train_own(OwnSettings(wardrobe, out))
    return out


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_folder_holds_all_that_made_the_model(run: Path, wardrobe: Path) -> None:
    assert sorted(file.name for file in run.iterdir()) == [
        "config.json",
        "manifest.csv",
        "metrics.json",
        "model.onnx",
        "predictions.csv",
    ]
    dropped = {photo.path: photo.dropped for photo in read_manifest(run / "manifest.csv").photos if photo.dropped}
    assert sorted(dropped) == ["bow/copy.png", "scarf/broken.jpg"]
    texts = [(run / name).read_text() for name in ("config.json", "metrics.json")] + [
        read_model(run / "model.onnx").card.to_json()
    ]
    assert not any(str(wardrobe.parent) in text for text in texts), "a run's record names no path of its machine"


def test_the_card_is_as_complete_as_that_of_the_model_that_ships(run: Path) -> None:
    base, card = read_model(), read_model(run / "model.onnx").card
    assert card.labels == CLASSES
    assert card.name == "wardrobe"
    assert card.resizing == base.card.resizing
    assert card.data["classes"] == {"bow": PHOTOS, "scarf": PHOTOS, "tie": PHOTOS + 1}
    assert (card.data["left_out"], card.data["passed_over"], card.data["unchecked_labels"]) == (2, 1, 0)
    assert card.training["residual"]["dimensions"] == (3 * PHOTOS + 1) // 2, "half as many as photos"
    assert card.training["command"] == "clothing train --data wardrobe --out first --split random --seed 0"
    assert card.weights["source"] == f"model: {base.card.name}"
    assert card.weights["weights"] == base.card.weights
    assert card.weights["data"]["digest"] == base.card.data["digest"]
    assert card.licence == base.card.licence
    measured = json.loads((run / "metrics.json").read_text())["folds"]
    figures = card.metrics["folds"]
    assert figures == {name: measured[name] for name in figures}
    assert not {"mean", "std", "folds", "reliability", "coverage", "temperatures"} & figures.keys(), "people read it"
    assert figures["photos"] == 3 * PHOTOS + 1
    assert figures["weighted_f1"] > 0.7, "chance is a third"
    assert figures["sure"]["share"] == card.promise["share"]
    low, high = card.promise["interval"]
    assert 0 < low < card.promise["measured_accuracy"] <= high
    assert card.temperature == pytest.approx(np.mean(measured["temperatures"]), rel=0.5)
    assert "near copies in one fold" in figures["protocol"]


def test_its_head_is_folded_into_a_graph_that_still_gives_the_bases_embedding(run: Path, wardrobe: Path) -> None:
    own, base = Classifier.load(run / "model.onnx"), Classifier.load()
    pixels = np.stack([own.prepare(path) for path in sorted(wardrobe.glob("tie/*.png"))])
    output = own.run(pixels)
    np.testing.assert_array_equal(output.embedding, base.run(pixels).embedding)
    logits = output.evidence.mean((2, 3))
    likelihood = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(likelihood / likelihood.sum(1, keepdims=True), output.probabilities, atol=1e-4)


def test_what_is_unlike_the_photos_that_taught_is_doubted(run: Path, wardrobe: Path) -> None:
    """The evidence is not doubted, so it tells what the answer would be."""
    own = Classifier.load(run / "model.onnx")
    strangers = [EXAMPLES / f"{name}.jpg" for name in ("dress", "hat", "pants", "shoes", "t-shirt")]
    doubted = []
    for photos in (strangers, sorted(wardrobe.glob("*/*.png"))):
        output = own.run(np.stack([own.prepare(photo) for photo in photos]))
        undoubted = soften(output.evidence.mean((2, 3)))
        np.testing.assert_array_equal(output.probabilities.argmax(1), undoubted.argmax(1))
        doubted.append(float((output.probabilities.max(1) < undoubted.max(1) - 1e-4).mean()))
    assert doubted[0] == 1
    assert doubted[1] < 0.1
    assert own.card.training["residual"]["limit"] > 0


def test_no_class_can_be_called_like_a_column_of_the_predictions(run: Path) -> None:
    assert read(run / "predictions.csv")[0].keys() - {*CLASSES} <= RESERVED


def test_near_copies_are_held_out_together(run: Path) -> None:
    folds = {row["path"]: row["fold"] for row in read(run / "predictions.csv")}
    assert folds["tie/sent.bmp"] == folds["tie/00.png"]
    assert read_model(run / "model.onnx").card.data["near_copies"] == 2


def test_each_photo_is_judged_once_and_the_model_has_learned_from_all(run: Path, wardrobe: Path) -> None:
    rows = read(run / "predictions.csv")
    assert len({row["path"] for row in rows}) == len(rows) == 3 * PHOTOS + 1
    assert {row["fold"] for row in rows} == {"0", "1", "2", "3", "4"}
    right = sum(row["predicted"] == row["label"] for row in rows) / len(rows)
    assert right == pytest.approx(json.loads((run / "metrics.json").read_text())["folds"]["accuracy"], abs=1e-4)
    predictions = Classifier.load(run / "model.onnx").predict_batch([wardrobe / row["path"] for row in rows])
    assert all(found.label == row["label"] for found, row in zip(predictions, rows, strict=True))
    assert known_photos(run, wardrobe, [row["path"] for row in rows]) == {row["path"] for row in rows}
    assert read_model().read_photos() < read_model(run / "model.onnx").read_photos(), "and its base from others"  # type: ignore[operator]


def known_photos(run: Path, data: Path, paths: Iterable[str]) -> set[str]:
    """Return those of the photos that a run's model file says it learned from."""
    known = read_model(run / "model.onnx").read_photos() or ()
    return {path for path in paths if mark(hashlib.sha256((data / path).read_bytes()).hexdigest()) in known}


def test_the_same_command_again_looks_at_no_photo_and_gives_the_same(
    run: Path, wardrobe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: (run / name).read_bytes() for name in ("metrics.json", "predictions.csv")}
    seen: list[int] = []
    look = Classifier.run

    def watch(self: Classifier, pixels: np.ndarray) -> Any:
        seen.append(len(pixels))
        return look(self, pixels)

    monkeypatch.setattr(Classifier, "run", watch)
    train_own(OwnSettings(wardrobe, run))
    assert {name: (run / name).read_bytes() for name in before} == before
    assert sum(seen) < PHOTOS, "only what checks the models was run"


def test_a_folder_of_another_run_is_not_touched(run: Path, wardrobe: Path, tmp_path: Path) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in run.iterdir()}
    with pytest.raises(RunError, match=r"differs in: seed; choose another folder"):
        train_own(OwnSettings(wardrobe, run, seed=1))
    assert {file.name: file.stat().st_mtime_ns for file in run.iterdir()} == before
    (tmp_path / "config.json").write_text('{"approach": "custom-cnn"}')
    with pytest.raises(RunError, match="holds a run that differs in: approach, base"):
        train_own(OwnSettings(wardrobe, tmp_path))


def test_a_model_of_ones_own_is_a_base_too(small: Path, wardrobe: Path, tmp_path: Path) -> None:
    """Its features are its base's, so what is learned on them is the same."""
    first = train_own(OwnSettings(wardrobe, tmp_path / "first", small))
    second = train_own(OwnSettings(wardrobe, tmp_path / "second", tmp_path / "first" / "model.onnx"))
    note = first["folds"].pop("protocol") + "; the base model has learned from these photos, so these figures flatter"
    assert second["folds"].pop("protocol") == note
    assert first == second
    card = read_model(tmp_path / "second" / "model.onnx").card
    assert card.weights["source"] == "model: wardrobe"
    assert card.weights["weights"] == read_model(small).card.weights, "where the features come from is not lost"
    assert card.training["command"].endswith("--base model.onnx --split random --seed 0")


def test_few_photos_promise_nothing(small: Path, tmp_path: Path) -> None:
    train_own(OwnSettings(draw_classes(tmp_path / "few.v2", photos=4), tmp_path / "run", small))
    card = read_model(tmp_path / "run" / "model.onnx").card
    assert card.name == "few.v2"
    assert card.promise["kept"] is False
    assert card.data["folds"] == 4, "no more folds than the smallest class has photos"


def test_how_far_the_folds_are_is_told(small: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    class Listening(Silent):
        def stage(self, name: str) -> None:
            self.name = name

        def progress(self, done: int, total: int) -> None:
            told.append((self.name, done, total))

    data = draw_classes(tmp_path / "data", photos=10)
    train_own(OwnSettings(data=data, out=tmp_path / "run", base=small), Listening())
    steps = [(done, total) for name, done, total in told if name == "Learning and measuring"]
    assert len(steps) == 5
    assert steps == sorted(set(steps))
    assert steps[-1] == (30, 30)


def test_few_photos_of_which_two_are_alike_are_enough(small: Path, tmp_path: Path) -> None:
    root = draw_classes(tmp_path / "few", photos=4)
    (root / "bow" / "03.png").unlink()
    draw(0, 0).save(root / "bow" / "03.jpg", quality=95)
    train_own(OwnSettings(root, tmp_path / "run", small))
    rows = read(tmp_path / "run" / "predictions.csv")
    assert len({row["group"] for row in rows}) == len(rows) - 1 == 11
    assert len({row["fold"] for row in rows}) == 4, "no more folds than the largest class has photos"


@pytest.mark.skipif(sys.platform != "linux", reason="file names that are not UTF-8")
def test_file_names_that_are_not_utf8_survive(small: Path, tmp_path: Path) -> None:
    data = draw_classes(tmp_path / "data", 6)
    odd = os.fsdecode(b"caf\xe9.png")
    (data / "bow" / "00.png").rename(data / "bow" / odd)
    train_own(OwnSettings(data, tmp_path / "own", base=small))
    with (tmp_path / "own" / "predictions.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert f"bow/{odd}" in [row["path"] for row in csv.DictReader(file)]
    assert json.loads(to_json({"folder": odd})) == {"folder": odd}


def test_given_parts_teach_calibrate_and_judge(small: Path, tmp_path: Path) -> None:
    for number, part in enumerate(("train", "validation", "test")):
        draw_classes(tmp_path / "parts" / part, photos=6, start=6 * number)
    metrics = train_own(OwnSettings(tmp_path / "parts", tmp_path / "run", small))
    assert {part: row["photos"] for part, row in metrics.items()} == {"validation": 18, "test": 18}
    classifier = Classifier.load(tmp_path / "run" / "model.onnx")
    assert classifier.card.data["parts"] == {"train": 18, "validation": 18, "test": 18}
    assert classifier.card.data["known_senders_test_photos"] == 0, "nobody knows the senders"
    promise, test = classifier.card.promise, classifier.card.metrics["test"]
    measured_on = f"the test part, {test['photos']} photos; chosen on the validation part, 18"
    assert promise["measured_on"] == measured_on
    assert {"share": promise["share"], "accuracy": promise["measured_accuracy"]} == test["sure"]
    rows = read(tmp_path / "run" / "predictions.csv")
    assert {row["part"] for row in rows} == {"validation", "test"}
    paths = [str(photo.relative_to(tmp_path / "parts")) for photo in (tmp_path / "parts").glob("*/*/*.png")]
    assert {path.split(os.sep)[0] for path in known_photos(tmp_path / "run", tmp_path / "parts", paths)} == {
        "train",
        "validation",
    }
    predictions = classifier.predict_batch([tmp_path / "parts" / row["path"] for row in rows])
    for row, prediction in zip(rows, predictions, strict=True):  # what is measured is what a user gets
        for label, probability in prediction.top(3):
            assert float(row[label]) == pytest.approx(probability, abs=1e-4)

    # With folds over the same photos, the parts count for nothing.
    folds = train_own(OwnSettings(tmp_path / "parts", tmp_path / "folds", small, split="random"))
    assert folds["folds"]["photos"] == 54
    with pytest.raises(RunError, match="differs in: split; choose another folder"):
        train_own(OwnSettings(tmp_path / "parts", tmp_path / "run", small, split="random"))
    (tmp_path / "parts" / "train" / "bow" / "00.png").unlink()
    with pytest.raises(RunError, match="differs in: data; choose another folder"):
        train_own(OwnSettings(tmp_path / "parts", tmp_path / "run", small))
    for photo in (tmp_path / "parts" / "train" / "tie").iterdir():
        if photo.name != "00.png":
            photo.unlink()
    with pytest.raises(RunError, match=r"too few photos in the train part .*: tie \(1\)"):
        train_own(OwnSettings(tmp_path / "parts", tmp_path / "again", small))


def draw_dataset(root: Path, sender: Callable[[str, int], str]) -> None:
    """Draw GitHub's edition with twelve photos of each of three classes."""
    (root / "images").mkdir(parents=True)
    rows = []
    for kind, label in enumerate(("Hat", "Shoes", "Skirt")):
        for number in range(12):
            draw(kind, number).save(root / "images" / f"{label}-{number}.png")
            rows.append((f"{label}-{number}", sender(label, number), label, "False"))
    with (root / "images.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "sender_id", "label", "kids"), *rows])


def test_senders_that_are_known_are_kept_apart_and_a_known_dataset_is_said(small: Path, tmp_path: Path) -> None:
    draw_dataset(tmp_path / "data", lambda label, number: f"sender {number // 3}")
    metrics = train_own(OwnSettings(tmp_path / "data", tmp_path / "run", small))
    assert "no sender in two folds" in metrics["folds"]["protocol"]
    assert "the base model has learned from the Clothing dataset: if these" in metrics["folds"]["protocol"]
    folds: dict[str, set[str]] = {}
    for row in read(tmp_path / "run" / "predictions.csv"):
        folds.setdefault(row["sender"], set()).add(row["fold"])
    assert len(folds) == 4
    assert all(len(found) == 1 for found in folds.values())
    rows = read(tmp_path / "run" / "predictions.csv")
    labels, senders = ("Hat", "Shoes", "Skirt"), list(dict.fromkeys(row["sender"] for row in rows))
    wanted = measure(
        np.array([labels.index(row["label"]) for row in rows]),
        np.array([[float(row[label]) for label in labels] for row in rows]),
        labels,
        threshold=0.5,
        groups=np.array([senders.index(row["sender"]) for row in rows]),
    )
    assert metrics["folds"]["intervals"] == wanted["intervals"]
    assert metrics["folds"]["by"]["sender_size"].keys() == {"5-19"}, "nine photos of each"


def test_a_class_of_one_sender_leaves_the_others_their_folds(small: Path, tmp_path: Path) -> None:
    draw_dataset(tmp_path / "data", lambda label, number: "alone" if label == "Shoes" else f"sender {number // 2}")
    train_own(OwnSettings(tmp_path / "data", tmp_path / "run", small))
    card = read_model(tmp_path / "run" / "model.onnx").card
    assert card.data["one_sender"] == ["Shoes"]
    assert card.data["split"].endswith("no sender in two folds, but for Shoes: all of one sender")
    assert card.metrics["folds"]["protocol"].startswith(card.data["split"])
    assert not card.promise["kept"]
    assert card.data["folds"] == 5
    folds = {row["fold"] for row in read(tmp_path / "run" / "predictions.csv") if row["label"] == "Shoes"}
    assert len(folds) > 1, "each photo of it is judged by a head that has seen others of it"


def test_test_photos_whose_copies_taught_are_counted(small: Path, tmp_path: Path) -> None:
    for part in ("train", "validation", "test"):
        for kind, name in enumerate(CLASSES):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for number in range(5):
                other = 0 if part == "train" else 5 if part == "validation" else 10
                picture = draw(kind, number if part == "test" and number < 2 else number + other)
                picture.save(tmp_path / "data" / part / name / f"{number}.{'bmp' if part == 'test' else 'png'}")
    train_own(OwnSettings(tmp_path / "data", tmp_path / "run", small))
    card = read_model(tmp_path / "run" / "model.onnx").card
    assert card.data["taught_test_photos"] >= 2 * len(CLASSES)
    rows = [row for row in read(tmp_path / "run" / "predictions.csv") if row["taught"] == "true"]
    assert len(rows) == card.data["taught_test_photos"]
    assert {f"test/{name}/{number}.bmp" for name in CLASSES for number in (0, 1)} <= {row["path"] for row in rows}


@pytest.mark.parametrize("parts", [(), ("train", "validation", "test")], ids=["folders", "parts"])
def test_a_class_folder_without_pictures_does_not_vanish(small: Path, tmp_path: Path, parts: tuple[str, ...]) -> None:
    roots = [tmp_path / "data" / part for part in parts] or [tmp_path / "data"]
    for place, root in enumerate(roots):
        for kind, name in enumerate(CLASSES):
            (root / name).mkdir(parents=True)
            for number in range(4):
                draw(kind, 4 * place + number).save(root / name / f"{number}.png")
    (roots[0] / "sari").mkdir()
    (roots[0] / "sari" / "photo.jxl").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"no photo can be used of sari .*add photos, or take the folder away"):
        train_own(OwnSettings(tmp_path / "data", tmp_path / "run", small))


@pytest.mark.parametrize("looks", [1, 2])
def test_a_class_of_one_photo_many_times_is_said(small: Path, tmp_path: Path, looks: int) -> None:
    root = draw_classes(tmp_path / "data", photos=5)
    for number in range(5):
        (root / "bow" / f"0{number}.png").unlink()
        draw(0, number % looks).save(root / "bow" / f"0{number}.jpg", quality=95 - 2 * number)
    train_own(OwnSettings(root, tmp_path / "run", small))
    assert len({row["group"] for row in read(tmp_path / "run" / "predictions.csv") if row["label"] == "bow"}) == looks
    card = read_model(tmp_path / "run" / "model.onnx").card
    assert card.data["all_alike"] == ["bow"]
    assert card.data["split"].endswith("near copies in one fold, but for bow: all near copies")
    assert not card.promise["kept"]


def test_a_promise_needs_photos_that_are_independent(small: Path, tmp_path: Path) -> None:
    """Thirty photos of each class keep it; five of each, six times each as frames of a film are, do not."""
    train_own(OwnSettings(draw_classes(tmp_path / "many", photos=30), tmp_path / "run"))
    promise = read_model(tmp_path / "run" / "model.onnx").card.promise
    assert promise["kept"], "what is drawn is easy to tell apart"
    assert promise["share"] * promise["photos"] >= SHOWN
    low, high = promise["interval"]
    assert 0.9 < low < 0.97 < promise["measured_accuracy"] <= high

    films = draw_classes(tmp_path / "films", photos=5)
    for photo in films.glob("*/*.png"):
        for frame in range(5):
            Image.open(photo).point(lambda value, by=frame: value + by + 1).save(photo.with_suffix(f".{frame}.png"))
    train_own(OwnSettings(films, tmp_path / "films run", small))
    card = read_model(tmp_path / "films run" / "model.onnx").card
    assert card.data["photos"] == 90
    assert not card.promise["kept"]
    groups = {row["group"] for row in read(tmp_path / "films run" / "predictions.csv")}
    assert len(groups) < SHOWN


def write_parts(path: Path, rows: Iterable[tuple[str, ...]], *columns: str) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "part", "sender", *columns), *rows])
    return path


@pytest.fixture(scope="module")
def tinted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of three classes that any features tell apart, by their tint; and one of a bow, saved many times."""
    root = tmp_path_factory.mktemp("tinted")
    for kind, name in enumerate(CLASSES):
        (root / name).mkdir()
        for number in range(55):
            random = np.random.default_rng([kind, number])
            tint = random.integers(30, 150, 3)
            tint[kind] = 255
            pixels = np.asarray(draw(number % 3, number), np.int64) * tint // 255
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number:02}.jpg", quality=95)
    (root / "same").mkdir()
    for number in range(55):
        Image.open(root / "bow" / "00.jpg").save(root / "same" / f"{number:02}.jpg", quality=40 + number)
    return root


TEST = {"bow": "test", "scarf": "test", "tie": "validation"}


def part(number: int) -> str:
    return "train" if number < 15 else "test"


@pytest.mark.parametrize(
    ("place", "kept"),
    [
        (lambda name, number: (name, "", ""), True),
        (lambda name, number: (name, part(number), ""), True),
        (lambda name, number: (name, "train" if number < 15 + 10 * (name == "tie") else TEST[name], ""), False),
        (lambda name, number: (name, "train" if number < 37 else "test", ""), False),
        (lambda name, number: (name, part(number), f"{number % 9}"), False),
        (lambda name, number: (name, "", f"{name} {number}"), True),
        (lambda name, number: (name, "", "anna" if name == "bow" else f"{name} {number}"), False),
        (lambda name, number: ("same" if name == "bow" else name, "", ""), False),
    ],
    ids=["folds", "parts", "class without test photos", "few photos", "few senders", "senders", "one", "alike"],
)
def test_a_promise_is_kept_where_the_photos_can_show_it(
    small: Path, tinted: Path, tmp_path: Path, place: Callable[[str, int], tuple[str, str, str]], kept: bool
) -> None:
    rows = []
    for name, number in itertools.product(CLASSES, range(55)):
        folder, where, sender = place(name, number)
        rows.append((f"{folder}/{number:02}.jpg", name, where, sender))
    table = write_parts(tmp_path / "labels.csv", rows)
    *_, figures = train_own(OwnSettings(table, tmp_path / "run", small, photos=tinted)).values()
    promise = read_model(tmp_path / "run" / "model.onnx").card.promise
    assert promise["kept"] == kept
    assert {"share": promise["share"], "accuracy": promise["measured_accuracy"]} == figures["sure"]
    assert promise["measured_accuracy"] >= 0.97
    assert 0.7 < promise["share"] < 1, "there is room for strangers"
    judged = read(tmp_path / "run" / "predictions.csv")
    best = [max(float(row[name]) for name in CLASSES) for row in judged]
    assert 0.85 < np.mean(best) < 0.99, "that all come out right does not make them certain"


def test_a_few_validation_photos_do_not_overrule_the_others(small: Path, tmp_path: Path) -> None:
    """They are judged beside the test photos; and senders who taught are counted."""
    draw_classes(tmp_path, photos=20)
    part = {0: "validation", 1: "validation", 2: "test", 3: "test", 4: "test"}
    table = write_parts(
        tmp_path / "labels.csv",
        [
            (f"{name}/{number:02}.png", name, part.get(number, "train"), "anna" if number in (3, 9) else f"{number}")
            for name in CLASSES
            for number in range(20)
        ],
    )
    metrics = train_own(OwnSettings(table, tmp_path / "run", small))
    assert {name: row["photos"] for name, row in metrics.items()} == {"validation": 6, "test": 9}
    card = read_model(tmp_path / "run" / "model.onnx").card
    assert card.promise["measured_on"] == "the test part, 9 photos; chosen on the train part, 45, in 5 folds"
    assert not known_photos(
        tmp_path / "run", tmp_path, [f"{name}/0{number}.png" for name in CLASSES for number in part]
    )
    assert card.data["known_senders_test_photos"] == 3
    rows = [row for row in read(tmp_path / "run" / "predictions.csv") if row["part"] == "test"]
    truth = np.array([CLASSES.index(row["label"]) for row in rows])
    probabilities = np.array([[float(row[name]) for name in CLASSES] for row in rows])
    groups = np.array([Path(row["path"]).stem for row in rows])
    wanted = measure(truth, probabilities, CLASSES, threshold=card.threshold, groups=groups.tolist())
    assert metrics["test"]["intervals"] == wanted["intervals"], "three photos each are of one sender"
    sure, right = probabilities.max(1) >= card.threshold, probabilities.argmax(1) == truth
    assert sure.any()
    assert card.promise["interval"] == share_interval(right[sure], groups[sure].tolist())


def test_photos_in_no_part_beside_others_are_asked_about(small: Path, tmp_path: Path) -> None:
    draw_classes(tmp_path, photos=8)
    rows = [
        (f"{name}/0{number}.png", name, "" if number == 7 else "test" if number == 6 else "train", "", "0.9", "true")
        for name in CLASSES
        for number in range(8)
    ]
    table = write_parts(tmp_path / "labels.csv", rows, "probability", "sure")  # as predict writes it
    with pytest.raises(RunError, match=r"3 of 24 photos are in no part, such as bow/07.png; put each in one, or say"):
        train_own(OwnSettings(table, tmp_path / "run", small))
    metrics = train_own(OwnSettings(table, tmp_path / "run", small, split="random"))
    assert metrics["folds"]["photos"] == 24
    assert read_model(tmp_path / "run" / "model.onnx").card.data["unchecked_labels"] == 24


def remove(*names: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for name in names:
            for photo in sorted((root / name).iterdir())[2:]:
                photo.unlink()

    return change


def empty(root: Path) -> None:
    for name in ("bow", "scarf"):
        for photo in (root / name).iterdir():
            photo.unlink()
        (root / name).rmdir()


def spoil(root: Path) -> None:
    for photo in (root / "scarf").iterdir():
        photo.write_bytes(b"no picture")


@pytest.mark.parametrize(
    ("change", "split", "error", "reason"),
    [
        (empty, None, DatasetError, "only one class"),
        (remove("bow", "tie"), None, RunError, r"too few photos to learn from .*: bow \(2\), tie \(2\); add photos"),
        (spoil, None, DatasetError, r"no photo can be used of scarf"),
        (lambda root: None, "sender", RunError, "names no senders; choose another --split"),
        (lambda root: None, "given", RunError, "does not come in train, validation and test parts"),
    ],
    ids=["one class", "two photos", "no readable photo", "no senders", "no parts"],
)
def test_data_that_cannot_do_is_explained(
    tmp_path: Path, change: Callable[[Path], None], split: Any, error: type[Exception], reason: str
) -> None:
    root = draw_classes(tmp_path / "data", photos=3)
    change(root)
    with pytest.raises(error, match=reason):
        train_own(OwnSettings(root, tmp_path / "run", split=split))
    assert not (tmp_path / "run").exists()


def test_a_base_that_cannot_do_is_refused_before_any_photo_is_looked_at(
    tmp_path: Path, tiny_graph: Any, tiny_card: Any, pack_model: Callable[[Any, str], bytes]
) -> None:
    import onnx

    nothing = tmp_path / "no photos"
    photo = tmp_path / "photo.png"
    draw(0, 0).save(photo)
    for base in (photo, tmp_path / "missing.onnx"):
        with pytest.raises(ModelError, match=base.name):
            train_own(OwnSettings(nothing, tmp_path / "run", base=base))
    graph = onnx.ModelProto()
    graph.CopyFrom(tiny_graph)
    convolution = next(node for node in graph.graph.node if node.op_type == "Conv")
    convolution.output[0] = "raw"
    graph.graph.node.insert(5, onnx.helper.make_node("Neg", ["raw"], ["evidence"]))
    (tmp_path / "other.onnx").write_bytes(pack_model(graph, tiny_card.to_json()))
    with pytest.raises(GraftError, match="evidence comes from a Neg node"):
        train_own(OwnSettings(nothing, tmp_path / "run", base=tmp_path / "other.onnx"))


def test_near_copies_of_near_copies_are_one_group() -> None:
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(40, 100)).astype(np.float32)
    embeddings[10] = embeddings[3] + 0.05 * random.normal(size=100)
    embeddings[20] = embeddings[10] + 0.05 * random.normal(size=100)
    groups = find_copies(embeddings)
    assert groups[3] == groups[10] == groups[20]
    assert len(set(groups.tolist())) == 38
    assert len(set(find_copies(np.ones((5, 3), np.float32)).tolist())) == 5, "photos of nothing are not copies"


def test_near_copies_are_found_however_far_apart_they_are_listed() -> None:
    """A chain of them, of which each is near the next one only, through a thousand photos in any order."""
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(1000, 100)).astype(np.float32)
    chain = random.permutation(1000)[:9]
    for before, after in itertools.pairwise(chain):
        embeddings[after] = embeddings[before] + 0.15 * random.normal(size=100)
    groups = find_copies(embeddings)
    assert len(set(groups[chain].tolist())) == 1
    assert len(set(groups.tolist())) == 1000 - len(chain) + 1


def test_few_photos_that_all_come_out_right_do_not_make_it_certain() -> None:
    confidence = []
    for photos in (12, 120, 1200):
        labels = np.arange(photos) % 3
        logits = (4 * np.eye(3)[labels]).astype(np.float32)
        likelihood = np.exp(logits / fit_cautiously(logits, labels))
        confidence.append(float((likelihood / likelihood.sum(1, keepdims=True)).max(1).mean()))
    assert confidence == sorted(confidence)
    labels = np.arange(30) % 3
    logits = (4 * np.eye(3)[labels]).astype(np.float32)
    usual = fit_cautiously(logits, labels)
    logits[:3] *= 0.02
    assert fit_cautiously(logits, labels) > 0.9 * usual, "the photo that is doubted is a usual one of its class"
    for photos, found in zip((12, 120, 1200), confidence, strict=True):
        assert found == pytest.approx(photos / (photos + 3), abs=0.02)


def test_the_threshold_leaves_room_for_strangers_where_the_promise_is_kept_anyway() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 400)
    best = random.uniform(0.6, 1, 400)
    probabilities = np.where(np.eye(2)[labels] > 0, best[:, None], 1 - best[:, None])
    promise = make_promise(probabilities, labels)
    assert promise.kept
    assert promise.share == pytest.approx(0.95, abs=0.01)
    assert promise.threshold == pytest.approx(np.quantile(best, 0.05), abs=1e-3)
    few = make_promise(probabilities[:29], labels[:29])
    assert (few.kept, few.share) == (False, 1), "so few answers prove nothing"
    assert not make_promise(probabilities[:31], labels[:31]).kept, "nor do as many less those that make room"
    order = np.argsort(best)
    for places, share, accuracy in ((order[-12:], 1.0, 0.97), (order[:10], 0.95, 1.0)):
        truth = labels.copy()
        truth[places] = 1 - truth[places]
        promise = make_promise(probabilities, truth)
        assert promise.kept
        assert (promise.share, promise.measured_accuracy) == pytest.approx((share, accuracy)), "the promise comes first"
    wrong = random.random(400) < 0.2
    assert not make_promise(np.where(wrong[:, None], probabilities[:, ::-1], probabilities), labels).kept


def test_it_needs_no_torch(wardrobe: Path, run: Path, tmp_path: Path) -> None:
    code = f"""
import sys
class Missing:  # an entry of None in sys.modules would not do: SciPy looks there for torch
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
from clothing_classifier.cli import main
main(["train", "--data", {str(wardrobe)!r}, "--out", {str(tmp_path / "first")!r}], standalone_mode=False)
model = {str(tmp_path / "first" / "model.onnx")!r}
main(["info", model], standalone_mode=False)
main(["predict", "--model", model, {str(wardrobe / "tie" / "03.png")!r}], standalone_mode=False)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].startswith("tie")
    assert (tmp_path / "first" / "predictions.csv").read_bytes() == (run / "predictions.csv").read_bytes()


def test_the_service_speaks_of_the_new_classes_and_shows_where(run: Path, wardrobe: Path) -> None:
    pytest.importorskip("uvicorn", reason="needs the extra serve")
    words = ["serve", "--model", str(run / "model.onnx"), "--port", "0"]
    process = subprocess.Popen([sys.executable, "-m", "clothing_classifier", *words], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.search(r"http://127.0.0.1:(\d+)/", line)
        assert found, line
        connection = HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
        photo = wardrobe / "scarf" / "05.png"
        connection.request("POST", "/v1/predictions?evidence=true", photo.read_bytes())
        (result,) = json.loads(connection.getresponse().read())["results"]
        connection.close()
    finally:
        process.terminate()
        process.wait(60)
        process.stderr.close()
    classifier = Classifier.load(run / "model.onnx")
    assert result["label"] == result["evidence"]["label"] == "scarf"
    drawn = np.asarray(Image.open(BytesIO(base64.b64decode(result["evidence"]["png"]))), np.float64)
    evidence = classifier.evidence(photo)
    cells = np.asarray(Image.fromarray(drawn.astype(np.uint8)).resize(evidence.shape[::-1], Image.Resampling.BOX))
    assert np.corrcoef(cells.ravel(), evidence.ravel())[0, 1] > 0.8, "the picture shows the new class's evidence"


def test_photos_of_garments_under_other_names(shared_dataset: Path, tmp_path: Path) -> None:
    names = {"Skirt": "kilt", "Shoes": "clogs", "Hat": "fez"}
    images = {
        label: [row["image"] for row in read(shared_dataset / "images.csv") if row["label"] == label] for label in names
    }
    files = {
        label: [file for name in found if (file := shared_dataset / "images" / f"{name}.jpg").is_file()]
        for label, found in images.items()
    }
    for label, name in names.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for file in files[label][:10]:
            (tmp_path / "data" / name / file.name).write_bytes(file.read_bytes())
    metrics = train_own(OwnSettings(tmp_path / "data", tmp_path / "run"))
    assert metrics["folds"]["accuracy"] >= 0.8, "chance is a third"
    classifier = Classifier.load(tmp_path / "run" / "model.onnx")
    assert [classifier.predict(file).label for file in files["Shoes"][20:25]].count("clogs") >= 4


def test_settings_are_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = OwnSettings(Path("data"), Path("run"))
    assert replace(settings, base=Path("models/mine.onnx")).describe("random") == (
        "clothing train --data data --out run --base mine.onnx --split random --seed 0"
    )
    assert replace(settings, data=Path("my photos")).describe("random") == (
        "clothing train --data 'my photos' --out run --split random --seed 0"
    )
    monkeypatch.chdir(tmp_path)
    assert replace(settings, data=Path(), photos=Path()).describe("given") == (
        f"clothing train --data {tmp_path.name} --out run --photos {tmp_path.name} --split given --seed 0"
    )


@pytest.mark.parametrize("parts", [("train", "test"), ("training", "val")])
def test_without_a_third_part_the_first_calibrates_in_folds(
    small: Path, tmp_path: Path, parts: tuple[str, str]
) -> None:
    for part, start in zip(parts, (0, 50), strict=True):
        draw_classes(tmp_path / "data" / part, start=start)
    metrics = train_own(OwnSettings(tmp_path / "data", tmp_path / "run", small))
    judges = "test" if parts[1] == "test" else "validation"
    assert list(metrics) == [judges]
    assert metrics[judges]["photos"] == 3 * PHOTOS
    card = read_model(tmp_path / "run" / "model.onnx").card
    assert card.data["parts"] == {"train": 3 * PHOTOS, judges: 3 * PHOTOS}
    assert card.promise["measured_on"] == f"the {judges} part, 36 photos; chosen on the train part, 36, in 5 folds"
    rows = read(tmp_path / "run" / "predictions.csv")
    assert {row["part"] for row in rows} == {judges}
    assert not known_photos(tmp_path / "run", tmp_path / "data", [row["path"] for row in rows])
    train_own(OwnSettings(tmp_path / "data" / parts[0], tmp_path / "folds", small))
    folds = read_model(tmp_path / "folds" / "model.onnx").card
    assert (card.temperature, card.training["residual"]) == (folds.temperature, folds.training["residual"])
    assert card.temperature != 1
    assert card.threshold != 0.5


@pytest.mark.parametrize("parts", [(".",), ("train", "test"), ("train", "val", "test")], ids=len)
def test_what_cannot_be_told_apart_is_not_told_with_certainty(
    small: Path, tmp_path: Path, parts: tuple[str, ...]
) -> None:
    """It is calibrated by photos that the head did not learn from: of those that it did, all would come out right."""
    for number, (part, name) in enumerate(itertools.product(parts, CLASSES)):
        (tmp_path / "data" / part / name).mkdir(parents=True)
        for photo in range(PHOTOS):
            draw(0, PHOTOS * number + photo).save(tmp_path / "data" / part / name / f"{photo}.png")
    train_own(OwnSettings(tmp_path / "data", tmp_path / "run", small))
    probabilities = [[float(row[name]) for name in CLASSES] for row in read(tmp_path / "run" / "predictions.csv")]
    assert np.max(probabilities, 1).mean() < 0.5


def test_a_table_of_labels_teaches_too(small: Path, tmp_path: Path) -> None:
    """As the page writes it after a person's corrections: a class in two spellings, and what nobody was sure of."""
    root = draw_classes(tmp_path / "photos")
    rows = [
        (f"{name}/{number:02}.png", "Bow" if (name, number) == ("bow", 0) else name, f"person {number // 2}")
        for name in CLASSES
        for number in range(PHOTOS)
    ]
    draw(0, 99).save(root / "unsure.png")
    (root / "broken.png").write_bytes(b"")
    rows += [("unsure.png", "Not sure", "person 0"), ("broken.png", "bow", "person 0"), ("gone.png", "tie", "person 1")]
    table = tmp_path / "labels.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label", "sender"), *rows])
    metrics = train_own(OwnSettings(table, tmp_path / "run", small, photos=root))
    assert metrics["folds"]["photos"] == 3 * PHOTOS
    assert "no sender in two folds" in metrics["folds"]["protocol"]
    model = read_model(tmp_path / "run" / "model.onnx")
    assert (model.card.name, model.card.labels) == ("labels", CLASSES)
    assert "--photos photos" in model.card.training["command"]
    dropped = {p.path: p.dropped for p in read_manifest(tmp_path / "run" / "manifest.csv").photos if p.dropped}
    assert dropped == {
        "unsure.png": "label not sure: it is what a model answers when it is not sure",
        "broken.png": "unreadable: is empty",
        "gone.png": "unreadable: does not exist",
    }
    folder = train_own(OwnSettings(root, tmp_path / "other", small, split="random"))
    assert folder["folds"]["weighted_f1"] == pytest.approx(metrics["folds"]["weighted_f1"], abs=0.3)


def test_a_run_is_not_made_among_its_classes(small: Path, tmp_path: Path) -> None:
    root = draw_classes(tmp_path / "data", photos=4)
    with pytest.raises(RunError, match="lies in the folder of the photos, where folders are classes"):
        train_own(OwnSettings(root, root / "model", small))
    assert not (root / "model").exists()
    with pytest.raises(RunError, match="is the folder of the photos; choose another --out"):
        train_own(OwnSettings(root, root, small))
    assert not (root / "config.json").exists()


def test_a_folder_that_cannot_be_made_is_told_before_photos_are_looked_at(small: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "runs" / "run"
    with pytest.raises(RunError, match=r"run: cannot be made in .*file \(Not a directory\); choose another --out"):
        train_own(OwnSettings(tmp_path / "none", out, small))


@pytest.mark.parametrize("seed", range(4))
def test_no_class_is_judged_by_heads_that_never_saw_it(small: Path, tmp_path: Path, seed: int) -> None:
    """Each class is of two or three of few senders: in few folds, all of one class's would often be in the same one."""
    random = np.random.default_rng(seed)
    senders = {label: random.choice(5, 2, replace=False) for label in ("Hat", "Shoes", "Skirt")}
    draw_dataset(tmp_path / "data", lambda label, number: f"sender {senders[label][number % 2]}")
    train_own(OwnSettings(tmp_path / "data", tmp_path / "run", small))
    folds: dict[str, set[str]] = {}
    for row in read(tmp_path / "run" / "predictions.csv"):
        folds.setdefault(row["label"], set()).add(row["fold"])
    assert min(map(len, folds.values())) > 1
    assert read_model(tmp_path / "run" / "model.onnx").card.data["one_sender"] == []
