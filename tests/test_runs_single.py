from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="needs the extra train")

from clothing_classifier import Classifier
from clothing_classifier.card import mark, read_model
from clothing_classifier.dataset import read_manifest
from clothing_classifier.runs import RunError, Settings, train
from clothing_classifier.training.approaches import APPROACHES
from clothing_classifier.training.calibration import soften
from clothing_classifier.training.splits import SplitError

CLASSES = ("kilt", "poncho", "sari")
EPOCHS = 3


def draw_dataset(root: Path, photos: int = 21) -> Path:
    """A folder a class, of classes that no edition has; each class is a colour with noise on it."""
    random = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for photo in range(photos):
            pixels = random.integers(0, 90, (60, 45, 3), dtype=np.uint8)
            pixels[..., number] += 120
            Image.fromarray(pixels).save(root / name / f"{photo:02}.png")
    return root


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_dataset(tmp_path_factory.mktemp("data") / "wardrobe")


def make_settings(dataset: Path, out: Path) -> Settings:
    approach = APPROACHES["custom-cnn"]
    # 45 training photos make one step an epoch at the recipe's batch size; smaller batches make several.
    approach = replace(approach, recipe=replace(approach.recipe, batch_size=15, epochs=EPOCHS))
    return Settings(approach=approach, data=dataset, out=out, seed=3, device="cpu")


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    train(make_settings(dataset, out))
    return out


def test_the_folder_holds_all_that_made_the_model(run: Path, dataset: Path) -> None:
    assert sorted(file.name for file in run.iterdir()) == [
        "checkpoint.pt",
        "config.json",
        "curves.csv",
        "manifest.csv",
        "metrics.json",
        "model.onnx",
        "predictions.csv",
        "split.csv",
    ]
    config = json.loads((run / "config.json").read_text())
    assert config["labels"] == list(CLASSES)
    assert config["data"]["digest"] == read_manifest(run / "manifest.csv").digest
    with (run / "curves.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == [str(n + 1) for n in range(EPOCHS)]
    with (run / "split.csv").open() as file:
        parts = {row["path"]: row["part"] for row in csv.DictReader(file)}
    assert len(parts) == 63
    with (run / "predictions.csv").open() as file:
        predictions = list(csv.DictReader(file))
    assert {row["path"] for row in predictions} == {path for path, part in parts.items() if part != "train"}
    assert str(dataset.parent) not in (run / "config.json").read_text(), "a run's record names no path of its machine"


def test_the_model_knows_its_figures_its_data_and_its_command(run: Path) -> None:
    card = Classifier.load(run / "model.onnx").card
    assert card.labels == CLASSES
    assert card.metrics == json.loads((run / "metrics.json").read_text())
    assert card.metrics["test"]["photos"] == card.data["parts"]["test"] == 9
    assert card.data["classes"] == dict.fromkeys(CLASSES, 21)
    assert card.training["command"] == "clothing train custom-cnn --data wardrobe --out first --split random --seed 3"
    assert card.weights["source"] == "none"
    assert card.promise["accuracy"] == 0.97
    assert card.promise["measured_on"].startswith("the test part, ")
    assert card.promise["share"] == card.metrics["test"]["sure"]["share"]
    assert card.promise["measured_accuracy"] == (card.metrics["test"]["sure"]["accuracy"] or 0)
    low, high = card.promise["interval"] or (0, 1)
    assert low <= card.promise["measured_accuracy"] <= high
    assert (card.promise["interval"] is None) == (card.promise["share"] == 0)


def test_the_file_knows_the_photos_that_it_was_made_with_and_no_others(run: Path) -> None:
    with (run / "split.csv").open() as file:
        parts = {row["path"]: row["part"] for row in csv.DictReader(file)}
    known = read_model(run / "model.onnx").read_photos()
    assert known is not None
    for photo in read_manifest(run / "manifest.csv").kept:
        assert (mark(photo.sha256) in known) == (parts[photo.path] != "test")


def test_what_was_measured_is_what_the_file_says_of_the_photos(run: Path, dataset: Path) -> None:
    """The recorded probabilities are those that a user gets for the same files."""
    classifier = Classifier.load(run / "model.onnx")
    with (run / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    predictions = classifier.predict_batch([dataset / row["path"] for row in rows])
    for row, prediction in zip(rows, predictions, strict=True):
        for label, probability in prediction.top(len(CLASSES)):
            assert float(row[label]) == pytest.approx(probability, abs=2e-6)


def test_strangers_are_doubted_and_hardly_any_photo_like_those_that_taught(run: Path, dataset: Path) -> None:
    """The evidence is not doubted, so it tells what the answer would be."""
    classifier = Classifier.load(run / "model.onnx")
    strangers = [Image.new("RGB", (45, 60), colour) for colour in ("white", "black", "yellow", "cyan")]
    for photos, least, most in ((strangers, 1.0, 1.0), (sorted(dataset.rglob("*.png")), 0.0, 0.2)):
        output = classifier.run(np.stack([classifier.prepare(photo) for photo in photos]))
        undoubted = soften(output.evidence.mean((2, 3)))
        assert least <= (output.probabilities.max(1) < undoubted.max(1) - 1e-4).mean() <= most
        np.testing.assert_array_equal(output.probabilities.argmax(1), undoubted.argmax(1))


def test_the_same_seed_gives_the_same_run_and_a_finished_one_is_not_trained_again(
    run: Path, dataset: Path, tmp_path: Path
) -> None:
    metrics = train(make_settings(dataset, tmp_path / "second"))
    assert metrics == json.loads((run / "metrics.json").read_text())
    before = (run / "checkpoint.pt").stat().st_mtime_ns
    assert train(make_settings(dataset, run)) == metrics
    assert (run / "checkpoint.pt").stat().st_mtime_ns == before


def test_a_folder_of_another_run_is_not_touched(run: Path, dataset: Path) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in run.iterdir()}
    with pytest.raises(RunError, match=r"differs in: mean, recipe, seed, std; choose another folder"):
        train(replace(make_settings(dataset, run), seed=4, epochs=EPOCHS + 1))
    assert {file.name: file.stat().st_mtime_ns for file in run.iterdir()} == before


def test_a_run_does_not_go_on_with_other_parts(run: Path, dataset: Path, tmp_path: Path) -> None:
    out = shutil.copytree(run, tmp_path / "out")
    split = (out / "split.csv").read_text()
    for changed in (split.replace(",test", ",train", 1), split.replace(",,test", ",somebody,test", 1)):
        (out / "split.csv").write_text(changed)
        with pytest.raises(RunError, match=r"split\.csv: this run began with other senders, or other photos held out"):
            train(make_settings(dataset, out))
        assert (out / "split.csv").read_text() == changed


def test_folders_of_parts_are_taken_as_they_are(dataset: Path, tmp_path: Path) -> None:
    root = tmp_path / "subset"
    for part in ("train", "validation", "test"):
        for name, garment in zip(CLASSES, ("t-shirt", "dress", "hat"), strict=True):
            (root / part / garment).mkdir(parents=True)
            for photo in range(4):
                picture = Image.open(dataset / name / f"{photo:02}.png")
                # A copy of a training photo would be dropped, so each part's photos differ a little.
                picture.rotate(90 * ["train", "validation", "test"].index(part)).save(
                    root / part / garment / f"{photo}.png"
                )
    train(replace(make_settings(root, tmp_path / "run"), epochs=1))
    with (tmp_path / "run" / "split.csv").open() as file:
        for row in csv.DictReader(file):
            assert row["path"].startswith(row["part"] + "/")
    assert Classifier.load(tmp_path / "run" / "model.onnx").labels == ("Dress", "Hat", "T-Shirt")
    shutil.move(root / "train" / "hat", tmp_path / "hat")
    with pytest.raises(RunError, match="the train part has no photos of Hat; add some to it"):
        train(replace(make_settings(root, tmp_path / "other"), epochs=1))


def write_labels(file: Path, rows: list[tuple[str, str, str, str]]) -> Path:
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(("path", "label", "part", "sender"))
        writer.writerows(rows)
    return file


def test_a_table_says_which_photo_is_in_which_part(dataset: Path, tmp_path: Path) -> None:
    parts = ("train", "train", "validation", "test", "")
    rows = [(f"{name}/{photo:02}.png", name, parts[photo % 4], "") for name in CLASSES for photo in range(12)]
    table = write_labels(tmp_path / "labels.csv", rows)
    settings = replace(make_settings(table, tmp_path / "run"), photos=dataset, epochs=1)
    train(settings)
    with (tmp_path / "run" / "split.csv").open() as file:
        found = {(row["path"], row["part"]) for row in csv.DictReader(file)}
    assert found == {(path, part) for path, _, part, _ in rows}
    card = read_model(tmp_path / "run" / "model.onnx").card
    assert card.data["split"] == "the data's own train, validation and test parts"
    assert "--data labels.csv --out run --photos wardrobe --split given" in card.training["command"]

    write_labels(table, [*rows, ("sari/20.png", "sari", "", "")])
    with pytest.raises(RunError, match=r"1 of 37 photos are in no part, such as sari/20.png; put each in one, or say"):
        train(replace(settings, out=tmp_path / "other"))
    train(replace(settings, out=tmp_path / "other", split="random"))


def test_a_class_whose_only_sender_does_not_teach_is_not_asked_for_in_a_part(dataset: Path, tmp_path: Path) -> None:
    rows = [
        (f"{name}/{photo:02}.png", name, "", "anna" if name == "sari" else f"{photo % 7}")
        for name in CLASSES
        for photo in range(3 if name == "sari" else 21)
    ]
    settings = make_settings(write_labels(tmp_path / "labels.csv", rows), tmp_path / "run")
    with pytest.raises(RunError, match="the train part has no photos of sari; add photos of other senders, or choose"):
        train(replace(settings, photos=dataset, epochs=1, split="sender"))


def test_a_run_that_stops_while_it_measures_leaves_no_other_model(
    run: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("clothing_classifier.runs.single._measure_file", stop)
    finished = shutil.copytree(run, tmp_path / "finished")
    with pytest.raises(KeyboardInterrupt):
        train(make_settings(dataset, finished))
    assert (finished / "model.onnx").read_bytes() == (run / "model.onnx").read_bytes()
    assert {file.name for file in finished.iterdir()} == {file.name for file in run.iterdir()}


def test_what_learns_without_epochs_takes_time_too(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clothing_classifier.training.learn.learn", lambda network, *_, **__: (network.eval(), []))
    monkeypatch.setattr("clothing_classifier.runs.single.time", SimpleNamespace(monotonic=iter((1.0, 43.0)).__next__))
    settings = make_settings(dataset, tmp_path / "run")
    train(replace(settings, approach=replace(settings.approach, height=32, width=24)))
    assert Classifier.load(tmp_path / "run" / "model.onnx").card.training["seconds"] == 42


def test_data_without_senders_cannot_be_split_by_sender(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(SplitError, match="name no senders"):
        train(replace(make_settings(dataset, tmp_path / "run"), split="sender"))


def command_line(dataset: Path, out: Path) -> list[str]:
    words = ["train", "custom-cnn", "--data", str(dataset), "--out", str(out), "--epochs", "4", "--device", "cpu"]
    return [sys.executable, "-m", "clothing_classifier", *words]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_run_that_is_killed_goes_on_and_ends_with_the_same_figures(dataset: Path, tmp_path: Path) -> None:
    subprocess.run(command_line(dataset, tmp_path / "whole"), check=True, capture_output=True, timeout=300)
    out = tmp_path / "killed"
    checkpoint = out / "checkpoint.pt"
    for _ in range(2):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
        process = subprocess.Popen(command_line(dataset, out), stderr=subprocess.PIPE, text=True)
        while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
            assert process.poll() is None, "it is killed before it ends"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (out / "metrics.json").exists()
    done = subprocess.run(command_line(dataset, out), check=True, capture_output=True, text=True, timeout=300)
    assert (out / "metrics.json").read_text() == (tmp_path / "whole" / "metrics.json").read_text()
    assert (out / "predictions.csv").read_bytes() == (tmp_path / "whole" / "predictions.csv").read_bytes()
    assert "epoch 1/4" not in done.stderr, "the last process went on where the killed ones stopped"


def test_ctrl_c_says_how_to_go_on(dataset: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(command_line(dataset, tmp_path / "run"), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch"):
            break
    os.kill(process.pid, signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Repeat the command to go on" in rest
    assert "Traceback" not in rest


def test_an_unreadable_photo_is_dropped_and_said(dataset: Path, tmp_path: Path) -> None:
    root = draw_dataset(tmp_path / "data", photos=9)
    (root / "kilt" / "00.png").write_bytes(b"<html>not a picture</html>")
    train(replace(make_settings(root, tmp_path / "run"), epochs=1))
    dropped = {
        photo.path: photo.dropped for photo in read_manifest(tmp_path / "run" / "manifest.csv").photos if photo.dropped
    }
    assert list(dropped) == ["kilt/00.png"]


def test_the_command_line_explains_what_it_cannot_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    words = command_line(tmp_path / "empty", tmp_path / "run")
    failed = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert failed.returncode == 2
    assert failed.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "run" / "model.onnx").exists()
