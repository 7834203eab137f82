from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("torch", reason="needs the extra train")

from clothing_classifier import Classifier
from clothing_classifier.runs import RunError, Settings, cross_validate, train
from clothing_classifier.runs.judgement import read_judgement
from clothing_classifier.training.approaches import APPROACHES
from clothing_classifier.training.calibration import _choose_aim, choose_threshold, fit_temperature, promise_across

CLASSES = ("Dress", "Hat", "Pants")
SENDERS = 6


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GitHub edition in small: photos of three classes, from six senders."""
    root = tmp_path_factory.mktemp("data") / "clothing-dataset"
    (root / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    with (root / "images.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "sender_id", "label", "kids"))
        for number in range(54):
            kind = number % len(CLASSES)
            pixels = random.integers(0, 90, (60, 45, 3), dtype=np.uint8)
            pixels[..., kind] += random.integers(20, 120, dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / f"photo-{number:02}.jpg")
            writer.writerow((f"photo-{number:02}", number // len(CLASSES) % SENDERS, CLASSES[kind], number % 2 == 0))
    return root


def make_settings(dataset: Path, out: Path, split: str | None = None) -> Settings:
    approach = APPROACHES["custom-cnn"]
    approach = replace(approach, recipe=replace(approach.recipe, batch_size=12, epochs=2))
    return Settings(approach=approach, data=dataset, out=out, split=split, device="cpu", folds=3)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def crossvals(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("crossvals")
    for protocol in ("random", "sender"):
        cross_validate(make_settings(dataset, root / protocol, protocol))
    return root / "random", root / "sender"


@pytest.fixture(scope="module")
def run(dataset: Path, crossvals: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "model"
    train(replace(make_settings(dataset, out), crossvals=crossvals))
    return out


def test_all_photos_teach_and_the_card_says_what_the_folds_say(run: Path, crossvals: tuple[Path, Path]) -> None:
    card = Classifier.load(run / "model.onnx").card
    assert card.data["parts"] == {"train": 54, "validation": 0, "test": 0}
    assert list(card.metrics) == ["sender folds", "random folds"]
    for folder in crossvals:
        measured = json.loads((folder / "metrics.json").read_text())
        said = card.metrics[f"{folder.name} folds"]
        for name in (
            "protocol",
            "photos",
            "weighted_f1",
            "macro_f1",
            "accuracy",
            "intervals",
            "per_class",
            "by",
            "std",
        ):
            assert said[name] == measured[name]
    assert {source["protocol"] for source in card.training["crossvals"]} == {"random", "sender"}
    assert card.training["command"].endswith("--crossval random --crossval sender")
    assert json.loads((run / "metrics.json").read_text()) == card.metrics
    assert not (run / "predictions.csv").exists(), "no photo is left to predict"


def test_calibration_comes_from_the_folds_that_share_no_sender(run: Path, crossvals: tuple[Path, Path]) -> None:
    _, sender = crossvals
    with (sender / "folds.csv").open() as file:
        rows = list(csv.DictReader(file))
    labels = json.loads((sender / "config.json").read_text())["labels"]
    folds = np.array([int(row["fold"]) for row in rows])
    truth = np.array([labels.index(row["label"]) for row in rows])
    logits, residuals = np.empty((len(rows), len(labels)), np.float32), np.empty(len(rows))
    for fold in range(3):
        found = np.load(sender / f"fold-{fold}.npz")
        logits[folds == fold], residuals[folds == fold] = found["logits"], found["residuals"]
    card = Classifier.load(run / "model.onnx").card
    limit = np.quantile(residuals, 0.9)
    assert (residuals > limit).any()
    assert card.training["residual"]["limit"] == pytest.approx(limit, abs=1e-4)
    logits /= np.maximum(1, residuals / limit)[:, None]
    assert card.temperature == pytest.approx(fit_temperature(logits, truth))
    assert card.threshold == card.promise["threshold"]
    assert "no sender in two folds" in card.promise["measured_on"]
    sure = card.metrics["sender folds"]["sure"]
    assert (sure["share"], sure["accuracy"]) == (card.promise["share"], card.promise["measured_accuracy"])
    interval = card.promise["interval"]
    if sure["share"]:
        assert interval[0] <= sure["accuracy"] <= interval[1]
    else:
        assert interval is None


@given(seed=st.integers(0, 2**32 - 1), skill=st.floats(0.5, 1.0))
@settings(deadline=None, max_examples=40)
def test_a_kept_promise_held_in_each_fold_by_thresholds_of_the_others(seed: int, skill: float) -> None:
    random = np.random.default_rng(seed)
    truth, folds = random.integers(0, 3, 300), np.arange(300) % 3
    said = np.where(random.random(300) < skill, truth, (truth + 1) % 3)
    logits = np.eye(3)[said] * random.uniform(0, 6, (300, 1))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    promise = promise_across(probabilities, truth, folds)
    assert not promise.kept or promise.measured_accuracy >= 0.97
    assert promise.threshold >= choose_threshold(probabilities, truth).threshold or not promise.kept
    assert promise.photos == 300


def test_what_is_told_of_a_threshold_was_not_chosen_on_the_photos_that_judge_it() -> None:
    random = np.random.default_rng(0)
    truth, folds = random.integers(0, 3, 900), np.arange(900) % 3
    said = np.where(random.random(900) < 0.93, truth, (truth + 1) % 3)
    logits = np.eye(3)[said] * random.uniform(0, 6, (900, 1))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    shares = []
    for fold in range(3):
        others = folds != fold
        aim = _choose_aim(probabilities[others], truth[others], folds[others])
        threshold = choose_threshold(probabilities[others], truth[others], aim).threshold
        sure = probabilities[~others].max(1) >= threshold
        shares.append((sure.sum(), (said == truth)[~others][sure].sum()))
    promise = promise_across(probabilities, truth, folds)
    named, right = np.sum(shares, axis=0)
    assert (promise.share, promise.measured_accuracy) == (round(named / 900, 4), round(right / named, 4))


def test_a_fold_of_confident_mistakes_breaks_the_promise() -> None:
    """The other folds' threshold cannot know of them; a promise that looked at all photos at once would be kept."""
    truth = np.zeros(2000, np.int64)
    folds = np.arange(2000) % 2
    probabilities = np.tile([0.95, 0.05], (2000, 1))
    strange = (folds == 1) & (np.arange(2000) % 10 == 1)
    probabilities[strange] = [0.04, 0.96]
    promise = promise_across(probabilities, truth, folds)
    assert not promise.kept
    assert promise.measured_accuracy < 0.97


def test_a_cross_validation_of_something_else_is_refused(
    dataset: Path, crossvals: tuple[Path, Path], tmp_path: Path
) -> None:
    wanted = make_settings(dataset, tmp_path / "run")
    other = replace(wanted, epochs=3, crossvals=crossvals)
    with pytest.raises(RunError, match=r"another model \(it differs in: recipe\)"):
        train(other)
    copied = tmp_path / "copied"
    shutil.copytree(crossvals[0], copied)
    config = json.loads((copied / "config.json").read_text())
    config["data"]["digest"] = "0" * 64
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=r"differs in: data\)"):
        train(replace(wanted, crossvals=(copied,)))
    assert not (tmp_path / "run").exists()


def test_an_unfinished_or_damaged_one_is_named(crossvals: tuple[Path, Path], tmp_path: Path) -> None:
    config = json.loads((crossvals[0] / "config.json").read_text())
    with pytest.raises(RunError, match=r"config\.json is missing"):
        read_judgement([tmp_path], config)
    copied = tmp_path / "copied"
    shutil.copytree(crossvals[0], copied)
    (copied / "fold-1.npz").write_bytes(b"PK")
    with pytest.raises(RunError, match=r"fold-1\.npz: is damaged"):
        read_judgement([copied], config)
    (copied / "fold-1.npz").unlink()
    with pytest.raises(RunError, match=r"copied: is not finished \(fold-1\.npz is missing\); repeat its command"):
        read_judgement([copied], config)
    (copied / "metrics.json").unlink()
    with pytest.raises(RunError, match=r"metrics\.json is missing.*finish it"):
        read_judgement([copied], config)
    with pytest.raises(RunError, match="second run with random folds"):
        read_judgement([crossvals[0], crossvals[0]], config)


def test_a_split_beside_a_cross_validation_is_refused(dataset: Path, crossvals: tuple[Path, Path]) -> None:
    words = ["train", "custom-cnn", "--data", str(dataset), "--out", str(dataset.parent / "never")]
    words += ["--split", "random", "--crossval", str(crossvals[0])]
    done = subprocess.run(
        [sys.executable, "-m", "clothing_classifier", *words], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "nothing to --split" in done.stderr
